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

    Features odd under time reversal have messages of their own, and a_i holds the atom's own ones too: products must
    know its moment beside the places of its neighbours.

    Args:
        layout_in: node features.
        layout_out: features after the layer.
        n_species: number of species.
        radial_functions, radial_hidden: of the radial network.
        average_neighbours: mean number of messages per atom, the normalisation.
        body_order: bodies that one layer correlates, centre included: 2 is the bare sum over neighbours.
        kernel: name in `KERNELS`.
        scalars: the even features of the input are scalars alone, whatever the degree of its odd ones.
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
        scalars: bool = False,
    ) -> None:
        super().__init__()
        scalars = scalars or not layout_in.lmax
        self.even_in, even_out = layout_in.alone(1).with_lmax(0 if scalars else layout_in.lmax), layout_out.alone(1)
        # scalars send natural messages alone: an unnatural channel would be zero
        messages = FeatureLayout(layout_out.lmax, layout_out.natural) if scalars else even_out
        self.first = EquivariantLinear(self.even_in, self.even_in)
        self.kernel = KERNELS[kernel](self.even_in, messages)
        self.radial = RadialNetwork(radial_functions, 2 * n_species, radial_hidden, self.kernel.n_weights)
        self.widen = EquivariantLinear(messages, even_out)
        self.odd: OddMessages | None = None
        if -1 in layout_in.grades:
            odd_in, odd_out = layout_in.alone(-1), layout_out.alone(-1)
            self.odd = OddMessages(odd_in, odd_out, n_species, radial_functions, radial_hidden, kernel)
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
        even = features if self.odd is None else features[:, : self.even_in.rows, : self.even_in.channels]
        messages = self.kernel(self.first(even).index_select(0, source), frames, weights)
        gathered = sum_edges(messages.flatten(1), target, len(features)) * self.scale
        atoms = self.widen(gathered.reshape(len(features), *messages.shape[1:]))
        if self.odd is not None:
            own = features[..., self.even_in.channels :]
            odd_atoms = self.odd(own, invariants, source, target, frames, scaled_distance, self.scale)
            atoms = torch.cat((atoms, odd_atoms), dim=-1)
        power, mixed = atoms, self.mix[0](atoms)
        for product, mix in zip(self.products, list(self.mix)[1:], strict=True):
            power = product(power, atoms)
            mixed = mixed + mix(power)
        updated: torch.Tensor = self.gate(mixed) + self.self_connection(features)
        return updated


class OddMessages(torch.nn.Module):
    """a_i = sum_j m_ij / sqrt(<n>) + B x_i of the features that are odd under time reversal.

    Args:
        layout_in, layout_out: of the odd features.
        n_species, radial_functions, radial_hidden, kernel: as of `Interaction`.
    """

    def __init__(
        self,
        layout_in: FeatureLayout,
        layout_out: FeatureLayout,
        n_species: int,
        radial_functions: int,
        radial_hidden: int,
        kernel: str,
    ) -> None:
        super().__init__()
        # scalars send messages of their own class alone
        messages = layout_out if layout_in.lmax else layout_out.within(layout_in)
        self.first = EquivariantLinear(layout_in, layout_in)
        self.kernel = KERNELS[kernel](layout_in, messages)
        self.radial = RadialNetwork(radial_functions, 2 * n_species, radial_hidden, self.kernel.n_weights)
        self.widen = EquivariantLinear(messages, layout_out)
        self.own = EquivariantLinear(layout_in, layout_out)

    def forward(
        self,
        features: torch.Tensor,
        invariants: torch.Tensor,
        source: torch.Tensor,
        target: torch.Tensor,
        frames: EdgeFrames,
        scaled_distance: torch.Tensor,
        scale: float,
    ) -> torch.Tensor:
        """Odd features (n_atoms, rows_in, channels_in) -> (n_atoms, rows_out, channels_out)."""
        weights = self.radial(scaled_distance, invariants)
        messages = self.kernel(self.first(features).index_select(0, source), frames, weights)
        gathered = sum_edges(messages.flatten(1), target, len(features)) * scale
        gathered = gathered.reshape(len(features), *messages.shape[1:])
        result: torch.Tensor = self.widen(gathered) + self.own(features)
        return result
