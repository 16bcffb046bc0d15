"""Message passing: one interaction layer, and the gate between layers."""

from __future__ import annotations

import torch
from e3nn import nn as e3nn_nn
from e3nn import o3

from hamnet.nn.radial import RadialNetwork
from hamnet.nn.scatter import sum_edges
from hamnet.nn.tensor_product import GradedIrreps, TensorProductConvolution


def hidden_irreps(channels: int, lmax: int) -> o3.Irreps:
    """Both parities of every l: natural ones (-1)^l with `channels`, unnatural ones with a quarter, fewer at high l."""
    result = []
    for l in range(lmax + 1):
        natural = (-1) ** l
        count = max(4, channels // (1 if l == 0 else min(2 * l, 4)))
        result += [(count, (l, natural)), (max(2, count // 4), (l, -natural))]
    return o3.Irreps(result)


def kept_irreps(irreps: o3.Irreps, kinds: o3.Irreps) -> o3.Irreps:
    """The part of `irreps` whose kinds stand in `kinds`: what can be reached, or is asked for."""
    wanted = {ir for _, ir in kinds}
    return o3.Irreps([(mul, ir) for mul, ir in irreps if ir in wanted])


class GatedLinear(torch.nn.Module):
    """Equivariant linear map followed by a gate: scalars through SiLU or tanh, l > 0 times a sigmoid of scalars."""

    def __init__(self, irreps_in: o3.Irreps, irreps_out: o3.Irreps) -> None:
        super().__init__()
        scalars = o3.Irreps([(mul, ir) for mul, ir in irreps_out if ir.l == 0])
        gated = o3.Irreps([(mul, ir) for mul, ir in irreps_out if ir.l > 0])
        gates = o3.Irreps([(gated.num_irreps, "0e")]) if gated.dim else o3.Irreps("")
        acts = [torch.nn.functional.silu if ir.p > 0 else torch.tanh for _, ir in scalars]
        self.gate = e3nn_nn.Gate(scalars, acts, gates, [torch.sigmoid] * len(gates), gated)
        self.linear = o3.Linear(irreps_in, self.gate.irreps_in)
        self.irreps_out: o3.Irreps = self.gate.irreps_out

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(n, irreps_in.dim) -> (n, irreps_out.dim)."""
        result: torch.Tensor = self.gate(self.linear(features))
        return result


class Interaction(torch.nn.Module):
    """x_i' = gate(linear(sum_j m_ij) / sqrt(<n>)) + linear_species(x_i).

    Args:
        irreps_in: node features.
        irreps_out: features after the layer.
        n_species: number of species (self connection has weights for each).
        radial_functions, radial_hidden: of the radial network.
        average_neighbours: mean number of messages per atom, the normalisation.
        lmax_edge: degree of the edge harmonics.
    """

    def __init__(
        self,
        irreps_in: o3.Irreps,
        irreps_out: o3.Irreps,
        n_species: int,
        radial_functions: int,
        radial_hidden: int,
        average_neighbours: float,
        lmax_edge: int,
    ) -> None:
        super().__init__()
        self.first = o3.Linear(irreps_in, irreps_in)
        self.kernel = TensorProductConvolution(GradedIrreps(irreps_in), lmax_edge, GradedIrreps(irreps_out))
        self.radial = RadialNetwork(radial_functions, 2 * n_species, radial_hidden, self.kernel.n_weights)
        messages = self.kernel.irreps_messages.even
        self.gate = GatedLinear(messages, kept_irreps(irreps_out, messages))
        self.self_connection = o3.FullyConnectedTensorProduct(irreps_in, f"{n_species}x0e", self.gate.irreps_out)
        self.irreps_out: o3.Irreps = self.gate.irreps_out
        self.scale = average_neighbours**-0.5

    def forward(
        self,
        features: torch.Tensor,
        species_onehot: torch.Tensor,
        source: torch.Tensor,
        target: torch.Tensor,
        vector: torch.Tensor,
        scaled_distance: torch.Tensor,
    ) -> torch.Tensor:
        """Node features (n_atoms, irreps_in.dim) -> (n_atoms, irreps_out.dim)."""
        invariants = torch.cat((species_onehot[source], species_onehot[target]), dim=-1)
        weights = self.radial(scaled_distance, invariants)
        messages = self.kernel(self.first(features)[source], vector, weights)
        gathered = sum_edges(messages, target, len(features)) * self.scale
        updated: torch.Tensor = self.gate(gathered) + self.self_connection(features, species_onehot)
        return updated
