"""Spin layout of blocks, Pauli components, time reversal.

A spinor block is spin-major, [[uu, ud], [du, dd]], each n_i x n_j, and
H = A_0 s_0 + A_x s_x + A_y s_y + A_z s_z. Time reversal T = i s_y K forces A_0 real and A_a imaginary
where there is no magnetism: 4 n_i n_j real numbers.
"""

from __future__ import annotations

from enum import StrEnum

import numpy as np
from numpy.typing import NDArray


class Spin(StrEnum):
    """Layout of a block; spin-orbit coupling is physics, spinor is layout."""

    NONE = "none"
    """(n_i, n_j) float64: both spins share one matrix."""
    COLLINEAR = "collinear"
    """(2, n_i, n_j) float64: up, then down."""
    SPINOR = "spinor"
    """(2 n_i, 2 n_j) complex128, spin-major."""

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """Type of the stored numbers."""
        return np.dtype(np.complex128 if self is Spin.SPINOR else np.float64)

    @property
    def factor(self) -> int:
        """Numbers per pair of orbitals: 1, 2 or 4."""
        return {Spin.NONE: 1, Spin.COLLINEAR: 2, Spin.SPINOR: 4}[self]

    def shape(self, n_i: int, n_j: int) -> tuple[int, ...]:
        """Shape of one block."""
        return {Spin.NONE: (n_i, n_j), Spin.COLLINEAR: (2, n_i, n_j), Spin.SPINOR: (2 * n_i, 2 * n_j)}[self]


def spinor_to_pauli(blocks: NDArray[np.complex128]) -> NDArray[np.complex128]:
    """(..., 2 n_i, 2 n_j) -> (..., 4, n_i, n_j): the components A_0, A_x, A_y, A_z."""
    n_i, n_j = blocks.shape[-2] // 2, blocks.shape[-1] // 2
    uu, ud = blocks[..., :n_i, :n_j], blocks[..., :n_i, n_j:]
    du, dd = blocks[..., n_i:, :n_j], blocks[..., n_i:, n_j:]
    return np.stack(((uu + dd) / 2, (ud + du) / 2, 1j * (ud - du) / 2, (uu - dd) / 2), axis=-3)


def pauli_to_spinor(components: NDArray[np.complex128]) -> NDArray[np.complex128]:
    """(..., 4, n_i, n_j) -> (..., 2 n_i, 2 n_j): the inverse of `spinor_to_pauli`."""
    a_0, a_x, a_y, a_z = (components[..., k, :, :] for k in range(4))
    upper = np.concatenate((a_0 + a_z, a_x - 1j * a_y), axis=-1)
    lower = np.concatenate((a_x + 1j * a_y, a_0 - a_z), axis=-1)
    return np.concatenate((upper, lower), axis=-2)


def time_reversed(blocks: NDArray[np.complex128]) -> NDArray[np.complex128]:
    """T H T^-1 of spinor blocks, T = i s_y K: A_0 -> conj(A_0), A_a -> -conj(A_a).

    Without rounding: uu and dd change places, ud and du with a minus, all conjugated.
    """
    n_i, n_j = blocks.shape[-2] // 2, blocks.shape[-1] // 2
    result = np.empty_like(blocks)
    result[..., :n_i, :n_j], result[..., n_i:, n_j:] = blocks[..., n_i:, n_j:].conj(), blocks[..., :n_i, :n_j].conj()
    result[..., :n_i, n_j:], result[..., n_i:, :n_j] = -blocks[..., n_i:, :n_j].conj(), -blocks[..., :n_i, n_j:].conj()
    return result
