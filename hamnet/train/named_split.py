"""A split that the user names: a file, or a benchmark's by its published generator."""

from __future__ import annotations

from pathlib import Path

from hamnet.config import BENCHMARK_SPLITS
from hamnet.data.benchmark_splits import UNVERIFIED, benchmark_split, rows_in_file
from hamnet.data.splits import PARTS, Split, read_split
from hamnet.nn.dataset import StoreCollection


def named_split(split: Path, stores: StoreCollection, to_train: bool = True) -> Split:
    """The split of a file, or the benchmark's of that name, of the calculations in the stores.

    Raises:
        ConfigError: no such file or split, or it does not fit the stores.
    """
    if not is_benchmark(split):
        return read_split(split, stores.names, to_train)
    n_rows = rows_in_file(stores.read(stores.names[0]).provenance.source)
    return benchmark_split(str(split), stores.names, stores.n_atoms, n_rows)


def is_benchmark(split: Path | None) -> bool:
    """True for the name of a benchmark's split; a file of that name is a file."""
    return split is not None and str(split) in BENCHMARK_SPLITS and not split.exists()


def split_remark(name: Path | None, split: Split) -> str:
    """What a person must know of a benchmark's split; empty for any other."""
    if not is_benchmark(name):
        return ""
    sizes = ", ".join(f"{len(getattr(split, part))} {part}" for part in PARTS)
    return f"split {name}: {sizes}; {UNVERIFIED}"
