"""Pauli components and time reversal of spinor blocks."""

from __future__ import annotations

import numpy as np
import pytest
from factories import seeds
from hypothesis import given
from hypothesis import strategies as st

from hamnet.core.spin import Spin, pauli_to_spinor, spinor_to_pauli, time_reversed

sizes = st.integers(1, 5)
PAULI = np.array([[[1, 0], [0, 1]], [[0, 1], [1, 0]], [[0, -1j], [1j, 0]], [[1, 0], [0, -1]]])


def random_blocks(seed: int, *shape: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=shape) + 1j * rng.normal(size=shape)


@given(seeds, sizes, sizes)
def test_round_trips(seed: int, n_i: int, n_j: int) -> None:
    blocks = random_blocks(seed, 3, 2 * n_i, 2 * n_j)
    # 1e-14: halving and adding two numbers of order one.
    np.testing.assert_allclose(pauli_to_spinor(spinor_to_pauli(blocks)), blocks, atol=1e-14)
    components = random_blocks(seed, 3, 4, n_i, n_j)
    np.testing.assert_allclose(spinor_to_pauli(pauli_to_spinor(components)), components, atol=1e-14)


@given(seeds, sizes, sizes)
def test_components_multiply_the_pauli_matrices(seed: int, n_i: int, n_j: int) -> None:
    components = random_blocks(seed, 4, n_i, n_j)
    expected = sum(np.kron(PAULI[a], components[a]) for a in range(4))
    np.testing.assert_allclose(pauli_to_spinor(components), expected, atol=1e-14)


@given(seeds, sizes, sizes)
def test_time_reversal_is_i_sigma_y_k(seed: int, n_i: int, n_j: int) -> None:
    blocks = random_blocks(seed, 2 * n_i, 2 * n_j)
    left, right = np.kron(1j * PAULI[2], np.eye(n_i)), np.kron(1j * PAULI[2], np.eye(n_j))
    np.testing.assert_allclose(time_reversed(blocks), left @ blocks.conj() @ right.conj().T, atol=1e-14)
    np.testing.assert_allclose(time_reversed(time_reversed(blocks)), blocks, atol=1e-14)


@given(seeds, sizes)
def test_reversal_symmetric_hermitian_blocks_have_kramers_pairs(seed: int, n: int) -> None:
    blocks = random_blocks(seed, 2 * n, 2 * n)
    blocks = blocks + blocks.conj().T
    energies = np.linalg.eigvalsh(blocks + time_reversed(blocks))
    # 1e-10: eigh on a small matrix of order one.
    np.testing.assert_allclose(energies[::2], energies[1::2], atol=1e-10)


@pytest.mark.parametrize(("spin", "factor"), [(Spin.NONE, 1), (Spin.COLLINEAR, 2), (Spin.SPINOR, 4)])
def test_layout(spin: Spin, factor: int) -> None:
    assert spin.factor == factor
    assert int(np.prod(spin.shape(3, 5))) == 15 * factor
    assert Spin(spin.value) is spin
