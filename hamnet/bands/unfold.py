"""Unfolding: how much of each state of a supercell has a wave vector of the primitive cell.

A primitive Bloch function of a supercell's orbitals is |k, a> = N^(-1/2) sum_R exp(2 pi i k.R) |R, a>. With the
projector P_k = sum_a |k, a)(k, a| on coefficients, W = Re (P_k c)^dagger S c: 0 or 1 in an exact supercell, and
always of sum 1 over the N wave vectors that fold onto one, because then sum P_k = 1 and c^dagger S c = 1.
In a rattled or defective cell single weights may be a little negative, as Mulliken populations are.
Source: C.-C. Lee, Y. Yamada-Takamura, T. Ozaki, J. Phys.: Condens. Matter 25, 345501 (2013).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hamnet.bands.kpath import KPath
from hamnet.bands.kpoint_runs import Arrays, fingerprint, run_kpoints
from hamnet.bands.solvers import Eigensolver
from hamnet.core.calculation import Calculation
from hamnet.core.spin import Spin
from hamnet.core.structure import AtomicStructure
from hamnet.errors import PhysicsError

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
STRAIN = 0.1
"""Largest distance of the supercell from whole multiples of the primitive cell, in primitive lattice vectors."""
REACH = 0.8
"""Angstrom: an atom further than this from every site of the primitive cell counts as an interstitial."""


@dataclass(frozen=True, eq=False)
class SiteMap:
    """Where each atom of a supercell stands in the primitive crystal.

    Args:
        matrix: (3, 3) whole numbers, supercell = matrix . primitive cell.
        cells: (n_atoms, 3) primitive cell R of each atom.
        labels: (n_atoms,) one number for each (site, species); atoms off every site have labels of their own.
        displacement: (n_atoms,) Angstrom from the ideal site; NaN off every site.
        n_missing: sites without an atom.
    """

    matrix: IntArray
    cells: IntArray
    labels: IntArray
    displacement: FloatArray
    n_missing: int

    @property
    def n_cells(self) -> int:
        """Primitive cells in the supercell."""
        return round(abs(float(np.linalg.det(self.matrix))))

    def describe(self) -> str:
        """Text for people."""
        off = int(np.isnan(self.displacement).sum())
        most = float(np.nanmax(self.displacement)) if off < len(self.displacement) else 0.0
        return (
            f"{self.n_cells} primitive cells; atoms at most {most:.3f} A off their sites, "
            f"{self.n_missing} site(s) empty, {off} atom(s) off every site"
        )


@dataclass(frozen=True, eq=False)
class UnfoldedBands:
    """Effective band structure.

    Args:
        path: k-points of the primitive cell.
        energies: for each k-point (n_spin, n) eV; weights: (n_spin, n), of each state at this k-point.
        fermi_energy: eV; None where it is unknown.
        sites: how supercell and primitive cell fit.
    """

    path: KPath
    energies: list[FloatArray]
    weights: list[FloatArray]
    fermi_energy: float | None
    sites: SiteMap


def map_sites(primitive: AtomicStructure, supercell: AtomicStructure) -> SiteMap:
    """Assign the atoms of a supercell, rattled or defective, to the sites of the primitive crystal.

    Args:
        primitive: one cell; supercell: many of them, strained a little at most.

    Raises:
        PhysicsError: the supercell is no multiple of the primitive cell, or no atom stands on a site.
    """
    if primitive.cell is None or supercell.cell is None:
        raise PhysicsError("unfolding needs a primitive cell and a supercell: one of them is a molecule")
    ratio = supercell.cell @ np.linalg.inv(primitive.cell)
    matrix = np.round(ratio).astype(np.int64)
    if np.abs(ratio - matrix).max() > STRAIN or round(abs(float(np.linalg.det(matrix)))) < 1:
        raise PhysicsError(
            f"the supercell is no multiple of the primitive cell: lattice vectors are {np.round(ratio, 3).tolist()} of "
            "its own; give the primitive cell in the supercell's orientation"
        )
    sites = primitive.positions @ np.linalg.inv(primitive.cell)
    atoms: FloatArray = supercell.positions @ np.linalg.inv(supercell.cell) @ matrix
    atoms = atoms - _common_shift(atoms, sites, supercell, primitive)
    step = atoms[:, None] - sites[None]
    cell = np.round(step)
    distance = np.linalg.norm((step - cell) @ primitive.cell, axis=2)
    site = distance.argmin(axis=1)
    near = distance[np.arange(len(site)), site]
    cells = cell[np.arange(len(site)), site].astype(np.int64)
    on_site = near < REACH
    key = np.column_stack((_wrapped(cells, matrix), site))
    order = np.lexsort((near, *key.T[::-1]))
    same = np.concatenate(([False], (np.diff(key[order], axis=0) == 0).all(axis=1)))
    on_site[order[same]] = False  # two atoms on one site: the nearer one has it
    labels = site * (int(supercell.species.max()) + 1) + supercell.species
    labels[~on_site] = labels.max() + 1 + np.arange(int((~on_site).sum()))
    missing = round(abs(float(np.linalg.det(matrix)))) * len(sites) - int(on_site.sum())
    if not on_site.any():
        raise PhysicsError(f"no atom of the supercell is within {REACH} A of a site of the primitive cell")
    return SiteMap(matrix, cells, labels, np.where(on_site, near, np.nan), missing)


def weights_of(
    sites: SiteMap, calculation: Calculation, kpoint: FloatArray, vectors: NDArray[Any], overlap_vectors: NDArray[Any]
) -> FloatArray:
    """(n_bands,) spectral weight W of states at one wave vector of the primitive cell.

    Args:
        sites: of the supercell.
        calculation: of the supercell.
        kpoint: (3,) fractional, of the primitive cell.
        vectors: (n_rows, n_bands) states at K = matrix . k of the supercell; overlap_vectors: S times them.
    """
    sizes = calculation.basis.n_orbitals[calculation.structure.species]
    atom = np.repeat(np.arange(len(sizes)), sizes)
    orbital = np.arange(len(atom)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    column = sites.labels[atom] * (int(sizes.max()) + 1) + orbital
    phase = np.exp(-2j * np.pi * (sites.cells[atom] @ kpoint))
    if calculation.spin is Spin.SPINOR:
        column = np.concatenate((column, column + column.max() + 1))
        phase = np.concatenate((phase, phase))
    order = np.argsort(column, kind="stable")
    starts = np.flatnonzero(np.diff(column[order], prepend=-1))
    projected, mapped = (
        np.add.reduceat((phase[:, None] * v)[order], starts, axis=0) for v in (vectors, overlap_vectors)
    )
    return np.asarray(np.real((projected.conj() * mapped).sum(axis=0)) / sites.n_cells)


def unfold_bands(
    calculation: Calculation,
    primitive: AtomicStructure,
    path: KPath,
    solver: Eigensolver,
    centre: float,
    n_bands: int,
    folder: Path,
    jobs: int = 1,
    certify: bool = True,
    on_line: Callable[[str], None] = lambda _: None,
) -> UnfoldedBands:
    """States of the supercell about an energy with their weights along a path of the primitive cell.

    Args:
        calculation: the supercell's; solver: of it.
        primitive: its cell gives the wave vectors.
        path: k-points of the primitive cell.
        centre: eV; n_bands: states about it in each channel.
        folder: of the results of single k-points; jobs: of them side by side.
        certify: prove by counting that no state is missed.
        on_line: told each k-point that is done.

    Raises:
        PhysicsError: the cells do not fit.
    """
    sites = map_sites(primitive, calculation.structure)
    on_line(sites.describe())

    def task(n: int) -> Arrays:
        """Energies and weights at one wave vector."""
        k = path.kpoints[n]
        window = solver.window(sites.matrix @ k, centre, n_bands, vectors=True, certify=certify)
        arrays: Arrays = {}
        for s, channel in enumerate(window):
            if channel.vectors is not None and channel.overlap_vectors is not None:
                weights = weights_of(sites, calculation, k, channel.vectors, channel.overlap_vectors)
                arrays[f"energies{s}"], arrays[f"weights{s}"] = channel.energies, weights
        return arrays

    key = fingerprint(calculation, path.kpoints.tobytes(), centre, n_bands, sites.labels.tobytes(), certify)
    results = run_kpoints(task, len(path.kpoints), folder, key, jobs, on_line)
    channels = range(solver.n_channels)
    energies = [_padded([r[f"energies{s}"] for s in channels]) for r in results]
    weights = [_padded([r[f"weights{s}"] for s in channels]) for r in results]
    return UnfoldedBands(path, energies, weights, calculation.fermi_energy, sites)


def _padded(rows: list[FloatArray]) -> FloatArray:
    result = np.full((len(rows), max(len(row) for row in rows)), np.nan)
    for s, row in enumerate(rows):
        result[s, : len(row)] = row
    return result


def _wrapped(cells: IntArray, matrix: IntArray) -> IntArray:
    """Primitive cells modulo the supercell, as whole numbers over its determinant."""
    determinant = round(float(np.linalg.det(matrix)))
    adjugate = np.round(np.linalg.inv(matrix) * determinant).astype(np.int64)
    return np.asarray((cells @ adjugate) % abs(determinant), dtype=np.int64)


def _common_shift(
    atoms: FloatArray, sites: FloatArray, supercell: AtomicStructure, primitive: AtomicStructure
) -> FloatArray:
    """Shift of the origin (primitive fractional) that puts most atoms onto sites of their own element."""
    best, least = np.zeros(3), np.inf
    own = np.flatnonzero(supercell.atomic_numbers == primitive.atomic_numbers[0])
    tries = [np.zeros(3), *(atoms[a] - sites[0] for a in own[:8])]
    for shift in tries:
        step = (atoms - shift)[:, None] - sites[None]
        distance = np.linalg.norm((step - np.round(step)) @ primitive.lattice, axis=2)
        allowed = supercell.atomic_numbers[:, None] == primitive.atomic_numbers[None]
        cost = float(np.median(np.where(allowed, distance, REACH).min(axis=1)))
        if cost < least - 1e-3:  # the given origin wins unless another is clearly better
            best, least = shift, cost
    return best - np.round(best)
