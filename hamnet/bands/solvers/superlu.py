"""SuperLU (in SciPy) as LDL^H: LU with symmetric pivoting, where MKL is not at hand. Slower, needs more memory."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_matrix, diags
from scipy.sparse.linalg import SuperLU, splu

from hamnet.bands.solvers.factor import FactorCost, Kind, NotPositiveDefinite, check_solution
from hamnet.core.bloch_sparse import SparsePattern
from hamnet.errors import ConvergenceError

FILL = 12
"""Entries of L and U over those of the matrix that are reckoned with: SuperLU says only afterwards."""
BACKWARD_ERROR = 1e-8
"""Largest relative residual of a probe solution: without row exchanges small pivots may spoil the factor."""


class SuperLUFactor:
    """One pattern; SuperLU analyses it anew for each matrix.

    Args:
        pattern: upper triangle, diagonal included.
        kind: of matrix; the embedded kind is not needed, since hermitian matrices give their inertia here.
    """

    def __init__(self, pattern: SparsePattern, kind: Kind) -> None:
        self.kind = kind
        self._pattern = pattern
        self._lu: SuperLU | None = None
        self._signs = np.zeros(0)
        item = 8 if kind in (Kind.REAL, Kind.REAL_POSITIVE) else 16
        self._cost = FactorCost(2 * FILL * (item + 4) * pattern.n_entries, None, None)

    @property
    def cost(self) -> FactorCost:
        """What `factorise` will take; a guess."""
        return self._cost

    def factorise(self, data: NDArray[Any]) -> None:
        """LU without row exchanges of the matrix with these numbers; checked with one solution.

        Raises:
            NotPositiveDefinite: kind asks for a positive definite matrix and this is none.
            ConvergenceError: a pivot vanishes, or the probe solution is wrong.
        """
        upper = self._pattern.matrix(data)
        full = csc_matrix(upper + upper.conj().T - diags(upper.diagonal()))
        try:
            lu = splu(
                full, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True, "Equil": False}
            )
        except RuntimeError as error:
            raise ConvergenceError(
                f"SuperLU: {error}: the energy lies on an eigenvalue; move it by a few meV"
            ) from error
        if not np.array_equal(lu.perm_r, lu.perm_c):
            raise ConvergenceError(
                "SuperLU had to exchange rows, so states cannot be counted: move the energy a little"
            )
        probe = np.random.default_rng(0).normal(size=full.shape[0]).astype(full.dtype)
        residual = float(np.linalg.norm(full @ lu.solve(probe) - probe) / np.linalg.norm(probe))
        check_solution(residual, BACKWARD_ERROR, "SuperLU factor")
        self._lu, self._signs = lu, np.real(lu.U.diagonal())
        if self.kind in (Kind.REAL_POSITIVE, Kind.HERMITIAN_POSITIVE) and self.negative:
            raise NotPositiveDefinite(f"the matrix is not positive definite: {self.negative} negative eigenvalue(s)")

    def solve(self, right: NDArray[Any]) -> NDArray[Any]:
        """(n, m) A^-1 B.

        Raises:
            ConvergenceError: nothing was factorised.
        """
        if self._lu is None:
            raise ConvergenceError("SuperLU: solve before factorise")
        return np.asarray(self._lu.solve(right))

    @property
    def negative(self) -> int:
        """Eigenvalues below zero: the signs of D."""
        return int((self._signs < 0).sum())

    def free(self) -> None:
        """Give the memory of the factors back."""
        self._lu = None
