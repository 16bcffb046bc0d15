"""The convolution kernel on e3nn's tensor product: the reference that faster siblings are tested against.

Signature shared by all kernels: `kernel(source, edge_vector, weights) -> messages`, with irreps given at construction.
Time-reversal grade: features come as (even, odd) irreps; edge harmonics are even under time reversal, so a message
keeps the grade of its source.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from e3nn import o3

E3NN_AXES = [1, 2, 0]
"""Vectors enter e3nn as (y, z, x): then its basis is ours, m = -l..l with z polar. The one place that relabels axes."""


@dataclass(frozen=True)
class GradedIrreps:
    """Irreps of O(3) with a time-reversal grade; a feature holds the even part first, then the odd one."""

    even: o3.Irreps
    odd: o3.Irreps = o3.Irreps("")

    @property
    def dim(self) -> int:
        """Length of a feature."""
        return int(self.even.dim + self.odd.dim)


def edge_harmonics(vectors: torch.Tensor, lmax: int) -> torch.Tensor:
    """(n, 3) pair vectors in our axes -> (n, (lmax+1)^2) harmonics in our order, component normalised."""
    harmonics: torch.Tensor = o3.spherical_harmonics(
        list(range(lmax + 1)), vectors[:, E3NN_AXES], normalize=True, normalization="component"
    )
    return harmonics


class TensorProductConvolution(torch.nn.Module):
    """Messages m = sum over paths w_path (x_source (x) Y(edge)), every path that the parities allow.

    Args:
        irreps_in: irreps of the source features.
        lmax_edge: largest degree of the edge harmonics.
        irreps_out: which irreps are wanted; the output holds each once per path (see `irreps_messages`).
    """

    def __init__(self, irreps_in: GradedIrreps, lmax_edge: int, irreps_out: GradedIrreps) -> None:
        super().__init__()
        self.irreps_in = irreps_in
        self.lmax_edge = lmax_edge
        self.even, even_out = _channelwise_product(irreps_in.even, lmax_edge, irreps_out.even)
        self.odd, odd_out = _channelwise_product(irreps_in.odd, lmax_edge, irreps_out.odd)
        self.irreps_messages = GradedIrreps(even_out, odd_out)
        self.n_weights_even = 0 if self.even is None else int(self.even.weight_numel)
        self.n_weights = self.n_weights_even + (0 if self.odd is None else int(self.odd.weight_numel))

    def forward(self, source: torch.Tensor, edge_vector: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """(n, irreps_in.dim), (n, 3) Angstrom, (n, n_weights) -> (n, irreps_messages.dim)."""
        harmonics = edge_harmonics(edge_vector, self.lmax_edge)
        n_even = self.irreps_in.even.dim
        parts = []
        if self.even is not None:
            parts.append(self.even(source[:, :n_even], harmonics, weights[:, : self.n_weights_even]))
        if self.odd is not None:
            parts.append(self.odd(source[:, n_even:], harmonics, weights[:, self.n_weights_even :]))
        return torch.cat(parts, dim=-1) if len(parts) > 1 else parts[0]


def _channelwise_product(
    irreps_in: o3.Irreps, lmax_edge: int, wanted: o3.Irreps
) -> tuple[o3.TensorProduct | None, o3.Irreps]:
    """Product 'uvu' with one weight per channel and path, and its output sorted by irrep."""
    edge = o3.Irreps.spherical_harmonics(lmax_edge)
    kinds = {ir for _, ir in wanted}
    paths = [
        (a, b, ir_out, mul)
        for a, (mul, ir_in) in enumerate(irreps_in)
        for b, (_, ir_edge) in enumerate(edge)
        for ir_out in ir_in * ir_edge
        if ir_out in kinds
    ]
    if not paths:
        return None, o3.Irreps("")
    irreps_out, permutation, _ = o3.Irreps([(mul, ir) for _, _, ir, mul in paths]).sort()
    instructions = [(a, b, permutation[k], "uvu", True) for k, (a, b, _, _) in enumerate(paths)]
    instructions.sort(key=lambda entry: entry[2])
    product = o3.TensorProduct(irreps_in, edge, irreps_out, instructions, shared_weights=False, internal_weights=False)
    return product, irreps_out.simplify()
