"""Errors of a trained model on calculations: H and what H is for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from hamnet.core.calculation import Calculation, Provenance
from hamnet.core.files import write_json
from hamnet.core.spin import Spin
from hamnet.data.splits import PARTS
from hamnet.errors import ConfigError, PhysicsError
from hamnet.nn.checkpoint import Checkpoint, as_spinor, load_checkpoint
from hamnet.nn.dataset import StoreCollection, to_basis
from hamnet.predict.ensemble import model_file
from hamnet.predict.evaluate import evaluate as predict_matrix
from hamnet.predict.predictor import Predictor
from hamnet.train.label_noise import label_noise
from hamnet.train.metrics import (
    MILLI,
    HamiltonianErrors,
    ShellPairError,
    SpectrumErrors,
    spectrum_errors,
    spectrum_figures,
)
from hamnet.train.molecule_metrics import MICROHARTREE, MoleculeErrors, is_closed_shell
from hamnet.train.named_split import named_split
from hamnet.train.report import draw_error_map
from hamnet.train.scf_metrics import add_scf_figures

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
        checkpoint: the model; a collinear one is compared with spinors as spinors (`as_spinor`).
        calculations: name -> function that reads it.
        device: where the network runs.
    """
    if not calculations:
        raise ConfigError("there is nothing to evaluate: this part of the split is empty; choose another with --part")
    first = next(iter(calculations.values()))()
    if first.spin is Spin.SPINOR and checkpoint.spin is Spin.COLLINEAR:
        checkpoint = as_spinor(checkpoint)
    if first.spin is not checkpoint.spin:
        raise PhysicsError(
            f"the data have spin layout {first.spin.value}, the model's H {checkpoint.spin.value}: evaluate on data of "
            "the model's kind"
        )
    model = checkpoint.model.to(device).eval()
    errors = HamiltonianErrors(checkpoint.basis)
    spectra: list[SpectrumErrors] = []
    rows: list[dict[str, Any]] = []
    molecules = MoleculeErrors()
    origins: dict[Provenance, None] = {}
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
        row = {"name": name, "n_atoms": calculation.structure.n_atoms} | own.figures()
        closed = is_closed_shell(calculation)
        if closed:
            molecules.add(name, calculation, prediction)
        else:
            spectra.append(spectrum_errors(calculation, prediction, shift))
        rows.append(row | spectrum_figures([] if closed else spectra[-1:]))
        origins[replace(calculation.provenance, source="", sha256="")] = None
    figures = errors.figures() | spectrum_figures(spectra) | {"structures": len(rows)}
    figures |= molecules.figures()
    _add_molecules(figures, rows, molecules)
    figures["label_noise_uEh"], figures["label_noise"] = label_noise(origins, max(row["n_atoms"] for row in rows))
    return Evaluation(figures, errors.shell_pairs(), rows)


def _add_molecules(figures: dict[str, Any], rows: list[dict[str, Any]], molecules: MoleculeErrors) -> None:
    """Figures of closed-shell molecules, beside those that every structure has."""
    molecules.finish()
    for row in rows:
        own = molecules.rows.get(row["name"])
        if own is None:
            continue
        row |= own
        if own["occupied_mae_uEh"] is None:
            row["notes"] = [molecules.notes[row["name"]]]
        else:
            row["occupied_mae_meV"] = MILLI * own["occupied_mae_uEh"] / MICROHARTREE
    figures["notes"] = sorted({*figures["notes"], *molecules.notes.values()})
    level = molecules.occupied_mae()
    if level is not None:
        figures["occupied_mae_meV"] = MILLI * level


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
    scf: int = 0,
) -> Evaluation:
    """Errors of a checkpoint on a store, or on one part of a split of it.

    Args:
        model: checkpoint, or the folder of a run.
        stores: stores with the truth.
        output: folder for metrics.json and error_map.png; None: nothing is written.
        split: JSON file with the parts; None: all calculations.
        part: train, validation or test; only with a split.
        device: cpu or cuda.
        scf: so many molecules, evenly spaced, also get energy, forces and SCF cycles (`hamnet.train.scf_metrics`).

    Raises:
        ConfigError: unknown part or an empty one.
    """
    if part not in PARTS:
        raise ConfigError(f"there is no part {part!r}: choose one of {', '.join(PARTS)}")
    checkpoint = load_checkpoint(model_file(model))
    collection = StoreCollection(stores)
    try:
        names = (
            collection.names if split is None else list(getattr(named_split(split, collection, to_train=False), part))
        )
        calculations = readers(collection, names)
        result = evaluate_calculations(checkpoint, calculations, device)
        _write_to(output, result, checkpoint)
        if scf:
            add_scf_figures(result.figures, result.structures, Predictor(checkpoint, device), calculations, scf)
            _write_to(output, result, checkpoint)
    finally:
        collection.close()
    return result


def _write_to(output: Path | None, result: Evaluation, checkpoint: Checkpoint) -> None:
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        write_evaluation(result, checkpoint, output)


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
    write_json(output / "metrics.json", content)
    draw_error_map(result.shell_pairs, checkpoint.basis, output / "error_map.png")
