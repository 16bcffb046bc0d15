"""The .scfout file of OpenMX: packed int32 and float64, native endian, Bohr and Hartree.

Only what is asked for is read: position, momentum and density matrices are skipped. A count is believed only
after the file has been found long enough for it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from hamnet.errors import FormatError, PhysicsError

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]

VERSIONS = {0: "3.8 or older", 1: "3.7 development", 2: "3.7 development", 3: "3.9"}
MAXIMUM_ORBITALS = 1000
LINE = 256
_HEADER = 24


@dataclass(frozen=True, eq=False)
class ScfoutHeader:
    """Everything in a .scfout but its matrices; file units (bohr, Hartree, kelvin).

    Args:
        path: the file.
        order: "<" or ">", the file's byte order.
        version: 0 to 3, see `VERSIONS`.
        spin: SpinP: 0 none, 1 collinear, 3 non-collinear.
        n_orbitals: (n_atoms,) orbitals of each atom.
        i, j: (n_pairs,) 0-based atoms in file order.
        cell_shift: (n_pairs, 3).
        cell: (3, 3) bohr, rows. positions: (n_atoms, 3) bohr.
        matrix_start: byte where the first matrix begins.
        order_max: number of powers of the position matrices (1 before version 3).
        numbers: ten doubles: chemical potential, temperature, dipoles, valence electrons, spin.
        deck: lines of the input file.
    """

    path: Path
    order: str
    version: int
    spin: int
    n_orbitals: IntArray
    i: IntArray
    j: IntArray
    cell_shift: IntArray
    cell: FloatArray
    positions: FloatArray
    matrix_start: int
    order_max: int
    numbers: FloatArray
    deck: tuple[str, ...]

    @cached_property
    def starts(self) -> IntArray:
        """(n_pairs + 1,) first number of each pair's block inside one matrix, file order."""
        return np.concatenate(([0], np.cumsum(self.n_orbitals[self.i] * self.n_orbitals[self.j])))

    @property
    def size(self) -> int:
        """Numbers in one matrix."""
        return int(self.starts[-1])

    @property
    def chemical_potential(self) -> float:
        """Hartree."""
        return float(self.numbers[0])

    @property
    def temperature(self) -> float:
        """Electronic temperature in kelvin."""
        return float(self.numbers[1])

    @property
    def valence_electrons(self) -> float:
        """Valence electrons of the cell."""
        return float(self.numbers[8])

    def matrix_index(self, name: str) -> int:
        """Place of a matrix among the file's matrices: "H0".."H3", "iH0".."iH2", "S", "DM0".."DM3"."""
        n_h = self.spin + 1
        n_ih = 3 if self.spin == 3 else 0
        n_other = 3 * self.order_max + (3 if self.version == 3 else 0)
        first = {"H": 0, "iH": n_h, "S": n_h + n_ih, "DM": n_h + n_ih + 1 + n_other}
        letters = name.rstrip("0123456789")
        return first[letters] + int(name[len(letters) :] or 0)

    def read_matrix(self, name: str) -> FloatArray:
        """One matrix (see `matrix_index`), flat, in the order and the units of the file.

        Raises:
            FormatError: the file is cut short.
            PhysicsError: a number is not finite.
        """
        offset = self.matrix_start + self.matrix_index(name) * self.size * 8
        with self.path.open("rb") as handle:
            values = _Cursor(self.path, handle, self.order, offset).doubles(self.size, f"matrix {name}")
        if not np.isfinite(values).all():
            self._refuse_not_finite(name, values, offset)
        return values

    def _refuse_not_finite(self, name: str, values: FloatArray, offset: int) -> None:
        at = int(np.flatnonzero(~np.isfinite(values))[0])
        p = int(np.searchsorted(self.starts, at, side="right")) - 1
        raise PhysicsError(
            f"{self.path}: matrix {name} holds {values[at]} at byte {offset + 8 * at}, in the block of pair "
            f"({self.i[p]}, {self.j[p]}, {self.cell_shift[p].tolist()}); expected finite numbers: repeat it"
        )


