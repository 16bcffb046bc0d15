"""Message passing: what an atom learns from its neighbours, and products that raise the body order."""

from __future__ import annotations

import torch

from hamnet.nn.features import EquivariantLinear, FeatureGate, FeatureLayout
from hamnet.nn.frames import EdgeFrames
from hamnet.nn.products import CouplingProduct
from hamnet.nn.radial import RadialNetwork
from hamnet.nn.scatter import sum_edges
from hamnet.nn.so2 import SO2Convolution
from hamnet.nn.tensor_product import TensorProductConvolution

KERNELS = {"so2": SO2Convolution, "tensor_product": TensorProductConvolution}
"""Kernels of one signature; the second is e3nn's, for comparison."""


class Interaction(torch.nn.Module):
    """a_i = sum_j m_ij / sqrt(<n>);  x_i' = gate(A a + B a a + C a a a + ...) + D x_i.

    Args:
        layout_in: node features.
        layout_out: features after the layer.
        n_species: number of species.
        radial_functions, radial_hidden: of the radial network.
        average_neighbours: mean number of messages per atom, the normalisation.
        body_order: bodies that one layer correlates, centre included: 2 is the bare sum over neighbours.
        kernel: name in `KERNELS`.
    """

    def __init__(
        self,
        layout_in: FeatureLayout,
        layout_out: FeatureLayout,
        n_species: int,
        radial_functions: int,
        radial_hidden: int,
        average_neighbours: float,
        body_order: int,
        kernel: str,
    ) -> None:
        super().__init__()
        # scalars send natural messages alone: an unnatural channel would be zero
        messages = layout_out if layout_in.lmax else FeatureLayout(layout_out.lmax, layout_out.natural)
        self.first = EquivariantLinear(layout_in, layout_in)
        self.kernel = KERNELS[kernel](layout_in, messages)
        self.radial = RadialNetwork(radial_functions, 2 * n_species, radial_hidden, self.kernel.n_weights)
        self.species = torch.nn.Linear(n_species, messages.natural, bias=False)
        self.widen = EquivariantLinear(messages, layout_out)
        self.products = torch.nn.ModuleList([CouplingProduct(layout_out) for _ in range(body_order - 2)])
        self.mix = torch.nn.ModuleList([EquivariantLinear(layout_out, layout_out) for _ in range(body_order - 1)])
        self.gate = FeatureGate(layout_out)
        self.self_connection = EquivariantLinear(layout_in, layout_out)
        self.scale = average_neighbours**-0.5

    def forward(
        self,
        features: torch.Tensor,
        species_onehot: torch.Tensor,
        source: torch.Tensor,
        target: torch.Tensor,
        frames: EdgeFrames,
        scaled_distance: torch.Tensor,
    ) -> torch.Tensor:
        """Node features (n_atoms, rows_in, channels_in) -> (n_atoms, rows_out, channels_out)."""
        invariants = torch.cat((species_onehot.index_select(0, source), species_onehot.index_select(0, target)), dim=-1)
        weights = self.radial(scaled_distance, invariants)
        messages = self.kernel(self.first(features).index_select(0, source), frames, weights)
        gathered = sum_edges(messages.flatten(1), target, len(features)) * self.scale
        atoms = self.widen(gathered.reshape(len(features), *messages.shape[1:]))
        power, mixed = atoms, self.mix[0](atoms)
        for product, mix in zip(self.products, list(self.mix)[1:], strict=True):
            power = product(power, atoms)
            mixed = mixed + mix(power)
        updated: torch.Tensor = self.gate(mixed) + self.self_connection(features)
        return updated
