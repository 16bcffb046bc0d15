"""Spin of states and of atoms: <s> of each state on a path, total and local moments from the density matrix.

With c = (up, down) and S(k) the spatial overlap, <s_a> = c^dagger (s_a x S) c; Mulliken shares the product out over
the rows of `up` and `down`. A moment in Bohr magnetons is the sum over filled states: +1 for each spin-up electron.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hamnet.bands.eigen import DenseSolver, EigenSolver, Eigenstates, check_memory
from hamnet.bands.fermi import TEMPERATURE, divided_mesh, fermi_mesh, find_fermi, has_time_reversal, occupations
from hamnet.core.bloch import BlochSum
from hamnet.core.blocks import BlockMatrix
from hamnet.core.calculation import Calculation
from hamnet.core.spin import Spin
from hamnet.errors import PhysicsError

FloatArray = NDArray[np.float64]
ComplexArray = NDArray[np.complex128]
AXES = ("x", "y", "z")
DEGENERATE = 1e-5
"""eV: states nearer than this have no spin of their own, since any mixture of them is as good; they share the mean."""


@dataclass(frozen=True, eq=False)
class SpinMoments:
    """Magnetic moments of a cell at the Fermi level.

    Args:
        moments: (n_atoms, 3) Mulliken moments, Bohr magnetons.
        electrons: (n_atoms,) Mulliken electrons.
        fermi_energy: eV, by counting on this mesh.
        mesh: k-points along each reciprocal vector.
        temperature: kelvin, of the occupations.
    """

    moments: FloatArray
    electrons: FloatArray
    fermi_energy: float
    mesh: tuple[int, int, int]
    temperature: float

    @property
    def total(self) -> FloatArray:
        """(3,) moment of the cell, Bohr magnetons."""
        total: FloatArray = self.moments.sum(axis=0)
        return total


def texture(states: Eigenstates, spin: Spin) -> FloatArray:
    """(n_spin, n_bands, 3) <s> of each state, from -1 to 1; states of one energy share their mean.

    Args:
        states: with vectors.
        spin: layout; without spin all are zero, collinear states point up or down.

    Raises:
        PhysicsError: the states carry no vectors.
    """
    result = np.zeros((*states.energies.shape, 3))
    if spin is Spin.COLLINEAR:
        result[0, :, 2], result[1, :, 2] = 1.0, -1.0
    if spin is Spin.SPINOR:
        if states.vectors is None or states.overlap is None:
            raise PhysicsError("the spin of states needs their vectors: solve with vectors")
        vectors = states.vectors[0]
        rows = spin_rows(vectors, states.overlap @ vectors)
        result[0] = _shared(states.energies[0], rows[1:].sum(axis=1).T)
    return result


def spin_rows(vectors: ComplexArray, overlap_vectors: ComplexArray) -> FloatArray:
    """(4, n, n_bands) Mulliken share of each spatial orbital in c^dagger S c and in c^dagger (s_a x S) c, a = x, y, z.

    Args:
        vectors: (2 n, n_bands) c, up before down.
        overlap_vectors: (2 n, n_bands) (1 x S) c.
    """
    n = len(vectors) // 2
    up, down, s_up, s_down = vectors[:n].conj(), vectors[n:].conj(), overlap_vectors[:n], overlap_vectors[n:]
    across, back = up * s_down, down * s_up
    return np.stack(
        (
            (up * s_up + down * s_down).real,
            (across + back).real,
            (across - back).imag,
            (up * s_up - down * s_down).real,
        )
    )


def _shared(energies: FloatArray, spins: FloatArray) -> FloatArray:
    """Spins (n_bands, 3) with the mean of each set of equal energies in the place of its members."""
    group = np.concatenate(([0], np.cumsum(np.diff(energies) > DEGENERATE)))
    count = np.bincount(group)
    means = np.stack([np.bincount(group, spins[:, a]) / count for a in range(3)], axis=1)
    shared: FloatArray = means[group]
    return shared


def spin_moments(
    calculation: Calculation,
    mesh: tuple[int, int, int] | None = None,
    temperature: float | None = None,
    solver: EigenSolver | None = None,
) -> SpinMoments:
    """Moments of a cell: states of H filled up to the Fermi level that holds its electrons, Mulliken's shares of S.

    Args:
        calculation: with a Hamiltonian.
        mesh: k-points along each reciprocal vector; None: chosen from the cell.
        temperature: kelvin; None: the calculation's, else 300.
        solver: finds the states; None is the dense LAPACK one.

    Raises:
        PhysicsError: no Hamiltonian, no electrons to count, or S(k) is not positive definite.
    """
    matrix = calculation.hamiltonian
    if matrix is None:
        raise PhysicsError("this calculation has no Hamiltonian (overlap only): moments need H and S")
    electrons = calculation.n_electrons or calculation.basis.n_electrons(calculation.structure.species)
    hamiltonian, overlap = BlochSum(matrix), BlochSum(calculation.overlap)
    check_memory(hamiltonian, True)
    kpoints, weights, size = _mesh(calculation, matrix, mesh)
    solver = DenseSolver() if solver is None else solver
    energies, shares = [], []
    for k in kpoints:
        states = solver.solve(hamiltonian, overlap, k, True)
        energies.append(states.energies)
        shares.append(_atom_shares(states, matrix))
    kelvin = temperature or calculation.electronic_temperature or TEMPERATURE
    stacked = np.stack(energies, axis=1)
    level = find_fermi(stacked, weights, electrons, matrix.spin, kelvin)
    filled = occupations(stacked, level, kelvin) * weights[:, None] * (2 if matrix.spin is Spin.NONE else 1)
    total = np.einsum("skn,ksqan->qa", filled, np.stack(shares))
    return SpinMoments(total[1:].T.copy(), total[0], level, size, kelvin)


def _mesh(
    calculation: Calculation, matrix: BlockMatrix, mesh: tuple[int, int, int] | None
) -> tuple[FloatArray, FloatArray, tuple[int, int, int]]:
    # k and -k hold opposite spins with time reversal: what is left out cancels what is kept
    reversal = has_time_reversal(matrix) and matrix.spin is not Spin.SPINOR
    if mesh is None:
        return fermi_mesh(calculation.structure, reversal)
    return *divided_mesh(mesh, reversal), mesh


def _atom_shares(states: Eigenstates, matrix: BlockMatrix) -> FloatArray:
    """(n_spin, 4, n_atoms, n_bands) electrons and spins of each state on each atom."""
    if states.vectors is None or states.overlap is None:
        raise PhysicsError("moments need the vectors of states: solve with vectors")
    result = []
    for channel, vectors in enumerate(states.vectors):
        if matrix.spin is Spin.SPINOR:
            rows = spin_rows(vectors, states.overlap @ vectors)
        else:
            rows = np.zeros((4, *vectors.shape))
            rows[0] = (vectors.conj() * (states.overlap @ vectors)).real
            if matrix.spin is Spin.COLLINEAR:
                rows[3] = rows[0] * (1 if channel == 0 else -1)
        result.append(np.add.reduceat(rows, matrix.orbital_offsets[:-1], axis=1))
    return np.stack(result)
