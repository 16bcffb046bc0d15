"""Supercells of a structure and of its matrices: the same crystal in a larger cell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from hamnet.core.blocks import BlockMatrix
from hamnet.core.calculation import Calculation
from hamnet.core.pairs import PairList
from hamnet.core.structure import AtomicStructure
from hamnet.errors import PhysicsError

IntArray = NDArray[np.int64]


def supercell_structure(structure: AtomicStructure, repeats: tuple[int, int, int]) -> AtomicStructure:
    """The structure repeated along its lattice vectors; copy c of atom i is atom c * n_atoms + i.

    Raises:
        PhysicsError: a repeat is below one, or above one along a direction that is not periodic.
    """
    if min(repeats) < 1:
        raise PhysicsError(f"repeats must be at least 1, found {repeats}")
    bad = [k for k in range(3) if repeats[k] > 1 and not structure.pbc[k]]
    if bad:
        raise PhysicsError(f"repeats are {repeats} but lattice direction {bad[0]} is not periodic: give 1 there")
    copies = _copies(repeats)
    n = len(copies)
    positions = (structure.positions[None] + (copies @ structure.lattice)[:, None]).reshape(-1, 3)
    return AtomicStructure(
        np.tile(structure.atomic_numbers, n),
        np.tile(structure.species, n),
        positions,
        None if structure.cell is None else structure.cell * np.array(repeats)[:, None],
        structure.pbc,
        None if structure.moments is None else np.tile(structure.moments, (n, 1)),
    )


def supercell_matrix(matrix: BlockMatrix, repeats: tuple[int, int, int]) -> BlockMatrix:
    """The same periodic matrix said in the larger cell, atoms numbered as in `supercell_structure`."""
    copies = _copies(repeats)
    n_copies, n_atoms = len(copies), len(matrix.species)
    size = np.array(repeats)
    pairs = matrix.pairs
    end = copies[:, None] + pairs.cell_shift[None]
    shift, cell = np.floor_divide(end, size), np.mod(end, size)
    copy_j = (cell[..., 0] * size[1] + cell[..., 1]) * size[2] + cell[..., 2]
    i = (np.arange(n_copies)[:, None] * n_atoms + pairs.i[None]).reshape(-1)
    j = (copy_j * n_atoms + pairs.j[None]).reshape(-1)
    species = np.tile(matrix.species, n_copies)
    new_pairs, order = PairList.build_with_order(i, j, shift.reshape(-1, 3), species)
    source = order % pairs.n_pairs
    sizes = np.diff(matrix.offsets)[source]
    starts = np.repeat(matrix.offsets[source] - (np.cumsum(sizes) - sizes), sizes)
    values = matrix.values[starts + np.arange(len(starts))]
    return BlockMatrix.from_values(new_pairs, matrix.basis, species, matrix.spin, values)


def supercell(calculation: Calculation, repeats: tuple[int, int, int]) -> Calculation:
    """The calculation of the crystal in a cell of n1 x n2 x n3 copies; H, S and the electrons go along.

    Energy and electrons grow with the number of copies; eigenvalues and k mesh belong to the small cell and are left
    out.

    Raises:
        PhysicsError: a repeat is below one, or above one along a direction that is not periodic.
    """
    n = int(np.prod(repeats))
    large = calculation.transferred(
        supercell_structure(calculation.structure, repeats), lambda matrix: supercell_matrix(matrix, repeats)
    )
    return replace(
        large,
        energy=None if calculation.energy is None else calculation.energy * n,
        forces=None if calculation.forces is None else np.tile(calculation.forces, (n, 1)),
        n_electrons=None if calculation.n_electrons is None else calculation.n_electrons * n,
        fermi_energy=calculation.fermi_energy,
    )


def without_atoms(calculation: Calculation, atoms: Sequence[int]) -> Calculation:
    """The calculation with the rows and columns of some atoms left out: vacancies before anything relaxes.

    Electrons, energy, forces, Fermi level and eigenvalues belong to the whole cell and are left out.

    Args:
        calculation: of any cell.
        atoms: indices, each once.

    Raises:
        PhysicsError: an index that does not exist, or no atom is left.
    """
    old = calculation.structure
    keep = np.ones(old.n_atoms, dtype=bool)
    chosen = np.asarray(atoms, dtype=np.int64)
    if len(chosen) and (chosen.min() < 0 or chosen.max() >= old.n_atoms):
        raise PhysicsError(f"atoms {chosen.tolist()}: the cell has {old.n_atoms} atoms, 0 to {old.n_atoms - 1}")
    keep[chosen] = False
    if not keep.any():
        raise PhysicsError("no atom is left")
    structure = AtomicStructure(
        old.atomic_numbers[keep],
        old.species[keep],
        old.positions[keep],
        old.cell,
        old.pbc,
        None if old.moments is None else old.moments[keep],
    )
    return calculation.transferred(structure, lambda matrix: _of_atoms(matrix, keep))


def _of_atoms(matrix: BlockMatrix, keep: NDArray[np.bool_]) -> BlockMatrix:
    """Blocks between the atoms that stay; renumbering leaves their order as it is."""
    pairs = matrix.pairs
    kept = keep[pairs.i] & keep[pairs.j]
    number, place = np.cumsum(keep) - 1, np.cumsum(kept) - 1
    fewer = PairList(number[pairs.i[kept]], number[pairs.j[kept]], pairs.cell_shift[kept], place[pairs.reverse[kept]])
    values = matrix.values[np.repeat(kept, np.diff(matrix.offsets))]
    return BlockMatrix.from_values(fewer, matrix.basis, matrix.species[keep], matrix.spin, values)


def _copies(repeats: tuple[int, int, int]) -> IntArray:
    return np.stack(np.meshgrid(*(np.arange(n) for n in repeats), indexing="ij"), axis=-1).reshape(-1, 3)