class _Cursor:
    """Reads packed numbers from a file, never past its end."""

    def __init__(self, path: Path, handle: BinaryIO, order: str, offset: int) -> None:
        self.path, self.handle, self.order, self.offset = path, handle, order, offset
        self.length = os.fstat(handle.fileno()).st_size
        handle.seek(offset)

    def doubles(self, count: int, what: str) -> FloatArray:
        """Read float64 numbers."""
        return self._take("f8", count, what)

    def ints(self, count: int, what: str) -> IntArray:
        """Read int32 numbers."""
        return self._take("i4", count, what).astype(np.int64)

    def integer(self, what: str) -> int:
        """Read one int32."""
        return int(self.ints(1, what)[0])

    def text(self, count: int, what: str) -> bytes:
        """Read raw bytes."""
        return self._take("u1", count, what).tobytes()

    def skip(self, size: int, what: str) -> None:
        """Pass over bytes."""
        self._need(size, what)
        self.offset += size
        self.handle.seek(self.offset)

    def _take(self, kind: str, count: int, what: str) -> NDArray[Any]:
        dtype = np.dtype(self.order + kind)
        self._need(count * dtype.itemsize, what)
        values: NDArray[Any] = np.fromfile(self.handle, dtype=dtype, count=count)
        self.offset += count * dtype.itemsize
        return values.astype(dtype.newbyteorder("="), copy=False)

    def _need(self, size: int, what: str) -> None:
        if self.offset + size > self.length:
            raise FormatError(
                f"{self.path}: cut short or corrupt: at byte {self.offset} expected {size} bytes ({what}), "
                f"found {max(self.length - self.offset, 0)} before the end of the file at {self.length}; "
                "copy the file again or repeat the calculation"
            )

    def bad(self, what: str, found: object, expected: str, offset: int) -> FormatError:
        """The error with its byte, what was found and expected."""
        return FormatError(
            f"{self.path}: {what} at byte {offset} is {found}, expected {expected}: the file is corrupt or no .scfout"
        )


def read_header(path: Path) -> ScfoutHeader:
    """Header, pair list and trailer of a .scfout; `ScfoutHeader.read_matrix` then reads the matrices.

    Raises:
        FormatError: empty, cut short, text, of an unknown version, or with counts that cannot be.
    """
    try:
        with path.open("rb") as handle:
            return _read(path, handle)
    except OSError as error:
        raise FormatError(f"{path}: cannot be read: {error.strerror}") from error


def _read(path: Path, handle: BinaryIO) -> ScfoutHeader:
    cursor = _Cursor(path, handle, _byte_order(path, handle), 0)
    n_atoms, code, *_leads, n_cells = cursor.ints(6, "the six leading integers").tolist()
    spin, version = _check_counts(cursor, n_atoms, code, n_cells)
    order_max = cursor.integer("order_max") if version == 3 else 1
    if not 0 <= order_max <= 16:
        raise cursor.bad("order_max", order_max, "0 to 16", cursor.offset - 4)
    cursor.skip((n_cells + 1) * 32, "the table of lattice vectors atv")
    shifts = cursor.ints((n_cells + 1) * 4, "the table of cell indices atv_ijk").reshape(-1, 4)[:, 1:]
    n_orbitals = _bounded(cursor, n_atoms, "orbitals of an atom", 1, MAXIMUM_ORBITALS)
    n_neighbours = _bounded(cursor, n_atoms, "FNAN (neighbours of an atom)", 0, n_atoms * (n_cells + 1)) + 1
    n_pairs = int(n_neighbours.sum())
    j = _bounded(cursor, n_pairs, "natn (atom index of a neighbour)", 1, n_atoms) - 1
    cell = _bounded(cursor, n_pairs, "ncn (cell index of a neighbour)", 0, n_cells)
    lattice = cursor.doubles(24, "lattice vectors").reshape(2, 3, 4)[0, :, 1:]
    positions = cursor.doubles(n_atoms * 4, "positions").reshape(-1, 4)[:, 1:]
    i = np.repeat(np.arange(n_atoms), n_neighbours)
    start = cursor.offset
    n_matrices = _matrix_count(spin, version, order_max)
    size = int((n_orbitals[i] * n_orbitals[j]).sum())
    cursor.skip(n_matrices * size * 8, f"{n_matrices} matrices of {size} numbers")
    numbers, deck = _trailer(cursor)
    return ScfoutHeader(
        path, cursor.order, version, spin, n_orbitals, i, j, shifts[cell], lattice, positions,
        start, order_max, numbers, deck,
    )  # fmt: skip


