"""Spinors without spin-orbit coupling: spins and lattice turn apart, and collinear models are the same models."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from model_cases import MESSAGE_CUTOFF, PAIR_CUTOFF, crystal, model_of, predictor, random_calculation, uncoupled_model
from test_moments import few, random_basis, unit_statistics

from hamnet.config import NetworkConfig
from hamnet.core.blocks import BlockMatrix
from hamnet.core.calculation import Calculation
from hamnet.core.pairs import orbital_pairs
from hamnet.core.rotation import rotate_spins
from hamnet.core.spin import Spin, pauli_to_spinor
from hamnet.core.structure import AtomicStructure
from hamnet.nn.graph import build_graph, collate
from hamnet.nn.model import HamiltonianModel
from hamnet.nn.spin_space import spin_coupling
from hamnet.nn.statistics import Statistics, fit_statistics
from hamnet.testing import ModelContract, Predict, assert_same_matrix, band_energies
from hamnet.testing_moments import (
    SpinSpaceContract,
    assert_lattice_turns,
    assert_spins_turn,
    random_rotation,
)


class TestUncoupledSpinors(ModelContract, SpinSpaceContract):
    """All that every model does, moments turned with the atoms too, and what no coupling means."""

    cutoffs = (PAIR_CUTOFF, MESSAGE_CUTOFF)
    receptive_field = MESSAGE_CUTOFF

    @pytest.fixture
    def predict(self) -> Predict:
        return predictor(uncoupled_model())

    @pytest.fixture
    def structure(self) -> AtomicStructure:
        return crystal(seed=7, magnetic=Spin.SPINOR)


def as_spinors(matrix: BlockMatrix) -> BlockMatrix:
    """Collinear blocks as [[up, 0], [0, down]]."""
    parts = []
    for group in matrix.groups():
        up, down = np.moveaxis(group.blocks.astype(np.complex128), 1, 0)
        zero = np.zeros_like(up)
        parts.append(pauli_to_spinor(np.stack(((up + down) / 2, zero, zero, (up - down) / 2), axis=1)).ravel())
    return BlockMatrix.from_values(matrix.pairs, matrix.basis, matrix.species, Spin.SPINOR, np.concatenate(parts))


def turned(calculation: Calculation, rotation: np.ndarray) -> Calculation:
    """A collinear calculation with all spins turned: exact where there is no spin-orbit coupling."""
    assert calculation.hamiltonian is not None
    moments = np.asarray(calculation.structure.moments) @ rotation.T
    matrix = rotate_spins(as_spinors(calculation.hamiltonian), rotation)
    return replace(calculation, structure=replace(calculation.structure, moments=moments), hamiltonian=matrix)


def random_models(seed: int, layers: int, kernel: str = "so2", body_order: int = 3) -> tuple[HamiltonianModel, ...]:
    """A collinear model of random shells and weights, and the same weights without an axis."""
    rng = np.random.default_rng(seed)
    basis = random_basis(rng)
    known = unit_statistics(basis, Spin.COLLINEAR)
    sizes = NetworkConfig(
        channels=4, layers=layers, lmax=2, radial_hidden=8, radial_functions=6, kernel=kernel, body_order=body_order
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        collinear = HamiltonianModel(sizes, basis, Spin.COLLINEAR, known, torch.float64)
    spinor = HamiltonianModel(sizes, basis, Spin.SPINOR, replace(known, spin_orbit=False), torch.float64)
    spinor.load_state_dict(collinear.state_dict())
    return collinear, spinor


@few
@given(st.integers(0, 2**31), st.sampled_from([1, 2]), st.sampled_from([2, 3, 4]))
def test_random_models_turn_spins_and_lattice_apart(seed: int, layers: int, body_order: int) -> None:
    """Shells, moments, weights, rotations at random."""
    predict = predictor(random_models(seed, layers, body_order=body_order)[1])
    structure = crystal(seed, 3, Spin.SPINOR)
    # float64 rounding of some hundred terms
    assert_spins_turn(predict, structure, random_rotation(seed), 1e-10)
    assert_lattice_turns(predict, structure, -random_rotation(seed + 1), 1e-10)


@few
@given(st.integers(0, 2**31))
def test_moments_along_a_line_are_the_collinear_model_turned(seed: int) -> None:
    """The same weights, and H is the collinear one in the frame of the line."""
    assert_collinear_limit(seed, "so2")


def test_the_reference_kernel_keeps_the_collinear_limit() -> None:
    """e3nn's tensor product takes spin axes as edges of their own; one example, it is slow to build."""
    assert_collinear_limit(1, "tensor_product")


def assert_collinear_limit(seed: int, kernel: str) -> None:
    """H of moments along z, and along any line, against the collinear model's."""
    collinear, spinor = random_models(seed, 1, kernel)
    structure, rotation = crystal(seed, 3, Spin.COLLINEAR), random_rotation(seed)
    expected = as_spinors(predictor(collinear)(structure))
    assert_same_matrix(predictor(spinor)(structure), expected, 1e-13)
    tilted = replace(structure, moments=np.asarray(structure.moments) @ rotation.T)
    assert_same_matrix(predictor(spinor)(tilted), rotate_spins(expected, rotation), 1e-12)


