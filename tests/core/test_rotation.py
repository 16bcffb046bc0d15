"""The reference rotation: real Wigner D, SU(2), and U H U^dagger on blocks."""

from __future__ import annotations

import numpy as np
import pytest
from factories import random_matrix, random_structure, seeds, two_species
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from hamnet.core.rotation import (
    PAULI,
    orbital_rotation,
    real_spherical_harmonics,
    rotate_blocks,
    rotate_structure,
    spin_rotation,
    wigner_d,
)
from hamnet.core.spin import Spin, time_reversed
from hamnet.core.structure import AtomicStructure
from hamnet.errors import PhysicsError
from hamnet.testing import band_energies

degrees = st.integers(0, 4)
few = settings(max_examples=10, deadline=None)


def orthogonal(seed: int, sign: int = 1) -> np.ndarray:
    return sign * Rotation.random(random_state=seed % 2**32).as_matrix()


def test_harmonics_are_the_conventions() -> None:
    """p is y, z, x and d is xy, yz, z2, xz, x2-y2, all signs positive."""
    x, y, z = np.array([0.36, -0.48, 0.8])
    p = np.sqrt(3 / (4 * np.pi)) * np.array([y, z, x])
    d = np.sqrt(15 / (4 * np.pi)) * np.array(
        [x * y, y * z, (3 * z * z - 1) / (2 * np.sqrt(3)), x * z, (x * x - y * y) / 2]
    )
    # rounding of a few operations on numbers of order one
    np.testing.assert_allclose(real_spherical_harmonics(1, np.array([x, y, z])), p, atol=1e-14)
    np.testing.assert_allclose(real_spherical_harmonics(2, np.array([x, y, z])), d, atol=1e-14)


@few
@given(seeds, seeds, degrees, st.sampled_from([1, -1]))
def test_wigner_d_is_a_representation(a: int, b: int, l: int, sign: int) -> None:
    """D(AB) = D(A) D(B), D^T D = 1, and Y(O x) = D Y(x) at points that the fit did not see."""
    first, second = orthogonal(a), orthogonal(b, sign)
    product = wigner_d(l, first) @ wigner_d(l, second)
    # least squares on a well-conditioned table: 1e-15 times a few tens of rows
    np.testing.assert_allclose(wigner_d(l, first @ second), product, atol=1e-12)
    np.testing.assert_allclose(product @ product.T, np.eye(2 * l + 1), atol=1e-12)
    points = np.random.default_rng(a).normal(size=(5, 3))
    turned = real_spherical_harmonics(l, points) @ wigner_d(l, second).T
    np.testing.assert_allclose(real_spherical_harmonics(l, points @ second.T), turned, atol=1e-12)


@pytest.mark.parametrize("l", range(5))
def test_inversion_gives_the_parity(l: int) -> None:
    np.testing.assert_allclose(wigner_d(l, -np.eye(3)), (-1) ** l * np.eye(2 * l + 1), atol=1e-13)


@few
@given(seeds, st.sampled_from([1, -1]))
def test_spin_rotation_turns_pauli_matrices(seed: int, sign: int) -> None:
    """u s_a u^dagger = sum_b R_ba s_b with the proper part: inversion leaves spin alone, and det u = 1."""
    rotation = orthogonal(seed)
    u = spin_rotation(sign * rotation)
    turned = u @ PAULI @ u.conj().T
    np.testing.assert_allclose(turned, np.einsum("ba,bij->aij", rotation, PAULI), atol=1e-12)
    assert abs(np.linalg.det(u) - 1) < 1e-12
    # T = i s_y K commutes with every rotation of spin
    np.testing.assert_allclose(PAULI[1] @ u.conj() @ PAULI[1], u, atol=1e-12)


def test_full_turn_changes_the_sign_of_spin_only() -> None:
    third = Rotation.from_rotvec([0, 0, 2 * np.pi / 3]).as_matrix()
    u = spin_rotation(third)
    np.testing.assert_allclose(u @ u @ u, -np.eye(2), atol=1e-12)
    orbital = orbital_rotation(two_species().species[0], third)
    np.testing.assert_allclose(np.linalg.matrix_power(orbital, 3), np.eye(8), atol=1e-12)


@few
@given(seeds, st.sampled_from(list(Spin)), st.sampled_from([1, -1]))
def test_rotated_matrix_keeps_its_laws(seed: int, spin: Spin, sign: int) -> None:
    """Hermitian, back by the inverse rotation, same bands at the same fractional k."""
    matrix = random_matrix(seed, random_structure(seed), spin)
    rotation = orthogonal(seed, sign)
    turned = rotate_blocks(matrix, rotation)
    # products of small unitary matrices: rounding times about ten
    assert turned.hermitian_residual()[0] < 1e-12
    np.testing.assert_allclose(rotate_blocks(turned, rotation.T).values, matrix.values, atol=1e-12)
    k = np.array([0.2, -0.1, 0.4])
    np.testing.assert_allclose(band_energies(turned, k), band_energies(matrix, k), atol=1e-11)


@few
@given(seeds)
def test_rotation_and_time_reversal_commute(seed: int) -> None:
    matrix = random_matrix(seed, random_structure(seed), Spin.SPINOR)
    rotation = orthogonal(seed)

    def reverse(m):  # type: ignore[no-untyped-def]
        return m.with_values(np.concatenate([time_reversed(g.blocks).ravel() for g in m.groups()]))

    one, other = reverse(rotate_blocks(matrix, rotation)), rotate_blocks(reverse(matrix), rotation)
    np.testing.assert_allclose(one.values, other.values, atol=1e-12)


def test_moments_are_axial() -> None:
    structure = AtomicStructure([26], [0], np.array([[1.0, 2.0, 3.0]]), moments=np.array([[0.0, 0.5, 2.0]]))
    inverted = rotate_structure(structure, -np.eye(3))
    np.testing.assert_array_equal(inverted.positions, -structure.positions)
    np.testing.assert_array_equal(inverted.moments, structure.moments)
    mirrored = rotate_structure(structure, np.diag([1.0, 1, -1]))
    np.testing.assert_array_equal(mirrored.moments, [[0, -0.5, 2.0]])


@pytest.mark.parametrize("bad", [2 * np.eye(3), np.eye(2), np.diag([1.0, 1, 0]), np.ones((3, 3))])
def test_refuses_what_is_not_orthogonal(bad: np.ndarray) -> None:
    with pytest.raises(PhysicsError, match="orthogonal"):
        wigner_d(1, bad)
