"""Magnetism without spin-orbit coupling: spin has axes of its own, which turn apart from the lattice.

H = A_0 s_0 + sum_a A_a s_a. Without coupling, and with a functional of the spin density, A_0 and all A_a are real: A_0
a scalar of spin space, A a vector of it, odd under time reversal. U H U^dagger with U = 1_orbital x exp(-i t n.s/2)
turns A as it turns the moments. A collinear H is the case where all moments lie along z; so a model of collinear H has
all the weights of one of non-collinear H, and they are the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hamnet.core.blocks import BlockMatrix
from hamnet.core.calculation import Calculation
from hamnet.core.spin import Spin, spinor_to_pauli
from hamnet.core.structure import AtomicStructure
from hamnet.core.time_reversal import EVEN, odd_part
from hamnet.data.irrep_blocks import spin_channels
from hamnet.errors import PhysicsError

SPAN = 1e-3
"""Moments span the directions in which their singular values are larger than this part of the largest."""
ASTRAY = 1e-2
"""A may leave the span of the moments by this part of its largest number: moments are printed to some digits."""


def head_layout(spin: Spin, spin_orbit: bool) -> Spin:
    """Layout whose irreps the heads give: collinear ones, one spin component, for spinors without coupling."""
    return Spin.COLLINEAR if spin is Spin.SPINOR and not spin_orbit else spin


def uncoupled_channels(magnetic: bool) -> list[int]:
    """Which of the channels of spinors there are without coupling: A_0, then A_x, A_y, A_z, all real."""
    return [k for k, channel in enumerate(spin_channels(Spin.SPINOR, magnetic)) if not channel.imaginary]


@dataclass(frozen=True)
class SpinCoupling:
    """What of a spinor H no calculation without spin-orbit coupling has.

    Args:
        imaginary: eV, largest number of Im A_0 and Im A_a.
        astray: eV, largest number of Re A outside the directions that the moments span.
        largest: eV, largest number of Re A_x, A_y, A_z.
    """

    imaginary: float
    astray: float
    largest: float

    @property
    def there(self) -> bool:
        """Whether spin is coupled to space, or H does not follow the moments."""
        return self.imaginary > EVEN or self.astray > max(ASTRAY * self.largest, EVEN)

    def __str__(self) -> str:
        """For a message."""
        return (
            f"imaginary parts of A_0, A_x, A_y, A_z up to {self.imaginary:.2g} eV (allowed {EVEN:g}), and Re A up to "
            f"{self.astray:.2g} eV across all moments (allowed {max(ASTRAY * self.largest, EVEN):.2g})"
        )


def spin_coupling(calculation: Calculation) -> SpinCoupling:
    """What of H couples spin to space; nothing for other layouts than spinors.

    Im A_a is what spin-orbit coupling makes first (l.s is imaginary), Im A_0 what it makes of moments. Moments along
    one line or in one plane leave H alone when spin is turned about the line, or mirrored in the plane: Re A must lie
    in their span. Three directions allow everything.
    """
    matrix = calculation.hamiltonian
    if matrix is None or matrix.spin is not Spin.SPINOR:
        return SpinCoupling(0.0, 0.0, 0.0)
    across = np.eye(3) - _span(calculation.structure)
    return _largest(matrix, across)


def _largest(matrix: BlockMatrix, across: np.ndarray) -> SpinCoupling:
    """Largest numbers of all blocks; `across` (3, 3) projects on what the moments do not span."""
    found = np.zeros((1, 3))
    for group in matrix.groups():
        pauli = spinor_to_pauli(group.blocks)
        real = pauli[:, 1:].real
        astray = np.einsum("ab,nbij->naij", across, real)
        found = np.vstack((found, [[np.abs(x).max(initial=0.0) for x in (pauli.imag, astray, real)]]))
    return SpinCoupling(*(float(x) for x in found.max(axis=0)))


def _span(structure: AtomicStructure) -> np.ndarray:
    """(3, 3) projector on the directions of the moments; zero without moments."""
    if structure.moments is None or not np.any(structure.moments):
        return np.zeros((3, 3))
    _, sizes, directions = np.linalg.svd(structure.moments)
    kept = directions[: len(sizes)][sizes > SPAN * sizes[0]]
    return np.asarray(kept.T @ kept)


def in_layout(matrix: BlockMatrix, spin: Spin) -> BlockMatrix:
    """A baseline in the spin layout of H; one that is the same for both spins is so in all layouts.

    Raises:
        PhysicsError: it has another layout and is not the same for both spins.
    """
    if matrix.spin is spin:
        return matrix
    if matrix.spin is not Spin.NONE and odd_part(matrix) > 0:
        raise PhysicsError(
            f"H0 is {matrix.spin.value} and differs between up and down by {2 * odd_part(matrix):.3g} eV, H is "
            f"{spin.value}: give H0 in the layout of H"
        )
    parts = []
    for group in matrix.groups():
        one = group.blocks[:, 0] if matrix.spin is Spin.COLLINEAR else group.blocks
        whole = one if spin is Spin.NONE else np.stack((one, one), axis=1)
        if spin is Spin.SPINOR:
            whole = np.kron(np.eye(2), one)
        parts.append(whole.astype(spin.dtype).ravel())
    return BlockMatrix.from_values(matrix.pairs, matrix.basis, matrix.species, spin, np.concatenate(parts))
