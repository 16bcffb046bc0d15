"""The loss: mean absolute error plus root mean square, after the meaningless part of the energy zero is taken out.

In a system that is periodic in all directions H is known only up to H + mu S, so one
mu = <dH, S> / <S, S> per structure (sums over all blocks; spinor: S x 1) is removed from dH = H_predicted - H.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from hamnet.nn.dataset import Batch

SHIFT_WEIGHT = 0.02
"""Weight of |mu|: mu itself is not learnable to better than some 10 meV, so it must not steer the rest."""
TINY = 1e-24
"""eV^2 under the root: keeps its derivative finite where the error is exactly zero."""
Mean = Callable[[Tensor], Tensor]
"""Mean over all numbers of a batch; where a batch is spread over processes, over those of all of them."""


def energy_shift(difference: Tensor, overlap: Tensor, structure: Tensor, n_structures: int) -> Tensor:
    """(n_structures,) mu = <dH, S> / <S, S> of each structure; differentiable.

    Args:
        difference: (n_values, n_channels) dH in eV, real channels.
        overlap: (n_values, n_channels) S in the same channels (spinor: in A_0 only).
        structure: (n_values,) structure of each value.
        n_structures: number of structures.
    """
    empty = difference.new_zeros(n_structures)
    numerator = empty.index_add(0, structure, (difference * overlap).sum(dim=1))
    denominator = empty.index_add(0, structure, (overlap * overlap).sum(dim=1))
    return numerator / denominator.clamp_min(TINY)


def free_zero(batch: Batch, energy_zero: str) -> Tensor:
    """(n_structures,) bool: structures whose energy zero is removed, by `training.energy_zero`."""
    if energy_zero == "auto":
        return batch.graphs.periodic
    return torch.full_like(batch.graphs.periodic, energy_zero == "remove")


def difference_and_shift(prediction: Tensor, batch: Batch, energy_zero: str) -> tuple[Tensor, Tensor]:
    """dH in float64 with mu S taken out where the zero is free, and the (n_structures,) mu taken out (0 where kept).

    Args:
        prediction: (n_values, n_channels) H in eV.
        batch: targets.
        energy_zero: auto, keep or remove.
    """
    difference = prediction.to(batch.target.dtype) - batch.target
    free = free_zero(batch, energy_zero)
    if not bool(free.any()):
        return difference, difference.new_zeros(len(free))
    structure = batch.graphs.value_structure
    shift = energy_shift(difference, batch.overlap, structure, len(free)) * free
    return difference - shift[structure, None] * batch.overlap, shift


def hamiltonian_loss(difference: Tensor, shift: Tensor, mean: Mean = torch.mean) -> Tensor:
    """mean |dH| + sqrt(mean dH^2) + w mean |mu| in eV.

    The first counts every number alike, the second the large ones. The third, of small weight, keeps predictions on
    the energy zero of the training files: without it the zero of a periodic system would drift by electronvolts.

    Args:
        difference: (n_values, n_channels) dH.
        shift: (n_structures,) mu.
        mean: how numbers are averaged; every mean of the loss goes through it, so that several processes see one loss.
    """
    root = (mean(difference.square()) + TINY).sqrt()
    return mean(difference.abs()) + root + SHIFT_WEIGHT * mean(shift.abs())


def kspace_loss(difference: Tensor, batch: Batch, mean: Mean = torch.mean) -> Tensor:
    """sqrt(mean over structures and k-points of |M|^2), eV: the error of H among states near the Fermi level.

    See `hamnet.nn.kspace`; structures without states count as zero. Where the energy zero is free, dH = mu S costs
    nothing, because mu S is no longer in the difference.

    Args:
        difference: (n_values, n_channels) dH in eV.
        batch: with states.
        mean: as for `hamiltonian_loss`.
    """
    parts = batch.graphs.unflatten(difference)
    none = difference.new_zeros(1)  # every process must come to the mean
    squares = [none if s is None else s.squares(part) for s, part in zip(batch.states, parts, strict=True)]
    root: Tensor = (mean(torch.cat(squares)) + TINY).sqrt()
    return root
