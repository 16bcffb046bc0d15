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

import numpy as np

from hamnet.data.store import Store
from hamnet.errors import ConfigError
from hamnet.predict.batch import as_spinors
from hamnet.predict.ensemble import (
    load_models,
    model_files,
    spread_path,
    spread_remark,
    write_spread,
    zero_is_free,
)
from hamnet.predict.memory import peak_memory, reset_peak
from hamnet.predict.seen import merged
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
    spread_file,
    store_plan,
    tile_count,
    tiles_left,
)
from hamnet.predict.tile_runs import TileReport, TileTask, run_tiles
from hamnet.predict.tile_spread import SpreadFile


@dataclass(frozen=True)
class TileSettings:
    """How structures are predicted tile by tile.

    Args:
        memory: bytes that all processes together may take.
        overlap: store with S of the same atoms, held whole in every process; None: from the basis or the model's fit.
        jobs: processes.
        device: cpu, cuda or cuda:N.
        spinor: H of a collinear model as spinors, for moments of any direction.
        tile_atoms: atoms of a tile; None: as the memory allows.
    """

    memory: int
    overlap: Path | None = None
    jobs: int = 1
    device: str = "cpu"
    spinor: bool = False
    tile_atoms: int | None = None


@dataclass(frozen=True)
class TiledSummary:
    """Figures of a run.

    Args:
        structures: predicted.
        seconds: wall time of everything but loading the models.
        atoms, pairs, tiles: of all structures.
        tiles_done_before: tiles that an earlier run had finished.
        forecast_seconds, forecast_memory_gb: said at the start; NaN where nothing was measured (a resumed run).
        peak_memory_gb: of this process and those that it started, together.
        remarks: what a user should know before trusting the numbers.
        spread: file with the spread of an ensemble; None: one model.
    """

    structures: int
    seconds: float
    atoms: int
    pairs: int
    tiles: int
    tiles_done_before: int
    forecast_seconds: float
    forecast_memory_gb: float
    peak_memory_gb: float
    remarks: tuple[str, ...]
    spread: Path | None = None


def predict_in_tiles(
    models: Path | Sequence[Path],
    name: str,
    atoms: Any,
    output: Path,
    settings: TileSettings,
    *,
    keep: bool = False,
    on_event: OnEvent = lambda line: None,
) -> TiledSummary:
    """Predict H and S of one structure of any size and write its store; of several models their spread, too.

    Args:
        models: checkpoint; or several, or the folder of an ensemble: then H is their mean.
        name: of the structure in the store.
        atoms: ASE, pymatgen or hamnet atoms.
        output: store to write; what is there is replaced when all is done.
        settings: memory, processes, device.
        keep: an output that this very task has written is left as it is.
        on_event: called with one line for each thing that a person should see.

    Raises:
        ConfigError: the memory is too small for the smallest tile, the disk too full, there is no such folder, or the
            model cannot predict in tiles.
        BasisError, PhysicsError: the structure cannot be predicted.
        OSError: the store cannot be written.
    """
    check_place(output)
    files = tuple(file for path in ([models] if isinstance(models, Path) else models) for file in model_files(path))
    models_together = load_models(files, settings.device)
    predictor = as_spinors(models_together) if settings.spinor else models_together
    start = time.perf_counter()
    structure = predictor.structure(atoms)
    evaluator = TileEvaluator(predictor, structure, settings.overlap)
    key = fingerprint(predictor, structure, name, settings.overlap)
    spread = spread_path(output) if len(predictor.parts) > 1 else None
    if keep and _is_done(output, key):
        on_event(f"{name} is taken from {output}")
        return _summary_of_store(output, start, spread)
    figures, remarks = _run(files, evaluator, name, output, key, settings, on_event)
    return TiledSummary(1, time.perf_counter() - start, *figures, tuple(remarks), spread)


