"""Which structures need a label: those of which the model knows least, by its own account or by one Fock build.

commutator   |F D S - S D F| at the predicted density, one Fock build each; molecules
spread       root mean square over blocks of how far the members of an ensemble are apart; crystals too, no DFT

A model that learnt H - H0 (PySCF's minao guess) needs one Fock build more for each molecule, by either measure.
"""

from __future__ import annotations

import csv
import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from hamnet.core.files import whole_file
from hamnet.errors import ConfigError, HamnetError, PhysicsError
from hamnet.predict.ensemble import Ensemble, EnsemblePrediction, load_models
from hamnet.predict.fock_check import MakeBuilder, method_of
from hamnet.predict.fock_log import FockLog, FockRow, accounted_check
from hamnet.predict.predictor import Predictor
from hamnet.predict.structures import geometry_hash
from hamnet_preprocess.pyscf_fock import FockBuilder

Measure = Literal["commutator", "spread"]
COLUMNS = ("rank", "name", "n_atoms", "measure", "score_eV", "energy_eV", "energy_error_eV", "reason")
Line = Callable[[str], None]


@dataclass(frozen=True)
class Ranked:
    """One structure and how much the model errs on it.

    Args:
        name: of the structure.
        n_atoms: atoms.
        score: eV, the larger the less the model knows; NaN where there is none.
        energy: eV, E of the predicted density; NaN without a Fock build.
        energy_error: eV, estimate of how far it lies above the SCF energy; NaN without a Fock build.
        reason: why there is no score; empty where there is one.
    """

    name: str
    n_atoms: int
    score: float
    energy: float = math.nan
    energy_error: float = math.nan
    reason: str = ""


@dataclass(frozen=True)
class Ranking:
    """Structures in order: the least known first, those without a score at the end.

    Args:
        measure: commutator or spread.
        rows: ranked structures.
        builds: Fock builds spent, those of H0 included.
    """

    measure: Measure
    rows: tuple[Ranked, ...]
    builds: int

    def write(self, path: Path) -> None:
        """CSV file with the columns `COLUMNS`; numbers that are not known are left empty."""
        with whole_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(COLUMNS)
            for rank, row in enumerate(self.rows, start=1):
                numbers = [_text(value) for value in (row.score, row.energy, row.energy_error)]
                writer.writerow([rank, row.name, row.n_atoms, self.measure, *numbers, row.reason])


def _text(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.9g}"


def select(
    models: Sequence[Path],
    structures: Sequence[tuple[str, Any]],
    output: Path,
    measure: Measure | None = None,
    top: int = 10,
    device: str = "cpu",
    on_line: Line = lambda line: None,
    make_builder: MakeBuilder = FockBuilder,
    inputs: Sequence[Path] = (),
) -> Ranking:
    """Rank structures and write OUTPUT.csv and, beside it, the first of them as OUTPUT.extxyz.

    By commutator each finished Fock build stands in OUTPUT.<model>.part.csv until the ranking is written, so that a
    run that was killed goes on where it was.

    Args:
        models: one checkpoint, or those of an ensemble, or an ensemble's folder.
        structures: (name, `ase.Atoms`).
        output: CSV file to write.
        measure: commutator or spread; None: spread where there are several models, else commutator.
        top: how many structures to write.
        device: cpu, cuda or cuda:N.
        on_line: called with lines for a person.
        make_builder: Fock builder of a structure, a basis and a method.
        inputs: files that the structures were read from: they are not overwritten.

    Raises:
        ConfigError: the spread of one model, an unknown measure, a name that is no .csv file, or one whose .extxyz is
            among the inputs.
        PhysicsError: no structure could be ranked.
    """
    _check_request(output, [name for name, _ in structures])
    _spare_inputs(output, [*models, *inputs])
    predictor = load_models(models, device)
    part = _part_file(output, predictor)
    chosen: Measure = measure or ("spread" if isinstance(predictor, Ensemble) else "commutator")
    if chosen == "spread":
        rows, builds = _by_spread(predictor, structures, on_line)
    else:
        rows, builds = _by_commutator(predictor, structures, part, on_line, make_builder)
    # equal scores keep the order of the file; those without a score come last
    order = sorted(rows, key=lambda row: -row.score if math.isfinite(row.score) else math.inf)
    ranking = Ranking(chosen, tuple(order), builds)
    if not math.isfinite(order[0].score):
        raise PhysicsError(f"no structure could be ranked; the first, {order[0].name}: {order[0].reason}")
    ranking.write(output)
    write_top(output.with_suffix(".extxyz"), ranking, dict(structures), top)
    part.unlink(missing_ok=True)
    return ranking


