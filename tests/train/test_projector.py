"""Gradients against finite differences, and what must hold for every H: invariance, degeneracy, stationarity."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from unlabelled_cases import labelled, waters

from hamnet.errors import ConvergenceError, PhysicsError
from hamnet.train.free_energy import descend
from hamnet.train.projector import commutator, fock_energy, occupied_projector, orbitals
from hamnet_preprocess.pyscf_fock import FockBuilder, Method, dense_of

SIZES = {"size": st.integers(2, 7), "seed": st.integers(0, 2**31), "data": st.data()}


def problem(size: int, seed: int) -> tuple[Tensor, Tensor]:
    """Random H (eV) and positive definite S."""
    rng = np.random.default_rng(seed)
    h, s = rng.normal(size=(2, size, size))
    return torch.from_numpy(5 * (h + h.T)), torch.from_numpy(np.eye(size) + 0.1 * s @ s.T)


def water() -> tuple[Tensor, Tensor, FockBuilder]:
    """H (converged) and S of one water, and its Fock builder."""
    calculation = labelled(waters(1)[0][1])
    builder = FockBuilder(calculation.structure, calculation.basis, Method("hf"))
    return torch.from_numpy(dense_of(calculation.hamiltonian)), torch.from_numpy(builder.overlap), builder


def build_with(builder: FockBuilder):  # type: ignore[no-untyped-def]
    """The builder as the descent takes it."""

    def build(density: Tensor) -> tuple[float, Tensor]:
        """One Fock build."""
        result = builder.build(density.numpy())
        return result.energy, torch.from_numpy(result.fock)

    return build


@settings(max_examples=20, deadline=None)
@given(**SIZES)
def test_gradient_of_the_projector(size: int, seed: int, data: st.DataObject) -> None:
    h, s = problem(size, seed)
    occupied = data.draw(st.integers(1, size - 1))
    energies, _ = orbitals(h, s)
    if float(energies[occupied] - energies[occupied - 1]) < 0.2:
        return  # near a crossing the function bends more than finite differences of 1e-6 can follow
    h.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: occupied_projector(x, s, occupied), (h,), eps=1e-6, atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(mu=st.floats(-50, 50), **SIZES)
def test_projector_does_not_know_the_energy_zero(mu: float, size: int, seed: int, data: st.DataObject) -> None:
    h, s = problem(size, seed)
    occupied = data.draw(st.integers(1, size - 1))
    energies, _ = orbitals(h, s)
    weight = torch.from_numpy(np.random.default_rng(seed).normal(size=(size, size)))
    results = []
    for matrix in (h, h + mu * s):
        matrix = matrix.clone().requires_grad_()
        projector = occupied_projector(matrix, s, occupied)
        (gradient,) = torch.autograd.grad((weight * projector).sum(), matrix)
        results.append((projector.detach(), gradient))
    # rounding of the 50 eV shift, divided by the gap once in P and twice in its gradient
    gap = max(float(energies[occupied] - energies[occupied - 1]), 1e-3)
    torch.testing.assert_close(results[1][0], results[0][0], rtol=0, atol=1e-11 / gap)
    torch.testing.assert_close(results[1][1], results[0][1], rtol=0, atol=1e-11 / gap**2)


@settings(max_examples=20, deadline=None)
@given(**SIZES)
def test_projector_is_one(size: int, seed: int, data: st.DataObject) -> None:
    h, s = problem(size, seed)
    occupied = data.draw(st.integers(1, size))
    p = occupied_projector(h, s, occupied)
    # orthonormality of n <= 7 states in double precision
    torch.testing.assert_close(p @ s @ p, p, rtol=0, atol=1e-12)
    assert float((p * s).sum()) == pytest.approx(occupied, abs=1e-12)
    torch.testing.assert_close(commutator(h, p, s), torch.zeros_like(h), rtol=0, atol=1e-10)


def test_degenerate_orbitals_give_numbers() -> None:
    """Torch's own eigh gives NaN here; three equal occupied levels and three equal empty ones."""
    h = torch.diag(torch.tensor([-1.0, -1.0, -1.0, 2.0, 2.0, 2.0], dtype=torch.float64)).requires_grad_()
    weight = torch.from_numpy(np.random.default_rng(0).normal(size=(6, 6)))
    one = torch.eye(6, dtype=torch.float64)
    (gradient,) = torch.autograd.grad((weight * occupied_projector(h, one, 3)).sum(), h)
    assert torch.isfinite(gradient).all()
    assert torch.autograd.gradcheck(lambda x: occupied_projector(x, one, 3), (h,), eps=1e-6, atol=1e-6)
    naive = torch.linalg.eigh(h)[1][:, :3]
    (bad,) = torch.autograd.grad((weight * (naive @ naive.mT)).sum(), h)
    assert not torch.isfinite(bad).all()


