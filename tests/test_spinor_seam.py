"""Spinors from network to bands: layout, time reversal and SU(2) agree among all the parts they pass through."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from model_cases import basis_of, crystal, model_of, predictor, random_calculation
from scipy.spatial.transform import Rotation

from hamnet.core.bloch import BlochSum
from hamnet.core.blocks import BlockMatrix
from hamnet.core.rotation import PAULI, rotate_blocks, rotate_structure
from hamnet.core.spin import Spin, pauli_to_spinor, spinor_to_pauli, time_reversed
from hamnet.core.structure import AtomicStructure
from hamnet.testing import band_energies

K = np.array([0.21, -0.34, 0.13])
MOMENTA = [np.array(n) / 2 for n in np.ndindex(2, 2, 2)]
"""All eight time-reversal points of the cell."""


@pytest.fixture(scope="module")
def predicted() -> BlockMatrix:
    return predictor(model_of(Spin.SPINOR))(crystal(seed=9))


def inversion_symmetric() -> AtomicStructure:
    """Two atoms of one kind at +-x and one of the other at the origin and its like at a corner."""
    cell = crystal(seed=9).lattice
    fractional = np.array([[0, 0, 0], [0.5, 0.5, 0.5], [0.27, 0.24, -0.29], [-0.27, -0.24, 0.29]])
    species = np.array([0, 0, 1, 1])
    return AtomicStructure(np.array([14, 7])[species], species, fractional @ cell, cell, np.ones(3, dtype=bool))


def splitting(energies: np.ndarray) -> float:
    return float(np.abs(energies[0::2] - energies[1::2]).max())


def test_four_real_channels(predicted: BlockMatrix) -> None:
    """The model has 4 real numbers for each pair of orbitals; A_0 is real and A_a imaginary, exactly."""
    assert model_of(Spin.SPINOR).n_channels == 4
    largest = []
    for group in predicted.groups():
        components = spinor_to_pauli(group.blocks)
        assert not components[:, 0].imag.any()
        assert not components[:, 1:].real.any()
        assert np.array_equal(time_reversed(group.blocks), group.blocks)
        largest.append(np.abs(components).max(axis=(0, 2, 3)))
    # all four are there: nothing above is true because everything is zero (long pairs alone may be small)
    assert (np.max(largest, axis=0) > 1e-3).all()


def test_full_matrix_is_bitwise_hermitian(predicted: BlockMatrix) -> None:
    """H(k) itself, not one triangle: du must be the conjugate of ud, at a k-point without symmetry too."""
    assert predicted.hermitian_residual()[0] == 0
    for k in (np.zeros(3), K):
        dense = BlochSum(predicted).dense(k)
        assert np.array_equal(dense, dense.conj().T)
    n = predicted.n_orbitals
    dense = BlochSum(predicted).dense(np.zeros(3))
    assert np.abs(dense[:n, n:]).max() > 1e-3


def test_kramers_pairs(predicted: BlockMatrix) -> None:
    """Double levels at every time-reversal point, exactly so by construction: 1e-10 eV is rounding of eigvalsh."""
    for k in MOMENTA:
        assert splitting(band_energies(predicted, k)) < 1e-10
    # without inversion symmetry spin-orbit coupling splits the bands elsewhere: the test can fail
    assert splitting(band_energies(predicted, K)) > 1e-6


def test_bands_are_even_in_k(predicted: BlockMatrix) -> None:
    np.testing.assert_allclose(band_energies(predicted, K), band_energies(predicted, -K), atol=1e-10)


def test_inversion_makes_every_band_double() -> None:
    """Inversion times T keeps k: every band is twofold in a crystal with a centre."""
    matrix = predictor(model_of(Spin.SPINOR))(inversion_symmetric())
    assert splitting(band_energies(matrix, K)) < 1e-10


def test_time_reversal_of_the_bloch_matrix(predicted: BlockMatrix) -> None:
    """(i s_y) H(k)* (i s_y)^-1 = H(-k) with all up orbitals first: layout of Bloch sums and of blocks agree."""
    turn = np.kron(1j * PAULI[1], np.eye(predicted.n_orbitals))
    reversed_matrix = turn @ BlochSum(predicted).dense(K).conj() @ turn.conj().T
    np.testing.assert_allclose(reversed_matrix, BlochSum(predicted).dense(-K), atol=1e-12)


def test_blocks_of_no_spin_give_the_bands_twice() -> None:
    """H x 1 as spinor: uu = dd, and every energy of the spinless crystal two times."""
    basis = basis_of(Spin.SPINOR)
    h = random_calculation(3, Spin.SPINOR).hamiltonian
    assert h is not None
    scalar, doubled = [], []
    for group in h.groups():
        components = spinor_to_pauli(group.blocks)
        components[:, 1:] = 0
        scalar.append(components[:, 0].real.ravel())
        doubled.append(pauli_to_spinor(components).ravel())
    spinless = BlockMatrix.from_values(h.pairs, basis, h.species, Spin.NONE, np.concatenate(scalar))
    expected = np.repeat(band_energies(spinless, K), 2)
    np.testing.assert_allclose(band_energies(h.with_values(np.concatenate(doubled)), K), expected, atol=1e-11)


def test_bands_are_continuous_as_coupling_goes() -> None:
    """A_a times x: bands move by no more than |x| times the norm of the coupling, down to the spinless ones."""
    h = random_calculation(3, Spin.SPINOR).hamiltonian
    assert h is not None
    parts = {0: [], 1: []}  # type: dict[int, list[np.ndarray]]
    for group in h.groups():
        for kept in (0, 1):
            components = spinor_to_pauli(group.blocks)
            components[:, slice(1, None) if kept == 0 else slice(0, 1)] = 0
            parts[kept].append(pauli_to_spinor(components).ravel())
    scalar, coupling = (h.with_values(np.concatenate(parts[kept])) for kept in (0, 1))
    norm = float(np.linalg.norm(BlochSum(coupling).dense(K), 2))
    start = band_energies(scalar, K)
    for x in (1e-1, 1e-3, 1e-6):
        moved = band_energies(h.with_values(scalar.values + x * coupling.values), K)
        # Weyl's inequality, and rounding
        assert np.abs(moved - start).max() <= x * norm + 1e-11


@pytest.mark.parametrize("sign", [1, -1])
def test_bands_do_not_feel_a_rotation(predicted: BlockMatrix, sign: int) -> None:
    """The predicted matrix of the turned crystal has the same bands at the same fractional k, spin turned along."""
    rotation = sign * Rotation.random(random_state=12).as_matrix()
    turned = predictor(model_of(Spin.SPINOR))(rotate_structure(crystal(seed=9), rotation))
    np.testing.assert_allclose(band_energies(turned, K), band_energies(predicted, K), atol=1e-10)
    # orbitals turned without their spins: the seam would be open, and the blocks show it
    whole = rotate_blocks(predicted, rotation)
    assert np.abs(turned.values - whole.values).max() < 1e-10 * np.abs(whole.values).max()
    assert np.abs(turned.values - predicted.values).max() > 1e-3


def test_gradient_reaches_every_channel() -> None:
    """A loss on any one of the four channels trains the network."""
    from hamnet.core.pairs import orbital_pairs
    from hamnet.nn.graph import build_graph, collate

    model, structure = model_of(Spin.SPINOR), crystal(seed=9)
    pairs = orbital_pairs(structure, model.basis)
    batch = collate([build_graph(structure, pairs, model.basis, model.statistics.message_cutoff)])
    output = model(batch)
    for channel in range(4):
        (gradient,) = torch.autograd.grad(output[:, channel].square().sum(), model.embedding.weight, retain_graph=True)
        assert bool(gradient.any())
        assert bool(torch.isfinite(gradient).all())