def _run(
    files: tuple[Path, ...],
    evaluator: TileEvaluator,
    name: str,
    output: Path,
    key: str,
    settings: TileSettings,
    on_event: OnEvent,
) -> tuple[tuple[int, int, int, int, float, float, float], list[str]]:
    """All tiles that are left, and the store; the figures of a summary from atoms to peak memory, and remarks."""
    folder = output.with_name(output.name + ".tiles")
    memory, jobs = settings.memory, settings.jobs
    plan, measured, peak = earlier_plan(folder, key, evaluator, memory / jobs, settings.tile_atoms), None, 0
    if plan is None:
        if folder.exists():
            on_event(f"{folder} belongs to another model, to other atoms or to more memory: its tiles are done again")
        plan, measured = _fresh_plan(evaluator, settings, on_event)
        store_plan(folder, key, name, plan, evaluator)
        peak = peak_memory()
    left, before = tiles_left(folder, plan.n_tiles)
    if before:
        on_event(f"{len(before)} of {plan.n_tiles} tiles are taken from {folder}")
    reset_peak()
    sums = spread_file(folder, plan, evaluator)
    task = TileTask(files, plan.tile, plan.layout, folder, sums, settings.overlap, settings.spinor)
    reports = run_tiles(evaluator, task, left, jobs, on_event)
    found = merged([*before, *(report.found for report in reports)])
    remarks = evaluator.predictor.seen_remarks(evaluator.structure, found)
    if sums is not None:
        remarks.append(_write_spread(evaluator, sums, folder / "store.h5", name, output))
    os.replace(folder / "store.h5", output)
    shutil.rmtree(folder, ignore_errors=True)
    peak = max(peak, _peak(reports))
    return (*_figures(evaluator, plan, len(before), measured, jobs), peak / GIGA), remarks


def _is_done(output: Path, key: str) -> bool:
    if not output.exists():
        return False
    with Store(output) as store:
        return list(store.fingerprints) == [key]


def _summary_of_store(output: Path, start: float, spread: Path | None) -> TiledSummary:
    with Store(output) as store:
        atoms, pairs = int(store.n_atoms[0]), int(store.n_pairs[0])
    return TiledSummary(
        1, time.perf_counter() - start, atoms, pairs, 0, 0, math.nan, math.nan, peak_memory() / GIGA, (), spread
    )


def _fresh_plan(evaluator: TileEvaluator, settings: TileSettings, on_event: OnEvent) -> tuple[TilePlan, Measured]:
    """Tiles by what one of them was measured to take, said before it is taken."""
    measured, n_atoms = measure(evaluator), evaluator.structure.n_atoms
    n_tiles = tile_count(measured, n_atoms, settings.memory, settings.jobs, settings.tile_atoms)
    say_forecast(evaluator, measured, n_tiles, settings.jobs, on_event)
    return new_plan(evaluator, n_tiles, measured, on_event), measured


def _write_spread(evaluator: TileEvaluator, sums: SpreadFile, store: Path, name: str, output: Path) -> str:
    """The spread of an ensemble beside its store, and a sentence about it."""
    predictor, structure = evaluator.predictor, evaluator.structure
    sizes = np.multiply.outer(evaluator.n_orbitals, evaluator.n_orbitals) * predictor.model.spin.factor
    pairs, spread = sums.finish(store, structure.species, sizes, zero_is_free(predictor, structure))
    write_spread(spread_path(output), {name: (pairs, spread)})
    return spread_remark(len(predictor.parts), pairs[:, 0], pairs[:, 1], spread)


def _figures(
    evaluator: TileEvaluator, plan: TilePlan, before: int, measured: Measured | None, jobs: int
) -> tuple[int, int, int, int, float, float]:
    """Atoms, pairs, tiles, tiles done before, and what was forecast."""
    n = evaluator.structure.n_atoms
    forecast = math.nan, math.nan
    if measured is not None:
        forecast = measured.seconds * n / jobs, needed_memory(measured, -(-n // plan.n_tiles), jobs) / GIGA
    return n, plan.layout.n_pairs, plan.n_tiles, before, *forecast


def _peak(reports: list[TileReport]) -> int:
    """Bytes of this process and those that it started, each at its peak."""
    peaks = {os.getpid(): peak_memory()}
    for report in reports:
        peaks[report.process] = max(peaks.get(report.process, 0), report.peak_memory)
    return sum(peaks.values())


def check_place(output: Path) -> None:
    """Refuse before the work what would fail after it.

    Raises:
        ConfigError: the output is a folder, or its folder is not there.
    """
    if output.is_dir():
        raise ConfigError(f"{output} is a folder: give the name of a file to write, as {output}/big.h5")
    if not output.parent.is_dir():
        raise ConfigError(f"the folder {output.parent} does not exist: make it before writing {output.name}")
