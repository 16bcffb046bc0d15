"""The README's commands, taken from its text and run as they stand, so that they cannot rot."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hamnet.demo.script import unpack_sample, write_poscar

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
TINY = ["network.layers=1", "network.channels=4", "training.epochs=2", "training.progress=false"]
"""What is added to `hamnet train`: seconds instead of half an hour."""
CALCULATIONS = 6


def block(language: str, after: str) -> list[str]:
    """Lines of the first code block of a language after a heading."""
    found = re.search(rf"^## {re.escape(after)}$.*?^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
    assert found, f"README.md has no {language} block under {after!r}"
    return found.group(1).splitlines()


COMMANDS = [shlex.split(line) for line in block("sh", "From a DFT folder to a band plot")]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as a user has it: configs, runs/ and POSCAR; all commands were run in it."""
    folder = tmp_path_factory.mktemp("readme")
    unpack_sample(folder / "sample")
    for source in sorted((folder / "sample" / "train").iterdir())[:CALCULATIONS]:
        shutil.copytree(source, folder / "runs" / source.name)
    shutil.copytree(ROOT / "configs", folder / "configs")
    write_poscar(folder / "sample" / "prim", folder / "POSCAR")
    for command in COMMANDS:
        assert command[0] == "hamnet"
        arguments = command[1:] + (TINY if command[1] == "train" else [])
        run(["-c", "from hamnet.cli import main; main()", *arguments], folder)
    return folder


def run(arguments: list[str], folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{arguments}: {done.stderr}"
    assert "Traceback" not in done.stderr
    return done.stdout


def test_there_are_five_commands_from_dft_to_bands() -> None:
    assert [command[1] for command in COMMANDS] == ["preprocess", "check", "train", "predict", "bands"]


def test_the_commands_leave_what_the_readme_says(workplace: Path) -> None:
    for name in ("data.h5", "run/model.ckpt", "run/metrics.json", "prediction.h5", "bands/bands.png"):
        assert (workplace / name).stat().st_size > 100, name


def test_the_python_lines_run(workplace: Path) -> None:
    lines = block("python", "From Python")
    lines += ["import sys", "sys.stdout.write(f'{type(hamiltonian).__name__} {type(calculation).__name__}')"]
    assert run(["-c", "\n".join(lines)], workplace) == "BlockMatrix Calculation"


def test_linked_files_exist() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target


def test_readme_fits_on_two_screens() -> None:
    assert len(README.splitlines()) <= 80
