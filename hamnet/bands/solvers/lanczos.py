"""Block Lanczos for the operator (H - sigma S)^-1 S: the eigenvalues next to a shift, degenerate ones too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hamnet.errors import ConvergenceError

Matrix = NDArray[Any]
Operator = Callable[[Matrix], Matrix]
BLOCK = 8
"""Vectors at a time: a factor is read once for all of them, and eightfold degeneracy is met without luck."""
TOLERANCE = 1e-9
"""Residual of a Ritz value theta relative to theta at which it is taken as converged; the error of theta itself goes
with its square."""
CHECK_EVERY = 4
"""Blocks between two looks at the Ritz values."""


def nearest_states(
    solve: Operator, overlap: Operator, n_rows: int, wanted: int, dtype: Any, block: int = BLOCK
) -> tuple[Matrix, Matrix, Matrix]:
    """Eigenpairs theta of (H - sigma S)^-1 S with the largest |theta| = 1 / |E - sigma|.

    Full orthogonalisation in the scalar product of S, twice, without restarts: some 3 to 6 vectors for each wanted.
    Source: R. G. Grimes, J. G. Lewis, H. D. Simon, SIAM J. Matrix Anal. Appl. 15, 228 (1994).

    Args:
        solve: B -> (H - sigma S)^-1 B; overlap: B -> S B; both on (n_rows, m).
        n_rows: size of the matrices.
        wanted: number of eigenpairs.
        dtype: of the vectors.
        block: vectors at a time; no eigenvalue is found more often than that.

    Returns:
        theta (wanted,), vectors (n_rows, wanted) with c^dagger S c = 1, and S times the vectors.

    Raises:
        ConvergenceError: not converged with as many vectors as are allowed.
    """
    basis = Basis(overlap, n_rows, min(n_rows, 10 * wanted + 20 * block), dtype, block)
    basis.start(block)
    while True:
        couple = basis.extend(solve(basis.last_overlap))
        if basis.size >= wanted and (basis.is_full or basis.n_blocks % CHECK_EVERY == 0 or len(couple) < block):
            theta, states = np.linalg.eigh(basis.projected)
            order = np.argsort(-np.abs(theta))[:wanted]
            error = np.linalg.norm(couple @ states[len(states) - couple.shape[1] :, order], axis=0)
            if (error <= TOLERANCE * np.abs(theta[order])).all():
                return theta[order], *basis.combine(states[:, order])
        if basis.is_full:
            raise ConvergenceError(
                f"{wanted} states next to the shift did not converge with {basis.size} vectors of {n_rows} rows: "
                "ask for fewer, or move the energy into a range with fewer states"
            )


class Basis:
    """S-orthonormal vectors Q, S Q, and T = Q^dagger S A Q of an operator A that is hermitian in S.

    Args:
        overlap: B -> S B.
        n_rows: length of the vectors; most: how many may be kept; dtype: theirs.
        block: vectors at a time.
    """

    def __init__(self, overlap: Operator, n_rows: int, most: int, dtype: Any, block: int) -> None:
        self._overlap = overlap
        self._rng = np.random.default_rng(0)
        self._q = np.empty((n_rows, most + block), dtype=dtype, order="F")
        self._sq = np.empty_like(self._q, order="F")
        self._t = np.zeros((most + block, most + block), dtype=dtype)
        self._most = most
        self._total = 0
        self.n_blocks = 0
        self._newest = slice(0, 0)

    @property
    def size(self) -> int:
        """Vectors whose image is known."""
        return self._newest.start

    @property
    def is_full(self) -> bool:
        """True when another block does not fit."""
        return self._total > self._most

    @property
    def last(self) -> Matrix:
        """The newest block."""
        return self._q[:, self._newest]

    @property
    def last_overlap(self) -> Matrix:
        """S times the newest block."""
        return self._sq[:, self._newest]

    @property
    def projected(self) -> Matrix:
        """T on all vectors whose image is known."""
        t = self._t[: self.size, : self.size]
        return (t + t.conj().T) / 2

    def start(self, block: int) -> None:
        """Random first block."""
        self._append(np.zeros((len(self._q), 0)), block)

    def extend(self, image: Matrix) -> Matrix:
        """Orthogonalise the image of the newest block; it becomes the next one; the coupling of both."""
        previous = self._newest
        image = np.asarray(image)
        mapped = self._overlap(image)
        coefficients, image, mapped = self._project(image, mapped)
        self._t[: self._total, previous] = coefficients
        values, turn = np.linalg.eigh(image.conj().T @ mapped)
        scale = max(float(np.abs(coefficients).max()) ** 2, float(values[-1]), 1e-300)
        room = len(self._q) - self._total
        # Below 1e-24 the block has reached the end of its subspace; at the end of the whole space nothing is left.
        keep = (values > 1e-24 * scale) & (np.arange(len(values)) >= len(values) - room)
        root, turn = np.sqrt(values[keep]), turn[:, keep]
        n_kept = len(root)
        self._append(image @ (turn / root), min(len(values), room) - n_kept)
        coupling = np.zeros((self._newest.stop - self._newest.start, len(values)), dtype=self._t.dtype)
        coupling[:n_kept] = root[:, None] * turn.conj().T
        self._t[self._newest, previous] = coupling
        return coupling

    def combine(self, states: Matrix) -> tuple[Matrix, Matrix]:
        """Q y and S Q y."""
        return self._q[:, : self.size] @ states, self._sq[:, : self.size] @ states

    def _project(self, vectors: Matrix, mapped: Matrix, passes: int = 2) -> tuple[Matrix, Matrix, Matrix]:
        q, sq = self._q[:, : self._total], self._sq[:, : self._total]
        total = np.zeros((self._total, vectors.shape[1]), dtype=self._q.dtype)
        for _ in range(passes):  # twice is enough
            part = (mapped.conj().T @ q).conj().T
            vectors, mapped, total = vectors - q @ part, mapped - sq @ part, total + part
        return total, vectors, mapped

    def _append(self, vectors: Matrix, n_random: int) -> None:
        """Add a block that is nearly orthonormal already, filled up with random vectors."""
        if n_random:
            more = self._rng.normal(size=(len(self._q), n_random)).astype(self._q.dtype)
            vectors = np.hstack((vectors, more / np.sqrt(len(more))))
        mapped = self._overlap(vectors)
        for _ in range(2 if n_random else 1):
            _, vectors, mapped = self._project(vectors, mapped, 1)
            values, turn = np.linalg.eigh(vectors.conj().T @ mapped)
            root = (turn / np.sqrt(values)) @ turn.conj().T
            vectors, mapped = vectors @ root, mapped @ root
        new = slice(self._total, self._total + vectors.shape[1])
        self._q[:, new], self._sq[:, new] = vectors, mapped
        self._newest, self._total, self.n_blocks = new, new.stop, self.n_blocks + 1
