"""`hamnet label pyscf`: written, skipped, refused; what it writes reads back."""

import json

import numpy as np
import pytest
from ase import Atoms
from ase.io import write
from typer.testing import CliRunner

from hamnet.cli import app
from hamnet.errors import ConfigError, PhysicsError
from hamnet_preprocess.label import LabelSettings, engine, label_all
from hamnet_preprocess.label_pyscf import mean_field
from hamnet_preprocess.pyscf import PySCFReader

WATER = Atoms("OH2", [[0, 0, 0], [0.1, 0.76, 0.59], [0, -0.76, 0.59]])


def test_label_is_resumable_and_reads_back(tmp_path):
    source, folder = tmp_path / "w.extxyz", tmp_path / "out"
    write(source, [WATER, Atoms("H2", [[0, 0, 0], [0, 0, 0.74]])])
    arguments = ["label", "pyscf", str(source), "--basis", "sto-3g", "--grid-level", "1", "-o", str(folder), "--json"]
    for expected in ((2, 0), (0, 2)):
        outcome = CliRunner().invoke(app, arguments)
        assert outcome.exit_code == 0, outcome.output
        figures = json.loads(outcome.stdout)
        assert (figures["written"], figures["skipped"], figures["failed"]) == (*expected, 0)
    assert sorted(path.name for path in folder.iterdir()) == ["w_0.chk", "w_1.chk"]
    other = CliRunner().invoke(app, [*arguments, "--xc", "lda,vwn"])
    assert other.exit_code == 1
    assert "other settings" in json.loads(other.stdout)["failures"][0]["reason"]
    calculation = PySCFReader().read(folder / "w_0.chk")
    assert calculation.converged
    assert calculation.provenance.functional.startswith("pbe (libxc")
    assert calculation.provenance.convergence == "conv_tol 1e-10 Ha"
    assert calculation.provenance.grid == "level 1"
    # extxyz keeps eight decimals
    np.testing.assert_allclose(calculation.structure.positions, WATER.positions, atol=1e-8)


def test_failures_do_not_stop_the_others_and_leave_no_file(tmp_path):
    seen = []
    settings = LabelSettings(basis="sto-3g", xc="hf")
    odd = Atoms("OH", [[0, 0, 0], [0, 0, 0.97]])  # one electron too few for spin 0
    result = label_all(
        "pyscf", [("odd", odd), ("good", Atoms("He"))], tmp_path, settings, on_event=lambda *e: seen.append(e)
    )
    assert result.written == ["good"]
    assert result.failed[0][0] == "odd"
    assert [event[1] for event in seen] == ["failed", "written"]
    assert [path.name for path in tmp_path.iterdir()] == ["good.chk"]


@pytest.mark.parametrize(
    "wrong", [{"conv_tol": 1e-8}, {"kmesh": (0, 1, 1)}, {"spin": -1}, {"grid_level": 10}, {"conv_tol": float("nan")}]
)
def test_settings_are_checked(wrong):
    with pytest.raises(ConfigError):
        LabelSettings(**wrong)


def test_settings_must_fit_the_structure():
    with pytest.raises(PhysicsError, match="silently"):
        mean_field(WATER, LabelSettings(basis="sto-3g", soc=True))
    with pytest.raises(ConfigError, match="periodic"):
        mean_field(WATER, LabelSettings(basis="sto-3g", pseudo="gth-pbe"))
    with pytest.raises(ConfigError, match="pseudopotential"):
        mean_field(Atoms("H", cell=[3, 3, 3], pbc=True), LabelSettings(basis="gth-szv"))
    with pytest.raises(ConfigError, match="pyscf"):
        engine("vasp")
