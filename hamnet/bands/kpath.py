"""Paths through the Brillouin zone, always in the reciprocal basis of the cell that was given."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hamnet.core.structure import AtomicStructure
from hamnet.errors import ConfigError

FloatArray = NDArray[np.float64]
Segment = tuple[str, str]

VACUUM = 6.0
"""A layer of empty space wider than this (Angstrom) ends the crystal in that direction."""
SYMMETRY_PRECISIONS = (1e-2, 1e-3, 1e-5)
"""Tolerances in Angstrom, widest first: a cell rounded in the fourth digit keeps its symmetry."""


@dataclass(frozen=True, eq=False)
class KPath:
    """k-points along straight segments.

    Args:
        kpoints: (n_k, 3) fractional.
        distances: (n_k,) path length in 1/Angstrom (2 pi included); it does not grow across a break.
        labels: (index, name) of the ends of segments.
        breaks: index of the first k-point of each piece, 0 first.
        note: how the path was chosen, for people.
    """

    kpoints: FloatArray
    distances: FloatArray
    labels: tuple[tuple[int, str], ...]
    breaks: tuple[int, ...] = (0,)
    note: str = ""


def reciprocal(structure: AtomicStructure) -> FloatArray:
    """(3, 3) reciprocal vectors as rows, 1/Angstrom, 2 pi included; the identity for a molecule."""
    if structure.cell is None:
        return np.eye(3)
    return np.asarray(2 * np.pi * np.linalg.inv(structure.cell).T)


def vacuum_directions(structure: AtomicStructure) -> tuple[int, ...]:
    """Lattice directions in which the structure ends: not periodic, or with more than 6 A of empty space."""
    if structure.cell is None:
        return (0, 1, 2)
    heights = 2 * np.pi / np.linalg.norm(reciprocal(structure), axis=1)
    fractional = np.sort((structure.positions @ np.linalg.inv(structure.cell)) % 1.0, axis=0)
    empty = np.diff(np.vstack((fractional, fractional[:1] + 1)), axis=0).max(axis=0) * heights
    return tuple(k for k in range(3) if not structure.pbc[k] or empty[k] > VACUUM)


def special_points(structure: AtomicStructure) -> tuple[dict[str, FloatArray], list[Segment], str]:
    """Named k-points of the given cell, the recommended segments, and a note on how they were found.

    Names and path are those of seekpath for the symmetrised crystal; coordinates are transformed from the
    standardised primitive cell to the given one. A supercell and a structure without symmetry get the path
    of their bare lattice. Directions with vacuum keep k = 0.
    """
    flat = vacuum_directions(structure)
    if structure.cell is None or len(flat) == 3:
        return {"G": np.zeros(3)}, [], "no periodic direction: one k-point"
    crystal = (structure.cell, structure.positions @ np.linalg.inv(structure.cell), structure.atomic_numbers)
    found, note = _seekpath(*crystal), "path of the crystal's symmetry"
    if found is None or not _same_cell(found, structure.cell) or found["spacegroup_number"] <= 2:
        note = "path of the bare lattice of the given cell (a supercell, or atoms without symmetry)"
        found = _seekpath(structure.cell, np.zeros((1, 3)), np.ones(1, dtype=np.int64))
    if found is None:
        return _plain_points(flat)
    matrix = _cell_in_primitive(found, structure.cell)
    points = {_short(name): matrix @ np.array(k) for name, k in found["point_coords"].items()}
    points = {name: k for name, k in points.items() if np.abs(k[list(flat)]).max(initial=0.0) < 1e-6}
    segments = [(_short(a), _short(b)) for a, b in found["path"]]
    segments = [(a, b) for a, b in segments if a in points and b in points]
    return (points, segments, note) if segments else _plain_points(flat)


def _seekpath(cell: FloatArray, fractional: FloatArray, numbers: NDArray[np.int64]) -> dict[str, Any] | None:
    import seekpath  # imported here: it brings spglib, needed for paths alone

    for precision in SYMMETRY_PRECISIONS:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # edge cases of the Bravais lattice: either choice is a valid path
                result: dict[str, Any] = seekpath.get_path((cell, fractional, numbers), symprec=precision)
        except (seekpath.SymmetryDetectionError, ValueError, TypeError):
            continue
        return result
    return None


def _same_cell(found: dict[str, Any], cell: FloatArray) -> bool:
    volume = abs(float(np.linalg.det(np.asarray(found["primitive_lattice"]))))
    return abs(abs(float(np.linalg.det(cell))) / volume - 1) < 0.1


def _cell_in_primitive(found: dict[str, Any], cell: FloatArray) -> FloatArray:
    """M with cell = M . primitive; then k (given cell) = M k (primitive), whole numbers for a primitive cell."""
    rotation, primitive = np.asarray(found["rotation_matrix"]), np.asarray(found["primitive_lattice"])
    candidates = [cell @ np.linalg.inv(primitive @ turn) for turn in (rotation, rotation.T)]
    best = min(candidates, key=lambda m: float(np.abs(m - np.round(m)).max()))
    return np.asarray(np.round(best))


def _plain_points(flat: tuple[int, ...]) -> tuple[dict[str, FloatArray], list[Segment], str]:
    names = [name for k, name in enumerate("XYZ") if k not in flat]
    points = {"G": np.zeros(3)}
    points |= {name: 0.5 * np.eye(3)["XYZ".index(name)] for name in names}
    return points, [("G", name) for name in names], "half the reciprocal vectors: no standard path was found"


def _short(name: str) -> str:
    return "G" if name == "GAMMA" else name


def band_path(structure: AtomicStructure, path: str = "auto", n: int = 200) -> KPath:
    """k-points along a path.

    Args:
        structure: the atoms; k-points refer to its cell.
        path: "auto"; names as "G,M,K,G" with "|" for a break; or fractional points as "0 0 0, 0.5 0 0".
        n: k-points in all, shared among segments by length.

    Raises:
        ConfigError: a name is not a special point of this cell, a point is not three numbers, or n is below 2.
    """
    if n < 2:
        raise ConfigError(f"a path needs at least 2 points, found {n}")
    points, segments, note = special_points(structure)
    if path.strip().lower() == "auto":
        pieces = _chain(segments)
        if not pieces:
            return KPath(np.zeros((1, 3)), np.zeros(1), ((0, "G"),), (0,), note)
        located = [[(name, points[name]) for name in piece] for piece in pieces]
    else:
        located = [[_locate(text, points) for text in piece.split(",")] for piece in path.split("|")]
        note = "path as given"
        if any(len(piece) < 2 for piece in located):
            raise ConfigError(f"the path {path!r} has a piece with fewer than two points: give at least 'G,M'")
    return _sample(structure, located, n, note)


def _chain(segments: list[Segment]) -> list[list[str]]:
    pieces: list[list[str]] = []
    for a, b in segments:
        if pieces and pieces[-1][-1] == a:
            pieces[-1].append(b)
        else:
            pieces.append([a, b])
    return pieces


def _locate(text: str, points: dict[str, FloatArray]) -> tuple[str, FloatArray]:
    text = text.strip()
    name = "G" if text in {"Γ", "GAMMA", "Gamma", "gamma"} else text
    if name in points:
        return name, points[name]
    try:
        k = np.array([float(word) for word in text.split()])
    except ValueError:
        k = np.zeros(0)
    if k.shape != (3,) or not np.isfinite(k).all():
        table = ", ".join(f"{key} ({' '.join(f'{x:.4g}' for x in value)})" for key, value in points.items())
        raise ConfigError(
            f"{text!r} is no k-point of this cell: give a name out of {table}; or three fractional numbers"
        )
    return _name_of(k, points) or f"({' '.join(f'{x:.4g}' for x in k)})", k


def _name_of(k: FloatArray, points: dict[str, FloatArray]) -> str | None:
    return next((name for name, value in points.items() if np.abs(value - k).max() < 1e-6), None)


def _sample(structure: AtomicStructure, pieces: list[list[tuple[str, FloatArray]]], n: int, note: str) -> KPath:
    vectors = reciprocal(structure)
    ends = [(np.array([k for _, k in piece]), [name for name, _ in piece]) for piece in pieces]
    total = sum(float(np.linalg.norm(np.diff(k, axis=0) @ vectors, axis=1).sum()) for k, _ in ends)
    kpoints: list[FloatArray] = []
    labels, breaks = [], []
    for corner, names in ends:
        breaks.append(len(kpoints))
        labels.append((len(kpoints), names[0]))
        kpoints.append(corner[0])
        for start, stop, name in zip(corner[:-1], corner[1:], names[1:], strict=True):
            length = float(np.linalg.norm((stop - start) @ vectors))
            steps = max(2, round((n - 1) * length / total)) if total > 0 else 1
            kpoints.extend(start + (stop - start) * (s / steps) for s in range(1, steps))
            kpoints.append(stop)
            labels.append((len(kpoints) - 1, name))
    k = np.array(kpoints)
    return KPath(k, path_distances(k, structure, tuple(breaks)), tuple(labels), tuple(breaks), note)


def path_distances(kpoints: FloatArray, structure: AtomicStructure, breaks: tuple[int, ...]) -> FloatArray:
    """(n_k,) length along the points in 1/Angstrom; steps onto the first point of a piece count nothing."""
    steps = np.linalg.norm(np.diff(kpoints, axis=0, prepend=kpoints[:1]) @ reciprocal(structure), axis=1)
    steps[list(breaks)] = 0.0
    return np.cumsum(steps)


def path_from_points(
    kpoints: FloatArray, structure: AtomicStructure, labels: tuple[tuple[int, str], ...] = ()
) -> KPath:
    """A path of points that another program chose; a jump between two labelled points is a break."""
    k = np.asarray(kpoints, dtype=np.float64).reshape(-1, 3)
    steps = np.linalg.norm(np.diff(k, axis=0) @ reciprocal(structure), axis=1)
    usual = float(np.median(steps)) if len(steps) else 0.0
    ends = {index for index, _ in labels}
    jumps = [int(m) + 1 for m in np.flatnonzero(steps > 5 * usual) if not ends or {int(m), int(m) + 1} <= ends]
    breaks = (0, *jumps)
    if not labels:
        points = special_points(structure)[0]
        named = [(m, _name_of(point, points)) for m, point in enumerate(k)]
        labels = tuple((m, name) for m, name in named if name is not None)
    return KPath(k, path_distances(k, structure, breaks), tuple(labels), breaks, "k-points of the reference")
