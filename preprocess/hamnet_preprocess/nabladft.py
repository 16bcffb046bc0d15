"""nablaDFT: Fock matrices of drug-like molecules (wB97X-D/def2-SVP of Psi4 1.5), SQLite.

`data(id, Z BLOB int32, R, E FLOAT, F, H, S, C)`: R in bohr, E in Hartree, F in Hartree / bohr, H full and C core
Hamiltonian in Hartree, S overlap, all float32, in Psi4's orbital order. (Read in the database's own code.)
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hamnet.core.calculation import Calculation, Provenance
from hamnet.core.conventions import PSI4
from hamnet.core.units import BOHR
from hamnet.errors import FormatError
from hamnet_preprocess.molecule_rows import BASIS, MoleculeRow, molecule, n_orbitals_of
from hamnet_preprocess.row_database import digest_of, numbers_in, read_row, sources_below

FUNCTIONAL = "hyb_gga_xc_wb97x_d"
"""wB97X-D by libxc's name: PySCF refuses the short one, because its dispersion, which H lacks, is not there."""
NUMBER = {4: "<f4", 8: "<f8"}


class NablaDFTReader:
    """Reads nablaDFT's Hamiltonian databases row by row."""

    name = "nabladft"

    def find(self, root: Path) -> list[Path]:
        """Rows of nablaDFT databases at or below a folder, in the order of the file."""
        return sources_below(Path(root), self.name)

    def read(self, source: Path, *, allow_unconverged: bool = False) -> Calculation:
        """Calculation of one row.

        Raises:
            FormatError: no such row, or bytes of a wrong length.
            BasisError, PhysicsError: H or S do not fit the atoms; the message names the orbital order that would.
        """
        source = Path(source)
        columns, rows = read_row(source, self.name)
        charges = columns["z"]
        if not isinstance(charges, bytes) or not charges or len(charges) % 4:
            raise FormatError(f"{source}: Z is no list of int32 numbers")
        numbers = np.frombuffer(charges, dtype="<i4").astype(np.int64)
        count, n = len(numbers), n_orbitals_of(numbers, str(source))
        positions = numbers_in(columns["r"], f"{source}: R", NUMBER, 3 * count).reshape(count, 3)
        matrices = {key: numbers_in(columns[key], f"{source}: {key.upper()}", NUMBER, n * n) for key in ("h", "s")}
        where = f"{rows.path.name} row {source.name}"
        digest = digest_of(charges, columns["r"], columns["h"], columns["s"])
        stated = "float32" if matrices["h"].dtype == np.float32 else ""
        of_file = f"{where} of {len(rows.rowids)}"
        row = MoleculeRow(
            where,
            numbers,
            positions.astype(np.float64) * BOHR,
            matrices["h"].reshape(n, n),
            matrices["s"].reshape(n, n),
            Provenance("psi4", "1.5", FUNCTIONAL, BASIS, "", stated, of_file, digest),
            energy=None if columns.get("e") is None else float(columns["e"]),
            forces=_forces(columns.get("f"), count, source),
        )
        return molecule(row, PSI4, allow_unconverged)


def _forces(blob: Any, count: int, source: Path) -> NDArray[np.float64] | None:
    """(n_atoms, 3) Hartree / Angstrom from Hartree / bohr; None where the row has none."""
    if blob is None:
        return None
    return numbers_in(blob, f"{source}: F", NUMBER, 3 * count).reshape(count, 3).astype(np.float64) / BOHR
