"""CP2K's input: cell and positions with all their digits (the output prints the cell with three decimals only)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hamnet.core.units import BOHR
from hamnet.errors import FormatError

FloatArray = NDArray[np.float64]

CP2K_BOHR = 0.529177208590
"""Angstrom, CODATA 2006: what CP2K turns lengths of the input into bohr with."""
_UNITS = {"angstrom": CP2K_BOHR / CP2K_BOHR, "bohr": CP2K_BOHR, "nm": 10.0, "pm": 0.01}


@dataclass
class Section:
    """One section of the input.

    Args:
        name: upper case.
        parameter: text after the name.
        keywords: (upper-case keyword, rest of the line) in order; coordinates are such lines too.
        sections: sections in it.
    """

    name: str
    parameter: str = ""
    keywords: list[tuple[str, str]] = field(default_factory=list)
    sections: list[Section] = field(default_factory=list)

    def sub(self, path: str) -> Section | None:
        """The first section at a path as "DFT/KPOINTS"."""
        here: Section | None = self
        for name in path.split("/"):
            here = next((s for s in here.sections if s.name == name), None) if here else None
        return here

    def get(self, keyword: str) -> str | None:
        """The first value of a keyword."""
        return next((rest for key, rest in self.keywords if key == keyword), None)

    def all(self, keyword: str) -> list[str]:
        """All values of a keyword that repeats."""
        return [rest for key, rest in self.keywords if key == keyword]


def read_deck(path: Path) -> Section:
    """The input as a tree of sections; @SET, @INCLUDE and variables are replaced.

    Raises:
        FormatError: sections that do not nest, an @IF, a file that is not there.
    """
    root = Section("")
    stack = [root]
    for number, line in _lines(path, {}):
        if not line.startswith("&"):
            keyword, _, rest = line.partition(" ")
            stack[-1].keywords.append((keyword.upper(), rest.strip()))
            continue
        name, _, parameter = line[1:].partition(" ")
        if name.upper() != "END":
            section = Section(name.upper(), parameter.strip())
            stack[-1].sections.append(section)
            stack.append(section)
        elif len(stack) > 1:
            stack.pop()
        else:
            raise FormatError(f"{path}: line {number} ends a section that was never opened: {line!r}")
    if len(stack) > 1:
        raise FormatError(f"{path}: section &{stack[-1].name} has no &END: the input is cut short")
    return root


def is_deck(path: Path) -> bool:
    """True for a text file with an &FORCE_EVAL in it (or that of a restart)."""
    try:
        with path.open("rb") as handle:
            head = handle.read(1 << 20)
    except OSError:
        return False
    return b"\0" not in head[:4096] and re.search(rb"^\s*&FORCE_EVAL\b", head, re.M | re.I) is not None


def _lines(path: Path, variables: dict[str, str]) -> Iterator[tuple[int, str]]:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise FormatError(f"{path}: cannot be read: {error.strerror}") from error
    text = re.sub(r"\\[ \t]*\n", " ", text)
    for number, raw in enumerate(text.splitlines(), 1):
        line = re.split(r"[!#]", raw, maxsplit=1)[0].strip()
        line = re.sub(r"\$\{(\w+)\}|\$(\w+)", lambda m: variables.get(m[1] or m[2], m[0]), line)
        word, _, rest = line.replace("\t", " ").partition(" ")
        if word.upper() == "@SET":
            name, _, value = rest.strip().partition(" ")
            variables[name] = value.strip()
        elif word.upper() == "@INCLUDE":
            yield from _lines(path.parent / rest.strip().strip("'\""), variables)
        elif word.startswith("@"):
            raise FormatError(
                f"{path}: line {number}: {word} is not read: write the input without it, or use the .restart"
            )
        elif line:
            yield number, line.replace("\t", " ")


def geometry_of(deck: Section, path: Path) -> tuple[FloatArray, list[str], FloatArray]:
    """Cell (3, 3), kind labels and positions (n_atoms, 3), in hamnet's Angstrom.

    Lengths are made such that they are CP2K's bohr to the last digit, though its bohr is CODATA 2006's.

    Raises:
        FormatError: a cell or coordinates given in a way that is not read.
    """
    subsys = deck.sub("FORCE_EVAL/SUBSYS")
    cell_section = None if subsys is None else subsys.sub("CELL")
    if subsys is None or cell_section is None:
        raise FormatError(f"{path}: no &FORCE_EVAL &SUBSYS &CELL")
    cell = _cell(cell_section, path)
    labels, positions = _coordinates(subsys, cell, path)
    topology = subsys.sub("TOPOLOGY")
    for section in (cell_section, topology):
        copies = section.get("MULTIPLE_UNIT_CELL") if section else None
        if copies is not None and copies.split() != ["1", "1", "1"]:
            raise FormatError(f"{path}: MULTIPLE_UNIT_CELL {copies} is not read: write all atoms into the input")
    return cell / CP2K_BOHR * BOHR, labels, positions / CP2K_BOHR * BOHR


def basis_names_of(deck: Section) -> tuple[str, ...]:
    """Basis-set files that the input names, in order (the output prints the first one only)."""
    dft = deck.sub("FORCE_EVAL/DFT")
    return () if dft is None else tuple(name.strip("'\"") for name in dft.all("BASIS_SET_FILE_NAME"))


def _vector(text: str, path: Path, what: str) -> FloatArray:
    match = re.match(r"(?:\[(\w+)\]\s*)?(.*)", text)
    unit, words = (match[1], match[2].split()) if match else (None, [])
    factor = _UNITS.get((unit or "angstrom").lower())
    try:
        numbers = [float(word.replace("D", "E").replace("d", "e")) for word in words[:3]]
    except ValueError:
        numbers = []
    if factor is None or len(numbers) != 3:
        raise FormatError(f"{path}: {what} is {text!r}, expected three numbers in {', '.join(_UNITS)}")
    return np.array(numbers) * factor


def _cell(section: Section, path: Path) -> FloatArray:
    given = [section.get(name) for name in "ABC"]
    lengths = section.get("ABC")
    if lengths is not None:
        a, b, c = _vector(lengths, path, "ABC")
        angles = section.get("ALPHA_BETA_GAMMA") or section.get("ANGLES") or "90 90 90"
        angles = re.sub(r"^\[deg\]\s*", "", angles, flags=re.I)
        cos = np.cos(np.radians([float(word) for word in angles.split()[:3]]))
        sin = np.sqrt(1 - cos[2] ** 2)
        y = (cos[0] - cos[1] * cos[2]) / sin
        third = [cos[1], y, np.sqrt(1 - cos[1] ** 2 - y**2)]
        return np.array([[a, 0, 0], [b * cos[2], b * sin, 0], list(c * np.array(third))])
    if any(text is None for text in given):
        raise FormatError(f"{path}: &CELL has neither A, B, C nor ABC: cells from other files are not read")
    return np.array([_vector(text or "", path, f"cell vector {name}") for name, text in zip("ABC", given, strict=True)])


def _coordinates(subsys: Section, cell: FloatArray, path: Path) -> tuple[list[str], FloatArray]:
    coord, topology = subsys.sub("COORD"), subsys.sub("TOPOLOGY")
    if coord is None:
        return _from_file(topology, path)
    scaled, unit, labels, rows = False, 1.0, [], []
    names = {"UNIT", "SCALED"}
    for keyword, rest in coord.keywords:
        if keyword == "SCALED":
            scaled = rest.upper() in ("", "T", "TRUE", ".TRUE.", "YES", "ON")
        elif keyword == "UNIT":
            unit = _UNITS.get(rest.lower().strip("[]"), 0.0)
    if not unit:
        raise FormatError(f"{path}: &COORD has the unit {coord.get('UNIT')!r}, expected one of {', '.join(_UNITS)}")
    for keyword, rest in coord.keywords:
        if keyword not in names:
            labels.append(keyword)
            rows.append(_vector(rest, path, f"position of atom {len(labels)}"))
    if not rows:
        raise FormatError(f"{path}: &COORD has no atoms")
    positions = np.array(rows)
    return labels, positions @ cell if scaled else positions * unit


def _from_file(topology: Section | None, path: Path) -> tuple[list[str], FloatArray]:
    name = None if topology is None else topology.get("COORD_FILE_NAME") or topology.get("COORDINATE")
    kind = ((topology and (topology.get("COORD_FILE_FORMAT") or topology.get("COORDINATE"))) or "XYZ").upper()
    if name is None or kind != "XYZ":
        raise FormatError(f"{path}: no &COORD, and no COORD_FILE_NAME of format XYZ (found {kind} {name})")
    source = path.parent / name.strip("'\"")
    try:
        lines = source.read_text(encoding="utf-8").splitlines()
        n = int(lines[0])
        words = [line.split() for line in lines[2 : 2 + n]]
        positions = np.array([[float(x) for x in row[1:4]] for row in words]).reshape(n, 3)
    except (OSError, ValueError, IndexError) as error:
        raise FormatError(f"{source}: no readable XYZ file, which {path.name} names: {error}") from error
    return [row[0] for row in words], positions
