"""A spinor model that starts from a spinless one predicts the spinless H, until it learns what spin adds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from factories import lawful_calculation
from training_cases import small_config

from hamnet.core.blocks import BlockMatrix
from hamnet.core.calculation import Calculation
from hamnet.core.spin import Spin, spinor_to_pauli
from hamnet.data.store_writer import write_store
from hamnet.nn.checkpoint import load_checkpoint
from hamnet.nn.prior import matrix_channels
from hamnet.predict.predictor import Predictor
from hamnet.train.run import train
from hamnet.train.spin_start import can_widen


def scalar_part(calculation: Calculation) -> Calculation:
    """A_0 alone, spinless."""
    h = calculation.hamiltonian
    values = np.ascontiguousarray(matrix_channels(h)[:, 0])
    return replace(calculation, hamiltonian=BlockMatrix.from_values(h.pairs, h.basis, h.species, Spin.NONE, values))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A spinless run, and stores with spin that share its atoms."""
    folder = tmp_path_factory.mktemp("spin_start")
    for spin in (Spin.COLLINEAR, Spin.SPINOR):
        write_store(folder / f"{spin.value}.h5", [(f"s{k}", lawful_calculation(k, spin)) for k in range(5)])
    spinors = [(f"s{k}", scalar_part(lawful_calculation(k, Spin.SPINOR))) for k in range(5)]
    write_store(folder / "none.h5", spinors)
    train(small_config(folder / "none.h5", folder / "none", epochs=2))
    return {spin.value: folder / f"{spin.value}.h5" for spin in Spin} | {"run": folder / "none" / "model.ckpt"}


@pytest.mark.parametrize("spin", [Spin.COLLINEAR, Spin.SPINOR])
def test_starts_as_the_spinless_model(runs: dict[str, Path], tmp_path: Path, spin: Spin) -> None:
    lines: list[str] = []
    train(small_config(runs[spin.value], tmp_path / "run", epochs=1), on_line=lines.append, source=runs["run"])
    assert any("starts as the none model" in line for line in lines)
    source = load_checkpoint(runs["run"])
    start = load_checkpoint(tmp_path / "run" / "start.ckpt")
    assert start.spin is spin
    assert start.model.magnetic
    structure = replace(lawful_calculation(9, spin).structure, moments=None)
    before, after = (Predictor(c).predict(structure) for c in (source, start))
    if spin is Spin.SPINOR:
        parts = [(spinor_to_pauli(group.blocks), group.pairs) for group in after.groups()]
        found = np.concatenate([part[:, 0].ravel() for part, _ in parts])
        # on site stands the mean l.s term of the data
        assert not any(part[~after.pairs.on_site[pairs], 1:].any() for part, pairs in parts)
    else:
        found = np.concatenate([group.blocks[:, 0].ravel() for group in after.groups()])
    # the network computes in float32; sums of equal terms in another order
    np.testing.assert_allclose(found, before.values, atol=1e-5 * np.abs(before.values).max())


def test_what_has_more_is_not_widened(runs: dict[str, Path]) -> None:
    source = load_checkpoint(runs["run"]).model
    assert not can_widen(source, Spin.NONE, False)
    assert can_widen(source, Spin.SPINOR, False)
