"""Tiles: a large structure cut into compact groups of atoms, each with the images of atoms around it.

Every couple of reverse pairs (i, j, n), (j, i, -n) belongs to one tile: that of the first atom of the pair that comes
first in a sorted list (`is_leading`). Whether a pair exists is decided by its length from the given positions, bitwise
the same for both directions, so that tiles agree about the pairs across their borders.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from hamnet.core.structure import MINIMUM_DISTANCE, AtomicStructure
from hamnet.errors import PhysicsError

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

MARGIN = 1e-6
"""Halos and searches are this much (Angstrom) wider than asked, against rounding."""


@dataclass(frozen=True, eq=False)
class Surroundings:
    """Atoms of a tile and the images of atoms around them, as a cluster in free space.

    Args:
        structure: the cluster; sorted by (species, atom, shift).
        atom: (n,) which atom of the whole structure each is.
        shift: (n, 3) position = position of that atom + shift . cell.
        core: (n,) bool, the tile's own atoms.
        distance: (n,) Angstrom to the nearest atom of the core.
    """

    structure: AtomicStructure
    atom: IntArray
    shift: IntArray
    core: BoolArray
    distance: FloatArray


@dataclass(frozen=True, eq=False)
class TilePairs:
    """Directed pairs of a cluster, on-site ones included, sorted by (first, second).

    Args:
        first, second: (n,) atoms of the cluster.
        cell_shift: (n, 3) of the pair in the whole structure.
    """

    first: IntArray
    second: IntArray
    cell_shift: IntArray

    def chosen(self, which: BoolArray) -> TilePairs:
        """Some of the pairs."""
        return TilePairs(self.first[which], self.second[which], self.cell_shift[which])


class Tiling:
    """A structure ready to be cut.

    Args:
        structure: the whole; atoms may stand outside the cell.
    """

    def __init__(self, structure: AtomicStructure) -> None:
        self.structure = structure
        self._wrap = np.zeros((structure.n_atoms, 3), dtype=np.int64)
        if structure.is_periodic:
            fractional = structure.positions @ np.linalg.inv(structure.lattice)
            self._wrap[:, structure.pbc] = np.floor(fractional[:, structure.pbc]).astype(np.int64)
        self._wrapped: FloatArray = structure.positions - self._wrap @ structure.lattice

    def cut(self, n_tiles: int) -> list[IntArray]:
        """Atoms of each tile, sorted: halves of equal number across the longest extent, again and again.

        Sizes differ by one or two; with fewer atoms than tiles every atom is a tile.
        """
        tiles: list[IntArray] = []
        todo = [(np.arange(self.structure.n_atoms), min(n_tiles, self.structure.n_atoms))]
        while todo:
            atoms, n = todo.pop()
            if n == 1:
                tiles.append(np.sort(atoms))
                continue
            places = self._wrapped[atoms]
            axis = int(np.ptp(places, axis=0).argmax())
            at = len(atoms) * (n // 2) // n
            order = np.argpartition(places[:, axis], at)
            todo += [(atoms[order[at:]], n - n // 2), (atoms[order[:at]], n // 2)]
        return tiles

    def surroundings(self, core: IntArray, halo: float) -> Surroundings:
        """The given atoms and all images within `halo` (Angstrom) of any of them.

        Raises:
            PhysicsError: two atoms are on one place.
        """
        own = self._wrapped[core]
        atom, images, places = self._box(own.min(axis=0) - halo - MARGIN, own.max(axis=0) + halo + MARGIN)
        distance = np.asarray(cKDTree(own).query(places, distance_upper_bound=halo + MARGIN)[0])
        near = np.isfinite(distance)
        atom, images, places, distance = atom[near], images[near], places[near], distance[near]
        species, shift = self.structure.species[atom], images - self._wrap[atom]
        order = np.lexsort((shift[:, 2], shift[:, 1], shift[:, 0], atom, species))
        atom, shift, places = atom[order], shift[order], places[order]
        inside = np.zeros(self.structure.n_atoms, dtype=bool)
        inside[core] = True
        is_core = inside[atom] & ~images[order].any(axis=1)
        _refuse_overlapping(places, atom, is_core)
        moments = None if self.structure.moments is None else self.structure.moments[atom]
        cluster = AtomicStructure(self.structure.atomic_numbers[atom], species[order], places, moments=moments)
        return Surroundings(cluster, atom, shift, is_core, distance[order])

    def _box(self, low: FloatArray, high: FloatArray) -> tuple[IntArray, IntArray, FloatArray]:
        """Atom, image and place of all images in a box."""
        lattice, low_all, high_all = self.structure.lattice, self._wrapped.min(axis=0), self._wrapped.max(axis=0)
        found: list[tuple[IntArray, IntArray, FloatArray]] = []
        for image in self._images(low, high):
            move = image @ lattice
            if (low_all + move > high).any() or (high_all + move < low).any():
                continue
            here = np.arange(self.structure.n_atoms)
            for axis in range(3):
                x = self._wrapped[here, axis] + move[axis]
                here = here[(x >= low[axis]) & (x <= high[axis])]
            found.append((here, np.tile(image, (len(here), 1)), self._wrapped[here] + move))
        return (
            np.concatenate([f[0] for f in found]),
            np.concatenate([f[1] for f in found]),
            np.concatenate([f[2] for f in found]),
        )

    def _images(self, low: FloatArray, high: FloatArray) -> IntArray:
        """(n, 3) images that can reach into a box: the fractional coordinates of its corners bound them."""
        periodic = self.structure.pbc
        if not periodic.any():
            return np.zeros((1, 3), dtype=np.int64)
        corners = np.array([[x, y, z] for x in (low[0], high[0]) for y in (low[1], high[1]) for z in (low[2], high[2])])
        fractional = corners @ np.linalg.inv(self.structure.lattice)
        first = np.where(periodic, np.floor(fractional.min(axis=0)) - 1, 0).astype(int)
        last = np.where(periodic, np.floor(fractional.max(axis=0)) + 1, 0).astype(int)
        ranges = [np.arange(a, b + 1) for a, b in zip(first, last, strict=True)]
        return np.stack(np.meshgrid(*ranges, indexing="ij"), axis=-1).reshape(-1, 3)

    def pairs(self, cluster: Surroundings, cutoffs: FloatArray, first: BoolArray) -> TilePairs:
        """All pairs of a cluster that start at the given atoms and are shorter than the cutoff of their species.

        Args:
            cluster: must reach as far as the largest cutoff around these atoms.
            cutoffs: (n_species, n_species) Angstrom, symmetric.
            first: (n,) bool, atoms of the cluster.
        """
        i, j = _near(cluster.structure.positions, float(cutoffs.max()) + MARGIN)
        species = cluster.structure.species
        wanted = first[i]
        i, j = i[wanted], j[wanted]
        shift = cluster.shift[j] - cluster.shift[i]
        keep = self._length(cluster.atom[i], cluster.atom[j], shift) < cutoffs[species[i], species[j]]
        own = np.flatnonzero(first)
        i, j = np.concatenate((own, i[keep])), np.concatenate((own, j[keep]))
        shift = np.concatenate((np.zeros((len(own), 3), dtype=np.int64), shift[keep]))
        order = np.lexsort((j, i))
        return TilePairs(i[order], j[order], shift[order])

    def _length(self, i: IntArray, j: IntArray, shift: IntArray) -> FloatArray:
        """Lengths of pairs, bitwise equal for (i, j, n) and (j, i, -n): one rounding after another, no fused ones."""
        x, cell = self.structure.positions, self.structure.lattice
        square = np.zeros(len(i))
        for axis in range(3):
            move = shift[:, 0] * cell[0, axis] + shift[:, 1] * cell[1, axis] + shift[:, 2] * cell[2, axis]
            part = (x[j, axis] - x[i, axis]) + move
            square += part * part
        return np.sqrt(square)


def is_leading(species: IntArray, cluster: Surroundings, pairs: TilePairs) -> BoolArray:
    """(n,) bool: the pair stands before its reverse in a sorted list, or is its own reverse.

    Args:
        species: of the cluster's atoms.
        cluster, pairs: as from `Tiling.pairs`.
    """
    s_i, s_j = species[pairs.first], species[pairs.second]
    i, j = cluster.atom[pairs.first], cluster.atom[pairs.second]
    n = pairs.cell_shift
    negative = (n[:, 0] < 0) | (n[:, 0] == 0) & ((n[:, 1] < 0) | (n[:, 1] == 0) & (n[:, 2] <= 0))
    result: BoolArray = (s_i < s_j) | (s_i == s_j) & ((i < j) | (i == j) & negative)
    return result


def _near(places: FloatArray, cutoff: float) -> tuple[IntArray, IntArray]:
    """Directed pairs of different atoms in free space, shorter than the cutoff."""
    from vesin import NeighborList  # imported here: `import hamnet` stays fast

    search = NeighborList(cutoff=cutoff, full_list=True)
    i, j = search.compute(points=places, box=np.zeros((3, 3)), periodic=False, quantities="ij")
    return np.asarray(i, dtype=np.int64), np.asarray(j, dtype=np.int64)


def _refuse_overlapping(places: FloatArray, atom: IntArray, core: BoolArray) -> None:
    found = cKDTree(places).query(places[core], k=[2], distance_upper_bound=MINIMUM_DISTANCE)
    distance, at = np.asarray(found[0]), np.asarray(found[1])
    close = np.flatnonzero(np.isfinite(distance[:, 0]))
    if close.size:
        p = close[0]
        mine = np.flatnonzero(core)[p]
        raise PhysicsError(
            f"atoms {atom[mine]} and {atom[at[p, 0]]} are {distance[p, 0]:.4f} A apart (at {places[mine]}): "
            "two atoms on one place; remove one or mend the cell"
        )
