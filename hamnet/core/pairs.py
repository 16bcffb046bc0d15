"""PairList: which blocks exist; and the neighbour search that finds them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hamnet.core.basis import OrbitalBasis
from hamnet.core.structure import MINIMUM_DISTANCE, AtomicStructure
from hamnet.errors import BasisError, PhysicsError

IntArray = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class PairList:
    """All directed atom pairs (i, j, R), each with its reverse (j, i, -R).

    Args:
        i, j: (n_pairs,) atoms; the pair vector is r_j + R - r_i.
        cell_shift: (n_pairs, 3) integer triple n, R = n . cell.
        reverse: (n_pairs,) index of (j, i, -R).

    Use `PairList.build`: it sorts by (species_i, species_j, i, j, R) and finds the reverse pairs.
    """

    i: IntArray
    j: IntArray
    cell_shift: IntArray
    reverse: IntArray

    @classmethod
    def build(cls, i: IntArray, j: IntArray, cell_shift: IntArray, species: IntArray) -> PairList:
        """Sorted pair list; every pair must come with its reverse, no pair may repeat.

        Raises:
            PhysicsError: a pair is repeated or has no reverse.
        """
        return cls.build_with_order(i, j, cell_shift, species)[0]

    @classmethod
    def build_with_order(
        cls, i: IntArray, j: IntArray, cell_shift: IntArray, species: IntArray
    ) -> tuple[PairList, IntArray]:
        """As `build`, with the order (n_pairs,) such that sorted[p] = given[order[p]]."""
        i, j = np.asarray(i, dtype=np.int64), np.asarray(j, dtype=np.int64)
        shift = np.asarray(cell_shift, dtype=np.int64).reshape(-1, 3)
        order = np.lexsort((shift[:, 2], shift[:, 1], shift[:, 0], j, i, species[j], species[i]))
        i, j, shift = i[order], j[order], shift[order]
        return cls(i, j, shift, _reverse(i, j, shift)), order

    def __post_init__(self) -> None:
        n = len(self.i)
        if self.j.shape != (n,) or self.cell_shift.shape != (n, 3) or self.reverse.shape != (n,):
            raise PhysicsError(
                f"pair list arrays do not fit: i {self.i.shape}, j {self.j.shape}, "
                f"cell_shift {self.cell_shift.shape}, reverse {self.reverse.shape}"
            )

    @property
    def n_pairs(self) -> int:
        """Number of directed pairs, on-site ones included."""
        return len(self.i)

    @property
    def on_site(self) -> NDArray[np.bool_]:
        """(n_pairs,) True for (i, i, 0)."""
        result: NDArray[np.bool_] = (self.i == self.j) & ~self.cell_shift.any(axis=1)
        return result

    def vectors(self, structure: AtomicStructure) -> NDArray[np.float64]:
        """(n_pairs, 3) pair vectors r_j + R - r_i in Angstrom."""
        x = structure.positions
        result: NDArray[np.float64] = x[self.j] - x[self.i] + self.cell_shift @ structure.lattice
        return result

    def find(self, other: PairList) -> IntArray:
        """(other.n_pairs,) index in this list of each pair of the other, -1 where it is absent."""
        return _lookup(_keys(self, self, other), _keys(other, self, other))


def _keys(pairs: PairList, *all_pairs: PairList) -> IntArray:
    """One int64 for each (i, j, R), comparable among the lists in `all_pairs`."""
    table = np.concatenate([np.column_stack((p.i, p.j, p.cell_shift)) for p in all_pairs])
    return _pack(np.column_stack((pairs.i, pairs.j, pairs.cell_shift)), table.min(axis=0), table.max(axis=0))


def _pack(rows: IntArray, low: IntArray, high: IntArray) -> IntArray:
    span = high - low + 1
    if float(np.prod(span.astype(np.float64))) >= 2.0**62:
        raise PhysicsError(f"pair indices span {span}, too wide to be indexed: wrap the atoms into the cell")
    key = np.zeros(len(rows), dtype=np.int64)
    for column in range(rows.shape[1]):
        key = key * span[column] + (rows[:, column] - low[column])
    return key


def _lookup(keys: IntArray, wanted: IntArray) -> IntArray:
    order = np.argsort(keys, kind="stable")
    at = np.searchsorted(keys, wanted, sorter=order)
    found = order[np.minimum(at, len(keys) - 1)]
    return np.where(keys[found] == wanted, found, -1)


def _reverse(i: IntArray, j: IntArray, shift: IntArray) -> IntArray:
    if len(i) == 0:
        return np.zeros(0, dtype=np.int64)
    forward, backward = np.column_stack((i, j, shift)), np.column_stack((j, i, -shift))
    low, high = (
        np.minimum(forward.min(axis=0), backward.min(axis=0)),
        np.maximum(forward.max(axis=0), backward.max(axis=0)),
    )
    keys = _pack(forward, low, high)
    if len(np.unique(keys)) != len(keys):
        values, counts = np.unique(keys, return_counts=True)
        p = int(np.flatnonzero(keys == values[counts > 1][0])[0])
        raise PhysicsError(f"pair ({i[p]}, {j[p]}, {shift[p].tolist()}) appears more than once")
    reverse = _lookup(keys, _pack(backward, low, high))
    if (reverse < 0).any():
        p = int(np.flatnonzero(reverse < 0)[0])
        raise PhysicsError(
            f"pair ({i[p]}, {j[p]}, {shift[p].tolist()}) is there but its reverse "
            f"({j[p]}, {i[p]}, {(-shift[p]).tolist()}) is not: every block needs its hermitian partner"
        )
    return reverse


def neighbour_pairs(structure: AtomicStructure, cutoff: float | NDArray[np.float64]) -> PairList:
    """All pairs closer than the cutoff, on-site pairs included.

    Args:
        structure: the atoms.
        cutoff: one length in Angstrom, or (n_atoms,) radii: then a pair exists where |vector| < r_i + r_j.

    Raises:
        PhysicsError: two atoms are on one place.
    """
    from vesin import NeighborList  # imported here: `import hamnet` stays fast

    radii = np.broadcast_to(np.asarray(cutoff, dtype=np.float64), (structure.n_atoms,)) if np.ndim(cutoff) else None
    reach = float(cutoff) if radii is None else 2 * float(radii.max())
    search = NeighborList(cutoff=reach, full_list=True)
    i, j, shift, distance = search.compute(
        points=structure.positions, box=structure.lattice, periodic=structure.pbc, quantities="ijSd"
    )
    i, j = np.asarray(i, dtype=np.int64), np.asarray(j, dtype=np.int64)
    _refuse_overlapping(i, j, distance, structure)
    keep = distance < (reach if radii is None else radii[i] + radii[j])
    own = np.arange(structure.n_atoms, dtype=np.int64)
    shift = np.asarray(shift, dtype=np.int64)[keep]
    return PairList.build(
        np.concatenate((own, i[keep])),
        np.concatenate((own, j[keep])),
        np.concatenate((np.zeros((len(own), 3), dtype=np.int64), shift)),
        structure.species,
    )


def orbital_pairs(structure: AtomicStructure, basis: OrbitalBasis) -> PairList:
    """Pairs whose orbitals overlap, |vector| < radius_i + radius_j, from the radii in the basis.

    Raises:
        BasisError: a species has orbitals without a radius.
    """
    radii = [species.radius for species in basis.species]
    for k in np.unique(structure.species):
        if radii[k] is None:
            raise BasisError(f"species {basis.species[k].label!r} has no orbital radius: give a pair cutoff instead")
    table = np.array([0.0 if r is None else r for r in radii])
    return neighbour_pairs(structure, table[structure.species])


def _refuse_overlapping(i: IntArray, j: IntArray, distance: NDArray[np.float64], structure: AtomicStructure) -> None:
    close = np.flatnonzero(distance < MINIMUM_DISTANCE)
    if close.size:
        p = close[0]
        raise PhysicsError(
            f"atoms {i[p]} and {j[p]} are {distance[p]:.4f} A apart (positions {structure.positions[i[p]]} and "
            f"{structure.positions[j[p]]}): two atoms on one place; remove one or mend the cell"
        )
