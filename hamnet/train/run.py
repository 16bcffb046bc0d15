"""A whole training: stores -> split, statistics, overlap fit, fit, evaluation, files."""

from __future__ import annotations

import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import EarlyStopping, TQDMProgressBar
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from torch.utils.data import DataLoader

from hamnet.config import Config
from hamnet.core.calculation import Calculation
from hamnet.data.splits import Split, random_split, read_split
from hamnet.errors import ConfigError, FormatError
from hamnet.nn.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from hamnet.nn.dataset import CACHE_BYTES, SAMPLE_ARRAYS, Batch, HamiltonianDataset, StoreCollection, collate
from hamnet.nn.model import HamiltonianModel
from hamnet.nn.statistics import fit_statistics
from hamnet.predict.overlap import fit_overlap
from hamnet.train.callbacks import Keeper
from hamnet.train.evaluation import evaluate_calculations, readers, write_evaluation
from hamnet.train.module import EpochSampler, HamiltonianModule
from hamnet.train.plan import plan_lines
from hamnet.train.report import draw_learning_curve

OVERLAP_SAMPLES = 200
"""The overlap is fitted to at most this many calculations: it depends on pairs alone."""
HARMLESS = (
    ".*does not have many workers.*",
    ".*number of training batches.*smaller than the logging interval.*",
    ".*Checkpoint directory .* exists and is not empty.*",
    ".*Experiment logs directory .* exists and is not empty.*",
    ".*GPU available but not used.*",
    ".*isinstance.treespec, LeafSpec.*",
    ".*TF32.*",
    ".*Found .* module.s. in eval mode.*",
)
Line = Callable[[str], None]


@dataclass(frozen=True)
class TrainResult:
    """What a training leaves.

    Args:
        checkpoint: path of model.ckpt.
        figures: JSON-ready figures: parts, time, overlap error and the errors on the test part.
    """

    checkpoint: Path
    figures: dict[str, Any] = field(default_factory=dict)


def _quiet(_: str) -> None:
    """Say nothing."""


def train(
    config: Config, resume: bool = False, on_line: Line = _quiet, callbacks: Sequence[pl.Callback] = ()
) -> TrainResult:
    """Train a model and write model.ckpt, metrics.json, logs and figures into `training.output`.

    Args:
        config: everything.
        resume: go on from last.ckpt in the output folder.
        on_line: called with lines for a person.
        callbacks: further Lightning callbacks.

    Raises:
        ConfigError: nothing to resume, an output folder that holds another run, or an impossible split.
        KeyboardInterrupt: interrupted; last.ckpt resumes.
    """
    output = config.training.output
    last = output / "last.ckpt"
    if resume and not last.is_file():
        raise ConfigError(f"nothing to resume: {last} does not exist; start without --resume")
    if not resume and last.is_file():
        raise ConfigError(f"{output} holds a training already: go on with --resume, or set training.output elsewhere")
    output.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(_threads(config))
    stores = StoreCollection(config.data.store)
    try:
        return _Training(config, stores, on_line).run(last if resume else None, callbacks)
    finally:
        stores.close()


