"""Tiles one after another or in several processes, each noted as done when its numbers are on the disk."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hamnet.core.processes import worker_pool
from hamnet.core.structure import AtomicStructure
from hamnet.data.store_in_place import PairLayout, PieceWriter
from hamnet.errors import PhysicsError
from hamnet.predict.batch import as_spinors
from hamnet.predict.ensemble import load_models
from hamnet.predict.memory import peak_memory
from hamnet.predict.seen import Found, to_text
from hamnet.predict.tile import TileEvaluator, write_tile
from hamnet.predict.tile_spread import SpreadFile

IntArray = NDArray[np.int64]
_worker: list[_Tiles] = []


@dataclass(frozen=True)
class TileReport:
    """What a finished tile says.

    Args:
        tile: its number; seconds: wall time; process: who did it.
        found: see `TileNumbers`.
        peak_memory: bytes, of its process so far.
    """

    tile: int
    seconds: float
    process: int
    found: Found
    peak_memory: int


@dataclass(frozen=True, eq=False)
class TileTask:
    """What every process must know.

    Args:
        models: checkpoints, which further processes load themselves.
        tile: (n_atoms,) tile of each atom.
        layout: of the pairs.
        folder: with `store.h5`.
        spread: where an ensemble's sums are kept.
        overlap: store with S.
        spinor: H of collinear models as spinors.
    """

    models: tuple[Path, ...]
    tile: IntArray
    layout: PairLayout
    folder: Path
    spread: SpreadFile | None = None
    overlap: Path | None = None
    spinor: bool = False


class _Tiles:
    """A process's part in the work."""

    def __init__(self, evaluator: TileEvaluator, task: TileTask) -> None:
        self.evaluator, self.task = evaluator, task
        self.writer = PieceWriter(task.folder / "store.h5")

    def do(self, number: int) -> TileReport:
        """Evaluate one tile and write it."""
        start = time.perf_counter()
        numbers = self.evaluator.evaluate(np.flatnonzero(self.task.tile == number), self.task.layout)
        write_tile(self.writer, numbers, self.evaluator, self.task.layout.n_values)
        self.writer.sync()
        if self.task.spread is not None and numbers.spread is not None:
            self.task.spread.write(numbers.block_places, numbers.spread)
        return TileReport(number, time.perf_counter() - start, os.getpid(), numbers.found, peak_memory())


def run_tiles(
    evaluator: TileEvaluator,
    task: TileTask,
    left: Sequence[int],
    jobs: int,
    on_event: Callable[[str], None],
) -> list[TileReport]:
    """Do the tiles that are left; each is added to the file `done` of the folder.

    Args:
        evaluator: of the structure.
        task: what is to be done.
        left: numbers of the tiles to do.
        jobs: processes.
        on_event: told of the progress.

    Raises:
        PhysicsError: a process was ended from outside, most likely for want of memory.
    """
    reports: list[TileReport] = []
    start, said = time.perf_counter(), 0.0
    todo = _here(evaluator, task, left)
    if jobs > 1 and len(left) > 1:
        todo = _side_by_side(evaluator, task, left, min(jobs, len(left)))
    with (task.folder / "done").open("a") as journal:
        for report in todo:
            journal.write(f"{report.tile} {to_text(report.found)}\n")
            journal.flush()
            os.fsync(journal.fileno())
            reports.append(report)
            spent = time.perf_counter() - start
            if spent - said > 5.0 or len(reports) == len(left):
                said = spent
                rest = spent / len(reports) * (len(left) - len(reports))
                on_event(f"  tile {len(reports)} of {len(left)} done, {spent:.0f} s so far, about {rest:.0f} s left")
    return reports


def _here(evaluator: TileEvaluator, task: TileTask, left: Sequence[int]) -> Iterator[TileReport]:
    work = _Tiles(evaluator, task)
    with work.writer:
        for number in left:
            yield work.do(number)


def _side_by_side(evaluator: TileEvaluator, task: TileTask, left: Sequence[int], jobs: int) -> Iterator[TileReport]:
    structure, device = evaluator.structure, str(evaluator.predictor.device)
    try:
        with worker_pool(jobs, _begin, (task, structure, device, max(1, _threads() // jobs))) as pool:
            for future in as_completed([pool.submit(_do, number) for number in left]):
                yield future.result()
    except BrokenProcessPool as error:
        raise PhysicsError(
            "a process of --jobs was ended from outside, most likely for want of memory: state less --memory or fewer "
            "--jobs and run again; finished tiles are kept"
        ) from error


def _threads() -> int:
    import torch

    return int(torch.get_num_threads())


def _begin(task: TileTask, structure: AtomicStructure, device: str, threads: int) -> None:
    import torch

    torch.set_num_threads(threads)
    predictor = load_models(task.models, device)
    predictor = as_spinors(predictor) if task.spinor else predictor
    _worker[:] = [_Tiles(TileEvaluator(predictor, structure, task.overlap), task)]


def _do(number: int) -> TileReport:
    return _worker[0].do(number)
