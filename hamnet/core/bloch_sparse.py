"""Sparse Bloch sums of large cells: one pattern for H and S, worked out once; per k only numbers are filled in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from hamnet.core.blocks import BlockMatrix
from hamnet.core.spin import Spin

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]
CHUNK = 1 << 21
"""Numbers that are multiplied by their phases at a time: bounds the temporary memory to some 100 MB."""


@dataclass(frozen=True, eq=False)
class SparsePattern:
    """Where M(k) of some matrices may differ from zero: the same at every k-point.

    Rows are those of `BlochSum.dense`; a spinor has 2 n rows, all up orbitals first. Blocks are those of atoms
    (spinor: atoms with spin), so one number per block says where the whole block lies.

    Args:
        spin: layout of the rows.
        upper: True when only columns >= row are kept.
        indptr: (n_rows + 1,) start of each row; indices: (nnz,) sorted columns.
        first_row: (n_super + 1,) first row of each atom (with spin).
        keys: (n_blocks,) sorted, row atom * n_super + column atom.
        column_start: (n_blocks,) places before the block in its atom's first row.
    """

    spin: Spin
    upper: bool
    indptr: IntArray
    indices: IntArray
    first_row: IntArray
    keys: IntArray
    column_start: IntArray

    @classmethod
    def of(cls, matrices: Sequence[BlockMatrix], spin: Spin, upper: bool) -> SparsePattern:
        """Pattern that holds all the matrices, and the whole diagonal.

        Args:
            matrices: of the same atoms and basis; spinless ones are doubled when `spin` is spinor.
            spin: layout of the rows.
            upper: keep columns >= row only.
        """
        copies = 2 if spin is Spin.SPINOR else 1
        sizes = np.tile(matrices[0].basis.n_orbitals[matrices[0].species], copies)
        n_super = len(sizes)
        found = [np.arange(n_super) * (n_super + 1)]
        for matrix in matrices:
            for s, t in _spin_parts(matrix, spin):
                row, column = _super_atoms(matrix, s, t)
                keep = row <= column if upper else slice(None)
                found.append((row * n_super + column)[keep])
        keys = np.unique(np.concatenate(found))
        row, column = np.divmod(keys, n_super)
        before = np.cumsum(sizes[column]) - sizes[column]
        first_block = np.searchsorted(row, np.arange(n_super + 1))
        row_length = np.add.reduceat(sizes[column], first_block[:-1])
        orbital = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        lengths = np.repeat(row_length, sizes) - (orbital if upper else 0)
        indptr = np.concatenate(([0], np.cumsum(lengths)))
        first_row = np.concatenate(([0], np.cumsum(sizes)))
        pattern = cls(spin, upper, indptr, np.zeros(0, np.int64), first_row, keys, before - before[first_block[row]])
        object.__setattr__(pattern, "indices", pattern._columns(row, column, sizes))
        return pattern

    @property
    def size(self) -> int:
        """Rows of M(k)."""
        return len(self.indptr) - 1

    @property
    def n_entries(self) -> int:
        """Stored numbers."""
        return int(self.indptr[-1])

    @property
    def diagonal(self) -> IntArray:
        """(n_rows,) place of each diagonal number; of an upper pattern."""
        return self.indptr[:-1]

    def slots(self, row: IntArray, block: IntArray, n_i: int, n_j: int) -> IntArray:
        """(n, n_i, n_j) place of each number of some blocks; `n_entries` for those below the diagonal.

        Args:
            row: (n,) row atoms (with spin), all with n_i orbitals.
            block: (n,) index into `keys`.
            n_i, n_j: orbitals of the row and column atoms.
        """
        a = np.arange(n_i)
        start = self.indptr[self.first_row[row][:, None] + a] - (a if self.upper else 0)
        place = (start + self.column_start[block][:, None])[:, :, None] + np.arange(n_j)
        if self.upper:
            on_diagonal = np.flatnonzero(self.keys[block] == row * len(self.first_row[:-1]) + row)
            below = np.tril_indices(n_i, -1)
            place[on_diagonal[:, None], below[0], below[1]] = self.n_entries
        return np.asarray(place, dtype=np.int64)

    def matrix(self, data: NDArray[Any]) -> csr_matrix:
        """CSR matrix of these numbers (upper: the upper triangle alone)."""
        return csr_matrix((data, self.indices, self.indptr), shape=(self.size, self.size))

    def _columns(self, row: IntArray, column: IntArray, sizes: IntArray) -> IntArray:
        result = np.zeros(self.n_entries + 1, dtype=np.int64)
        code = sizes[row] * (sizes.max() + 1) + sizes[column]
        for value in np.unique(code):
            n_i, n_j = (int(x) for x in divmod(int(value), int(sizes.max()) + 1))
            every = np.flatnonzero(code == value)
            for blocks in np.array_split(every, max(1, len(every) * n_i * n_j // CHUNK)):
                columns = self.first_row[column[blocks]][:, None, None] + np.arange(n_j)
                result[self.slots(row[blocks], blocks, n_i, n_j)] = columns
        return result[:-1].astype(np.int32 if self.n_entries < 2**31 else np.int64)


@dataclass(frozen=True, eq=False)
class _Layer:
    """Blocks of one pair of species that lie on different places, so that they can be added at once."""

    group: int
    part: tuple[int, int]
    pairs: IntArray
    slots: NDArray[Any]


class SparseBloch:
    """M(k) = sum_R exp(+2 pi i k.n) M(R) as the numbers of a pattern.

    Args:
        matrix: any BlockMatrix; a spinless one is doubled, kron(1, M), on a spinor pattern.
        pattern: from `SparsePattern.of`, which must have seen this matrix.
    """

    def __init__(self, matrix: BlockMatrix, pattern: SparsePattern) -> None:
        self.matrix = matrix
        self.pattern = pattern
        self._groups = list(matrix.groups())
        self._layers = [layer for part in _spin_parts(matrix, pattern.spin) for layer in self._layers_of(part)]

    @property
    def n_channels(self) -> int:
        """2 for collinear spins, else 1."""
        return 2 if self.matrix.spin is Spin.COLLINEAR else 1

    def is_real(self, kpoint: FloatArray) -> bool:
        """True where M(k) is real: real blocks, and every phase is 1 or -1."""
        twice = 2 * np.asarray(kpoint, dtype=np.float64)
        shifted = self.matrix.pairs.cell_shift.any(axis=0)  # along a direction without shifts k is free
        return not np.iscomplexobj(self.matrix.values) and bool(
            (np.abs(twice - np.round(twice)) < 1e-12)[shifted].all()
        )

    def data(self, kpoint: FloatArray, channel: int = 0, real: bool = False) -> NDArray[Any]:
        """(n_entries,) numbers of M(k); complex, or float64 with `real` (allowed where `is_real`).

        The diagonal of an upper pattern is made real: M is taken to be hermitian.
        """
        angle = 2 * np.pi * (self.matrix.pairs.cell_shift @ np.asarray(kpoint, dtype=np.float64))
        phase: NDArray[Any] = np.rint(np.cos(angle)) if real else np.exp(1j * angle)
        total = np.zeros(self.pattern.n_entries + 1, dtype=np.float64 if real else np.complex128)
        for layer in self._layers:
            group = self._groups[layer.group]
            blocks = group.blocks[:, channel] if self.matrix.spin is Spin.COLLINEAR else group.blocks
            n_i, n_j = layer.slots.shape[1:]
            rows = slice(layer.part[0] * n_i, (layer.part[0] + 1) * n_i)
            columns = slice(layer.part[1] * n_j, (layer.part[1] + 1) * n_j)
            within = layer.pairs - group.pairs.start
            step = max(1, CHUNK // (n_i * n_j))
            for at in range(0, len(within), step):
                some = slice(at, at + step)
                values = blocks[within[some]][:, rows, columns] * phase[layer.pairs[some]][:, None, None]
                total[layer.slots[some]] += values
        total = total[:-1]
        if self.pattern.upper and not real:
            total.imag[self.pattern.diagonal] = 0.0
        return total

    def _layers_of(self, part: tuple[int, int]) -> list[_Layer]:
        pattern, n_super = self.pattern, len(self.pattern.first_row) - 1
        s, t = part
        row, column = _super_atoms(self.matrix, s, t)
        copies = (s, t) if self.matrix.spin is Spin.SPINOR else (0, 0)
        result = []
        for g, group in enumerate(self._groups):
            n_i, n_j = (int(self.matrix.basis.n_orbitals[k]) for k in (group.species_i, group.species_j))
            pairs = np.arange(group.pairs.start, group.pairs.stop)
            if pattern.upper:
                pairs = pairs[row[pairs] <= column[pairs]]
            key = row[pairs] * n_super + column[pairs]
            order = np.argsort(key, kind="stable")
            new = np.flatnonzero(np.diff(key[order], prepend=-1))
            rank = np.empty(len(pairs), dtype=np.int64)
            rank[order] = np.arange(len(pairs)) - np.repeat(new, np.diff(np.append(new, len(pairs))))
            for r in range(int(rank.max(initial=-1)) + 1):
                some = pairs[rank == r]
                blocks = np.searchsorted(pattern.keys, row[some] * n_super + column[some])
                slots = pattern.slots(row[some], blocks, n_i, n_j)
                result.append(_Layer(g, copies, some, slots.astype(np.int32 if slots.max() < 2**31 else np.int64)))
        return result


def _spin_parts(matrix: BlockMatrix, spin: Spin) -> list[tuple[int, int]]:
    """Which spin blocks of M(k) a matrix fills."""
    if spin is not Spin.SPINOR:
        return [(0, 0)]
    return [(0, 0), (0, 1), (1, 0), (1, 1)] if matrix.spin is Spin.SPINOR else [(0, 0), (1, 1)]


def _super_atoms(matrix: BlockMatrix, s: int, t: int) -> tuple[IntArray, IntArray]:
    """Row and column atom (with spin) of each pair."""
    n = len(matrix.species)
    return matrix.pairs.i + s * n, matrix.pairs.j + t * n
