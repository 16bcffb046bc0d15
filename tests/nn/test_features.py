"""Layouts, linear maps, gates and products of features."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from feature_cases import GRADED, close, few, orthogonal, random_features, rotated, seeds
from hypothesis import given

from hamnet.nn.features import EquivariantLinear, FeatureGate, FeatureLayout
from hamnet.nn.products import CouplingProduct

WIDER = FeatureLayout(3, 2, 1, 1, 2)
MAPS: dict[str, tuple[Callable[[], torch.nn.Module], FeatureLayout]] = {
    "linear up": (lambda: EquivariantLinear(GRADED, WIDER), WIDER),
    "linear down": (lambda: EquivariantLinear(GRADED, FeatureLayout(1, 2, 2)), FeatureLayout(1, 2, 2)),
    "gate": (lambda: FeatureGate(GRADED), GRADED),
}


def square(x: torch.Tensor) -> torch.Tensor:
    """Product of features with others made from them."""
    torch.manual_seed(3)
    product: torch.Tensor = CouplingProduct(GRADED).double()(x, x.roll(1, dims=0))
    return product


@given(seeds)
@few
def test_maps_are_equivariant(seed: int) -> None:
    """f(D x) = D f(x) for linear maps, gate and product, parities and grades of all kinds: 1e-10 of the largest."""
    matrix, x = orthogonal(seed), random_features(GRADED, 4, seed)
    for make, layout_out in MAPS.values():
        torch.manual_seed(1)
        module = make().double()
        assert close(module(rotated(x, GRADED, matrix)), rotated(module(x), layout_out, matrix), 1e-10)
    assert close(square(rotated(x, GRADED, matrix)), rotated(square(x), GRADED, matrix), 1e-10)


@pytest.mark.parametrize("name", [*MAPS, "product"])
def test_maps_keep_the_grade(name: str) -> None:
    """Moments reversed: odd channels turn their sign, even ones stay, to the last bit."""
    torch.manual_seed(1)
    make, layout_out = MAPS.get(name, (None, GRADED))
    function = square if make is None else make().double()
    sign = torch.ones(GRADED.channels, dtype=torch.float64)
    sign[GRADED.classes[2].start :] = -1
    expected = torch.ones(layout_out.channels, dtype=torch.float64)
    expected[layout_out.classes[2].start :] = -1
    x = random_features(GRADED, 4)
    assert torch.equal(function(x * sign), function(x) * expected)


def test_product_of_vectors_is_dot_and_cross() -> None:
    """l = 1 times l = 1: the scalar is the dot product, the unnatural vector the cross product, up to a factor."""
    layout = FeatureLayout(1, 1, 1)
    product = CouplingProduct(layout).double()
    for linear in (product.first, product.second):
        for weight in linear.weights:
            torch.nn.init.ones_(weight)
    a, b = np.random.default_rng(0).normal(size=(2, 3))
    x, y = torch.zeros(2, 1, 4, 2, dtype=torch.float64)
    x[0, 1:, 0], y[0, 1:, 0] = (torch.from_numpy(v[[1, 2, 0]].copy()) for v in (a, b))
    z = product(x, y)[0].detach().numpy()
    # 1e-12: sums of three products of numbers of order one; <1 m 1 m|0 0> = 1 / sqrt(3), one of two paths into l = 0
    assert abs(abs(z[0, 0]) - abs(a @ b) / np.sqrt(6)) < 1e-12
    assert np.linalg.norm(np.cross(z[1:, 1], np.cross(a, b)[[1, 2, 0]])) < 1e-12
    assert np.linalg.norm(z[1:, 1]) > 0.1
    assert not z[1:, 0].any()


@given(seeds)
@few
def test_layout_to_e3nn_and_back(seed: int) -> None:
    """A permutation: bitwise, and as long as e3nn's irreps."""
    x = random_features(GRADED, 3, seed)
    flat = GRADED.to_e3nn(x)
    assert flat.shape[1] == GRADED.e3nn_irreps().dim
    assert torch.equal(GRADED.from_e3nn(flat), x)


def test_product_does_not_depend_on_its_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without gradients atoms go in chunks; each atom is computed alone, to rounding of another order of sums."""
    torch.manual_seed(0)
    product, x = CouplingProduct(GRADED).double(), random_features(GRADED, 5)
    whole = product(x, x).detach()
    monkeypatch.setattr("hamnet.nn.products.CHUNK", 2)
    with torch.no_grad():
        assert close(product(x, x), whole, 1e-13)
