"""The account of Fock builds: one row of a CSV file for each prediction that was checked, written as it is made."""

from __future__ import annotations

import csv
import math
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from hamnet.core.blocks import BlockMatrix
from hamnet.errors import FormatError, HamnetError
from hamnet.predict.fock_check import Builder, FockCheck, MakeBuilder, fock_check
from hamnet.predict.predictor import Predictor
from hamnet_preprocess.pyscf_fock import FockBuilder, Method

NUMBERS = {"round": int, "builds": int, "coulomb_builds": int, "energy_eV": float, "commutator_eV": float}
NUMBERS |= {"energy_error_eV": float, "fock_distance_meV": float, "seconds": float}


@dataclass(frozen=True)
class FockRow:
    """One structure in one round.

    Args:
        round: counted from 0.
        name: of the structure.
        builds: Fock builds spent, that of H0 and those of a failed check included.
        energy_eV, commutator_eV, energy_error_eV: as in `FockCheck`; NaN where the check failed.
        fock_distance_meV: mean |F - H|.
        seconds: wall time, prediction included.
        coulomb_builds: Coulomb matrices beside the Fock builds.
        reason: why the structure was left out; empty where all went well.
    """

    round: int
    name: str
    builds: int
    energy_eV: float
    commutator_eV: float
    energy_error_eV: float
    fock_distance_meV: float
    seconds: float
    coulomb_builds: int = 0
    reason: str = ""


COLUMNS = [field.name for field in fields(FockRow)]


class FockLog:
    """Rows of a file that grows; a line that a kill cut short is dropped when the file is opened again.

    Args:
        path: CSV file; made when absent.

    Raises:
        FormatError: the file is no such log.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[FockRow] = []
        if path.is_file():
            self._take_up()
        else:
            path.write_text(",".join(COLUMNS) + "\n", encoding="utf-8")

    @property
    def builds(self) -> int:
        """Fock builds of all rows: those of an earlier start, and those made twice after a kill, included."""
        return sum(row.builds for row in self.rows)

    @property
    def coulomb_builds(self) -> int:
        """Coulomb matrices of all rows."""
        return sum(row.coulomb_builds for row in self.rows)

    def add(self, row: FockRow) -> None:
        """Append a row; it is in the file when this returns."""
        with self.path.open("a", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerow(asdict(row).values())
        self.rows.append(row)

    def failed(self) -> dict[str, str]:
        """Structures that were left out, with the reason."""
        return {row.name: row.reason for row in self.rows if row.reason}

    def _take_up(self) -> None:
        text = self.path.read_bytes().decode("utf-8", errors="replace")
        whole = text[: text.rfind("\n") + 1]
        if len(whole) < len(text):
            self.path.write_text(whole, encoding="utf-8")
        lines = csv.DictReader(whole.splitlines())
        if lines.fieldnames is None or list(lines.fieldnames) != COLUMNS:
            raise FormatError(f"{self.path} is no account of Fock builds: expected the columns {', '.join(COLUMNS)}")
        for number, line in enumerate(lines, start=2):
            try:
                values: dict[str, Any] = {key: NUMBERS.get(key, str)(value) for key, value in line.items()}
                self.rows.append(FockRow(**values))
            except (TypeError, ValueError) as error:
                raise FormatError(f"{self.path}, line {number}: found {line}, expected numbers ({error})") from error


def accounted_check(
    predictor: Predictor,
    name: str,
    atoms: Any,
    number: int,
    method: Method,
    reference: BlockMatrix | None = None,
    make_builder: MakeBuilder = FockBuilder,
    relax: bool = False,
) -> tuple[FockRow, FockCheck | None]:
    """`fock_check` of one structure, and its row of the account; where it fails, None and a row that says why.

    Args:
        predictor, atoms, method, reference, make_builder, relax: as for `fock_check`.
        name: of the structure.
        number: of the round.
    """
    started = time.perf_counter()
    made: list[Builder] = []

    def make(*arguments: Any) -> Builder:
        """Keeps the builder, so that its builds are counted whatever becomes of them."""
        made.append(make_builder(*arguments))
        return made[-1]

    check, reason = None, ""
    try:
        check = fock_check(predictor, atoms, method, reference, make, relax)
    except HamnetError as error:
        reason = f"{type(error).__name__}: {error}"
    except (ArithmeticError, ValueError, RuntimeError, np.linalg.LinAlgError) as error:  # from inside the DFT code
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    seconds, builds = time.perf_counter() - started, sum(builder.builds for builder in made)
    extra = sum(builder.coulomb_builds for builder in made)
    if check is None:
        return FockRow(number, name, builds, math.nan, math.nan, math.nan, math.nan, seconds, extra, reason), None
    figures = check.energy, check.commutator, check.energy_error, 1e3 * check.fock_distance
    return FockRow(number, name, builds, *figures, seconds, extra), check
