"""CP2K's .bs: the bands that CP2K itself prints."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from hamnet.core.reference import ReferenceBands
from hamnet.core.units import HARTREE
from hamnet.errors import FormatError

CP2K_HARTREE = 27.2113838565563
"""eV, CODATA 2006: what CP2K itself prints energies in eV with, so energies come back to Hartree exactly."""
_SET = re.compile(r"^#\s*Set\s+(\d+):\s*(\d+) special points,\s*(\d+) k-points,\s*(\d+) bands")
_SPECIAL = re.compile(r"^#\s*Special point\s+\d+\s+(\S+)\s+(\S+)\s+(\S+)\s*(\S*)")
_POINT = re.compile(r"^#\s*Point\s+\d+\s+Spin\s+(\d):\s*(\S+)\s+(\S+)\s+(\S+)")
Point = tuple[int, tuple[float, ...], list[tuple[float, float]]]
"""Spin, k, (energy, occupation) of each band."""


def read_bs(path: Path) -> ReferenceBands:
    """Bands of a .bs file, eV, at the fractional k-points printed in it; several sets follow each other.

    k-points carry eight decimals; a .bs has no Fermi level. Bands may be fewer than there are orbitals: occupied ones
    and ADDED_MOS.

    Raises:
        FormatError: cut short, or not a .bs file; the message names the line.
    """
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise FormatError(f"{path}: cannot be read: {error.strerror}") from error
    points: list[Point] = []
    special: list[tuple[str, tuple[float, ...]]] = []
    labels: list[tuple[int, str]] = []
    at = 0
    while at < len(lines):
        head = _SET.match(lines[at])
        if head is None:
            raise FormatError(
                f"{path}: line {at + 1} is {lines[at][:60]!r}, expected '# Set 1: ... special points, ... k-points, "
                "... bands': this is no .bs file as CP2K 2023.1 writes it"
            )
        before = len(points)
        at, special = _read_special(path, lines, at + 1, int(head[2]))
        at = _read_points(path, lines, at, int(head[3]), int(head[4]), points)
        labels += _labels(points[before:], special, before // _spins(points))
    if not points:
        raise FormatError(f"{path}: empty, expected the bands of CP2K's &BAND_STRUCTURE")
    return _reference(path, points, labels)


def is_bs(path: Path) -> bool:
    """True for a file that starts as a .bs does."""
    try:
        with path.open("rb") as handle:
            return _SET.match(handle.readline(200).decode("utf-8", "replace")) is not None
    except OSError:
        return False


def _read_special(path: Path, lines: list[str], at: int, count: int) -> tuple[int, list[tuple[str, tuple[float, ...]]]]:
    found = []
    for line in range(at, at + count):
        match = _SPECIAL.match(lines[line]) if line < len(lines) else None
        if match is None:
            raise FormatError(f"{path}: cut short: line {line + 1} should hold a special point ({count} in this set)")
        found.append(("" if match[4] == "not_named" else match[4], tuple(float(x) for x in match.groups()[:3])))
    return at + count, found


def _read_points(path: Path, lines: list[str], at: int, n_points: int, n_bands: int, points: list[Point]) -> int:
    seen = 0
    while at < len(lines) and (match := _POINT.match(lines[at])):
        kpoint = tuple(float(x) for x in match.groups()[1:])
        seen += match[1] == "1"
        bands = []
        for line in range(at + 2, at + 2 + n_bands):
            words = lines[line].split() if line < len(lines) else []
            if len(words) != 3 or not words[0].isdigit():
                raise FormatError(f"{path}: line {line + 1} should hold 'band energy occupation' ({n_bands} bands)")
            bands.append((float(words[1]), float(words[2])))
        points.append((int(match[1]), kpoint, bands))
        at += 2 + n_bands
    if seen != n_points:
        raise FormatError(f"{path}: {seen} k-points before line {at + 1}, the set has {n_points}: cut short or corrupt")
    return at


def _spins(points: list[Point]) -> int:
    return 2 if any(spin == 2 for spin, _, _ in points) else 1


def _labels(points: list[Point], special: list[tuple[str, tuple[float, ...]]], first: int) -> list[tuple[int, str]]:
    """Special points in their order on the path, the k-point each one is."""
    path = [k for spin, k, _ in points if spin == 1]
    found, at = [], 0
    for name, where in special:
        while at < len(path) and max(abs(a - b) for a, b in zip(path[at], where, strict=True)) > 1e-6:
            at += 1
        if at < len(path):
            found.append((first + at, name))
    return found


def _reference(path: Path, points: list[Point], labels: list[tuple[int, str]]) -> ReferenceBands:
    n_spin = _spins(points)
    n_bands = {len(bands) for _, _, bands in points}
    order = [spin for spin, _, _ in points]
    if len(n_bands) > 1 or order != list(range(1, n_spin + 1)) * (len(points) // n_spin):
        raise FormatError(f"{path}: sets with {sorted(n_bands)} bands and spins {order[:4]}...: expected all alike")
    table = np.array([bands for _, _, bands in points]).reshape(-1, n_spin, n_bands.pop(), 2).swapaxes(0, 1)
    energies = table[..., 0] / CP2K_HARTREE * HARTREE
    kpoints = np.array([k for spin, k, _ in points if spin == 1])
    return ReferenceBands(kpoints, np.ascontiguousarray(energies), None, tuple(labels), str(path))
