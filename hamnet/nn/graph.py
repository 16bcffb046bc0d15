"""Graph and GraphBatch: what the network sees of structures; made on the fly, never stored.

A batch is one large disconnected structure: atoms are numbered on, pairs are sorted by species again,
so that every batched operation runs over dense groups.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from hamnet.core.basis import OrbitalBasis
from hamnet.core.pairs import PairList, neighbour_pairs
from hamnet.core.structure import AtomicStructure
from hamnet.errors import PhysicsError

IntArray = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Graph:
    """One structure as arrays for the network.

    Args:
        species: (n_atoms,) species index.
        pair_i, pair_j, pair_reverse: (n_pairs,) the blocks to predict, in the pair list's order.
        pair_vector: (n_pairs, 3) Angstrom.
        on_site: (n_pairs,) bool.
        edge_source, edge_target: (n_edges,) messages run source -> target, sorted by target.
        edge_vector: (n_edges, 3) r_source + R - r_target, Angstrom.
        n_orbitals: (n_species,) of the basis.
        periodic: every direction is periodic, so that the energy zero is free.
        moments: (n_atoms, 3) Bohr magnetons, zero where there are none.
    """

    species: IntArray
    pair_i: IntArray
    pair_j: IntArray
    pair_reverse: IntArray
    pair_vector: NDArray[np.float64]
    on_site: NDArray[np.bool_]
    edge_source: IntArray
    edge_target: IntArray
    edge_vector: NDArray[np.float64]
    n_orbitals: IntArray
    periodic: bool
    moments: NDArray[np.float64]

    @property
    def n_pairs(self) -> int:
        """Number of directed pairs."""
        return len(self.pair_i)

    @cached_property
    def block_sizes(self) -> IntArray:
        """(n_pairs,) numbers in each spinless block."""
        return self.n_orbitals[self.species[self.pair_i]] * self.n_orbitals[self.species[self.pair_j]]


def build_graph(structure: AtomicStructure, pairs: PairList, basis: OrbitalBasis, message_cutoff: float) -> Graph:
    """Graph of a structure: the given pairs to predict, messages within `message_cutoff` (Angstrom).

    Raises:
        PhysicsError: two atoms are on one place.
    """
    neighbours = neighbour_pairs(structure, message_cutoff)
    keep = ~neighbours.on_site
    order = np.argsort(neighbours.i[keep], kind="stable")
    return Graph(
        species=structure.species,
        pair_i=pairs.i,
        pair_j=pairs.j,
        pair_reverse=pairs.reverse,
        pair_vector=pairs.vectors(structure),
        on_site=pairs.on_site,
        edge_source=neighbours.j[keep][order],
        edge_target=neighbours.i[keep][order],
        edge_vector=neighbours.vectors(structure)[keep][order],
        n_orbitals=basis.n_orbitals,
        periodic=bool(structure.pbc.all()),
        moments=np.zeros_like(structure.positions) if structure.moments is None else structure.moments,
    )


@dataclass(frozen=True, eq=False)
class PairGroup:
    """Pairs of one pair of species whose blocks are computed, on-site or off-site; reverse pairs follow from them.

    Args:
        species_i, species_j: indices into the basis, species_i <= species_j.
        pairs: (n,) indices into the batch's pairs.
        on_site: whether these are on-site blocks.
    """

    species_i: int
    species_j: int
    pairs: torch.Tensor
    on_site: bool


@dataclass(frozen=True, eq=False)
class GraphBatch:
    """Several graphs as one, as torch tensors.

    Args:
        species, moments, pair_i, pair_j, pair_vector, edge_source, edge_target, edge_vector: as in `Graph`.
        groups: one pair of each reverse couple, by species and on-site or off-site.
        computed: (n_values,) where each flat value stands in the concatenated blocks of `groups`, its own or, for a
            reverse pair, that of the transposed element.
        reversed: (n_values,) bool, the value belongs to a reverse pair.
        value_structure: (n_values,) structure of each flat value.
        value_on_site: (n_values,) bool.
        from_parts: (n_values,) puts the concatenated flat values of the structures into the batch's flat order.
        periodic: (n_structures,) bool.
    """

    species: torch.Tensor
    moments: torch.Tensor
    pair_i: torch.Tensor
    pair_j: torch.Tensor
    pair_vector: torch.Tensor
    edge_source: torch.Tensor
    edge_target: torch.Tensor
    edge_vector: torch.Tensor
    groups: tuple[PairGroup, ...]
    computed: torch.Tensor
    reversed: torch.Tensor
    value_structure: torch.Tensor
    value_on_site: torch.Tensor
    from_parts: torch.Tensor
    periodic: torch.Tensor

    @property
    def n_structures(self) -> int:
        """Number of structures."""
        return len(self.periodic)

    @property
    def n_atoms(self) -> int:
        """Number of atoms of all structures."""
        return len(self.species)

    @property
    def n_pairs(self) -> int:
        """Number of directed pairs of all structures."""
        return len(self.pair_i)

    def to(self, device: torch.device | str) -> GraphBatch:
        """The same batch on another device."""
        moved = {f.name: getattr(self, f.name).to(device) for f in fields(self) if f.name != "groups"}
        groups = tuple(replace(group, pairs=group.pairs.to(device)) for group in self.groups)
        return GraphBatch(groups=groups, **moved)

    def flatten(self, parts: list[torch.Tensor]) -> torch.Tensor:
        """(n_k, ...) spinless flat values of each structure -> (n_values, ...) in the batch's order."""
        return torch.cat(parts)[self.from_parts]

    def unflatten(self, values: torch.Tensor) -> list[torch.Tensor]:
        """Inverse of `flatten`."""
        together = torch.empty_like(values)
        together[self.from_parts] = values
        counts = torch.bincount(self.value_structure, minlength=self.n_structures).tolist()
        return list(torch.split(together, counts))


