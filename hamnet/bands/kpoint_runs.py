"""One task for each k-point: side by side where memory allows, each result kept in a file so that a run resumes."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hamnet.bands.eigen import available_memory
from hamnet.core.calculation import Calculation
from hamnet.core.files import whole_file

Arrays = dict[str, NDArray[Any]]
Task = Callable[[int], Arrays]
_task: list[Task] = []


def fingerprint(calculation: Calculation, *settings: object) -> str:
    """Sixteen hex digits that change with H, S, the atoms or a setting: old results are then not taken up."""
    digest = hashlib.blake2b(repr(settings).encode(), digest_size=8)
    for matrix in (calculation.hamiltonian, calculation.overlap):
        if matrix is not None:
            digest.update(matrix.values.tobytes())
            digest.update(matrix.pairs.cell_shift.tobytes())
    digest.update(calculation.structure.positions.tobytes())
    return digest.hexdigest()


def processes(asked: int, memory: int, n_tasks: int) -> int:
    """How many k-points go side by side: as asked, but no more than processors, tasks and memory allow.

    Args:
        asked: by the user; 0 for as many as fit.
        memory: bytes that each needs.
        n_tasks: k-points left.
    """
    most = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    free = available_memory()
    if free is not None:
        most = min(most, int(0.9 * free // max(memory, 1)))
    if "fork" not in multiprocessing.get_all_start_methods():
        most = 1
    return max(1, min(asked or most, most, n_tasks))


def run_kpoints(
    task: Task,
    n_tasks: int,
    folder: Path,
    key: str,
    jobs: int = 1,
    on_line: Callable[[str], None] = lambda _: None,
) -> list[Arrays]:
    """Results of task(0), ..., task(n - 1) in order; those already in the folder are read, not computed.

    Args:
        task: k-point -> arrays; runs in a forked process when several go side by side.
        n_tasks: k-points.
        folder: of the files 00000.npz, ...; made if need be.
        key: from `fingerprint`; files with another are computed again.
        jobs: processes.
        on_line: told each k-point that is done.
    """
    folder.mkdir(parents=True, exist_ok=True)
    results = {n: found for n in range(n_tasks) if (found := _read(folder / f"{n:05d}.npz", key)) is not None}
    if results:
        on_line(f"{len(results)} of {n_tasks} k-points are taken from {folder}")
    left = [n for n in range(n_tasks) if n not in results]
    start = time.monotonic()
    for done, (n, result) in enumerate(_results(task, left, jobs)):
        _write(folder / f"{n:05d}.npz", key, result)
        results[n] = result
        seconds = time.monotonic() - start
        rest = seconds / (done + 1) * (len(left) - done - 1)
        on_line(f"  k-point {len(results)} of {n_tasks} done, {seconds:.0f} s so far, about {rest:.0f} s left")
    return [results[n] for n in range(n_tasks)]


def _results(task: Task, left: list[int], jobs: int) -> Iterable[tuple[int, Arrays]]:
    if jobs <= 1 or len(left) <= 1:
        for n in left:
            yield n, task(n)
        return
    # Forked, so that matrices and symbolic analysis are shared, not copied; the task stays in the parent's memory.
    _task[:] = [task]
    try:
        with multiprocessing.get_context("fork").Pool(jobs) as pool:
            yield from pool.imap_unordered(_call, left)
    finally:
        _task.clear()


def _call(n: int) -> tuple[int, Arrays]:
    return n, _task[0](n)


def _read(path: Path, key: str) -> Arrays | None:
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            if str(file["key"]) != key:
                return None
            return {name: file[name] for name in file.files if name != "key"}
    except (OSError, ValueError, KeyError):  # cut short by a kill: computed again
        return None


def _write(path: Path, key: str, result: Arrays) -> None:
    with whole_file(path) as temporary:
        np.savez(temporary, key=np.array(key), **result)  # type: ignore[arg-type]
