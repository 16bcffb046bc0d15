"""Tiny databases in the schemas of QH9, SchNOrb and nablaDFT, from PySCF calculations made once."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hamnet.core.conventions import ORCA, PSI4, PYSCF, OrbitalConvention, from_ours
from hamnet.core.units import BOHR
from hamnet_preprocess.pyscf_basis import basis_of
from hamnet_preprocess.pyscf_fock import Method, mean_field

MOLECULES = {
    "water": (("O", 0.0, 0.02, 0.1), ("H", 0.76, 0.1, 0.55), ("H", -0.71, 0.2, 0.62)),
    "hydrogen": (("H", 0.1, 0.0, 0.0), ("H", 0.4, 0.45, 0.5)),
}


@dataclass(frozen=True, eq=False)
class Molecule:
    """A converged calculation in PySCF's orbital order, atomic units but for positions in Angstrom."""

    mol: Any
    numbers: NDArray[np.int64]
    positions: NDArray[np.float64]
    fock: NDArray[np.float64]
    overlap: NDArray[np.float64]
    energy: float
    forces: NDArray[np.float64]
    """Hartree / bohr; invented, since readers pass them on."""


@lru_cache(maxsize=8)
def calculated(name: str, xc: str = "b3lyp5") -> Molecule:
    """One of the molecules; grid level 3 and conv_tol 1e-9, as QH9's."""
    from pyscf import gto

    mol = gto.M(atom=[(a, (x, y, z)) for a, x, y, z in MOLECULES[name]], basis="def2-svp", verbose=0)
    mf = mean_field(mol, Method(xc, 3))
    energy = mf.kernel()
    forces = np.random.default_rng(len(name)).normal(size=(mol.natm, 3))
    positions = np.array([[x, y, z] for _, x, y, z in MOLECULES[name]])
    return Molecule(mol, mol.atom_charges().astype(np.int64), positions, mf.get_fock(), mf.get_ovlp(), energy, forces)


def in_order(molecule: Molecule, matrix: NDArray[Any], convention: OrbitalConvention) -> NDArray[Any]:
    """A dense matrix from PySCF's orbital order into another code's, block by block."""
    basis, species = basis_of(molecule.mol)
    kinds = [basis.species[k] for k in species]
    starts = np.cumsum([0, *(kind.n_orbitals for kind in kinds)])
    result = np.zeros_like(matrix)
    for i, row in enumerate(kinds):
        for j, column in enumerate(kinds):
            part = (slice(starts[i], starts[i + 1]), slice(starts[j], starts[j + 1]))
            (row_order, _), (column_order, _) = PYSCF.species(row), PYSCF.species(column)
            ours = matrix[part][np.ix_(row_order, column_order)]
            result[part] = from_ours(ours, convention, row, column)
    return result


def write_qh9(path: Path, molecules: list[Molecule], convention: OrbitalConvention = PYSCF) -> Path:
    """QH9Stable.db."""
    with sqlite3.connect(path) as file:
        file.execute("CREATE TABLE data (id INTEGER NOT NULL PRIMARY KEY, N INTEGER, Z BLOB, pos BLOB, Ham BLOB)")
        for k, m in enumerate(molecules):
            fock = np.ascontiguousarray(in_order(m, m.fock, convention))
            row = (k, len(m.numbers), m.numbers.astype("<i4").tobytes(), m.positions.tobytes(), fock.tobytes())
            file.execute("INSERT INTO data VALUES (?,?,?,?,?)", row)
    file.close()
    return path


def write_qh9_dynamic(path: Path, molecules: list[Molecule], converged: bool = True) -> Path:
    """QH9Dynamic_300k.db: positions in bohr, the molecule's number as bytes."""
    with sqlite3.connect(path) as file:
        file.execute(
            "CREATE TABLE data (id INTEGER NOT NULL, geo_id INTEGER NOT NULL, N INTEGER, Z BLOB, pos BLOB, "
            "ekin FLOAT, epot FLOAT, etot FLOAT, time FLOAT, Ham BLOB, converged INT)"
        )
        for k, m in enumerate(molecules):
            bohr = np.ascontiguousarray(m.positions / BOHR)
            z = m.numbers.astype("<i4").tobytes()
            row = (np.int64(7).tobytes(), k, len(m.numbers), z, bohr.tobytes(), 0.1, m.energy, 0.0, 0.0)
            file.execute("INSERT INTO data VALUES (?,?,?,?,?,?,?,?,?,?,?)", (*row, m.fock.tobytes(), int(converged)))
    file.close()
    return path


def write_nabladft(path: Path, molecules: list[Molecule], convention: OrbitalConvention = PSI4) -> Path:
    """A Hamiltonian database of nablaDFT, float32."""

    def blob(array: NDArray[Any]) -> bytes:
        """As the database keeps arrays."""
        return np.ascontiguousarray(array, dtype="<f4").tobytes()

    with sqlite3.connect(path) as file:
        file.execute("CREATE TABLE dataset_ids (id INTEGER NOT NULL PRIMARY KEY, MOSES_ID INT, CONFORMER_ID INT)")
        file.execute(
            "CREATE TABLE data (id INTEGER NOT NULL PRIMARY KEY, "
            "Z BLOB, R BLOB, E FLOAT, F BLOB, H BLOB, S BLOB, C BLOB)"
        )
        for k, m in enumerate(molecules):
            h, s = (in_order(m, matrix, convention) for matrix in (m.fock, m.overlap))
            row = (k, m.numbers.astype("<i4").tobytes(), blob(m.positions / BOHR), m.energy, blob(m.forces), blob(h))
            file.execute("INSERT INTO data VALUES (?,?,?,?,?,?,?,?)", (*row, blob(s), None))
    file.close()
    return path


def write_schnorb(path: Path, molecules: list[Molecule], convention: OrbitalConvention = ORCA) -> Path:
    """An ASE database as SchNOrb writes: six decimals, float32, energies less their mean."""
    from ase import Atoms
    from ase.db import connect

    mean = float(np.mean([m.energy for m in molecules]))
    with connect(path, type="db") as database:
        for m in molecules:
            h, s = (in_order(m, np.round(x, 6), convention).astype(np.float32) for x in (m.fock, m.overlap))
            data = {"hamiltonian": h, "overlap": s, "energy": np.array([m.energy - mean]), "forces": m.forces / BOHR}
            database.write(Atoms(m.numbers, m.positions.round(6)), data=data)
        database.metadata = {"mean_energy": mean}
    return path
