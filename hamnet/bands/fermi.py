"""Occupations and the Fermi level by counting electrons on a k mesh."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import expit

from hamnet.bands.kpath import vacuum_directions
from hamnet.core.blocks import BlockMatrix
from hamnet.core.spin import Spin, time_reversed
from hamnet.core.structure import AtomicStructure
from hamnet.core.units import BOLTZMANN
from hamnet.errors import PhysicsError

FloatArray = NDArray[np.float64]
MESH_SPACING = 0.15
"""Distance of neighbouring k-points of the mesh in 1/Angstrom (2 pi included)."""
TEMPERATURE = 300.0
"""Electronic temperature in kelvin where the calculation names none."""


@dataclass(frozen=True, eq=False)
class FermiLevel:
    """Fermi level and how it was found.

    Args:
        energy: eV.
        method: text for people, as "counted on a 12 x 12 x 1 mesh, 300 K".
    """

    energy: float
    method: str


def energy_and_method(level: FermiLevel | None) -> tuple[float | None, str]:
    """What a band structure says of its Fermi level, known or not."""
    if level is None:
        return None, "unknown: neither a Fermi level nor electrons are given"
    return level.energy, level.method


def state_factor(spin: Spin) -> int:
    """Electrons that one eigenstate holds: 2 without spin, else 1."""
    return 2 if spin is Spin.NONE else 1


def occupations(energies: FloatArray, fermi_energy: float, temperature: float) -> FloatArray:
    """Fermi-Dirac f(E) = 1 / (1 + exp((E - E_F) / k T)), between 0 and 1.

    Args:
        energies: any shape, eV; NaN (projected modes) is empty.
        fermi_energy: eV.
        temperature: kelvin, above zero.
    """
    return np.asarray(expit(-(np.nan_to_num(energies, nan=np.inf) - fermi_energy) / (BOLTZMANN * temperature)))


def find_fermi(
    energies: FloatArray, weights: FloatArray, n_electrons: float, spin: Spin, temperature: float = TEMPERATURE
) -> float:
    """Fermi level at which the mesh holds the electrons; the middle of the gap in an insulator.

    Args:
        energies: (n_spin, n_k, n_bands) eV.
        weights: (n_k,) of sum 1.
        n_electrons: electrons in the cell.
        spin: layout of H.
        temperature: kelvin.

    Raises:
        PhysicsError: more electrons than states, or none.
    """
    factor = state_factor(spin)
    capacity = factor * float((np.isfinite(energies).sum(axis=(0, 2)) * weights).sum())
    if not 0 < n_electrons < capacity:
        raise PhysicsError(f"{n_electrons:g} electrons do not fit the basis, which holds more than 0 and {capacity:g}")
    middle = _middle_of_gap(energies, weights, n_electrons / factor, 40 * BOLTZMANN * temperature)
    if middle is not None:
        return middle

    def excess(level: float) -> float:
        """Electrons at this Fermi level minus those there are."""
        filled = occupations(energies, level, temperature).sum(axis=(0, 2))
        return factor * float((filled * weights).sum()) - n_electrons

    margin = 60 * BOLTZMANN * temperature
    return float(brentq(excess, np.nanmin(energies) - margin, np.nanmax(energies) + margin, xtol=1e-10))


def _middle_of_gap(energies: FloatArray, weights: FloatArray, n_states: float, least: float) -> float | None:
    flat = np.nan_to_num(energies, nan=np.inf)
    order = np.argsort(flat, axis=None)
    filled = np.cumsum(np.broadcast_to(weights[None, :, None], flat.shape).reshape(-1)[order])
    last = int(np.searchsorted(filled, n_states - 1e-9))
    if last + 1 >= flat.size or abs(filled[last] - n_states) > 1e-9:
        return None
    low, high = (float(flat.reshape(-1)[order[k]]) for k in (last, last + 1))
    # Below 40 k T occupations smear (exp(-20) = 2e-9 at the edges) and counting places the level itself.
    return (low + high) / 2 if np.isfinite(high) and high - low > least else None


def fermi_mesh(
    structure: AtomicStructure, time_reversal: bool, spacing: float = MESH_SPACING
) -> tuple[FloatArray, FloatArray, tuple[int, int, int]]:
    """Gamma-centred mesh whose density follows the size of the cell; one of k and -k with time reversal.

    Returns:
        (n_k, 3) fractional k-points, (n_k,) weights of sum 1, and the three divisions.
    """
    if structure.cell is None:
        return np.zeros((1, 3)), np.ones(1), (1, 1, 1)
    reciprocal = 2 * np.pi * np.linalg.norm(np.linalg.inv(structure.cell), axis=0)
    flat = vacuum_directions(structure)
    size = [1 if k in flat else max(1, int(np.ceil(reciprocal[k] / spacing))) for k in range(3)]
    divisions = (size[0], size[1], size[2])
    return *divided_mesh(divisions, time_reversal), divisions


def divided_mesh(divisions: tuple[int, int, int], time_reversal: bool) -> tuple[FloatArray, FloatArray]:
    """Gamma-centred mesh; one of k and -k with time reversal.

    Returns:
        (n_k, 3) fractional k-points and (n_k,) weights of sum 1.
    """
    size = np.array(divisions)
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in divisions), indexing="ij"), axis=-1).reshape(-1, 3)
    if not time_reversal:
        return grid / size, np.full(len(grid), 1 / len(grid))
    number = np.arange(len(grid))
    mirror = np.ravel_multi_index(tuple((-grid % size).T), divisions)
    keep = number <= mirror
    weights = np.where(number == mirror, 1.0, 2.0)[keep] / len(grid)
    return grid[keep] / size, weights


def has_time_reversal(hamiltonian: BlockMatrix) -> bool:
    """True when E(k) = E(-k) follows from the blocks: real ones, or spinor ones without magnetism."""
    if hamiltonian.spin is not Spin.SPINOR:
        return True
    # 1e-5 eV: well above the noise of a DFT code's output, well below any moment.
    return all(np.abs(group.blocks - time_reversed(group.blocks)).max() < 1e-5 for group in hamiltonian.groups())