class _Training:
    """One training from open stores to written files."""

    def __init__(self, config: Config, stores: StoreCollection, on_line: Line) -> None:
        self.config, self.stores, self.on_line = config, stores, on_line
        self.output = config.training.output
        split_file = self.output / "split.json"
        self.split = make_split(config, stores, split_file if split_file.is_file() else None)
        self.split.write(split_file)

    def run(self, last: Path | None, callbacks: Sequence[pl.Callback]) -> TrainResult:
        pl.seed_everything(self.config.training.seed, verbose=False)
        self.start = self._starting_point()
        module = HamiltonianModule(self.start.model, self.config.training, 0)
        loaders = self._loaders()
        module.steps_per_epoch = len(loaders[0])
        if last is not None:
            _check_resumable(last, module)
        self._tell_plan(loaders)
        started = time.monotonic()
        with quiet_lightning():
            trainer = self._trainer(module, callbacks)
            _fit(trainer, module, loaders, last, self.on_line)
        seconds = time.monotonic() - started
        epochs = max(1, trainer.current_epoch)
        self.on_line(f"trained {epochs} epochs, {trainer.global_step} steps, {seconds:.1f} s here")
        return self._finish(module, {"seconds": seconds, "epochs": epochs, "steps": trainer.global_step})

    def _starting_point(self) -> Checkpoint:
        stores, names = self.stores, self.split.train
        statistics = fit_statistics(
            (stores.read(name) for name in names), stores.basis, stores.spin, self.config.network
        )
        model = HamiltonianModel(self.config.network, stores.basis, stores.spin, statistics)
        arrays, metadata = self._overlap()
        return Checkpoint(model, self.config, stores.basis, stores.spin, statistics, arrays, metadata)

    def _overlap(self) -> tuple[dict[str, Any] | None, dict[str, Any]]:
        first = self.stores.read(self.split.train[0])
        metadata: dict[str, Any] = {
            "train": len(self.split.train),
            "code": first.provenance.code,
            "functional": first.provenance.functional,
        }
        if all(shell.exponents for species in self.stores.basis.species for shell in species.shells):
            self.on_line("overlap: analytic integrals of the Gaussians, no fit")
            return None, metadata
        fit = fit_overlap(self._read(self.split.train[:OVERLAP_SAMPLES]))
        held_out = self.split.validation or self.split.train
        root, largest = fit.error(self._read(held_out[:OVERLAP_SAMPLES]))
        part = "validation" if self.split.validation else "training"
        self.on_line(f"overlap fitted: error on the {part} part {root:.2g} (rms), {largest:.2g} (largest), no unit")
        metadata |= {"overlap_rms": float(root), "overlap_max": float(largest)}
        return fit.to_arrays(), metadata

    def _read(self, names: Sequence[str]) -> Iterator[Calculation]:
        return (self.stores.read(name) for name in names)

    def _loaders(self) -> tuple[DataLoader[Batch], DataLoader[Batch] | None]:
        training = self.config.training
        cutoff = self.start.statistics.message_cutoff

        def loader(names: Sequence[str], shuffled: bool) -> DataLoader[Any]:
            data = HamiltonianDataset(self.stores, names, self.start.basis, cutoff)
            sampler = EpochSampler(len(data), training.seed) if shuffled else None
            return DataLoader(
                data,
                batch_size=training.batch_size,
                sampler=sampler,
                collate_fn=collate,
                num_workers=training.workers,
                persistent_workers=training.workers > 0,  # they keep their samples over epochs
            )

        validation = loader(self.split.validation, False) if self.split.validation else None
        return loader(self.split.train, True), validation

    def _tell_plan(self, loaders: tuple[DataLoader[Batch], DataLoader[Batch] | None]) -> None:
        data: Any = loaders[0].dataset  # samples; Lightning's loader is typed by its batches
        training = self.config.training
        batch = collate([data[k] for k in range(min(training.batch_size, len(self.split.train)))])
        n_kept = len(self.split.train) + len(self.split.validation)
        kept = min(n_kept / batch.graphs.n_structures * SAMPLE_ARRAYS * batch.target.nbytes, 2.0 * CACHE_BYTES)
        for line in plan_lines(self.start.model, batch, self.split, training, len(loaders[0]), kept):
            self.on_line(line)

    def _trainer(self, module: HamiltonianModule, callbacks: Sequence[pl.Callback]) -> pl.Trainer:
        training = self.config.training
        monitor = "validation_mae_meV" if self.split.validation else "train_mae_meV"
        kept: list[pl.Callback] = [*callbacks, Keeper(self.output, monitor, self._best_writer(module))]
        if training.early_stop_patience is not None:
            on_train = not self.split.validation
            kept.insert(
                0,
                EarlyStopping(
                    monitor, patience=training.early_stop_patience, check_on_train_epoch_end=on_train, verbose=False
                ),
            )
        if training.progress:
            kept.append(TQDMProgressBar(refresh_rate=1))
        return pl.Trainer(
            accelerator="gpu" if training.device == "cuda" else "cpu",
            devices=training.devices,
            max_epochs=training.epochs,
            callbacks=kept,
            logger=[CSVLogger(self.output, name="log", version=""), TensorBoardLogger(self.output, name="tensorboard")],
            gradient_clip_val=training.gradient_clip,
            check_val_every_n_epoch=training.validate_every,
            log_every_n_steps=training.log_every,
            enable_progress_bar=training.progress,
            enable_model_summary=False,
            enable_checkpointing=True,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
        )

    def _best_writer(self, module: HamiltonianModule) -> Callable[[Path, dict[str, float]], None]:
        def write(path: Path, figures: dict[str, float]) -> None:
            start = self.start
            metadata = start.metadata | figures
            best = Checkpoint(
                start.model, start.config, start.basis, start.spin, start.statistics, start.overlap_arrays, metadata
            )
            save_checkpoint(path, best, module.averaged.state_dict())

        return write

    def _finish(self, module: HamiltonianModule, figures: dict[str, Any]) -> TrainResult:
        best = self.output / "best.ckpt"
        if not best.is_file():
            self._best_writer(module)(best, {})
        checkpoint = load_checkpoint(best)
        path = self.output / "model.ckpt"
        save_checkpoint(path, checkpoint)
        log = self.output / "log" / "metrics.csv"
        if log.is_file():
            draw_learning_curve(log, self.output / "learning_curve.png")
        part = next(name for name in ("test", "validation", "train") if getattr(self.split, name))
        result = evaluate_calculations(
            checkpoint, readers(self.stores, getattr(self.split, part)), self.config.training.device
        )
        write_evaluation(result, checkpoint, self.output)
        figures = figures | checkpoint.metadata | result.figures | {"part": part, "checkpoint": str(path)}
        self.on_line(f"on the {part} part: " + summary(result.figures))
        return TrainResult(path, figures)


