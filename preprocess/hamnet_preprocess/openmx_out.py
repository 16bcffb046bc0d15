"""OpenMX's .out: convergence, energy, forces, moments and eigenvalues; every part may be missing."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hamnet.core.units import BOHR, HARTREE
from hamnet.errors import FormatError

FloatArray = NDArray[np.float64]

NO_MOMENT = 1e-4
"""Moments (Bohr magnetons) all below this are no magnetism: non-collinear ones are printed with five decimals."""

K_SHIFT = np.array([1e-6, -1e-6, 2e-6])
"""What OpenMX adds to each k-point of its regular mesh. Not in its manual; found by fitting: with it the eigenvalues
in the .out are those of the stored H and S to 1e-7 eV in 22 calculations (meshes 1 to 15), without it to 3e-5 eV."""
K_PRINTED = 6e-6
"""k-points are printed with five decimals, so one of the mesh is at most this far from what stands in the file."""

_NUMBER = r"[-+]?\d+\.\d+"
_VERSION = re.compile(r"OpenMX Ver\.\s*([\w.]+)")
_STEP = re.compile(rf"SCF=\s*(\d+)\s+NormRD=\s*({_NUMBER})\s+Uele=\s*({_NUMBER})")
_ENERGY = re.compile(rf"^\s*Utot\.\s+({_NUMBER})", re.MULTILINE)
_FORCES = re.compile(r"<coordinates\.forces\s*\n\s*(\d+)\s*\n(.*?)coordinates\.forces>", re.DOTALL)
_KPOINT = re.compile(rf"^\s*k1=\s*({_NUMBER})\s+k2=\s*({_NUMBER})\s+k3=\s*({_NUMBER})\s*$", re.MULTILINE)
_ATOM = re.compile(rf"^\s*\d+\s+[A-Za-z]\w*((?:\s+{_NUMBER})+)\s*$")
_LEVEL = re.compile(rf"^\s*\d+\s+({_NUMBER})(?:\s+({_NUMBER}))?\s*$")


@dataclass(frozen=True, eq=False)
class OutFile:
    """What a .out says; None or empty where it does not.

    Args:
        version: of OpenMX.
        steps: SCF cycles of the last SCF. change: |Uele - previous Uele| at its end, eV.
        energy: Utot, eV.
        forces: (n_atoms, 3) eV / Angstrom.
        moments: (n_atoms, 3) Mulliken spin moments, Bohr magnetons; along z when collinear; None without magnetism.
        kpoints: (n_k, 3) fractional, those of `on_mesh`. eigenvalues: (n_spin, n_k, n_bands) eV.
    """

    version: str
    steps: int
    change: float | None
    energy: float | None
    forces: FloatArray | None
    moments: FloatArray | None
    kpoints: FloatArray | None
    eigenvalues: FloatArray | None


def read_out(path: Path, n_spin: int = 1, kmesh: tuple[int, int, int] | None = None) -> OutFile:
    """Read a .out.

    Args:
        path: the file.
        n_spin: 2 when collinear: two columns of eigenvalues are kept.
        kmesh: of the input; sets the k-points free from the rounding of their print.

    Raises:
        FormatError: the file cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise FormatError(f"{path}: cannot be read: {error.strerror}") from error
    version = _VERSION.search(text)
    steps, change = _last_scf(text)
    energies = _ENERGY.findall(text)
    kpoints, eigenvalues = _eigenvalues(text, n_spin, kmesh)
    energy = float(energies[-1]) * HARTREE if energies else None
    name = version[1].rstrip(".") if version else ""
    return OutFile(name, steps, change, energy, _forces(text, path), _moments(text), kpoints, eigenvalues)


def _last_scf(text: str) -> tuple[int, float | None]:
    cycles = [(int(step), float(energy)) for step, _, energy in _STEP.findall(text)]
    if not cycles:
        return 0, None
    if len(cycles) < 2 or cycles[-1][0] == 1:
        return cycles[-1][0], None
    return cycles[-1][0], abs(cycles[-1][1] - cycles[-2][1]) * HARTREE


