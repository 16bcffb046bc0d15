"""BlockMatrix: the one carrier of H, S, H0, density matrix, target and prediction."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hamnet.core.basis import OrbitalBasis
from hamnet.core.pairs import PairList
from hamnet.core.spin import Spin
from hamnet.errors import PhysicsError

IntArray = NDArray[np.int64]
Values = NDArray[Any]


class BlockGroup(NamedTuple):
    """All blocks of one ordered pair of species: a dense view."""

    species_i: int
    species_j: int
    pairs: slice
    """Range of pair indices: the pair list is sorted by species first."""
    blocks: Values
    """(n, *spin.shape(n_i, n_j)) view into the values."""


@dataclass(frozen=True, eq=False)
class BlockMatrix:
    """M_ij(R) = <phi_i,0| M |phi_j,R> for all pairs of a list, in one contiguous array.

    Args:
        pairs: sorted pair list.
        basis: orbitals of the species.
        species: (n_atoms,) species of each atom.
        spin: layout of each block.
        values: (n_values,) float64, or complex128 for spinors; eV for H; row-major blocks in pair order.
        offsets: (n_pairs + 1,) start of each block in `values`.

    Raises:
        PhysicsError: the number of values does not fit the pairs, or a value is not finite.
    """

    pairs: PairList
    basis: OrbitalBasis
    species: IntArray
    spin: Spin
    values: Values
    offsets: IntArray

    def __post_init__(self) -> None:
        if self.values.shape != (self.offsets[-1],):
            raise PhysicsError(
                f"found {self.values.shape} values, expected {self.offsets[-1]} for these pairs and basis"
            )
        if self.values.dtype != self.spin.dtype:
            raise PhysicsError(f"{self.spin.value} blocks need {self.spin.dtype}, found {self.values.dtype}")
        if not np.isfinite(self.values).all():
            at = int(np.flatnonzero(~np.isfinite(self.values))[0])
            p = int(np.searchsorted(self.offsets, at, side="right")) - 1
            raise PhysicsError(
                f"the block of pair {self.describe_pair(p)} holds {self.values[at]}: not a finite number"
            )

    @classmethod
    def from_values(
        cls, pairs: PairList, basis: OrbitalBasis, species: IntArray, spin: Spin, values: Values
    ) -> BlockMatrix:
        """Matrix from the flat values; offsets follow from pairs and basis."""
        return cls(pairs, basis, species, spin, values, block_offsets(pairs, basis, species, spin))

    @classmethod
    def zeros(cls, pairs: PairList, basis: OrbitalBasis, species: IntArray, spin: Spin = Spin.NONE) -> BlockMatrix:
        """Matrix of zeros."""
        offsets = block_offsets(pairs, basis, species, spin)
        return cls(pairs, basis, species, spin, np.zeros(offsets[-1], dtype=spin.dtype), offsets)

    @property
    def n_orbitals(self) -> int:
        """Orbitals of the whole cell (spin not counted)."""
        return int(self.basis.n_orbitals[self.species].sum())

    @cached_property
    def orbital_offsets(self) -> IntArray:
        """(n_atoms + 1,) first orbital of each atom in the cell's matrix (spin not counted)."""
        return np.concatenate(([0], np.cumsum(self.basis.n_orbitals[self.species])))

    def block(self, p: int) -> Values:
        """View of the block of pair p."""
        n = self.basis.n_orbitals[self.species]
        shape = self.spin.shape(int(n[self.pairs.i[p]]), int(n[self.pairs.j[p]]))
        return self.values[self.offsets[p] : self.offsets[p + 1]].reshape(shape)

    def groups(self) -> Iterator[BlockGroup]:
        """Blocks by ordered pair of species, each a dense view; groups cover all pairs in order."""
        n = self.basis.n_orbitals
        for a, b, part in species_groups(self.pairs, self.species, len(self.basis.species)):
            shape = self.spin.shape(int(n[a]), int(n[b]))
            view = self.values[self.offsets[part.start] : self.offsets[part.stop]]
            yield BlockGroup(a, b, part, view.reshape((part.stop - part.start, *shape)))

    def blocks(self, species_i: int, species_j: int) -> Values:
        """(n, ...) view of all blocks of one ordered pair of species; n may be 0."""
        for group in self.groups():
            if (group.species_i, group.species_j) == (species_i, species_j):
                return group.blocks
        n = self.basis.n_orbitals
        return np.zeros((0, *self.spin.shape(int(n[species_i]), int(n[species_j]))), dtype=self.spin.dtype)

    def with_values(self, values: Values) -> BlockMatrix:
        """The same pairs with other numbers."""
        return BlockMatrix(self.pairs, self.basis, self.species, self.spin, values, self.offsets)

    def adjoint(self) -> BlockMatrix:
        """M^dagger: block (i, j, R) is the conjugate transpose of block (j, i, -R)."""
        values = np.empty_like(self.values)
        for group in self.groups():
            target = values[self.offsets[group.pairs.start] : self.offsets[group.pairs.stop]]
            start = self.offsets[self.pairs.reverse[group.pairs]]
            size = int(np.prod(group.blocks.shape[1:]))
            mirrored = self.values[start[:, None] + np.arange(size)]
            shape = (*group.blocks.shape[1:-2], group.blocks.shape[-1], group.blocks.shape[-2])
            mirrored = mirrored.reshape((len(start), *shape))
            target.reshape(group.blocks.shape)[...] = mirrored.conj().swapaxes(-1, -2)
        return self.with_values(values)

    def hermitian_residual(self) -> tuple[float, int]:
        """Largest |M - M^dagger| and the pair where it is; 0 for an exactly hermitian matrix."""
        difference = np.abs(self.values - self.adjoint().values)
        if difference.size == 0:
            return 0.0, 0
        at = int(difference.argmax())
        return float(difference[at]), int(np.searchsorted(self.offsets, at, side="right")) - 1

    def symmetrised(self) -> BlockMatrix:
        """(M + M^dagger) / 2: bitwise hermitian."""
        return self.with_values((self.values + self.adjoint().values) / 2)

    def on_pairs(self, pairs: PairList) -> BlockMatrix:
        """The same matrix on another list of pairs: absent blocks become zero.

        Raises:
            PhysicsError: a pair of this matrix is absent from the new list, so a block would be lost in silence.
        """
        at = pairs.find(self.pairs)
        if (at < 0).any():
            p = int(np.flatnonzero(at < 0)[0])
            raise PhysicsError(f"pair {self.describe_pair(p)} is not in the new pair list: its block would be lost")
        result = BlockMatrix.zeros(pairs, self.basis, self.species, self.spin)
        sizes = np.diff(self.offsets)
        within = np.arange(len(self.values)) - np.repeat(self.offsets[:-1], sizes)
        result.values[np.repeat(result.offsets[at], sizes) + within] = self.values
        return result

    def describe_pair(self, p: int) -> str:
        """Text as "(0, 3, [1, 0, 0])" for messages."""
        return f"({self.pairs.i[p]}, {self.pairs.j[p]}, {self.pairs.cell_shift[p].tolist()})"


def block_offsets(pairs: PairList, basis: OrbitalBasis, species: IntArray, spin: Spin) -> IntArray:
    """(n_pairs + 1,) start of each block in the flat array of values."""
    n = basis.n_orbitals[species]
    return np.concatenate(([0], np.cumsum(n[pairs.i] * n[pairs.j] * spin.factor)))


def species_groups(pairs: PairList, species: IntArray, n_species: int) -> list[tuple[int, int, slice]]:
    """Runs of equal (species_i, species_j) in a sorted pair list."""
    code = species[pairs.i] * n_species + species[pairs.j]
    starts = np.flatnonzero(np.diff(code, prepend=-1)).tolist()
    stops = [*starts[1:], len(code)] if starts else []
    return [
        (int(code[a] // n_species), int(code[a] % n_species), slice(a, b)) for a, b in zip(starts, stops, strict=True)
    ]
