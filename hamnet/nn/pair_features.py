"""Features of atom pairs, in the frame of the pair vector and sorted by what happens when the atoms change places."""

from __future__ import annotations

import torch

from hamnet.nn.features import EquivariantLinear, FeatureLayout, degree_of_rows
from hamnet.nn.frames import EdgeFrames
from hamnet.nn.radial import RadialNetwork
from hamnet.nn.so2 import O2Features, O2Layout, O2Linear, for_axes, frame_irreps, frame_layout

Sector = tuple[int, int]
"""Grade of time reversal, and parity under exchange of the atoms; both +1 or -1."""
MAIN: Sector = (1, 1)
"""The sector of true scalars: all gates come from it."""


class PairFeatures(torch.nn.Module):
    """Features of a pair: gate(w(d, x_i, x_j) * W D^T (A x_i +- P A x_j)).

    Exchange of the atoms together with inversion P about their centre leaves the pair vector in place, so that sums and
    differences are even and odd under it: one evaluation serves a pair and its reverse, and parity makes it possible.
    The weights w depend on the distance and on invariants of both atoms, symmetric in them, and vanish at the cutoff.

    Args:
        layout: node features.
        radial_functions, radial_hidden: of the radial network.
    """

    signs: torch.Tensor

    def __init__(self, layout: FeatureLayout, radial_functions: int, radial_hidden: int) -> None:
        super().__init__()
        self.layout = layout
        a, b, c, d = ((part.stop - part.start + 1) // 2 for part in layout.classes)
        self.parted = FeatureLayout(layout.lmax, a, b, c, d, layout.axes)
        self.even, self.odd = EquivariantLinear(layout, self.parted), EquivariantLinear(layout, self.parted)
        parity = _inversion_signs(self.parted)
        self.register_buffer("signs", torch.cat((parity, -parity), dim=1), persistent=False)
        frames = {g: frame_layout(self.parted, g, layout.lmax) for g in self.parted.grades}
        self.hidden: dict[Sector, O2Layout] = {(g, exchange): frames[g] for g in frames for exchange in (1, -1)}
        sizes = {sector: sum(inner.sizes) for sector, inner in self.hidden.items()}
        self.n_gates = sum(size for (grade, _), size in sizes.items() if grade == 1) - self.hidden[MAIN].scalars
        n_odd = sum(size for (grade, _), size in sizes.items() if grade == -1)
        self.gated = dict(self.hidden)
        main = self.hidden[MAIN]
        self.gated[MAIN] = O2Layout(main.scalars + self.n_gates, main.pseudoscalars, main.doublets)
        self.linear = torch.nn.ModuleList([O2Linear(frames[s[0]], gated) for s, gated in self.gated.items()])
        self.n_weights = [sum(gated.sizes) for gated in self.gated.values()]
        self.invariants = torch.nn.Linear(layout.natural, 2 * layout.natural)
        # what is odd under time reversal has weights of its own: the rest is the network without moments
        self.radial = RadialNetwork(radial_functions, 2 * layout.natural, radial_hidden, sum(self.n_weights) - n_odd)
        self.odd_radial, self.odd_gates = None, None
        if n_odd:
            self.odd_radial = RadialNetwork(radial_functions, 2 * layout.natural, radial_hidden, n_odd)
            self.odd_gates = torch.nn.Linear(main.scalars, n_odd)

    def forward(
        self,
        features: torch.Tensor,
        pair_i: torch.Tensor,
        pair_j: torch.Tensor,
        frames: EdgeFrames,
        scaled_distance: torch.Tensor,
    ) -> dict[Sector, O2Features]:
        """Node features -> features of the pairs for each sector; spin components of a pair stand one after another."""
        first, second = self.invariants(features[:, 0, : self.layout.natural]).chunk(2, dim=-1)
        symmetric = (
            first.index_select(0, pair_i) + first.index_select(0, pair_j),
            second.index_select(0, pair_i) * second.index_select(0, pair_j),
        )
        invariants = torch.cat(symmetric, dim=-1)
        together = self.radial(scaled_distance, invariants)
        if self.odd_radial is not None:
            together = torch.cat((together, self.odd_radial(scaled_distance, invariants)), dim=1)
        weights = torch.split(together, self.n_weights, dim=1)
        both = torch.cat((self.even(features), self.odd(features)), dim=-1)
        source = both.index_select(0, pair_i) + both.index_select(0, pair_j) * self.signs
        turned = torch.bmm(frames.matrix(self.layout.lmax), source)
        parts = dict(zip((1, -1), torch.split(turned, self.parted.channels, dim=-1), strict=True))
        result = {}
        for k, (sector, gated) in enumerate(self.gated.items()):
            inside = frame_irreps(parts[sector[1]][..., self.parted.span(sector[0])], self.parted, sector[0])
            factors = for_axes(weights[k], self.parted.axes_of(sector[0]))
            result[sector] = self.linear[k](inside).scaled(factors, gated)
        return self._gate(result)

    def _gate(self, features: dict[Sector, O2Features]) -> dict[Sector, O2Features]:
        """SiLU of the main scalars; sigmoid gates, made from the same sector, for all else."""
        main = features[MAIN]
        scalars, gates = torch.split(main.singlets[0], [self.hidden[MAIN].scalars, self.n_gates], dim=1)
        activated = torch.nn.functional.silu(scalars)
        if self.odd_gates is not None:
            gates = torch.cat((gates, self.odd_gates(activated)), dim=1)
        factors = torch.sigmoid(gates)
        sizes = [sum(inner.sizes) - (inner.scalars if s == MAIN else 0) for s, inner in self.hidden.items()]
        result = {}
        for (sector, inner), factor in zip(self.hidden.items(), torch.split(factors, sizes, dim=1), strict=True):
            if sector == MAIN:
                rest = O2Features((scalars[:, :0], main.singlets[1]), main.doublets)
                gated = rest.scaled(factor, O2Layout(0, inner.pseudoscalars, inner.doublets))
                result[sector] = O2Features((activated, gated.singlets[1]), gated.doublets)
            else:
                result[sector] = features[sector].scaled(for_axes(factor, self.parted.axes_of(sector[0])), inner)
        return result


def _inversion_signs(layout: FeatureLayout) -> torch.Tensor:
    """(rows, channels) sign of each feature under inversion: (-1)^l for natural ones, its negative for the others."""
    natural = torch.where(degree_of_rows(layout.lmax) % 2 == 0, 1.0, -1.0)
    signs = natural[:, None].repeat(1, layout.channels)
    for k, part in layout.parts:
        if k % 2:
            signs[:, part] *= -1
    return signs
