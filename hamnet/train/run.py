"""A whole training: stores -> split, statistics, overlap fit, fit, evaluation, files."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch

from hamnet.config import Config
from hamnet.core.basis import OrbitalBasis
from hamnet.data.splits import Split, random_split, read_split
from hamnet.errors import ConfigError, FormatError
from hamnet.nn.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from hamnet.nn.dataset import CACHE_BYTES, SAMPLE_ARRAYS, StoreCollection, collate
from hamnet.predict.seen import in_short
from hamnet.train.advice import advise, is_open, with_network, write_config
from hamnet.train.band_monitor import draw_band_scatter
from hamnet.train.evaluation import evaluate_calculations, readers, write_evaluation
from hamnet.train.finetune import covers
from hamnet.train.fitting import Fit, Loader, set_threads
from hamnet.train.module import HamiltonianModule
from hamnet.train.molecule_metrics import molecule_parts
from hamnet.train.named_split import named_split, split_remark
from hamnet.train.parallel import Team, free_port, partners
from hamnet.train.partner import START_FILE
from hamnet.train.plan import plan_lines
from hamnet.train.report import draw_learning_curve
from hamnet.train.start import Starter, network_dtype

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
    config: Config,
    resume: bool = False,
    on_line: Line = _quiet,
    callbacks: Sequence[pl.Callback] = (),
    source: Path | None = None,
) -> TrainResult:
    """Train a model and write model.ckpt, metrics.json, logs and figures into `training.output`.

    Args:
        config: everything.
        resume: go on from last.ckpt in the output folder.
        on_line: called with lines for a person.
        callbacks: further Lightning callbacks.
        source: checkpoint of a trained model to start from; a resumed run needs it no more.

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
    check_devices(config)
    set_threads(config)
    stores = StoreCollection(config.data.store)
    try:
        return _Training(config, stores, on_line).run(last if resume else None, callbacks, source)
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
        remark = split_remark(config.data.split, self.split)
        if remark:
            on_line(remark)

    def run(self, last: Path | None, callbacks: Sequence[pl.Callback], source: Path | None) -> TrainResult:
        """Fit, evaluate, write."""
        pl.seed_everything(self.config.training.seed, verbose=False)
        self.start = self._starting_point(last, None if source is None else load_checkpoint(source))
        write_config(self.output / "config.yaml", self.config)
        world = self.config.training.devices
        team = Team(0, world, free_port() if world > 1 else 0)
        fit = Fit(self.config, self.stores, self.split, self.start, team)
        loaders = fit.loaders()
        module = fit.module(loaders)
        self._tell_plan(loaders[0])
        started = time.monotonic()
        with partners(self.config, last is not None, team.port):
            trainer = fit.run(module, loaders, last, callbacks, self.on_line)
        seconds = time.monotonic() - started
        epochs = max(1, trainer.current_epoch)
        self.on_line(f"trained {epochs} epochs, {trainer.global_step} steps, {seconds:.1f} s here")
        return self._finish(fit, module, {"seconds": seconds, "epochs": epochs, "steps": trainer.global_step})

    def _starting_point(self, last: Path | None, source: Checkpoint | None) -> Checkpoint:
        """What was there when the run began; in a resumed run, what was there then. Settles the configuration."""
        path = self.output / START_FILE
        earlier = load_checkpoint(path) if last is not None and path.is_file() else None
        settled_by = earlier or source
        if settled_by is not None and is_open(self.config):
            self.config = with_network(self.config, settled_by.config.network)
        else:
            self.config, lines = advise(self.config, self.stores, self.split.train)
            for line in lines:
                self.on_line(line)
        if last is not None:
            basis = self.stores.basis if earlier is None else earlier.basis
            _check_resumable(last, self.config, basis if covers(basis, self.stores.basis) else self.stores.basis)
        if earlier is not None:
            return Checkpoint(**(vars(earlier) | {"config": self.config}))
        start = Starter(self.config, self.stores, self.split, self.on_line, source).run()
        save_checkpoint(path, start)
        return start

    def _tell_plan(self, loader: Loader) -> None:
        data: Any = loader.dataset  # samples; the loader is typed by its batches
        plan: Any = loader.batch_sampler
        batch = collate([data[k] for k in plan.shares(0)[0].indices])
        n_kept = len(self.split.train) + len(self.split.validation)
        kept = min(n_kept / batch.graphs.n_structures * SAMPLE_ARRAYS * batch.target.nbytes, 2.0 * CACHE_BYTES)
        for line in plan_lines(self.start.model, batch, self.split, self.config.training, len(plan), kept):
            self.on_line(line)

    def _finish(self, fit: Fit, module: HamiltonianModule, figures: dict[str, Any]) -> TrainResult:
        best = self.output / "best.ckpt"
        if not best.is_file():
            fit.best_writer(module)(best, {})
        checkpoint = load_checkpoint(best)
        path = self.output / "model.ckpt"
        save_checkpoint(path, checkpoint)
        log = self.output / "log" / "metrics.csv"
        if log.is_file():
            draw_learning_curve(log, self.output / "learning_curve.png")
            draw_band_scatter(log, self.output / "bands_against_matrix.png")
        part = next(name for name in ("test", "validation", "train") if getattr(self.split, name))
        result = evaluate_calculations(
            checkpoint, readers(self.stores, getattr(self.split, part)), self.config.training.device
        )
        write_evaluation(result, checkpoint, self.output)
        figures = figures | in_short(checkpoint.metadata) | result.figures | {"part": part, "checkpoint": str(path)}
        self.on_line(f"on the {part} part: " + summary(result.figures))
        return TrainResult(path, figures)


