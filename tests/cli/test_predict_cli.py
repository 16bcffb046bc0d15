"""`hamnet predict` as a user types it."""

import json
import sys
from pathlib import Path

import pytest
from ase.build import graphene
from typer.testing import CliRunner

from hamnet.cli import app, main
from hamnet.data.store import Store

sys.path.insert(0, str(Path(__file__).parents[1] / "predict"))
from model_files import untrained


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return untrained(tmp_path_factory.mktemp("model"))


@pytest.fixture
def poscar(tmp_path: Path) -> Path:
    atoms = graphene(vacuum=8.0)
    atoms.pbc = True
    atoms.write(tmp_path / "POSCAR", format="vasp")
    return tmp_path / "POSCAR"


def test_json_is_one_object_with_the_figures(tmp_path: Path, checkpoint: Path, poscar: Path) -> None:
    output = tmp_path / "H.h5"
    result = CliRunner().invoke(app, ["predict", str(checkpoint), str(poscar), "-o", str(output), "--json"])
    assert result.exit_code == 0, result.output
    figures = json.loads(result.stdout)
    assert {"seconds", "peak_memory_GB", "pairs", "structures", "output"} <= set(figures)
    with Store(output) as store:
        calculation = store.read("POSCAR")
    assert calculation.hamiltonian is not None
    assert figures["pairs"] == calculation.overlap.pairs.n_pairs
    assert figures["structures"] == 1
    assert figures["seconds"] > 0
    assert figures["peak_memory_GB"] > 0


def test_a_given_overlap_is_taken(tmp_path: Path, checkpoint: Path, poscar: Path) -> None:
    first, second = tmp_path / "first.h5", tmp_path / "second.h5"
    arguments = ["predict", str(checkpoint), str(poscar), "-o"]
    assert CliRunner().invoke(app, [*arguments, str(first)]).exit_code == 0
    result = CliRunner().invoke(app, [*arguments, str(second), "--overlap", str(first)])
    assert result.exit_code == 0, result.output
    assert "wrote" in result.output
    with Store(first) as one, Store(second) as two:
        assert (one.read(0).overlap.values == two.read(0).overlap.values).all()


def test_help_has_an_example() -> None:
    result = CliRunner().invoke(app, ["predict", "--help"])
    assert result.exit_code == 0
    assert "Example: hamnet predict run/model.ckpt POSCAR -o H.h5" in " ".join(result.output.split())


def test_an_absent_model_is_one_message(
    tmp_path: Path, poscar: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["hamnet", "predict", str(tmp_path / "no.ckpt"), str(poscar), "-o", str(tmp_path / "H.h5")]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 1
    assert "no checkpoint at" in capsys.readouterr().err
    assert not (tmp_path / "H.h5").exists()


def test_memory_predicts_tile_by_tile_into_a_store(tmp_path: Path, checkpoint: Path, poscar: Path) -> None:
    output = tmp_path / "H.h5"
    command = ["predict", str(checkpoint), str(poscar), "-o", str(output), "--memory", "8GB", "--json"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    figures = json.loads(result.stdout)
    assert (figures["atoms"], figures["tiles"]) == (2, 1)
    assert figures["forecast_seconds"] > 0
    assert 0 < figures["peak_memory_GB"] < 8
    with Store(output) as store:
        assert store.read("POSCAR").overlap.pairs.n_pairs == figures["pairs"]
    output.rename(tmp_path / "S.h5")
    assert CliRunner().invoke(app, [*command, "--overlap", str(tmp_path / "S.h5")]).exit_code == 0
    assert output.exists()
    assert CliRunner().invoke(app, [*command, "--reference", str(tmp_path / "S.h5")]).exit_code != 0
