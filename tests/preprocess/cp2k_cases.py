"""The recorded CP2K runs, unpacked once per process; copies of them to spoil."""

from __future__ import annotations

import atexit
import shutil
import tarfile
import tempfile
from functools import cache
from pathlib import Path

from hamnet.core.calculation import Calculation
from hamnet_preprocess.cp2k import CP2KReader

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "cp2k"


@cache
def run(name: str) -> Path:
    """Folder of a recorded run with the basis-set files beside it. Read it, do not write into it."""
    folder = Path(tempfile.mkdtemp(prefix=f"hamnet-cp2k-{name}-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    with tarfile.open(GOLDEN / f"{name}.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    for name in ("BASIS_MOLOPT", "GTH_BASIS_SETS"):
        shutil.copy(GOLDEN / name, folder)
    return folder


@cache
def calculation(name: str) -> Calculation:
    """A recorded run as the reader reads it."""
    return CP2KReader().read(run(name), allow_unconverged=True)


def spoiled(name: str, target: Path) -> Path:
    """A copy of a recorded run that may be changed."""
    return Path(shutil.copytree(run(name), target / "run"))


def change(path: Path, old: str, new: str) -> None:
    """Replace a text that must be there."""
    text = path.read_text()
    if old not in text:
        raise AssertionError(f"{path} has no {old!r}")
    path.write_text(text.replace(old, new))
