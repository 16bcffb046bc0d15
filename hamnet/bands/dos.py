"""DensityOfStates: by all states, by exact counts, or by Chebyshev moments with their statistical error."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from hamnet.bands.fermi import state_factor
from hamnet.bands.kpoint_runs import Arrays, fingerprint, run_kpoints
from hamnet.bands.moments import chebyshev_density, chebyshev_moments, spectral_range
from hamnet.bands.solvers import DenseEigensolver, Eigensolver, SparseEigensolver
from hamnet.bands.spin_texture import texture
from hamnet.core.calculation import Calculation
from hamnet.core.spin import Spin
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
        spin_density: (3, n) sum of <s_x>, <s_y>, <s_z> of the states / eV (spinors); None where not asked for.
        spin_integrated: (3, n) the same of all states below each energy: there the moment in Bohr magnetons.
    """

    energies: FloatArray
    density: FloatArray
    integrated: FloatArray
    error: FloatArray | None
    method: str
    fermi_energy: float | None = None
    spin_density: FloatArray | None = None
    spin_integrated: FloatArray | None = None

    def along(self, axis: int) -> DensityOfStates:
        """Two rows, spin up and down along an axis of spinors: (rho + sigma_a) / 2 and (rho - sigma_a) / 2.

        Args:
            axis: 0, 1, 2 for x, y, z.

        Raises:
            PhysicsError: the spins of the states were not computed.
        """
        if self.spin_density is None or self.spin_integrated is None:
            raise PhysicsError("the spins of the states were not computed: ask for them when the density is")
        density, integrated = (
            np.stack(((total[0] + spin[axis]) / 2, (total[0] - spin[axis]) / 2))
            for total, spin in ((self.density, self.spin_density), (self.integrated, self.spin_integrated))
        )
        return replace(self, density=density, integrated=integrated, error=None)


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


def dos_by_states(task: DosTask, energies: FloatArray, broadening: float, spins: bool = False) -> DensityOfStates:
    """rho(E) = sum_k w_k sum_n g(E - E_nk) with Gaussians of all states (LAPACK).

    With `spins`, also sigma_a(E) = sum_k w_k sum_n <s_a>_nk g(E - E_nk) of spinors, a = x, y, z.

    Args:
        task: its solver must be the dense one.
        energies: (n,) eV.
        broadening: standard deviation of each Gaussian in eV.
        spins: compute the spin of each state (spinors); k and -k hold opposite spins, so that the k-points of the task
            must be a whole mesh.

    Raises:
        PhysicsError: the solver does not compute all states, or spins are asked for and there are no spinors.
    """
    solver = task.solver
    if not isinstance(solver, DenseEigensolver):
        raise PhysicsError(
            "a density by all states needs the dense solver (--engine dense): or --method counts, moments"
        )
    if spins and task.calculation.spin is not Spin.SPINOR:
        raise PhysicsError(
            f"the spin of each state along an axis is for spinors, this calculation's spin is {task.calculation.spin}: "
            "a collinear density is given for each spin as it is"
        )

    def at(k: FloatArray) -> Arrays:
        """All energies (n_spin, n), and <s> (3, n) where spins are asked for."""
        if not spins:
            return {"energies": solver.all_energies(k)}
        states = solver.all_states(k)
        return {"energies": states.energies, "spins": texture(states, Spin.SPINOR)[0].T}

    found = task.run(at, "states and spins" if spins else "states")
    kernels = _Gaussians(task, energies, broadening, found)
    method = f"all states at {len(found)} k-points, Gaussians of {broadening:g} eV"
    dos = DensityOfStates(energies, kernels.density(), kernels.integrated(), None, method)
    if not spins:
        return dos
    return replace(dos, spin_density=kernels.density("spins"), spin_integrated=kernels.integrated("spins"))


@dataclass(frozen=True, eq=False)
class _Gaussians:
    """Sums over states of Gaussians, or of their integrals, at each energy."""

    task: DosTask
    energies: FloatArray
    broadening: float
    found: list[Arrays]

    def density(self, weight: str | None = None) -> FloatArray:
        """(n_spin, n) sum of Gaussians; (3, n) with "spins" as weights."""
        return self._sum(lambda x: np.exp(-0.5 * x**2) / (self.broadening * np.sqrt(2 * np.pi)), weight)

    def integrated(self, weight: str | None = None) -> FloatArray:
        """The integral of `density` up to each energy."""
        return self._sum(lambda x: np.asarray(ndtr(x)), weight)

    def _sum(self, kernel: Callable[[FloatArray], FloatArray], weight: str | None) -> FloatArray:
        sums = []
        for result in self.found:
            levels = np.nan_to_num(result["energies"], nan=np.inf)
            values = kernel((self.energies[None, :, None] - levels[:, None, :]) / self.broadening)
            sums.append(values.sum(axis=2) if weight is None else np.asarray(result[weight] @ values[0].T))
        return self.task.average(sums)


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
