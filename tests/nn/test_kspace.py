"""Errors among eigenstates: first order of eigenvalues, the energy zero, gauge, every spin layout."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from factories import lawful_calculation
from scipy.linalg import eigh

from hamnet.core.bloch import BlochSum
from hamnet.core.calculation import Calculation
from hamnet.core.spin import Spin
from hamnet.nn.dataset import make_sample, overlap_like
from hamnet.nn.kspace import LARGEST_EIGENPROBLEM, KSpaceStates, kspace_states
from hamnet.nn.prior import matrix_channels, matrix_from_channels


def case(spin: Spin, seed: int = 3) -> tuple[Calculation, KSpaceStates]:
    """A calculation without what time reversal forbids (the network's channels hold no such part), and its states."""
    calculation = lawful_calculation(seed, spin)
    matrix = calculation.hamiltonian
    assert matrix is not None
    lawful = matrix_from_channels(matrix_channels(matrix), matrix)
    calculation = replace(calculation, hamiltonian=lawful)
    states = kspace_states("name", calculation, 2)
    assert states is not None
    return calculation, states


def channels(calculation: Calculation, seed: int) -> torch.Tensor:
    """A random hermitian change of H."""
    assert calculation.hamiltonian is not None
    values = np.random.default_rng(seed).normal(size=len(calculation.hamiltonian.values))
    change = calculation.hamiltonian.with_values(values.astype(calculation.spin.dtype)).symmetrised()
    return torch.from_numpy(matrix_channels(change).copy())


@pytest.mark.parametrize("spin", list(Spin))
def test_the_reference_itself_is_diagonal(spin: Spin) -> None:
    calculation, states = case(spin)
    assert calculation.hamiltonian is not None
    matrices = states.matrices(torch.from_numpy(matrix_channels(calculation.hamiltonian)))
    kept = (states.weights > 0).to(matrices.dtype)
    matrices = matrices * kept[:, :, None] * kept[:, None, :]
    off = matrices - torch.diag_embed(torch.diagonal(matrices, dim1=1, dim2=2))
    # eigh of well-conditioned 16-orbital matrices of order one: rounding
    assert off.abs().max() < 1e-11
    assert torch.diagonal(matrices, dim1=1, dim2=2).imag.abs().max() < 1e-11


@pytest.mark.parametrize("spin", list(Spin))
def test_the_diagonal_is_the_first_order_change_of_eigenvalues(spin: Spin) -> None:
    calculation, states = case(spin)
    assert calculation.hamiltonian is not None
    change = channels(calculation, 9)
    step = 1e-6
    moved = {}
    for sign in (-1, 1):
        values = matrix_channels(calculation.hamiltonian) + sign * step * change.numpy()
        sums = BlochSum(matrix_from_channels(values, calculation.hamiltonian)), BlochSum(calculation.overlap)
        moved[sign] = sums
    phase = states.phases
    for k in range(len(phase)):
        # the k-points are random but reproducible: the same generator gives them here
        slopes = _slopes(moved, _kpoint(k, calculation), step, spin)
        found = torch.diagonal(states.matrices(change)[k]).real.numpy()[states.weights[k].numpy() > 0]
        for slope in found:
            # central differences: second order in the step over a level spacing, rounding over the step 1e-9
            assert np.abs(slopes - slope).min() < 1e-5


def _kpoint(k: int, calculation: Calculation) -> np.ndarray:
    import zlib

    points = np.random.default_rng(zlib.crc32(b"name")).random((2, 3)) * calculation.structure.pbc
    return np.asarray(points[k])


def _slopes(sums: dict[int, tuple[BlochSum, BlochSum]], kpoint: np.ndarray, step: float, spin: Spin) -> np.ndarray:
    energies = []
    for sign in (-1, 1):
        h, s = (matrix.dense(kpoint) for matrix in sums[sign])
        if spin is Spin.SPINOR:
            s = np.kron(np.eye(2), s)
        parts = h if h.ndim == 3 else h[None]
        energies.append(np.concatenate([eigh(part, s, eigvals_only=True) for part in parts]))
    return (energies[1] - energies[0]) / (2 * step)


@pytest.mark.parametrize("spin", list(Spin))
def test_a_moved_energy_zero_moves_every_state_alike(spin: Spin) -> None:
    calculation, states = case(spin)
    assert calculation.hamiltonian is not None
    layout = overlap_like(calculation.overlap, calculation.hamiltonian)
    matrices = states.matrices(0.3 * torch.from_numpy(matrix_channels(layout)))
    expected = 0.3 * torch.diag_embed((states.weights > 0).double()).to(matrices.dtype)
    kept = (states.weights > 0).to(matrices.dtype)
    # S-orthonormality of the states
    assert (matrices * kept[:, :, None] * kept[:, None, :] - expected).abs().max() < 1e-11


def test_phases_of_the_states_do_not_matter() -> None:
    calculation, states = case(Spin.SPINOR)
    change = channels(calculation, 4)
    turn = torch.exp(2j * torch.pi * torch.rand(states.weights.shape, dtype=torch.float64))
    turned = replace(states, states=states.states * turn[:, None, None, :])
    # |M_nm| is unchanged but for rounding
    torch.testing.assert_close(turned.squares(change), states.squares(change), rtol=1e-12, atol=0)


def test_only_states_near_the_fermi_level_count_and_each_point_has_one() -> None:
    _, states = case(Spin.NONE)
    assert (states.weights.sum(dim=1) > 0).all()
    assert float(states.weights.max()) == 1.0
    assert (states.weights >= 0).all()


def test_the_gradient_reaches_the_network_alone() -> None:
    calculation, states = case(Spin.COLLINEAR)
    change = channels(calculation, 5).requires_grad_()
    states.squares(change).sum().backward()
    assert change.grad is not None
    assert torch.isfinite(change.grad).all()
    assert not states.states.requires_grad


def test_large_structures_have_no_states(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hamnet.nn.kspace.LARGEST_EIGENPROBLEM", 3)
    assert LARGEST_EIGENPROBLEM > 3
    assert kspace_states("name", lawful_calculation(1), 2) is None


def test_a_sample_holds_states_when_asked() -> None:
    calculation = lawful_calculation(2)
    bare = make_sample("a", calculation, calculation.basis, 3.0)
    assert bare.states is None
    asked = make_sample("a", calculation, calculation.basis, 3.0, None, 3)
    assert asked.states is not None
    assert asked.states.phases.shape[0] == 3
