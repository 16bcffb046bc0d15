"""`hamnet bands --bands`, `fermi`, `dos`, `unfold` on a small supercell: figures, files, resuming, mistakes."""

import json
from pathlib import Path

import pytest
from golden_files import golden
from typer.testing import CliRunner

from hamnet.cli import app
from hamnet.core.supercell import supercell
from hamnet.data.store import write_store
from hamnet.errors import HamnetError
from hamnet_preprocess.openmx import OpenMXReader


@pytest.fixture(scope="module")
def sheet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """3 x 3 graphene in a store."""
    path = tmp_path_factory.mktemp("large") / "sheet.h5"
    write_store(path, [("sheet", supercell(OpenMXReader().read(golden("openmx/graphene")), (3, 3, 1)))])
    return path


def run(*arguments: str) -> dict:
    outcome = CliRunner().invoke(app, [*arguments, "--json"])
    assert outcome.exit_code == 0, outcome.output
    return json.loads(outcome.stdout)


def test_some_bands_and_a_second_run_that_resumes(sheet: Path, tmp_path: Path) -> None:
    arguments = ["bands", str(sheet), "--bands", "8", "--engine", "superlu", "--path", "G,M", "--points", "4"]
    first = run(*arguments, "-o", str(tmp_path))
    assert first["bands"] >= 8
    assert first["first_band"] < 36 < first["first_band"] + first["bands"]  # 72 electrons: 36 filled bands
    assert len(list((tmp_path / "kpoints").glob("*.npz"))) == first["kpoints"]
    second = CliRunner().invoke(app, [*arguments, "-o", str(tmp_path), "--json"])
    assert f"{first['kpoints']} of {first['kpoints']} k-points are taken" in second.stderr
    lines = (tmp_path / "bands.csv").read_text().splitlines()
    assert lines[1].split(",")[6] == str(first["first_band"])


def test_fermi_level_is_that_of_openmx(sheet: Path) -> None:
    figures = run("fermi", str(sheet), "--mesh", "3,3,1")
    # 0.1 eV: the code's own mesh is another one, and graphene has few states at the Dirac point
    assert figures["fermi_eV"] == pytest.approx(figures["fermi_of_calculation_eV"], abs=0.1)
    assert figures["electrons"] == 72


@pytest.mark.parametrize("method", ["states", "counts", "moments"])
def test_densities_hold_the_electrons(sheet: Path, tmp_path: Path, method: str) -> None:
    arguments = ["--method", method, "--mesh", "1,1,1", "--points", "12", "--moments", "200"]
    figures = run("dos", str(sheet), *arguments, "-o", str(tmp_path))
    # 6 of 72: Gaussians, straight lines between counts, or random vectors blur the steps at Gamma
    assert figures["electrons_below_fermi"] == pytest.approx(72, abs=6)
    assert all(Path(path).stat().st_size > 100 for path in figures["files"].values())


def test_unfolding_of_an_exact_supercell_is_sharp(sheet: Path, tmp_path: Path) -> None:
    primitive = str(golden("openmx/graphene"))
    arguments = ["--primitive", primitive, "--path", "0.11 0.07 0, 0.31 0.17 0", "--points", "3"]
    figures = run("unfold", str(sheet), *arguments, "-o", str(tmp_path))
    assert figures["primitive_cells"] == 9
    assert figures["missing_sites"] == 0
    assert figures["mean_largest_weight"] == pytest.approx(1, abs=1e-9)  # no degeneracy on this path
    assert (tmp_path / "unfolded.png").stat().st_size > 5000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fermi", "--mesh", "3,3"], "three whole numbers"),
        (["fermi", "--electrons", "1000"], "do not fit"),
        (["fermi", "--engine", "magic"], "expected one of"),
        (["dos", "--method", "guess"], "expected one of"),
        (["bands", "--bands", "4", "--around", "nowhere"], "--around"),
    ],
)
def test_mistakes_are_told(sheet: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    verb, *rest = arguments
    output = [] if verb == "fermi" else ["-o", str(tmp_path)]
    outcome = CliRunner().invoke(app, [verb, str(sheet), *rest, *output])
    assert isinstance(outcome.exception, HamnetError)
    assert message in str(outcome.exception)
