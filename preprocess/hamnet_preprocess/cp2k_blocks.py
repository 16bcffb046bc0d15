"""From CP2K's elements (image, row, column, value) to blocks in hamnet's order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hamnet.core.basis import OrbitalBasis
from hamnet.core.blocks import BlockMatrix
from hamnet.core.conventions import CP2K
from hamnet.core.pairs import PairList
from hamnet.core.spin import Spin
from hamnet.core.structure import AtomicStructure
from hamnet_preprocess.cp2k_csr import Entries

IntArray = NDArray[np.int64]


def whole(entries: Entries) -> Entries:
    """With the lower triangles, H_ji(-R) = H_ij(R), where only the upper ones were written."""
    if (entries.row > entries.column).any() or not (entries.row < entries.column).any():
        return entries
    above = entries.row < entries.column
    n = len(entries.images)
    return Entries(
        np.concatenate((entries.images, -entries.images)),
        np.concatenate((entries.image, entries.image[above] + n)),
        np.concatenate((entries.row, entries.column[above])),
        np.concatenate((entries.column, entries.row[above])),
        np.concatenate((entries.value, entries.value[above])),
    )


@dataclass(frozen=True, eq=False)
class _Places:
    """Pair of each element and where it stands inside the block."""

    rows: IntArray
    """(n_pairs, 5) distinct i, j, n."""
    pair: IntArray
    """(n,) index into `rows`."""
    atom_i: IntArray
    atom_j: IntArray
    row: IntArray
    column: IntArray
    sign: NDArray[np.float64]


def _places(entries: Entries, structure: AtomicStructure, basis: OrbitalBasis, wraps: IntArray) -> _Places:
    species, n_atoms = structure.species, structure.n_atoms
    starts = np.concatenate(([0], np.cumsum(basis.n_orbitals[species])))
    local, sign = _local(basis, species)
    i = np.searchsorted(starts, entries.row, side="right") - 1
    j = np.searchsorted(starts, entries.column, side="right") - 1
    code, pair = np.unique((entries.image * n_atoms + i) * n_atoms + j, return_inverse=True)
    a, b = code // n_atoms % n_atoms, code % n_atoms
    cell = entries.images[code // n_atoms**2] + wraps[a] - wraps[b]
    return _Places(
        np.column_stack((a, b, cell)),
        pair.reshape(-1),
        i,
        j,
        local[entries.row],
        local[entries.column],
        sign[entries.row] * sign[entries.column],
    )


def _local(basis: OrbitalBasis, species: IntArray) -> tuple[IntArray, NDArray[np.float64]]:
    """(n,) hamnet's index inside the atom and sign of each of CP2K's orbitals."""
    tables = [CP2K.species(kind) for kind in basis.species]
    inverse = [np.argsort(order) for order, _ in tables]
    signs = [sign[back] for (_, sign), back in zip(tables, inverse, strict=True)]
    return np.concatenate([inverse[k] for k in species]), np.concatenate([signs[k] for k in species])


def pairs_of(matrices: Sequence[Entries], structure: AtomicStructure, basis: OrbitalBasis, wraps: IntArray) -> PairList:
    """Every pair with an element in any of the matrices, its reverse, and all on-site pairs."""
    rows = np.concatenate([_places(m, structure, basis, wraps).rows for m in matrices])
    back = np.column_stack((rows[:, 1], rows[:, 0], -rows[:, 2:]))
    own = np.arange(structure.n_atoms)
    on_site = np.column_stack((own, own, np.zeros((len(own), 3), dtype=np.int64)))
    table = np.unique(np.concatenate((rows, back, on_site)), axis=0)
    return PairList.build(table[:, 0], table[:, 1], table[:, 2:], structure.species)


def blocks_of(
    channels: Sequence[Entries],
    pairs: PairList,
    structure: AtomicStructure,
    basis: OrbitalBasis,
    wraps: IntArray,
    unit: float,
) -> BlockMatrix:
    """The matrix of one channel, or collinear of two (alpha, then beta); not symmetrised.

    Args:
        channels: whole matrices.
        pairs: holds all their pairs.
        structure, basis: the atoms and their orbitals.
        wraps: (n_atoms, 3) as `cp2k_wraps.wraps_of` gives them.
        unit: factor for each value.
    """
    spin = Spin.COLLINEAR if len(channels) == 2 else Spin.NONE
    result = BlockMatrix.zeros(pairs, basis, structure.species, spin)
    n = basis.n_orbitals[structure.species]
    for layer, entries in enumerate(channels):
        at = _places(entries, structure, basis, wraps)
        none = np.zeros(len(at.rows), dtype=np.int64)
        start = result.offsets[pairs.find(PairList(at.rows[:, 0], at.rows[:, 1], at.rows[:, 2:], none))]
        width = n[at.atom_j]
        place = start[at.pair] + (layer * n[at.atom_i] + at.row) * width + at.column
        result.values[place] = entries.value * at.sign * unit
    return result