def _forces(text: str, path: Path) -> FloatArray | None:
    blocks = _FORCES.findall(text)
    if not blocks:
        return None
    count, body = blocks[-1]
    rows = [line.split() for line in body.strip().splitlines()]
    try:
        values = np.array([[float(word) for word in row[5:8]] for row in rows])
    except ValueError as error:
        raise FormatError(f"{path}: <coordinates.forces holds something that is not a number") from error
    if values.shape != (int(count), 3):
        raise FormatError(f"{path}: <coordinates.forces holds {values.shape} numbers, expected ({count}, 3)")
    forces: FloatArray = values * (HARTREE / BOHR)
    return forces


def _moments(text: str) -> FloatArray | None:
    """Columns are up, down, sum, difference and, when non-collinear, theta and phi in degrees."""
    start = text.rfind("   Mulliken populations")
    section = text[start : text.find("Sum of MulP", start)] if start >= 0 else ""
    rows = [match[1].split() for match in map(_ATOM.match, section.splitlines()) if match]
    if not rows or {len(row) for row in rows} not in ({4}, {6}):
        return None
    numbers = np.array(rows, dtype=np.float64)
    theta, phi = np.radians(numbers[:, 4:6].T) if numbers.shape[1] == 6 else np.zeros((2, len(rows)))
    axis = np.column_stack((np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi), np.cos(theta)))
    moments: FloatArray = numbers[:, 3:4] * axis
    return moments if np.abs(moments).max() > NO_MOMENT else None


def on_mesh(printed: FloatArray, kmesh: tuple[int, int, int]) -> FloatArray:
    """(n_k, 3) fractional: the k-points that OpenMX solved at, from their five printed decimals.

    Each is a point of the mesh, m / (2 N), plus `K_SHIFT`; as printed when one lies off the mesh (as Monkhorst-Pack's
    irreducible points may).
    """
    twice = 2 * np.array(kmesh)
    nearest = np.round(printed * twice) / twice
    exact: FloatArray = nearest + K_SHIFT
    return exact if (np.abs(nearest - printed) <= K_PRINTED + np.abs(K_SHIFT)).all() else printed


def _eigenvalues(
    text: str, n_spin: int, kmesh: tuple[int, int, int] | None
) -> tuple[FloatArray | None, FloatArray | None]:
    """k-points and eigenvalues of the Band solver, or of the cluster solver at k = 0."""
    start = text.rfind("Eigenvalues (Hartree)")
    if start < 0:
        return None, None
    section = text[start:]
    section = section[: max(section.find("Mulliken populations"), 0) or len(section)]
    marks = list(_KPOINT.finditer(section))
    if marks:
        kpoints = np.array([[float(x) for x in mark.groups()] for mark in marks])
        kpoints = kpoints if kmesh is None else on_mesh(kpoints, kmesh)
        ends = [mark.start() for mark in marks[1:]] + [len(section)]
        parts = [section[mark.end() : end] for mark, end in zip(marks, ends, strict=True)]
    else:
        kpoints, parts = np.zeros((1, 3)), [section]
    levels = [_levels(part) for part in parts]
    if not levels[0] or len({len(x) for x in levels}) != 1:
        return None, None
    values = np.array([[pair[min(s, len(pair) - 1)] for pair in part] for part in levels for s in range(n_spin)])
    shape = (len(parts), n_spin, len(levels[0]))
    energies: FloatArray = np.ascontiguousarray(values.reshape(shape).swapaxes(0, 1)) * HARTREE
    return kpoints, energies


def _levels(part: str) -> list[tuple[float, ...]]:
    """The first run of numbered energies in a piece of text."""
    result: list[tuple[float, ...]] = []
    for line in part.splitlines():
        match = _LEVEL.match(line)
        if match:
            result.append(tuple(float(x) for x in match.groups() if x is not None))
        elif result and line.strip():
            break
    return result
