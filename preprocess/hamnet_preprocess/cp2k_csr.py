"""CP2K's sparse matrices in real space: one .csr file for each periodic image, text or binary.

`&KS_CSR_WRITE` and `&S_CSR_WRITE` with `REAL_SPACE T` write `PROJECT-KS_SPIN_1_R_7-1_0.csr`, ... : spin 1 or 2, image
number as in the list of the output (number, X, Y, Z), iteration. Text rows are `row column value`, counted from 1,
Hartree; binary files are Fortran records of int32 row, int32 column, float64 value between int32 lengths.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hamnet.errors import FormatError

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]
Images = dict[int, tuple[int, int, int]]
"""Number of a periodic image -> integer triple."""

_NAME = re.compile(r"^(?P<head>.*?)(?P<matrix>KS|S)_SPIN_(?P<spin>[12])(?:_R_(?P<image>\d+))?(?P<tail>.*)\.csr$")
_PAYLOAD = 16
"""Bytes of a binary record without its two lengths."""
SECTIONS = {"KS": "&KS_CSR_WRITE", "S": "&S_CSR_WRITE"}


@dataclass(frozen=True)
class CsrFile:
    """One file by its name.

    Args:
        path: the file.
        matrix: "KS" or "S".
        spin: 1 (alpha) or 2 (beta).
        image: number in the list of images, from 1; 0 in a run without k-points.
        run: the rest of the name: project and iteration.
    """

    path: Path
    matrix: str
    spin: int
    image: int
    run: str


@dataclass(frozen=True, eq=False)
class Entries:
    """Nonzero elements of one matrix in real space, in CP2K's order, counted from 0.

    Args:
        images: (n_images, 3) integer triple of each periodic image.
        image: (n,) which image each element's column is in.
        row, column: (n,) orbital of the cell.
        value: (n,) float64.
    """

    images: IntArray
    image: IntArray
    row: IntArray
    column: IntArray
    value: FloatArray


def is_csr_name(name: str) -> bool:
    """True for the name of a .csr file of KS or S."""
    return _NAME.match(name) is not None


def csr_files(folder: Path) -> list[CsrFile]:
    """The .csr files of KS and S in a folder, sorted."""
    found = []
    for path in sorted(folder.glob("*.csr")):
        match = _NAME.match(path.name)
        if match:
            run = match["head"] + match["tail"]
            found.append(CsrFile(path, match["matrix"], int(match["spin"]), int(match["image"] or 0), run))
    return found


def read_matrix(folder: Path, matrix: str, spin: int, images: Images, n: int) -> Entries:
    """All images of one matrix.

    Args:
        folder: of one run.
        matrix: "KS" or "S".
        spin: 1 or 2.
        images: number -> integer triple, from the output.
        n: orbitals of the cell.

    Raises:
        FormatError: a file is missing, too many, cut short or has an index that is no orbital.
    """
    files = [f for f in csr_files(folder) if f.matrix == matrix and f.spin == spin]
    _check_files(folder, matrix, spin, files, images)
    parts = [(f, read_csr(f.path)) for f in sorted(files, key=lambda f: f.image)]
    for file, (row, column, _) in parts:
        for what, index in (("row", row), ("column", column)):
            if index.size and not (index.min() >= 0 and index.max() < n):
                raise FormatError(
                    f"{file.path}: {what} {int(index.max()) + 1} is no orbital: the output names {n} of them; "
                    "do files and output belong to one run?"
                )
    table = np.array([images[f.image] for f, _ in parts], dtype=np.int64)
    image = np.repeat(np.arange(len(parts)), [len(value) for _, (_, _, value) in parts])
    row, column, value = (np.concatenate([part[k] for _, part in parts]) for k in range(3))
    return Entries(table, image, row, column, value)


def _check_files(folder: Path, matrix: str, spin: int, files: list[CsrFile], images: Images) -> None:
    where = f"{folder}: {matrix}_SPIN_{spin}"
    runs = sorted({f.run for f in files})
    if len(runs) > 1:
        raise FormatError(f"{where}: .csr files of {len(runs)} runs or steps ({_some(runs)}): one folder for each run")
    have, wanted = {f.image for f in files}, set(images)
    if not files:
        raise FormatError(
            f"{where}: no .csr file: ask for {SECTIONS[matrix]} with REAL_SPACE T in &DFT &PRINT, and copy its files"
        )
    if missing := sorted(wanted - have):
        raise FormatError(
            f"{where}: {len(missing)} of {len(wanted)} files are missing, as that of image {missing[0]} "
            f"{list(images[missing[0]])}: copy all .csr files of the run"
        )
    if extra := sorted(have - wanted):
        raise FormatError(
            f"{where}: there is a file of image {extra[0]}, but the output lists {len(wanted)} images: "
            "files of another run are in the folder"
        )


def _some(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def read_csr(path: Path) -> tuple[IntArray, IntArray, FloatArray]:
    """Row and column (from 0) and value of each element; text or binary, told by content.

    Raises:
        FormatError: cut short, or neither text rows nor records.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise FormatError(f"{path}: cannot be read: {error.strerror}") from error
    if not data:
        none = np.zeros(0, dtype=np.int64)
        return none, none, np.zeros(0)
    row, column, value = _binary(path, data) if b"\0" in data[:24] else _text(path, data)
    if not np.isfinite(value).all():
        at = int(np.flatnonzero(~np.isfinite(value))[0])
        raise FormatError(f"{path}: element {at} ({row[at] + 1}, {column[at] + 1}) is {value[at]}, no finite number")
    return row, column, value


def _text(path: Path, data: bytes) -> tuple[IntArray, IntArray, FloatArray]:
    if not data.endswith(b"\n"):
        raise FormatError(f"{path}: cut short at byte {len(data)}: the last row has no end")
    words = data.split()
    try:
        table = np.array(words, dtype=np.float64)
    except ValueError:
        table = np.zeros(0)
    rows = data.count(b"\n")
    if table.size != 3 * rows:
        raise FormatError(
            f"{path}: {len(words)} words in {rows} rows, expected rows of 'row column value' as CP2K writes them"
        )
    table = table.reshape(-1, 3)
    row, column = table[:, 0].astype(np.int64) - 1, table[:, 1].astype(np.int64) - 1
    return row, column, np.ascontiguousarray(table[:, 2])


def _binary(path: Path, data: bytes) -> tuple[IntArray, IntArray, FloatArray]:
    fields = {"head": "i4", "i": "i4", "j": "i4", "x": "f8", "tail": "i4"}
    for order in "<>":
        record = np.dtype([(name, order + kind) for name, kind in fields.items()])
        whole = len(data) - len(data) % record.itemsize
        records = np.frombuffer(data[:whole], dtype=record)
        good = (records["head"] == _PAYLOAD) & (records["tail"] == _PAYLOAD)
        if not good.size or not good[0]:
            continue
        if whole != len(data) or not good.all():
            at = whole if good.all() else int(np.flatnonzero(~good)[0]) * record.itemsize
            raise FormatError(
                f"{path}: byte {at} of {len(data)} is no whole record of {record.itemsize} bytes (row, column, value): "
                "the file is cut short or corrupt"
            )
        return (
            records["i"].astype(np.int64) - 1,
            records["j"].astype(np.int64) - 1,
            records["x"].astype(np.float64),
        )
    raise FormatError(f"{path}: neither text rows nor binary records of {_PAYLOAD} bytes: is it a .csr of CP2K?")
