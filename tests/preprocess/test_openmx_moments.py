"""Moments of OpenMX runs: printed, from the density matrix in the .scfout, from constraints, or told to be unknown."""

from __future__ import annotations

import logging
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from golden_files import golden, shared_data

from hamnet.errors import FormatError, PhysicsError
from hamnet_preprocess.openmx import OpenMXReader
from hamnet_preprocess.openmx_deck import Deck
from hamnet_preprocess.openmx_moments import deck_moments, density_moments, field_remark, refuse_spiral
from hamnet_preprocess.openmx_scfout import LINE, read_header

TILTED = "openmx/o2_noncollinear_soc"
ROWS = "1 O 0 0 0 3.5 2.5 60 30 0 0 1 off\n2 O 0 0 1.2 4.0 2.0 90 -45 0 0 {flag} off"


def deck(constraint: str, flag: int = 1, rows: str = ROWS) -> Deck:
    """Two atoms with angles and flags."""
    text = f"{constraint}\n<Atoms.SpeciesAndCoordinates\n{rows.format(flag=flag)}\nAtoms.SpeciesAndCoordinates>"
    return Deck.parse(text.splitlines(), Path("deck.dat"))


def lone_scfout(folder: Path, name: str = TILTED) -> Path:
    """A copy of a .scfout without the .out beside it."""
    return Path(shutil.copy(golden(name) / "openmx.scfout", folder / "openmx.scfout"))


def without_density(path: Path) -> None:
    """Zero the density matrix, as in files that were slimmed."""
    header = read_header(path)
    with path.open("r+b") as file:
        for s in range(header.spin + 1):
            file.seek(header.matrix_start + 8 * header.size * header.matrix_index(f"DM{s}"))
            file.write(bytes(8 * header.size))


def edit_deck(path: Path, old: str, new: str) -> None:
    """Change one line of the deck inside a .scfout; lines have 256 bytes there."""
    data = path.read_bytes()
    at = data.index(old.encode())
    line = data[at : at + LINE]
    changed = line.split(b"\0", 1)[0].replace(old.encode(), new.encode()).ljust(LINE, b"\0")
    path.write_bytes(data[:at] + changed + data[at + LINE :])


@pytest.mark.parametrize("name", ["openmx/o2_spin", TILTED])
def test_without_out_the_density_matrix_gives_what_openmx_prints(name: str, tmp_path: Path) -> None:
    printed = OpenMXReader().read(golden(name), allow_unconverged=True).structure.moments
    found = OpenMXReader().read(lone_scfout(tmp_path, name)).structure.moments
    assert np.abs(printed).max() > 0.7
    # angles are printed with four decimals: 1e-6 radians of one Bohr magneton; collinear ones with nine digits
    np.testing.assert_allclose(found, printed, atol=5e-6 if name == TILTED else 1e-9)


def test_density_matrix_of_a_crystal(tmp_path: Path) -> None:
    folder = shared_data("openmx/hgraphene_spin")
    if folder is None:
        pytest.skip("the shared data is not here: set HAMNET_SHARED_DATA")
    printed = OpenMXReader().read(folder).structure.moments
    found = density_moments(read_header(folder / "openmx.scfout"))
    np.testing.assert_allclose(found, printed, atol=2e-9)  # nine printed decimals, up minus down


def test_nonmagnetic_runs_have_no_moments(tmp_path: Path) -> None:
    assert OpenMXReader().read(lone_scfout(tmp_path, "openmx/bismuthene_soc")).structure.moments is None
    assert density_moments(read_header(golden("openmx/graphene") / "openmx.scfout")) is None


def test_unknown_moments_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The deck's initial angles are not the state's: without density matrix and .out nothing is made up."""
    path = lone_scfout(tmp_path)
    without_density(path)
    with caplog.at_level(logging.WARNING):
        assert OpenMXReader().read(path).structure.moments is None
    assert "its moments are unknown" in caplog.text
    assert "free to change" in caplog.text


def test_constrained_moments_are_those_of_the_deck(tmp_path: Path) -> None:
    """on2 holds direction and size of each flagged atom; the angles and flags stand in this run's deck."""
    path = lone_scfout(tmp_path)
    without_density(path)
    edit_deck(path, "scf.SpinOrbit.Coupling on", "scf.Constraint.NC.Spin on2")
    moments = OpenMXReader().read(path).structure.moments
    theta, phi = np.radians((60, 30))
    axis = [np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi), np.cos(theta)]
    np.testing.assert_allclose(moments, [axis, axis], atol=1e-12)


@pytest.mark.parametrize(("constraint", "flag", "kept"), [("on2", 1, True), ("on2", 0, False), ("on", 1, False)])
def test_what_a_deck_keeps(constraint: str, flag: int, kept: bool) -> None:
    said = deck_moments(deck(f"scf.Constraint.NC.Spin {constraint}", flag), 3)
    assert said.is_kept is kept
    np.testing.assert_allclose(said.moments[1], [2**0.5, -(2**0.5), 0], atol=1e-12)
    assert said.flagged.tolist() == [True, bool(flag)]


def test_collinear_decks_have_no_angles() -> None:
    """Eight words: up, down and the +U switch; along z, without a constraint."""
    rows = "1 O 0 0 0 3.5 2.5 on\n2 O 0 0 1.2 2.0 4.0"
    said = deck_moments(deck("scf.Constraint.NC.Spin on2", rows=rows), 1)
    np.testing.assert_allclose(said.moments, [[0, 0, 1], [0, 0, -2]])
    assert not said.is_kept
    assert not deck_moments(deck("", rows=rows), 0).moments.any()
    with pytest.raises(FormatError, match="two angles"):
        deck_moments(deck("", rows="1 O 0 0 0 3.5 2.5 sixty 30 0 0 1 off"), 3)


def test_overlap_only_runs_take_the_moments_asked_for(tmp_path: Path) -> None:
    """No SCF has changed them: a prediction's input."""
    path = lone_scfout(tmp_path)
    header = read_header(path)
    with path.open("r+b") as file:
        for name in ("H0", "H1", "H2", "H3", "iH0", "iH1", "iH2"):
            file.seek(header.matrix_start + 8 * header.size * header.matrix_index(name))
            file.write(bytes(8 * header.size))
    calculation = OpenMXReader().read(path)
    assert calculation.hamiltonian is None
    np.testing.assert_allclose(calculation.structure.moments[0], [0.75, 3**0.5 / 4, 0.5], atol=1e-12)


def test_fields_and_spirals_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert field_remark(deck("scf.NC.Zeeman.Spin off")) is None
    assert "scf.NC.Zeeman.Spin on" in field_remark(deck("scf.NC.Zeeman.Spin on"))
    refuse_spiral(deck("scf.Generalized.Bloch off"))
    with pytest.raises(PhysicsError, match=re.escape("whole turn")):
        refuse_spiral(deck("scf.Generalized.Bloch ON"))
    path = lone_scfout(tmp_path)
    edit_deck(path, "scf.SpinOrbit.Coupling on", "scf.NC.Zeeman.Spin on")
    with caplog.at_level(logging.WARNING):
        OpenMXReader().read(path)
    assert "applied field" in caplog.text
