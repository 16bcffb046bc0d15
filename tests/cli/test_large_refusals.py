"""What the verbs for large cells refuse, and with what words: memory, overlap, shifts, electrons, engines."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from golden_files import golden
from typer.testing import CliRunner

from hamnet.bands import large
from hamnet.bands.solvers import DenseEigensolver, pardiso, slepc
from hamnet.cli import app
from hamnet.core.calculation import Calculation
from hamnet.core.supercell import supercell
from hamnet.data.store import write_store
from hamnet.errors import ConfigError, PhysicsError
from hamnet_preprocess.openmx import OpenMXReader

K = "0.13 0.21 0, 0.31 0.11 0"
BANDS = ["--bands", "6", "--engine", "superlu", "--path", K, "--points", "2"]


@pytest.fixture(scope="module")
def cell() -> Calculation:
    """3 x 3 graphene."""
    return supercell(OpenMXReader().read(golden("openmx/graphene")), (3, 3, 1))


@pytest.fixture(scope="module")
def sheet(cell: Calculation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same in a store."""
    path = tmp_path_factory.mktemp("large") / "sheet.h5"
    write_store(path, [("sheet", cell)])
    return path


def invoke(*arguments: object) -> object:
    """Outcome of a command line."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_too_little_memory_is_told_before_the_work(
    sheet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(large, "available_memory", lambda: 50_000)
    outcome = invoke("bands", sheet, *BANDS, "-o", tmp_path)
    assert isinstance(outcome.exception, PhysicsError)
    for words in ("GB are free", "What would do", "at Gamma", "--no-certify", "--engine slepc"):
        assert words in str(outcome.exception)
    assert not (tmp_path / "kpoints").exists()


@pytest.mark.parametrize("verb", ["bands", "fermi", "dos"])
def test_overlap_that_is_not_positive_definite(cell: Calculation, tmp_path: Path, verb: str) -> None:
    values = cell.overlap.values.copy()
    values[cell.overlap.offsets[int(np.flatnonzero(cell.overlap.pairs.on_site)[0])]] = -0.1  # a negative norm
    path = tmp_path / "broken.h5"
    write_store(path, [("broken", replace(cell, overlap=cell.overlap.with_values(values)))])
    options = {"bands": [*BANDS, "-o", tmp_path], "fermi": ["--mesh", "1,1,1", "--engine", "superlu"]}
    options["dos"] = ["--mesh", "1,1,1", "--method", "counts", "--engine", "superlu", "-o", tmp_path]
    outcome = invoke(verb, path, *options[verb])
    assert isinstance(outcome.exception, PhysicsError)
    assert "not positive definite" in str(outcome.exception)
    assert "--project-overlap" in str(outcome.exception)


def test_a_shift_on_an_eigenvalue_is_moved(cell: Calculation, sheet: Path, tmp_path: Path) -> None:
    exact = DenseEigensolver(cell).all_energies(np.array([0.13, 0.21, 0.0]))[0]
    outcome = invoke("bands", sheet, *BANDS, "--around", repr(float(exact[36])), "-o", tmp_path, "--json")
    figures = json.loads(outcome.stdout)
    assert figures["first_band"] <= 36 < figures["first_band"] + figures["bands"]


@pytest.mark.parametrize("electrons", ["0.0", "-3", "100000"])
def test_electrons_that_cannot_be_reached(sheet: Path, electrons: str) -> None:
    outcome = invoke("fermi", sheet, "--electrons", electrons, "--mesh", "1,1,1")
    assert isinstance(outcome.exception, PhysicsError)
    assert "do not fit the basis" in str(outcome.exception)


@pytest.mark.parametrize(("engine", "advice"), [("pardiso", "pip install hamnet[mkl]"), ("slepc", "python3-slepc4py")])
def test_missing_engine(sheet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str, advice: str) -> None:
    monkeypatch.setattr(pardiso, "_library", lambda: None)
    monkeypatch.setenv(slepc.PYTHON, "/nowhere/python")
    outcome = invoke("bands", sheet, "--bands", 4, "--engine", engine, "--path", K, "--points", 2, "-o", tmp_path)
    assert isinstance(outcome.exception, ConfigError)
    assert advice in str(outcome.exception)


def test_as_many_kpoints_side_by_side_as_fit(sheet: Path, tmp_path: Path) -> None:
    one, many = (
        json.loads(invoke("bands", sheet, *BANDS, "--jobs", jobs, "-o", tmp_path / jobs, "--json").stdout)
        for jobs in ("1", "0")
    )
    assert one["first_band"] == many["first_band"]
    tables = [(tmp_path / jobs / "bands.csv").read_text() for jobs in ("1", "0")]
    assert tables[0] == tables[1]
