"""Splits: which calculations train, which validate, which test."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from hamnet.core.files import write_json
from hamnet.errors import ConfigError

PARTS = ("train", "validation", "test")


@dataclass(frozen=True)
class Split:
    """Names of the calculations in each part; no name stands twice.

    Raises:
        ConfigError: a name stands twice.
    """

    train: tuple[str, ...]
    validation: tuple[str, ...] = ()
    test: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        seen: dict[str, str] = {}
        for part in PARTS:
            for name in getattr(self, part):
                if name in seen:
                    raise ConfigError(
                        f"the split names {name!r} twice, in {seen[name]} and in {part}: each name belongs to one part"
                    )
                seen[name] = part

    def check(self, names: Sequence[str], to_train: bool = True) -> None:
        """Refuse a split that names calculations which the store does not hold.

        Args:
            names: of the store.
            to_train: the training part must not be empty.

        Raises:
            ConfigError: unknown names, or nothing to train on.
        """
        known = set(names)
        for part in PARTS:
            unknown = [name for name in getattr(self, part) if name not in known]
            if unknown:
                raise ConfigError(
                    f"the split's {part} part names {len(unknown)} calculations that the store does not hold, "
                    f"the first is {unknown[0]!r}; the store holds {len(known)}, as {', '.join(sorted(known)[:3])}"
                )
        if to_train and not self.train:
            raise ConfigError("the split's train part is empty: at least one calculation is needed to train on")

    def write(self, path: str | Path) -> None:
        """JSON file {"train": [names], "validation": [...], "test": [...]}."""
        write_json(Path(path), asdict(self))


def random_split(names: Sequence[str], validation: float, test: float, seed: int = 0) -> Split:
    """Parts by fraction; the same names (in whatever order) and seed give the same split.

    A part whose fraction is above 0 gets at least one calculation as long as one is left to train on.

    Args:
        names: names without repeats.
        validation, test: fractions in [0, 1), together below 1.
        seed: of the random order.

    Raises:
        ConfigError: a fraction is out of range, a name stands twice, or there are no names.
    """
    if validation < 0 or test < 0 or not validation + test < 1:
        raise ConfigError(
            f"fractions validation = {validation} and test = {test}: expected 0 or more each, below 1 together"
        )
    if not names:
        raise ConfigError("there is nothing to split: the store holds no calculation")
    ordered = sorted(names)
    shuffled = [ordered[k] for k in np.random.default_rng(seed).permutation(len(ordered))]
    spare = len(shuffled) - 1
    n_validation = min(_count(validation, len(shuffled)), spare)
    n_test = min(_count(test, len(shuffled)), spare - n_validation)
    parts = np.cumsum([n_validation, n_test]).tolist()
    split = Split(
        tuple(sorted(shuffled[parts[1] :])),
        tuple(sorted(shuffled[: parts[0]])),
        tuple(sorted(shuffled[parts[0] : parts[1]])),
    )
    split.check(ordered)
    return split


def read_split(path: str | Path, names: Sequence[str], to_train: bool = True) -> Split:
    """Split from a JSON file, checked against the names of a store, see `Split.check`.

    Raises:
        ConfigError: no such file, no JSON, an unknown part, unknown or double names.
    """
    path = Path(path)
    expected = 'expected {"train": [names], "validation": [names], "test": [names]}'
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"there is no split file {path}") from error
    except ValueError as error:
        raise ConfigError(f"the split file {path} is not JSON ({error}): {expected}") from error
    if not isinstance(content, dict) or not set(content) <= set(PARTS):
        found = sorted(content) if isinstance(content, dict) else type(content).__name__
        raise ConfigError(f"the split file {path} holds {found}: {expected}")
    for part, entries in content.items():
        if not isinstance(entries, list) or not all(isinstance(name, str) for name in entries):
            raise ConfigError(f"the {part} part of the split file {path} is not a list of names: {expected}")
    split = Split(**{part: tuple(content.get(part, ())) for part in PARTS})
    split.check(names, to_train)
    return split


def _count(fraction: float, n: int) -> int:
    return max(1, round(fraction * n)) if fraction > 0 else 0
