"""One structure through the network: the only place of `predict` that runs torch."""

from __future__ import annotations

import numpy as np
import torch

from hamnet.core.blocks import BlockMatrix, species_groups
from hamnet.core.pairs import PairList
from hamnet.core.structure import AtomicStructure
from hamnet.data.irrep_blocks import channels_to_values
from hamnet.errors import PhysicsError
from hamnet.nn.graph import build_graph, collate
from hamnet.nn.model import HamiltonianModel


def evaluate(
    model: HamiltonianModel,
    structure: AtomicStructure,
    pairs: PairList,
    device: torch.device,
    baseline: BlockMatrix | None = None,
) -> BlockMatrix:
    """H of a structure on the given pairs: eV, float64 or complex128, hermitian to the last bit.

    Args:
        model: the network.
        structure: with species counted as the model does.
        pairs: blocks wanted.
        device: where the network runs.
        baseline: what is added to the network's output, on the same pairs; None: nothing.

    Raises:
        PhysicsError: the network gave a number that is not finite.
    """
    basis, spin = model.basis, model.spin
    batch = collate([build_graph(structure, pairs, basis, model.statistics.message_cutoff)]).to(device)
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
