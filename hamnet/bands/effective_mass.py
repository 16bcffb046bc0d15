"""Effective masses at the edges of the gap, from a parabola through extra k-points."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from hamnet.bands.band_structure import BandEdge, BandStructure
from hamnet.bands.eigen import DenseSolver, EigenSolver
from hamnet.bands.kpath import KPath, reciprocal
from hamnet.core.bloch import BlochSum
from hamnet.core.calculation import Calculation
from hamnet.core.units import HBAR_SQUARED_OVER_ELECTRON_MASS

FloatArray = NDArray[np.float64]
REACH = 0.02
"""1/Angstrom: the parabola is fitted to nine points this far to either side."""
POINTS = 9


@dataclass(frozen=True, eq=False)
class EffectiveMass:
    """m* / m_e = (hbar^2 / m_e) / (d^2 E / dk^2) along one direction, holes counted positive.

    Args:
        edge: "VBM" or "CBM".
        direction: "K to G" and the like.
        mass: in electron masses; positive where the edge is a true extremum.
        fit: R^2 of the parabola, 1 when perfect.
        kpoint: (3,) fractional, the extremum found near the edge on the path.
        energy: eV there.
    """

    edge: str
    direction: str
    mass: float
    fit: float
    kpoint: FloatArray
    energy: float


def effective_masses(
    calculation: Calculation, bands: BandStructure, solver: EigenSolver | None = None
) -> tuple[EffectiveMass, ...]:
    """Masses at both edges along the path's directions; empty for metals and where nothing disperses.

    Args:
        calculation: what the bands were computed from.
        bands: with a gap.
        solver: as for the bands.
    """
    valence, conduction = bands.valence_edge, bands.conduction_edge
    if valence is None or conduction is None or calculation.hamiltonian is None or len(bands.path.kpoints) < 2:
        return ()
    states = _Line(BlochSum(calculation.hamiltonian), BlochSum(calculation.overlap), solver or DenseSolver())
    result = []
    for name, edge, sign in (("VBM", valence, -1.0), ("CBM", conduction, 1.0)):
        for direction, step in _directions(bands.path, edge):
            result.append(_mass(states, name, edge, sign, direction, step, bands))
    return tuple(result)


class _Line:
    """Energy of one band along a line in k."""

    def __init__(self, hamiltonian: BlochSum, overlap: BlochSum, solver: EigenSolver) -> None:
        self.parts = hamiltonian, overlap
        self.solver = solver

    def energy(self, kpoint: FloatArray, spin: int, band: int) -> float:
        """Energy (eV) of one band at one k-point."""
        return float(self.solver.solve(*self.parts, kpoint, False).energies[spin, band])


def _directions(path: KPath, edge: BandEdge) -> list[tuple[str, FloatArray]]:
    """Fractional steps from the edge to its neighbours on the path; one of two opposite ones."""
    k, named = edge.k_index, path.labels
    found: list[tuple[str, FloatArray]] = []
    for other in (k - 1, k + 1):
        inside = 0 <= other < len(path.kpoints) and max(k, other) not in path.breaks
        if not inside:
            continue
        step = path.kpoints[other] - path.kpoints[k]
        ends = [name for index, name in named if (index <= other if other < k else index >= other)]
        target = (ends[-1] if other < k else ends[0]) if ends else "next point"
        size = float(np.linalg.norm(step))
        if size < 1e-12 or any(abs(abs(step @ s) / (size * np.linalg.norm(s)) - 1) < 1e-9 for _, s in found):
            continue
        found.append((f"{edge.label} to {target}" if edge.label in dict(named).values() else f"along {target}", step))
    return found


def _mass(
    line: _Line, name: str, edge: BandEdge, sign: float, direction: str, step: FloatArray, bands: BandStructure
) -> EffectiveMass:
    length = float(np.linalg.norm(step @ reciprocal(bands.structure)))
    unit = step / length

    def along(s: float) -> float:
        """Energy at distance s from the edge along the direction."""
        return line.energy(edge.kpoint + s * unit, edge.spin, edge.band)

    centre = 0.0
    if edge.label not in dict(bands.path.labels).values():
        centre = float(minimize_scalar(lambda s: sign * along(s), bounds=(-length, length), method="bounded").x)
    s = np.linspace(-REACH, REACH, POINTS)
    energies = np.array([along(centre + x) for x in s])
    curve = np.polynomial.Polynomial.fit(s, energies, 2).convert()
    scatter = float(((energies - energies.mean()) ** 2).sum())
    fit = 1 - float(((energies - curve(s)) ** 2).sum()) / scatter if scatter > 1e-20 else 0.0
    curvature = 2 * float(curve.coef[2]) if len(curve.coef) > 2 else 0.0
    mass = sign * HBAR_SQUARED_OVER_ELECTRON_MASS / curvature if abs(curvature) > 1e-6 else float("inf")
    return EffectiveMass(name, direction, mass, fit, edge.kpoint + centre * unit, along(centre))
