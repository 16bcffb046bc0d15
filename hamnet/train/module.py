"""The Lightning module: loss, averaged weights, learning rate by the budget; and what it is driven with."""

from __future__ import annotations

import math
import time
from functools import partial
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from hamnet.config import TrainingConfig
from hamnet.nn.dataset import Batch
from hamnet.nn.graph import GraphBatch
from hamnet.nn.model import HamiltonianModel
from hamnet.train.batches import BatchPlan, Share
from hamnet.train.loss import Mean, difference_and_shift, hamiltonian_loss, kspace_loss
from hamnet.train.occupied_loss import occupied_losses
from hamnet.train.parallel import Team

MILLI = 1000.0
PLATEAU_FACTOR = 0.5
EMA_RAMP = 10.0
"""The average follows the weights closely at first: decay = min(ema_decay, (1 + step) / (10 + step))."""


class HamiltonianModule(pl.LightningModule):  # type: ignore[misc]  # Lightning is untyped to mypy
    """Trains a model; validates and keeps the running average of its weights.

    Everything that a resumed run needs is in its state: weights, average, time spent, plateau.

    Args:
        model: network to train.
        training: learning rate, budget, averaging.
        plan: batches to train on.
        validation_plan: batches to validate on; None: no validation.
    """

    def __init__(
        self,
        model: HamiltonianModel,
        training: TrainingConfig,
        plan: BatchPlan,
        validation_plan: BatchPlan | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.training_config = training
        self.plan, self.validation_plan = plan, validation_plan
        self.team: Team = plan.team
        # built anew, not copied: a copy of e3nn's compiled parts holds constants that a new model does not name
        self.averaged = HamiltonianModel(model.settings, model.basis, model.spin, model.statistics, model.dtype)
        self.averaged.load_state_dict(model.state_dict())
        self.averaged.requires_grad_(False).eval()
        self.spent_before = 0.0
        self.plateau_factor = 1.0
        self.plateau_best = math.inf
        self.plateau_bad = 0
        self._started = self._now()
        self._clock = 0.0
        self._sums: dict[str, Tensor] = {}

    @property
    def seconds_spent(self) -> float:
        """Seconds of training on the clock of the configuration, those before a resume included."""
        return self.spent_before + self._now() - self._started

    def _now(self) -> float:
        return time.process_time() if self.training_config.clock == "process" else time.monotonic()

    @property
    def budget_used(self) -> float:
        """Part of the budget that is used: of the clock or of the epochs, whichever is further."""
        by_epochs: float = self.global_step / max(1, self.training_config.epochs * len(self.plan))
        minutes = self.training_config.max_minutes
        return by_epochs if minutes is None else max(by_epochs, self._clock / (60 * minutes))

    def _read_clock(self) -> None:
        """The first process's clock counts for all: their learning rates must be the same."""
        if self.training_config.max_minutes is not None:
            self._clock = self.team.from_first(self.seconds_spent, self.device)

    def learning_rate(self, used: float) -> float:
        """Learning rate after this part of the budget.

        Cosine: lr * (f + (1 - f) (1 + cos(pi x)) / 2), x from 0 to 1 after a linear warm-up; f = final_fraction.
        """
        training = self.training_config
        warmup = min(1.0, (used + 1e-3) / training.warmup_fraction) if training.warmup_fraction else 1.0
        factor = self.plateau_factor
        if training.schedule == "cosine":
            x = min(1.0, max(0.0, (used - training.warmup_fraction) / (1 - training.warmup_fraction)))
            factor = training.final_fraction + (1 - training.final_fraction) * (1 + math.cos(math.pi * x)) / 2
        return training.learning_rate * warmup * factor

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW over the weights that learn."""
        weights = [weight for weight in self.model.parameters() if weight.requires_grad]
        training = self.training_config
        return torch.optim.AdamW(weights, lr=training.learning_rate, weight_decay=training.weight_decay, fused=True)

    def on_fit_start(self) -> None:
        """Start the clock."""
        self._started = self._now()
        self._read_clock()

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Move a batch."""
        return batch.to(device)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Set the learning rate by the budget."""
        rate = self.learning_rate(self.budget_used)
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = rate

    def predict_values(self, model: HamiltonianModel, graphs: GraphBatch) -> Tensor:
        """(n_values, n_channels) H in eV, in the precision that the configuration asks for."""
        mixed = self.training_config.precision == "bf16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=mixed):
            values: Tensor = model(graphs)
        return values

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Loss of one batch in eV: of the whole batch, whatever the number of processes."""
        share = self.plan.shares(self.plan.epoch)[batch_idx]
        mean = partial(self.team.mean, counted=share.counted)
        prediction = self.predict_values(self.model, batch.graphs)
        difference, shift = difference_and_shift(prediction, batch, self.training_config.energy_zero)
        loss = hamiltonian_loss(difference, shift, mean)
        if self.training_config.kspace_weight:
            loss = loss + self.training_config.kspace_weight * kspace_loss(difference, batch, mean)
        loss = loss + self._occupied_loss(prediction, batch, mean)
        mae = MILLI * mean(difference.detach().abs())
        self._log_step(loss.detach(), mae, share)
        return loss

    def _occupied_loss(self, prediction: Tensor, batch: Batch, mean: Mean) -> Tensor:
        """Weighted losses of the occupied orbitals; 0 where neither is asked for."""
        training = self.training_config
        if not training.energy_weight and not training.commutator_weight:
            return prediction.new_zeros(())
        sizes = torch.as_tensor(self.model.basis.n_orbitals, device=prediction.device)
        energy, commutator = occupied_losses(prediction, batch, sizes, mean)
        return training.energy_weight * energy + training.commutator_weight * commutator

    def on_after_backward(self) -> None:
        """The gradient is that of all processes together."""
        self.team.sum_gradients(self.model.parameters())

    def _log_step(self, loss: Tensor, mae: Tensor, share: Share) -> None:
        """Every process logs the figures of the whole batch."""
        self.log("train_loss_eV", loss, batch_size=share.n_structures)
        self.log("train_mae_meV", mae, prog_bar=True, on_step=False, on_epoch=True, batch_size=share.n_structures)
        self.log("learning_rate", self.trainer.optimizers[0].param_groups[0]["lr"])

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Update the average; stop when the clock has run out."""
        self.update_average()
        self._read_clock()
        minutes = self.training_config.max_minutes
        if minutes is not None and self._clock >= 60 * minutes:
            self.trainer.should_stop = True

    @torch.no_grad()
    def update_average(self) -> None:
        """average <- decay * average + (1 - decay) * weights."""
        step = self.global_step
        decay = min(self.training_config.ema_decay, (1 + step) / (EMA_RAMP + step))
        for mean, weight in zip(self.averaged.parameters(), self.model.parameters(), strict=True):
            mean.lerp_(weight, 1 - decay)

    def on_validation_epoch_start(self) -> None:
        """Empty the sums."""
        self._sums = {
            name: torch.zeros((), dtype=torch.float64, device=self.device) for name in ("absolute", "raw", "n")
        }

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Sum errors of the averaged weights."""
        if self.validation_plan is not None and not self.validation_plan.shares(0)[batch_idx].counted:
            return
        prediction = self.predict_values(self.averaged, batch.graphs)
        difference, _ = difference_and_shift(prediction, batch, self.training_config.energy_zero)
        self._sums["absolute"] += difference.abs().sum()
        self._sums["raw"] += (prediction - batch.target).abs().sum()
        self._sums["n"] += difference.numel()

    def on_validation_epoch_end(self) -> None:
        """Mean over all numbers of the part, over all processes."""
        sums = {name: self.trainer.strategy.reduce(value, reduce_op="sum") for name, value in self._sums.items()}
        mae = MILLI * sums["absolute"] / sums["n"]
        self.log("validation_mae_meV", mae, prog_bar=True)
        self.log("validation_mae_meV_raw", MILLI * sums["raw"] / sums["n"])
        if self.training_config.schedule == "plateau" and not self.trainer.sanity_checking:
            self._follow_plateau(float(mae))

    def on_train_epoch_end(self) -> None:
        """Without a validation part the plateau is that of the training error."""
        if self.training_config.schedule == "plateau" and self.validation_plan is None:
            self._follow_plateau(float(self.trainer.callback_metrics["train_mae_meV"]))

    def _follow_plateau(self, mae: float) -> None:
        if mae < self.plateau_best:
            self.plateau_best, self.plateau_bad = mae, 0
            return
        self.plateau_bad += 1
        if self.plateau_bad >= self.training_config.plateau_patience:
            self.plateau_factor *= PLATEAU_FACTOR
            self.plateau_bad = 0

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the time spent and the plateau to Lightning's file."""
        checkpoint["hamnet"] = {
            "network": self.model.settings.model_dump_json(),
            "basis": self.model.basis.hash,
            "dtype": str(self.model.dtype),
            "seconds_spent": self.seconds_spent,
            "plateau": [self.plateau_factor, self.plateau_best, float(self.plateau_bad)],
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the time spent and the plateau back."""
        state = checkpoint["hamnet"]
        self.spent_before = state["seconds_spent"]
        self.plateau_factor, self.plateau_best = state["plateau"][:2]
        self.plateau_bad = int(state["plateau"][2])
        # worker processes ask for batches before Lightning tells the epoch; last.ckpt shows the end of one
        self.plan.set_epoch(checkpoint["global_step"] // len(self.plan))
