"""`hamnet bands` on real outputs: the code's own bands are met, files appear, mistakes are told."""

import json
from pathlib import Path

import h5py
import pytest
from golden_files import golden
from typer.testing import CliRunner

from hamnet.cli import app
from hamnet.cli.bands_verb import parse_window
from hamnet.errors import ConfigError


@pytest.mark.parametrize("name", ["graphene", "hbn", "bismuthene_soc"])
def test_bands_meet_those_that_openmx_printed(name: str, tmp_path: Path) -> None:
    folder = golden(f"openmx/{name}")
    arguments = ["bands", str(folder), "--compare", str(folder / "openmx.Band"), "-o", str(tmp_path), "--json"]
    outcome = CliRunner().invoke(app, arguments)
    assert outcome.exit_code == 0, outcome.output
    figures = json.loads(outcome.stdout)
    assert figures["max_difference_eV"] < 1e-6  # OpenMX prints 1e-9 Hartree and its H is asymmetric at 1e-8 eV
    assert figures["kpoints"] == 60
    assert all(Path(path).stat().st_size > 500 for path in figures["files"].values())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bands.csv", "bands.h5", "bands.png"]
    with h5py.File(tmp_path / "bands.h5") as file:
        assert file["energies"].attrs["unit"] == "eV"


def test_the_kpoints_of_printed_bands_win_and_it_is_said(tmp_path: Path) -> None:
    folder = golden("openmx/hbn")
    arguments = ["bands", str(folder), "--path", "G,M", "--compare", str(folder / "openmx.Band"), "-o", str(tmp_path)]
    figures = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).stdout)
    assert figures["kpoints"] == 60
    assert figures["max_difference_eV"] < 1e-6  # as above
    assert "the path G,M is not used" in figures["path"]


def test_compare_with_itself_and_fat_bands(tmp_path: Path) -> None:
    folder = str(golden("openmx/graphene"))
    arguments = ["bands", folder, "--compare", folder, "--project", "--points", "12", "--window", "-10,5"]
    outcome = CliRunner().invoke(app, [*arguments, "-o", str(tmp_path), "--json"])
    assert outcome.exit_code == 0, outcome.output
    assert json.loads(outcome.stdout)["max_difference_eV"] == pytest.approx(0, abs=1e-9)  # vectors or not: LAPACK's own
    assert "weight_C_p" in (tmp_path / "bands.csv").read_text().splitlines()[0]


def test_windows() -> None:
    assert parse_window("-10 5") == (-10, 5)
    assert parse_window("3") == (-3, 3)
    with pytest.raises(ConfigError, match="low,high"):
        parse_window("5,-5")
