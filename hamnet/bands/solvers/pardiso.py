"""MKL PARDISO through ctypes (wheel `mkl`, x86 only): LDL^H of large sparse matrices with inertia.

Two of its traps are kept in mind here. For indefinite matrices iparm(21) must be 1 (or 3): with 0 or 2 solutions
are wrong and no error says so. The complex hermitian mode (mtype -4) reports no inertia: counts come from the real
embedding (mtype -2).
Source: Intel oneMKL reference, "pardiso" and "pardiso iparm parameter" (numbers there are one-based, as in the
comments here).
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hamnet.bands.solvers.factor import FactorCost, Kind, NotPositiveDefinite, embedded, embedded_data
from hamnet.core.bloch_sparse import SparsePattern
from hamnet.errors import ConfigError, ConvergenceError

MATRIX_TYPES = {
    Kind.REAL: -2,
    Kind.REAL_POSITIVE: 2,
    Kind.HERMITIAN: -4,
    Kind.HERMITIAN_POSITIVE: 4,
    Kind.EMBEDDED: -2,
}
ANALYSE, FACTORISE, SOLVE, FREE_FACTOR, FREE_ALL = 11, 22, 33, 0, -1
SEQUENTIAL, INTEL_THREADS = 1, 0
ERRORS = {
    -1: "input inconsistent",
    -2: "not enough memory",
    -3: "reordering failed",
    -4: "zero pivot",
    -7: "diagonal matrix is singular",
    -8: "32-bit integer overflow",
    -9: "not enough memory for out-of-core",
}


@cache
def _library() -> ctypes.CDLL | None:
    try:
        files = importlib.metadata.files("mkl") or []
    except importlib.metadata.PackageNotFoundError:
        return None
    for file in files:
        if file.name.startswith(("libmkl_rt.so", "mkl_rt", "libmkl_rt.dylib")):
            try:
                return ctypes.CDLL(str(Path(str(file.locate())).resolve()))
            except OSError:
                continue
    return None


def is_available() -> bool:
    """True when the wheel `mkl` is installed and loads."""
    return _library() is not None


class PardisoFactor:
    """One pattern, analysed once; then numbers as often as needed.

    Args:
        pattern: upper triangle, diagonal included.
        kind: of matrix.
        threads: OpenMP threads that PARDISO may use; the first factor of a process decides between one and many.

    Raises:
        ConfigError: MKL is not installed.
        ConvergenceError: the analysis fails.
    """

    def __init__(self, pattern: SparsePattern, kind: Kind, threads: int = 1) -> None:
        library = _library()
        if library is None:
            raise ConfigError("PARDISO needs the wheel `mkl` (x86 only): pip install hamnet[mkl], or --engine superlu")
        self._call = library.pardiso_64
        self._call.restype = None
        library.MKL_Set_Threading_Layer(SEQUENTIAL if threads == 1 else INTEL_THREADS)
        if threads > 1:
            library.MKL_Set_Num_Threads(threads)
        self.kind = kind
        self._source = pattern
        indptr, indices = pattern.indptr, pattern.indices
        if kind is Kind.EMBEDDED:
            indptr, indices = embedded(indptr, indices)
        self._indptr = np.ascontiguousarray(indptr, dtype=np.int64)
        self._indices = np.ascontiguousarray(indices, dtype=np.int64)
        self._n = len(indptr) - 1
        self._dtype = np.dtype(np.complex128 if kind in (Kind.HERMITIAN, Kind.HERMITIAN_POSITIVE) else np.float64)
        self._data = np.zeros(0, dtype=self._dtype)
        self._handle = np.zeros(64, dtype=np.int64)
        self._iparm = _settings(kind)
        self._run(ANALYSE)
        kilobytes = max(int(self._iparm[14]), int(self._iparm[15] + self._iparm[16]))
        own = self._indices.nbytes + self._dtype.itemsize * len(self._indices)
        entries, megaflops = int(self._iparm[17]), float(self._iparm[18])
        self._cost = FactorCost(1024 * kilobytes + own, entries, 1e6 * megaflops if megaflops > 0 else None)

    @property
    def cost(self) -> FactorCost:
        """What `factorise` will take, from the analysis."""
        return self._cost

    def factorise(self, data: NDArray[Any]) -> None:
        """LDL^H of the matrix with these numbers.

        Raises:
            NotPositiveDefinite: kind asks for a positive definite matrix and this is none.
            ConvergenceError: PARDISO fails.
        """
        numbers = embedded_data(self._source.indptr, data) if self.kind is Kind.EMBEDDED else data
        self._data = np.ascontiguousarray(numbers, dtype=self._dtype)
        self._run(FACTORISE)

    def solve(self, right: NDArray[Any]) -> NDArray[Any]:
        """(n, m) A^-1 B; not for the embedded kind, which is for counting."""
        b = np.asfortranarray(right, dtype=self._dtype)
        x = np.empty_like(b, order="F")
        self._run(SOLVE, b, x)
        return x

    @property
    def negative(self) -> int:
        """Eigenvalues below zero; of the hermitian matrix itself also for the embedded kind.

        Raises:
            ConvergenceError: pivots were perturbed or the numbers do not add up, so that the count is not exact.
        """
        positive, negative, perturbed = int(self._iparm[21]), int(self._iparm[22]), int(self._iparm[13])
        double = 2 if self.kind is Kind.EMBEDDED else 1
        if perturbed or positive + negative != self._n or negative % double:
            raise ConvergenceError(
                f"counting states: {positive} + {negative} eigenvalues of {self._n}, {perturbed} perturbed pivots: "
                "the energy lies on an eigenvalue; move it by a few meV"
            )
        return negative // double

    def free(self) -> None:
        """Give the memory of L back; the analysis stays."""
        self._run(FREE_FACTOR)
        self._data = np.zeros(0, dtype=self._dtype)

    def __del__(self) -> None:
        handle = getattr(self, "_handle", None)  # absent when MKL is not there
        if handle is not None and handle.any() and not sys.is_finalizing():
            self._run(FREE_ALL)

    def _run(self, phase: int, b: NDArray[Any] | None = None, x: NDArray[Any] | None = None) -> None:
        error = ctypes.c_int64(0)
        empty = np.zeros(1, dtype=self._dtype)
        columns = 1 if b is None else b.size // self._n
        integers = [ctypes.c_int64(v) for v in (1, 1, MATRIX_TYPES[self.kind], phase, self._n, columns, 0)]
        maxfct, mnum, mtype, step, n, nrhs, silent = (ctypes.byref(v) for v in integers)
        data = self._data if len(self._data) else empty
        arrays = [self._handle, data, self._indptr, self._indices, np.zeros(1, np.int64), self._iparm]
        handle, a, ia, ja, perm, iparm = (v.ctypes.data_as(ctypes.c_void_p) for v in arrays)
        right, left = ((empty if v is None else v).ctypes.data_as(ctypes.c_void_p) for v in (b, x))
        self._call(
            handle, maxfct, mnum, mtype, step, n, a, ia, ja, perm, nrhs, iparm, silent, right, left, ctypes.byref(error)
        )
        if error.value == -4 and self.kind in (Kind.REAL_POSITIVE, Kind.HERMITIAN_POSITIVE):
            raise NotPositiveDefinite(
                "the matrix is not positive definite (Cholesky meets a pivot that is not positive)"
            )
        if error.value:
            reason = ERRORS.get(error.value, "see the MKL manual")
            raise ConvergenceError(f"PARDISO error {error.value} ({reason}) in phase {phase}, {self._n} rows")


def _settings(kind: Kind) -> NDArray[np.int64]:
    iparm = np.zeros(64, dtype=np.int64)
    positive = kind in (Kind.REAL_POSITIVE, Kind.HERMITIAN_POSITIVE)
    # One-based names: 1 no defaults; 2 METIS; 8 refinement steps; 10 pivot perturbation 10^-13; 18, 19 report
    # the entries of L and the flops; 21 Bunch-Kaufman pivoting; 24 the newer two-level factorisation; 35 zero-based.
    for place, value in {1: 1, 2: 2, 8: 0, 10: 13, 18: -1, 19: -1, 21: 0 if positive else 1, 35: 1}.items():
        iparm[place - 1] = value
    return iparm
