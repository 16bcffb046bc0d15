"""HamiltonianModel: from a GraphBatch to the values of H, hermitian and equivariant by construction."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from e3nn import o3

from hamnet.config import NetworkConfig
from hamnet.core.basis import OrbitalBasis
from hamnet.core.spin import Spin
from hamnet.data.irrep_blocks import BlockIrreps, block_irreps, spin_channels
from hamnet.errors import BasisError
from hamnet.nn.block_head import BlockReadout, PairFeatures
from hamnet.nn.graph import GraphBatch
from hamnet.nn.interaction import GatedLinear, Interaction, hidden_irreps, kept_irreps
from hamnet.nn.statistics import Statistics
from hamnet.nn.tensor_product import GradedIrreps

DEFAULT_LMAX = 4
"""Degree of the node features: a pair of second neighbours must see which atom stands between its two."""


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


class HamiltonianModel(torch.nn.Module):
    """Message passing on O(3) irreps and block heads.

    The output of a pair is the mean of what both directions say, M_ij(R) = (f_ij + s f_ji^T) / 2, so that the reverse
    block is bitwise the hermitian partner and the order of the atoms does not matter.

    Args:
        settings: sizes.
        basis: species the model knows.
        spin: layout of the blocks.
        statistics: scales and cutoffs from the training set.
        dtype: of the network; the output is always float64.
    """

    def __init__(
        self,
        settings: NetworkConfig,
        basis: OrbitalBasis,
        spin: Spin,
        statistics: Statistics,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.settings, self.basis, self.spin, self.statistics = settings, basis, spin, statistics
        channels = spin_channels(spin)
        self.n_channels = len(channels)
        self.transposition_signs = torch.tensor([c.transposition for c in channels], dtype=torch.float64)
        self.pair_cutoffs = torch.from_numpy(statistics.pair_cutoffs)
        # coupling tensors are built in float64: cast later, they are exact to the network's precision
        with _default_dtype(torch.float64):
            self._build(settings, basis, statistics)
        self.to(dtype)

    def _build(self, settings: NetworkConfig, basis: OrbitalBasis, statistics: Statistics) -> None:
        changes = {(a, b): block_irreps(basis.species[a], basis.species[b], self.spin) for a, b, _ in statistics.groups}
        block_lmax = max(term.l for change in changes.values() for term in change.terms)
        lmax = DEFAULT_LMAX if settings.lmax is None else settings.lmax
        n_species = len(basis.species)
        node = o3.Irreps([(settings.channels, "0e")])
        self.embedding = o3.Linear(f"{n_species}x0e", node)
        layers = []
        for _ in range(settings.layers):
            layer = Interaction(
                node,
                hidden_irreps(settings.channels, lmax),
                n_species,
                settings.radial_functions,
                settings.radial_hidden,
                statistics.average_neighbours,
                lmax,
            )
            node = layer.irreps_out
            layers.append(layer)
        self.interactions = torch.nn.ModuleList(layers)
        kinds = o3.Irreps([(1, (t.l, t.parity)) for change in changes.values() for t in change.terms])
        wanted = kept_irreps(hidden_irreps(settings.channels, block_lmax), kinds)
        # the pair's own harmonics go as high as the nodes': only so does a pair see in full what lies between its atoms
        self.pair_features = PairFeatures(
            node, wanted, max(lmax, block_lmax), settings.radial_functions, settings.radial_hidden
        )
        self.on_site_features = GatedLinear(node, wanted)
        self.readouts = torch.nn.ModuleDict(_readouts(changes, statistics, self.pair_features, self.on_site_features))

    @property
    def dtype(self) -> torch.dtype:
        """Floating type of the network."""
        return next(self.parameters()).dtype

    def forward(self, batch: GraphBatch) -> torch.Tensor:
        """Batch -> (n_values, n_channels) float64 in eV, flat in the batch's order.

        Raises:
            BasisError: the batch has a pair of species that the training set did not have.
        """
        n_species = len(self.basis.species)
        onehot = torch.nn.functional.one_hot(batch.species, n_species).to(self.dtype)
        nodes = self._node_features(batch, onehot)
        vector = batch.pair_vector
        distance = vector.norm(dim=-1)
        cutoff = self.pair_cutoffs.to(vector.device)[batch.species[batch.pair_i], batch.species[batch.pair_j]]
        scaled = (distance / cutoff).to(self.dtype)
        parts = []
        for group in batch.groups:
            name = _name(group.species_i, group.species_j, group.on_site)
            if name not in self.readouts:
                labels = " and ".join(self.basis.species[k].label for k in (group.species_i, group.species_j))
                raise BasisError(f"the model has seen no {'on-site' if group.on_site else 'off-site'} pair of {labels}")
            pairs = group.pairs
            if group.on_site:
                features = self.on_site_features(nodes[batch.pair_i[pairs]])
            else:
                features = self.pair_features(
                    nodes, batch.pair_i[pairs], batch.pair_j[pairs], vector[pairs].to(self.dtype), scaled[pairs]
                )
            blocks = self.readouts[name](features, distance[pairs].to(self.dtype))
            parts.append(blocks.reshape(-1, self.n_channels))
        values = torch.cat(parts)[batch.group_order]
        signs = self.transposition_signs.to(values.device)
        return (values + values[batch.transposition] * signs) / 2

    def _node_features(self, batch: GraphBatch, onehot: torch.Tensor) -> torch.Tensor:
        nodes: torch.Tensor = self.embedding(onehot)
        distance = batch.edge_vector.norm(dim=-1)
        scaled = (distance / self.statistics.message_cutoff).to(self.dtype)
        vector = batch.edge_vector.to(self.dtype)
        for layer in self.interactions:
            nodes = layer(nodes, onehot, batch.edge_source, batch.edge_target, vector, scaled)
        return nodes


def _name(species_i: int, species_j: int, on_site: bool) -> str:
    return f"{species_i}_{species_j}_{'on' if on_site else 'off'}"


def _readouts(
    changes: dict[tuple[int, int], BlockIrreps],
    statistics: Statistics,
    pair_features: PairFeatures,
    on_site_features: GatedLinear,
) -> dict[str, BlockReadout]:
    result = {}
    for (a, b, on_site), group in sorted(statistics.groups.items()):
        irreps_in = on_site_features.irreps_out if on_site else pair_features.irreps_out
        result[_name(a, b, on_site)] = BlockReadout(GradedIrreps(irreps_in), changes[a, b], group)
    return result
