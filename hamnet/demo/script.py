"""The whole way on the shipped sample: DFT output, store, training, prediction, bands, report."""

from __future__ import annotations

import lzma
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from shutil import copyfile
from typing import TYPE_CHECKING, Any

from hamnet.errors import PhysicsError

if TYPE_CHECKING:
    from hamnet.bands.band_structure import BandStructure
    from hamnet.core.reference import ReferenceBands

FULL_MINUTES = 2.5
QUICK_MINUTES = 0.05
QUICK_STRUCTURES = 8
WINDOW = (-10.0, 3.0)
"""eV about the Fermi level in which predicted bands are judged."""
TOP = 6.0
"""eV: the plot's upper end; above it few states of this small basis mean anything."""
Line = Callable[[str], None]


@dataclass
class DemoResult:
    """What `run_demo` leaves.

    Args:
        output: the folder.
        figures: JSON-ready figures of all steps.
        commands: what a user types for each step, in order.
    """

    output: Path
    figures: dict[str, Any] = field(default_factory=dict)
    commands: list[str] = field(default_factory=list)


def run_demo(output: Path, quick: bool = False, on_line: Line = lambda _: None, progress: bool = True) -> DemoResult:
    """Preprocess, check, train, evaluate, predict a structure not trained on, and draw its bands.

    Args:
        output: folder to write; must not hold an earlier demo's training.
        quick: seconds of training, to see that everything works; the figures then mean nothing.
        on_line: called with lines for a person.
        progress: show training's progress bar.

    Raises:
        PhysicsError: the shipped sample does not pass the checks.
        ConfigError: the folder holds a training already.
    """
    started = time.monotonic()
    demo = _Demo(DemoResult(output), on_line)
    output.mkdir(parents=True, exist_ok=True)
    unpack_sample(output / "dft", QUICK_STRUCTURES if quick else None)
    on_line(f"unpacked OpenMX output of graphene to {output / 'dft'}")
    demo.preprocess()
    demo.check()
    demo.train(QUICK_MINUTES if quick else FULL_MINUTES, progress)
    demo.evaluate()
    demo.predict()
    demo.bands()
    demo.result.figures["seconds"] = time.monotonic() - started
    from hamnet.demo.report import write_report

    on_line(f"report: {write_report(demo.result, quick)}")
    return demo.result


def unpack_sample(target: Path, limit: int | None = None) -> None:
    """Write the shipped DFT output as a DFT code leaves it, without the compression.

    Args:
        target: folder to write: train/ with rattled 3x3 cells, test3x3/ with one more, prim/ with the primitive cell.
        limit: so many folders of train/ only; None: all.
    """
    source = Path(str(files("hamnet.demo"))) / "sample" / "graphene"
    left_out = set() if limit is None else set(sorted((source / "train").iterdir())[limit:])
    for path in sorted(p for p in source.rglob("*") if p.is_file() and p.parent not in left_out):
        data = path.read_bytes()
        name = path.relative_to(source)
        if path.suffix == ".xz":
            data, name = lzma.decompress(data), name.with_suffix("")
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_bytes(data)


