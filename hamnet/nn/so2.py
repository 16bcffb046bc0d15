"""The fast kernel: convolution in the frame of each edge, complete for O(3).

Seen from the edge a feature splits into irreps of the group that leaves the edge in place, O(2): rotations about it
and mirrors through it. A natural feature (parity (-1)^l) gives the scalar m = 0 and doublets (+m, -m); an unnatural
one the pseudoscalar m = 0 and, its mirror sign being the other, doublets (-m, +m) with one sign turned. Linear maps of
O(3) features along an edge are exactly the maps that mix equal irreps of O(2): nothing is lost against the tensor
product with all filter degrees, and parity is kept. Time-reversal grades do not mix.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from hamnet.nn.features import FeatureLayout
from hamnet.nn.frames import EdgeFrames


@dataclass(frozen=True)
class O2Layout:
    """Multiplicities of the irreps of O(2), one grade of time reversal.

    Args:
        scalars: invariant under mirrors.
        pseudoscalars: turn their sign in a mirror.
        doublets: for m = 1, 2, ...
    """

    scalars: int
    pseudoscalars: int
    doublets: tuple[int, ...]

    @property
    def sizes(self) -> tuple[int, ...]:
        """All multiplicities: scalars, pseudoscalars, doublets."""
        return (self.scalars, self.pseudoscalars, *self.doublets)


@dataclass(frozen=True)
class O2Features:
    """Features of edges in their frames.

    Args:
        singlets: scalars and pseudoscalars, (n, multiplicity) each.
        doublets: for m = 1, 2, ...: the even and the odd member, (n, multiplicity) each.
    """

    singlets: tuple[torch.Tensor, torch.Tensor]
    doublets: tuple[tuple[torch.Tensor, torch.Tensor], ...]

    def scaled(self, factors: torch.Tensor, layout: O2Layout) -> O2Features:
        """Every irrep times its own factor, (n, sum of `layout.sizes`)."""
        split = torch.split(factors, list(layout.sizes), dim=1)
        singlets = (self.singlets[0] * split[0], self.singlets[1] * split[1])
        doublets = tuple((a * f, b * f) for (a, b), f in zip(self.doublets, split[2:], strict=True))
        return O2Features(singlets, doublets)

    def to(self, dtype: torch.dtype) -> O2Features:
        """The same features in another floating type."""
        singlets = (self.singlets[0].to(dtype), self.singlets[1].to(dtype))
        return O2Features(singlets, tuple((a.to(dtype), b.to(dtype)) for a, b in self.doublets))

    def split(self, sizes: list[int]) -> list[O2Features]:
        """Features of consecutive runs of edges; split at once, since each slice would cost a whole gradient."""
        singlets = [torch.split(s, sizes) for s in self.singlets]
        doublets = [(torch.split(a, sizes), torch.split(b, sizes)) for a, b in self.doublets]
        return [
            O2Features((singlets[0][k], singlets[1][k]), tuple((a[k], b[k]) for a, b in doublets))
            for k in range(len(sizes))
        ]


def frame_layout(layout: FeatureLayout, grade: int, mmax: int) -> O2Layout:
    """Irreps of O(2) in one grade of a feature tensor, up to order mmax."""
    natural, unnatural = (part.stop - part.start for part in layout.grade(grade))
    degrees = layout.lmax + 1
    doublets = tuple((degrees - m) * (natural + unnatural) for m in range(1, min(mmax, layout.lmax) + 1))
    return O2Layout(degrees * natural, degrees * unnatural, doublets)


def into_frame(features: torch.Tensor, layout: FeatureLayout, grade: int, matrix: torch.Tensor) -> O2Features:
    """Features of one grade seen from the edges.

    Args:
        features: (n, rows, channels) of `layout`.
        layout: of the features.
        grade: +1 or -1.
        matrix: (n, n_frame_rows, rows) of `EdgeFrames.matrix`.
    """
    span = layout.span(grade)
    if layout.channels > span.stop - span.start:
        features = features[..., span]
    return frame_irreps(torch.bmm(matrix, features), layout, grade)


def frame_irreps(turned: torch.Tensor, layout: FeatureLayout, grade: int) -> O2Features:
    """Irreps of O(2) of features that are in their frames already: (n, n_frame_rows, channels of the grade).

    Spin components, where there are several, count as edges: the irreps have n * axes rows.
    """
    axes = layout.axes_of(grade)
    if axes > 1:
        turned = axes_to_edges(turned, axes)
    widths = [part.stop - part.start for part in layout.grade(grade)]
    degrees = layout.lmax + 1
    sizes, m = [degrees], 1
    while sum(sizes) < turned.shape[1]:
        sizes += [degrees - m] * 2
        m += 1
    first, *rest = torch.split(turned, sizes, dim=1)
    natural_part, unnatural_part = torch.split(first, widths, dim=2)
    doublets = []
    for plus, minus in zip(rest[::2], rest[1::2], strict=True):
        if widths[1]:
            (a, b), (c, d) = torch.split(plus, widths, dim=2), torch.split(minus, widths, dim=2)
            plus, minus = torch.cat((a, d), dim=-1), torch.cat((c, -b), dim=-1)
        doublets.append((plus.flatten(1), minus.flatten(1)))
    return O2Features((natural_part.flatten(1), unnatural_part.flatten(1)), tuple(doublets))


def out_of_frame(features: O2Features, layout: FeatureLayout, grade: int, matrix: torch.Tensor) -> torch.Tensor:
    """Inverse of `into_frame`: (n, rows, channels of the grade)."""
    natural, unnatural = (part.stop - part.start for part in layout.grade(grade))
    degrees, axes = layout.lmax + 1, layout.axes_of(grade)
    n = len(matrix) * axes
    widths = [natural, unnatural]
    rows = [torch.cat([s.reshape(n, degrees, w) for s, w in zip(features.singlets, widths, strict=True)], dim=-1)]
    for m, (even, odd) in enumerate(features.doublets, start=1):
        even, odd = (x.reshape(n, degrees - m, natural + unnatural) for x in (even, odd))
        if unnatural:
            (a, b), (c, d) = torch.split(even, widths, dim=2), torch.split(odd, widths, dim=2)
            even, odd = torch.cat((a, -d), dim=-1), torch.cat((c, b), dim=-1)
        rows += [even, odd]
    together = torch.cat(rows, dim=1)
    return torch.bmm(matrix.transpose(1, 2), edges_to_axes(together, axes) if axes > 1 else together)


def axes_to_edges(features: torch.Tensor, axes: int) -> torch.Tensor:
    """(n, rows, axes * channels) -> (n * axes, rows, channels): every spin component as an edge of its own."""
    n, rows, width = features.shape
    return features.reshape(n, rows, axes, width // axes).transpose(1, 2).flatten(0, 1)


def edges_to_axes(features: torch.Tensor, axes: int) -> torch.Tensor:
    """Inverse of `axes_to_edges`."""
    n, rows, width = features.shape
    return features.reshape(n // axes, axes, rows, width).transpose(1, 2).flatten(2)


def for_axes(values: torch.Tensor, axes: int) -> torch.Tensor:
    """(n, ...) -> (n * axes, ...): what all spin components of an edge share."""
    return values if axes == 1 else values.repeat_interleave(axes, dim=0)


class O2Linear(torch.nn.Module):
    """Linear map between irreps of O(2): one matrix for each irrep, the same for both members of a doublet.

    Args:
        layout_in, layout_out: irreps; orders m that one of both lacks give nothing.
    """

    def __init__(self, layout_in: O2Layout, layout_out: O2Layout) -> None:
        super().__init__()
        self.layout_in, self.layout_out = layout_in, layout_out
        pairs = zip(layout_in.sizes, layout_out.sizes, strict=False)
        self.weights = torch.nn.ParameterList(
            [torch.nn.Parameter(torch.randn(a, b) / max(a, 1) ** 0.5) for a, b in pairs]
        )

    def forward(self, features: O2Features) -> O2Features:
        """Features of `layout_in` -> features of `layout_out`."""
        return self.apply_weights(features, list(self.weights))

    def apply_weights(self, features: O2Features, weights: Sequence[torch.Tensor]) -> O2Features:
        """The map with the given matrices, one for each irrep."""
        scalars = features.singlets[0] @ weights[0]
        doublets = [(a @ w, b @ w) for (a, b), w in zip(features.doublets, weights[2:], strict=False)]
        for size in self.layout_out.doublets[len(doublets) :]:
            nothing = scalars.new_zeros((len(scalars), size))
            doublets.append((nothing, nothing))
        return O2Features((scalars, features.singlets[1] @ weights[1]), tuple(doublets))


def joined(first: O2Features, second: O2Features) -> O2Features:
    """The irreps of both, those of the first before those of the second."""
    singlets = tuple(torch.cat(pair, dim=1) for pair in zip(first.singlets, second.singlets, strict=True))
    doublets = tuple(
        (torch.cat((a, c), dim=1), torch.cat((b, d), dim=1))
        for (a, b), (c, d) in zip(first.doublets, second.doublets, strict=True)
    )
    return O2Features((singlets[0], singlets[1]), doublets)


class SO2Convolution(torch.nn.Module):
    """Messages m = D (w(edge) * W (D^T x)): linear in the features and in the weights, at the cost of small products.

    Signature shared by all kernels: `kernel(source, frames, weights) -> messages`, with layouts given at construction.

    Args:
        layout_in: of the source features.
        layout_out: of the messages.
    """

    def __init__(self, layout_in: FeatureLayout, layout_out: FeatureLayout) -> None:
        super().__init__()
        self.layout_in, self.layout_out = layout_in, layout_out
        self.mmax = min(layout_in.lmax, layout_out.lmax)
        self.grades = tuple(g for g in layout_in.grades if g in layout_out.grades)
        self.inner = [frame_layout(layout_out, grade, self.mmax) for grade in self.grades]
        self.linear = torch.nn.ModuleList(
            [
                O2Linear(frame_layout(layout_in, grade, self.mmax), inner)
                for grade, inner in zip(self.grades, self.inner, strict=True)
            ]
        )
        self.n_weights = sum(sum(inner.sizes) for inner in self.inner)

    def forward(self, source: torch.Tensor, frames: EdgeFrames, weights: torch.Tensor) -> torch.Tensor:
        """(n, rows_in, channels_in), n edges, (n, n_weights) -> (n, rows_out, channels_out)."""
        inward = frames.matrix(self.layout_in.lmax, self.mmax)
        outward = frames.matrix(self.layout_out.lmax, self.mmax)
        parts = dict.fromkeys(self.layout_out.grades)
        start = 0
        for grade, linear, inner in zip(self.grades, self.linear, self.inner, strict=True):
            stop = start + sum(inner.sizes)
            turned = linear(into_frame(source, self.layout_in, grade, inward))
            factors = for_axes(weights[:, start:stop], self.layout_in.axes_of(grade))
            messages = out_of_frame(turned.scaled(factors, inner), self.layout_out, grade, outward)
            parts[grade], start = messages, stop
        return _joined(parts, self.layout_out, source)


def _joined(parts: dict[int, torch.Tensor | None], layout: FeatureLayout, like: torch.Tensor) -> torch.Tensor:
    """Grades one after another; a grade that the source lacks is zero."""
    tensors = []
    for grade, part in parts.items():
        span = layout.span(grade)
        width = span.stop - span.start
        tensors.append(like.new_zeros((len(like), layout.rows, width)) if part is None else part)
    return torch.cat(tensors, dim=-1) if len(tensors) > 1 else tensors[0]
