"""What is kept while training: last.ckpt to resume from, best.ckpt to predict with."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Checkpoint as CheckpointCallback

from hamnet.nn.checkpoint import unwritable
from hamnet.train.module import HamiltonianModule

LARGEST_SHARE = 0.05
"""Saving takes at most this part of the time: very short epochs are not all saved."""
LINE_SECONDS = 60.0
"""Between two lines of progress in a log file."""


class ProgressLines(pl.Callback):  # type: ignore[misc]  # Lightning is untyped to mypy
    """A line now and then, for logs, where a bar would leave megabytes of itself.

    Args:
        on_line: called with the line.
        budget: what the training has, as "12 minutes" or "300 epochs".
    """

    def __init__(self, on_line: Callable[[str], None], budget: str) -> None:
        self.on_line = on_line
        self.budget = budget
        self._told = time.monotonic()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Tell the latest errors when enough time has passed."""
        if time.monotonic() - self._told < LINE_SECONDS or not isinstance(pl_module, HamiltonianModule):
            return
        self._told = time.monotonic()
        known = {"train_mae_meV": "training", "validation_mae_meV": "validation"}
        latest = trainer.callback_metrics
        errors = ", ".join(f"{text} {float(latest[key]):.3g} meV" for key, text in known.items() if key in latest)
        used = f"{pl_module.seconds_spent / 60:.1f} minutes, {100 * pl_module.budget_used:.0f} % of {self.budget}"
        self.on_line(f"  epoch {trainer.current_epoch}, {used}: {errors}")


class Keeper(CheckpointCallback):  # type: ignore[misc]  # Lightning is untyped to mypy
    """Writes last.ckpt (Lightning's, to resume from) and best.ckpt (ours) as training goes.

    last.ckpt always shows the end of an epoch (or the start of training), so that a run that is interrupted anywhere
    and resumed takes the same steps as one that was not.

    Args:
        folder: where to write.
        monitor: name of the logged figure that decides which weights are best, the smaller the better.
        write_best: called with the path and figures when the averaged weights are the best so far.
    """

    def __init__(self, folder: Path, monitor: str, write_best: Callable[[Path, dict[str, float]], None]) -> None:
        super().__init__()
        self.folder = folder
        self.monitor = monitor
        self.write_best = write_best
        self.best = math.inf
        self._saved_at = -math.inf
        self._cost = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """A run that is interrupted in its first epoch can be resumed too."""
        if trainer.global_step == 0:
            self._save_last(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep the best weights and, unless saved a moment ago, the state to resume from."""
        self._keep_best(trainer, pl_module)
        if self._due(pl_module):
            self._save_last(trainer)

    def _due(self, module: pl.LightningModule) -> bool:
        """Saving is a common act of all processes, so the first one's clock decides."""
        due = time.monotonic() - self._saved_at >= self._cost / LARGEST_SHARE
        return bool(module.team.from_first(float(due), module.device)) if isinstance(module, HamiltonianModule) else due

    def _keep_best(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        figure = trainer.callback_metrics.get(self.monitor)
        if figure is None or not float(figure) < self.best:
            return
        self.best = float(figure)
        if isinstance(pl_module, HamiltonianModule) and pl_module.team.leads:
            figures = {
                self.monitor: self.best,
                "epoch": float(trainer.current_epoch),
                "seconds": pl_module.seconds_spent,
            }
            self.write_best(self.folder / "best.ckpt", figures)

    def _save_last(self, trainer: pl.Trainer) -> None:
        started = time.monotonic()
        temporary = self.folder / ".last.ckpt.part"
        try:
            trainer.save_checkpoint(temporary)
            if trainer.is_global_zero:
                temporary.replace(self.folder / "last.ckpt")
        except (OSError, RuntimeError) as error:
            raise unwritable(self.folder / "last.ckpt", error) from error
        finally:
            if trainer.is_global_zero:
                temporary.unlink(missing_ok=True)
        self._saved_at = time.monotonic()
        self._cost = self._saved_at - started

    def state_dict(self) -> dict[str, Any]:
        """The best figure so far."""
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the best figure back."""
        self.best = state_dict["best"]
