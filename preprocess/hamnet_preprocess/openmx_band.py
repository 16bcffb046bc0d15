"""OpenMX's .Band: the bands that OpenMX itself prints."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hamnet.core.reference import ReferenceBands
from hamnet.core.units import HARTREE
from hamnet.errors import FormatError


def read_band(path: Path) -> ReferenceBands:
    """Bands of a .Band file, eV, at the fractional k-points printed in it.

    Line 1 is `nband spin mu`, line 2 the reciprocal vectors, line 3 the number of paths; then the paths, then for
    each k-point `nband k1 k2 k3` and the energies in Hartree; collinear: an up pair of lines, then a down pair.

    Raises:
        FormatError: cut short, or not a .Band file; the message names the line.
    """
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise FormatError(f"{path}: cannot be read: {error.strerror}") from error
    n_bands, spin, fermi = _numbers(path, lines, 0, 3, "'nband spin mu'")
    n_spin = 2 if spin == 1 else 1
    n_paths = int(_numbers(path, lines, 2, 1, "the number of paths")[0])
    lengths, ends = [], []
    for k in range(3, 3 + n_paths):
        lengths.append(int(_numbers(path, lines, k, 7, "'n k1 k2 k3 k1 k2 k3 label label'")[0]))
        words = lines[k].split()
        ends.append((words[7] if len(words) > 7 else "", words[8] if len(words) > 8 else ""))
    rows = []
    for line in range(3 + n_paths, 3 + n_paths + 2 * n_spin * sum(lengths), 2):
        head = _numbers(path, lines, line, 4, "'nband k1 k2 k3'")
        rows.append((head[1:4], _numbers(path, lines, line + 1, int(n_bands), f"{int(n_bands)} energies")))
    kpoints = np.array([k for k, _ in rows[::n_spin]]).reshape(-1, 3)
    energies = np.array([e for _, e in rows]).reshape(len(kpoints), n_spin, int(n_bands)).swapaxes(0, 1)
    return ReferenceBands(
        kpoints, np.ascontiguousarray(energies) * HARTREE, fermi * HARTREE, _labels(lengths, ends), str(path)
    )


def _numbers(path: Path, lines: list[str], line: int, count: int, what: str) -> list[float]:
    if line >= len(lines):
        raise FormatError(f"{path}: cut short: line {line + 1} should hold {what}, the file ends at {len(lines)}")
    try:
        values = [float(word) for word in lines[line].split()[:count]]
    except ValueError:
        values = []
    if count < 1 or len(values) < count or not np.isfinite(values).all():
        raise FormatError(f"{path}: line {line + 1} is {lines[line][:60]!r}, expected {what}")
    return values


def _labels(lengths: list[int], ends: list[tuple[str, str]]) -> tuple[tuple[int, str], ...]:
    labels: list[tuple[int, str]] = []
    start = 0
    for length, (first, last) in zip(lengths, ends, strict=True):
        labels += [(start, first), (start + length - 1, last)]
        start += length
    return tuple(labels)
