"""S that the user gives, handed out tile by tile."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hamnet.core.basis import OrbitalBasis
from hamnet.core.pairs import PairList
from hamnet.core.structure import AtomicStructure
from hamnet.errors import PhysicsError
from hamnet.predict.overlap import overlap_from_file

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

NEGLIGIBLE = 1e-8
"""Blocks of S beyond the reach of the model's pairs must be smaller than this."""


class GivenOverlap:
    """S of a store, whole in memory, asked for block by block.

    Args:
        path: store with S of the same atoms in the same places.
        structure: the atoms, with the model's species.
        basis: of the model.
        cutoffs: (n_species, n_species) Angstrom, which pairs have a block.

    Raises:
        PhysicsError: the store has no such atoms, or its S reaches further than the pairs.
        BasisError: its orbitals are not the model's.
    """

    def __init__(self, path: Path, structure: AtomicStructure, basis: OrbitalBasis, cutoffs: FloatArray) -> None:
        self.path, self._matrix = path, overlap_from_file(path, structure, basis)
        self._check(structure, cutoffs)

    def _check(self, structure: AtomicStructure, cutoffs: FloatArray) -> None:
        pairs, species = self._matrix.pairs, structure.species
        lengths = np.linalg.norm(pairs.vectors(structure), axis=1)
        beyond = (lengths >= cutoffs[species[pairs.i], species[pairs.j]]) & ~pairs.on_site
        largest = np.maximum.reduceat(np.abs(self._matrix.values), self._matrix.offsets[:-1])
        lost = np.flatnonzero(beyond & (largest > NEGLIGIBLE))
        if lost.size:
            worst = int(lost[largest[lost].argmax()])
            raise PhysicsError(
                f"{self.path}: {lost.size} blocks of S are beyond the pairs that tiles know, the largest "
                f"{largest[worst]:.2g} at {lengths[worst]:.3f} A in pair {self._matrix.describe_pair(worst)}: predict "
                "without --memory, which takes the pairs of the file"
            )

    def values(self, pairs: PairList, sizes: IntArray) -> FloatArray:
        """Numbers of the blocks of the given pairs, one block after another; zeros where the store has none.

        Args:
            pairs: atoms and shifts of the whole structure, in any order (`reverse` is not looked at).
            sizes: (n_pairs,) numbers of each block.
        """
        at = self._matrix.pairs.find(pairs)
        starts = np.repeat(self._matrix.offsets[np.maximum(at, 0)], sizes)
        within = np.arange(int(sizes.sum())) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        return np.where(np.repeat(at >= 0, sizes), self._matrix.values[starts + within], 0.0)
