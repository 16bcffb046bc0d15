"""Checks of time reversal and of magnetic moments, which every model of H passes: part of `hamnet.testing`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from hamnet.core.blocks import BlockMatrix
from hamnet.core.spin import Spin, time_reversed
from hamnet.core.structure import AtomicStructure

Predict = Callable[[AtomicStructure], BlockMatrix]
"""A model as the checks see it: a structure to its blocks, on the pairs the model finds for itself."""


def require(condition: bool, message: str) -> None:
    """Raise an AssertionError with the message unless the condition holds."""
    if not condition:
        raise AssertionError(message)


def _time_reversed(matrix: BlockMatrix) -> BlockMatrix:
    """T M T^-1; up and down change places in collinear blocks."""
    parts = []
    for group in matrix.groups():
        blocks = group.blocks
        if matrix.spin is Spin.SPINOR:
            blocks = time_reversed(blocks)
        elif matrix.spin is Spin.COLLINEAR:
            blocks = blocks[:, ::-1]
        parts.append(blocks.ravel())
    return matrix.with_values(np.concatenate(parts))


class MomentContract:
    """What a model of H must do under time reversal; without moments in the structure only the first lines apply.

    Attributes:
        tolerance: relative to the largest number of the matrix.
    """

    tolerance: float

    def test_time_reversal_turns_the_moments(self, predict: Predict, structure: AtomicStructure) -> None:
        """H(-m) = T H(m) T^-1 bitwise, and without moments H is its own time reverse: Kramers pairs, up = down."""
        bare = predict(replace(structure, moments=None))
        require(np.array_equal(_time_reversed(bare).values, bare.values), "H without moments is not even under T")
        if structure.moments is None:
            return
        matrix = predict(structure)
        back = predict(replace(structure, moments=-structure.moments))
        require(np.array_equal(back.values, _time_reversed(matrix).values), "H(-m) is not T H(m) T^-1")
        none = predict(replace(structure, moments=np.zeros_like(structure.moments)))
        require(np.array_equal(none.values, bare.values), "moments of zero are not the same as none")
        odd = float(np.abs(matrix.values - back.values).max())
        require(odd > 1e-3 * np.abs(matrix.values).max(), "the moments do not matter")

    def test_smooth_as_moments_vanish(self, predict: Predict, structure: AtomicStructure) -> None:
        """H(x m) - H(0) falls at least as x, without a jump: moments may be switched on slowly."""
        if structure.moments is None:
            return
        bare = predict(replace(structure, moments=None)).values
        small, tiny = (predict(replace(structure, moments=x * structure.moments)).values - bare for x in (1e-3, 1e-5))
        # linear: a hundredth; the factor of three leaves room for what is not linear
        allowed = 0.03 * np.abs(small).max() + self.tolerance * np.abs(bare).max()
        require(float(np.abs(tiny).max()) <= allowed, "H does not go to that without moments as the moments vanish")
