"""Which frame of an xyz file is broken: ASE's parser says what it stumbled over, not where."""

from __future__ import annotations

import re
from io import StringIO
from pathlib import Path

from hamnet.errors import FormatError

PLAIN_COLUMNS = 4
"""An element and three coordinates, where the comment line names no `Properties`."""
PROPERTIES = re.compile(r'Properties="?([^\s"]+)')


def find_broken_frame(path: Path, parse: bool = False) -> None:
    """Go through the frames of an (ext)xyz file as ASE does, and refuse the first that is broken; else do nothing.

    Args:
        path: file.
        parse: read each frame alone as well; otherwise only the lines with numbers of atoms are looked at.

    Raises:
        FormatError: names the file, the frame (counted from 0), the line (from 1), what it holds and what was expected.
    """
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    start, number = 0, 0
    while start < len(lines):
        where, head = f"{path} cannot be read: frame {number}, line", lines[start].strip()
        if not head:
            _refuse_lost_frames(where, lines, start)
            return
        if not head.isdecimal():
            raise FormatError(f"{where} {start + 1}: found {head[:80]!r}, expected the number of atoms of the frame")
        end = start + 2 + int(head)
        if end > len(lines):
            raise FormatError(
                f"{where} {start + 1}: the file ends after {max(0, len(lines) - start - 2)} of the frame's {head} atoms"
            )
        while end < len(lines) and lines[end].lstrip().startswith("VEC"):  # a cell in the old way
            end += 1
        if parse:
            _refuse_frame(where, lines[start:end], start)
        start, number = end, number + 1


def _refuse_lost_frames(where: str, lines: list[str], start: int) -> None:
    """ASE stops at an empty line: frames behind it would be lost without a word."""
    rest = next((line.strip() for line in lines[start:] if line.strip()), "")
    if rest.isdecimal():
        raise FormatError(f"{where} {start + 1}: an empty line between frames, expected the number of atoms; remove it")


def _refuse_frame(where: str, frame: list[str], start: int) -> None:
    """Read one frame alone.

    Args:
        where: file and frame, for the message, which goes on with the number of the line.
        frame: its lines.
        start: index of its first line in the file.

    Raises:
        FormatError: it cannot be read.
    """
    import ase.io

    try:
        ase.io.read(StringIO("\n".join(frame) + "\n"), format="extxyz")
    except Exception as error:  # the parser has kinds of its own for every damage
        named = PROPERTIES.search(frame[1])
        counts = named.group(1).split(":")[2::3] if named else []
        columns = sum(map(int, counts)) if counts and all(map(str.isdecimal, counts)) else PLAIN_COLUMNS
        words = "as Properties says" if counts else "an element and three coordinates"
        for k, line in enumerate(frame[2 : 2 + int(frame[0])], start=start + 3):
            if len(line.split()) < columns:
                raise FormatError(f"{where} {k}: found {line[:80]!r}, expected {columns} columns, {words}") from error
        reason = f"{error} is no element" if isinstance(error, KeyError) else str(error).partition("\n")[0]
        raise FormatError(
            f"{where} {start + 1}: the frame of {frame[0].strip()} atoms cannot be read ({reason}); "
            f"expected {columns} columns for each atom, {words}"
        ) from error
