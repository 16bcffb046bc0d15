"""QH9: Fock matrices of QM9's molecules (B3LYP/def2-SVP), SQLite.

QH9Stable: `data(id, N, Z BLOB int32, pos BLOB float64, Ham BLOB float64)`, positions in Angstrom. QH9Dynamic, frames of
trajectories: `data(id, geo_id, N, Z, pos, ekin, epot, etot, time, Ham, converged)`, positions in bohr. Ham is
`mf.get_fock()` of PySCF 2.2.1, in Hartree and in PySCF's own orbital order; the benchmark permutes it on loading.
PySCF's `b3lyp` was the VWN5 one then: today's `b3lyp5`. There is no S. (Read in the benchmark's own code and README.)
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hamnet.core.calculation import Calculation, Provenance
from hamnet.core.conventions import PYSCF
from hamnet.core.units import BOHR
from hamnet.errors import FormatError
from hamnet_preprocess.molecule_rows import BASIS, MoleculeRow, molecule, n_orbitals_of
from hamnet_preprocess.row_database import digest_of, numbers_in, read_row, sources_below

FUNCTIONAL = "b3lyp5"
GRID = "level 3"
"""PySCF's default, which the generating scripts leave as it is."""
CONVERGENCE = "conv_tol 1e-09 Ha"


class QH9Reader:
    """Reads QH9Stable.db and QH9Dynamic_*.db row by row."""

    name = "qh9"

    def find(self, root: Path) -> list[Path]:
        """Rows of QH9 databases at or below a folder, in the order of the file."""
        return sources_below(Path(root), self.name)

    def read(self, source: Path, *, allow_unconverged: bool = False) -> Calculation:
        """Calculation of one row.

        Raises:
            FormatError: no such row, or bytes of a wrong length.
            ConvergenceError: a frame whose SCF did not converge.
            BasisError, PhysicsError: H does not fit the atoms or PySCF's orbital order.
        """
        source = Path(source)
        columns, rows = read_row(source, self.name)
        where = f"{rows.path.name} row {source.name}"
        count = columns["n"]
        if not isinstance(count, int) or count < 1:
            raise FormatError(f"{source}: N is {count!r}, expected the number of atoms")
        numbers = numbers_in(columns["z"], f"{source}: Z", {4: "<i4", 8: "<i8"}, count).astype(np.int64)
        flat = numbers_in(columns["pos"], f"{source}: pos", {8: "<f8"}, 3 * count)
        n = n_orbitals_of(numbers, str(source))
        fock = numbers_in(columns["ham"], f"{source}: Ham", {8: "<f8"}, n * n).reshape(n, n)
        moving = "geo_id" in columns
        digest = digest_of(columns["z"], columns["pos"], columns["ham"])
        of_file = f"{where} of {len(rows.rowids)}"
        provenance = Provenance("pyscf", "2.2.1", FUNCTIONAL, BASIS, GRID, CONVERGENCE, of_file, digest)
        row = MoleculeRow(
            where,
            numbers,
            flat.reshape(count, 3) * (BOHR if moving else 1.0),
            fock,
            None,
            provenance,
            energy=columns.get("epot"),
            converged=None if columns.get("converged") is None else bool(columns["converged"]),
        )
        return molecule(row, PYSCF, allow_unconverged)
