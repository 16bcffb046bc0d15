"""The energy zero in loss and metrics, for every spin layout."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from training_cases import model_and_batch, small_store

from hamnet.core.spin import Spin
from hamnet.nn.dataset import HamiltonianDataset, StoreCollection, collate
from hamnet.train.loss import difference_and_shift, hamiltonian_loss, kspace_loss


@pytest.mark.parametrize("spin", list(Spin))
def test_a_moved_energy_zero_is_found_and_removed(spin: Spin, tmp_path: Path) -> None:
    model, batch = model_and_batch(small_store(tmp_path / "data.h5", spin, 2))
    prediction = model(batch.graphs).detach()
    difference, shift = difference_and_shift(prediction, batch, "auto")
    moved = replace(batch, target=batch.target + 0.7 * batch.overlap)
    other, other_shift = difference_and_shift(prediction, moved, "auto")
    # float64 sums of some thousand numbers of order one
    assert (difference - other).abs().max() < 1e-12
    assert (shift - other_shift - 0.7).abs().max() < 1e-12


def test_the_zero_is_kept_where_it_is_physical(tmp_path: Path) -> None:
    model, batch = model_and_batch(small_store(tmp_path / "data.h5", n=2))
    prediction = model(batch.graphs).detach()
    molecules = replace(batch, graphs=replace(batch.graphs, periodic=torch.zeros(2, dtype=torch.bool)))
    for data, rule in ((batch, "keep"), (molecules, "auto")):
        difference, shift = difference_and_shift(prediction, data, rule)
        assert torch.equal(difference, prediction - data.target)
        assert not shift.any()


@pytest.mark.parametrize("spin", list(Spin))
def test_a_step_down_the_gradient_lowers_the_loss(spin: Spin, tmp_path: Path) -> None:
    model, batch = model_and_batch(small_store(tmp_path / "data.h5", spin, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)

    def loss() -> torch.Tensor:
        return hamiltonian_loss(*difference_and_shift(model(batch.graphs), batch, "auto"))

    first = loss()
    first.backward()
    optimizer.step()
    assert loss() < first.detach()


def test_no_error_no_loss_and_finite_gradient() -> None:
    difference = torch.zeros(4, 1, dtype=torch.float64, requires_grad=True)
    value = hamiltonian_loss(difference, torch.zeros(1, dtype=torch.float64))
    value.backward()
    # TINY under the root leaves 1e-12 eV
    assert float(value.detach()) < 1e-11
    assert torch.isfinite(difference.grad).all()


@pytest.mark.parametrize("spin", list(Spin))
def test_a_moved_zero_costs_nothing_among_states(spin: Spin, tmp_path: Path) -> None:
    stores = StoreCollection([small_store(tmp_path / "data.h5", spin, 2)])
    data = HamiltonianDataset(stores, stores.names, stores.basis, 3.0, kspace_points=2)
    batch = collate([data[0], data[1]])
    stores.close()
    shifted, _ = difference_and_shift(batch.target + 0.4 * batch.overlap, batch, "auto")
    kept, _ = difference_and_shift(batch.target + 0.4 * batch.overlap, batch, "keep")
    # TINY under the root leaves 1e-12 eV, rounding 1e-13
    assert float(kspace_loss(shifted, batch)) < 1e-11
    # where the zero is kept, mu S among S-orthonormal states is mu: a weighted mean with weights of at most one
    assert 0.01 < float(kspace_loss(kept, batch)) <= 0.4 + 1e-9


def test_structures_without_states_count_as_zero(tmp_path: Path) -> None:
    stores = StoreCollection([small_store(tmp_path / "data.h5", n=2)])
    data = HamiltonianDataset(stores, stores.names, stores.basis, 3.0, kspace_points=2)
    with_states = data[0]
    batch = collate([replace(with_states, states=None), replace(with_states, states=None)])
    stores.close()
    assert float(kspace_loss(batch.target, batch)) < 1e-11