def summary(figures: dict[str, Any]) -> str:
    """One line of figures for a person."""
    parts = molecule_parts(figures) or [
        f"H MAE {figures['hamiltonian_mae_meV']:.3f} meV (raw {figures['hamiltonian_mae_meV_raw']:.3f}), "
        f"largest {figures['hamiltonian_max_meV']:.2f} meV"
    ]
    if figures["band_rmse_meV"] is not None:
        parts.append(f"bands within 2 eV of the Fermi level {figures['band_rmse_meV']:.2f} meV rms")
    if figures["occupied_mae_meV"] is not None and "occupied_mae_uEh" not in figures:
        parts.append(f"occupied levels {figures['occupied_mae_meV']:.2f} meV")
    if figures["label_noise"]:
        parts.append(figures["label_noise"])
    return "; ".join([*parts, *figures["notes"]])


def make_split(config: Config, stores: StoreCollection, written: Path | None) -> Split:
    """Split of the run: the one written by an earlier start of it, the given file, or by fractions."""
    data, names = config.data, stores.names
    if written is not None:
        return read_split(written, names)
    if data.split is not None:
        return named_split(data.split, stores)
    split = random_split(names, data.validation_fraction, data.test_fraction, data.seed)
    wanted = max(1, round(data.train_fraction * len(names)))
    # fractions of one together leave nothing out, however they are rounded
    whole = data.train_fraction + data.validation_fraction + data.test_fraction > 1 - 1e-9
    if whole or wanted >= len(split.train):
        return split
    order = np.random.default_rng(data.seed).permutation(len(split.train))[:wanted]
    return Split(tuple(sorted(split.train[k] for k in order)), split.validation, split.test)


def _check_resumable(last: Path, config: Config, basis: OrbitalBasis) -> None:
    """Refuse a last.ckpt that is damaged or belongs to another network or other orbitals."""
    try:
        state = torch.load(last, map_location="cpu", weights_only=True)["hamnet"]
        network, known, dtype = state["network"], state["basis"], state["dtype"]
    except Exception as error:  # torch raises many kinds for a damaged or foreign file
        reason = (str(error).splitlines() or [type(error).__name__])[0][:120]
        raise FormatError(f"{last} does not resume a training: {reason}; start anew in another folder") from error
    now = config.network.model_dump_json()
    if network != now:
        raise ConfigError(f"{last} is of another network: {network}, now {now}; set it back")
    if dtype != str(network_dtype(config)):
        raise ConfigError(f"{last} was trained in {dtype}; set training.precision back")
    if known != basis.hash:
        raise ConfigError(f"{last} was trained on other orbitals than the stores hold now; set data.store back")


def check_devices(config: Config) -> None:
    """Refuse devices that this machine lacks.

    Raises:
        ConfigError: no GPU, too few of them, or none that computes in bfloat16.
    """
    training = config.training
    if training.device == "cpu":
        return
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if found < training.devices:
        raise ConfigError(f"training.device cuda with {training.devices} devices: torch finds {found} here; use cpu")
    if training.precision == "bf16" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise ConfigError("training.precision bf16: this GPU does not compute in bfloat16; use float32")
