"""From which copy of each atom CP2K counts its periodic images.

CP2K counts from the atom wrapped into the cell about the origin, -1/2 < x < 1/2: an image n of its files is our
n + w_i - w_j with w = round(x). An atom at exactly 1/2 goes to either side, as its last bit has it; S tells which.
"""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.typing import NDArray

from hamnet.core.basis import OrbitalBasis
from hamnet.core.pairs import PairList
from hamnet.core.structure import AtomicStructure
from hamnet_preprocess.cp2k_blocks import blocks_of, pairs_of
from hamnet_preprocess.cp2k_csr import Entries
from hamnet_preprocess.pyscf_overlap import overlap_from_basis

IntArray = NDArray[np.int64]

TIE = 1e-9
"""Fractional coordinates this close to a half may be wrapped either way."""


def wraps_of(overlap: Entries, structure: AtomicStructure, basis: OrbitalBasis) -> IntArray:
    """(n_atoms, 3) the w of each atom; zero along directions without period.

    Args:
        overlap: S as in CP2K's files, whole.
        structure, basis: the atoms and their Gaussians.
    """
    if not structure.is_periodic:
        return np.zeros((structure.n_atoms, 3), dtype=np.int64)
    fractional = structure.positions @ np.linalg.inv(structure.lattice)
    down = np.where(structure.pbc, np.floor(fractional + 0.5 - TIE), 0.0).astype(np.int64)
    up = np.where(structure.pbc, np.floor(fractional + 0.5 + TIE), 0.0).astype(np.int64)
    ties = (down != up).any(axis=1)
    return _settled(down, up, ties, overlap, structure, basis) if ties.any() else down


def _settled(
    down: IntArray,
    up: IntArray,
    ties: NDArray[np.bool_],
    overlap: Entries,
    structure: AtomicStructure,
    basis: OrbitalBasis,
) -> IntArray:
    """Each atom in a tie is compared with the settled atom it overlaps most with; the first one sets the gauge."""
    wraps, open_atoms = down.copy(), ties.copy()
    if open_atoms.all():
        open_atoms[0] = False
    none = np.zeros_like(wraps)
    pairs = pairs_of([overlap], structure, basis, none)
    matrix = blocks_of([overlap], pairs, structure, basis, none, 1.0)
    largest = np.maximum.reduceat(np.abs(matrix.values), matrix.offsets[:-1])
    while open_atoms.any():
        usable = np.flatnonzero(~open_atoms[pairs.i] & open_atoms[pairs.j])
        if not usable.size:  # overlaps with no settled atom: its own gauge
            open_atoms[np.flatnonzero(open_atoms)[0]] = False
            continue
        best = usable[largest[usable].argmax()]
        i, j = int(pairs.i[best]), int(pairs.j[best])
        between = np.flatnonzero((pairs.i == i) & (pairs.j == j))
        blocks = np.stack([matrix.block(int(p)) for p in between])
        choices = [
            np.array(w) for w in product(*({a, b} for a, b in zip(down[j].tolist(), up[j].tolist(), strict=True)))
        ]
        deviations = [
            _deviation(blocks, pairs.cell_shift[between] + wraps[i] - w, (i, j), structure, basis) for w in choices
        ]
        wraps[j] = choices[int(np.argmin(deviations))]
        open_atoms[j] = False
    return wraps


def _deviation(
    blocks: NDArray[np.float64],
    shifts: IntArray,
    atoms: tuple[int, int],
    structure: AtomicStructure,
    basis: OrbitalBasis,
) -> float:
    """Largest difference of blocks (n, n_i, n_j) between two atoms from their integrals at the cell shifts (n, 3)."""
    two = list(atoms)
    pair = AtomicStructure(
        structure.atomic_numbers[two], structure.species[two], structure.positions[two], structure.cell, structure.pbc
    )
    n, zero, one = len(shifts), np.zeros(len(shifts), dtype=np.int64), np.ones(len(shifts), dtype=np.int64)
    own = np.arange(2)
    pairs, order = PairList.build_with_order(
        np.concatenate((zero, one, own)),
        np.concatenate((one, zero, own)),
        np.concatenate((shifts, -shifts, np.zeros((2, 3), dtype=np.int64))),
        pair.species,
    )
    rebuilt = overlap_from_basis(pair, basis, pairs)
    where = np.argsort(order)[:n]
    return float(max(np.abs(rebuilt.block(int(p)) - block).max() for p, block in zip(where, blocks, strict=True)))
