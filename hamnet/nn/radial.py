"""Radial functions of distance that vanish smoothly at a cutoff."""

from __future__ import annotations

import math

import torch


def polynomial_envelope(x: torch.Tensor) -> torch.Tensor:
    """1 at x = 0, 0 with two zero derivatives at x >= 1: 1 - 28 x^6 + 48 x^7 - 21 x^8.

    Source: Gasteiger et al., arXiv:2003.03123, eq. 8 with p = 6.
    """
    x = x.clamp(max=1.0)
    # the same polynomial with its root taken out: the sum above cancels near x = 1 and leaves only rounding there
    return (1 - x) ** 3 * (1 + x * (3 + x * (6 + x * (10 + x * (15 + 21 * x)))))


def bessel_functions(x: torch.Tensor, count: int) -> torch.Tensor:
    """(n,) distances over cutoff -> (n, count): sqrt(2) sin(n pi x) / x, finite at x = 0.

    Source: Gasteiger et al., arXiv:2003.03123, eq. 7.
    """
    orders = torch.arange(1, count + 1, dtype=x.dtype, device=x.device) * math.pi
    safe = x.clamp(min=1e-6).unsqueeze(-1)
    return math.sqrt(2) * torch.sin(orders * safe) / safe


class RadialNetwork(torch.nn.Module):
    """Weights of a convolution from distance and invariant edge features.

    w = envelope(d / cutoff) * MLP(bessel(d / cutoff), invariants): every weight vanishes smoothly at the cutoff.

    Args:
        radial_functions: number of Bessel functions.
        invariants: number of invariant edge features beside the distance.
        hidden: width of the hidden layers.
        outputs: number of weights.
    """

    def __init__(self, radial_functions: int, invariants: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.radial_functions = radial_functions
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(radial_functions + invariants, hidden),
            torch.nn.SiLU(),
            torch.nn.Linear(hidden, hidden),
            torch.nn.SiLU(),
            torch.nn.Linear(hidden, outputs),
        )

    def forward(self, scaled_distance: torch.Tensor, invariants: torch.Tensor) -> torch.Tensor:
        """(n,) d / cutoff and (n, invariants) -> (n, outputs)."""
        # the Bessel functions are of order 10 near x = 0: bring them to order one for the first layer
        radial = bessel_functions(scaled_distance, self.radial_functions) / math.sqrt(self.radial_functions)
        weights: torch.Tensor = self.layers(torch.cat((radial, invariants), dim=-1))
        return weights * polynomial_envelope(scaled_distance).unsqueeze(-1)
