"""A whole training: stores -> split, statistics, overlap fit, fit, evaluation, files."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch

from hamnet.config import Config
from hamnet.core.calculation import Calculation
from hamnet.data.splits import Split, random_split, read_split
from hamnet.errors import ConfigError, FormatError
from hamnet.nn.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from hamnet.nn.dataset import CACHE_BYTES, SAMPLE_ARRAYS, StoreCollection, collate
from hamnet.nn.model import HamiltonianModel
from hamnet.nn.prior import Baseline
from hamnet.nn.statistics import fit_statistics
from hamnet.predict.overlap import fit_overlap
from hamnet.train.evaluation import evaluate_calculations, readers, write_evaluation
from hamnet.train.fitting import Fit, Loader, set_threads
from hamnet.train.module import HamiltonianModule
from hamnet.train.parallel import Team, free_port, partners
from hamnet.train.partner import START_FILE
from hamnet.train.plan import plan_lines
from hamnet.train.report import draw_learning_curve

OVERLAP_SAMPLES = 200
"""The overlap is fitted to at most this many calculations: it depends on pairs alone."""
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
    check_devices(config)
    set_threads(config)
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
        """Fit, evaluate, write."""
        pl.seed_everything(self.config.training.seed, verbose=False)
        self.start = self._starting_point()
        world = self.config.training.devices
        team = Team(0, world, free_port() if world > 1 else 0)
        fit = Fit(self.config, self.stores, self.split, self.start, team)
        loaders = fit.loaders()
        module = fit.module(loaders)
        if last is not None:
            _check_resumable(last, module)
        self._tell_plan(loaders[0])
        started = time.monotonic()
        if world > 1:
            save_checkpoint(self.output / START_FILE, self.start)
            with partners(self.config, last is not None, team.port):
                trainer = fit.run(module, loaders, last, callbacks, self.on_line)
            (self.output / START_FILE).unlink(missing_ok=True)
        else:
            trainer = fit.run(module, loaders, last, callbacks, self.on_line)
        seconds = time.monotonic() - started
        epochs = max(1, trainer.current_epoch)
        self.on_line(f"trained {epochs} epochs, {trainer.global_step} steps, {seconds:.1f} s here")
        return self._finish(fit, module, {"seconds": seconds, "epochs": epochs, "steps": trainer.global_step})

    def _starting_point(self) -> Checkpoint:
        stores, names = self.stores, self.split.train
        baseline = Baseline.fit(self.config.network.baseline, self._read(names), stores.spin)
        remainders = (baseline.remainder(calculation) for calculation in self._read(names))
        statistics = fit_statistics(remainders, stores.basis, stores.spin, self.config.network)
        dtype = torch.float64 if self.config.training.precision == "float64" else torch.float32
        model = HamiltonianModel(self.config.network, stores.basis, stores.spin, statistics, dtype)
        arrays, metadata = self._overlap()
        return Checkpoint(
            model, self.config, stores.basis, stores.spin, statistics, arrays, metadata, baseline=baseline
        )

    def _overlap(self) -> tuple[dict[str, Any] | None, dict[str, Any]]:
        first = self.stores.read(self.split.train[0])
        metadata: dict[str, Any] = {
            "train": len(self.split.train),
            "code": first.provenance.code,
            "functional": first.provenance.functional,
            "grid": first.provenance.grid,
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
    if state.get("dtype", str(module.model.dtype)) != str(module.model.dtype):
        raise ConfigError(f"{last} was trained in {state['dtype']}; set training.precision back")
    settings = module.model.settings
    if network != settings.model_dump_json():
        raise ConfigError(f"{last} is of another network: {network}, now {settings.model_dump_json()}; set it back")
    if basis != module.model.basis.hash:
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
