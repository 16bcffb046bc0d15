"""Errors of a trained model on calculations: H and what H is for."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from hamnet.core.calculation import Calculation
from hamnet.core.files import whole_file
from hamnet.data.splits import PARTS, read_split
from hamnet.errors import ConfigError, PhysicsError
from hamnet.nn.checkpoint import Checkpoint, load_checkpoint
from hamnet.nn.dataset import StoreCollection, to_basis
from hamnet.predict.evaluate import evaluate as predict_matrix
from hamnet.train.metrics import (
    HamiltonianErrors,
    ShellPairError,
    SpectrumErrors,
    spectrum_errors,
    spectrum_figures,
)
from hamnet.train.report import draw_error_map

GRID_FLOOR = (
    "labels from OpenMX carry its real-space grid's noise, 0.02 to 0.08 meV in the mean: "
    "no equivariant model can go below that"
)
Line = Callable[[str], None]


@dataclass(frozen=True)
class Evaluation:
    """Errors of a model on some calculations.

    Args:
        figures: JSON-ready, in meV; keys say their unit.
        shell_pairs: errors by species pair and shell pair.
        structures: figures of each structure.
    """

    figures: dict[str, Any]
    shell_pairs: list[ShellPairError]
    structures: list[dict[str, Any]]


def evaluate_calculations(
    checkpoint: Checkpoint, calculations: Mapping[str, Callable[[], Calculation]], device: str = "cpu"
) -> Evaluation:
    """Compare the model with calculations, each read when its turn comes.

    Args:
        checkpoint: the model.
        calculations: name -> function that reads it.
        device: where the network runs.
    """
    if not calculations:
        raise ConfigError("there is nothing to evaluate: this part of the split is empty; choose another with --part")
    model = checkpoint.model.to(device).eval()
    errors = HamiltonianErrors(checkpoint.basis)
    spectra: list[SpectrumErrors] = []
    rows: list[dict[str, Any]] = []
    codes: set[str] = set()
    for name, read in calculations.items():
        calculation = to_basis(read(), checkpoint.basis)
        truth = calculation.hamiltonian
        if truth is None:
            raise PhysicsError(f"{name} has no Hamiltonian to compare with: leave it out of the split")
        known = None if checkpoint.baseline is None else checkpoint.baseline.of(calculation)
        prediction = predict_matrix(model, calculation.structure, truth.pairs, torch.device(device), known)
        own = HamiltonianErrors(checkpoint.basis)
        remove = removes_zero(checkpoint, calculation)
        for collector in (own, errors):
            shift = collector.add(prediction, truth, calculation.overlap, remove)
        spectra.append(spectrum_errors(calculation, prediction, shift))
        rows.append(
            {"name": name, "n_atoms": calculation.structure.n_atoms} | own.figures() | spectrum_figures(spectra[-1:])
        )
        codes.add(calculation.provenance.code.lower())
    figures = errors.figures() | spectrum_figures(spectra) | {"structures": len(rows)}
    figures["grid_floor"] = GRID_FLOOR if any("openmx" in code for code in codes) else ""
    return Evaluation(figures, errors.shell_pairs(), rows)


def removes_zero(checkpoint: Checkpoint, calculation: Calculation) -> bool:
    """Whether the energy zero of this structure is free, by `training.energy_zero`."""
    rule = checkpoint.config.training.energy_zero
    return bool(calculation.structure.pbc.all()) if rule == "auto" else rule == "remove"


def evaluate(
    model: Path,
    stores: Sequence[Path],
    output: Path | None = None,
    split: Path | None = None,
    part: str = "test",
    device: str = "cpu",
) -> Evaluation:
    """Errors of a checkpoint on a store, or on one part of a split of it.

    Args:
        model: checkpoint.
        stores: stores with the truth.
        output: folder for metrics.json and error_map.png; None: nothing is written.
        split: JSON file with the parts; None: all calculations.
        part: train, validation or test; only with a split.
        device: cpu or cuda.

    Raises:
        ConfigError: unknown part or an empty one.
    """
    if part not in PARTS:
        raise ConfigError(f"there is no part {part!r}: choose one of {', '.join(PARTS)}")
    checkpoint = load_checkpoint(model)
    collection = StoreCollection(stores)
    try:
        names = collection.names if split is None else list(getattr(read_split(split, collection.names), part))
        result = evaluate_calculations(checkpoint, readers(collection, names), device)
    finally:
        collection.close()
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        write_evaluation(result, checkpoint, output)
    return result


def readers(stores: StoreCollection, names: Sequence[str]) -> dict[str, Callable[[], Calculation]]:
    """name -> function that reads it."""

    def reader(name: str) -> Callable[[], Calculation]:
        """Binds the name of this turn of the loop."""
        return lambda: stores.read(name)

    return {name: reader(name) for name in names}


def write_evaluation(result: Evaluation, checkpoint: Checkpoint, output: Path) -> None:
    """metrics.json and error_map.png."""
    content = {
        "figures": result.figures,
        "structures": result.structures,
        "shell_pairs": [asdict(entry) for entry in result.shell_pairs],
    }
    with whole_file(output / "metrics.json") as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    draw_error_map(result.shell_pairs, checkpoint.basis, output / "error_map.png")
