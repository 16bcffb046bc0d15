"""What a run of learning without labels was begun with, so that its folder is taken up by the same run only."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hamnet.config import Config
from hamnet.core.files import write_json
from hamnet.errors import ConfigError
from hamnet.predict.structures import geometry_hash

FREE_KEYS = frozenset({"output", "device", "devices", "threads", "workers", "log_every", "progress"})
"""Keys of the training section that may change before a run goes on: they do not touch the result but by rounding."""
MOST_NAMED = 3
"""Structures that a message names."""


def begun_with(
    config: Config, model: str, method: str, structures: Sequence[tuple[str, Any]], labelled: Sequence[Path]
) -> dict[str, Any]:
    """JSON-ready: everything outside the settings of the rounds that decides what a run leads to.

    Args:
        config: of the training in each round.
        model: sha256 of the checkpoint to start from.
        method: text of the DFT method.
        structures: (name, atoms) without labels.
        labelled: stores to rehearse from; none: the data section does not matter.
    """
    training = config.training.model_dump(mode="json", exclude=set(FREE_KEYS))
    geometries = {name: geometry_hash(atoms) for name, atoms in structures}
    description = {"model": model, "method": method, "structures": geometries, "training": training, "data": {}}
    if labelled:
        data = config.data.model_dump(mode="json", exclude={"store"})
        if config.data.split is not None and config.data.split.is_file():
            data["split"] = f"sha256 {hashlib.sha256(config.data.split.read_bytes()).hexdigest()}"
        description["data"] = {"store": [_facts(path) for path in labelled], **data}
    return description


def _facts(path: Path) -> str:
    """A store may have gigabytes: its size and time of change stand for its content."""
    facts = path.stat()
    changed = datetime.fromtimestamp(facts.st_mtime, UTC).isoformat(timespec="microseconds")
    return f"{path.name}, {facts.st_size} bytes, changed {changed}"


def same_run(folder: Path, description: Mapping[str, Any]) -> None:
    """Write what a run is into its folder's start.json, or refuse a folder of another one.

    Args:
        folder: of the run.
        description: JSON-ready; values or sections of values.

    Raises:
        ConfigError: the folder holds another run, or a model of something else.
    """
    path = folder / "start.json"
    if path.is_file():
        before = json.loads(path.read_text(encoding="utf-8"))
        others = differences(before, json.loads(json.dumps(description)))
        if others:
            raise ConfigError(
                f"{folder} holds a run with other {'; '.join(others)}: set that back to go on, or choose another folder"
            )
    elif (folder / "model.ckpt").exists():
        raise ConfigError(
            f"{folder} holds the model of another run, which would be written over: choose another folder"
        )
    else:
        write_json(path, description)


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between two descriptions, in words; empty where they are of one run."""
    found = []
    for key, value in now.items():
        earlier = before.get(key)
        if not isinstance(value, dict):
            found += [_changed(key, earlier, value)] if earlier != value else []
        elif not isinstance(earlier, dict):
            found.append(f"{key} (not recorded then)")
        elif bool(earlier) != bool(value):
            found.append(f"{key} ({'some' if earlier else 'none'} then, {'some' if value else 'none'} now)")
        elif key == "structures":
            found += _structures(earlier, value)
        else:
            keys = [k for k in {**earlier, **value} if earlier.get(k) != value.get(k)]
            found += [_changed(f"{key}.{k}", earlier.get(k), value.get(k)) for k in keys]
    return found


def _changed(key: str, before: object, now: object) -> str:
    return f"{key} ({json.dumps(before)} then, {json.dumps(now)} now)"


def _structures(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Names first: where they are the same, the geometries that moved."""
    if set(before) != set(now):
        odd = sorted(set(before) ^ set(now))
        return [f"structures ({len(before)} then, {len(now)} now; {_some(odd)} only in one of both)"]
    moved = [name for name, value in now.items() if before[name] != value]
    return [f"geometries of {_some(moved)}"] if moved else []


def _some(names: Sequence[str]) -> str:
    more = len(names) - MOST_NAMED
    return ", ".join(names[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