def collate(graphs: list[Graph]) -> GraphBatch:
    """Merge graphs of the same basis into a batch.

    Raises:
        PhysicsError: the graphs belong to bases of different size.
    """
    if any(not np.array_equal(g.n_orbitals, graphs[0].n_orbitals) for g in graphs):
        raise PhysicsError("graphs of different bases cannot share a batch")
    n_species = len(graphs[0].n_orbitals)
    species = np.concatenate([g.species for g in graphs])
    first_atom = np.cumsum([0] + [len(g.species) for g in graphs])
    first_pair = np.cumsum([0] + [g.n_pairs for g in graphs])

    def joined(name: str, starts: IntArray | None = None) -> NDArray[np.generic]:
        """One array of all graphs, indices moved by `starts`."""
        arrays = [getattr(g, name) for g in graphs]
        if starts is not None:
            arrays = [array + start for array, start in zip(arrays, starts, strict=False)]
        return np.concatenate(arrays)

    pair_i, pair_j = joined("pair_i", first_atom), joined("pair_j", first_atom)
    order = np.argsort(species[pair_i] * n_species + species[pair_j], kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    pair_i, pair_j = pair_i[order], pair_j[order]
    on_site = joined("on_site")[order]
    sizes = joined("block_sizes")[order].astype(np.int64)
    offsets = np.concatenate(([0], np.cumsum(sizes)))
    reverse = rank[joined("pair_reverse", first_pair)[order].astype(np.int64)]
    pair_structure = np.repeat(np.arange(len(graphs)), [g.n_pairs for g in graphs])[order]
    groups = _groups(species[pair_i] * n_species + species[pair_j], on_site.astype(bool), reverse, n_species)
    computed, is_reversed = _sources(groups, graphs[0].n_orbitals, offsets, reverse)
    return GraphBatch(
        species=torch.from_numpy(species),
        moments=torch.from_numpy(joined("moments")),
        pair_i=torch.from_numpy(pair_i),
        pair_j=torch.from_numpy(pair_j),
        pair_vector=torch.from_numpy(joined("pair_vector")[order]),
        edge_source=torch.from_numpy(joined("edge_source", first_atom)),
        edge_target=torch.from_numpy(joined("edge_target", first_atom)),
        edge_vector=torch.from_numpy(joined("edge_vector")),
        groups=groups,
        computed=torch.from_numpy(computed),
        reversed=torch.from_numpy(is_reversed),
        value_structure=torch.from_numpy(np.repeat(pair_structure, sizes)),
        value_on_site=torch.from_numpy(np.repeat(on_site, sizes)),
        from_parts=torch.from_numpy(_part_order(order, sizes)),
        periodic=torch.tensor([g.periodic for g in graphs]),
    )


def _groups(code: IntArray, on_site: NDArray[np.bool_], reverse: IntArray, n_species: int) -> tuple[PairGroup, ...]:
    groups = []
    index = np.arange(len(code))
    for value in np.unique(code).tolist():
        if value // n_species > value % n_species:
            continue
        for wanted in (True, False):
            chosen = (code == value) & (on_site == wanted)
            if not wanted and value // n_species == value % n_species:
                chosen &= index < reverse
            pairs = np.flatnonzero(chosen)
            if pairs.size:
                groups.append(PairGroup(value // n_species, value % n_species, torch.from_numpy(pairs), wanted))
    return tuple(groups)


def _values_of(pair_lists: list[IntArray], sizes: IntArray, offsets: IntArray) -> IntArray:
    """Flat indices of the blocks of the given pairs, one list after another."""
    pairs = np.concatenate(pair_lists)
    count = sizes[pairs]
    starts = np.cumsum(count) - count
    within = np.arange(int(count.sum())) - np.repeat(starts, count)
    return np.repeat(offsets[pairs], count) + within


def _part_order(order: IntArray, sizes: IntArray) -> IntArray:
    """Index into the concatenated flat values of the structures for each flat value of the batch."""
    given_sizes = np.empty_like(sizes)
    given_sizes[order] = sizes
    given_offsets = np.concatenate(([0], np.cumsum(given_sizes)))
    return _values_of([order], given_sizes, given_offsets)


def _sources(
    groups: tuple[PairGroup, ...], shapes: IntArray, offsets: IntArray, reverse: IntArray
) -> tuple[IntArray, NDArray[np.bool_]]:
    """`GraphBatch.computed` and `GraphBatch.reversed`."""
    computed = np.empty(int(offsets[-1]), dtype=np.int64)
    is_reversed = np.zeros(len(computed), dtype=bool)
    start = 0
    for group in groups:
        n_i, n_j = int(shapes[group.species_i]), int(shapes[group.species_j])
        pairs = group.pairs.numpy()
        source = start + np.arange(len(pairs) * n_i * n_j).reshape(len(pairs), n_i * n_j)
        computed[offsets[pairs][:, None] + np.arange(n_i * n_j)] = source
        if not group.on_site:
            mirrored = offsets[reverse[pairs]][:, None] + np.arange(n_i * n_j).reshape(n_j, n_i).T.ravel()
            computed[mirrored], is_reversed[mirrored] = source, True
        start += source.size
    return computed, is_reversed
