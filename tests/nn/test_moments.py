"""Moments in the network: what they may and may not do, for random shells, moments and weights."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from model_cases import basis_of, crystal, model_of, predict_all, predictor, random_calculation

from hamnet.config import NetworkConfig
from hamnet.core.basis import OrbitalBasis, Shell, Species
from hamnet.core.rotation import rotate_blocks, rotate_structure
from hamnet.core.spin import Spin, spinor_to_pauli, time_reversed
from hamnet.data.irrep_blocks import block_irreps
from hamnet.errors import PhysicsError
from hamnet.nn.dataset import make_sample
from hamnet.nn.model import HamiltonianModel
from hamnet.nn.moments import check_moments, is_magnetic
from hamnet.nn.prior import matrix_channels, matrix_from_channels
from hamnet.nn.statistics import GroupStatistics, Statistics
from hamnet.testing import assert_same_matrix, band_energies
from hamnet.train.finetune import take_over

MAGNETIC = (Spin.COLLINEAR, Spin.SPINOR)
K = np.array([0.21, -0.34, 0.13])
few = settings(max_examples=6, deadline=None)


def random_basis(rng: np.random.Generator) -> OrbitalBasis:
    """Two species with one to three shells, s to d."""
    made = []
    for label, number, radius in (("A", 14, 1.6), ("B", 7, 1.4)):
        shells = tuple(Shell(int(l), radius) for l in sorted(rng.integers(0, 3, rng.integers(1, 4))))
        made.append(Species(label, number, 4.0, shells))
    return OrbitalBasis(tuple(made))


def unit_statistics(basis: OrbitalBasis, spin: Spin) -> Statistics:
    """Scales of one, no mean."""
    groups = {}
    for a, first in enumerate(basis.species):
        for b, second in enumerate(basis.species):
            size = block_irreps(first, second, spin, True).matrix.shape[1]
            for on_site in (True, False) if a == b else (False,):
                groups[a, b, on_site] = GroupStatistics(np.zeros(size), np.ones(size), 0.0)
    cutoffs = np.array([[3.2, 3.0], [3.0, 2.8]])
    return Statistics(cutoffs, 3.2, 12.0, groups, magnetic=True)


@few
@given(st.integers(0, 2**31), st.sampled_from(MAGNETIC), st.sampled_from([1, 2]))
def test_random_models_keep_time_reversal_and_rotations(seed: int, spin: Spin, layers: int) -> None:
    """Shells, moments, weights and rotation at random: H(-m) = T H(m) T^-1 bitwise, H(O x, O m) = U H U^dagger."""
    rng = np.random.default_rng(seed)
    basis = random_basis(rng)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        sizes = NetworkConfig(channels=4, layers=layers, lmax=3, radial_hidden=8, radial_functions=6)
        model = HamiltonianModel(sizes, basis, spin, unit_statistics(basis, spin), torch.float64)
    predict = predictor(model)
    structure = crystal(seed, 3, spin)
    matrix = predict(structure)
    assert matrix.hermitian_residual()[0] == 0
    reversed_moments = predict(replace(structure, moments=-structure.moments))
    for group, back in zip(matrix.groups(), reversed_moments.groups(), strict=True):
        expected = time_reversed(group.blocks) if spin is Spin.SPINOR else group.blocks[:, ::-1]
        assert np.array_equal(back.blocks, expected)
    rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    turned = rotate_structure(structure, rotation)
    if spin is Spin.COLLINEAR:
        turned = replace(turned, moments=structure.moments)
    # float64 rounding of some hundred terms
    assert_same_matrix(predict(turned), rotate_blocks(matrix, rotation), 1e-10)


@pytest.mark.parametrize("spin", MAGNETIC)
def test_zero_moments_give_the_model_without_them(spin: Spin) -> None:
    """The network without moments, with the same weights: the same H but for rounding (products run over more)."""
    magnetic = model_of(spin, 2, magnetic=True)
    statistics = magnetic.statistics
    groups = {}
    for (a, b, on_site), group in statistics.groups.items():
        even = block_irreps(magnetic.basis.species[a], magnetic.basis.species[b], spin).matrix.shape[1]
        groups[a, b, on_site] = GroupStatistics(group.mean[:even], group.scale[:even], group.decay)
    known = replace(statistics, groups=groups, magnetic=False)
    plain = HamiltonianModel(magnetic.settings, magnetic.basis, spin, known, torch.float64)
    result = take_over(plain, magnetic)
    assert not result.anew
    assert not result.partly
    bare = crystal(seed=3)
    zero = replace(bare, moments=np.zeros((4, 3)))
    assert_same_matrix(predictor(magnetic)(zero), predictor(plain)(bare), 1e-12)


@pytest.mark.parametrize("spin", MAGNETIC)
def test_channels_at_zero_moment(spin: Spin) -> None:
    """Up equals down bitwise; spinors have Kramers pairs to rounding at a time-reversal point."""
    matrix = predictor(model_of(spin, magnetic=True))(crystal(seed=3))
    for group in matrix.groups():
        if spin is Spin.COLLINEAR:
            assert np.array_equal(group.blocks[:, 0], group.blocks[:, 1])
        else:
            pauli = spinor_to_pauli(group.blocks)
            assert not pauli[:, 0].imag.any()
            assert not pauli[:, 1:].real.any()
    energies = band_energies(matrix, np.array([0.5, 0, 0.5]))
    assert np.abs(energies[0::2] - energies[1::2]).max() < 1e-10


def test_moments_split_the_pairs() -> None:
    """All eight channels are there, and no level is double: the tests above could fail."""
    matrix = predictor(model_of(Spin.SPINOR, magnetic=True))(crystal(seed=3, magnetic=Spin.SPINOR))
    channels = matrix_channels(matrix, magnetic=True)
    assert (np.abs(channels).max(axis=0) > 1e-3).all()
    energies = band_energies(matrix, np.zeros(3))
    assert np.abs(energies[0::2] - energies[1::2]).max() > 1e-3


def test_turning_all_moments_swaps_collinear_spins_in_the_bands() -> None:
    """An antiferromagnet's and a ferromagnet's moments give different H: the moments of neighbours matter."""
    model = model_of(Spin.COLLINEAR, magnetic=True)
    structure = crystal(seed=3)
    z = np.array([0.0, 0.0, 1.0])
    parallel, opposite = (replace(structure, moments=np.outer(s, z)) for s in ([1, 1, 1, 1], [1, 1, -1, -1]))
    first, second = predict_all(model, [parallel, opposite])
    assert np.abs(first.values - second.values).max() > 1e-3 * np.abs(first.values).max()


@pytest.mark.parametrize("spin", MAGNETIC)
def test_sample_holds_the_odd_part(spin: Spin) -> None:
    """Channels of a magnetic sample give back its H; S stands in A_0 alone."""
    calculation = random_calculation(4, spin, magnetic=True)
    assert is_magnetic(calculation)
    sample = make_sample("a", calculation, calculation.basis, 3.2, magnetic=True)
    h = calculation.hamiltonian
    assert h is not None
    # halves and sums
    np.testing.assert_allclose(matrix_from_channels(sample.target.numpy(), h).values, h.values, atol=1e-14)
    assert not sample.overlap[:, 1:].any()


@pytest.mark.parametrize("spin", MAGNETIC)
def test_odd_part_without_moments_is_refused(spin: Spin) -> None:
    calculation = random_calculation(4, spin, magnetic=True)
    bare = replace(calculation, structure=replace(calculation.structure, moments=None))
    with pytest.raises(PhysicsError, match="run7: H is magnetic .* no atom has a moment"):
        check_moments("run7", bare)
    check_moments("run7", random_calculation(4, spin))


def test_collinear_moments_lie_along_z() -> None:
    calculation = random_calculation(4, Spin.COLLINEAR, magnetic=True)
    tilted = replace(calculation.structure, moments=np.array([[0, 0, 1.0], [0.2, 0, 1], [0, 0, 0], [0, 0, 0]]))
    with pytest.raises(PhysicsError, match="moment of atom 1"):
        make_sample("a", replace(calculation, structure=tilted), calculation.basis, 3.2, magnetic=True)


def test_gradient_reaches_every_weight_of_the_moments() -> None:
    """A loss on the odd channels trains the embedding of moments."""
    from hamnet.core.pairs import orbital_pairs
    from hamnet.nn.graph import build_graph, collate

    model = model_of(Spin.SPINOR, magnetic=True)
    structure = crystal(seed=9, magnetic=Spin.SPINOR)
    pairs = orbital_pairs(structure, basis_of(Spin.SPINOR))
    output = model(collate([build_graph(structure, pairs, model.basis, model.statistics.message_cutoff)]))
    for channel in range(4, 8):
        loss = output[:, channel].square().sum()
        (gradient,) = torch.autograd.grad(loss, model.moments.odd, retain_graph=True)
        assert bool((gradient.abs().amax(dim=(0, 2)) > 0).all())
