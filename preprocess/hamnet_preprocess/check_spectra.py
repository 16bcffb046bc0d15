"""Spectra that the physics doctor needs: S at a few k-points, eigenvalues, and the number of electrons."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, eigh, eigvalsh

from hamnet.core.bloch import BlochSum, spin_overlap
from hamnet.core.blocks import BlockMatrix
from hamnet.core.calculation import Calculation
from hamnet.core.spin import Spin
from hamnet.core.units import BOLTZMANN

FloatArray = NDArray[np.float64]

LARGEST_DENSE = 3000
"""Orbitals up to which dense matrices are diagonalised; larger systems leave the spectral checks out."""
COUNT_BUDGET = 2e9
"""Electrons are counted when k-points x orbitals^3 stays below this: about a minute on one core."""
DEFAULT_TEMPERATURE = 300.0
"""Kelvin, where the calculation does not say."""


def probe_kpoints(pbc: NDArray[np.bool_]) -> FloatArray:
    """(n_k, 3): Gamma, zone corners and one point without symmetry; Gamma alone for a molecule."""
    points = np.array(
        [[0, 0, 0], [0.5, 0, 0], [0, 0.5, 0], [0, 0, 0.5], [0.5, 0.5, 0.5], [1 / 3, 1 / 3, 0], [0.137, 0.271, 0.389]]
    )
    return np.unique(points * pbc, axis=0)


def overlap_spectrum(overlap: BlockMatrix, kpoints: FloatArray) -> tuple[float, float, FloatArray]:
    """Least and largest eigenvalue of S(k) over the k-points, and the k-point of the least."""
    bloch = BlochSum(overlap)
    ends = np.array([eigvalsh(bloch.dense(k))[[0, -1]] for k in kpoints])
    return float(ends[:, 0].min()), float(ends[:, 1].max()), kpoints[int(ends[:, 0].argmin())]


def weakest_pair(overlap: BlockMatrix, kpoint: FloatArray) -> str:
    """The pair that pulls the least eigenvalue of S(k) down most: least of Re c_i^dagger S_ij exp(ik.R) c_j."""
    vector = eigh(BlochSum(overlap).dense(kpoint), subset_by_index=[0, 0])[1][:, 0]
    pairs, first = overlap.pairs, overlap.orbital_offsets
    phase = np.exp(2j * np.pi * (pairs.cell_shift @ kpoint))
    parts = [vector[first[a] : first[a + 1]] for a in range(len(overlap.species))]
    shares = [
        (phase[p] * (parts[pairs.i[p]].conj() @ overlap.block(p) @ parts[pairs.j[p]])).real
        for p in range(pairs.n_pairs)
    ]
    return overlap.describe_pair(int(np.argmin(shares)))


def eigenvalues_at(calculation: Calculation, kpoints: FloatArray) -> FloatArray:
    """(n_spin, n_k, n_bands) eV of H c = e S c; needs a Hamiltonian.

    Raises:
        LinAlgError: there is no Hamiltonian, or S(k) is not positive definite.
    """
    if calculation.hamiltonian is None:
        raise LinAlgError("there is no Hamiltonian")
    bloch, overlap = BlochSum(calculation.hamiltonian), BlochSum(calculation.overlap)
    spinor = calculation.spin is Spin.SPINOR
    result = []
    for k in kpoints:
        matrix, metric = bloch.dense(k), overlap.dense(k)
        metric = spin_overlap(metric) if spinor else metric
        channels = matrix if matrix.ndim == 3 else matrix[None]
        result.append([eigh(channel, metric, eigvals_only=True) for channel in channels])
    return np.array(result, dtype=np.float64).swapaxes(0, 1)


def count_electrons(calculation: Calculation) -> float | None:
    """Electrons per cell at the code's Fermi level, on a mesh of the code's size.

    A calculation does not say whether its mesh holds Gamma. Where a count is even both are possible (Monkhorst and
    Pack's does not): the one that comes nearer to the expected number is taken.

    None when there is no Fermi level or Hamiltonian, when the matrices are too large, or S is not positive definite.
    """
    size = calculation.overlap.n_orbitals * (2 if calculation.spin is Spin.SPINOR else 1)
    n_kpoints = len(_mesh(calculation, False))
    if calculation.hamiltonian is None or calculation.fermi_energy is None or n_kpoints * size**3 > COUNT_BUDGET:
        return None
    try:
        count = _count(calculation, calculation.fermi_energy, _mesh(calculation, False))
        expected = calculation.n_electrons
        if expected is None or abs(count - expected) < 1e-3:  # as good as it can be
            return count
        other = _count(calculation, calculation.fermi_energy, _mesh(calculation, True))
    except LinAlgError:
        return None
    return min(count, other, key=lambda n: abs(n - expected))


def _count(calculation: Calculation, fermi_energy: float, kpoints: FloatArray) -> float:
    energies = eigenvalues_at(calculation, kpoints)
    width = BOLTZMANN * max(calculation.electronic_temperature or DEFAULT_TEMPERATURE, 1.0)
    occupation = 1 / (1 + np.exp(np.clip((energies - fermi_energy) / width, -500, 500)))
    return float(occupation.sum() / len(kpoints)) * (2 if calculation.spin is Spin.NONE else 1)


def _mesh(calculation: Calculation, shifted: bool) -> FloatArray:
    """(n_k, 3) mesh with Gamma, or half a step off it along directions with an even count."""
    pbc = calculation.structure.pbc
    size = np.where(pbc, calculation.kmesh or (4, 4, 4), 1)
    axes = [(np.arange(n) + (0.5 if shifted and n % 2 == 0 else 0.0)) / n for n in size]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
