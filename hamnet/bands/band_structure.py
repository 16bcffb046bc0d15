"""BandStructure: bands along a path, the Fermi level, the gap and where its edges are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hamnet.bands.eigen import DenseSolver, EigenSolver, check_memory
from hamnet.bands.fermi import TEMPERATURE, FermiLevel, energy_and_method, fermi_mesh, find_fermi, has_time_reversal
from hamnet.bands.kpath import KPath
from hamnet.bands.spin_texture import texture
from hamnet.bands.weights import mulliken_weights, projection_groups
from hamnet.core.bloch import BlochSum
from hamnet.core.calculation import Calculation
from hamnet.core.spin import Spin
from hamnet.core.structure import AtomicStructure
from hamnet.errors import PhysicsError

FloatArray = NDArray[np.float64]
Progress = Callable[[int, int], None]
CROSSING = 0.01
"""eV: a band that reaches further past the Fermi level than this crosses it; codes put E_F a few meV off the edge."""
MINIMUM_GAP = 0.005
"""eV: a smaller gap is called none: the grid of a DFT code opens the Dirac point of graphene by a meV or two."""


@dataclass(frozen=True, eq=False)
class BandEdge:
    """One end of the gap.

    Args:
        energy: eV, absolute.
        spin, k_index, band: where it is.
        kpoint: (3,) fractional.
        label: "K", "G-M 0.43" (between two labels, how far along) or the fractional k-point.
    """

    energy: float
    spin: int
    k_index: int
    band: int
    kpoint: FloatArray
    label: str


@dataclass(frozen=True, eq=False)
class BandStructure:
    """Bands along a path.

    Args:
        path: k-points, distances, labels.
        energies: (n_spin, n_k, n_bands) eV, absolute; NaN where modes of S were projected out.
        spin: layout of H.
        fermi_energy: eV; None where it cannot be known.
        fermi_method: how the Fermi level was found.
        n_electrons: electrons in the cell.
        structure: the atoms.
        groups: names of the projections; weights: (n_spin, n_k, n_bands, n_groups) of sum 1; or empty and None.
        n_projected: (n_k,) modes of S projected out.
        first_band: index of the first band, counted from the lowest of the cell: above 0 for a window of a large cell.
        spins: (n_spin, n_k, n_bands, 3) <s> of each state, from -1 to 1; None where not asked for.
        spin_axis: 0, 1 or 2: the component that colours the plot; None: no colours.
    """

    path: KPath
    energies: FloatArray
    spin: Spin
    fermi_energy: float | None
    fermi_method: str
    n_electrons: float | None
    structure: AtomicStructure
    groups: tuple[str, ...] = ()
    weights: FloatArray | None = None
    n_projected: NDArray[np.int64] | None = None
    first_band: int = 0
    spins: FloatArray | None = None
    spin_axis: int | None = None

    @property
    def valence_edge(self) -> BandEdge | None:
        """Highest occupied state on the path; None for a metal or without a Fermi level."""
        edges = self._edges()
        return None if edges is None else edges[0]

    @property
    def conduction_edge(self) -> BandEdge | None:
        """Lowest empty state on the path; None for a metal or without a Fermi level."""
        edges = self._edges()
        return None if edges is None else edges[1]

    @property
    def is_metal(self) -> bool | None:
        """True when a band crosses the Fermi level or the edges touch; None without a Fermi level."""
        return None if self.fermi_energy is None else self._edges() is None

    @property
    def gap(self) -> float | None:
        """eV, along this path; 0 for a metal, None without a Fermi level."""
        edges = self._edges()
        if edges is None:
            return None if self.fermi_energy is None else 0.0
        return edges[1].energy - edges[0].energy

    @property
    def is_direct(self) -> bool | None:
        """True when both edges are at one k-point (to 1e-6, up to a reciprocal vector); None for a metal."""
        edges = self._edges()
        if edges is None:
            return None
        difference = edges[0].kpoint - edges[1].kpoint
        return bool(np.abs(difference - np.round(difference)).max() < 1e-6)

    def _edges(self) -> tuple[BandEdge, BandEdge] | None:
        if self.fermi_energy is None:
            return None
        relative = np.nan_to_num(self.energies - self.fermi_energy, nan=np.inf)  # projected out: never filled
        top, bottom = relative.max(axis=1), relative.min(axis=1)
        if ((bottom < -CROSSING) & (top > CROSSING)).any():
            return None
        occupied = top + bottom <= 0
        if not occupied.any() or occupied.all():
            return None
        valence = np.where(occupied[:, None], relative, -np.inf)
        conduction = np.where(occupied[:, None], np.inf, relative)
        low, high = self._edge(int(valence.argmax())), self._edge(int(conduction.argmin()))
        return (low, high) if high.energy - low.energy >= MINIMUM_GAP else None

    def _edge(self, flat: int) -> BandEdge:
        s, k, band = (int(x) for x in np.unravel_index(flat, self.energies.shape))
        return BandEdge(float(self.energies[s, k, band]), s, k, band, self.path.kpoints[k], self._where(k))

    def _where(self, k: int) -> str:
        named = dict(self.path.labels)
        if k in named:
            return named[k]
        before = [index for index in named if index < k]
        after = [index for index in named if index > k]
        if not before or not after:
            return f"({' '.join(f'{x:.4f}' for x in self.path.kpoints[k])})"
        a, b = max(before), min(after)
        d = self.path.distances
        return f"{named[a]}-{named[b]} {(d[k] - d[a]) / max(d[b] - d[a], 1e-12):.2f}"


def compute_bands(
    calculation: Calculation,
    path: KPath,
    project: str = "none",
    project_overlap: float | None = None,
    progress: Progress | None = None,
    solver: EigenSolver | None = None,
    spin_axis: int | None = None,
) -> BandStructure:
    """Bands of H and S along a path.

    Args:
        calculation: with a Hamiltonian.
        path: k-points in the reciprocal basis of the calculation's cell.
        project: "none", "species" or "orbital": weights for fat bands.
        project_overlap: modes of S(k) below this are projected out; None refuses a bad S(k).
        progress: called with (done, all) after each k-point.
        solver: finds the states; None is the dense LAPACK one.
        spin_axis: 0, 1 or 2: find <s> of each state, and this component colours the plot.

    Raises:
        PhysicsError: no Hamiltonian, S(k) is not positive definite, memory does not suffice, or H has no spin to show.
    """
    hamiltonian, overlap = _bloch_sums(calculation, spin_axis)
    solver = DenseSolver(project_overlap) if solver is None else solver
    vectors = project != "none" or spin_axis is not None
    check_memory(hamiltonian, vectors)
    groups, table = _projection(calculation, hamiltonian, project)
    energies, weights, projected, spins = [], [], [], []
    for done, k in enumerate(path.kpoints):
        states = solver.solve(hamiltonian, overlap, k, vectors)
        energies.append(states.energies)
        projected.append(states.n_projected)
        if groups:
            weights.append(mulliken_weights(states, table))
        if spin_axis is not None:
            spins.append(texture(states, hamiltonian.spin))
        if progress is not None:
            progress(done + 1, len(path.kpoints))
    fermi, how = energy_and_method(fermi_level(calculation, hamiltonian, overlap, solver))
    return BandStructure(
        path,
        np.stack(energies, axis=1),
        hamiltonian.spin,
        fermi,
        how,
        electrons(calculation),
        calculation.structure,
        groups,
        np.stack(weights, axis=1) if groups else None,
        np.array(projected),
        spins=np.stack(spins, axis=1) if spins else None,
        spin_axis=spin_axis,
    )


def _bloch_sums(calculation: Calculation, spin_axis: int | None) -> tuple[BlochSum, BlochSum]:
    """H and S, if what is asked for can be had of them."""
    if calculation.hamiltonian is None:
        raise PhysicsError("this calculation has no Hamiltonian (overlap only): bands need H and S")
    if spin_axis is not None and calculation.hamiltonian.spin is Spin.NONE:
        raise PhysicsError("this Hamiltonian has no spin: bands by spin need collinear or spinor blocks")
    return BlochSum(calculation.hamiltonian), BlochSum(calculation.overlap)


def _projection(calculation: Calculation, hamiltonian: BlochSum, project: str) -> tuple[tuple[str, ...], FloatArray]:
    """Names of the weights and their (n_groups, n) table; empty where no weights are wanted."""
    if project == "none":
        return (), np.zeros((0, hamiltonian.size))
    return projection_groups(calculation.basis, calculation.structure.species, hamiltonian.spin, project)


def electrons(calculation: Calculation) -> float | None:
    """Electrons in the cell: the calculation's, else the neutral atoms'; None when no species brings any."""
    if calculation.n_electrons is not None:
        return calculation.n_electrons
    count = calculation.basis.n_electrons(calculation.structure.species)
    return count if count > 0 else None


def fermi_level(
    calculation: Calculation, hamiltonian: BlochSum, overlap: BlochSum, solver: EigenSolver
) -> FermiLevel | None:
    """The calculation's Fermi level, else the one found by counting electrons on a k mesh; None without electrons."""
    if calculation.fermi_energy is not None:
        return FermiLevel(calculation.fermi_energy, "given by the calculation")
    count = electrons(calculation)
    if count is None or calculation.hamiltonian is None:
        return None
    reversal = has_time_reversal(calculation.hamiltonian)
    kpoints, weights, size = fermi_mesh(calculation.structure, reversal)
    energies = np.stack([solver.solve(hamiltonian, overlap, k, False).energies for k in kpoints], axis=1)
    temperature = calculation.electronic_temperature or TEMPERATURE
    level = find_fermi(energies, weights, count, hamiltonian.spin, temperature)
    mesh = " x ".join(str(x) for x in size)
    return FermiLevel(level, f"{count:g} electrons counted on a {mesh} k mesh at {temperature:g} K")


def rows(bands: BandStructure) -> Iterator[tuple[int, int, int, float]]:
    """(spin, k index, band of `energies`, energy) of every state, in this order, for tables."""
    for s, k, n in np.ndindex(*bands.energies.shape):
        yield s, k, n, float(bands.energies[s, k, n])
