"""CP2K's input, basis-set and .bs files, each by itself."""

import numpy as np
import pytest
from cp2k_cases import run
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from hamnet.core.basis import OrbitalBasis, Species
from hamnet.core.structure import AtomicStructure
from hamnet.core.units import BOHR
from hamnet.errors import BasisError, FormatError
from hamnet_preprocess.cp2k_basis import basis_shells
from hamnet_preprocess.cp2k_bs import read_bs
from hamnet_preprocess.cp2k_deck import CP2K_BOHR, basis_names_of, geometry_of, read_deck
from hamnet_preprocess.pyscf_overlap import overlap_from_basis

SCALE = BOHR / CP2K_BOHR
"""Of lengths: hamnet keeps CP2K's bohr."""


def deck(tmp_path, cell="ABC 2 3 4", coord="H 0 0 0.5", topology=""):
    path = tmp_path / "x.inp"
    atoms = f"&COORD\n{coord}\n&END" if coord else ""
    parts = f"&CELL\n{cell}\n&END CELL\n{atoms}\n{topology}"
    path.write_text(f"&FORCE_EVAL ! comment\n&SUBSYS\n{parts}\n&END SUBSYS\n&END\n")
    return path


def geometry(path):
    return geometry_of(read_deck(path), path)


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("A 2 0 0\nB 0.5 3 0\nC 0 0 4", [[2, 0, 0], [0.5, 3, 0], [0, 0, 4]]),
        ("A [bohr] 2 0 0\nB 0 3 0\nC 0 0 4", [[2 * CP2K_BOHR, 0, 0], [0, 3, 0], [0, 0, 4]]),
        ("abc 2.0D0 3 4 # lengths", np.diag([2.0, 3, 4])),
        ("ABC 2 2 4\nALPHA_BETA_GAMMA 90 90 120", [[2, 0, 0], [-1, 3**0.5, 0], [0, 0, 4]]),
    ],
)
def test_cells(tmp_path, cell, expected):
    assert_allclose(geometry(deck(tmp_path, cell))[0], np.array(expected) * SCALE, atol=1e-12)


@pytest.mark.parametrize(
    ("coord", "expected"),
    [
        ("UNIT bohr\nC1 1 0 0 MOL1\nH 0 1.0E0 0", [[CP2K_BOHR, 0, 0], [0, CP2K_BOHR, 0]]),
        ("SCALED\nH 0.5 0.5 0.25", [[1, 1.5, 1]]),
        ("SCALED F\nH 0.5 0.5 0.25", [[0.5, 0.5, 0.25]]),
    ],
)
def test_coordinates(tmp_path, coord, expected):
    assert_allclose(geometry(deck(tmp_path, coord=coord))[2], np.array(expected) * SCALE, atol=1e-12)


def test_variables_includes_and_other_files(tmp_path):
    (tmp_path / "atoms.inc").write_text("H 0 0 ${HEIGHT}\n")
    path = deck(tmp_path, coord="@SET HEIGHT 0.75\n@INCLUDE 'atoms.inc'")
    assert_allclose(geometry(path)[2], [[0, 0, 0.75 * SCALE]])
    (tmp_path / "a.xyz").write_text("2\ncomment\nH 0 0 1\nO 0 1 0 extra\n")
    path = deck(tmp_path, coord="", topology="&TOPOLOGY\nCOORD_FILE_NAME a.xyz\nCOORD_FILE_FORMAT XYZ\n&END")
    _, labels, positions = geometry(path)
    assert labels == ["H", "O"]
    assert_allclose(positions, np.array([[0, 0, 1], [0, 1, 0]]) * SCALE)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"cell": "CELL_FILE_NAME x.cif"}, "neither A, B, C nor ABC"),
        ({"cell": "ABC 2 3"}, "expected three numbers"),
        ({"cell": "ABC [feet] 2 3 4"}, "expected three numbers in angstrom"),
        ({"cell": "ABC 2 3 4\nMULTIPLE_UNIT_CELL 2 1 1"}, "MULTIPLE_UNIT_CELL 2 1 1 is not read"),
        ({"coord": "UNIT feet\nH 0 0 0"}, "has the unit 'feet'"),
        ({"coord": "UNIT bohr"}, "has no atoms"),
        ({"coord": ""}, "no &COORD, and no COORD_FILE_NAME"),
        ({"coord": "", "topology": "&TOPOLOGY\nCOORD_FILE_NAME b.xyz\n&END"}, "b.xyz: no readable XYZ"),
        ({"coord": "@IF 1\nH 0 0 0\n@ENDIF"}, "line 7: @IF is not read"),
        ({"coord": "@INCLUDE gone.inc"}, "gone.inc: cannot be read"),
        ({"coord": "&END\n&END\n&END\n&END"}, "never opened"),
        ({"topology": "&TOPOLOGY"}, "has no &END"),
    ],
)
def test_inputs_that_are_refused(tmp_path, arguments, words):
    with pytest.raises(FormatError, match=words):
        geometry(deck(tmp_path, **arguments))


