"""PairList and the neighbour search: reverse pairs, and invariance under what is not physics."""

from __future__ import annotations

import numpy as np
import pytest
from factories import random_structure, seeds, two_species
from hypothesis import given, settings
from hypothesis import strategies as st

from hamnet.core.basis import OrbitalBasis, Shell, Species
from hamnet.core.pairs import PairList, neighbour_pairs, orbital_pairs
from hamnet.core.structure import AtomicStructure
from hamnet.errors import BasisError, PhysicsError

boundaries = st.tuples(st.booleans(), st.booleans(), st.booleans())
# Wide enough for several images of the 4 A cell, and irrational so that no pair sits on the edge by construction.
CUTOFF = 5.0 * 2**0.5


def rows(pairs: PairList) -> set[tuple[int, ...]]:
    return set(map(tuple, np.column_stack((pairs.i, pairs.j, pairs.cell_shift)).tolist()))


@settings(deadline=None, max_examples=30)
@given(seeds, boundaries)
def test_every_pair_has_its_reverse_and_stands_once(seed: int, pbc: tuple[bool, bool, bool]) -> None:
    pairs = neighbour_pairs(random_structure(seed, pbc=pbc), CUTOFF)
    back = pairs.reverse
    assert np.array_equal(pairs.i[back], pairs.j)
    assert np.array_equal(pairs.cell_shift[back], -pairs.cell_shift)
    assert np.array_equal(back[back], np.arange(pairs.n_pairs))
    assert len(rows(pairs)) == pairs.n_pairs
    assert pairs.on_site.sum() == 4


@settings(deadline=None, max_examples=30)
@given(seeds, boundaries)
def test_search_agrees_with_brute_force(seed: int, pbc: tuple[bool, bool, bool]) -> None:
    structure = random_structure(seed, pbc=pbc)
    pairs = neighbour_pairs(structure, CUTOFF)
    # Positions reach two cells apart and the cutoff less than three more: five images to each side see everything.
    spans = [range(-5, 6) if periodic else range(1) for periodic in pbc]
    shifts = np.stack(np.meshgrid(*spans, indexing="ij"), axis=-1).reshape(-1, 3)
    x = structure.positions
    vectors = x[None, :, None] - x[:, None, None] + (shifts @ structure.lattice)[None, None]
    i, j, s = np.nonzero(np.linalg.norm(vectors, axis=-1) < CUTOFF)
    assert rows(pairs) == set(map(tuple, np.column_stack((i, j, shifts[s])).tolist()))


@settings(deadline=None, max_examples=30)
@given(seeds, seeds)
def test_wrapping_and_translating_only_relabel_the_cells(seed: int, other: int) -> None:
    structure = random_structure(seed)
    rng = np.random.default_rng(other)
    moved_by = rng.integers(-2, 3, (4, 3))
    positions = structure.positions + moved_by @ structure.lattice + rng.normal(size=3)
    moved = AtomicStructure(structure.atomic_numbers, structure.species, positions, structure.cell, structure.pbc)
    pairs = neighbour_pairs(structure, CUTOFF)
    relabelled = PairList.build(
        pairs.i, pairs.j, pairs.cell_shift + moved_by[pairs.i] - moved_by[pairs.j], structure.species
    )
    found = neighbour_pairs(moved, CUTOFF)
    assert rows(found) == rows(relabelled)
    # 1e-11 A: positions of 10 A carry 1e-15 relative rounding, a few operations long.
    at = relabelled.find(found)
    np.testing.assert_allclose(relabelled.vectors(moved)[at], found.vectors(moved), atol=1e-11)
    np.testing.assert_allclose(
        np.sort(np.linalg.norm(pairs.vectors(structure), axis=1)),
        np.sort(np.linalg.norm(found.vectors(moved), axis=1)),
        atol=1e-11,
    )


