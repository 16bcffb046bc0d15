"""BlochSum: M(k) = sum_R exp(+2 pi i k.n) M(R), the lattice gauge, dense and sparse."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from hamnet.core.bloch_sparse import SparseBloch, SparsePattern
from hamnet.core.blocks import BlockMatrix
from hamnet.core.spin import Spin

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]
ComplexArray = NDArray[np.complex128]


class BlochSum:
    """Sums the blocks of a matrix over lattice vectors; where each number goes is worked out once.

    A hermitian matrix gives bitwise hermitian M(k): a pair and its reverse are added in the same order with
    conjugate phases. Nothing is symmetrised, so a matrix that is not hermitian shows it.

    Args:
        matrix: any BlockMatrix.
    """

    def __init__(self, matrix: BlockMatrix) -> None:
        self.spin = matrix.spin
        self.n_orbitals = matrix.n_orbitals
        self._matrix = matrix

    @property
    def size(self) -> int:
        """Rows of M(k): the orbitals of the cell, twice that for spinors."""
        return self.n_orbitals * (2 if self.spin is Spin.SPINOR else 1)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of `dense`: (n, n), collinear (2, n, n), spinor (2n, 2n)."""
        n = self.size
        return (2, n, n) if self.spin is Spin.COLLINEAR else (n, n)

    def dense(self, kpoint: FloatArray) -> ComplexArray:
        """M(k) = sum_R exp(+2 pi i k.n) M(R).

        Args:
            kpoint: (3,) fractional, of the reciprocal rows.

        Returns:
            (n, n); collinear (2, n, n), up then down; spinor (2n, 2n), all up orbitals of the cell, then all down.
        """
        return self._sum(kpoint, int(np.prod(self.shape))).reshape(self.shape)

    def sparse(self, kpoint: FloatArray) -> list[csr_matrix]:
        """M(k) as CSR matrices: one; collinear two, up then down; as `dense` but for the order of additions.

        Args:
            kpoint: (3,) fractional.
        """
        bloch = self._sparse
        return [bloch.pattern.matrix(bloch.data(kpoint, channel)) for channel in range(bloch.n_channels)]

    @cached_property
    def _sparse(self) -> SparseBloch:
        return SparseBloch(self._matrix, SparsePattern.of([self._matrix], self.spin, upper=False))

    @cached_property
    def _forward(self) -> IntArray:
        """Pairs that come before their reverses."""
        index = np.arange(self._matrix.pairs.n_pairs)
        return index[index < self._matrix.pairs.reverse]

    @cached_property
    def _parts(self) -> list[_Part]:
        """Canonical pairs, their reverses in the same order, and the on-site pairs (their own reverses)."""
        matrix, pairs = self._matrix, self._matrix.pairs
        index = np.arange(pairs.n_pairs)
        target = flat_targets(matrix)
        return [
            _Part(matrix, target, self._forward, +1),
            _Part(matrix, target, pairs.reverse[self._forward], -1),
            _Part(matrix, target, index[index == pairs.reverse], 0),
        ]

    def _sum(self, kpoint: FloatArray, length: int) -> ComplexArray:
        k = np.asarray(kpoint, dtype=np.float64)
        shift = self._matrix.pairs.cell_shift[self._forward]
        # Written out: a matrix product may add in another order, and then k.(-n) is not exactly -(k.n).
        angle = 2 * np.pi * (k[0] * shift[:, 0] + k[1] * shift[:, 1] + k[2] * shift[:, 2])
        cosine, sine = np.cos(angle), np.sin(angle)
        sums = [part.accumulate(cosine, sine, length) for part in self._parts]
        return (sums[0] + sums[1]) + sums[2]


class _Part:
    """Some pairs of a matrix, in a given order, with the place of each number in the flat M(k)."""

    def __init__(self, matrix: BlockMatrix, target: IntArray, order: IntArray, sign: int) -> None:
        self.sign = sign
        sizes = np.diff(matrix.offsets)[order]
        self.pair = np.repeat(np.arange(len(order)), sizes)
        start = np.repeat(matrix.offsets[order] - (np.cumsum(sizes) - sizes), sizes)
        at = start + np.arange(len(self.pair))
        self.target = target[at]
        values: NDArray[Any] = matrix.values[at]
        self.real = np.ascontiguousarray(values.real)
        self.imag = np.ascontiguousarray(values.imag) if np.iscomplexobj(values) else None

    def accumulate(self, cosine: FloatArray, sine: FloatArray, length: int) -> ComplexArray:
        """(length,) sum of value x phase at each target."""
        result = np.zeros(length, dtype=np.complex128)
        if self.sign == 0:
            real, imag = self.real, self.imag
        else:
            c, s = cosine[self.pair], self.sign * sine[self.pair]
            real, imag = self.real * c, self.real * s
            if self.imag is not None:
                real, imag = real - self.imag * s, imag + self.imag * c
        result.real = np.bincount(self.target, weights=real, minlength=length)
        if imag is not None:
            result.imag = np.bincount(self.target, weights=imag, minlength=length)
        return result


def flat_targets(matrix: BlockMatrix) -> IntArray:
    """(n_values,) place of each stored number in the flattened M(k) of `BlochSum.shape`."""
    n = matrix.n_orbitals
    width = 2 * n if matrix.spin is Spin.SPINOR else n
    result = np.empty(len(matrix.values), dtype=np.int64)
    for group in matrix.groups():
        n_i, n_j = (int(matrix.basis.n_orbitals[k]) for k in (group.species_i, group.species_j))
        row = _orbitals(matrix, matrix.pairs.i[group.pairs], n_i)
        column = _orbitals(matrix, matrix.pairs.j[group.pairs], n_j)
        target = row[:, :, None] * width + column[:, None, :]
        if matrix.spin is Spin.COLLINEAR:
            target = np.stack((target, target + n * n), axis=1)
        result[matrix.offsets[group.pairs.start] : matrix.offsets[group.pairs.stop]] = target.reshape(-1)
    return result


def _orbitals(matrix: BlockMatrix, atoms: IntArray, n: int) -> IntArray:
    first = matrix.orbital_offsets[atoms][:, None] + np.arange(n)
    return np.hstack((first, first + matrix.n_orbitals)) if matrix.spin is Spin.SPINOR else first


def spin_overlap(overlap: NDArray[Any]) -> NDArray[Any]:
    """S of spinors, kron(1, S): (n, n) -> (2n, 2n)."""
    return np.kron(np.eye(2), overlap)
