"""Heads: from features to the irreps of on-site and off-site blocks, and by Clebsch-Gordan to the blocks."""

from __future__ import annotations

import numpy as np
import torch
from e3nn import o3

from hamnet.data.irrep_blocks import BlockIrreps
from hamnet.nn.interaction import GatedLinear
from hamnet.nn.radial import RadialNetwork
from hamnet.nn.statistics import GroupStatistics
from hamnet.nn.tensor_product import GradedIrreps, TensorProductConvolution


class BlockReadout(torch.nn.Module):
    """Features -> blocks of one ordered pair of species: linear map, scales, change of basis.

    block values = Q (mean + scale exp(-decay d) W x), with Q of `BlockIrreps`.

    Args:
        irreps_in: features, with time-reversal grade.
        irreps: change of basis of the blocks.
        statistics: scales; None for a pair of species that the training set does not have (blocks are zero).
    """

    def __init__(self, irreps_in: GradedIrreps, irreps: BlockIrreps, statistics: GroupStatistics) -> None:
        super().__init__()
        self.n_even = irreps_in.even.dim
        self.linear = o3.Linear(irreps_in.even, o3.Irreps(list(_as_e3nn(irreps, 1))))
        odd = o3.Irreps(list(_as_e3nn(irreps, -1)))
        self.linear_odd = o3.Linear(irreps_in.odd, odd) if odd.dim else None
        self.decay = statistics.decay
        scaled = torch.from_numpy(np.ascontiguousarray((irreps.matrix * statistics.scale).T))
        self.register_buffer("scaled_matrix", scaled, persistent=False)
        # kept apart from the buffers: stays in float64 when the network is cast to float32
        self.mean = torch.from_numpy(irreps.matrix @ statistics.mean)

    def forward(self, features: torch.Tensor, distance: torch.Tensor) -> torch.Tensor:
        """(n, irreps_in.dim), (n,) Angstrom -> (n, n_i * n_j * n_channels) float64, eV."""
        coefficients = self.linear(features[:, : self.n_even])
        if self.linear_odd is not None:
            coefficients = torch.cat((coefficients, self.linear_odd(features[:, self.n_even :])), dim=-1)
        coefficients = coefficients * torch.exp(-self.decay * distance).unsqueeze(-1)
        blocks: torch.Tensor = coefficients @ self.scaled_matrix
        return blocks.double() + self.mean.to(blocks.device)


def _as_e3nn(irreps: BlockIrreps, grade: int) -> list[tuple[int, tuple[int, int]]]:
    return [(count, (l, parity)) for count, l, parity in irreps.irreps(grade)]


class PairFeatures(torch.nn.Module):
    """Features of a pair from both atoms and the pair vector: gate(linear(kernel(A x_i + B x_j, r, w))).

    The weights w depend on the distance and on invariants of both atoms and vanish at the pair cutoff.

    Args:
        irreps_in: node features.
        irreps_out: pair features.
        lmax_edge: degree of the harmonics of the pair vector.
        radial_functions, radial_hidden: of the radial network.
    """

    def __init__(
        self, irreps_in: o3.Irreps, irreps_out: o3.Irreps, lmax_edge: int, radial_functions: int, radial_hidden: int
    ) -> None:
        super().__init__()
        self.from_i, self.from_j = o3.Linear(irreps_in, irreps_in), o3.Linear(irreps_in, irreps_in)
        self.n_invariants = sum(mul for mul, ir in irreps_in if ir == o3.Irrep("0e"))
        self.invariants = o3.Linear(irreps_in, f"{self.n_invariants}x0e")
        self.kernel = TensorProductConvolution(GradedIrreps(irreps_in), lmax_edge, GradedIrreps(irreps_out))
        self.radial = RadialNetwork(radial_functions, 2 * self.n_invariants, radial_hidden, self.kernel.n_weights)
        self.gate = GatedLinear(self.kernel.irreps_messages.even, irreps_out)
        self.irreps_out: o3.Irreps = self.gate.irreps_out

    def forward(
        self,
        features: torch.Tensor,
        pair_i: torch.Tensor,
        pair_j: torch.Tensor,
        vector: torch.Tensor,
        scaled_distance: torch.Tensor,
    ) -> torch.Tensor:
        """Node features -> (n_pairs, irreps_out.dim)."""
        scalars = self.invariants(features)
        weights = self.radial(scaled_distance, torch.cat((scalars[pair_i], scalars[pair_j]), dim=-1))
        source = self.from_i(features)[pair_i] + self.from_j(features)[pair_j]
        result: torch.Tensor = self.gate(self.kernel(source, vector, weights))
        return result
