"""Splits of the molecular benchmarks, by the generators and seeds of their own code.

A split is a function of how many rows a file has, so it is made for the whole file and then limited to the rows that a
store holds. Names of calculations are those that the readers give: the row's index, as in "17" or "QH9Stable.db/17".

    qh9-stable-iid       0.8 / 0.1 / rest of RandomState(43).permutation(n)
    qh9-stable-ood       at most 20 / 21 or 22 / 23 atoms and more
    qh9-dynamic-geo      of each 100 frames: 80 / 10 / 10 of RandomState(index of the last frame).permutation(100)
    qh9-dynamic-mol      0.8 / 0.1 / rest of the molecules, random.seed(43), random.shuffle
    md17-water           500 / 500 / rest of RandomState(42).permutation(n), as in QHNet; the same for
    md17-ethanol         25000 / 500 / rest; so for md17-malondialdehyde and md17-uracil
    nabladft             0.9 / 0.1 of torch.randperm(n), seed 23; the test parts are databases of their own

Read in the code of QH9, QHNet and nablaDFT; not verified against their files, which `UNVERIFIED` says.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from hamnet.data.splits import Split
from hamnet.errors import ConfigError

IntArray = NDArray[np.int64]
Parts = tuple[IntArray, IntArray, IntArray]
UNVERIFIED = "made by the benchmark's published generator and seed; not verified against its file"
FRAMES = 100
"""Frames of each molecule in QH9Dynamic."""


def benchmark_split(name: str, names: Sequence[str], n_atoms: Sequence[int], n_rows: int) -> Split:
    """A benchmark's split, limited to some calculations.

    Args:
        name: one of `hamnet.config.BENCHMARK_SPLITS`.
        names: of the calculations that there are; the last part of each is its row.
        n_atoms: atoms of each.
        n_rows: rows of the whole file.

    Raises:
        ConfigError: no such split, names that are no rows of one file, or a file that cannot be the benchmark's.
    """
    if name not in _PARTS:
        raise ConfigError(f"there is no split {name!r}; there are {', '.join(_PARTS)}")
    rows = _rows(names, n_rows)
    if name == "qh9-stable-ood":
        parts = _by_size(rows, np.asarray(n_atoms, dtype=np.int64))
    else:
        parts = _PARTS[name](n_rows)
    of_row = dict(zip(rows.tolist(), names, strict=True))
    split = Split(*(tuple(of_row[k] for k in part.tolist() if k in of_row) for part in parts))
    split.check(names)
    return split


def rows_in_file(source: str) -> int:
    """Rows of the file that a calculation was read from, by its provenance ("x.db row 3 of 4999").

    Raises:
        ConfigError: it comes from no database.
    """
    match = re.search(r"row \d+ of (\d+)$", source)
    if match is None:
        raise ConfigError(
            f"benchmark splits are for the rows of a benchmark's file; a calculation comes from {source!r}: "
            "read the file with hamnet preprocess qh9, schnorb or nabladft"
        )
    return int(match[1])


def _rows(names: Sequence[str], n_rows: int) -> IntArray:
    """Row of each name; every row once."""
    tails = [name.rsplit("/", 1)[-1] for name in names]
    wrong = [name for name, tail in zip(names, tails, strict=True) if not tail.isdecimal()]
    if wrong:
        raise ConfigError(f"{wrong[0]!r} is no row of a benchmark's file: expected a number, as in 'QH9Stable.db/17'")
    rows = np.array([int(tail) for tail in tails], dtype=np.int64)
    if len(np.unique(rows)) < len(rows):
        raise ConfigError("two calculations have the same row number: a benchmark split is for the rows of one file")
    if rows.size and rows.max() >= n_rows:
        raise ConfigError(f"row {rows.max()} of a file that has {n_rows} rows: the store mixes files")
    return rows


def _cut(order: IntArray, *sizes: int) -> Parts:
    """The order in three parts: two of given sizes, and the rest."""
    ends = np.cumsum(sizes)
    return order[: ends[0]], order[ends[0] : ends[1]], order[ends[1] :]


def _shuffled(n: int, seed: int) -> IntArray:
    return np.random.RandomState(seed).permutation(n).astype(np.int64)


def _stable(n: int) -> Parts:
    return _cut(_shuffled(n, 43), int(n * 0.8), int(n * 0.1))


def _by_size(rows: IntArray, n_atoms: IntArray) -> Parts:
    order = np.argsort(rows, kind="stable")
    rows, n_atoms = rows[order], n_atoms[order]
    return rows[n_atoms <= 20], rows[(n_atoms >= 21) & (n_atoms <= 22)], rows[n_atoms >= 23]


def _frames(n: int) -> Parts:
    starts = range(0, _whole(n) * FRAMES, FRAMES)
    parts = [_cut(start + _shuffled(FRAMES, start + FRAMES - 1), 80, 10) for start in starts]
    train, validation, test = (np.concatenate(part) for part in zip(*parts, strict=True))
    return train, validation, test


def _trajectories(n: int) -> Parts:
    molecules = list(range(_whole(n)))
    random.Random(43).shuffle(molecules)  # the generator of random.seed(43); random.shuffle
    cuts = _cut(np.array(molecules), int(len(molecules) * 0.8), int(len(molecules) * 0.1))
    train, validation, test = (
        (np.sort(part)[:, None] * FRAMES + np.arange(FRAMES)).reshape(-1).astype(np.int64) for part in cuts
    )
    return train, validation, test


def _whole(n: int) -> int:
    """Molecules of a file of trajectories."""
    if not n or n % FRAMES:
        raise ConfigError(f"{n} rows are no whole trajectories of {FRAMES} frames: expected QH9Dynamic_100k or _300k")
    return n // FRAMES


def _md17(train: int, n: int) -> Parts:
    if n <= train + 500:
        raise ConfigError(f"{n} rows: the benchmark trains on {train} and validates on 500")
    return _cut(_shuffled(n, 42), train, 500)


def _nabladft(n: int) -> Parts:
    # torch.utils.data.random_split(..., [0.9, 0.1]) gives what rounding leaves to the first part
    validation = int(np.floor(n * 0.1))
    return _cut(_torch_permutation(n, 23), n - validation, validation)


def _torch_permutation(n: int, seed: int) -> IntArray:
    """torch.randperm(n) after manual_seed(seed), without torch: Fisher-Yates, one 32-bit number for each swap."""
    # RandomState seeds its Mersenne twister as torch does, and a full range takes the numbers as they come
    drawn = np.random.RandomState(seed).randint(0, 2**32, size=max(n - 1, 0), dtype=np.uint32)
    order = list(range(n))
    for i, number in enumerate(drawn.tolist()):
        at = i + number % (n - i)
        order[i], order[at] = order[at], order[i]
    return np.array(order, dtype=np.int64)


_PARTS: dict[str, Callable[[int], Parts]] = {
    "qh9-stable-iid": _stable,
    "qh9-stable-ood": _stable,
    "qh9-dynamic-geo": _frames,
    "qh9-dynamic-mol": _trajectories,
    "md17-water": partial(_md17, 500),
    "md17-ethanol": partial(_md17, 25000),
    "md17-malondialdehyde": partial(_md17, 25000),
    "md17-uracil": partial(_md17, 25000),
    "nabladft": _nabladft,
}
