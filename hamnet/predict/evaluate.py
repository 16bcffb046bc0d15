"""One structure through the network: the only place of `predict` that runs torch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from hamnet.core.blocks import BlockMatrix, species_groups
from hamnet.core.pairs import PairList
from hamnet.core.spin import Spin
from hamnet.core.structure import AtomicStructure
from hamnet.data.irrep_blocks import channels_to_values
from hamnet.errors import PhysicsError
from hamnet.nn.graph import Graph, build_graph, collate
from hamnet.nn.model import HamiltonianModel, spinor_twin
from hamnet.nn.moments import check_axis, is_tilted
from hamnet.nn.spin_space import in_layout


def evaluate(
    model: HamiltonianModel,
    structure: AtomicStructure,
    pairs: PairList,
    device: torch.device,
    baseline: BlockMatrix | None = None,
    receivers: NDArray[np.bool_] | None = None,
) -> BlockMatrix:
    """H of a structure on the given pairs: eV, float64 or complex128, hermitian to the last bit.

    A collinear model gives spinors where a moment is tilted against z.

    Args:
        model: the network.
        structure: with species counted as the model does.
        pairs: blocks wanted.
        device: where the network runs.
        baseline: what is added to the network's output, on the same pairs; None: nothing.
        receivers: (n_atoms,) atoms that the messages must reach; None: all.

    Raises:
        PhysicsError: the network gave a number that is not finite, or one tile of a structure that a collinear model
            predicts has moments across z.
    """
    if model.magnetic and model.spin is Spin.COLLINEAR and is_tilted(structure) and receivers is None:
        model, baseline = spinor_twin(model), None if baseline is None else in_layout(baseline, Spin.SPINOR)
    basis, spin = model.basis, model.spin
    if model.magnetic:
        check_axis(structure, spin)
    graph = build_graph(structure, pairs, basis, model.statistics.message_cutoff)
    if receivers is not None:
        graph = _received(graph, receivers)
    batch = collate([graph]).to(device)
    with torch.no_grad():
        (channels,) = batch.unflatten(model(batch))
    n = basis.n_orbitals
    runs = species_groups(pairs, structure.species, len(n))
    shapes = [(part.stop - part.start, int(n[a]), int(n[b])) for a, b, part in runs]
    real = channels.detach().cpu().numpy().astype(np.float64)
    if not np.isfinite(real).all():
        raise PhysicsError("the network predicts numbers that are not finite: the checkpoint is damaged or diverged")
    matrix = BlockMatrix.from_values(pairs, basis, structure.species, spin, channels_to_values(real, spin, shapes))
    if baseline is not None:
        matrix = matrix.with_values(matrix.values + baseline.values)
    return matrix if matrix.hermitian_residual()[0] == 0.0 else matrix.symmetrised()


def _received(graph: Graph, receivers: NDArray[np.bool_]) -> Graph:
    """The graph without messages to other atoms."""
    keep = receivers[graph.edge_target]
    changes = {name: getattr(graph, name)[keep] for name in ("edge_source", "edge_target", "edge_vector")}
    return replace(graph, **changes)
