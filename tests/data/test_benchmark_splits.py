"""Splits of the molecular benchmarks against their generators written out, and against the published sizes."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hamnet.config import BENCHMARK_SPLITS
from hamnet.data.benchmark_splits import benchmark_split, rows_in_file
from hamnet.data.splits import PARTS, Split
from hamnet.errors import ConfigError


def rows(split: Split) -> tuple[list[int], list[int], list[int]]:
    train, validation, test = ([int(name) for name in getattr(split, part)] for part in PARTS)
    return train, validation, test


def whole(name: str, n: int, n_atoms: list[int] | None = None) -> tuple[list[int], list[int], list[int]]:
    return rows(benchmark_split(name, [str(k) for k in range(n)], n_atoms or [9] * n, n))


def test_published_sizes() -> None:
    """Tables of QH9's README and paper."""
    assert [len(part) for part in whole("qh9-stable-iid", 130_831)] == [104_664, 13_083, 13_084]
    assert [len(part) for part in whole("qh9-dynamic-geo", 99_900)] == [79_920, 9_990, 9_990]
    assert [len(part) for part in whole("qh9-dynamic-mol", 99_900)] == [79_900, 9_900, 10_100]
    assert [len(part) for part in whole("md17-water", 4_999)] == [500, 500, 3_999]
    assert [len(part) for part in whole("md17-ethanol", 30_000)] == [25_000, 500, 4_500]


def test_generators_written_out() -> None:
    order = np.random.RandomState(seed=43).permutation(1000)
    train, validation, test = whole("qh9-stable-iid", 1000)
    assert train + validation + test == order.tolist()
    order = np.random.RandomState(seed=42).permutation(4999)
    assert whole("md17-water", 4999)[0] == order[:500].tolist()
    last = np.random.RandomState(seed=299).permutation(100)
    assert whole("qh9-dynamic-geo", 300)[2][-10:] == (200 + last[90:]).tolist()
    molecules = list(range(10))
    random.seed(43)
    random.shuffle(molecules)
    assert {k // 100 for k in whole("qh9-dynamic-mol", 1000)[1]} == {molecules[8]}


@settings(max_examples=30, deadline=None)
@given(st.integers(10, 3000))
def test_nabladft_is_torchs_random_split(n: int) -> None:
    parts = torch.utils.data.random_split(range(n), [0.9, 0.1], generator=torch.Generator().manual_seed(23))
    train, validation, test = whole("nabladft", n)
    assert (train, validation, test) == (list(parts[0].indices), list(parts[1].indices), [])


def test_by_size() -> None:
    sizes = [3, 20, 21, 22, 23, 29]
    assert whole("qh9-stable-ood", 6, sizes) == ([0, 1], [2, 3], [4, 5])


@pytest.mark.parametrize("name", BENCHMARK_SPLITS)
def test_every_row_is_in_one_part(name: str) -> None:
    n = 30_000 if name.startswith("md17") else 3_000
    sizes = [15 + k % 12 for k in range(n)]
    parts = whole(name, n, sizes)
    assert sorted(sum(parts, [])) == list(range(n))


@pytest.mark.parametrize("name", ["qh9-stable-iid", "qh9-stable-ood", "nabladft", "qh9-dynamic-geo"])
def test_broken_rows_move_no_other(name: str) -> None:
    """The split is that of the whole file: rows that a store lacks are missing from their part, and that is all."""
    n = 1000
    sizes = [15 + k % 12 for k in range(n)]
    kept = [k for k in range(n) if k % 7]
    full = whole(name, n, sizes)
    found = rows(benchmark_split(name, [str(k) for k in kept], [sizes[k] for k in kept], n))
    assert found == tuple([k for k in part if k % 7] for part in full)


def test_names_of_a_folder() -> None:
    names = [f"QH9Stable.db/{k}" for k in range(100)]
    split = benchmark_split("qh9-stable-iid", names, [9] * 100, 100)
    assert split.train[0] == f"QH9Stable.db/{np.random.RandomState(43).permutation(100)[0]}"


@pytest.mark.parametrize(
    ("name", "names", "n_rows", "text"),
    [
        ("qh9-unknown", ["0"], 1, "there are qh9-stable-iid"),
        ("qh9-stable-iid", ["water", "1"], 2, "'water' is no row"),
        ("qh9-stable-iid", ["a/1", "b/1"], 2, "same row"),
        ("qh9-stable-iid", ["0", "7"], 5, "row 7 of a file that has 5"),
        ("qh9-dynamic-geo", ["0"], 150, "150 rows are no whole trajectories"),
        ("md17-ethanol", ["0"], 4999, "trains on 25000"),
    ],
)
def test_what_does_not_fit_is_refused(name: str, names: list[str], n_rows: int, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        benchmark_split(name, names, [3] * len(names), n_rows)


def test_rows_in_file() -> None:
    assert rows_in_file("QH9Stable.db row 17 of 130831") == 130_831
    with pytest.raises(ConfigError, match="comes from 'water.chk'"):
        rows_in_file("water.chk")
