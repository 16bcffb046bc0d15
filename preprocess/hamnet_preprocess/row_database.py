"""Databases of molecules: SQLite files with one calculation in each row.

A row is a source of its own, `FILE/INDEX`, so that rows are read side by side, resumed, named when they are broken,
and never all in memory. INDEX counts the rows from 0 in the order of the file, as the benchmarks' splits do.
"""

from __future__ import annotations

import hashlib
import sqlite3
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from hamnet.errors import FormatError

MAGIC = b"SQLite format 3\0"
COLUMNS = {
    "qh9": ("data", {"n", "z", "pos", "ham"}),
    "nabladft": ("data", {"z", "r", "h", "s"}),
    "schnorb": ("systems", {"numbers", "positions", "data"}),
}
"""Reader -> its table and columns that no other reader's table has all of."""


@dataclass(frozen=True)
class RowRange:
    """The rows of one database.

    Args:
        path: the file.
        table: where the rows are.
        rowids: SQLite's number of each row, in the order of the file.
    """

    path: Path
    table: str
    rowids: tuple[int, ...]


def is_sqlite(path: Path) -> bool:
    """True for a file that begins as SQLite's do."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def database_kind(path: Path) -> str | None:
    """Name of the reader whose table a SQLite file holds; None for any other file."""
    if not is_sqlite(path):
        return None
    try:
        return next((name for name, (table, needed) in COLUMNS.items() if needed <= columns_of(path, table)), None)
    except FormatError:
        return None


def split_row(source: Path) -> tuple[Path, int] | None:
    """(file, index) of a source `FILE/INDEX`; None when it is none."""
    if source.name.isdecimal() and not source.exists() and source.parent.is_file():
        return source.parent, int(source.name)
    return None


def sources_below(root: Path, reader_name: str) -> list[Path]:
    """Every row of every database of a reader at or below a folder; a database gives its rows, a row itself."""
    if split_row(root) is not None:
        return [root]
    files = [root] if root.is_file() else sorted(p for p in root.rglob("*.db") if p.is_file())
    found: list[Path] = []
    for file in files:
        if database_kind(file) == reader_name:
            found.extend(file / str(k) for k in range(len(rows_of(file, reader_name).rowids)))
    return found


def rows_of(path: Path, reader_name: str) -> RowRange:
    """The rows of a database; kept until the file changes.

    Raises:
        FormatError: no such database, or it is damaged.
    """
    try:
        stat = path.stat()
    except OSError as error:
        raise FormatError(f"there is no database {path}") from error
    return _rows(path, reader_name, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=16)
def _rows(path: Path, reader_name: str, size: int, changed: int) -> RowRange:
    table, needed = COLUMNS[reader_name]
    missing = needed - columns_of(path, table)
    if missing:
        raise FormatError(
            f"{path}: the table {table!r} lacks the columns {sorted(missing)}: this is no {reader_name} database"
        )
    # the table's name is one of ours; a file has no way into the statement
    found = query(path, f"SELECT rowid FROM {table} ORDER BY rowid")
    return RowRange(path, table, tuple(int(row[0]) for row in found))


def columns_of(path: Path, table: str) -> set[str]:
    """Names of a table's columns in lower case; empty when the file has no such table.

    Raises:
        FormatError: the file is damaged.
    """
    return {str(row[1]).lower() for row in query(path, f"PRAGMA table_info({table})")}


def read_row(source: Path, reader_name: str) -> tuple[dict[str, Any], RowRange]:
    """Columns (lower case) of one row, and the rows of its file.

    Raises:
        FormatError: the source is no row of such a database; the message names what is wrong.
    """
    place = split_row(source)
    if place is None:
        raise FormatError(f"{source}: expected a row of a {reader_name} database, as FILE.db/17")
    path, index = place
    rows = rows_of(path, reader_name)
    if index >= len(rows.rowids):
        raise FormatError(f"{source}: the database has {len(rows.rowids)} rows, counted from 0")
    connection = connect(path)
    try:
        cursor = connection.execute(f"SELECT * FROM {rows.table} WHERE rowid = ?", (rows.rowids[index],))
        values = cursor.fetchone()
        names = [str(entry[0]).lower() for entry in cursor.description]
    except sqlite3.Error as error:
        raise FormatError(f"{source}: SQLite cannot read the row: {error}") from error
    if values is None:
        raise FormatError(f"{source}: the row is gone since the database was opened")
    return dict(zip(names, values, strict=True)), rows


def query(path: Path, statement: str) -> list[Any]:
    """All rows that a statement gives.

    Raises:
        FormatError: the file is damaged or no database.
    """
    try:
        return connect(path).execute(statement).fetchall()
    except sqlite3.Error as error:
        raise FormatError(f"{path}: SQLite cannot read it: {error}") from error


@lru_cache(maxsize=4)
def connect(path: Path) -> sqlite3.Connection:
    """A connection that only reads, one for each process."""
    return sqlite3.connect(f"file:{quote(str(path.resolve()))}?mode=ro", uri=True, check_same_thread=False)


def numbers_in(blob: Any, what: str, kinds: dict[int, str], count: int) -> NDArray[Any]:
    """Flat little-endian numbers of a BLOB, in the type that its length tells.

    Args:
        blob: bytes.
        what: its name, for messages.
        kinds: bytes of a number -> NumPy type, as {8: "<f8", 4: "<f4"}.
        count: how many numbers there must be.

    Raises:
        FormatError: no bytes, or another length.
    """
    if not isinstance(blob, bytes):
        raise FormatError(f"{what} is {type(blob).__name__}, expected bytes")
    for size, kind in kinds.items():
        if len(blob) == size * count:
            return np.frombuffer(blob, dtype=kind)
    wanted = " or ".join(str(size * count) for size in kinds)
    raise FormatError(f"{what} has {len(blob)} bytes, expected {wanted} for {count} numbers")


def digest_of(*parts: Any) -> str:
    """sha256 of what a row holds."""
    total = hashlib.sha256()
    for part in parts:
        total.update(part if isinstance(part, bytes) else np.ascontiguousarray(part).tobytes())
    return total.hexdigest()
