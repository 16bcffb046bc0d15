"""What a training will cost, said before it starts: measured on one batch, nothing is learnt from it."""

from __future__ import annotations

import resource
import time

import torch

from hamnet.config import TrainingConfig
from hamnet.data.splits import Split
from hamnet.nn.dataset import Batch
from hamnet.nn.model import HamiltonianModel
from hamnet.train.loss import difference_and_shift

GIGA = 1e9
TRIALS = 2
"""The first step compiles and allocates; the second is timed."""


def measure_step(model: HamiltonianModel, batch: Batch, training: TrainingConfig) -> tuple[float, float]:
    """(seconds, peak bytes of the process or of the GPU) of one step without an update; the model is left as it was.

    Args:
        model: on the CPU.
        batch: a batch of the training part.
        training: device and energy zero.
    """
    device = torch.device(training.device)
    model.to(device)
    batch = batch.to(device)
    seconds = 0.0
    for _ in range(TRIALS):
        started = time.monotonic()
        difference, _ = difference_and_shift(model(batch.graphs), batch, training.energy_zero)
        loss = difference.abs().mean()  # costs what the whole loss costs
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        float(loss.detach())  # waits for the device
        seconds = time.monotonic() - started
    model.zero_grad(set_to_none=True)
    model.cpu()
    if device.type == "cuda":
        return seconds, float(torch.cuda.max_memory_allocated(device))
    return seconds, 1024.0 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def plan_lines(
    model: HamiltonianModel, batch: Batch, split: Split, training: TrainingConfig, n_steps: int, cached_bytes: float
) -> list[str]:
    """Lines for a person: data, network, memory, time.

    Args:
        model: the untrained network.
        batch: the first batch.
        split: parts.
        training: budget and device.
        n_steps: steps in one epoch.
        cached_bytes: what all samples of the training and validation parts take in memory.
    """
    seconds, peak = measure_step(model, batch, training)
    epoch = seconds * n_steps
    weights = sum(p.numel() for p in model.parameters() if p.requires_grad)
    total = f", all {training.epochs} about {_duration(epoch * training.epochs)}"
    if training.max_minutes is not None and epoch * training.epochs > 60 * training.max_minutes:
        total = f"; stops after {training.max_minutes:g} minutes, about {60 * training.max_minutes / epoch:.0f} epochs"
    place = "GPU memory" if training.device == "cuda" else "memory of the process"
    return [
        f"structures: {len(split.train)} train, {len(split.validation)} validation, {len(split.test)} test; "
        f"a batch: {batch.graphs.n_structures} structures, {batch.graphs.n_atoms} atoms, "
        f"{batch.graphs.n_pairs} pairs, {batch.target.numel()} numbers",
        *(f"  {species.describe()}" for species in model.basis.species),
        f"network: {weights} parameters, messages within {model.statistics.message_cutoff:.2f} A, "
        f"spin {model.spin.value}; {training.device} with {torch.get_num_threads()} threads",
        f"memory: about {(peak + cached_bytes) / GIGA:.2f} GB ({place}: {peak / GIGA:.2f} GB in a first step; "
        f"samples kept: {cached_bytes / GIGA:.2f} GB)",
        f"time: a step {seconds:.3f} s, an epoch of {n_steps} steps about {_duration(epoch)}{total}; "
        f"output in {training.output}",
    ]


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
