"""SchNOrb's databases of MD17 (PBE/def2-SVP of ORCA): an ASE database with matrices in each row's data.

`row.data` holds hamiltonian (Hartree) and overlap, (n, n) in ORCA's orbital order and read from six printed decimals,
energy (Hartree, less the `mean_energy` in the file's metadata) and forces (Hartree / Angstrom); positions are in
Angstrom. Old files keep each array as base64 text beside its `_shape_` and `_dtype_`. (Read in SchNOrb's own code.)
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hamnet.core.calculation import Calculation, Provenance
from hamnet.core.conventions import ORCA
from hamnet.errors import FormatError
from hamnet_preprocess.molecule_rows import BASIS, MoleculeRow, molecule
from hamnet_preprocess.row_database import digest_of, read_row, sources_below

FUNCTIONAL = "pbe"
ARRAYS = ("hamiltonian", "overlap", "energy", "forces")


class SchNOrbReader:
    """Reads schnorb_hamiltonian_*.db row by row."""

    name = "schnorb"

    def find(self, root: Path) -> list[Path]:
        """Rows of ASE databases at or below a folder, in the order of the file."""
        return sources_below(Path(root), self.name)

    def read(self, source: Path, *, allow_unconverged: bool = False) -> Calculation:
        """Calculation of one row.

        Raises:
            FormatError: no such row, or no Hamiltonian in it.
            BasisError, PhysicsError: H or S do not fit the atoms; the message names the orbital order that would.
        """
        source = Path(source)
        _, rows = read_row(source, self.name)
        atoms, stored = _row(rows.path, rows.rowids[int(source.name)], source)
        data = {name: _array(stored, name, source) for name in ARRAYS}
        fock = data["hamiltonian"]
        if fock is None or fock.ndim != 2:
            raise FormatError(f"{source}: row.data has no 'hamiltonian' matrix; it holds {sorted(stored)}")
        where = f"{rows.path.name} row {source.name}"
        numbers = np.asarray(atoms.numbers, dtype=np.int64)
        positions = np.asarray(atoms.positions, dtype=np.float64)
        digest = digest_of(numbers, positions, fock)
        of_file = f"{where} of {len(rows.rowids)}"
        energy, forces = data["energy"], data["forces"]
        row = MoleculeRow(
            where,
            numbers,
            positions,
            fock,
            data["overlap"],
            Provenance("orca", "", FUNCTIONAL, BASIS, "", "printed with six decimals", of_file, digest),
            energy=None if energy is None else float(energy.reshape(-1)[0]) + _energy_zero(rows.path),
            forces=None if forces is None else forces.reshape(-1, 3).astype(np.float64),
        )
        return molecule(row, ORCA, allow_unconverged)


@lru_cache(maxsize=4)
def _database(path: Path) -> Any:
    from ase.db import connect

    return connect(path, type="db")


def _row(path: Path, rowid: int, source: Path) -> tuple[Any, dict[str, Any]]:
    """ASE's row and its data, decoded.

    Raises:
        FormatError: ASE cannot read it, for which it raises many kinds.
    """
    try:
        atoms = _database(path).get(id=rowid)
        data = dict(atoms.data)
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:120]
        raise FormatError(f"{source}: ASE cannot read the row: {reason}") from error
    return atoms, data


@lru_cache(maxsize=4)
def _energy_zero(path: Path) -> float:
    """Hartree that SchNOrb took off all energies of the file."""
    metadata = _database(path).metadata
    return float(metadata.get("mean_energy") or 0.0) + float(metadata.get("energy_offset") or 0.0)


def _array(data: Mapping[str, Any], name: str, source: Path) -> NDArray[Any] | None:
    """An array of a row's data; None where there is none.

    Raises:
        FormatError: no numbers, or text whose shape and type do not fit.
    """
    value = data.get(name)
    if value is None:
        return None
    try:
        if isinstance(value, str):
            shape, kind = data[f"_shape_{name}"], np.dtype(data[f"_dtype_{name}"])
            return np.frombuffer(base64.b64decode(value, validate=True), dtype=kind).reshape(shape)
        array = np.asarray(value)
    except (KeyError, TypeError, ValueError, binascii.Error) as error:
        raise FormatError(f"{source}: row.data[{name!r}] cannot be decoded: {error}") from error
    if array.dtype.kind != "f":
        raise FormatError(f"{source}: row.data[{name!r}] holds {array.dtype}, expected floating-point numbers")
    return array
