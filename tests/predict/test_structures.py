"""Structures from files and from other programs' objects."""

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import graphene
from hypothesis import given, settings
from hypothesis import strategies as st
from pymatgen.core import Lattice, Molecule, Structure

from hamnet.core.basis import OrbitalBasis, Shell, Species
from hamnet.errors import BasisError, FormatError
from hamnet.integrations.ase import to_ase
from hamnet.predict.structures import SPECIES_KEY, element_symbol, geometry_hash, read_structures, to_structure

BASIS = OrbitalBasis(
    (
        Species("O5.0-s1p1", 8, 6.0, (Shell(0, 2.6), Shell(1, 2.6))),
        Species("C5.0-s2p1", 6, 4.0, (Shell(0, 2.6), Shell(0, 2.6), Shell(1, 2.6))),
    )
)
TWO_CARBONS = OrbitalBasis(
    (Species("C5.0-s1", 6, 4.0, (Shell(0, 2.6),)), Species("C6.0-s2", 6, 4.0, (Shell(0, 3.1), Shell(0, 3.1))))
)


def crystal() -> Atoms:
    atoms = graphene(vacuum=8.0)
    atoms.pbc = True
    return atoms


@pytest.mark.parametrize(
    ("name", "kind"), [("POSCAR", "vasp"), ("a.vasp", "vasp"), ("a.cif", "cif"), ("a.extxyz", "extxyz")]
)
def test_periodic_formats(tmp_path: Path, name: str, kind: str) -> None:
    crystal().write(tmp_path / name, format=kind)
    ((_, atoms),) = read_structures(tmp_path / name)
    structure = to_structure(atoms, BASIS)
    assert structure.is_periodic
    # cif stores five digits of lengths and angles, and may turn the cell: compare distances
    expected = sorted(crystal().get_all_distances(mic=True).ravel())
    np.testing.assert_allclose(sorted(atoms.get_all_distances(mic=True).ravel()), expected, atol=1e-3)
    assert structure.species.tolist() == [1, 1]


def test_plain_xyz_is_a_free_molecule(tmp_path: Path) -> None:
    (tmp_path / "co.xyz").write_text("2\ncarbon monoxide\nC 0 0 0\nO 0 0 1.13\n")
    ((name, atoms),) = read_structures(tmp_path / "co.xyz")
    structure = to_structure(atoms, BASIS)
    assert name == "co"
    assert structure.cell is None
    assert structure.species.tolist() == [1, 0]


def test_several_frames_get_sorted_names(tmp_path: Path) -> None:
    for _ in range(11):
        crystal().write(tmp_path / "md.extxyz", append=True)
    names = [name for name, _ in read_structures(tmp_path / "md.extxyz")]
    assert names[0] == "md/00"
    assert names == sorted(names)


@pytest.mark.parametrize("name", ["POSCAR", "a.cif", "a.xyz", "a.extxyz", "a.vasp", "a.dat"])
def test_rubbish_is_a_readable_error(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("this is no structure\nat all\n")
    with pytest.raises(FormatError, match=r"cannot be read|holds no structure"):
        read_structures(path)


def test_absent_and_empty_files(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="no structure file at"):
        read_structures(tmp_path / "POSCAR")
    (tmp_path / "POSCAR").touch()
    with pytest.raises(FormatError, match="is empty"):
        read_structures(tmp_path / "POSCAR")


def test_pymatgen_and_ase_give_the_same() -> None:
    atoms = crystal()
    other = Structure(Lattice(np.array(atoms.cell)), ["C", "C"], atoms.get_scaled_positions())
    first, second = to_structure(atoms, BASIS), to_structure(other, BASIS)
    np.testing.assert_allclose(first.positions, second.positions, atol=1e-12)
    np.testing.assert_allclose(first.lattice, second.lattice, atol=1e-12)
    assert np.array_equal(first.pbc, second.pbc)
    molecule = to_structure(Molecule(["C", "O"], [[0, 0, 0], [0, 0, 1.1]]), BASIS)
    assert molecule.cell is None
    assert molecule.species.tolist() == [1, 0]


def test_partial_occupancy_is_refused() -> None:
    disordered = Structure(Lattice.cubic(3), [{"C": 0.5, "O": 0.5}], [[0, 0, 0]])
    with pytest.raises(BasisError, match="partial occupancy"):
        to_structure(disordered, BASIS)


def test_one_element_with_two_bases_needs_labels() -> None:
    atoms = Atoms("C2", [[0, 0, 0], [0, 0, 1.4]])
    with pytest.raises(BasisError, match="several species"):
        to_structure(atoms, TWO_CARBONS)
    atoms.new_array(SPECIES_KEY, np.array(["C6.0-s2", "C5.0-s1"]))
    assert to_structure(atoms, TWO_CARBONS).species.tolist() == [1, 0]


def test_foreign_objects_are_refused() -> None:
    with pytest.raises(BasisError, match=r"cannot make a structure of builtins\.str"):
        to_structure("POSCAR", BASIS)


GOOD = "2\nfirst\nC 0 0 0\nO 0 0 1.13\n"


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        ("2\ncut\nC 0 0\nO 0 0 1.13\n", r"line 7: found 'C 0 0', expected 4 columns, an element and three coordinates"),
        ("2\na line less\nC 0 0 0\n" + GOOD, r"line 8: found '2', expected 4 columns"),
        ("2\nends\nC 0 0 0\n", r"line 5: the file ends after 1 of the frame's 2 atoms"),
        ("C 0 0 0\n", r"line 5: found 'C 0 0 0', expected the number of atoms"),
        ("2\nwords\nC 0 0 zero\nO 0 0 1\n", r"line 5: the frame of 2 atoms cannot be read \(.*zero"),
        ("2\nelement\nC 0 0 0\nQq 0 0 1\n", r"line 5: .*'Qq' is no element"),
        (
            "1\nProperties=species:S:1:pos:R:3:forces:R:3\nC 0 0 0 1 1\n",
            r"line 7: found 'C 0 0 0 1 1', expected 7 columns, as Properties says",
        ),
        ("\n" + GOOD, r"line 5: an empty line between frames"),
    ],
)
def test_a_broken_frame_is_named(tmp_path: Path, second: str, expected: str) -> None:
    (tmp_path / "pool.xyz").write_text(GOOD + second)
    with pytest.raises(FormatError, match=r"pool\.xyz cannot be read: frame 1, " + expected):
        read_structures(tmp_path / "pool.xyz")


