"""Products of node features: what raises the body order of a model, complete for O(3) and for time reversal.

A sum over neighbours knows the pairs (centre, neighbour) only: body order 2. Its product with itself knows triples
(angles between neighbours), the next product quadruples (handedness too). Products are taken channel by channel with
Clebsch-Gordan coefficients, as in Batatia et al., arXiv:2206.07697, eq. 10, but in one contraction with a fixed tensor:
the freedom of path weights is in the linear maps before and after.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch

from hamnet.data.irrep_blocks import real_clebsch_gordan
from hamnet.nn.features import EquivariantLinear, FeatureLayout

CHUNK = 1024
"""Atoms contracted at once without gradients: the outer product takes rows^2 numbers for each atom and channel."""


@lru_cache(maxsize=8)
def coupling_tensor(lmax: int, even: bool) -> torch.Tensor:
    """(rows^2, rows) coupling of two features into one: all paths with l1 + l2 + l3 even (or odd).

    Natural times natural gives natural for even sums and unnatural for odd ones. Scaled so that inputs of unit variance
    give components of unit variance.
    """
    rows = (lmax + 1) ** 2
    tensor = np.zeros((rows, rows, rows))
    for l3 in range(lmax + 1):
        paths = [
            (l1, l2)
            for l1 in range(lmax + 1)
            for l2 in range(lmax + 1)
            if abs(l1 - l2) <= l3 <= l1 + l2 and (l1 + l2 + l3) % 2 == (0 if even else 1)
        ]
        for l1, l2 in paths:
            where = (slice(l1 * l1, (l1 + 1) ** 2), slice(l2 * l2, (l2 + 1) ** 2), slice(l3 * l3, (l3 + 1) ** 2))
            tensor[where] = real_clebsch_gordan(l1, l2, l3) / np.sqrt(len(paths))
    return torch.from_numpy(tensor.reshape(rows * rows, rows))


class CouplingProduct(torch.nn.Module):
    """z = sum C (A x)(B y): channel by channel, naturalness and grade multiply.

    Args:
        layout: of both factors and of the product; grades that it lacks are left out.
    """

    even: torch.Tensor
    odd: torch.Tensor

    def __init__(self, layout: FeatureLayout) -> None:
        super().__init__()
        self.layout = layout
        self.first = EquivariantLinear(layout, layout)
        self.second = EquivariantLinear(layout, layout)
        self.register_buffer("even", coupling_tensor(layout.lmax, True).T.clone(), persistent=False)
        self.register_buffer("odd", coupling_tensor(layout.lmax, False).T.clone(), persistent=False)
        self.terms = _terms(layout)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """(n, rows, channels) twice -> the same shape."""
        a, b = self.first(x), self.second(y)
        if torch.is_grad_enabled() or len(a) <= CHUNK:
            return self._product(a, b)
        return torch.cat([self._product(*part) for part in zip(a.split(CHUNK), b.split(CHUNK), strict=True)])

    def _product(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """All terms of the product, summed by class."""
        result: list[torch.Tensor | None] = [None] * 4
        for class_a, class_b, class_out, is_even in self.terms:
            width = min(_width(self.layout, c) for c in (class_a, class_b, class_out))
            left, right = (
                t[..., s.start : s.start + width]
                for t, s in ((a, self.layout.classes[class_a]), (b, self.layout.classes[class_b]))
            )
            outer = (left.unsqueeze(2) * right.unsqueeze(1)).flatten(1, 2)
            term = torch.matmul(self.even if is_even else self.odd, outer)
            missing = _width(self.layout, class_out) - width
            if missing:
                term = torch.nn.functional.pad(term, (0, missing))
            before = result[class_out]
            result[class_out] = term if before is None else before + term
        return torch.cat([part for part in result if part is not None], dim=-1)


def _width(layout: FeatureLayout, k: int) -> int:
    return int(layout.classes[k].stop - layout.classes[k].start)


def _terms(layout: FeatureLayout) -> list[tuple[int, int, int, bool]]:
    """(class of x, class of y, class of the product, even coupling) of the products between existing classes.

    Classes count 0 natural, 1 unnatural, 2 and 3 the same odd under time reversal. Even couplings keep the product of
    both naturalnesses, odd ones turn it.
    """
    present = [k for k in range(4) if _width(layout, k)]
    terms = []
    for a in present:
        for b in present:
            for even in (True, False):
                unnatural = (a % 2 + b % 2 + (0 if even else 1)) % 2
                out = unnatural + 2 * ((a // 2 + b // 2) % 2)
                if out in present:
                    terms.append((a, b, out, even))
    return terms
