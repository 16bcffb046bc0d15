"""The examples run as a user runs them, on small data, and stay short."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from golden_files import golden

from hamnet.demo.script import write_poscar
from hamnet_preprocess.label_cp2k import COMMANDS

sys.path.insert(0, str(Path(__file__).parent / "predict"))
EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def run(name: str, folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *arguments],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_scfout_to_bands(tmp_path: Path) -> None:
    said = run("01_scfout_to_bands.py", tmp_path, str(golden("openmx/hbn")))
    gap = re.search(r"gap (\S+) eV", said)
    assert gap
    # h-BN's gap in PBE is 4.6 to 4.7 eV; this tells a gap read from the wrong bands.
    assert float(gap.group(1)) == pytest.approx(4.65, abs=0.2)
    assert (tmp_path / "bands.png").stat().st_size > 1000


def test_label_and_train(tmp_path: Path) -> None:
    said = run("02_label_and_train.py", tmp_path, "6", "0.02")
    assert "6 written, 0 failed" in said
    assert (tmp_path / "water_run" / "model.ckpt").is_file()


@pytest.mark.skipif(not any(map(shutil.which, COMMANDS)), reason="CP2K is not installed (apt-get install cp2k)")
def test_crystal_from_scratch(tmp_path: Path) -> None:
    said = run("05_crystal_from_scratch.py", tmp_path, "4", "0.02")
    assert "4 written, 0 failed" in said
    assert "predicted" in said
    assert (tmp_path / "si_run" / "model.ckpt").is_file()


def test_predict(tmp_path: Path) -> None:
    from model_files import untrained

    write_poscar(golden("openmx/graphene"), tmp_path / "POSCAR")
    said = run("03_predict.py", tmp_path, str(untrained(tmp_path)), "POSCAR")
    assert "lowest levels" in said


def test_twisted_bilayer(tmp_path: Path) -> None:
    from model_files import with_radial_functions

    # 28 atoms of an untrained network, at two k-points
    said = run("06_twisted_bilayer.py", tmp_path, str(with_radial_functions(tmp_path)), "1", "2")
    assert "28 atoms, 21.787 degrees" in said
    assert re.search(r"bands about the Fermi level are \d+\.\d meV wide", said)
    assert (tmp_path / "twisted_1.png").stat().st_size > 1000


def test_rotate_blocks(tmp_path: Path) -> None:
    said = run("04_rotate_blocks.py", tmp_path, str(golden("openmx/graphene")))
    change = re.search(r"eigenvalue: (\S+) eV", said)
    assert change
    # Rotation matrices are orthogonal to 1e-15; energies are up to 100 eV.
    assert float(change.group(1)) < 1e-10


def test_examples_are_short_and_say_how_to_run_them() -> None:
    found = sorted(EXAMPLES.glob("*.py"))
    assert len(found) >= 4
    for path in found:
        text = path.read_text(encoding="utf-8")
        assert len(text.splitlines()) < 80
        assert f"Run: python examples/{path.name}" in text
