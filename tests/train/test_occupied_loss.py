"""Losses of the occupied orbitals: what they are at the target, what they do not see, and their gradients."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from training_cases import model_and_batch, small_store
from unlabelled_cases import labelled, labelled_store, water_model, waters

from hamnet.errors import PhysicsError
from hamnet.nn.checkpoint import load_checkpoint
from hamnet.nn.dataset import Batch, collate, make_sample
from hamnet.train.occupied_loss import dense_matrices, occupied_losses
from hamnet_preprocess.pyscf_fock import dense_of


def water_batch(count: int = 2) -> tuple[Batch, Tensor]:
    """A batch of waters with their SCF's H, and the sizes of the species."""
    calculations = [labelled(atoms) for _, atoms in waters(count)]
    basis = calculations[0].basis
    batch = collate([make_sample(f"w{k}", c, basis, 3.0) for k, c in enumerate(calculations)])
    return batch, torch.as_tensor(basis.n_orbitals)


def hermitian_noise(batch: Batch, sizes: Tensor, seed: int) -> Tensor:
    """(n_values, 1) eV, the same for a block and its reverse."""
    noise = torch.from_numpy(np.random.default_rng(seed).normal(size=(len(batch.target), 1)))
    where = torch.arange(len(noise), dtype=torch.float64)
    for dense in dense_matrices(batch.graphs, sizes, where):
        lower, upper = (triangle(dense).long() for triangle in (torch.tril, torch.triu))
        noise[upper.mT[lower.bool()], 0] = noise[lower[lower.bool()], 0]
    return noise


def test_dense_matrices_are_those_of_the_blocks() -> None:
    batch, sizes = water_batch(3)
    for dense, (_, atoms) in zip(dense_matrices(batch.graphs, sizes, batch.target[:, 0]), waters(3), strict=True):
        np.testing.assert_array_equal(dense.numpy(), dense_of(labelled(atoms).hamiltonian))


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**31), size=st.floats(1e-3, 5.0))
def test_zero_at_the_target_and_positive_elsewhere(seed: int, size: float) -> None:
    batch, sizes = water_batch()
    energy, commutator = occupied_losses(batch.target, batch, sizes)
    # sums of some hundred eV in double precision
    assert abs(float(energy)) < 1e-10
    assert float(commutator) < 1e-8
    moved = batch.target + size * hermitian_noise(batch, sizes, seed)
    energy, commutator = occupied_losses(moved, batch, sizes)
    assert float(energy) > 0
    assert float(commutator) > 0


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**31), mu=st.floats(-20, 20))
def test_the_energy_zero_is_not_seen(seed: int, mu: float) -> None:
    batch, sizes = water_batch()
    moved = batch.target + hermitian_noise(batch, sizes, seed)
    one = occupied_losses(moved, batch, sizes)
    two = occupied_losses(moved + mu * batch.overlap, batch, sizes)
    # rounding of 20 eV on top of 500
    torch.testing.assert_close(two, one, rtol=1e-9, atol=1e-9)


def test_gradients_are_those_of_finite_differences() -> None:
    batch, sizes = water_batch()
    start = (batch.target + hermitian_noise(batch, sizes, 1)).requires_grad_()
    direction = hermitian_noise(batch, sizes, 2)
    for which in (0, 1):
        (gradient,) = torch.autograd.grad(occupied_losses(start, batch, sizes)[which], start)
        step = 1e-4
        moved = [float(occupied_losses(start.detach() + k * step * direction, batch, sizes)[which]) for k in (1, -1)]
        slope = (moved[0] - moved[1]) / (2 * step)
        # 1e-6: second differences of 1e-4 steps
        assert float((gradient * direction).sum()) == pytest.approx(slope, rel=1e-6, abs=1e-6)


def test_what_is_no_closed_shell_molecule_is_refused(tmp_path: Path) -> None:
    model, batch = model_and_batch(small_store(tmp_path / "data.h5", n=2))
    assert batch.occupied == (0, 0)
    with pytest.raises(PhysicsError, match="closed-shell molecules"):
        occupied_losses(model(batch.graphs), batch, torch.as_tensor(model.basis.n_orbitals))
    water, sizes = water_batch()
    assert water.occupied == (5, 5)
    with pytest.raises(PhysicsError, match="closed-shell molecules"):
        occupied_losses(water.target, replace(water, occupied=(5, 0)), sizes)


def test_training_minds_the_weights(tmp_path: Path) -> None:
    labelled_store(tmp_path / "water.h5")
    plain = load_checkpoint(water_model(tmp_path, epochs=1, output=str(tmp_path / "plain")))
    weighted = load_checkpoint(
        water_model(tmp_path, epochs=1, output=str(tmp_path / "weighted"), energy_weight=1.0, commutator_weight=1.0)
    )
    one, two = plain.model.state_dict(), weighted.model.state_dict()
    assert any(not torch.equal(one[name], two[name]) for name in one)
    assert all(bool(torch.isfinite(value).all()) for value in two.values())
