"""The fit itself, the same in every process of a training: loaders, Lightning's trainer, interruption."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import EarlyStopping, TQDMProgressBar
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from torch.utils.data import DataLoader

from hamnet.config import Config, TrainingConfig
from hamnet.data.splits import Split
from hamnet.nn.checkpoint import Checkpoint, save_checkpoint
from hamnet.nn.dataset import CACHE_BYTES, Batch, HamiltonianDataset, StoreCollection, collate, to_basis
from hamnet.train.band_monitor import BandMonitor
from hamnet.train.batches import BatchPlan
from hamnet.train.callbacks import Keeper, ProgressLines
from hamnet.train.module import HamiltonianModule
from hamnet.train.parallel import Team, meeting

RESUME_ADVICE = ": give the same command with --resume"
"""End of the last line of a training that was interrupted, in the words of `hamnet train`; others take it off."""
HARMLESS = (
    ".*does not have many workers.*",
    ".*number of training batches.*smaller than the logging interval.*",
    ".*Checkpoint directory .* exists and is not empty.*",
    ".*Experiment logs directory .* exists and is not empty.*",
    ".*GPU available but not used.*",
    ".*isinstance.treespec, LeafSpec.*",
    ".*TF32.*",
    ".*Found .* module.s. in eval mode.*",
    ".*but have no `val_dataloader`.*",
    ".*It is recommended to use .*sync_dist=True.*",
    ".*Unable to serialize instance.*",
    ".*Using 0.0.0.0 as the server host.*",
)
Line = Callable[[str], None]
Loader = DataLoader[Batch]


@dataclass(frozen=True)
class Fit:
    """One process's part in the fit of a network.

    Args:
        config: everything, with the network settled.
        stores: data.
        split: parts.
        start: untrained model and what is saved beside it.
        team: the processes.
    """

    config: Config
    stores: StoreCollection
    split: Split
    start: Checkpoint
    team: Team = Team()

    def plan(self, names: Sequence[str], seed: int | None) -> BatchPlan:
        """Batches over these calculations."""
        training = self.config.training
        counts = pair_counts(self.stores)
        return BatchPlan(
            [counts[name] for name in names], training.batch_size, training.batch_pairs, seed=seed, team=self.team
        )

    def loaders(self) -> tuple[Loader, Loader | None]:
        """Batches of the training part in an order of their own each epoch; those of the validation part, or None."""
        train = self._loader(self.split.train, self.config.training.seed)
        return train, self._loader(self.split.validation, None) if self.split.validation else None

    def _loader(self, names: Sequence[str], seed: int | None) -> Loader:
        training = self.config.training
        room = CACHE_BYTES // (max(1, training.workers) * self.team.world)  # each process keeps samples of its own
        start = self.start
        points = training.kspace_points if training.kspace_weight and seed is not None else 0
        data = HamiltonianDataset(
            self.stores,
            names,
            start.basis,
            start.statistics.message_cutoff,
            room,
            start.baseline,
            points,
            start.statistics.magnetic,
        )
        loader: DataLoader[Any] = DataLoader(
            data,
            batch_sampler=self.plan(names, seed),
            collate_fn=collate,
            num_workers=training.workers,
            persistent_workers=training.workers > 0,  # they keep their samples over epochs
        )
        return loader

    def module(self, loaders: tuple[Loader, Loader | None]) -> HamiltonianModule:
        """The network with its loss and averages."""
        plans = [_plan(loader) for loader in loaders if loader is not None]
        return HamiltonianModule(self.start.model.train(), self.config.training, *plans)

    def run(
        self,
        module: HamiltonianModule,
        loaders: tuple[Loader, Loader | None],
        last: Path | None,
        callbacks: Sequence[pl.Callback] = (),
        on_line: Line = lambda line: None,
    ) -> pl.Trainer:
        """Fit to the end of the budget.

        Args:
            module, loaders: of this process.
            last: checkpoint to go on from.
            callbacks: further Lightning callbacks.
            on_line: called with lines for a person.

        Raises:
            KeyboardInterrupt: interrupted; last.ckpt resumes.
        """
        with quiet_lightning(), meeting(self.team):
            trainer = self._trainer(module, callbacks, on_line)
            with _interruptible(trainer, self.config.training.output, on_line):
                trainer.fit(module, loaders[0], loaders[1], ckpt_path=last, weights_only=True if last else None)
        return trainer

    def _trainer(self, module: HamiltonianModule, callbacks: Sequence[pl.Callback], on_line: Line) -> pl.Trainer:
        training = self.config.training
        monitor = "validation_mae_meV" if self.split.validation else "train_mae_meV"
        kept: list[pl.Callback] = [*callbacks, Keeper(training.output, monitor, self.best_writer(module))]
        if training.early_stop_patience is not None:
            patience = training.early_stop_patience
            on_train = not self.split.validation
            kept.insert(0, EarlyStopping(monitor, patience=patience, check_on_train_epoch_end=on_train, verbose=False))
        if training.validate_bands and self.split.validation and self.team.leads:
            kept.insert(0, self._band_monitor(training.validate_bands))
        bar = training.progress and sys.stderr.isatty()
        if training.progress:
            kept.append(TQDMProgressBar(refresh_rate=1) if bar else ProgressLines(on_line, _budget(training)))
        folder = training.output
        return pl.Trainer(
            accelerator="gpu" if training.device == "cuda" else "cpu",
            devices=training.devices,
            strategy=self.team.strategy(training.device),
            max_epochs=training.epochs,
            callbacks=kept,
            logger=[CSVLogger(folder, name="log", version=""), TensorBoardLogger(folder, name="tensorboard")],
            gradient_clip_val=training.gradient_clip,
            check_val_every_n_epoch=training.validate_every,
            log_every_n_steps=training.log_every,
            enable_progress_bar=bar,
            enable_model_summary=False,
            enable_checkpointing=True,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
        )

    def _band_monitor(self, count: int) -> BandMonitor:
        chosen = (to_basis(self.stores.read(name), self.start.basis) for name in self.split.validation[:count])
        return BandMonitor(chosen, self.start.baseline, self.config.training.energy_zero)

    def best_writer(self, module: HamiltonianModule) -> Callable[[Path, dict[str, float]], None]:
        """Function that writes the averaged weights as a checkpoint, with figures beside them."""

        def write(path: Path, figures: dict[str, float]) -> None:
            """The starting point's data, the averaged weights, these figures."""
            best = replace_metadata(self.start, self.start.metadata | figures)
            save_checkpoint(path, best, module.averaged.state_dict())

        return write


