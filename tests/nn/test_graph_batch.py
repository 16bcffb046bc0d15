"""Graphs and batches: orders, round trips, and that a batch says what each structure alone says."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from model_cases import MESSAGE_CUTOFF, basis_of, crystal, model_of, predict_all, random_calculation

from hamnet.core.basis import OrbitalBasis
from hamnet.core.pairs import neighbour_pairs, orbital_pairs
from hamnet.core.spin import Spin
from hamnet.core.structure import AtomicStructure
from hamnet.data.irrep_blocks import spin_channels, values_to_channels
from hamnet.errors import BasisError, PhysicsError
from hamnet.nn.graph import Graph, GraphBatch, build_graph, collate

BASIS = basis_of(Spin.NONE)


def graph_of(structure: AtomicStructure) -> Graph:
    return build_graph(structure, orbital_pairs(structure, BASIS), BASIS, MESSAGE_CUTOFF)


def free(seed: int, n_atoms: int) -> AtomicStructure:
    structure = crystal(seed, n_atoms)
    return AtomicStructure(structure.atomic_numbers, structure.species, structure.positions)


def test_edges_are_all_within_reach_and_sorted_by_target() -> None:
    structure = crystal(3)
    graph = graph_of(structure)
    length = np.linalg.norm(graph.edge_vector, axis=1)
    assert (np.diff(graph.edge_target) >= 0).all()
    assert (length < MESSAGE_CUTOFF).all()
    assert (length > 0.1).all()
    neighbours = neighbour_pairs(structure, MESSAGE_CUTOFF)
    assert len(length) == int((~neighbours.on_site).sum())
    # the vector points from target to source: a translation of it by a lattice vector remains
    x = structure.positions
    cells = (graph.edge_vector - x[graph.edge_source] + x[graph.edge_target]) @ np.linalg.inv(structure.lattice)
    np.testing.assert_allclose(cells, np.round(cells), atol=1e-12)
    assert graph.periodic
    assert not graph_of(free(0, 3)).periodic


@settings(max_examples=8, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 99), st.integers(1, 4), st.booleans()), min_size=1, max_size=4))
def test_flatten_and_unflatten_are_inverse(cases: list[tuple[int, int, bool]]) -> None:
    """Parts -> batch -> parts, bitwise, and every number stands at its own structure."""
    graphs = [graph_of(crystal(seed, n) if periodic else free(seed, n)) for seed, n, periodic in cases]
    batch = collate(graphs)
    sizes = [int(g.block_sizes.sum()) for g in graphs]
    starts = np.cumsum([0, *sizes])
    parts = [torch.arange(a, b, dtype=torch.float64) for a, b in zip(starts, starts[1:], strict=False)]
    flat = batch.flatten(parts)
    assert sorted(flat.tolist()) == list(range(int(starts[-1])))
    back = batch.unflatten(flat)
    assert all(torch.equal(a, b) for a, b in zip(back, parts, strict=True))
    owner = batch.flatten([torch.full((size,), k) for k, size in enumerate(sizes)])
    assert torch.equal(owner, batch.value_structure)
    assert batch.n_structures == len(graphs)
    assert batch.n_atoms == sum(n for _, n, _ in cases)
    assert batch.periodic.tolist() == [periodic for _, _, periodic in cases]


@pytest.mark.parametrize("spin", list(Spin))
def test_reverse_pairs_follow_from_the_computed_ones(spin: Spin) -> None:
    """A hermitian matrix is found again, bitwise, from one block of each reverse couple, in a batch of two."""
    calculations = [random_calculation(seed, spin) for seed in (0, 1)]
    basis = basis_of(spin)
    parts, graphs = [], []
    for c in calculations:
        h = c.hamiltonian
        assert h is not None
        n = basis.n_orbitals
        shapes = [(len(g.blocks), int(n[g.species_i]), int(n[g.species_j])) for g in h.groups()]
        parts.append(torch.from_numpy(values_to_channels(h.values, spin, shapes)))
        graphs.append(build_graph(c.structure, h.pairs, basis, MESSAGE_CUTOFF))
    batch = collate(graphs)
    values = batch.flatten(parts)
    signs = torch.tensor([c.transposition for c in spin_channels(spin)], dtype=torch.float64)
    computed = torch.cat([values[torch.from_numpy(flat_of(batch, basis, g.pairs.numpy()))] for g in batch.groups])
    found = computed[batch.computed]
    assert torch.equal(torch.where(batch.reversed[:, None], found * signs, found), values)
    # half of the off-site values follow from the others, no on-site one does
    assert not (batch.reversed & batch.value_on_site).any()
    assert 2 * int(batch.reversed.sum()) == int((~batch.value_on_site).sum())


def flat_of(batch: GraphBatch, basis: OrbitalBasis, pairs: np.ndarray) -> np.ndarray:
    """Flat indices of the blocks of some pairs, one block after another."""
    n = basis.n_orbitals[batch.species.numpy()]
    sizes = n[batch.pair_i.numpy()] * n[batch.pair_j.numpy()]
    starts = np.cumsum(sizes) - sizes
    return np.concatenate([starts[p] + np.arange(sizes[p]) for p in pairs])


@pytest.mark.parametrize("spin", list(Spin))
def test_a_batch_says_what_each_structure_alone_says(spin: Spin) -> None:
    """Two crystals and a molecule of other sizes, in both orders, against one at a time."""
    model = model_of(spin, 2 if spin is Spin.NONE else 1)
    structures = [crystal(1), free(2, 3), crystal(4, 2)]
    alone = [predict_all(model, [s])[0] for s in structures]
    for order in ([0, 1, 2], [2, 1, 0]):
        for k, found in zip(order, predict_all(model, [structures[k] for k in order]), strict=True):
            # matrix products of another height may add in another order
            np.testing.assert_allclose(found.values, alone[k].values, rtol=0, atol=1e-12)
            assert found.hermitian_residual()[0] == 0


def test_a_batch_refuses_other_bases() -> None:
    other = OrbitalBasis(BASIS.species[:1])
    lone = AtomicStructure([14], [0], np.zeros((1, 3)))
    graph = build_graph(lone, orbital_pairs(lone, other), other, MESSAGE_CUTOFF)
    with pytest.raises(PhysicsError, match="bases"):
        collate([graph_of(crystal(0)), graph])


def test_unseen_pair_of_species_is_refused_by_name() -> None:
    """A model whose training set had no pair of A with B says so; it does not answer zero."""
    model = model_of(Spin.NONE)
    kept = model.readouts
    try:
        model.readouts = torch.nn.ModuleDict({k: v for k, v in kept.items() if k != "0_1_off"})
        with pytest.raises(BasisError, match="off-site pair of A and B"):
            predict_all(model, [crystal(0)])
    finally:
        model.readouts = kept


def test_gradient_stops_at_the_receptive_field() -> None:
    """The Jacobian of near blocks with respect to far vectors is exactly zero, and not so to near ones."""
    model = model_of(Spin.NONE, 2)
    near, far = free(0, 3), free(1, 3)
    x = np.concatenate((near.positions, far.positions + [20.0, 0, 0]))
    both = AtomicStructure(np.tile(near.atomic_numbers, 2), np.tile(near.species, 2), x)
    batch = collate([graph_of(both)])
    batch.edge_vector.requires_grad_()
    block = (batch.pair_i < 3).repeat_interleave(torch.from_numpy(graph_of(both).block_sizes))
    (gradient,) = torch.autograd.grad(model(batch)[block].square().sum(), batch.edge_vector)
    inside = batch.edge_target < 3
    assert not gradient[~inside].any()
    assert bool(gradient[inside].any(dim=1).all())
