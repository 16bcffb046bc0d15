"""Checks of time reversal and of magnetic moments, which every model of H passes: part of `hamnet.testing`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from hamnet.core.blocks import BlockMatrix
from hamnet.core.rotation import rotate_orbitals, rotate_spins, rotate_structure
from hamnet.core.spin import Spin, spinor_to_pauli, time_reversed
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


class SpinSpaceContract(MomentContract):
    """What a model of spinors does without spin-orbit coupling: spins and lattice turn apart from each other."""

    @pytest.fixture
    def predict(self) -> Predict:
        """The model under test."""
        raise NotImplementedError("override the fixture `predict` with a function from structure to BlockMatrix")

    @pytest.fixture
    def structure(self) -> AtomicStructure:
        """Any atoms with moments in all directions."""
        raise NotImplementedError("override the fixture `structure`")

    @pytest.mark.parametrize("seed", [0, 1])
    def test_spins_turn_alone(self, predict: Predict, structure: AtomicStructure, seed: int) -> None:
        """Moments R m: H' = U H U^dagger with U = D^{1/2}(R) x 1, whatever the lattice."""
        assert_spins_turn(predict, structure, random_rotation(seed), self.tolerance)

    @pytest.mark.parametrize("seed", [0, 1])
    def test_lattice_turns_alone(self, predict: Predict, structure: AtomicStructure, seed: int) -> None:
        """Atoms and cell O x, proper or not, with the same moments: orbitals turn, spin does not."""
        assert_lattice_turns(predict, structure, random_rotation(seed) * (-1) ** seed, self.tolerance)

    def test_real_components(self, predict: Predict, structure: AtomicStructure) -> None:
        """A_0 and A_a are real, and A_a is there in all directions."""
        matrix = predict(structure)
        pauli = [spinor_to_pauli(group.blocks) for group in matrix.groups()]
        require(not any(part.imag.any() for part in pauli), "a component is not real, as only coupling makes it")
        sizes = np.max([np.abs(part.real).max(axis=(0, 2, 3)) for part in pauli], axis=0)
        require(
            bool((sizes[1:] > 1e-3 * sizes.max()).all()), f"largest A_0, A_x, A_y, A_z are {sizes}: one is not there"
        )

    def test_one_axis_is_collinear(self, predict: Predict, structure: AtomicStructure) -> None:
        """Moments along z: nothing but A_0 and A_z."""
        up = np.linalg.norm(np.asarray(structure.moments), axis=1)[:, None] * np.array([0.0, 0.0, 1.0])
        for group in predict(replace(structure, moments=up)).groups():
            require(not spinor_to_pauli(group.blocks)[:, 1:3].any(), "moments along z make A_x or A_y")


def random_rotation(seed: int) -> NDArray[np.float64]:
    """(3, 3) proper rotation."""
    matrix = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))[0]
    return np.asarray(matrix * np.sign(np.linalg.det(matrix)))


def assert_spins_turn(
    predict: Predict, structure: AtomicStructure, rotation: NDArray[np.float64], tolerance: float
) -> None:
    """predict(x, R m) = U predict(x, m) U^dagger with U in spin space alone.

    Args:
        predict: structure -> spinor blocks.
        structure: with moments.
        rotation: (3, 3) proper.
        tolerance: relative to the largest number of the matrix.

    Raises:
        AssertionError: it does not hold.
    """
    turned = replace(structure, moments=np.asarray(structure.moments) @ rotation.T)
    _require_close(predict(turned), rotate_spins(predict(structure), rotation), tolerance, "turning spins alone")


def assert_lattice_turns(
    predict: Predict, structure: AtomicStructure, rotation: NDArray[np.float64], tolerance: float
) -> None:
    """predict(O x, m) = U predict(x, m) U^dagger with U of the orbitals alone; arguments as `assert_spins_turn`."""
    turned = replace(rotate_structure(structure, rotation), moments=structure.moments)
    _require_close(predict(turned), rotate_orbitals(predict(structure), rotation), tolerance, "turning atoms alone")


def _require_close(found: BlockMatrix, expected: BlockMatrix, tolerance: float, what: str) -> None:
    difference = float(np.abs(found.values - expected.values).max())
    allowed = tolerance * float(np.abs(expected.values).max())
    require(difference <= allowed, f"{what} leaves a difference of {difference:.3g} eV, allowed {allowed:.3g}")
