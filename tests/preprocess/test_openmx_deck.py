"""OpenMX's input deck: PAO names, species, comments and cases."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hamnet.core.units import BOHR
from hamnet.errors import BasisError, FormatError
from hamnet_preprocess.openmx_deck import Deck, basis_of_deck, parse_pao

PATH = Path("x.scfout")
DECK = """
SCF.XCTYPE  GGA-PBE  # comment
scf.Kgrid   4 3 2
<definition.of.atomic.species
 C1  C5.0-s2p1   C_PBE19
 C2  C5.0-s2p1   C_PBE19   # the same PAO under another name
 Ct  C6.0-s2p2d1 C_PBE19
 Fe  Fe5.5H-s3p2d1 Fe_PBE19H
 EC  C5.0-s2p1   E
definition.of.atomic.species>
<ATOMS.SpeciesAndCoordinates
 1 C1 0 0 0 2.0 2.0
 2 C2 0 0 1 2.5 1.5 off
 3 Ct 0 0 2 2.0 2.0
 4 Fe 0 0 3 10.0 6.0
 5 EC 0 0 4 0.0 0.0
ATOMS.SpeciesAndCoordinates>
"""
COUNTS = np.array([5, 5, 13, 14, 5])


def deck(text: str = DECK) -> Deck:
    return Deck.parse(text.splitlines(), PATH)


def test_species_are_paos_not_elements_or_names() -> None:
    basis, species = basis_of_deck(deck(), COUNTS)
    assert [s.label for s in basis.species] == ["C5.0-s2p1", "C6.0-s2p2d1", "Fe5.5H-s3p2d1", "ghost:C5.0-s2p1"]
    assert species.tolist() == [0, 0, 1, 2, 3]
    assert [s.atomic_number for s in basis.species] == [6, 6, 26, 0]
    assert [s.valence_electrons for s in basis.species] == [4, 4, 16, 0]


def test_keys_are_case_insensitive_and_comments_are_cut() -> None:
    assert deck().keys["scf.xctype"] == "GGA-PBE"
    assert deck().kmesh == (4, 3, 2)


@pytest.mark.parametrize(
    ("name", "z", "radius", "readings"),
    [
        ("C5.0-s2p1", 6, 5.0, [(0, 0, 1)]),
        ("Fe5.5H-s3p2d1", 26, 5.5, [(0, 0, 0, 1, 1, 2)]),
        ("Ti7.0-p2s1", 22, 7.0, [(0, 1, 1)]),
        ("C6.0_1s_CH-s2p1", 6, 6.0, [(0, 0, 1)]),
        ("H5.0-s2>1p1", 1, 5.0, [(0, 1), (0, 0, 1)]),
        ("Si7.0-s22p21", 14, 7.0, [(0, 0, 1), (0, 0, 1, 1)]),
        ("Ce8.0-s1f1", 58, 8.0, [(0, 3)]),
        ("E6.0-s1", 0, 6.0, [(0,)]),
    ],
)
def test_pao_names(name: str, z: int, radius: float, readings: list[tuple[int, ...]]) -> None:
    found = parse_pao(name)
    assert [s.shell_ls for s in found] == readings
    assert all(s.atomic_number == z for s in found)
    assert found[0].radius == pytest.approx(radius * BOHR)


@pytest.mark.parametrize("name", ["C5.0", "C-s2p1", "C5.0-", "C5.0-x2", "C5.0-s2q", "5.0-s1", "Xx5.0-s1", ""])
def test_pao_names_that_are_not_understood(name: str) -> None:
    with pytest.raises(BasisError, match="PAO name"):
        parse_pao(name)


@pytest.mark.parametrize("name", ["C0.0-s1", "C5.0-s0"])
def test_pao_names_without_an_orbital_or_a_radius(name: str) -> None:
    with pytest.raises(BasisError):
        parse_pao(name)


def test_unequal_valence_of_one_species_is_refused() -> None:
    with pytest.raises(BasisError, match=r"atom 2 \(C2\) has 3 electrons.*an earlier atom.*has 4"):
        basis_of_deck(deck(DECK.replace("2.5 1.5", "1.5 1.5")), COUNTS)


def test_another_number_of_atoms_is_refused() -> None:
    with pytest.raises(FormatError, match="5 atoms, the file 4"):
        basis_of_deck(deck(), COUNTS[:4])


def test_atom_line_without_electrons_is_refused() -> None:
    with pytest.raises(FormatError, match=r"atom 1 in the input deck: expected number, species, x, y, z, up and down"):
        basis_of_deck(deck(DECK.replace("1 C1 0 0 0 2.0 2.0", "1 C1 0 0 0 2.0")), COUNTS)