def test_basis_files_of_an_input(tmp_path):
    path = tmp_path / "x.inp"
    path.write_text("&FORCE_EVAL\n&DFT\nBASIS_SET_FILE_NAME A\n&END\n&END\n")
    assert basis_names_of(read_deck(path)) == ("A",)
    path.write_text("&FORCE_EVAL\n&DFT\nbasis_set_file_name A\nBASIS_SET_FILE_NAME 'B C'\n&END\n&END\n")
    assert basis_names_of(read_deck(path)) == ("A", "B C")


BASIS = """
# comment
H  DZVP-GTH-q1 DZVP-GTH
  2
  1  0  0  2  2
      2.0  -0.5   0.0 # inner
      0.3  -0.6   1.0
  2  1  2  1  1 1
      0.7   1.0   1.0
He DZVP-GTH
  1
  1 0 0 1 1
      1.0 2.0
"""


def test_basis_sets_with_several_sets(tmp_path):
    path = tmp_path / "SETS"
    path.write_text(BASIS)
    shells = basis_shells("H", "dzvp-gth", (path,))
    assert [s.l for s in shells] == [0, 0, 1, 2]
    assert [s.exponents for s in shells] == [(2.0, 0.3), (0.3,), (0.7,), (0.7,)]  # primitives with 0 are left out
    assert basis_shells("He", "DZVP-GTH", (path,))[0].coefficients == (1.0,)
    with pytest.raises(BasisError, match="no basis set 'TZVP' for H in .*there are for H: DZVP-GTH-q1"):
        basis_shells("H", "TZVP", (path,))


@pytest.mark.parametrize(
    ("old", "new"), [("0.3  -0.6   1.0", "0.3  -0.6"), ("  2  1  2  1  1 1", "  2  1  2  1  1"), ("0.7 ", "x ")]
)
def test_broken_basis_sets(tmp_path, old, new):
    path = tmp_path / "SETS"
    path.write_text(BASIS.replace(old, new))
    with pytest.raises(FormatError, match="SETS: the basis set at line 3 is broken"):
        basis_shells("H", "DZVP-GTH", (path,))


@settings(deadline=None, max_examples=30)  # PySCF is imported in the first
@given(l=st.integers(0, 3), exponents=st.lists(st.floats(0.1, 20), min_size=1, max_size=4, unique=True))
def test_contractions_have_unit_norm(tmp_path_factory, l, exponents):
    """<phi|phi> = 1 by PySCF's integrals, as CP2K's S has it."""
    path = tmp_path_factory.mktemp("basis") / "SETS"
    rows = "\n".join(f"{a!r} {1 + k}" for k, a in enumerate(exponents))
    path.write_text(f"H X\n1\n{l + 1} {l} {l} {len(exponents)} 1\n{rows}\n")
    basis = OrbitalBasis((Species("H", 1, 1.0, basis_shells("H", "X", (path,))),))
    overlap = overlap_from_basis(AtomicStructure([1], [0], [[0.0, 0, 0]]), basis)
    assert_allclose(overlap.values.reshape(2 * l + 1, -1), np.eye(2 * l + 1), atol=1e-12)


def test_bs_with_labels_and_two_spins():
    bands = read_bs(run("h_spin") / "uks_hatom.bs")
    assert bands.energies.shape == (2, 6, 5)
    assert bands.labels == ((0, "G"), (5, "X"))
    assert_allclose(bands.kpoints[:, 0], np.linspace(0, 0.5, 6))
    assert bands.fermi_energy is None
    assert read_bs(run("hbn") / "hbn.bs").labels == ((0, "G"), (3, "M"), (6, "K"), (9, "G"))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda text: text[: len(text) // 2], "line .* should hold|cut short"),
        (lambda text: text.replace("# Set", "# Group"), "expected '# Set 1"),
        (lambda text: text.replace("Special point 2", "Special 2"), "should hold a special point"),
        (lambda text: text.replace("6 k-points", "9 k-points"), "6 k-points before line .* the set has 9"),
        (lambda text: "", "empty"),
    ],
)
def test_spoiled_bs(tmp_path, spoil, words):
    path = tmp_path / "x.bs"
    path.write_text(spoil((run("h_spin") / "uks_hatom.bs").read_text()))
    with pytest.raises(FormatError, match=words):
        read_bs(path)
    with pytest.raises(FormatError, match="cannot be read"):
        read_bs(tmp_path / "absent.bs")
