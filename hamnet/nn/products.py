"""Products of node features: what raises the body order of a model, complete for O(3) and for time reversal.

A sum over neighbours knows the pairs (centre, neighbour) only: body order 2. Its product with itself knows triples
(angles between neighbours), the next product quadruples (handedness too). Products are taken channel by channel with
Clebsch-Gordan coefficients, as in Batatia et al., arXiv:2206.07697, eq. 10, but in one contraction with a fixed tensor:
the freedom of path weights is in the linear maps before and after.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import product as combinations

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
        """All terms of the product, summed by what is stored together."""
        result: list[torch.Tensor | None] = [None] * len(self.layout.parts)
        for term in self.terms:
            (first, second), *more = term.factors
            outer = a[..., first].unsqueeze(2) * b[..., second].unsqueeze(1)
            for first, second in more:
                outer = outer + a[..., first].unsqueeze(2) * b[..., second].unsqueeze(1)
            product = torch.matmul(self.even if term.even else self.odd, outer.flatten(1, 2))
            if term.missing:
                product = torch.nn.functional.pad(product, (0, term.missing))
            before = result[term.out]
            result[term.out] = product if before is None else before + product
        return torch.cat([part for part in result if part is not None], dim=-1)


@dataclass(frozen=True)
class ProductTerm:
    """Products between stored parts of two features that go through one coupling.

    Args:
        factors: channels of both; products of several are summed before they are coupled, which costs less.
        out: number of the part of `FeatureLayout.parts` that it adds to.
        missing: channels of that part beyond the product's own.
        even: coupling with l1 + l2 + l3 even.
    """

    factors: tuple[tuple[slice, slice], ...]
    out: int
    missing: int
    even: bool


def _terms(layout: FeatureLayout) -> list[ProductTerm]:
    """Products between the existing classes.

    Classes count 0 natural, 1 unnatural, 2 and 3 the same odd under time reversal. Even couplings keep the product of
    both naturalnesses, odd ones turn it. With spin axes odd features are vectors of spin space and even ones scalars:
    odd times odd is their dot product. Their cross product is left out: it is even under time reversal and a vector,
    as nothing is in H without spin-orbit coupling whose functional knows the spin density alone.
    """
    present = [k for k in range(4) if layout.classes[k].stop > layout.classes[k].start]
    together: dict[tuple[int, int, bool], tuple[tuple[slice, slice], ...]] = {}
    for a, b, even in combinations(present, present, (True, False)):
        out = (a % 2 + b % 2 + (0 if even else 1)) % 2 + 2 * ((a // 2 + b // 2) % 2)
        for term in _by_axes(layout, (a, b, out), even) if out in present else ():
            key = (term.out, term.missing, even)
            together[key] = together.get(key, ()) + term.factors
    return [ProductTerm(factors, *key) for key, factors in together.items()]


def _by_axes(layout: FeatureLayout, classes: tuple[int, int, int], even: bool) -> list[ProductTerm]:
    """The product of two classes into a third, for all spin components."""
    widths = [layout.classes[k].stop - layout.classes[k].start for k in classes]
    shared = min(widths)

    def stored(k: int, axis: int) -> tuple[int, slice]:
        """Number and channels of a class; those of even classes are the same for all axes."""
        number = k + 2 * axis if k >= 2 else k
        start = layout.parts[number][1].start
        return number, slice(start, start + shared)

    a, b, out = classes
    each = [(stored(a, n)[1], stored(b, n)[1]) for n in range(layout.axes if a >= 2 or b >= 2 else 1)]
    groups = [tuple(each)] if a >= 2 and b >= 2 else [(pair,) for pair in each]
    return [ProductTerm(group, stored(out, n)[0], widths[2] - shared, even) for n, group in enumerate(groups)]
