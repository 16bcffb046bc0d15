"""Errors of H in the reference's own eigenstates at a few k-points: what a wrong H does to bands, to first order.

With H_ref(k) C = S(k) C E, C^dagger S C = 1, and dH(k) = sum_R exp(2 pi i k.n) dH(R), the matrix

    M(k) = C^dagger dH(k) C

has the first-order changes of the eigenvalues on its diagonal and what mixes the states beside it. C is worked out once
for each sample, in NumPy; only dH carries a gradient, so nothing is differentiated through a diagonalisation.
For dH = mu S, M = mu 1. Phases of the states, and rotations among states of equal weight, leave |M|^2 as it is.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import eigh
from torch import Tensor

from hamnet.core.bloch import BlochSum
from hamnet.core.blocks import BlockMatrix
from hamnet.core.calculation import Calculation
from hamnet.core.rotation import PAULI
from hamnet.core.spin import Spin
from hamnet.data.irrep_blocks import spin_channels
from hamnet.errors import PhysicsError

FloatArray = NDArray[np.float64]
ComplexArray = NDArray[np.complex128]

WINDOW = 1.0
"""Weights of states fall as exp(-x^2 / (2 WINDOW^2)), x (eV) the distance below the highest filled state or above the
lowest empty one."""
REACH = 2.5
"""States further than this many windows are left out."""
LARGEST_EIGENPROBLEM = 1000
"""Structures with more orbitals (spin counted) have no states in the loss: a diagonalisation takes seconds there."""


@dataclass(frozen=True, eq=False)
class KSpaceStates:
    """Eigenstates of a structure near the Fermi level.

    Args:
        index: (n_values,) where each spinless value of H stands in the dense (n, n) matrix, row * n + column.
        pair: (n_values,) pair of each value.
        phases: (n_k, n_pairs) complex, exp(2 pi i k.n).
        states: (n_k, n_spin, n, n_states) complex; n_spin is 1, or 2 where H has two spins; padded with zeros.
        weights: (n_k, n_states), 0 for padding.
        spin_matrices: (n_channels, n_spin, n_spin) complex: H = sum_c T_c (x) (real channel c of H).
    """

    index: Tensor
    pair: Tensor
    phases: Tensor
    states: Tensor
    weights: Tensor
    spin_matrices: Tensor

    def to(self, device: torch.device | str) -> KSpaceStates:
        """The same on another device."""
        return KSpaceStates(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})

    def matrices(self, values: Tensor) -> Tensor:
        """(n_k, n_states, n_states) M = C^dagger dH(k) C.

        Args:
            values: (n_values, n_channels) real channels of dH in eV, flat, in the order of the structure's pairs.
        """
        n = self.states.shape[2]
        result = []
        for phase, states in zip(self.phases, self.states, strict=True):
            moved = values * phase[self.pair].unsqueeze(-1)
            dense = moved.new_zeros(n * n, values.shape[1]).index_add(0, self.index, moved)
            applied = torch.einsum("ijc,bjm->cbim", dense.reshape(n, n, -1), states)
            mixed = torch.einsum("cab,cbim->aim", self.spin_matrices, applied)
            result.append(torch.einsum("ain,aim->nm", states.conj(), mixed))
        return torch.stack(result)

    def squares(self, values: Tensor) -> Tensor:
        """(n_k,) sum_nm w_n w_m |M_nm|^2 / sum_n w_n in eV^2, for the dH of `matrices`."""
        weight = self.weights[:, :, None] * self.weights[:, None, :]
        total = (weight * self.matrices(values).abs().square()).sum(dim=(1, 2))
        return total / self.weights.sum(dim=1)


def spin_matrices(spin: Spin, magnetic: bool = False) -> ComplexArray:
    """(n_channels, n_spin, n_spin) T_c with H = sum_c T_c (x) channel c."""
    if spin is Spin.NONE:
        return np.ones((1, 1, 1), dtype=np.complex128)
    components = np.concatenate((np.eye(2)[None], PAULI))
    channels = spin_channels(spin, magnetic)
    return np.stack([components[c.component] * (1j if c.imaginary else 1) for c in channels])


def kspace_states(name: str, calculation: Calculation, n_kpoints: int, magnetic: bool = False) -> KSpaceStates | None:
    """States near the Fermi level at random k-points, which depend on the name alone; a molecule has k = 0 only.

    None for a structure with more than `LARGEST_EIGENPROBLEM` orbitals.

    Raises:
        PhysicsError: the calculation has no Hamiltonian.
    """
    matrix = calculation.hamiltonian
    if matrix is None:
        raise PhysicsError(f"{name} has no Hamiltonian, so it has no states")
    n_spin = 2 if matrix.spin is Spin.SPINOR else 1
    if matrix.n_orbitals * n_spin > LARGEST_EIGENPROBLEM:
        return None
    generator = np.random.default_rng(zlib.crc32(name.encode()))
    kpoints = generator.random((n_kpoints, 3)) * calculation.structure.pbc
    if not calculation.structure.is_periodic:
        kpoints = kpoints[:1]
    sums = BlochSum(matrix), BlochSum(calculation.overlap)
    solved = [_solve(*sums, k, matrix.spin) for k in kpoints]
    energies = np.stack([energy for energy, _ in solved])
    weights = _weights(energies, _filled(calculation, len(kpoints)))
    count = max(int((weights > 0).sum(axis=1).max()), 1)
    order = np.argsort(-weights, axis=1, kind="stable")[:, :count]
    states = np.stack([vectors[:, :, chosen] for (_, vectors), chosen in zip(solved, order, strict=True)])
    sizes = np.diff(matrix.offsets) // matrix.spin.factor
    return KSpaceStates(
        torch.from_numpy(_positions(matrix)),
        torch.from_numpy(np.repeat(np.arange(len(sizes)), sizes)),
        torch.from_numpy(np.exp(2j * np.pi * kpoints @ matrix.pairs.cell_shift.T)),
        torch.from_numpy(states),
        torch.from_numpy(np.take_along_axis(weights, order, axis=1)),
        torch.from_numpy(spin_matrices(matrix.spin, magnetic)),
    )


def _solve(hamiltonian: BlochSum, overlap: BlochSum, kpoint: FloatArray, spin: Spin) -> tuple[FloatArray, ComplexArray]:
    """(n_states,) energies and (n_spin, n, n_states) S-orthonormal states; collinear states live in one spin each."""
    h, s = hamiltonian.dense(kpoint), overlap.dense(kpoint)
    if spin is Spin.SPINOR:
        energies, vectors = _eigh(h, np.asarray(np.kron(np.eye(2), s), dtype=np.complex128))
        return energies, vectors.reshape(2, len(s), -1)
    if spin is Spin.NONE:
        energies, vectors = _eigh(h, s)
        return energies, vectors[None]
    (up_energies, up), (down_energies, down) = (_eigh(part, s) for part in h)
    n = len(s)
    states = np.zeros((2, n, 2 * n), dtype=np.complex128)
    states[0, :, :n], states[1, :, n:] = up, down
    return np.concatenate((up_energies, down_energies)), states


def _eigh(h: ComplexArray, s: ComplexArray) -> tuple[FloatArray, ComplexArray]:
    energies, vectors = eigh(h, s)
    return np.asarray(energies, dtype=np.float64), np.asarray(vectors, dtype=np.complex128)


def _filled(calculation: Calculation, n_kpoints: int) -> int:
    """Number of filled states at all k-points together."""
    electrons = calculation.n_electrons
    if electrons is None:
        electrons = calculation.basis.n_electrons(calculation.structure.species)
    return round(electrons * n_kpoints / (2 if calculation.spin is Spin.NONE else 1))


def _weights(energies: FloatArray, filled: int) -> FloatArray:
    """(n_k, n_states) weights; the highest filled and the lowest empty state have weight one."""
    order = np.sort(energies.ravel())
    highest = order[min(max(filled, 1), len(order)) - 1]
    lowest = order[min(max(filled, 1), len(order) - 1)]
    distance = np.maximum(np.maximum(highest - energies, 0) * (energies <= highest), energies - lowest)
    weights: FloatArray = np.exp(-(distance**2) / (2 * WINDOW**2))
    weights[distance > REACH * WINDOW] = 0.0
    # a k-point without any state near the Fermi level keeps its nearest one, so that no weight is divided by zero
    nearest = distance.argmin(axis=1)
    rows = np.arange(len(weights))
    weights[rows, nearest] = np.maximum(weights[rows, nearest], 1e-3)
    return weights


def _positions(matrix: BlockMatrix) -> NDArray[np.int64]:
    """(n_values,) row * n + column of each spinless value in the dense matrix."""
    n = matrix.n_orbitals
    first = matrix.orbital_offsets
    parts = []
    for group in matrix.groups():
        i, j = matrix.pairs.i[group.pairs], matrix.pairs.j[group.pairs]
        rows = first[i][:, None] + np.arange(matrix.basis.n_orbitals[group.species_i])
        columns = first[j][:, None] + np.arange(matrix.basis.n_orbitals[group.species_j])
        parts.append((rows[:, :, None] * n + columns[:, None, :]).ravel())
    return np.concatenate(parts)
