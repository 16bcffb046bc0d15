"""Blocks as irreps: Clebsch-Gordan coefficients, the change of basis, spin channels."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from factories import random_matrix, random_structure, seeds
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import block_diag
from scipy.spatial.transform import Rotation

from hamnet.core.basis import OrbitalBasis, Shell, Species
from hamnet.core.blocks import BlockMatrix
from hamnet.core.pairs import PairList
from hamnet.core.rotation import orbital_rotation, rotate_blocks, wigner_d
from hamnet.core.spin import Spin, pauli_to_spinor, spinor_to_pauli, time_reversed
from hamnet.data.irrep_blocks import (
    BlockIrreps,
    block_irreps,
    channels_to_values,
    real_clebsch_gordan,
    spin_channels,
    values_to_channels,
)

few = settings(max_examples=8, deadline=None)
FIRST = Species("A", 14, 4.0, (Shell(0), Shell(1), Shell(1), Shell(2)))
SECOND = Species("B", 7, 5.0, (Shell(0), Shell(0), Shell(1), Shell(3)))
MAGNETIC_CASES = [(spin, magnetic) for spin in (Spin.COLLINEAR, Spin.SPINOR) for magnetic in (False, True)]
SPIN_CASES = [(Spin.NONE, False), *MAGNETIC_CASES]


def irrep_rotation(irreps: BlockIrreps, rotation: np.ndarray) -> np.ndarray:
    """Block-diagonal D on the coefficients: D^l of the proper part, times the parity where O is improper."""
    sign = int(np.sign(np.linalg.det(rotation)))
    proper = {l: wigner_d(l, sign * rotation) for l in {term.l for term in irreps.terms}}
    return np.asarray(block_diag(*((term.parity if sign < 0 else 1) * proper[term.l] for term in irreps.terms)))


@pytest.mark.parametrize(("l1", "l2"), list(itertools.product(range(4), repeat=2)))
def test_clebsch_gordan_couple_rotations(l1: int, l2: int) -> None:
    """D_l1 x D_l2 C = C D_l, and together the C of all l are an orthogonal matrix."""
    rotation = Rotation.random(random_state=10 * l1 + l2).as_matrix()
    product = np.kron(wigner_d(l1, rotation), wigner_d(l2, rotation))
    couplings = [real_clebsch_gordan(l1, l2, l).reshape(-1, 2 * l + 1) for l in range(abs(l1 - l2), l1 + l2 + 1)]
    for matrix in couplings:
        l = matrix.shape[1] // 2
        # factorials up to 10! in float64, times rotations right to 1e-14
        np.testing.assert_allclose(product @ matrix, matrix @ wigner_d(l, rotation), atol=1e-12)
    together = np.concatenate(couplings, axis=1)
    np.testing.assert_allclose(together.T @ together, np.eye(len(together)), atol=1e-12)


def test_clebsch_gordan_of_two_vectors_are_known() -> None:
    """1 x 1: the scalar is a dot product over sqrt 3, the axial vector a cross product over sqrt 2 (up to sign)."""
    np.testing.assert_allclose(np.abs(real_clebsch_gordan(1, 1, 0)[..., 0]), np.eye(3) / np.sqrt(3), atol=1e-14)
    axial = real_clebsch_gordan(1, 1, 1)
    np.testing.assert_allclose(axial, -axial.swapaxes(0, 1), atol=1e-14)
    np.testing.assert_allclose(np.abs(axial).sum(), 6 / np.sqrt(2), atol=1e-13)


def test_coefficients_follow_from_symmetry_of_exchange() -> None:
    """One shell with itself: even L symmetric, odd L antisymmetric; hermiticity keeps even L of A_0 on site."""
    for l1 in range(4):
        for l in range(2 * l1 + 1):
            table = real_clebsch_gordan(l1, l1, l)
            np.testing.assert_allclose(table, (-1) ** l * table.swapaxes(0, 1), atol=1e-13)


@pytest.mark.parametrize(("spin", "magnetic"), SPIN_CASES)
def test_round_trip_of_blocks(spin: Spin, magnetic: bool) -> None:
    """Q is square and orthogonal: nothing is lost and nothing counted twice; 1e-12 is rounding of its products."""
    irreps = block_irreps(FIRST, SECOND, spin, magnetic)
    size = FIRST.n_orbitals * SECOND.n_orbitals * len(spin_channels(spin, magnetic))
    assert irreps.matrix.shape == (size, size)
    values = np.random.default_rng(0).normal(size=(3, size))
    np.testing.assert_allclose((values @ irreps.matrix) @ irreps.matrix.T, values, atol=1e-12)
    assert sum(mul * (2 * l + 1) for grade in (1, -1) for mul, l, _ in irreps.irreps(grade)) == size
    assert [t.start for t in irreps.terms] == np.cumsum([0] + [2 * t.l + 1 for t in irreps.terms])[:-1].tolist()
    assert {t.parity for t in irreps.terms if FIRST.shells[t.shell_i].l + SECOND.shells[t.shell_j].l == 2} == {1}


def test_parity_is_of_the_block() -> None:
    """p with p gives 0e, 1e, 2e: natural parity would say 1o."""
    p = Species("p", 1, 1.0, (Shell(1),))
    assert block_irreps(p, p, Spin.NONE).irreps() == ((1, 0, 1), (1, 1, 1), (1, 2, 1))
    assert block_irreps(p, p, Spin.NONE).irreps(-1) == ()


@few
@given(seeds, st.sampled_from([1, -1]), st.sampled_from([(Spin.NONE, False), (Spin.COLLINEAR, False)]))
def test_irreps_turn_as_irreps(seed: int, sign: int, case: tuple[Spin, bool]) -> None:
    """(U_i x U_j) Q = Q D: real blocks, proper and improper O."""
    rotation = sign * Rotation.random(random_state=seed).as_matrix()
    irreps = block_irreps(FIRST, SECOND, *case)
    turned = np.kron(orbital_rotation(FIRST, rotation), orbital_rotation(SECOND, rotation))
    turned = np.kron(turned, np.eye(len(spin_channels(*case))))
    expected = irreps.matrix @ irrep_rotation(irreps, rotation)
    np.testing.assert_allclose(turned @ irreps.matrix, expected, atol=1e-12)


@few
@given(seeds, st.sampled_from([1, -1]))
def test_spinor_irreps_turn_as_irreps(seed: int, sign: int) -> None:
    """Blocks turned by SU(2) x U have coefficients turned by D: the axial product is coupled with the right signs."""
    rng = np.random.default_rng(seed)
    rotation = sign * Rotation.random(random_state=seed).as_matrix()
    basis = OrbitalBasis((FIRST, SECOND))
    pairs = PairList.build(np.array([0, 1]), np.array([1, 0]), np.zeros((2, 3)), np.array([0, 1]))
    matrix = BlockMatrix.zeros(pairs, basis, np.array([0, 1]), Spin.SPINOR)
    shapes = [(1, FIRST.n_orbitals, SECOND.n_orbitals), (1, SECOND.n_orbitals, FIRST.n_orbitals)]
    channels = rng.normal(size=(len(matrix.values) // 4, 4))
    matrix = matrix.with_values(channels_to_values(channels, Spin.SPINOR, shapes))
    turned = values_to_channels(rotate_blocks(matrix, rotation).values, Spin.SPINOR, shapes)
    irreps = block_irreps(FIRST, SECOND, Spin.SPINOR)
    n = irreps.matrix.shape[0] // 4
    before, after = channels[:n].ravel() @ irreps.matrix, turned[:n].ravel() @ irreps.matrix
    # coefficients are of order one, a few hundred of them in each sum
    np.testing.assert_allclose(after, irrep_rotation(irreps, rotation) @ before, atol=1e-11)


@few
@given(seeds, st.sampled_from(SPIN_CASES))
def test_channels_round_trip(seed: int, case: tuple[Spin, bool]) -> None:
    """Flat values -> real channels -> flat values; without magnetism on their part even under time reversal."""
    spin, magnetic = case
    matrix = random_matrix(seed, random_structure(seed), spin)
    if spin is Spin.COLLINEAR and not magnetic:
        matrix = matrix.with_values(np.concatenate([np.repeat(g.blocks[:, :1], 2, 1).ravel() for g in matrix.groups()]))
    if spin is Spin.SPINOR and not magnetic:
        even = [((g.blocks + time_reversed(g.blocks)) / 2).ravel() for g in matrix.groups()]
        matrix = matrix.with_values(np.concatenate(even))
    n = matrix.basis.n_orbitals
    shapes = [(len(g.blocks), int(n[g.species_i]), int(n[g.species_j])) for g in matrix.groups()]
    channels = values_to_channels(matrix.values, spin, shapes, magnetic)
    assert channels.shape == (len(matrix.values) // spin.factor, len(spin_channels(spin, magnetic)))
    # halves and sums of two numbers of order one
    np.testing.assert_allclose(channels_to_values(channels, spin, shapes), matrix.values, atol=1e-15)


@pytest.mark.parametrize("magnetic", [False, True])
def test_channels_transpose_and_reverse_as_they_say(magnetic: bool) -> None:
    """The signs of `Channel` against matrices: hermitian partner and time reversal of each spinor component."""
    rng = np.random.default_rng(0)
    for channel in spin_channels(Spin.SPINOR, magnetic):
        part = rng.normal(size=(2, 3))
        components = np.zeros((4, 2, 3), dtype=np.complex128)
        components[channel.component] = part * (1j if channel.imaginary else 1)
        block = pauli_to_spinor(components)
        np.testing.assert_array_equal(time_reversed(block), channel.grade * block)
        partner = spinor_to_pauli(block.conj().T)[channel.component]
        partner = partner.imag if channel.imaginary else partner.real
        np.testing.assert_array_equal(partner, channel.transposition * part.T)


def test_no_pairs_give_no_channels() -> None:
    for spin in Spin:
        empty = values_to_channels(np.zeros(0, dtype=spin.dtype), spin, [])
        assert empty.shape == (0, len(spin_channels(spin)))
        assert channels_to_values(empty, spin, []).dtype == spin.dtype
