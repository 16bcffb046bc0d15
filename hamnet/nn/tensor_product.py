"""The reference kernel: e3nn's tensor product with spherical harmonics, to which the fast kernel is held.

The same signature as `hamnet.nn.so2.SO2Convolution`: `kernel(source, frames, weights) -> messages`.
"""

from __future__ import annotations

import torch
from e3nn import o3

from hamnet.nn.features import FeatureLayout
from hamnet.nn.frames import EdgeFrames
from hamnet.nn.so2 import axes_to_edges, edges_to_axes, for_axes

E3NN_AXES = [1, 2, 0]
"""Vectors enter e3nn as (y, z, x): then its basis is ours, m = -l..l with z polar. The one place that relabels axes."""


def edge_harmonics(vectors: torch.Tensor, lmax: int) -> torch.Tensor:
    """(n, 3) pair vectors in our axes -> (n, (lmax+1)^2) harmonics in our order, component normalised."""
    harmonics: torch.Tensor = o3.spherical_harmonics(
        list(range(lmax + 1)), vectors[:, E3NN_AXES], normalize=True, normalization="component"
    )
    return harmonics


class TensorProductConvolution(torch.nn.Module):
    """Messages m = W sum over paths w_path (x (x) Y(edge)), every path that the parities allow ('uvu', then linear).

    With filter degrees up to lmax_in + lmax_out it spans all equivariant maps, as the fast kernel does.

    Args:
        layout_in: of the source features.
        layout_out: of the messages.
        lmax_filter: largest degree of the harmonics; None: lmax_in + lmax_out.
    """

    def __init__(self, layout_in: FeatureLayout, layout_out: FeatureLayout, lmax_filter: int | None = None) -> None:
        super().__init__()
        self.layout_in, self.layout_out = layout_in, layout_out
        self.lmax_filter = layout_in.lmax + layout_out.lmax if lmax_filter is None else lmax_filter
        self.parts_in = [_grade_layout(layout_in, grade) for grade in layout_out.grades]
        self.parts_out = [_grade_layout(layout_out, grade) for grade in layout_out.grades]
        products, linears = [], []
        for part_in, part_out in zip(self.parts_in, self.parts_out, strict=True):
            product = _product(part_in.e3nn_irreps(), self.lmax_filter, part_out.e3nn_irreps())
            products.append(product)
            linears.append(o3.Linear(product.irreps_out.simplify(), part_out.e3nn_irreps()))
        self.products, self.linears = torch.nn.ModuleList(products), torch.nn.ModuleList(linears)
        self.counts = [int(product.weight_numel) for product in products]
        self.n_weights = sum(self.counts)

    def forward(self, source: torch.Tensor, frames: EdgeFrames, weights: torch.Tensor) -> torch.Tensor:
        """(n, rows_in, channels_in), n edges, (n, n_weights) -> (n, rows_out, channels_out)."""
        harmonics = edge_harmonics(frames.vectors.to(source.dtype), self.lmax_filter)
        result, split = [], torch.split(weights, self.counts, dim=1)
        for k, grade in enumerate(self.layout_out.grades):
            axes = self.layout_in.axes_of(grade)
            flat = self.parts_in[k].to_e3nn(axes_to_edges(source[..., self.layout_in.span(grade)], axes))
            product = self.products[k](flat, for_axes(harmonics, axes), for_axes(split[k], axes))
            result.append(edges_to_axes(self.parts_out[k].from_e3nn(self.linears[k](product)), axes))
        return torch.cat(result, dim=-1)


def _grade_layout(layout: FeatureLayout, grade: int) -> FeatureLayout:
    natural, unnatural = (part.stop - part.start for part in layout.grade(grade))
    return FeatureLayout(layout.lmax, natural, unnatural)


def _product(irreps_in: o3.Irreps, lmax_filter: int, wanted: o3.Irreps) -> o3.TensorProduct:
    """Product 'uvu' with one weight per channel and path, and its output sorted by irrep."""
    edge = o3.Irreps.spherical_harmonics(lmax_filter)
    kinds = {ir for _, ir in wanted}
    paths = [
        (a, b, ir_out, mul)
        for a, (mul, ir_in) in enumerate(irreps_in)
        for b, (_, ir_edge) in enumerate(edge)
        for ir_out in ir_in * ir_edge
        if ir_out in kinds
    ]
    irreps_out, permutation, _ = o3.Irreps([(mul, ir) for _, _, ir, mul in paths]).sort()
    instructions = [(a, b, permutation[k], "uvu", True) for k, (a, b, _, _) in enumerate(paths)]
    instructions.sort(key=lambda entry: entry[2])
    return o3.TensorProduct(irreps_in, edge, irreps_out, instructions, shared_weights=False, internal_weights=False)