class _Demo:
    """The steps; each shows its command and calls what the command calls."""

    def __init__(self, result: DemoResult, on_line: Line) -> None:
        self.result, self.on_line, self.output = result, on_line, result.output

    def _show(self, command: str) -> None:
        self.result.commands.append(command)
        self.on_line(f"\n$ {command}")

    def preprocess(self) -> None:
        """Read both folders of DFT output into data.h5 and test.h5."""
        from hamnet_preprocess.collect import collect

        out = self.output
        for folder, store in (("train", "data.h5"), ("test3x3", "test.h5")):
            self._show(f"hamnet preprocess openmx {out}/dft/{folder} -o {out}/{store} --jobs 2")
            done = collect("openmx", [out / "dft" / folder], out / store, 2, False, lambda _: None)
            self.on_line(f"read {done.read}, already there {done.skipped}, failed {done.failed}")
            self.result.figures[f"read_{folder}"] = done.read

    def check(self) -> None:
        """Hold the training data to physics.

        Raises:
            PhysicsError: a check fails.
        """
        from hamnet_preprocess.checks import check_file

        self._show(f"hamnet check {self.output}/data.h5")
        findings = check_file(self.output / "data.h5")
        bad = [f for f in findings if not f.passed]
        self.on_line(f"{len(findings)} checks, {len(bad)} failed")
        if bad:
            raise PhysicsError(f"{bad[0].source}: {bad[0].check}: {bad[0].message}")

    def train(self, minutes: float, progress: bool) -> None:
        """Train on data.h5 for so many minutes into run/."""
        from hamnet.config import load_config
        from hamnet.train.run import train

        out = self.output
        config = out / "train.yaml"
        config.write_text(
            f"# What `hamnet demo` trained with; every key has a default, see docs/training.md.\n"
            f"data:\n  store: {out / 'data.h5'}\n  train_fraction: 0.9\n"
            f"  validation_fraction: 0.1\n  test_fraction: 0.0\n"
            f"network:\n  layers: 1\n  channels: 32\n"
            f"training:\n  output: {out / 'run'}\n  max_minutes: {minutes}\n  validate_every: 5\n",
            encoding="utf-8",
        )
        self._show(f"hamnet train {config}")
        self.result.figures["train"] = train(
            load_config(config, [] if progress else ["training.progress=false"]), False, self.on_line
        ).figures

    def evaluate(self) -> None:
        """Errors on the structure that was not trained on."""
        from hamnet.train.evaluation import evaluate
        from hamnet.train.run import summary

        out = self.output
        self._show(f"hamnet evaluate {out}/run/model.ckpt {out}/test.h5 -o {out}/evaluation")
        figures = evaluate(out / "run" / "model.ckpt", [out / "test.h5"], out / "evaluation").figures
        self.on_line(summary(figures))
        self.result.figures["evaluate"] = figures

    def predict(self) -> None:
        """Predict H of the primitive cell from its POSCAR."""
        from hamnet.predict.batch import predict_files

        out = self.output
        write_poscar(out / "dft" / "prim", out / "POSCAR")
        self._show(f"hamnet predict {out}/run/model.ckpt {out}/POSCAR -o {out}/prediction.h5")
        done = predict_files(out / "run" / "model.ckpt", [out / "POSCAR"], out / "prediction.h5", on_event=self.on_line)
        self.result.figures["predict"] = {"seconds": done.seconds, "pairs": done.pairs}

    def bands(self) -> None:
        """Bands of the prediction beside those that OpenMX printed."""
        from hamnet.bands.study import StudySettings, study_bands
        from hamnet_preprocess.openmx_band import read_band
        from hamnet_preprocess.sources import open_source

        out = self.output
        printed = read_band(out / "dft" / "prim" / "openmx.Band")
        self._show(
            f"hamnet bands {out}/prediction.h5 --compare {out}/dft/prim/openmx.Band "
            f"--window={WINDOW[0]:g},{WINDOW[1]:g} --emax {TOP:g} -o {out}/bands"
        )
        calculation = open_source(out / "prediction.h5")[0][1]()
        title = "graphene: predicted (lines) and OpenMX (dashes)"
        settings = StudySettings(window=WINDOW, shown=(None, TOP), title=title, reference_name="OpenMX")
        study = study_bands(calculation, out / "bands", printed, settings)
        for line in study.lines():
            self.on_line(line)
        copyfile(out / "bands" / "bands.png", out / "bands.png")
        self.result.figures["bands"] = study.figures() | {"levels": levels(study.bands, printed)}


def levels(bands: BandStructure, printed: ReferenceBands) -> list[dict[str, Any]]:
    """Highest occupied and lowest empty level at each labelled k-point, eV from the Fermi level: DFT and predicted."""
    occupied = round((bands.n_electrons or 0.0) / 2)
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for k, label in bands.path.labels:
        for name, band in (("lowest", 0), ("highest occupied", occupied - 1), ("lowest empty", occupied)):
            truth = float(printed.energies[0, k, band]) - (printed.fermi_energy or 0.0)
            mine = float(bands.energies[0, k, band]) - (bands.fermi_energy or 0.0)
            rows.setdefault((label, name), {"k": label, "level": name, "dft_eV": truth, "predicted_eV": mine})
    return list(rows.values())


def write_poscar(folder: Path, target: Path) -> None:
    """The structure of a DFT folder as a POSCAR: what a user has before any DFT was run."""
    from ase import Atoms
    from ase.io import write

    from hamnet_preprocess.sources import open_source

    structure = open_source(folder)[0][1]().structure
    write(target, Atoms(structure.atomic_numbers, structure.positions, cell=structure.lattice, pbc=True), format="vasp")