def _part_file(output: Path, predictor: Predictor) -> Path:
    """Named by the models: another one's rows would be taken for this one's."""
    key = hashlib.sha256(" ".join(member.checkpoint.sha256 for member in predictor.parts).encode()).hexdigest()
    return output.with_suffix(f".{key[:12]}.part.csv")


def _check_request(output: Path, names: Sequence[str]) -> None:
    if output.suffix != ".csv":
        raise ConfigError(f"the ranking is a table: name a .csv file, not {output.name!r}")
    if len(set(names)) != len(names):
        raise ConfigError("two structures have one name: rename one of them")


def _spare_inputs(output: Path, inputs: Sequence[Path]) -> None:
    """Refuse to write over a file that was read, by whatever path it is reached."""
    for target in (output, output.with_suffix(".extxyz")):
        for path in inputs:
            if target.exists() and path.exists() and target.samefile(path):
                raise ConfigError(
                    f"{target} would be written over {path}, which is read: give the table another name than "
                    f"{output.name}; the chosen structures go beside it, as .extxyz"
                )


def _by_spread(predictor: Predictor, structures: Sequence[tuple[str, Any]], on_line: Line) -> tuple[list[Ranked], int]:
    """Rows, and the builds of H0 of structures that were ranked."""
    if not isinstance(predictor, Ensemble):
        raise ConfigError("one model has no spread: give several, or the folder of `hamnet train --ensemble`")
    if predictor.needs_reference:
        on_line(f"{len(structures)} structures, {_builds_each(0, predictor)}")
    rows = []
    for name, atoms in structures:
        try:
            prediction: EnsemblePrediction = predictor.run(atoms)
            score = float(np.sqrt(np.mean(np.square(prediction.spread))))
            rows.append(Ranked(name, len(atoms), score))
        except HamnetError as error:
            rows.append(Ranked(name, len(atoms), math.nan, reason=f"{type(error).__name__}: {error}"))
            on_line(f"left out: {name}: {rows[-1].reason}")
    return rows, sum(not row.reason for row in rows) if predictor.needs_reference else 0


def _builds_each(own: int, predictor: Predictor) -> str:
    """How many Fock builds a structure costs, in words: `own` and that of H0."""
    if not predictor.needs_reference:
        return "one Fock build each"
    total = "two Fock builds" if own else "one Fock build"
    return f"{total} each, {'one of them ' if own else ''}for the H0 that the model adds to"


def _by_commutator(
    predictor: Predictor,
    structures: Sequence[tuple[str, Any]],
    part: Path,
    on_line: Line,
    make_builder: MakeBuilder,
) -> tuple[list[Ranked], int]:
    method = method_of(predictor.checkpoint)
    log = FockLog(part)
    # a row is known by its geometry as well: a structure that was edited since is another one
    keys = {name: f"{name} {geometry_hash(atoms)[:16]}" for name, atoms in structures}
    known = {row.name: row for row in log.rows if row.name in keys.values()}
    todo = [(name, atoms) for name, atoms in structures if keys[name] not in known]
    on_line(
        f"{len(structures)} structures, {_builds_each(1, predictor)} ({method.text}); {len(known)} are there already"
    )
    told = False
    for k, (name, atoms) in enumerate(todo, start=1):
        row, _ = accounted_check(predictor, keys[name], atoms, 0, method, make_builder=make_builder)
        log.add(row)
        known[row.name] = row
        if row.reason:
            on_line(f"left out: {name}: {row.reason}")
        elif not told:  # one that failed says nothing on the time of the others
            told = True
            on_line(f"one took {row.seconds:.1f} s: about {row.seconds * (len(todo) - k):.0f} s more")
    return [_ranked(name, known[keys[name]], len(atoms)) for name, atoms in structures], log.builds


def _ranked(name: str, row: FockRow, n_atoms: int) -> Ranked:
    return Ranked(name, n_atoms, row.commutator_eV, row.energy_eV, row.energy_error_eV, row.reason)


def write_top(path: Path, ranking: Ranking, structures: dict[str, Any], top: int) -> int:
    """Write the least known structures that have a score as extxyz; returns how many.

    Args:
        path: file to write.
        ranking: in order.
        structures: atoms by name.
        top: how many at most.
    """
    import ase.io

    frames = []
    for row in ranking.rows[:top]:
        if math.isfinite(row.score):
            frame = structures[row.name].copy()
            frame.calc = None
            frame.info = frame.info | {"hamnet_name": row.name, f"hamnet_{ranking.measure}_eV": row.score}
            frames.append(frame)
    with whole_file(path) as temporary:
        ase.io.write(temporary, frames, format="extxyz")
    return len(frames)
