"""`hamnet preprocess` and `hamnet inspect` on real output, by the command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import golden_files
import pytest
from typer.testing import CliRunner

from hamnet.cli import app
from hamnet.data.store import Store
from hamnet.errors import ConfigError, FormatError


@pytest.fixture
def runs(tmp_path) -> Path:
    """Two spinless calculations that are good and one folder cut short."""
    for name in ("graphene", "hbn"):
        source = golden_files.golden(f"openmx/{name}")
        scfout = sorted(source.rglob("*.scfout"))[0].parent
        shutil.copytree(scfout, tmp_path / "runs" / name)
    (tmp_path / "runs" / "broken").mkdir()
    (tmp_path / "runs" / "broken" / "openmx.scfout").write_bytes(b"\0" * 100)
    return tmp_path / "runs"


def invoke(*arguments: object):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def test_good_ones_are_kept_and_bad_ones_named(tmp_path, runs):
    output = tmp_path / "data.h5"
    result = invoke("preprocess", "openmx", runs, "-o", output, "--json")
    assert result.exit_code == 1
    figures = json.loads(result.stdout)
    assert (figures["read"], figures["failed"], figures["skipped"]) == (2, 1, 0)
    assert "broken" in figures["failures"][0]["source"]
    assert figures["failures"][0]["reason"].startswith("FormatError")
    assert sorted(Store(output).names) == ["graphene", "hbn"]
    again = json.loads(invoke("preprocess", "openmx", runs, "-o", output, "--json").stdout)
    assert (again["read"], again["failed"], again["skipped"]) == (0, 1, 2)
    shutil.rmtree(runs / "broken")
    assert invoke("preprocess", "openmx", runs, "-o", output).exit_code == 0


def test_the_number_of_jobs_does_not_change_the_store(tmp_path, runs):
    for jobs in (1, 2):
        invoke("preprocess", "openmx", runs, "-o", tmp_path / f"{jobs}.h5", "--jobs", jobs)
    assert (tmp_path / "1.h5").read_bytes() == (tmp_path / "2.h5").read_bytes()


def test_nothing_found(tmp_path):
    (tmp_path / "empty").mkdir()
    result = invoke("preprocess", "openmx", tmp_path / "empty", "-o", tmp_path / "d.h5")
    assert isinstance(result.exception, FormatError)
    assert isinstance(invoke("preprocess", "openmx", tmp_path / "no", "-o", "d.h5").exception, ConfigError)
    assert [p.name for p in tmp_path.iterdir()] == ["empty"]


def test_when_all_fail_the_figures_are_still_told(tmp_path, runs):
    output = tmp_path / "d.h5"
    result = invoke("preprocess", "openmx", runs / "broken", "-o", output, "--json")
    assert result.exit_code == 1
    figures = json.loads(result.stdout)
    assert (figures["read"], figures["failed"]) == (0, 1)
    assert "broken/openmx.scfout" in figures["failures"][0]["reason"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["runs"]


def test_inspect_store_folder_and_rubbish(tmp_path, runs):
    output = tmp_path / "data.h5"
    invoke("preprocess", "openmx", runs, "-o", output)
    figures = json.loads(invoke("inspect", output, "--json").stdout)
    assert figures["elements"] == ["B", "C", "N"]
    assert figures["kind"] == "store"
    assert "2s 1p" in invoke("inspect", runs / "graphene").stdout
    rubbish = tmp_path / "x.txt"
    rubbish.write_text("hello")
    assert isinstance(invoke("inspect", rubbish).exception, FormatError)
