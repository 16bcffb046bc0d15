"""The network in float32 against the same weights in float64."""

from __future__ import annotations

import numpy as np
import pytest
from model_cases import crystal, model_of, predictor

from hamnet.core.spin import Spin


@pytest.mark.parametrize("spin", list(Spin))
def test_single_precision_drifts_little(spin: Spin) -> None:
    """1e-5 of the largest number: rounding of 6e-8 times some hundred terms. Trained graphene: 6e-7 eV at most."""
    double, single = model_of(spin, 1, True), model_of(spin, 1, False)
    single.load_state_dict(double.state_dict())
    exact, rounded = (predictor(model)(crystal(seed=3)).values for model in (double, single))
    assert np.abs(exact - rounded).max() < 1e-5 * np.abs(exact).max()
    assert not np.array_equal(exact, rounded)