def test_whole_xyz_files_stay_readable(tmp_path: Path) -> None:
    path = tmp_path / "pool.xyz"
    cell = "VEC1 5 0 0\nVEC2 0 5 0\nVEC3 0 0 5\n"
    for end in ("", "\n\n", "\nmade by hand\n"):
        path.write_text(GOOD + GOOD + end)
        assert len(read_structures(path)) == 2
    path.write_text(GOOD + cell)
    assert read_structures(path)[0][1].cell.volume == pytest.approx(125)


@settings(max_examples=20, deadline=None)
@given(kinds=st.lists(st.integers(0, 1), min_size=1, max_size=6), periodic=st.booleans())
def test_to_ase_and_back(kinds: list[int], periodic: bool) -> None:
    positions = np.arange(3 * len(kinds), dtype=float).reshape(-1, 3)
    atoms = Atoms(numbers=[6] * len(kinds), positions=positions, cell=30 * np.eye(3), pbc=periodic)
    atoms.new_array(SPECIES_KEY, np.array([TWO_CARBONS.species[k].label for k in kinds]))
    atoms.set_initial_magnetic_moments(0.5 * positions)
    structure = to_structure(atoms, TWO_CARBONS)
    again = to_structure(to_ase(structure, TWO_CARBONS), TWO_CARBONS)
    assert np.array_equal(again.species, kinds)
    assert np.array_equal(again.positions, structure.positions)
    assert np.array_equal(again.pbc, structure.pbc)
    assert np.array_equal(again.lattice, structure.lattice)
    assert again.moments is not None
    assert structure.moments is not None
    assert np.array_equal(again.moments, structure.moments)


def test_the_hash_of_a_geometry_sees_what_a_prediction_sees() -> None:
    plain = crystal()
    changes = [plain.copy() for _ in range(6)]
    changes[0].positions[1, 2] += 1e-9
    changes[1].cell[2, 2] += 1e-9
    changes[2].pbc = [True, True, False]
    changes[3].numbers[0] = 8
    changes[4].set_initial_magnetic_moments([0.0, 0.5])
    changes[5].new_array(SPECIES_KEY, np.array(["C5.0-s1", "C6.0-s2"]))
    plain.info["comment"] = "no part of the geometry"
    kinds = [Molecule(["C", "O"], [[0, 0, 0], [0, 0, z]]) for z in (1.1, 1.2)]
    kinds += [Structure(Lattice.cubic(3), ["C"], [[0, 0, z]]) for z in (0.1, 0.2)]
    everything = [plain, *changes, *kinds, *(to_structure(atoms, BASIS) for atoms in (plain, changes[0]))]
    assert len({geometry_hash(atoms) for atoms in everything}) == len(everything)
    assert geometry_hash(crystal()) == geometry_hash(plain)
    assert geometry_hash(kinds[0].copy()) == geometry_hash(kinds[0])
    assert geometry_hash(to_structure(plain, BASIS)) == geometry_hash(to_structure(crystal(), BASIS))


def test_symbols() -> None:
    assert [element_symbol(z) for z in (0, 14, 83, 500)] == ["X", "Si", "Bi", "Z=500"]