@settings(deadline=None, max_examples=30)
@given(seeds, st.permutations(range(4)))
def test_permuting_atoms_permutes_the_pairs(seed: int, order: list[int]) -> None:
    structure = random_structure(seed)
    permuted = AtomicStructure(
        structure.atomic_numbers[order],
        structure.species[order],
        structure.positions[order],
        structure.cell,
        structure.pbc,
    )
    new = np.argsort(order)
    pairs = neighbour_pairs(structure, CUTOFF)
    expected = PairList.build(new[pairs.i], new[pairs.j], pairs.cell_shift, permuted.species)
    assert rows(neighbour_pairs(permuted, CUTOFF)) == rows(expected)


@settings(deadline=None, max_examples=20)
@given(seeds)
def test_pairs_are_sorted_by_species_first(seed: int) -> None:
    structure = random_structure(seed)
    pairs = neighbour_pairs(structure, CUTOFF)
    species = structure.species
    key = np.column_stack((species[pairs.i], species[pairs.j], pairs.i, pairs.j, pairs.cell_shift)).tolist()
    assert key == sorted(key)


@settings(deadline=None, max_examples=20)
@given(seeds)
def test_radii_of_orbitals_decide_each_pair(seed: int) -> None:
    structure = random_structure(seed)
    pairs = orbital_pairs(structure, two_species())
    reach = np.array([1.6, 1.3])[structure.species]
    wide = neighbour_pairs(structure, 3.3)
    near = np.linalg.norm(wide.vectors(structure), axis=1) < reach[wide.i] + reach[wide.j]
    assert rows(pairs) == {row for row, keep in zip(sorted_rows(wide), near, strict=True) if keep}


def sorted_rows(pairs: PairList) -> list[tuple[int, ...]]:
    return list(map(tuple, np.column_stack((pairs.i, pairs.j, pairs.cell_shift)).tolist()))


@settings(deadline=None, max_examples=20)
@given(seeds, seeds)
def test_find_inverts_any_selection(seed: int, other: int) -> None:
    pairs = neighbour_pairs(random_structure(seed), CUTOFF)
    assert np.array_equal(pairs.find(pairs), np.arange(pairs.n_pairs))
    short = neighbour_pairs(random_structure(seed), 3.0)
    at = pairs.find(short)
    assert (at >= 0).all()
    assert np.array_equal(pairs.cell_shift[at], short.cell_shift)
    assert (short.find(pairs) >= 0).sum() == short.n_pairs


def test_messages() -> None:
    zero = np.zeros((1, 3), dtype=np.int64)
    one = np.array([0])
    with pytest.raises(PhysicsError, match=r"pair \(0, 0, \[1, 0, 0\]\) is there but its reverse"):
        PairList.build(np.array([0]), np.array([0]), np.array([[1, 0, 0]]), one)
    with pytest.raises(PhysicsError, match=r"pair \(0, 0, \[0, 0, 0\]\) appears more than once"):
        PairList.build(np.array([0, 0]), np.array([0, 0]), np.repeat(zero, 2, axis=0), one)
    with pytest.raises(PhysicsError, match="do not fit"):
        PairList(one, one, np.zeros((2, 3), dtype=np.int64), one)
    close = AtomicStructure([6, 6], [0, 0], [[0.0, 0, 0], [0.0, 0, 0.05]])  # type: ignore[arg-type]
    with pytest.raises(PhysicsError, match=r"atoms 0 and 1 are 0\.0500 A apart"):
        neighbour_pairs(close, 3.0)
    far = AtomicStructure([6, 6], [0, 0], [[0.0, 0, 0], [0.0, 0, 2.0]])  # type: ignore[arg-type]
    with pytest.raises(BasisError, match="'G' has no orbital radius"):
        orbital_pairs(far, OrbitalBasis((Species("G", 6, 4.0, (Shell(0),)),)))


def test_atoms_on_one_place_are_found_across_the_boundary_and_exactly_on_top() -> None:
    cell = np.diag([3.0, 3.0, 3.0])
    for second in ([0.0, 0.0, 0.0], [3.0, 0.0, 0.0]):
        same = AtomicStructure([6, 6], [0, 0], [[0.0, 0, 0], second], cell, [True] * 3)  # type: ignore[arg-type]
        with pytest.raises(PhysicsError, match="two atoms on one place"):
            neighbour_pairs(same, 2.0)
