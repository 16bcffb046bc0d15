"""Bands at validations: a right model has no error, a moved zero none either, and the plot follows the log."""

from pathlib import Path

import numpy as np
import pytest
import torch
from training_cases import model_and_batch, small_store

from hamnet.core.spin import Spin
from hamnet.nn.dataset import StoreCollection
from hamnet.train.band_monitor import BandMonitor, draw_band_scatter, read_scatter


def test_the_figures_are_those_of_the_model_on_its_structures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = small_store(tmp_path / "data.h5", Spin.NONE, 2)
    model, _ = model_and_batch(store)
    stores = StoreCollection([store])
    calculations = [stores.read(name) for name in stores.names]
    stores.close()
    monitor = BandMonitor(calculations, None, "auto")
    wrong = monitor.figures(model, torch.device("cpu"))
    assert wrong["band_rmse_meV"] is not None
    assert wrong["band_rmse_meV"] > 1  # random weights
    assert wrong["occupied_mae_meV"] is None  # crystals have bands
    truths = iter(calculations)

    def right(*_: object) -> object:
        """H of the truth plus a moved zero."""
        truth = next(truths)
        assert truth.hamiltonian is not None
        overlap = truth.overlap.on_pairs(truth.hamiltonian.pairs)
        return truth.hamiltonian.with_values(truth.hamiltonian.values + 0.2 * overlap.values)

    monkeypatch.setattr("hamnet.train.band_monitor.evaluate", right)
    exact = monitor.figures(model, torch.device("cpu"))
    assert exact["band_rmse_meV"] == pytest.approx(0, abs=1e-8)


def test_large_structures_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = small_store(tmp_path / "data.h5", Spin.NONE, 2)
    model, _ = model_and_batch(store)
    stores = StoreCollection([store])
    monkeypatch.setattr("hamnet.train.band_monitor.LARGEST", 3)
    monitor = BandMonitor(map(stores.read, stores.names), None, "auto")
    stores.close()
    assert monitor.figures(model, torch.device("cpu"))["band_rmse_meV"] is None


def test_the_plot_needs_both_errors_at_one_step(tmp_path: Path) -> None:
    log = tmp_path / "metrics.csv"
    log.write_text(
        "epoch,step,validation_band_rmse_meV,validation_mae_meV\n0,9,,\n0,10,30.5,4.5\n1,20,20.5,3.5\n2,30,,3.0\n"
    )
    np.testing.assert_array_equal(read_scatter(log), [(4.5, 30.5), (3.5, 20.5)])
    assert draw_band_scatter(log, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 1000
    log.write_text("epoch,step,validation_mae_meV\n0,9,4.0\n")
    assert not draw_band_scatter(log, tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()