def summary(figures: dict[str, Any]) -> str:
    """One line of figures for a person."""
    parts = [
        f"H MAE {figures['hamiltonian_mae_meV']:.3f} meV (raw {figures['hamiltonian_mae_meV_raw']:.3f}), "
        f"largest {figures['hamiltonian_max_meV']:.2f} meV"
    ]
    if figures["band_rmse_meV"] is not None:
        parts.append(f"bands within 2 eV of the Fermi level {figures['band_rmse_meV']:.2f} meV rms")
    if figures["occupied_mae_meV"] is not None:
        parts.append(f"occupied levels {figures['occupied_mae_meV']:.2f} meV")
    if figures["grid_floor"]:
        parts.append(figures["grid_floor"])
    return "; ".join([*parts, *figures["notes"]])


def make_split(config: Config, stores: StoreCollection, written: Path | None) -> Split:
    """Split of the run: the one written by an earlier start of it, the given file, or by fractions."""
    data, names = config.data, stores.names
    if written is not None:
        return read_split(written, names)
    if data.split is not None:
        return read_split(data.split, names)
    split = random_split(names, data.validation_fraction, data.test_fraction, data.seed)
    wanted = max(1, round(data.train_fraction * len(names)))
    if wanted >= len(split.train):
        return split
    order = np.random.default_rng(data.seed).permutation(len(split.train))[:wanted]
    return Split(tuple(sorted(split.train[k] for k in order)), split.validation, split.test)


def _check_resumable(last: Path, module: HamiltonianModule) -> None:
    """Refuse a last.ckpt that is damaged or belongs to another network or other orbitals."""
    try:
        state = torch.load(last, map_location="cpu", weights_only=True)["hamnet"]
        network, basis = state["network"], state["basis"]
    except Exception as error:  # torch raises many kinds for a damaged or foreign file
        reason = (str(error).splitlines() or [type(error).__name__])[0][:120]
        raise FormatError(f"{last} does not resume a training: {reason}; start anew in another folder") from error
    settings = module.model.settings
    if network != settings.model_dump_json():
        raise ConfigError(f"{last} is of another network: {network}, now {settings.model_dump_json()}; set it back")
    if basis != module.model.basis.hash:
        raise ConfigError(f"{last} was trained on other orbitals than the stores hold now; set data.store back")


def _threads(config: Config) -> int:
    if config.training.threads is not None:
        return config.training.threads
    given = os.environ.get("OMP_NUM_THREADS", "")
    return int(given) if given.isdigit() and int(given) > 0 else len(os.sched_getaffinity(0))


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Lightning's and torch's advice that does not apply here is not passed on."""
    import logging

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


def _fit(
    trainer: pl.Trainer,
    module: HamiltonianModule,
    loaders: tuple[DataLoader[Batch], DataLoader[Batch] | None],
    last: Path | None,
    on_line: Line,
) -> None:
    handler = signal.getsignal(signal.SIGINT)
    try:
        trainer.fit(module, loaders[0], loaders[1], ckpt_path=last, weights_only=True if last else None)
    except SystemExit as error:  # Lightning turns Ctrl-C into an exit and leaves the signal ignored
        if not isinstance(error.__context__, KeyboardInterrupt):
            raise
        kept = module.training_config.output / "last.ckpt"
        on_line(f"interrupted after {trainer.global_step} steps; {kept} is kept: give the same command with --resume")
        raise KeyboardInterrupt from error
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, handler)
