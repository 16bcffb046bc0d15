"""BlockMatrix: layout, hermiticity, other pair lists."""

from __future__ import annotations

import numpy as np
import pytest
from factories import random_matrix, random_structure, seeds, spins, two_species
from hypothesis import given, settings

from hamnet.core.blocks import BlockMatrix
from hamnet.core.pairs import neighbour_pairs
from hamnet.core.spin import Spin
from hamnet.errors import PhysicsError

quick = settings(deadline=None, max_examples=25)


@quick
@given(seeds, spins)
def test_groups_cover_every_number_once_and_are_views(seed: int, spin: Spin) -> None:
    matrix = random_matrix(seed, random_structure(seed), spin)
    seen = np.concatenate([group.blocks.reshape(-1) for group in matrix.groups()])
    assert np.array_equal(seen, matrix.values)
    for group in matrix.groups():
        assert np.shares_memory(group.blocks, matrix.values)
        assert np.array_equal(group.blocks[0], matrix.block(group.pairs.start))
        assert np.array_equal(matrix.blocks(group.species_i, group.species_j), group.blocks)


@quick
@given(seeds, spins)
def test_adjoint_block_by_block(seed: int, spin: Spin) -> None:
    structure = random_structure(seed)
    rng = np.random.default_rng(seed)
    matrix = random_matrix(seed, structure, spin)
    matrix = matrix.with_values(matrix.values + rng.normal(size=len(matrix.values)))
    adjoint = matrix.adjoint()
    for p in range(matrix.pairs.n_pairs):
        mirrored = matrix.block(int(matrix.pairs.reverse[p]))
        assert np.array_equal(adjoint.block(p), mirrored.conj().swapaxes(-1, -2))
    assert np.array_equal(adjoint.adjoint().values, matrix.values)


@quick
@given(seeds, spins)
def test_symmetrised_is_bitwise_hermitian_and_residual_names_the_pair(seed: int, spin: Spin) -> None:
    matrix = random_matrix(seed, random_structure(seed), spin)
    assert matrix.hermitian_residual()[0] == 0.0
    off_site = np.flatnonzero(~matrix.pairs.on_site)
    p = int(off_site[seed % len(off_site)])
    values = matrix.values.copy()
    values[matrix.offsets[p]] += 0.5
    residual, where = matrix.with_values(values).hermitian_residual()
    # 1e-12: one addition of numbers of order one.
    assert residual == pytest.approx(0.5, abs=1e-12)
    assert where in (p, int(matrix.pairs.reverse[p]))


@quick
@given(seeds, spins)
def test_longer_pair_list_and_back(seed: int, spin: Spin) -> None:
    structure = random_structure(seed)
    matrix = random_matrix(seed, structure, spin, 3.0)
    wide = neighbour_pairs(structure, 5.0)
    grown = matrix.on_pairs(wide)
    assert np.abs(grown.values).sum() == pytest.approx(np.abs(matrix.values).sum(), rel=1e-12)  # order of summation
    at = wide.find(matrix.pairs)
    for p in range(matrix.pairs.n_pairs):
        assert np.array_equal(grown.block(int(at[p])), matrix.block(p))
    assert grown.hermitian_residual()[0] == 0.0
    with pytest.raises(PhysicsError, match="its block would be lost"):
        grown.on_pairs(matrix.pairs)


@pytest.mark.parametrize("spin", list(Spin))
def test_shapes(spin: Spin) -> None:
    structure = random_structure(3)
    matrix = random_matrix(3, structure, spin)
    assert matrix.n_orbitals == two_species().n_orbitals[structure.species].sum()
    assert matrix.orbital_offsets[-1] == matrix.n_orbitals
    for p in (0, matrix.pairs.n_pairs - 1):
        n_i, n_j = two_species().n_orbitals[structure.species[[matrix.pairs.i[p], matrix.pairs.j[p]]]]
        assert matrix.block(p).shape == spin.shape(int(n_i), int(n_j))
    assert matrix.values.dtype == spin.dtype


def test_messages() -> None:
    matrix = random_matrix(1, random_structure(1), Spin.NONE)
    with pytest.raises(PhysicsError, match=r"found \(5,\) values, expected"):
        matrix.with_values(np.zeros(5))
    with pytest.raises(PhysicsError, match="need float64, found complex128"):
        matrix.with_values(matrix.values.astype(complex))
    values = matrix.values.copy()
    values[matrix.offsets[2]] = np.nan
    with pytest.raises(PhysicsError, match="holds nan: not a finite number") as caught:
        matrix.with_values(values)
    assert matrix.describe_pair(2) in str(caught.value)


def test_absent_species_pair_gives_an_empty_view() -> None:
    structure = random_structure(1).with_species(np.zeros(4, dtype=np.int64))
    matrix = BlockMatrix.zeros(neighbour_pairs(structure, 2.5), two_species(), structure.species)
    assert matrix.blocks(1, 0).shape == (0, 4, 8)
