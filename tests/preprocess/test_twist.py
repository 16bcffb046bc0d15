"""Twisted and shifted bilayers: two whole sheets in one cell, at the angle asked for, refused when impossible."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import graphene, mx2
from ase.io import read, write
from ase.neighborlist import neighbor_list
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from hamnet.cli import app
from hamnet.errors import ConfigError, PhysicsError
from hamnet_preprocess.twist import Twist, stacked_bilayer, twisted_bilayer

SHEET = graphene(a=2.46, vacuum=5.0)
BOND = 2.46 / math.sqrt(3)
TWISTS = (
    st.tuples(st.integers(1, 4), st.integers(1, 4)).filter(lambda pair: math.gcd(*pair) == 1).map(lambda p: Twist(*p))
)


def bonds(atoms: Atoms) -> np.ndarray:
    """Angles (modulo 60 degrees) of the bonds of one layer, after counting that each atom has three of one length."""
    i, vectors = neighbor_list("iD", atoms, 1.2 * BOND)
    np.testing.assert_array_equal(np.bincount(i, minlength=len(atoms)), 3)
    # coordinates up to 40 A in double precision, summed a few times
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), BOND, atol=1e-12)
    return np.degrees(np.arctan2(vectors[:, 1], vectors[:, 0])) % 60


@settings(max_examples=12, deadline=None)
@given(twist=TWISTS, oblique=st.booleans())
def test_each_layer_is_a_whole_sheet_and_the_angle_is_the_one_stated(twist: Twist, oblique: bool) -> None:
    sheet = SHEET.copy()
    if oblique:
        sheet.set_cell([SHEET.cell[1], -SHEET.cell[0], SHEET.cell[2]])
    atoms = twisted_bilayer(sheet, twist)
    assert len(atoms) == 4 * twist.cells
    p, q = twist.m, twist.m + twist.r
    assert twist.cells * (3 if twist.r % 3 == 0 else 1) == p * p + p * q + q * q
    lower, upper = (bonds(atoms[atoms.get_tags() == tag]) for tag in (1, 2))
    turn = (upper[0] - lower[0]) % 60
    # angles of bonds of 1.42 A known to 1e-12 A
    assert min(abs(turn - twist.angle % 60), 60 - abs(turn - twist.angle % 60)) < 1e-9
    np.testing.assert_allclose(atoms.cell.cellpar()[[3, 4, 5]], [90, 90, 120])
    heights = [atoms.positions[atoms.get_tags() == tag, 2].mean() for tag in (1, 2)]
    assert heights[1] - heights[0] == pytest.approx(3.35)


@pytest.mark.parametrize(
    ("m", "angle", "count"), [(1, 21.787, 28), (2, 13.174, 76), (20, 1.614, 5044), (31, 1.050, 11908)]
)
def test_cells_of_the_literature(m: int, angle: float, count: int) -> None:
    twist = Twist(m)
    # three decimals are what papers print
    assert twist.angle == pytest.approx(angle, abs=5e-4)
    assert 4 * twist.cells == count
    assert Twist.nearest(angle) == twist


def test_nearest_is_nearest() -> None:
    # between m = 1 (21.79) and m = 2 (13.17), whose middle is 17.48
    assert [Twist.nearest(angle).m for angle in (30, 17.6, 17.4, 13)] == [1, 1, 2, 2]


def test_thick_sheets_keep_their_layers_apart() -> None:
    sheet = mx2("MoS2", vacuum=5.0)
    atoms = twisted_bilayer(sheet, Twist(1), distance=6.2)
    assert len(atoms) == 42
    lower, upper = (atoms.positions[atoms.get_tags() == tag, 2] for tag in (1, 2))
    assert upper.min() - lower.max() == pytest.approx(6.2 - np.ptp(sheet.positions[:, 2]))
    with pytest.raises(PhysicsError, match="go through each other"):
        twisted_bilayer(sheet, Twist(1), distance=3.0)


def test_stackings_of_graphene_by_their_shift() -> None:
    def above(shift: tuple[float, float]) -> int:
        """Atoms of the lower layer that have one straight above them."""
        atoms = stacked_bilayer(SHEET, shift)
        i, vectors = neighbor_list("iD", atoms, 3.36)
        return len(set(i[(vectors[:, 2] > 3) & (np.linalg.norm(vectors[:, :2], axis=1) < 1e-6)]))

    assert len(stacked_bilayer(SHEET)) == 4
    angle = SHEET.cell.cellpar()[5]
    ab = (1 / 3, 1 / 3) if angle < 90 else (1 / 3, 2 / 3)
    assert [above(shift) for shift in ((0, 0), ab, (0.5, 0))] == [2, 1, 0]


@pytest.mark.parametrize(("m", "r"), [(0, 1), (2, 2), (1, 0), (-3, 1)])
def test_impossible_twists_are_refused(m: int, r: int) -> None:
    with pytest.raises(ConfigError, match=f"m = {m}, r = {r}"):
        Twist(m, r)


@pytest.mark.parametrize("angle", [0.0, 31.0, float("nan")])
def test_impossible_angles_are_refused(angle: float) -> None:
    with pytest.raises(ConfigError, match="expected 0.05 to 30"):
        Twist.nearest(angle)


def test_other_lattices_are_refused() -> None:
    square = Atoms("C", cell=[2.5, 2.5, 12], pbc=True)
    with pytest.raises(PhysicsError, match="not hexagonal"):
        twisted_bilayer(square, Twist(1))
    upright = Atoms("C", cell=[[2.5, 0, 0], [0, 0, 2.5], [0, 12, 0]], pbc=True)
    for build in (lambda: twisted_bilayer(upright, Twist(1)), lambda: stacked_bilayer(upright)):
        with pytest.raises(PhysicsError, match="in the xy plane"):
            build()


def test_command(tmp_path: Path) -> None:
    write(tmp_path / "POSCAR", SHEET, format="vasp")
    output = tmp_path / "tbg.extxyz"
    done = CliRunner().invoke(
        app, ["twist", str(tmp_path / "POSCAR"), "--angle", "13", "-o", str(output), "--json"], catch_exceptions=False
    )
    assert json.loads(done.stdout)["atoms"] == 76 == len(read(output))
    assert json.loads(done.stdout)["angle"] == pytest.approx(Twist(2).angle)