def _byte_order(path: Path, handle: BinaryIO) -> str:
    head = handle.read(_HEADER)
    if not head:
        raise FormatError(f"{path}: the file is empty: repeat the calculation with HS.fileout on")
    if len(head) >= 8 and all(byte in b"\t\n\r" or 32 <= byte < 127 for byte in head):
        raise FormatError(f"{path}: text where binary was expected ({head!r}): this is not OpenMX's .scfout")
    if len(head) < _HEADER:
        raise FormatError(
            f"{path}: cut short: at byte 0 expected {_HEADER} bytes (the six leading integers), found {len(head)}"
        )
    order = "<" if 0 <= int.from_bytes(head[4:8], "little") <= 15 else ">"
    if order == ">" and int.from_bytes(head[4:8], "big") > 15:
        found = int.from_bytes(head[4:8], "little")
        raise FormatError(
            f"{path}: unknown version: the integer at byte 4 is {found}, expected SpinP + 4 x version, 0 to 15, in one "
            "of the two byte orders: a newer format, or no .scfout"
        )
    return order


def _check_counts(cursor: _Cursor, n_atoms: int, code: int, n_cells: int) -> tuple[int, int]:
    spin, version = code % 4, code // 4
    if spin == 2 or version not in VERSIONS:
        raise cursor.bad("SpinP", spin, "0 (none), 1 (collinear) or 3 (non-collinear)", 4)
    if n_atoms < 1:
        raise cursor.bad("number of atoms", n_atoms, "at least 1", 0)
    if n_cells < 0:
        raise cursor.bad("number of cells TCpyCell", n_cells, "at least 0", 20)
    return spin, version


def _bounded(cursor: _Cursor, count: int, what: str, low: int, high: int) -> IntArray:
    offset = cursor.offset
    values = cursor.ints(count, what)
    outside = np.flatnonzero((values < low) | (values > high))
    if outside.size:
        k = int(outside[0])
        raise cursor.bad(f"{what}, entry {k},", int(values[k]), f"{low} to {high}", offset + 4 * k)
    return values


def _matrix_count(spin: int, version: int, order_max: int) -> int:
    hamiltonian = spin + 1 + (3 if spin == 3 else 0)
    momentum, density_imaginary = (3, 2) if version == 3 else (0, 0)
    return hamiltonian + 1 + 3 * order_max + momentum + (spin + 1) + density_imaginary


def _trailer(cursor: _Cursor) -> tuple[FloatArray, tuple[str, ...]]:
    cursor.skip(4, "the eigenvalue solver")
    numbers = cursor.doubles(10, "chemical potential, temperature, dipoles, electrons, spin")
    if not np.isfinite(numbers).all():
        raise cursor.bad("chemical potential, temperature, dipoles, electrons", numbers.tolist(), "finite numbers",
                         cursor.offset - 80)  # fmt: skip
    offset = cursor.offset
    n_lines = cursor.integer("number of input lines")
    if n_lines < 0:
        raise cursor.bad("number of input lines", n_lines, "at least 0", offset)
    text = cursor.text(n_lines * LINE, f"{n_lines} input lines")
    lines = (text[k : k + LINE].split(b"\0", 1)[0] for k in range(0, len(text), LINE))
    return numbers, tuple(line.decode("utf-8", "replace").rstrip() for line in lines)
