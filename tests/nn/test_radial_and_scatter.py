"""Radial functions vanish smoothly; sums over edges are the same by every route."""

from __future__ import annotations

import math

import pytest
import torch

from hamnet.nn import scatter
from hamnet.nn.radial import RadialNetwork, bessel_functions, polynomial_envelope


def test_envelope_is_one_at_zero_and_flat_at_the_cutoff() -> None:
    """Value, first and second derivative are zero at x = 1; exactly zero beyond."""
    x = torch.tensor([0.0, 1.0], dtype=torch.float64, requires_grad=True)
    value = polynomial_envelope(x)
    (first,) = torch.autograd.grad(value.sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x)
    first = first.detach()
    assert value.tolist() == [1.0, 0.0]
    # coefficients up to 56 * 48: rounding 1e-13 each
    assert float(first.abs().max()) < 1e-12
    assert float(second.abs().max()) < 1e-11
    assert not polynomial_envelope(torch.tensor([1.0, 1.5, 100.0], dtype=torch.float64)).any()
    inside = polynomial_envelope(torch.linspace(0, 0.999, 200, dtype=torch.float64))
    assert bool((inside.diff() <= 0).all() and (inside > 0).all())


def test_envelope_keeps_its_digits_at_the_cutoff() -> None:
    """56 (1 - x)^3 to leading order: relative to the block, not to one, so that long pairs turn to 1e-10 too."""
    x = torch.tensor([0.3, 0.6, 0.9], dtype=torch.float64)
    torch.testing.assert_close(polynomial_envelope(x), 1 - 28 * x**6 + 48 * x**7 - 21 * x**8, rtol=0, atol=1e-14)
    gap = 2.0 ** -torch.arange(15, 30, dtype=torch.float64)
    # the next term of the expansion is 4 (1 - x) relative
    torch.testing.assert_close(polynomial_envelope(1 - gap), 56 * gap**3, rtol=4e-4, atol=0)


def test_bessel_functions_are_finite_at_zero() -> None:
    """sqrt(2) n pi at x = 0, zero at the cutoff, orthonormal with the weight x^2."""
    at = bessel_functions(torch.tensor([0.0, 1.0], dtype=torch.float64), 5)
    limit = math.sqrt(2) * math.pi * torch.arange(1, 6, dtype=torch.float64)
    # the argument is clamped to 1e-6: (5 pi 1e-6)^2 / 6 relative
    torch.testing.assert_close(at[0], limit, rtol=1e-9, atol=0)
    assert float(at[1].abs().max()) < 1e-14
    x = (torch.arange(2000, dtype=torch.float64) + 0.5) / 2000
    table = bessel_functions(x, 5) * x[:, None]
    # midpoint rule on products of sines is exact to rounding
    torch.testing.assert_close(table.T @ table / 2000, torch.eye(5, dtype=torch.float64), rtol=0, atol=1e-12)


def test_radial_weights_vanish_at_the_cutoff() -> None:
    """Whatever the invariants say, no weight is left at x >= 1."""
    torch.manual_seed(0)
    network = RadialNetwork(6, 3, 8, 4).double()
    x = torch.tensor([0.5, 1.0, 1.2], dtype=torch.float64)
    weights = network(x, torch.randn(3, 3, dtype=torch.float64))
    assert bool(weights[0].abs().min() > 0)
    assert not weights[1:].any()


def edges() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    index = torch.randint(0, 7, (50,), generator=generator).sort().values
    index[index == 3] = 4
    return torch.randn(50, 5, generator=generator, dtype=torch.float64), index


def test_sum_of_edges_is_a_sum() -> None:
    """Against a loop; a node without edges (3 here, 8 beyond the last) gets zero."""
    values, index = edges()
    found = scatter.sum_edges(values, index, 9)
    expected = torch.stack([values[index == n].sum(dim=0) for n in range(9)])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-13)
    assert not found[3].any()
    assert not found[8].any()
    assert scatter.sum_edges(values[:0], index[:0], 2).shape == (2, 5)


def test_sum_of_edges_has_a_gradient() -> None:
    values, index = edges()
    values.requires_grad_()
    assert torch.autograd.gradcheck(lambda v: scatter.sum_edges(v, index, 9), (values,))


def test_torch_scatter_gives_the_same() -> None:
    """Parity of the optional package with PyTorch's own sum."""
    pytest.importorskip("torch_scatter", reason="torch-scatter, the optional extra hamnet[scatter], is not installed")
    values, index = edges()
    # the order of the sums may differ: rounding of about ten numbers of order one
    torch.testing.assert_close(
        scatter.sum_edges_torch_scatter(values, index, 9), scatter.sum_edges(values, index, 9), rtol=0, atol=1e-13
    )
