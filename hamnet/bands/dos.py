"""DensityOfStates: by all states, by exact counts, or by Chebyshev moments with their statistical error."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from hamnet.bands.fermi import state_factor
from hamnet.bands.kpoint_runs import Arrays, fingerprint, run_kpoints
from hamnet.bands.moments import chebyshev_density, chebyshev_moments, spectral_range
from hamnet.bands.solvers import DenseEigensolver, Eigensolver, SparseEigensolver
from hamnet.core.calculation import Calculation
from hamnet.errors import PhysicsError

FloatArray = NDArray[np.float64]
Say = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class DensityOfStates:
    """States per energy of one cell, both spins counted.

    Args:
        energies: (n,) eV, absolute.
        density: (n_spin, n) states / eV in the cell.
        integrated: (n_spin, n) states below each energy.
        error: (n_spin, n) one standard deviation of the density; None where it has no statistical error.
        method: for people.
        fermi_energy: eV; None where it is unknown.
    """

    energies: FloatArray
    density: FloatArray
    integrated: FloatArray
    error: FloatArray | None
    method: str
    fermi_energy: float | None = None


@dataclass(frozen=True, eq=False)
class DosTask:
    """What the density is computed of, and where results of single k-points are kept.

    Args:
        calculation: with a Hamiltonian; solver: of it.
        kpoints: (n_k, 3) fractional; weights: (n_k,) of sum 1.
        folder: of the results of single k-points.
        jobs: k-points side by side.
        on_line: told each k-point that is done.
    """

    calculation: Calculation
    solver: Eigensolver
    kpoints: FloatArray
    weights: FloatArray
    folder: Path
    jobs: int = 1
    on_line: Say = lambda _: None

    def run(self, task: Callable[[FloatArray], Arrays], *settings: object) -> list[Arrays]:
        """Results of a task at each k-point; those there already with the same settings are read."""
        key = fingerprint(self.calculation, self.kpoints.tobytes(), *settings)
        return run_kpoints(
            lambda n: task(self.kpoints[n]), len(self.kpoints), self.folder, key, self.jobs, self.on_line
        )

    @property
    def factor(self) -> int:
        """Electrons in one state."""
        return state_factor(self.calculation.spin)

    def average(self, values: list[FloatArray]) -> FloatArray:
        """Weighted sum over k-points, both spins counted."""
        return self.factor * np.asarray(np.tensordot(self.weights, np.stack(values), 1), dtype=np.float64)


def dos_by_states(task: DosTask, energies: FloatArray, broadening: float) -> DensityOfStates:
    """rho(E) = sum_k w_k sum_n g(E - E_nk) with Gaussians of all states (LAPACK).

    Args:
        task: its solver must be the dense one.
        energies: (n,) eV.
        broadening: standard deviation of each Gaussian in eV.

    Raises:
        PhysicsError: the solver does not compute all states.
    """
    solver = task.solver
    if not isinstance(solver, DenseEigensolver):
        raise PhysicsError(
            "a density by all states needs the dense solver (--engine dense): or --method counts, moments"
        )
    found = task.run(lambda k: {"energies": solver.all_energies(k)}, "states")
    levels = [r["energies"] for r in found]

    def smear(kernel: Callable[[FloatArray], FloatArray]) -> FloatArray:
        """(n_spin, n) sum of a kernel over states and k-points."""
        sums = []
        for level in levels:
            x = (energies[None, :, None] - np.nan_to_num(level, nan=np.inf)[:, None, :]) / broadening
            sums.append(kernel(x).sum(axis=2))
        return task.average(sums)

    density = smear(lambda x: np.exp(-0.5 * x**2) / (broadening * np.sqrt(2 * np.pi)))
    method = f"all states at {len(levels)} k-points, Gaussians of {broadening:g} eV"
    return DensityOfStates(energies, density, smear(lambda x: np.asarray(ndtr(x))), None, method)


def dos_by_counts(task: DosTask, energies: FloatArray) -> DensityOfStates:
    """Exact integrated density N(E) at each energy by Sylvester's inertia; the density is its slope in between.

    Args:
        task: any solver.
        energies: (n,) eV, ascending: n counts at each k-point.
    """

    def count(k: FloatArray) -> Arrays:
        """(n_spin, n) states below each energy."""
        return {"counts": np.stack([task.solver.count(k, float(e)) for e in energies], axis=1)}

    found = task.run(count, "counts", energies.tobytes())
    integrated = task.average([r["counts"].astype(np.float64) for r in found])
    slope = np.diff(integrated, axis=1) / np.diff(energies)
    density = np.hstack((slope[:, :1], (slope[:, 1:] + slope[:, :-1]) / 2, slope[:, -1:]))
    return DensityOfStates(
        energies, density, integrated, None, f"{len(energies)} exact counts at {len(found)} k-points"
    )


def dos_by_moments(
    task: DosTask, energies: FloatArray, n_moments: int = 600, n_vectors: int = 8, seed: int = 0
) -> DensityOfStates:
    """rho(E) from Chebyshev moments Tr T_n(S^-1 H) on random vectors (kernel polynomial method, Jackson kernel).

    The trace is estimated, so a density has a statistical error: the spread among the vectors. It is good for
    the shape of a density over electronvolts, not for the edge of a gap.
    Source: A. Weisse et al., Rev. Mod. Phys. 78, 275 (2006).

    Args:
        task: its solver must be a sparse one.
        energies: (n,) eV.
        n_moments: the resolution is about pi times half the spectrum's width over this.
        n_vectors: random vectors; the error falls with their square root.
        seed: of the vectors.

    Raises:
        PhysicsError: the solver is not sparse, or S(k) is not positive definite.
    """
    solver = task.solver
    if not isinstance(solver, SparseEigensolver):
        raise PhysicsError("a density by moments needs a sparse solver: --engine pardiso or superlu")

    def at(k: FloatArray) -> Arrays:
        """Density and its integral for each vector, (n_spin, n_vectors, n)."""
        factor = solver.overlap_factor(k)
        parts = []
        for channel in range(solver.n_channels):
            h, s = solver.matrices(k, channel)
            low, high = spectral_range(h, s, factor.solve)
            moments = chebyshev_moments(h, factor.solve, low, high, n_moments, n_vectors, seed)
            parts.append(chebyshev_density(moments, energies, low, high))
        factor.free()
        return {"density": np.stack([p[0] for p in parts]), "integrated": np.stack([p[1] for p in parts])}

    found = task.run(at, "moments", energies.tobytes(), n_moments, n_vectors, seed)
    density = task.average([r["density"] for r in found])
    integrated = task.average([r["integrated"] for r in found])
    error = density.std(axis=1, ddof=1) / np.sqrt(n_vectors) if n_vectors > 1 else None
    method = f"{n_moments} Chebyshev moments of {n_vectors} random vectors at {len(found)} k-points"
    return DensityOfStates(energies, density.mean(axis=1), integrated.mean(axis=1), error, method)