def replace_metadata(checkpoint: Checkpoint, metadata: dict[str, Any]) -> Checkpoint:
    """The same checkpoint with other figures and texts."""
    return Checkpoint(**(vars(checkpoint) | {"metadata": metadata}))


def _budget(training: TrainingConfig) -> str:
    return f"{training.epochs} epochs" if training.max_minutes is None else f"{training.max_minutes:g} minutes"


def _plan(loader: Loader) -> BatchPlan:
    plan: Any = loader.batch_sampler  # typed as a sampler by torch
    result: BatchPlan = plan
    return result


def pair_counts(stores: StoreCollection) -> dict[str, int]:
    """Number of pairs of every calculation, without reading any."""
    return {name: int(n) for store in stores.stores for name, n in zip(store.names, store.n_pairs, strict=True)}


def set_threads(config: Config) -> None:
    """Threads of this process: as configured, as OMP_NUM_THREADS says, or all cores shared among the processes."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    fallback = int(given) if given.isdigit() else 0
    wanted = config.training.threads or fallback
    torch.set_num_threads(wanted or max(1, len(os.sched_getaffinity(0)) // config.training.devices))


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Lightning's and torch's advice that does not apply here is not passed on."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            for message in HARMLESS:
                warnings.filterwarnings("ignore", message=message)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def _interruptible(trainer: pl.Trainer, output: Path, on_line: Line) -> Iterator[None]:
    """Ctrl-C stays Ctrl-C, and the signal's handler stays the caller's."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as error:  # Lightning turns Ctrl-C into an exit and leaves the signal ignored
        if not isinstance(error.__context__, KeyboardInterrupt):
            raise
        kept = output / "last.ckpt"
        on_line(f"interrupted after {trainer.global_step} steps; {kept} is kept{RESUME_ADVICE}")
        raise KeyboardInterrupt from error
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, handler)
