"""LDL^H of a sparse hermitian matrix: what every direct solver offers, and which one is at hand."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hamnet.bands.eigen import available_memory
from hamnet.core.bloch_sparse import SparsePattern
from hamnet.errors import ConvergenceError, PhysicsError

IntArray = NDArray[np.int64]


class Kind(StrEnum):
    """What is known of the matrices that are to be factorised."""

    REAL = "real"
    """Real symmetric, indefinite: gives solutions and the inertia."""
    REAL_POSITIVE = "real positive"
    """Real symmetric; refused unless positive definite."""
    HERMITIAN = "hermitian"
    """Complex hermitian, indefinite: gives solutions."""
    HERMITIAN_POSITIVE = "hermitian positive"
    """Complex hermitian; refused unless positive definite."""
    EMBEDDED = "embedded"
    """Complex hermitian as the real symmetric [[a, -b], [b, a]] per number: gives the inertia, each state twice."""


@dataclass(frozen=True)
class FactorCost:
    """What one factorisation takes, known before it is done.

    Args:
        memory: bytes at the peak, the matrix itself included.
        entries: numbers in L; None where the engine does not say.
        flops: of one factorisation; None where the engine does not say.
    """

    memory: int
    entries: int | None
    flops: float | None


class NotPositiveDefinite(PhysicsError):
    """A matrix that must be positive definite is not."""


class Factor(Protocol):
    """One sparse pattern, analysed once; then numbers as often as needed."""

    @property
    def cost(self) -> FactorCost:
        """What `factorise` will take."""

    def factorise(self, data: NDArray[Any]) -> None:
        """LDL^H of the matrix with these numbers on the pattern's upper triangle."""

    def solve(self, right: NDArray[Any]) -> NDArray[Any]:
        """(n, m) A^-1 B."""

    @property
    def negative(self) -> int:
        """Eigenvalues below zero of the matrix factorised last (Sylvester's law of inertia)."""

    def free(self) -> None:
        """Give the memory of L back; the analysis stays."""


def make_factor(pattern: SparsePattern, kind: Kind, engine: str = "auto", threads: int = 1) -> Factor:
    """Direct solver for a pattern: MKL PARDISO where the wheel `mkl` is installed, else SuperLU.

    Args:
        pattern: upper triangle, diagonal included.
        kind: of matrix.
        engine: "auto", "pardiso" or "superlu".
        threads: that PARDISO may use.

    Raises:
        ConfigError: PARDISO was asked for and is not installed.
    """
    from hamnet.bands.solvers import pardiso, superlu

    if engine == "pardiso" or (engine == "auto" and pardiso.is_available()):
        return pardiso.PardisoFactor(pattern, kind, threads)
    return superlu.SuperLUFactor(pattern, kind)


def embedded(indptr: IntArray, indices: NDArray[Any]) -> tuple[IntArray, NDArray[Any]]:
    """Upper pattern of the real matrix with [[a, -b], [b, a]] for each number a + i b of an upper pattern."""
    count = np.diff(indptr)
    lengths = np.stack((2 * count, 2 * count - 1), axis=1).reshape(-1)
    start = np.concatenate(([0], np.cumsum(lengths)))
    columns = np.empty(start[-1], dtype=indices.dtype)
    pair = np.stack((2 * indices, 2 * indices + 1), axis=1)
    row = np.repeat(np.arange(len(count)), count)
    within = np.arange(len(indices)) - indptr[row]
    upper = (start[0:-1:2][row] + 2 * within)[:, None] + np.arange(2)
    columns[upper] = pair
    lower = start[1::2][row] + 2 * within - 1
    off = within > 0
    columns[lower[off]] = pair[off, 0]
    columns[lower + 1] = pair[:, 1]
    return start, columns


def embedded_data(indptr: IntArray, data: NDArray[np.complex128]) -> NDArray[np.float64]:
    """Numbers on the pattern of `embedded`."""
    count = np.diff(indptr)
    lengths = np.stack((2 * count, 2 * count - 1), axis=1).reshape(-1)
    start = np.concatenate(([0], np.cumsum(lengths)))
    result = np.empty(start[-1])
    row = np.repeat(np.arange(len(count)), count)
    within = np.arange(len(data)) - indptr[row]
    upper = start[0:-1:2][row] + 2 * within
    result[upper] = data.real
    result[upper + 1] = -data.imag
    lower = start[1::2][row] + 2 * within - 1
    off = within > 0
    result[lower[off]] = data.imag[off]
    result[lower + 1] = data.real
    return result


def check_factor_memory(cost: FactorCost, what: str, copies: int = 1) -> None:
    """Refuse a factorisation that the machine has no memory for, before it starts.

    Raises:
        PhysicsError: with the need, what is free, and what would do.
    """
    free = available_memory()
    if free is not None and copies * cost.memory > free:
        raise PhysicsError(
            f"{what} needs {copies * cost.memory / 1e9:.1f} GB, {free / 1e9:.1f} GB are free: use a machine with more "
            "memory, fewer k-points side by side (--jobs 1), time-reversal points of k (real numbers: half of it), or "
            "--no-certify (without counts at complex k-points: half of it), or several machines (--engine slepc under "
            "mpirun)"
        )


def check_solution(residual: float, tolerance: float, what: str) -> None:
    """Refuse a solution with a residual above the tolerance.

    Raises:
        ConvergenceError: with both numbers.
    """
    if not residual <= tolerance:
        raise ConvergenceError(
            f"{what}: residual {residual:.1e}, at most {tolerance:.0e} is accepted. The shift may lie on an eigenvalue "
            "or the matrix be badly conditioned: move the energy by a few meV"
        )