def test_zero_moments_are_the_same_for_both_spins() -> None:
    """A_0 x 1, with and without the part for moments: every level is double."""
    for magnetic in (True, False):
        matrix = predictor(uncoupled_model(magnetic=magnetic))(crystal(seed=3))
        expected = as_spinors(predictor(model_of(Spin.COLLINEAR, magnetic=magnetic))(crystal(seed=3)))
        assert_same_matrix(matrix, expected, 1e-14)
        energies = band_energies(matrix, np.array([0.1, 0.2, 0.3]))
        # two equal blocks: what the eigensolver rounds
        assert np.abs(energies[0::2] - energies[1::2]).max() < 1e-12 * np.abs(energies).max()


def test_tilted_moments_are_no_collinear_model() -> None:
    """What the tests above see is not a global turn: canted moments split levels that parallel ones leave."""
    predict = predictor(uncoupled_model())
    structure = crystal(seed=7)
    z, x = np.array([0.0, 0.0, 1.0]), np.array([1.0, 0.0, 0.0])
    parallel, canted = (predict(replace(structure, moments=np.array([z, z, a, a]))) for a in (z, x))
    k = np.array([0.1, 0.2, 0.3])
    assert np.abs(band_energies(parallel, k) - band_energies(canted, k)).max() > 1e-3


def test_scales_of_turned_data_are_those_of_collinear_data() -> None:
    """A training may see spins along any axis: scales, decays and cutoffs are those of the collinear data."""
    data = [random_calculation(seed, Spin.COLLINEAR, magnetic=True) for seed in (0, 1)]
    moved = [turned(c, random_rotation(k)) for k, c in enumerate(data)]
    small = NetworkConfig(channels=4, layers=1)
    first = fit_statistics(data, data[0].basis, Spin.COLLINEAR, small, True)
    second = fit_statistics(moved, data[0].basis, Spin.SPINOR, small, True, spin_orbit=False)
    for key, group in first.groups.items():
        np.testing.assert_allclose(second.groups[key].mean, group.mean, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(second.groups[key].scale, group.scale, rtol=1e-10)
        # through logarithms of norms
        assert abs(second.groups[key].decay - group.decay) < 1e-8
    assert not Statistics.from_arrays(second.to_arrays()).spin_orbit
    assert Statistics.from_arrays(first.to_arrays()).spin_orbit


def test_gradients_on_turned_data_are_those_on_collinear_data() -> None:
    """Axes share their weights: the same squared error moves them the same way, whatever the moments' line."""
    structure, rotation = crystal(5, 3, Spin.COLLINEAR), random_rotation(2)
    tilted = replace(structure, moments=np.asarray(structure.moments) @ rotation.T)
    gradients = []
    for model, atoms in zip(random_models(5, 2), (structure, tilted), strict=True):
        reach = model.statistics.message_cutoff
        batch = collate([build_graph(atoms, orbital_pairs(atoms, model.basis), model.basis, reach)])
        weights = [weight for weight in model.parameters() if weight.numel()]
        gradients.append(torch.autograd.grad(model(batch).square().sum(), weights, allow_unused=True))
    for mine, theirs in zip(*gradients, strict=True):
        assert (mine is None) == (theirs is None)
        if mine is not None and theirs is not None:
            # sums of thousands of numbers in another order
            assert (mine - theirs).abs().max() <= 1e-9 * max(float(mine.abs().max()), 1.0)


class TestSpinCoupling:
    """What the data are looked at for."""

    @settings(max_examples=5, deadline=None)
    @given(st.integers(0, 2**31))
    def test_turned_collinear_data_have_none(self, seed: int) -> None:
        """Real A along the moments, to rounding."""
        shown = spin_coupling(turned(random_calculation(3, Spin.COLLINEAR, magnetic=True), random_rotation(seed)))
        assert not shown.there
        assert shown.imaginary < 1e-12
        assert shown.astray < 1e-12
        assert shown.largest > 0.1

    def test_spinors_with_everything_have_it(self) -> None:
        shown = spin_coupling(random_calculation(3, Spin.SPINOR, magnetic=True))
        assert shown.there
        assert "imaginary parts of A_0, A_x, A_y, A_z up to" in str(shown)
        assert spin_coupling(random_calculation(3, Spin.SPINOR)).there
        assert not spin_coupling(random_calculation(3, Spin.COLLINEAR, magnetic=True)).there

    def test_field_across_the_moments_is_seen(self) -> None:
        """Real A, but not along the moments, as of a collinear functional under tilted moments."""
        calculation = turned(random_calculation(3, Spin.COLLINEAR, magnetic=True), random_rotation(1))
        straight = replace(calculation.structure, moments=np.outer(np.ones(4), [0.0, 0.0, 1.0]))
        assert spin_coupling(replace(calculation, structure=straight)).astray > 0.1
