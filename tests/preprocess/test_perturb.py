"""`hamnet perturb`: reproducible, symmetric, in the plane of a slab, and never two atoms on one place."""

import json

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.io import read, write
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from hamnet.cli import app
from hamnet.errors import ConfigError, PhysicsError
from hamnet_preprocess.perturb import PerturbSettings, periodic_directions, perturb, strain_tensor

SILICON = bulk("Si", a=5.43)
SHEET = Atoms("BN", [[0, 0, 0], [0, 1.4457, 0]], cell=[[2.504, 0, 0], [-1.252, 2.1685, 0], [0, 0, 15]], pbc=True)


@given(seed=st.integers(0, 2**32 - 1), size=st.floats(0, 0.2), axes=st.sampled_from([[0, 1, 2], [0, 1], [2]]))
def test_strain_is_symmetric_and_stays_in_its_directions(seed, size, axes):
    cell = np.asarray(SHEET.cell.array)
    strain = strain_tensor(size, cell[axes], np.random.default_rng(seed))
    np.testing.assert_array_equal(strain, strain.T)
    outside = np.delete(np.linalg.inv(cell), axes, axis=1)
    # a projection in floating point leaves rounding only
    np.testing.assert_allclose(strain @ outside, 0, atol=1e-14)
    # a projected matrix is no longer than the matrix: three entries of at most `size` a row
    assert np.linalg.norm(strain, 2) <= 3 * size + 1e-14


def test_structure_n_of_a_seed_does_not_depend_on_how_many_are_made():
    settings = PerturbSettings(supercell=(2, 1, 1), seed=7)
    few, many = perturb(SILICON, 2, settings), perturb(SILICON, 5, settings)
    for a, b in zip(few, many, strict=False):
        np.testing.assert_array_equal(a.positions, b.positions)
        np.testing.assert_array_equal(a.cell.array, b.cell.array)
    assert not np.allclose(many[0].positions, many[1].positions)
    assert not np.allclose(
        perturb(SILICON, 1, PerturbSettings(supercell=(2, 1, 1), seed=8))[0].positions, few[0].positions
    )
    assert len(few[0]) == 4


def test_rattle_has_the_size_that_was_asked_for():
    moved = perturb(SILICON, 1, PerturbSettings(rattle=0.03, strain=0.0, supercell=(5, 5, 5)))[0]
    change = moved.positions - (SILICON * (5, 5, 5)).positions
    # 750 numbers: their standard deviation is known to 1 / sqrt(1500) = 2.6 %; four of these
    assert change.std() == pytest.approx(0.03, rel=0.11)
    np.testing.assert_array_equal(moved.cell.array, (SILICON * (5, 5, 5)).cell.array)


@pytest.mark.parametrize("pbc", [True, [True, True, False]])
def test_a_slab_is_strained_in_its_plane(pbc):
    sheet = SHEET.copy()
    sheet.pbc = pbc
    assert periodic_directions(sheet) == [0, 1]
    moved = perturb(sheet, 1, PerturbSettings(rattle=0.0, strain=0.05))[0]
    np.testing.assert_allclose(moved.cell.array[2], [0, 0, 15], atol=1e-13)
    np.testing.assert_allclose(moved.cell.array[:2, 2], 0, atol=1e-13)
    assert abs(np.linalg.det(moved.cell.array) / np.linalg.det(sheet.cell.array) - 1) > 1e-4
    assert periodic_directions(SILICON) == [0, 1, 2]


def test_atoms_that_come_close_are_refused():
    with pytest.raises(PhysicsError, match=r"structure \d+ atoms.*rattle and strain less"):
        perturb(SILICON, 50, PerturbSettings(rattle=0.9))
    with pytest.raises(PhysicsError, match=r"the structure itself.*cell shift \(-1, 0, 0\)"):
        perturb(Atoms("H", cell=[0.3, 5, 5], pbc=True), 1, PerturbSettings())


@pytest.mark.parametrize("wrong", [{"rattle": -1}, {"strain": 0.5}, {"supercell": (0, 1, 1)}, {"seed": -1}])
def test_settings_are_checked(wrong):
    with pytest.raises(ConfigError):
        PerturbSettings(**wrong)


def test_supercells_need_a_period():
    with pytest.raises(ConfigError, match="not periodic along lattice vector 2"):
        perturb(Atoms("H", cell=[2, 2, 9], pbc=[1, 1, 0]), 1, PerturbSettings(supercell=(1, 1, 2)))
    with pytest.raises(ConfigError):
        perturb(SILICON, 0, PerturbSettings())


def test_from_cif_to_extxyz(tmp_path):
    write(tmp_path / "si.cif", SILICON)
    arguments = ["perturb", str(tmp_path / "si.cif"), "--n", "3", "--supercell", "2", "1", "1", "--json"]
    outcome = CliRunner().invoke(app, [*arguments, "-o", str(tmp_path / "s.extxyz")])
    assert outcome.exit_code == 0, outcome.output
    assert json.loads(outcome.stdout) == {
        "structures": 3, "atoms": 4, "strained_directions": [0, 1, 2], "output": str(tmp_path / "s.extxyz"),
    }  # fmt: skip
    found = read(tmp_path / "s.extxyz", index=":")
    assert [len(atoms) for atoms in found] == [4, 4, 4]
    assert all(atoms.pbc.all() for atoms in found)
    with pytest.raises(ConfigError, match="extxyz"):
        CliRunner().invoke(app, [*arguments, "-o", str(tmp_path / "s.cif")], catch_exceptions=False)
