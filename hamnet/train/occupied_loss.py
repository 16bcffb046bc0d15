"""Losses of what the occupied orbitals see: the energy and the commutator of a predicted H, against a target T.

    energy      2 Tr T (P(H) - P(T)) / n_electrons >= 0: what the density of H costs in the field of T, of second order
    commutator  |T D S - S D T| / sqrt(n_electrons), D = 2 P(H): of first order in the occupied-virtual block of H - T

Both go through the projector, with its own derivative. They leave H undetermined but for its occupied subspace, so they
stand beside the loss of H, never alone. For closed-shell molecules.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hamnet.errors import PhysicsError
from hamnet.nn.dataset import Batch
from hamnet.nn.graph import GraphBatch
from hamnet.train.loss import TINY, Mean
from hamnet.train.projector import commutator, occupied_projector, orbitals


def dense_matrices(graphs: GraphBatch, sizes: Tensor, values: Tensor) -> list[Tensor]:
    """(n, n) matrix of each molecule of a batch.

    Args:
        graphs: molecules: every pair in the home cell.
        sizes: (n_species,) orbitals of each species.
        values: (n_values,) spinless numbers in the batch's flat order.
    """
    n = sizes[graphs.species]
    rows, columns = n[graphs.pair_i], n[graphs.pair_j]
    counts = rows * columns
    pair = torch.repeat_interleave(torch.arange(len(counts), device=values.device), counts)
    starts = torch.cumsum(counts, 0) - counts
    within = torch.arange(len(values), device=values.device) - starts[pair]
    of_atom = torch.zeros_like(graphs.species)
    of_atom[graphs.pair_i] = graphs.value_structure[starts]
    orbitals_of = torch.zeros(graphs.n_structures, dtype=n.dtype, device=values.device).index_add(0, of_atom, n)
    # atoms are numbered structure after structure
    first = torch.cumsum(n, 0) - n - (torch.cumsum(orbitals_of, 0) - orbitals_of)[of_atom]
    row = first[graphs.pair_i][pair] + within // columns[pair]
    column = first[graphs.pair_j][pair] + within % columns[pair]
    result = []
    for k, size in enumerate(orbitals_of.tolist()):
        mine = graphs.value_structure == k
        place = (row[mine], column[mine])
        result.append(values.new_zeros(size, size).index_put(place, values[mine]))
    return result


def occupied_losses(prediction: Tensor, batch: Batch, sizes: Tensor, mean: Mean = torch.mean) -> tuple[Tensor, Tensor]:
    """Energy (eV per electron) and root mean square commutator (eV per root of electrons), means over the structures.

    Args:
        prediction: (n_values, 1) the network's output in eV.
        batch: targets, of closed-shell molecules.
        sizes: (n_species,) orbitals of each species.
        mean: how numbers are averaged; see `hamnet.train.loss`.

    Raises:
        PhysicsError: a structure is periodic, has spin, or its number of electrons is odd or not known.
    """
    if prediction.shape[1] != 1 or min(batch.occupied, default=0) < 1:
        raise PhysicsError(
            "training.energy_weight and commutator_weight are for closed-shell molecules, and among "
            f"{', '.join(batch.names[:3])} is another structure: set both to 0"
        )
    flat = ((prediction.to(batch.target) + batch.baseline), batch.target + batch.baseline, batch.overlap)
    matrices = [dense_matrices(batch.graphs, sizes, values[:, 0]) for values in flat]
    energies, squares = [], []
    for h, t, s, occupied in zip(*matrices, batch.occupied, strict=True):
        t = (t + t.mT) / 2
        projector = occupied_projector(h, s, occupied)
        least = 2 * orbitals(t, s)[0][:occupied].sum()
        energies.append((2 * (t * projector).sum() - least) / (2 * occupied))
        root = torch.linalg.cholesky(s)
        left = torch.linalg.solve_triangular(root, commutator(t, 2 * projector, s), upper=False)
        orthonormal = torch.linalg.solve_triangular(root, left.mT, upper=False)
        squares.append(orthonormal.square().sum() / (2 * occupied))
    return mean(torch.stack(energies)), (mean(torch.stack(squares)) + TINY).sqrt()