def test_a_closed_gap_gives_numbers() -> None:
    h = torch.zeros(4, 4, dtype=torch.float64, requires_grad=True)
    one = torch.eye(4, dtype=torch.float64)
    weight = torch.arange(16, dtype=torch.float64).reshape(4, 4)
    (gradient,) = torch.autograd.grad((weight * occupied_projector(h, one, 2)).sum(), h)
    assert torch.isfinite(gradient).all()


def test_batches_are_what_their_members_are() -> None:
    members = [problem(5, seed) for seed in range(3)]
    together = occupied_projector(torch.stack([h for h, _ in members]), torch.stack([s for _, s in members]), 2)
    for projector, (h, s) in zip(together, members, strict=True):
        torch.testing.assert_close(projector, occupied_projector(h, s, 2), rtol=0, atol=1e-13)


@pytest.mark.parametrize("occupied", [0, 6])
def test_impossible_fillings_are_refused(occupied: int) -> None:
    h, s = problem(5, 0)
    with pytest.raises(PhysicsError, match="occupied orbitals of 5"):
        occupied_projector(h, s, occupied)


def test_bad_matrices_are_refused() -> None:
    h, s = problem(5, 0)
    with pytest.raises(PhysicsError, match="an S that is not"):
        occupied_projector(h, -s, 2)
    with pytest.raises(PhysicsError, match="an H that is not"):
        occupied_projector(h * float("nan"), s, 2)


def test_energy_by_one_fock_build_has_the_gradient_of_finite_differences() -> None:
    """Through H: dE/dH of E[2 P(H)], with no second Fock build."""
    h, s, builder = water()
    build = build_with(builder)
    rng = np.random.default_rng(1)
    noise, direction = (torch.from_numpy(m + m.T) for m in rng.normal(size=(2, *h.shape)))
    start = (h + noise).requires_grad_()
    before = builder.builds
    energy, fock = fock_energy(2 * occupied_projector(start, s, 5), build)
    (gradient,) = torch.autograd.grad(energy, start)
    assert builder.builds == before + 1
    assert not fock.requires_grad
    step = 1e-4
    moved = [
        float(fock_energy(2 * occupied_projector(start.detach() + k * step * direction, s, 5), build)[0])
        for k in (1, -1)
    ]
    slope = (moved[0] - moved[1]) / (2 * step)
    # 1e-6: second differences of 1e-4 steps, and energies of 2000 eV in double precision
    assert float((gradient * direction).sum()) == pytest.approx(slope, rel=1e-6, abs=1e-6)


def test_the_scf_state_is_stationary() -> None:
    h, s, builder = water()
    start = h.clone().requires_grad_()
    energy, fock = fock_energy(2 * occupied_projector(start, s, 5), build_with(builder))
    (gradient,) = torch.autograd.grad(energy, start)
    # the SCF was converged to 1e-12 Hartree, F to the root of it
    assert float(gradient.abs().max()) < 1e-4
    torch.testing.assert_close(fock, h, rtol=0, atol=1e-4)


def test_free_hamiltonian_reaches_the_scf_energy_by_the_energy_alone() -> None:
    calculation = labelled(waters(1)[0][1])
    _, s, builder = water()
    start = torch.from_numpy(dense_of(calculation.reference_hamiltonian))
    result = descend(start, s, 5, build_with(builder), tolerance=1e-6)
    assert builder.builds == len(result.energies) <= 15
    # 1e-6 Hartree is 2.7e-5 eV; the tolerance is that of one step
    assert result.energies[-1] == pytest.approx(calculation.energy, abs=2.7e-5)
    assert min(result.energies) > calculation.energy - 1e-6
    # first order in the density's error, whose square is the energy's: 1e-6 of 10 eV
    torch.testing.assert_close(result.fock, torch.from_numpy(dense_of(calculation.hamiltonian)), rtol=0, atol=2e-2)


def test_descent_says_when_it_fails() -> None:
    calculation = labelled(waters(1)[0][1])
    _, s, builder = water()
    start = torch.from_numpy(dense_of(calculation.reference_hamiltonian))
    with pytest.raises(ConvergenceError, match="2 Fock builds"):
        descend(start, s, 5, build_with(builder), most=2)
