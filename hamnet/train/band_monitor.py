"""Bands during training: a small error of H does not yet mean good bands, so a few structures are diagonalised.

S is nearly singular in most bases, and amplifies errors of H; see `docs/training.md`.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import lightning.pytorch as pl
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from hamnet.core.calculation import Calculation
from hamnet.nn.model import HamiltonianModel
from hamnet.nn.prior import Baseline
from hamnet.predict.evaluate import evaluate
from hamnet.train.metrics import HamiltonianErrors, Spectrum, spectrum_figures
from hamnet.train.module import HamiltonianModule
from hamnet.train.report import read_log

LARGEST = 400
"""Orbitals (spin counted) above which a structure is not diagonalised at every validation."""
MATRIX_COLUMN, BAND_COLUMN = "validation_mae_meV", "validation_band_rmse_meV"


class BandMonitor(pl.Callback):  # type: ignore[misc]  # Lightning is untyped to mypy
    """Logs the error of bands near the Fermi level (molecules: of occupied levels) at each validation.

    Args:
        calculations: structures to diagonalise, with species counted as the model does; those with more than `LARGEST`
            orbitals are left out.
        baseline: what is added to the network's output.
        energy_zero: `training.energy_zero`.
    """

    def __init__(self, calculations: Iterable[Calculation], baseline: Baseline | None, energy_zero: str) -> None:
        super().__init__()
        self.energy_zero = energy_zero
        small = [c for c in calculations if c.hamiltonian is not None and c.hamiltonian.n_orbitals <= LARGEST]
        self._cases = [(Spectrum(c), None if baseline is None else baseline.of(c)) for c in small]

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Diagonalise with the averaged weights and log."""
        if isinstance(pl_module, HamiltonianModule) and self._cases and not trainer.sanity_checking:
            figures = self.figures(pl_module.averaged, pl_module.device)
            for source, name in (("band_rmse_meV", BAND_COLUMN), ("occupied_mae_meV", "validation_occupied_mae_meV")):
                if figures[source] is not None:
                    pl_module.log(name, figures[source], prog_bar=True)

    def figures(self, model: HamiltonianModel, device: torch.device) -> dict[str, float | None]:
        """band_rmse_meV and occupied_mae_meV over all structures; None where there are none."""
        errors = []
        for spectrum, baseline in self._cases:
            truth = spectrum.calculation
            if truth.hamiltonian is None:
                continue
            prediction = evaluate(model, truth.structure, truth.hamiltonian.pairs, device, baseline)
            free = bool(truth.structure.pbc.all()) if self.energy_zero == "auto" else self.energy_zero == "remove"
            shift = HamiltonianErrors(truth.basis).add(prediction, truth.hamiltonian, truth.overlap, free)
            errors.append(spectrum.errors(prediction, shift))
        found = spectrum_figures(errors)
        return {key: found[key] for key in ("band_rmse_meV", "occupied_mae_meV")}


def read_scatter(log: Path) -> list[tuple[float, float]]:
    """(error of H, error of bands), both meV, of every validation in Lightning's CSV log that has both."""
    columns = read_log(log)
    bands = dict(columns.get(BAND_COLUMN, []))
    return [(value, bands[step]) for step, value in columns.get(MATRIX_COLUMN, []) if step in bands]


def draw_band_scatter(log: Path, target: Path) -> bool:
    """Plot the error of bands against the error of H over the validations; False where the log has no such pairs."""
    points = read_scatter(log)
    if not points:
        return False
    figure = Figure(figsize=(5, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    x, y = zip(*points, strict=True)
    marks = axes.scatter(x, y, c=range(len(points)), s=12, cmap="viridis")
    axes.set(xscale="log", yscale="log", xlabel="MAE of H (meV)", ylabel="rms of bands within 2 eV of $E_F$ (meV)")
    figure.colorbar(marks, label="validation")
    figure.savefig(target, dpi=120)
    return True
