"""OrbitalBasis: sizes, slices, text round trip, and messages."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from factories import two_species
from hypothesis import given
from hypothesis import strategies as st

from hamnet.core.basis import OrbitalBasis, Shell, Species
from hamnet.errors import BasisError

positive = st.floats(1e-3, 1e3)
gaussians = st.lists(st.tuples(positive, st.floats(-5, 5)), max_size=3)
shells = st.builds(
    lambda l, radius, g: Shell(l, radius, tuple(a for a, _ in g), tuple(c for _, c in g)),
    st.integers(0, 6),
    st.none() | positive,
    gaussians,
)
kinds = st.builds(
    Species,
    st.text(min_size=1, max_size=8),
    st.integers(0, 100),
    positive,
    st.lists(shells, min_size=1, max_size=5).map(tuple),
)
bases = st.lists(kinds, min_size=1, max_size=4, unique_by=lambda s: s.label).map(lambda s: OrbitalBasis(tuple(s)))


@given(bases)
def test_text_round_trip_is_exact(basis: OrbitalBasis) -> None:
    again = OrbitalBasis.from_json(basis.to_json())
    assert again == basis
    assert again.hash == basis.hash


@given(kinds)
def test_slices_cover_all_orbitals_in_order(species: Species) -> None:
    rows = [r for part in species.slices for r in range(part.start, part.stop)]
    assert rows == list(range(species.n_orbitals))
    assert [part.stop - part.start for part in species.slices] == [2 * l + 1 for l in species.shell_ls]


@given(bases, st.data())
def test_hash_changes_with_any_shell(basis: OrbitalBasis, data: st.DataObject) -> None:
    k = data.draw(st.integers(0, len(basis.species) - 1))
    changed = dataclasses.replace(basis.species[k], shells=(*basis.species[k].shells, Shell(0, 1.0)))
    other = OrbitalBasis((*basis.species[:k], changed, *basis.species[k + 1 :]))
    assert other.hash != basis.hash


@given(bases)
def test_merging_with_itself_changes_nothing(basis: OrbitalBasis) -> None:
    assert basis.merged(basis) == basis


def test_merging_keeps_the_first_order_and_refuses_contradictions() -> None:
    basis = two_species()
    swapped = OrbitalBasis(basis.species[::-1])
    assert basis.merged(swapped) == basis
    other = OrbitalBasis((dataclasses.replace(basis.species[0], shells=(Shell(0),)),))
    with pytest.raises(BasisError, match="'A-s2p2' means different orbitals"):
        basis.merged(other)


def test_lookups() -> None:
    basis = two_species()
    assert basis.index("B-s1p1") == 1
    assert basis.maximum_l == 1
    assert basis.n_orbitals.tolist() == [8, 4]
    assert basis.n_electrons(np.array([0, 0, 1])) == 11.0
    assert basis.species_of_elements(np.array([5, 6, 5])).tolist() == [1, 0, 1]
    assert basis.species[0].radius == 1.6
    assert Species("g", 1, 1.0, (Shell(0), Shell(0, 1.0))).radius is None
    assert basis.species[1].describe() == "B-s1p1: 1s 1p, 4 orbitals, 3 valence electrons"


def test_messages() -> None:
    basis = two_species()
    with pytest.raises(BasisError, match=r"no species 'C'.*A-s2p2"):
        basis.index("C")
    with pytest.raises(BasisError, match=r"atomic number 8; known are \[5, 6\]"):
        basis.species_of_elements(np.array([6, 8]))
    twice = OrbitalBasis((basis.species[0], dataclasses.replace(basis.species[0], label="other")))
    with pytest.raises(BasisError, match="several species"):
        twice.species_of_elements(np.array([6]))
    with pytest.raises(BasisError, match="labels must differ"):
        OrbitalBasis((basis.species[0], basis.species[0]))
    with pytest.raises(BasisError, match="has no shells"):
        Species("X", 1, 1.0, ())
    with pytest.raises(BasisError, match="l = 7"):
        Shell(7)
    with pytest.raises(BasisError, match="radius 0"):
        Shell(0, 0.0)
    with pytest.raises(BasisError, match="2 exponents but 1 coefficients"):
        Shell(0, None, (1.0, 2.0), (1.0,))
