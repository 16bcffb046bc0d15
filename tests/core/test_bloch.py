"""Bloch sums: hermitian, periodic in k, the same as the definition; supercells fold."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hamnet.core.basis import OrbitalBasis, Shell, Species
from hamnet.core.bloch import BlochSum, spin_overlap
from hamnet.core.blocks import BlockMatrix
from hamnet.core.pairs import neighbour_pairs
from hamnet.core.spin import Spin
from hamnet.core.structure import AtomicStructure
from hamnet.core.supercell import supercell_matrix, supercell_structure
from hamnet.errors import PhysicsError

BASIS = OrbitalBasis((Species("A", 6, 4.0, (Shell(0), Shell(1))), Species("B", 1, 1.0, (Shell(0), Shell(0)))))
SPINS = st.sampled_from(list(Spin))
KPOINTS = st.tuples(*[st.floats(-1, 1)] * 3).map(np.array)


def random_structure(seed: int) -> AtomicStructure:
    rng = np.random.default_rng(seed)
    cell = np.diag([3.0, 3.2, 3.5]) + rng.uniform(-0.3, 0.3, (3, 3))
    positions = np.array([[0.1, 0.1, 0.1], [0.5, 0.4, 0.6], [0.9, 0.8, 0.3]]) @ cell
    return AtomicStructure([6, 1, 6], [0, 1, 0], positions, cell, np.ones(3, bool))


def random_matrix(seed: int, spin: Spin) -> BlockMatrix:
    structure, rng = random_structure(seed), np.random.default_rng(seed)
    matrix = BlockMatrix.zeros(neighbour_pairs(structure, 3.6), BASIS, structure.species, spin)
    values = rng.normal(size=matrix.values.shape)
    if spin is Spin.SPINOR:
        values = values + 1j * rng.normal(size=values.shape)
    return matrix.with_values(values).symmetrised()


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 99), spin=SPINS, k=KPOINTS)
def test_hermitian_matrix_gives_bitwise_hermitian_sum(seed: int, spin: Spin, k: np.ndarray) -> None:
    h = BlochSum(random_matrix(seed, spin)).dense(k)
    np.testing.assert_array_equal(h, h.conj().swapaxes(-1, -2))


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 99), spin=SPINS, k=KPOINTS)
def test_sum_is_the_definition(seed: int, spin: Spin, k: np.ndarray) -> None:
    matrix = random_matrix(seed, spin)
    bloch = BlochSum(matrix)
    expected = np.zeros(bloch.shape, dtype=complex)
    first, n = matrix.orbital_offsets, matrix.n_orbitals
    for p in range(matrix.pairs.n_pairs):
        i, j = matrix.pairs.i[p], matrix.pairs.j[p]
        row, column = np.arange(first[i], first[i + 1]), np.arange(first[j], first[j + 1])
        if spin is Spin.SPINOR:
            row, column = np.concatenate((row, row + n)), np.concatenate((column, column + n))
        phase = np.exp(2j * np.pi * (k @ matrix.pairs.cell_shift[p]))
        expected[(..., *np.ix_(row, column))] += phase * matrix.block(p)
    # 1e-12: some hundred numbers of order one are added
    np.testing.assert_allclose(bloch.dense(k), expected, atol=1e-12)


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 99), spin=SPINS, k=KPOINTS)
def test_sparse_holds_the_same_numbers_as_dense(seed: int, spin: Spin, k: np.ndarray) -> None:
    bloch = BlochSum(random_matrix(seed, spin))
    sparse = np.array([part.toarray() for part in bloch.sparse(k)])
    # 1e-13: a sum of some ten numbers of order one in another order
    np.testing.assert_allclose(sparse.reshape(bloch.shape), bloch.dense(k), atol=1e-13)


@settings(deadline=None, max_examples=15)
@given(
    seed=st.integers(0, 99),
    spin=SPINS,
    k=KPOINTS,
    shift=st.tuples(*[st.integers(-2, 2)] * 3).map(np.array),
)
def test_sum_is_periodic_in_k(seed: int, spin: Spin, k: np.ndarray, shift: np.ndarray) -> None:
    bloch = BlochSum(random_matrix(seed, spin))
    # 1e-11: k + G loses a few digits of k before the phase is formed
    np.testing.assert_allclose(bloch.dense(k + shift), bloch.dense(k), atol=1e-11)


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 99), spin=st.sampled_from([Spin.NONE, Spin.COLLINEAR]), k=KPOINTS)
def test_real_blocks_give_conjugate_sums_at_opposite_k(seed: int, spin: Spin, k: np.ndarray) -> None:
    bloch = BlochSum(random_matrix(seed, spin))
    np.testing.assert_array_equal(bloch.dense(-k), bloch.dense(k).conj())


@settings(deadline=None, max_examples=12)
@given(
    seed=st.integers(0, 99),
    spin=SPINS,
    k=KPOINTS,
    repeats=st.sampled_from([(2, 1, 1), (1, 2, 2), (3, 1, 2), (1, 1, 1)]),
)
def test_supercell_bands_are_the_folded_ones(seed: int, spin: Spin, k: np.ndarray, repeats: tuple) -> None:
    matrix = random_matrix(seed, spin)
    large, small = BlochSum(supercell_matrix(matrix, repeats)), BlochSum(matrix)
    folded = [
        np.linalg.eigvalsh(small.dense((k + np.array(copy)) / np.array(repeats)))
        for copy in itertools.product(*(range(n) for n in repeats))
    ]
    expected = np.sort(np.concatenate(folded, axis=-1), axis=-1)
    # 1e-10: eigenvalues of order ten from matrices of at most 120 rows
    np.testing.assert_allclose(np.linalg.eigvalsh(large.dense(k)), expected, atol=1e-10)


def test_supercell_pairs_are_those_of_the_supercell_structure() -> None:
    matrix, structure = random_matrix(3, Spin.NONE), random_structure(3)
    large = supercell_matrix(matrix, (2, 1, 3)).pairs
    found = neighbour_pairs(supercell_structure(structure, (2, 1, 3)), 3.6)
    np.testing.assert_array_equal(large.i, found.i)
    np.testing.assert_array_equal(large.cell_shift, found.cell_shift)


def test_a_matrix_that_is_not_hermitian_shows_it() -> None:
    matrix = random_matrix(1, Spin.NONE)
    values = matrix.values.copy()
    values[-1] += 0.5
    h = BlochSum(matrix.with_values(values)).dense(np.array([0.1, 0.2, 0.3]))
    assert np.abs(h - h.conj().T).max() > 0.4


def test_supercell_along_vacuum_is_refused() -> None:
    s = random_structure(0)
    flat = AtomicStructure(s.atomic_numbers, s.species, s.positions, s.cell, np.array([True, True, False]))
    with pytest.raises(PhysicsError, match="direction 2 is not periodic"):
        supercell_structure(flat, (1, 1, 2))


def test_spin_overlap_is_block_diagonal() -> None:
    s = np.array([[1.0, 0.2j], [-0.2j, 1.0]])
    doubled = spin_overlap(s)
    np.testing.assert_array_equal(doubled[:2, :2], s)
    np.testing.assert_array_equal(doubled[2:, :2], 0)
