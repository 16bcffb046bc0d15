"""How much of a matrix is odd under time reversal: what only magnetism can make."""

from __future__ import annotations

import numpy as np

from hamnet.core.blocks import BlockMatrix
from hamnet.core.spin import Spin, spinor_to_pauli

EVEN = 1e-4
"""eV: H that is odd by less is not magnetic. Codes leave some 1e-7, and a thousandth of a Bohr magneton some 1e-3."""


def odd_part(matrix: BlockMatrix) -> float:
    """Largest number (in the unit of the matrix) of its part that is odd under time reversal; 0 without spin."""
    largest = [0.0]
    for group in matrix.groups():
        if matrix.spin is Spin.COLLINEAR:
            largest.append(float(np.abs(group.blocks[:, 0] - group.blocks[:, 1]).max(initial=0.0)) / 2)
        elif matrix.spin is Spin.SPINOR:
            pauli = spinor_to_pauli(group.blocks)
            largest.append(float(np.abs(pauli[:, 0].imag).max(initial=0.0)))
            largest.append(float(np.abs(pauli[:, 1:].real).max(initial=0.0)))
    return max(largest)
