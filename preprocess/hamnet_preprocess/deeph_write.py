"""Writers of DeepH's two folder formats; `deeph.py` reads them and describes them."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from hamnet.core.blocks import BlockMatrix
from hamnet.core.calculation import Calculation
from hamnet.core.conventions import HAMNET, OPENMX, OrbitalConvention
from hamnet.core.pairs import PairList
from hamnet.core.spin import Spin
from hamnet.core.structure import AtomicStructure
from hamnet.errors import PhysicsError
from hamnet_preprocess.code_blocks import one_species_per_element, reordered, with_pairs_of
from hamnet_preprocess.deeph_info import extras_of
from hamnet_preprocess.elements import cell_for_file, symbol_of

IntArray = NDArray[np.int64]


def write_deeph(calculation: Calculation, folder: Path) -> None:
    """Write the new format into a folder: POSCAR, info.json, overlap.h5 and, if there is an H, hamiltonian.h5.

    Atoms are grouped by element, elements in order of first appearance, because a POSCAR is.

    Raises:
        PhysicsError: collinear spin, which the format does not have.
        BasisError: one element with two bases, or a ghost atom.
    """
    _refuse_collinear(calculation, "DeepH")
    one_species_per_element(calculation.structure, calculation.basis, "DeepH")
    numbers = calculation.structure.atomic_numbers.tolist()
    order = np.argsort([numbers.index(z) for z in numbers], kind="stable")
    grouped = reorder_atoms(calculation, order)
    structure, basis = grouped.structure, grouped.basis
    (folder / "POSCAR").write_text(_poscar_text(structure))
    used = {int(k): basis.species[int(k)] for k in structure.species}
    info = {
        "atoms_quantity": structure.n_atoms,
        "orbits_quantity": grouped.overlap.n_orbitals,
        "orthogonal_basis": False,
        "spinful": calculation.spin is Spin.SPINOR,
        "fermi_energy_eV": calculation.fermi_energy,
        "elements_orbital_map": {symbol_of(s.atomic_number): list(s.shell_ls) for s in used.values()},
        "hamnet": extras_of(grouped),
    }
    (folder / "info.json").write_text(json.dumps(info, indent=1))
    overlap, hamiltonian = _same_pairs(grouped)
    _write_chunks(folder / "overlap.h5", overlap)
    if hamiltonian is not None:
        _write_chunks(folder / "hamiltonian.h5", hamiltonian)


def write_deeph_legacy(calculation: Calculation, folder: Path) -> None:
    """Write the legacy format into a folder: five text files, overlaps.h5 and, if there is an H, hamiltonians.h5.

    Raises:
        PhysicsError: collinear spin, which the format does not have.
        BasisError: a ghost atom, or shells beyond f, whose order in OpenMX is not known.
    """
    _refuse_collinear(calculation, "DeepH's legacy format")
    structure, basis = calculation.structure, calculation.basis
    for number in set(structure.atomic_numbers.tolist()):
        symbol_of(number)
    cell = cell_for_file(structure)
    np.savetxt(folder / "element.dat", structure.atomic_numbers, fmt="%d")
    np.savetxt(folder / "lat.dat", cell.T)
    np.savetxt(folder / "rlat.dat", 2 * np.pi * np.linalg.inv(cell))
    np.savetxt(folder / "site_positions.dat", structure.positions.T)
    lines = ["  ".join(str(l) for l in basis.species[k].shell_ls) for k in structure.species]
    (folder / "orbital_types.dat").write_text("\n".join(lines) + "\n")
    info = {
        "nsites": structure.n_atoms,
        "isorthogonal": False,
        "isspinful": calculation.spin is Spin.SPINOR,
        "norbits": calculation.overlap.n_orbitals,
        "fermi_level": calculation.fermi_energy,
        "hamnet": extras_of(calculation),
    }
    (folder / "info.json").write_text(json.dumps(info, indent=1))
    overlap, hamiltonian = _same_pairs(calculation)
    _write_keys(folder / "overlaps.h5", overlap, OPENMX)
    if hamiltonian is not None:
        _write_keys(folder / "hamiltonians.h5", hamiltonian, OPENMX)


def reorder_atoms(calculation: Calculation, order: IntArray) -> Calculation:
    """The same calculation with atom a of the new one being atom order[a] of the old; without forces and density."""
    old = calculation.structure
    structure = AtomicStructure(
        old.atomic_numbers[order],
        old.species[order],
        old.positions[order],
        old.cell,
        old.pbc,
        None if old.moments is None else old.moments[order],
    )
    new_place = np.argsort(order)

    def moved(matrix: BlockMatrix) -> BlockMatrix:
        """The blocks of a matrix under the new numbers of the atoms."""
        pairs = matrix.pairs
        sorted_pairs, at = PairList.build_with_order(
            new_place[pairs.i], new_place[pairs.j], pairs.cell_shift, structure.species
        )
        values = np.concatenate([matrix.values[matrix.offsets[p] : matrix.offsets[p + 1]] for p in at.tolist()])
        return BlockMatrix.from_values(sorted_pairs, matrix.basis, structure.species, matrix.spin, values)

    hamiltonian = calculation.hamiltonian
    return Calculation(
        structure,
        calculation.basis,
        moved(calculation.overlap),
        None if hamiltonian is None else moved(hamiltonian),
        energy=calculation.energy,
        fermi_energy=calculation.fermi_energy,
        n_electrons=calculation.n_electrons,
        kmesh=calculation.kmesh,
        electronic_temperature=calculation.electronic_temperature,
        converged=calculation.converged,
        provenance=calculation.provenance,
    )


def _refuse_collinear(calculation: Calculation, what: str) -> None:
    if calculation.spin is Spin.COLLINEAR:
        raise PhysicsError(
            f"{what} has no collinear spin (up and down channels): it stores none or spinor matrices; "
            "use --to hsx or --to hamnet"
        )


def _same_pairs(calculation: Calculation) -> tuple[BlockMatrix, BlockMatrix | None]:
    """S and H on one list of pairs, as DeepH wants its files."""
    if calculation.hamiltonian is None:
        return calculation.overlap, None
    hamiltonian = with_pairs_of(calculation.hamiltonian, calculation.overlap)
    return calculation.overlap.on_pairs(hamiltonian.pairs), hamiltonian


def _poscar_text(structure: AtomicStructure) -> str:
    numbers = structure.atomic_numbers.tolist()
    elements = list(dict.fromkeys(numbers))
    rows = [*cell_for_file(structure), *structure.positions]
    lines = ["  ".join(f"{x:.17g}" for x in row) for row in rows]
    head = [" ".join(symbol_of(z) for z in elements), " ".join(str(numbers.count(z)) for z in elements), "Cartesian"]
    return "\n".join(["written by hamnet", "1.0", *lines[:3], *head, *lines[3:]]) + "\n"


def _block_shapes(matrix: BlockMatrix) -> IntArray:
    n = matrix.basis.n_orbitals[matrix.species]
    factor = 2 if matrix.spin is Spin.SPINOR else 1
    return factor * np.column_stack((n[matrix.pairs.i], n[matrix.pairs.j]))


def _write_chunks(path: Path, matrix: BlockMatrix) -> None:
    pairs = matrix.pairs
    with h5py.File(path, "w") as file:
        file["atom_pairs"] = np.column_stack((pairs.cell_shift, pairs.i, pairs.j))
        file["chunk_shapes"] = _block_shapes(matrix)
        file["chunk_boundaries"] = matrix.offsets
        file["entries"] = reordered(matrix, HAMNET, to_code=True).values


def _write_keys(path: Path, matrix: BlockMatrix, order: OrbitalConvention) -> None:
    coded, pairs = reordered(matrix, order, to_code=True), matrix.pairs
    with h5py.File(path, "w") as file:
        for p in range(pairs.n_pairs):
            key = [*pairs.cell_shift[p].tolist(), int(pairs.i[p]) + 1, int(pairs.j[p]) + 1]
            file[json.dumps(key)] = coded.block(p)
