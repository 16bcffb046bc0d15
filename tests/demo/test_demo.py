"""`hamnet demo --quick` from the command line: every step runs, and what it leaves is whole."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hamnet.data.store import Store
from hamnet.demo.script import unpack_sample
from hamnet_preprocess.openmx import OpenMXReader


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], str]:
    """Folder, figures and what a person sees."""
    folder = tmp_path_factory.mktemp("demo")
    command = [sys.executable, "-c", "from hamnet.cli import main; main()", "demo", "--quick", "--json", "-o", "out"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout), done.stderr  # json.loads refuses anything but one object


def test_every_step_left_its_files(demo: tuple[Path, dict[str, Any], str]) -> None:
    out = demo[0] / "out"
    for name in ("report.md", "bands.png", "data.h5", "run/model.ckpt", "prediction.h5", "bands/bands.csv"):
        assert (out / name).stat().st_size > 100, name
    with Store(out / "prediction.h5") as store:
        assert store.read(0).hamiltonian is not None


def test_figures_are_numbers(demo: tuple[Path, dict[str, Any], str]) -> None:
    figures = demo[1]
    for step, key in (("evaluate", "hamiltonian_mae_meV"), ("bands", "max_difference_aligned_eV"), ("train", "steps")):
        assert np.isfinite(figures[step][key])
    # Untrained, H is off by volts; seconds of training bring the mean error of a block below one.
    assert figures["evaluate"]["hamiltonian_mae_meV"] < 1000
    dirac = [row["dft_eV"] for row in figures["bands"]["levels"] if row["k"] == "K" and "low" not in row["level"]]
    # The Dirac point lies at the Fermi level, which OpenMX places to its electronic temperature, 300 K or 0.03 eV.
    assert dirac == pytest.approx([0.0], abs=0.03)


def test_each_command_is_printed_and_is_a_command(demo: tuple[Path, dict[str, Any], str]) -> None:
    import typer

    from hamnet.cli import app

    folder, figures, screen = demo
    root: Any = typer.main.get_command(app)
    report = (folder / "out" / "report.md").read_text(encoding="utf-8")
    assert len(figures["commands"]) == 7
    for command in figures["commands"]:
        assert command in report
        assert f"$ {command}" in screen
        words = shlex.split(command)[1:]
        verb = root.commands[words.pop(0)]
        if hasattr(verb, "commands"):
            verb = verb.commands[words.pop(0)]
        verb.make_context("hamnet", words)  # a wrong option raises here; nothing runs


def test_report_says_that_quick_figures_mean_nothing(demo: tuple[Path, dict[str, Any], str]) -> None:
    report = (demo[0] / "out" / "report.md").read_text(encoding="utf-8")
    assert "--quick" in report
    for line in report.splitlines():
        if line.startswith("!["):
            assert (demo[0] / "out" / line.split("](")[1].rstrip(")")).is_file()


def test_the_sample_is_what_openmx_wrote(tmp_path: Path) -> None:
    unpack_sample(tmp_path, 2)
    assert len(list((tmp_path / "train").iterdir())) == 2
    prim = OpenMXReader().read(tmp_path / "prim")
    assert prim.converged
    assert prim.structure.n_atoms == 2
    big = OpenMXReader().read(tmp_path / "test3x3")
    assert big.structure.n_atoms == 18
