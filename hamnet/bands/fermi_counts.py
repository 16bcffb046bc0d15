"""Fermi level of large cells by counting states: no diagonalisation, exact numbers of electrons."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hamnet.bands.fermi import TEMPERATURE, FermiLevel, fermi_mesh, find_fermi, has_time_reversal, state_factor
from hamnet.bands.solvers import ChannelStates, Eigensolver
from hamnet.core.calculation import Calculation
from hamnet.core.spin import Spin
from hamnet.core.units import BOLTZMANN
from hamnet.errors import ConvergenceError, PhysicsError

FloatArray = NDArray[np.float64]
COARSE = 0.02
"""eV: counts bracket the Fermi level at least this closely before states about it are computed; mostly they stop
before, once no more electrons are missing than half of those states hold."""
TAIL = 12
"""k T about the Fermi level that the computed states must cover: beyond, occupations differ from 0 or 1 by 6e-6."""
FIRST_STATES = 16
ATTEMPTS = 8
MOST_COUNTS = 60
FEW = 8.0
"""Electrons between two counts below which a straight line through them says nothing."""
SAME = 1e-6
"""Electrons: weights of k-points add up to one only so well."""


@dataclass(frozen=True, eq=False)
class CountedMesh:
    """Counting on a k mesh.

    Args:
        solver: of the calculation.
        kpoints: (n_k, 3) fractional; weights: (n_k,) of sum 1.
        n_electrons: in the cell.
        spin: layout of H.
    """

    solver: Eigensolver
    kpoints: FloatArray
    weights: FloatArray
    n_electrons: float
    spin: Spin

    def electrons_below(self, energy: float) -> float:
        """Electrons that the states below an energy hold."""
        counts = [float(self.solver.count(k, energy).sum()) for k in self.kpoints]
        return state_factor(self.spin) * float(np.dot(self.weights, counts))

    @property
    def capacity(self) -> float:
        """Electrons that all states hold."""
        return float(state_factor(self.spin) * self.solver.n_channels * self.solver.n_rows)


def bracket_fermi(
    mesh: CountedMesh,
    guess: float,
    resolution: float,
    on_count: Callable[[float, float], None] = lambda energy, electrons: None,
    above: bool = False,
    enough: float | None = None,
) -> tuple[float, float]:
    """(low, high) about the energy at which the states begin to hold the electrons.

    Between two counts the next energy is where a straight line through them meets the number of electrons, kept away
    from both ends; where few electrons are left in between, it is the middle.

    Args:
        mesh: counts.
        guess: eV; the search starts here and trebles its steps.
        resolution: eV, largest width of the result.
        on_count: told each (energy, electrons).
        above: find where they begin to hold more instead: the upper edge of a gap.
        enough: electrons; a count this close to the wanted number ends the search there; None: the width decides.

    Raises:
        PhysicsError: more electrons than the basis holds, or none.
        ConvergenceError: no bracket within 60 counts.
    """
    n = mesh.n_electrons
    if not 0 < n < mesh.capacity:
        raise PhysicsError(f"{n:g} electrons do not fit the basis, which holds more than 0 and {mesh.capacity:g}")
    low, high, step, energy = -np.inf, np.inf, 1.0, guess
    held_low, held_high = 0.0, mesh.capacity
    for _ in range(MOST_COUNTS):
        held = mesh.electrons_below(energy)
        on_count(energy, held)
        if enough is not None and abs(held - n) <= enough:
            return energy, energy
        if held < n - SAME or (above and held <= n + SAME):
            low, held_low = energy, held
        else:
            high, held_high = energy, held
        if high - low <= resolution:
            return float(low), float(high)
        if np.isfinite(low) and np.isfinite(high):
            few = held_high - held_low < FEW
            part = 0.5 if few else float(np.clip((n - held_low) / (held_high - held_low), 0.08, 0.92))
            energy = low + part * (high - low)
        else:
            energy, step = energy + (step if np.isinf(high) else -step), 3 * step
    raise ConvergenceError(f"no Fermi level for {n:g} electrons within {MOST_COUNTS} counts about {guess:g} eV")


def fermi_by_counting(
    calculation: Calculation,
    solver: Eigensolver,
    n_electrons: float,
    temperature: float | None = None,
    mesh: tuple[FloatArray, FloatArray] | None = None,
    resolution: float | None = None,
    on_line: Callable[[str], None] = lambda _: None,
) -> FermiLevel:
    """Fermi level from counts that bracket it and the exact states in between; the middle of the gap in an insulator.

    Args:
        calculation: with a Hamiltonian.
        solver: of this calculation.
        n_electrons: in the cell.
        temperature: kelvin; None: the calculation's, else 300.
        mesh: (n_k, 3) fractional k-points and weights of sum 1; None: a mesh whose density follows the cell.
        resolution: eV; given, counts alone bisect to this width and no state is computed.
        on_line: told each count.

    Raises:
        PhysicsError: more electrons than the basis holds.
        ConvergenceError: the states about the Fermi level cannot be had.
    """
    if calculation.hamiltonian is None:
        raise PhysicsError("this calculation has no Hamiltonian (overlap only): a Fermi level needs H and S")
    kpoints, weights = mesh or fermi_mesh(calculation.structure, has_time_reversal(calculation.hamiltonian))[:2]
    counted = CountedMesh(solver, kpoints, weights, n_electrons, calculation.hamiltonian.spin)
    if not 0 < n_electrons < counted.capacity:
        raise PhysicsError(
            f"{n_electrons:g} electrons do not fit the basis, which holds more than 0 and {counted.capacity:g}"
        )

    def say(energy: float, electrons: float) -> None:
        """One line for each count."""
        on_line(f"  {electrons:.3f} electrons below {energy:.4f} eV")

    known = calculation.fermi_energy
    guess = _onsite_mean(calculation) if known is None else known
    points = f"{len(kpoints)} k-point{'s' if len(kpoints) > 1 else ''}"
    if resolution is not None:
        low, high = bracket_fermi(counted, guess, resolution, say)
        if abs(counted.electrons_below(high) - n_electrons) < SAME:
            low, high = high, bracket_fermi(counted, high, resolution, say, above=True)[0]  # in a gap: its edges
        return FermiLevel((low + high) / 2, f"{n_electrons:g} electrons by counts at {points}, to {resolution:g} eV")
    temperature = temperature or calculation.electronic_temperature or TEMPERATURE
    centre = _approach(counted, guess, say) if known is None else guess
    energy = _refine(counted, centre, temperature, say)
    return FermiLevel(energy, f"{n_electrons:g} electrons by counts and states at {points}, {temperature:g} K")


def _approach(mesh: CountedMesh, guess: float, say: Callable[[float, float], None]) -> float:
    """An energy so close to the Fermi level that some states about it will do."""
    enough = state_factor(mesh.spin) * mesh.solver.n_channels * FIRST_STATES / 4
    low, high = bracket_fermi(mesh, guess, COARSE, say, enough=enough)
    return (low + high) / 2


def _refine(mesh: CountedMesh, centre: float, temperature: float, say: Callable[[float, float], None]) -> float:
    """Fermi level from the states about a first guess, on top of the exact number of those below."""
    n_states, margin, rows = FIRST_STATES, TAIL * BOLTZMANN * temperature, mesh.solver.n_rows
    for _ in range(ATTEMPTS):
        windows = [mesh.solver.window(k, centre, min(n_states, rows)) for k in mesh.kpoints]
        below = np.array([sum(channel.first or 0 for channel in window) for window in windows])
        left = mesh.n_electrons - state_factor(mesh.spin) * float(np.dot(mesh.weights, below))
        energies = _stacked(windows)
        ends = _covered(energies)
        held = state_factor(mesh.spin) * float((np.isfinite(energies).sum(axis=(0, 2)) * mesh.weights).sum())
        more = 2.0
        if 0 < left < held:
            level = find_fermi(energies, mesh.weights, left, mesh.spin, temperature)
            if n_states >= rows or ends[0] + margin <= level <= ends[1] - margin:
                return level
            # Now about the level itself: as many as the density of these states lets expect.
            more = float(np.clip(2.4 * margin / max(ends[1] - ends[0], 1e-9), 1.3, 8.0))
            centre = level
        elif -held < left < 2 * held:
            centre = ends[1] if left >= held else ends[0]
        else:
            centre, more = _approach(mesh, centre, say), 1.0
        n_states = math.ceil(more * n_states)
    raise ConvergenceError(
        f"{n_states} states about {centre:.3f} eV do not cover {margin:.2f} eV on both sides of the Fermi level: lower "
        "the temperature, or bisect by counts alone with --resolution 0.001"
    )


def _stacked(windows: list[list[ChannelStates]]) -> FloatArray:
    """(n_channels, n_k, most) energies, NaN where a window has fewer."""
    width = max(len(channel.energies) for window in windows for channel in window)
    energies = np.full((len(windows[0]), len(windows), width), np.nan)
    for k, window in enumerate(windows):
        for s, channel in enumerate(window):
            energies[s, k, : len(channel.energies)] = channel.energies
    return energies


def _covered(energies: FloatArray) -> tuple[float, float]:
    """Range in which every k-point's window is complete; infinite where a window ends with the basis."""
    return float(np.nanmin(energies, axis=2).max()), float(np.nanmax(energies, axis=2).min())


def _onsite_mean(calculation: Calculation) -> float:
    """Mean of the diagonal of H: inside the spectrum."""
    if calculation.hamiltonian is None:
        return 0.0
    matrix = calculation.hamiltonian
    own = np.flatnonzero(matrix.pairs.on_site)
    values = [np.real(np.diagonal(matrix.block(int(p)), axis1=-2, axis2=-1)).mean() for p in own[:200]]
    return float(np.mean(values))
