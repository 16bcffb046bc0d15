"""Tiles one after another or in several processes, each noted as done when its numbers are on the disk."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hamnet.core.structure import AtomicStructure
from hamnet.data.store_in_place import PairLayout, PieceWriter
from hamnet.errors import PhysicsError
from hamnet.predict.memory import peak_memory
from hamnet.predict.predictor import Predictor
from hamnet.predict.tile import TileEvaluator, write_tile

IntArray = NDArray[np.int64]
_worker: list[_Tiles] = []


@dataclass(frozen=True)
class TileReport:
    """What a finished tile says.

    Args:
        tile: its number; seconds: wall time; process: who did it.
        unseen: see `TileNumbers`.
        peak_memory: bytes, of its process so far.
    """

    tile: int
    seconds: float
    process: int
    unseen: float
    peak_memory: int


class _Tiles:
    """A process's part in the work."""

    def __init__(self, evaluator: TileEvaluator, tile: IntArray, layout: PairLayout, store: Path) -> None:
        self.evaluator, self.tile, self.layout = evaluator, tile, layout
        self.writer = PieceWriter(store)

    def do(self, number: int) -> TileReport:
        """Evaluate one tile and write it."""
        start = time.perf_counter()
        numbers = self.evaluator.evaluate(np.flatnonzero(self.tile == number), self.layout)
        write_tile(self.writer, numbers, self.evaluator, self.layout.n_values)
        self.writer.sync()
        return TileReport(number, time.perf_counter() - start, os.getpid(), numbers.unseen, peak_memory())


def run_tiles(
    evaluator: TileEvaluator,
    model: Path,
    tile: IntArray,
    layout: PairLayout,
    folder: Path,
    left: Sequence[int],
    jobs: int,
    on_event: Callable[[str], None],
) -> list[TileReport]:
    """Do the tiles that are left; each is added to the file `done` of the folder.

    Args:
        evaluator: of the structure.
        model: checkpoint, which further processes load themselves.
        tile: (n_atoms,) tile of each atom.
        layout: of the pairs.
        folder: with `store.h5`.
        left: numbers of the tiles to do.
        jobs: processes.
        on_event: told of the progress.

    Raises:
        PhysicsError: a process was ended from outside, most likely for want of memory.
    """
    reports: list[TileReport] = []
    start, said = time.perf_counter(), 0.0
    todo = _here(evaluator, tile, layout, folder, left)
    if jobs > 1 and len(left) > 1:
        todo = _side_by_side(evaluator, model, tile, layout, folder, left, min(jobs, len(left)))
    with (folder / "done").open("a") as journal:
        for report in todo:
            journal.write(f"{report.tile}\n")
            journal.flush()
            os.fsync(journal.fileno())
            reports.append(report)
            spent = time.perf_counter() - start
            if spent - said > 5.0 or len(reports) == len(left):
                said = spent
                rest = spent / len(reports) * (len(left) - len(reports))
                on_event(f"  tile {len(reports)} of {len(left)} done, {spent:.0f} s so far, about {rest:.0f} s left")
    return reports


def _here(
    evaluator: TileEvaluator, tile: IntArray, layout: PairLayout, folder: Path, left: Sequence[int]
) -> Iterator[TileReport]:
    work = _Tiles(evaluator, tile, layout, folder / "store.h5")
    with work.writer:
        for number in left:
            yield work.do(number)


def _side_by_side(
    evaluator: TileEvaluator,
    model: Path,
    tile: IntArray,
    layout: PairLayout,
    folder: Path,
    left: Sequence[int],
    jobs: int,
) -> Iterator[TileReport]:
    """Fresh processes, not forked ones: a fork with the threads of PyTorch hangs."""
    structure, device = evaluator.structure, str(evaluator.predictor.device)
    threads = max(1, _threads() // jobs)
    arguments = (model, device, threads, structure, tile, layout, folder / "store.h5")
    context = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(jobs, context, _begin, arguments) as pool:
            futures = [pool.submit(_do, number) for number in left]
            try:
                for future in as_completed(futures):
                    yield future.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    except BrokenProcessPool as error:
        raise PhysicsError(
            "a process of --jobs was ended from outside, most likely for want of memory: state less --memory or fewer "
            "--jobs and run again; finished tiles are kept"
        ) from error


def _threads() -> int:
    import torch

    return int(torch.get_num_threads())


def _begin(
    model: Path,
    device: str,
    threads: int,
    structure: AtomicStructure,
    tile: IntArray,
    layout: PairLayout,
    store: Path,
) -> None:
    import torch

    torch.set_num_threads(threads)
    _worker[:] = [_Tiles(TileEvaluator(Predictor.load(model, device), structure), tile, layout, store)]


def _do(number: int) -> TileReport:
    return _worker[0].do(number)
