"""Every kind of model keeps the symmetries of a Hamiltonian: spinless, collinear, spinor, float64 and float32."""

from __future__ import annotations

import numpy as np
import pytest
from model_cases import MESSAGE_CUTOFF, PAIR_CUTOFF, crystal, model_of, predictor

from hamnet.core.spin import Spin
from hamnet.core.structure import AtomicStructure
from hamnet.testing import ModelContract, Predict


class _Tiny(ModelContract):
    cutoffs = (PAIR_CUTOFF, MESSAGE_CUTOFF)
    receptive_field = MESSAGE_CUTOFF
    spin = Spin.NONE
    layers = 1
    double = True

    magnetic = False

    @pytest.fixture
    def predict(self) -> Predict:
        return predictor(model_of(self.spin, self.layers, self.double, self.magnetic))

    @pytest.fixture
    def structure(self) -> AtomicStructure:
        return crystal(seed=7, magnetic=self.spin if self.magnetic else Spin.NONE)


class TestSpinless(_Tiny):
    layers = 2
    receptive_field = 2 * MESSAGE_CUTOFF


class TestCollinear(_Tiny):
    spin = Spin.COLLINEAR


class TestSpinor(_Tiny):
    spin = Spin.SPINOR


class TestCollinearMoments(_Tiny):
    spin = Spin.COLLINEAR
    magnetic = True


class TestSpinorMoments(_Tiny):
    spin = Spin.SPINOR
    magnetic = True


class TestSinglePrecision(_Tiny):
    """Rounding of the network in float32 (6e-8) times the terms that cancel: the bound of 1e-3 is generous."""

    double = False
    tolerance = 1e-3


@pytest.mark.parametrize("spin", list(Spin))
def test_predictions_are_of_order_of_the_scales(spin: Spin) -> None:
    """Untrained output is neither nothing nor huge: every tolerance above is relative to a number of order one."""
    values = np.abs(predictor(model_of(spin, 2 if spin is Spin.NONE else 1))(crystal(seed=7)).values)
    assert 0.1 < values.max() < 100
