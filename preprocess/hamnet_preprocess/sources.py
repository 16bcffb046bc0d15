"""open_source: whatever file or folder a user points at, as calculations that are read when asked for."""

from __future__ import annotations

from collections.abc import Callable
from fnmatch import fnmatch
from functools import partial
from pathlib import Path

import h5py

from hamnet.core.calculation import Calculation
from hamnet.data.store import Store, is_store
from hamnet.errors import FormatError
from hamnet_preprocess.cp2k_out import is_out
from hamnet_preprocess.reader import READER_CLASSES, reader
from hamnet_preprocess.row_database import database_kind, split_row

Opened = list[tuple[str, Callable[[], Calculation]]]
UNDERSTOOD = (
    "a hamnet store (.h5), an OpenMX .scfout file or folder, a PySCF chkfile, a CP2K output or folder, "
    "a DeepH folder, SIESTA's .HSX or .TSHS, ABACUS's .csr files with STRU, or a database of QH9, SchNOrb or nablaDFT"
)


def open_source(path: str | Path) -> Opened:
    """(name, function that reads it) for each calculation in a file or folder, told by content.

    An SCF that did not converge is read too: its calculation says so.

    Args:
        path: a hamnet store, an OpenMX .scfout, a PySCF chkfile, a CP2K output, or a folder with output of these codes.

    Raises:
        FormatError: nothing that hamnet understands.
    """
    path = Path(path)
    kind = kind_of(path)
    if kind == "store":
        store = Store(path)
        return [(name, partial(store.read, name)) for name in store.names]
    codes = sorted(READER_CLASSES) if kind == "folder" else [kind]
    opened: Opened = []
    for code in codes:
        code_reader = reader(code)
        for source in code_reader.find(path):
            opened.append((source_name(source, path), partial(code_reader.read, source, allow_unconverged=True)))
    if not opened:
        raise FormatError(f"there is no output of {' or '.join(codes)} in {path}: hamnet understands {UNDERSTOOD}")
    return opened


FILE_NAMES = {
    "*.HSX": "sisl",
    "*.TSHS": "sisl",
    "*.fdf": "sisl",
    "data-?R-sparse_SPIN?.csr": "abacus",
    "overlap.h5": "deeph",
    "overlaps.h5": "deeph-legacy",
}
"""Files of other programs that their names tell, and the reader of each."""


def kind_of(path: Path) -> str:
    """What a path is: "store", "folder", or the name of a reader.

    Raises:
        FormatError: no such path, or a file that hamnet does not understand.
    """
    if path.is_dir():
        return "folder"
    row = split_row(path)
    database = database_kind(path if row is None else row[0])
    if database is not None:
        return database
    if not path.exists():
        raise FormatError(f"there is no file or folder {path}")
    if is_store(path):
        return "store"
    for pattern, code in FILE_NAMES.items():
        if fnmatch(path.name, pattern):
            return code
    if is_chkfile(path):
        return "pyscf"
    if ".scfout" in path.name or is_scfout(path):
        return "openmx"
    if is_out(path):
        return "cp2k"
    raise FormatError(
        f"{path} ({path.stat().st_size} bytes, {_look(path)}) is nothing that hamnet understands: it reads {UNDERSTOOD}"
    )


def is_chkfile(path: Path) -> bool:
    """True for an HDF5 file with a molecule or cell in it, as PySCF writes."""
    if not path.is_file() or not h5py.is_hdf5(path):
        return False
    try:
        with h5py.File(path, "r") as file:
            return "mol" in file or "cell" in file
    except OSError:
        return False


def is_scfout(path: Path) -> bool:
    """True for a whole OpenMX .scfout under any name: its counts must fit its length and a deck must follow."""
    from hamnet_preprocess.openmx_scfout import read_header

    try:
        return bool(read_header(path).deck)
    except FormatError:
        return False


def source_name(source: Path, root: Path) -> str:
    """Name of a source relative to the folder that it was found in; the source's own name where it is the root."""
    relative = source.relative_to(root) if source.is_relative_to(root) else source
    return relative.as_posix() if relative.parts else (source.name or source.resolve().name)


def _look(path: Path) -> str:
    with path.open("rb") as file:
        head = file.read(512)
    if not head:
        return "empty"
    if head.startswith(b"\x89HDF"):
        return "HDF5, but neither a store nor a chkfile"
    return "text" if head.isascii() and b"\0" not in head else "binary"
