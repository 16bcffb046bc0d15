"""HamiltonianModel: from a GraphBatch to the values of H, hermitian and equivariant by construction."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary

import torch

from hamnet.config import NetworkConfig
from hamnet.core.basis import OrbitalBasis
from hamnet.core.spin import Spin
from hamnet.data.irrep_blocks import BlockIrreps, block_irreps, spin_channels
from hamnet.errors import BasisError, PhysicsError
from hamnet.nn.block_head import OnSiteReadout, PairReadout
from hamnet.nn.features import GRADES, EquivariantLinear, FeatureGate, FeatureLayout
from hamnet.nn.frames import EdgeFrames
from hamnet.nn.graph import GraphBatch, PairGroup
from hamnet.nn.interaction import Interaction
from hamnet.nn.moments import MomentEmbedding, odd_channels
from hamnet.nn.pair_features import PairFeatures
from hamnet.nn.spin_space import head_layout, uncoupled_channels
from hamnet.nn.statistics import Statistics

DEFAULT_LMAX = 4
"""Degree of the node features: a pair of second neighbours must see which atom stands between its two."""
UNNATURAL_PART = 4
"""A quarter as many unnatural channels as natural ones: blocks have few unnatural irreps, but they have some."""


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

    One pair of each reverse couple is computed and the other is its hermitian partner, bitwise; between equal species
    the head keeps the symmetry of exchange, so that it does not matter which of both is computed.

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
        self.magnetic = statistics.magnetic
        self.head_spin = head_layout(spin, statistics.spin_orbit)
        channels, own = (spin_channels(layout, self.magnetic) for layout in (spin, self.head_spin))
        self.n_channels = len(channels)
        self.transposition_signs, self.head_signs = (
            torch.tensor([c.transposition for c in group], dtype=torch.float64) for group in (channels, own)
        )
        self.uncoupled = None if self.head_spin is spin else torch.tensor(uncoupled_channels(self.magnetic))
        self.pair_cutoffs = torch.from_numpy(statistics.pair_cutoffs)
        # coupling tensors are built in float64: cast later, they are exact to the network's precision
        with _default_dtype(torch.float64):
            self._build(settings, basis, statistics)
        self.to(dtype)

    def _build(self, settings: NetworkConfig, basis: OrbitalBasis, statistics: Statistics) -> None:
        species = basis.species
        changes = {
            (a, b): block_irreps(species[a], species[b], self.head_spin, self.magnetic) for a, b, _ in statistics.groups
        }
        block_lmax = max(term.l for change in changes.values() for term in change.terms)
        lmax = max(DEFAULT_LMAX, block_lmax) if settings.lmax is None else settings.lmax
        n_species = len(basis.species)
        self.embedding = torch.nn.Linear(n_species, settings.channels, bias=False)
        node = FeatureLayout(0, settings.channels)
        unnatural = max(4, settings.channels // UNNATURAL_PART)
        hidden = FeatureLayout(lmax, settings.channels, unnatural)
        if self.magnetic:
            self.moments = MomentEmbedding(n_species, settings.channels, self.spin, statistics.spin_orbit)
            node = self.moments.layout
            odd = odd_channels(settings.channels), odd_channels(unnatural)
            hidden = FeatureLayout(lmax, settings.channels, unnatural, *odd, axes=node.axes)
        self.axes = hidden.axes
        layers: list[Interaction] = []
        for _ in range(settings.layers):
            layers.append(
                Interaction(
                    node,
                    hidden,
                    n_species,
                    settings.radial_functions,
                    settings.radial_hidden,
                    statistics.average_neighbours,
                    settings.body_order,
                    settings.kernel,
                    scalars=not layers,
                )
            )
            node = hidden
        self.interactions = torch.nn.ModuleList(layers)
        self.pair_features = PairFeatures(hidden, settings.radial_functions, settings.radial_hidden)
        self.on_site_features = torch.nn.Sequential(EquivariantLinear(hidden, hidden), FeatureGate(hidden))
        self.readouts = torch.nn.ModuleDict(self._make_readouts(changes, statistics, hidden))

    def _make_readouts(
        self, changes: dict[tuple[int, int], BlockIrreps], statistics: Statistics, layout: FeatureLayout
    ) -> dict[str, torch.nn.Module]:
        """A head for every pair of species of the training set, a <= b: the others are reverse ones."""
        result: dict[str, torch.nn.Module] = {}
        signs = self.head_signs.numpy()
        for (a, b, on_site), group in sorted(statistics.groups.items()):
            if on_site:
                result[_name(a, b, on_site)] = OnSiteReadout(layout, changes[a, b], group)
            elif a <= b:
                exchange = signs if a == b else None
                result[_name(a, b, on_site)] = PairReadout(
                    self.pair_features.hidden, changes[a, b], group, exchange, self.axes
                )
        return result

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
        values = self._values(batch, nodes).index_select(0, batch.computed)
        signs = self.transposition_signs.to(values.device)
        return values if bool((signs > 0).all()) else torch.where(batch.reversed[:, None], values * signs, values)

    def _values(self, batch: GraphBatch, nodes: torch.Tensor) -> torch.Tensor:
        """Blocks of one pair of each reverse couple, group after group; heads compute in the network's own type."""
        on_site = self.on_site_features(nodes).to(self.dtype)
        hops = [(k, group) for k, group in enumerate(batch.groups) if not group.on_site]
        parts: dict[int, torch.Tensor] = {}
        with torch.autocast(nodes.device.type, enabled=False):
            for k, group in enumerate(batch.groups):
                if group.on_site:
                    blocks = self._readout(group)(on_site.index_select(0, batch.pair_i[group.pairs]))
                    parts[k] = self._symmetrised(
                        self._all_channels(blocks), int(self.basis.n_orbitals[group.species_i])
                    )
        if hops:
            parts |= self._hops(batch, nodes, hops)
        return torch.cat([parts[k].reshape(-1, self.n_channels) for k in range(len(batch.groups))])

    def _hops(
        self, batch: GraphBatch, nodes: torch.Tensor, hops: list[tuple[int, PairGroup]]
    ) -> dict[int, torch.Tensor]:
        """Off-site blocks by number of the group; pairs beyond the cutoff are zero and cost nothing."""
        vectors = [batch.pair_vector[group.pairs] for _, group in hops]
        scaled = [
            v.norm(dim=-1) / self.pair_cutoffs[g.species_i, g.species_j]
            for v, (_, g) in zip(vectors, hops, strict=True)
        ]
        near = [torch.nonzero(x < 1).squeeze(1) for x in scaled]
        sizes = [len(kept) for kept in near]
        pairs = torch.cat([group.pairs[kept] for (_, group), kept in zip(hops, near, strict=True)])
        vector = batch.pair_vector[pairs]
        frames, lengths = EdgeFrames(vector, self.dtype), vector.norm(dim=-1).to(self.dtype)
        within = torch.cat([x[kept] for x, kept in zip(scaled, near, strict=True)]).to(self.dtype)
        features = self.pair_features(nodes, batch.pair_i[pairs], batch.pair_j[pairs], frames, within)
        widths = {grade: [n * (self.axes if grade == -1 else 1) for n in sizes] for grade in GRADES}
        own = {sector: f.to(self.dtype).split(widths[sector[0]]) for sector, f in features.items()}
        parts = {}
        with torch.autocast(nodes.device.type, enabled=False):
            for n, ((k, group), length) in enumerate(zip(hops, torch.split(lengths, sizes), strict=True)):
                readout = self._readout(group)
                matrix = torch.split(frames.matrix(readout.lmax), sizes)[n]
                blocks = self._all_channels(readout({sector: f[n] for sector, f in own.items()}, matrix, length))
                if sizes[n] < len(group.pairs):
                    blocks = blocks.new_zeros((len(group.pairs), blocks.shape[1])).index_copy(0, near[n], blocks)
                parts[k] = blocks
        return parts

    def _all_channels(self, blocks: torch.Tensor) -> torch.Tensor:
        """(n * axes, n_i * n_j * head channels) -> (n, n_i * n_j * n_channels).

        Heads without spin-orbit coupling give A_0 and one A_a for each axis; what only coupling makes is zero.
        """
        if self.uncoupled is None:
            return blocks
        n, size, own = len(blocks) // self.axes, blocks.shape[1] // len(self.head_signs), len(self.head_signs)
        parts = blocks.reshape(n, self.axes, size, own)
        # heads of one channel, A_0 alone, have one axis, too
        known = parts[:, 0, :, :1] if own == 1 else torch.cat((parts[:, 0, :, :1], parts[..., 1].mT), dim=-1)
        whole = known.new_zeros((n, size, self.n_channels))
        return whole.index_copy(2, self.uncoupled.to(whole.device), known).flatten(1)

    def _symmetrised(self, blocks: torch.Tensor, n: int) -> torch.Tensor:
        """On-site blocks are their own partners: (B + s B^T) / 2."""
        blocks = blocks.reshape(-1, n, n, self.n_channels)
        return (blocks + blocks.transpose(1, 2) * self.transposition_signs.to(blocks.device)) / 2

    def _readout(self, group: PairGroup) -> Any:
        """The head of a group.

        Raises:
            BasisError: the training set had no such pair of species.
        """
        name = _name(group.species_i, group.species_j, group.on_site)
        if name not in self.readouts:
            labels = " and ".join(self.basis.species[k].label for k in (group.species_i, group.species_j))
            raise BasisError(f"the model has seen no {'on-site' if group.on_site else 'off-site'} pair of {labels}")
        return self.readouts[name]

    def _node_features(self, batch: GraphBatch, onehot: torch.Tensor) -> torch.Tensor:
        scalars: torch.Tensor = self.embedding(onehot)
        nodes = self.moments(scalars, batch.species, batch.moments) if self.magnetic else scalars.unsqueeze(1)
        distance = batch.edge_vector.norm(dim=-1)
        scaled = (distance / self.statistics.message_cutoff).to(self.dtype)
        frames = EdgeFrames(batch.edge_vector, self.dtype)
        for layer in self.interactions:
            nodes = layer(nodes, onehot, batch.edge_source, batch.edge_target, frames, scaled)
        return nodes


_twins: WeakKeyDictionary[HamiltonianModel, HamiltonianModel] = WeakKeyDictionary()


def spinor_twin(model: HamiltonianModel) -> HamiltonianModel:
    """A collinear model as one of spinors without spin-orbit coupling: the very same weights, made once.

    For moments along z its blocks are the collinear ones, [[up, 0], [0, down]]; moments may have any direction.

    Raises:
        PhysicsError: the model is of another layout.
    """
    if model.spin is not Spin.COLLINEAR:
        raise PhysicsError(f"only a model of collinear data gives spinors, too; this one has spin {model.spin.value}")
    device, twin = next(model.parameters()).device, _twins.get(model)
    if twin is None or next(twin.parameters()).device != device:
        statistics = replace(model.statistics, spin_orbit=False)
        twin = HamiltonianModel(model.settings, model.basis, Spin.SPINOR, statistics, model.dtype).to(device)
        twin.load_state_dict(model.state_dict(), assign=True)
        _twins[model] = twin
    return twin.train(model.training)


def _name(species_i: int, species_j: int, on_site: bool) -> str:
    return f"{species_i}_{species_j}_{'on' if on_site else 'off'}"
