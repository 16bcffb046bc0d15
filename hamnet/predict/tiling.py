"""`hamnet predict --memory`: structures of any size, tile after tile, into one store, in bounded memory.

The plan (which atom belongs to which tile, how many pairs each atom has) and the store of full size are made first, in
`OUTPUT.tiles/`; then every tile writes its numbers at their places and is noted as done. A run that was killed goes on
with the tiles that are left. The store takes its name when the last tile is in.
"""

from __future__ import annotations

import math
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hamnet.errors import ConfigError, HamnetError
from hamnet.predict.batch import named_frames
from hamnet.predict.ensemble import model_files
from hamnet.predict.memory import peak_memory, reset_peak
from hamnet.predict.predictor import Predictor
from hamnet.predict.tile import TileEvaluator
from hamnet.predict.tile_plan import (
    GIGA,
    Measured,
    OnEvent,
    TilePlan,
    earlier_plan,
    fingerprint,
    measure,
    needed_memory,
    new_plan,
    say_forecast,
    store_plan,
    tile_count,
    tiles_left,
)
from hamnet.predict.tile_runs import TileReport, run_tiles


@dataclass(frozen=True)
class TiledSummary:
    """Figures of a run.

    Args:
        seconds: wall time of everything but loading the model.
        atoms, pairs, tiles: of the structure.
        tiles_done_before: tiles that an earlier run had finished.
        forecast_seconds, forecast_memory_gb: said at the start; NaN where nothing was measured (a resumed run).
        peak_memory_gb: of this process and those that it started, together.
        remarks: what a user should know before trusting the numbers.
    """

    seconds: float
    atoms: int
    pairs: int
    tiles: int
    tiles_done_before: int
    forecast_seconds: float
    forecast_memory_gb: float
    peak_memory_gb: float
    remarks: tuple[str, ...]


def predict_in_tiles(
    model: Path,
    name: str,
    atoms: Any,
    output: Path,
    memory: int,
    *,
    jobs: int = 1,
    device: str = "cpu",
    tile_atoms: int | None = None,
    on_event: OnEvent = lambda line: None,
) -> TiledSummary:
    """Predict H and S of one structure of any size and write its store.

    Args:
        model: checkpoint.
        name: of the structure in the store.
        atoms: ASE, pymatgen or hamnet atoms.
        output: store to write; what is there is replaced when all is done.
        memory: bytes that all processes together may take.
        jobs: processes.
        device: cpu, cuda or cuda:N.
        tile_atoms: atoms of a tile; None: as the memory allows.
        on_event: called with one line for each thing that a person should see.

    Raises:
        ConfigError: the memory is too small for the smallest tile, the disk too full, there is no such folder, or the
            model cannot predict in tiles.
        BasisError, PhysicsError: the structure cannot be predicted.
        OSError: the store cannot be written.
    """
    _check_place(output)
    predictor = Predictor.load(model, device)
    start = time.perf_counter()
    structure = predictor.structure(atoms)
    evaluator = TileEvaluator(predictor, structure)
    folder = output.with_name(output.name + ".tiles")
    key = fingerprint(predictor, structure, name)
    plan, measured, peak = earlier_plan(folder, key, evaluator, memory / jobs, tile_atoms), None, 0
    if plan is None:
        if folder.exists():
            on_event(f"{folder} belongs to another model, to other atoms or to more memory: its tiles are done again")
        plan, measured = _fresh_plan(evaluator, memory, jobs, tile_atoms, on_event)
        store_plan(folder, key, name, plan, evaluator)
        peak = peak_memory()
    left, before = tiles_left(folder, plan.n_tiles)
    if before:
        on_event(f"{before} of {plan.n_tiles} tiles are taken from {folder}")
    reset_peak()
    reports = run_tiles(evaluator, model, plan.tile, plan.layout, folder, left, jobs, on_event)
    os.replace(folder / "store.h5", output)
    shutil.rmtree(folder, ignore_errors=True)
    peak = max(peak, _peak(reports))
    return _summary(evaluator, plan, before, measured, reports, time.perf_counter() - start, jobs, peak)


def _fresh_plan(
    evaluator: TileEvaluator, memory: int, jobs: int, tile_atoms: int | None, on_event: OnEvent
) -> tuple[TilePlan, Measured]:
    """Tiles by what one of them was measured to take, said before it is taken."""
    measured = measure(evaluator)
    n_tiles = tile_count(measured, evaluator.structure.n_atoms, memory, jobs, tile_atoms)
    say_forecast(evaluator, measured, n_tiles, jobs, on_event)
    return new_plan(evaluator, n_tiles, measured, on_event), measured


def _summary(
    evaluator: TileEvaluator,
    plan: TilePlan,
    before: int,
    measured: Measured | None,
    reports: list[TileReport],
    seconds: float,
    jobs: int,
    peak: int,
) -> TiledSummary:
    structure = evaluator.structure
    unseen = max((report.unseen for report in reports), default=0.0)
    largest = -(-structure.n_atoms // plan.n_tiles)
    return TiledSummary(
        seconds,
        structure.n_atoms,
        plan.layout.n_pairs,
        plan.n_tiles,
        before,
        math.nan if measured is None else measured.seconds * structure.n_atoms / jobs,
        math.nan if measured is None else needed_memory(measured, largest, jobs) / GIGA,
        peak / GIGA,
        tuple(evaluator.predictor.unseen_remarks(structure, unseen)),
    )


def _peak(reports: list[TileReport]) -> int:
    """Bytes of this process and those that it started, each at its peak."""
    peaks = {os.getpid(): peak_memory()}
    for report in reports:
        peaks[report.process] = max(peaks.get(report.process, 0), report.peak_memory)
    return sum(peaks.values())


def _check_place(output: Path) -> None:
    """Refuse before the work what would fail after it."""
    if output.is_dir():
        raise ConfigError(f"{output} is a folder: give the name of a file to write, as {output}/big.h5")
    if not output.parent.is_dir():
        raise ConfigError(f"the folder {output.parent} does not exist: make it before writing {output.name}")


def predict_file_in_tiles(
    models: Sequence[Path],
    structures: Sequence[Path],
    output: Path,
    memory: int,
    *,
    jobs: int = 1,
    device: str = "cpu",
    on_event: OnEvent = lambda line: None,
) -> TiledSummary:
    """`predict_in_tiles` of the one structure in a file.

    Args:
        models: one checkpoint, or the folder of a run.
        structures: one file with one structure.
        output, memory, jobs, device, on_event: as `predict_in_tiles`.

    Raises:
        ConfigError: several models or structures; and what `predict_in_tiles` raises.
        FormatError: a file cannot be read.
    """
    files = [file for path in models for file in model_files(path)]
    frames = named_frames(structures)
    if len(files) != 1 or len(frames) != 1:
        raise ConfigError(
            f"--memory predicts one structure by one model, found {len(frames)} structure(s) and {len(files)} "
            "model(s): give one of each, or leave --memory out"
        )
    name, atoms = frames[0]
    try:
        return predict_in_tiles(files[0], name, atoms, output, memory, jobs=jobs, device=device, on_event=on_event)
    except HamnetError as error:
        raise type(error)(f"{name}: {error}") from error
