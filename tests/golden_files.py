"""Test data as plain files: what ships with the repository, and the shared data when it is at hand."""

from __future__ import annotations

import atexit
import lzma
import os
import shutil
import tempfile
from functools import cache
from pathlib import Path

GOLDEN = Path(__file__).resolve().parent / "golden"


@cache
def _scratch() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="hamnet-golden-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@cache
def _unpacked(source: Path) -> Path:
    """The file or folder with every .xz in it unpacked, in a temporary folder of this process."""
    if not source.exists() and source.with_name(source.name + ".xz").is_file():
        source = source.with_name(source.name + ".xz")
    files = [source] if source.is_file() else sorted(p for p in source.rglob("*") if p.is_file())
    if not files:
        raise FileNotFoundError(f"no test data at {source}")
    target = _scratch() / str(source.relative_to("/")).removesuffix(".xz")
    for path in files:
        name = str(path.relative_to("/")).removesuffix(".xz")
        out = _scratch() / name
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_bytes(lzma.decompress(path.read_bytes()) if path.suffix == ".xz" else path.read_bytes())
    return target


def golden(name: str) -> Path:
    """File or folder below tests/golden, unpacked: golden("openmx/graphene"). Read it, do not write into it.

    Raises:
        FileNotFoundError: no such data.
    """
    return _unpacked(GOLDEN / name)


def shared_root() -> Path | None:
    """The shared data folder as it is (files may be .xz), or None when it is not here."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    root = Path(os.environ.get("HAMNET_SHARED_DATA") or default)
    return root.resolve() if root.is_dir() else None


def shared_data(name: str = "") -> Path | None:
    """Folder or file of the shared data, unpacked on demand: shared_data("openmx/hbn/prim"); None when absent.

    Without a name it unpacks everything (seconds, hundreds of megabytes): name what you need.
    """
    root = shared_root()
    if root is None:
        return None
    source = root / name if name else root
    if not source.exists() and not source.with_name(source.name + ".xz").exists():
        return None
    return _unpacked(source)
