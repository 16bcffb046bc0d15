"""Fine-tuning: what of a trained model serves as the start of another.

Where the new data have no species and no couple of species that the trained model does not know, its orbitals, scales
and baseline are kept, so that training starts from its very predictions. Else all these are fitted anew, and weights
are taken over by name: those of a species or a couple of species by label (a species with other orbitals, but of an
element that the model knows, starts from that element), the others where the shapes agree.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from hamnet.core.basis import OrbitalBasis
from hamnet.nn.model import HamiltonianModel

SPECIES_COLUMNS = {
    r"embedding\.weight": 1,
    r"interactions\.\d+\.species\.weight": 1,
    r"interactions\.\d+\.radial\.layers\.0\.weight": 2,
}
"""Weights whose last columns belong to species: how many such runs of n_species columns each has."""
COUPLE = re.compile(r"readouts\.(\d+)_(\d+)_(on|off)\.")
"""Weights of a couple of species."""


@dataclass(frozen=True)
class TakeOver:
    """What was taken from another model.

    Args:
        taken, partly, anew: names of weights: all numbers, some of them, none.
        numbers: how many numbers were taken.
        total: how many numbers learn.
    """

    taken: tuple[str, ...]
    partly: tuple[str, ...]
    anew: tuple[str, ...]
    numbers: int
    total: int

    def lines(self) -> list[str]:
        """Lines for a person."""
        result = [f"taken over: {self.numbers} of {self.total} parameters"]
        for what, names in (("in part", self.partly), ("anew", self.anew)):
            if names:
                some = ", ".join(names[:6]) + (f", and {len(names) - 6} more" if len(names) > 6 else "")
                result.append(f"  {what}: {some}")
        return result


def covers(known: OrbitalBasis, asked: OrbitalBasis) -> bool:
    """Whether every species of one basis stands in the other with the same orbitals."""
    return all(species in known.species for species in asked.species)


def take_over(model: HamiltonianModel, source: HamiltonianModel) -> TakeOver:
    """Copy what fits of the trained weights of `source` into `model`.

    Args:
        model: the new network; changed in place.
        source: the trained one.
    """
    theirs: Mapping[str, Tensor] = dict(source.named_parameters())
    table = _species_table(model.basis, source.basis)
    taken: list[str] = []
    partly: list[str] = []
    anew: list[str] = []
    numbers = 0
    with torch.no_grad():
        for name, weight in model.named_parameters():
            old = theirs.get(_their_name(name, table))
            count = 0 if old is None else _copy(weight, old.to(weight), _columns(name), table)
            numbers += count
            (taken if count == weight.numel() else partly if count else anew).append(name)
    total = sum(weight.numel() for weight in model.parameters())
    return TakeOver(tuple(taken), tuple(partly), tuple(anew), numbers, total)


def _species_table(mine: OrbitalBasis, theirs: OrbitalBasis) -> list[int | None]:
    """Their index of each of my species: by label, else by element, else None."""
    labels = [species.label for species in theirs.species]
    elements = [species.atomic_number for species in theirs.species]
    result: list[int | None] = []
    for species in mine.species:
        if species.label in labels:
            result.append(labels.index(species.label))
        elif species.atomic_number in elements:
            result.append(elements.index(species.atomic_number))
        else:
            result.append(None)
    return result


def _their_name(name: str, table: list[int | None]) -> str:
    """Their name of one of my weights; the same, but for couples of species."""
    found = COUPLE.match(name)
    if found is None:
        return name
    a, b = (table[int(found[k])] for k in (1, 2))
    return f"readouts.{a}_{b}_{found[3]}.{name[found.end() :]}"


def _columns(name: str) -> int:
    return next((count for pattern, count in SPECIES_COLUMNS.items() if re.fullmatch(pattern, name)), 0)


def _copy(weight: Tensor, old: Tensor, runs: int, table: list[int | None]) -> int:
    """Copy what fits; returns how many numbers.

    Runs of species columns go by species; the columns before them, and weights without any, where shapes agree.
    Weights with one matrix for each degree l (three axes) may have more or fewer degrees.
    """
    if runs:
        return _copy_columns(weight, old, runs, table)
    if weight.shape == old.shape:
        weight.copy_(old)
        return weight.numel()
    if weight.ndim == 3 and old.ndim == 3 and weight.shape[1:] == old.shape[1:]:
        common = min(len(weight), len(old))
        weight[:common] = old[:common]
        return weight[:common].numel()
    return 0


def _copy_columns(weight: Tensor, old: Tensor, runs: int, table: list[int | None]) -> int:
    n_mine = len(table)
    first = weight.shape[1] - runs * n_mine
    n_theirs, rest = divmod(old.shape[1] - first, runs)
    if weight.shape[0] != old.shape[0] or rest or n_theirs < 1:
        return 0
    weight[:, :first] = old[:, :first]
    copied = first
    for run in range(runs):
        for mine, their in enumerate(table):
            if their is not None:
                weight[:, first + run * n_mine + mine] = old[:, first + run * n_theirs + their]
                copied += 1
    return copied * weight.shape[0]
