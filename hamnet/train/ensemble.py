"""Ensembles: the same training from several seeds, so that the spread of their predictions tells how sure they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from hamnet.config import Config
from hamnet.errors import ConfigError
from hamnet.train.run import TrainResult, train

Line = Callable[[str], None]


def member_config(config: Config, number: int) -> Config:
    """Configuration of one member: its own seed and folder; the split is that of all."""
    training = config.training
    changes = {"seed": training.seed + number, "output": training.output / str(number)}
    return config.model_copy(update={"training": training.model_copy(update=changes)})


def train_ensemble(
    config: Config,
    members: int,
    resume: bool = False,
    on_line: Line = lambda line: None,
    source: Path | None = None,
) -> list[TrainResult]:
    """Train member after member into output/0, output/1, ...; a budget of minutes is each member's own.

    Args:
        config: of all; member k has seed + k.
        members: how many, 2 or more.
        resume: members that are finished stay, one that was interrupted goes on, the others begin.
        on_line: called with lines for a person.
        source: checkpoint of a trained model that all start from.

    Raises:
        ConfigError: fewer than two members, or a folder that holds a training when not resuming.
    """
    if members < 2:
        raise ConfigError(f"an ensemble of {members}: expected 2 members or more; leave --ensemble out for one model")
    results: list[TrainResult] = []
    for number in range(members):
        own = member_config(config, number)
        folder = own.training.output
        if resume and (folder / "model.ckpt").is_file():
            on_line(f"member {number}: finished before, {folder / 'model.ckpt'}")
            results.append(TrainResult(folder / "model.ckpt"))
            continue
        on_line(f"member {number} of {members}: seed {own.training.seed}, output {folder}")
        goes_on = resume and (folder / "last.ckpt").is_file()
        results.append(train(own, goes_on, on_line, source=source))
    return results


def ensemble_figures(results: list[TrainResult]) -> dict[str, Any]:
    """JSON-ready: paths of the members, their errors and the mean of these (of members trained in this run)."""
    errors = [r.figures["hamiltonian_mae_meV"] for r in results if r.figures]
    return {
        "checkpoints": [str(result.checkpoint) for result in results],
        "members": [result.figures for result in results],
        "hamiltonian_mae_meV": float(np.mean(errors)) if errors else None,
    }
