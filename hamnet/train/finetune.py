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
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hamnet.core.basis import OrbitalBasis
from hamnet.data.irrep_blocks import BlockIrreps, IrrepTerm, block_irreps
from hamnet.nn.block_head import is_natural, ordered_terms
from hamnet.nn.model import HamiltonianModel

SPECIES_COLUMNS = {
    r"embedding\.weight": 1,
    r"interactions\.\d+\.radial\.layers\.0\.weight": 2,
}
"""Weights whose last columns belong to species: how many such runs of n_species columns each has."""
OFF_SITE = re.compile(r"readouts\.(\d+)_(\d+)_off\.linear\.(\d+)\.weights\.(\d+)")
"""Weights of a couple of species on two atoms: species, number of the grade, number of the matrix."""
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
            old = _exchanged(name, model, source, table) if old is None else old
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


def _exchanged(name: str, model: HamiltonianModel, source: HamiltonianModel, table: list[int | None]) -> Tensor | None:
    """Their weight of a couple of species that they hold in the other order; None where there is none.

    H_ji is the hermitian partner of H_ij, so a model has a readout for one order alone. Exchange of the atoms followed
    by inversion keeps the pair vector, and what is even; it changes the sign of what is odd, and takes each term of
    the block to its partner in the transposed one.
    """
    found = OFF_SITE.fullmatch(name)
    if found is None:
        return None
    i, j, grade, place = (int(found[k]) for k in range(1, 5))
    a, b = table[i], table[j]
    if a is None or b is None or f"{b}_{a}_off" not in source.readouts:
        return None
    mine, theirs = (model.basis.species[k] for k in (i, j)), (source.basis.species[k] for k in (a, b))
    alike = model.head_spin is source.head_spin and model.magnetic == source.magnetic
    if not alike or any(x.shells != y.shells for x, y in zip(mine, theirs, strict=True)):
        return None
    other: Any = source.readouts[f"{b}_{a}_off"]
    if grade >= len(other.linear) or place >= len(other.linear[grade].weights):  # a smaller network
        return None
    sign = other.grades[grade]
    columns = _term_columns(model, i, j, sign)[place]
    place_there = {term.start: k for k, term in enumerate(_term_columns(source, b, a, sign)[place])}
    partners = _partners(model, i, j)
    order = [place_there[partners[term.start][0]] for term in columns]
    signs = torch.tensor([float(partners[term.start][1]) for term in columns])
    even, odd = (source.pair_features.hidden[sign, exchange].sizes[place] for exchange in (1, -1))
    rows = torch.cat((torch.ones(even), -torch.ones(odd)))
    weight: Tensor = other.linear[grade].weights[place]
    return weight.detach()[:, order] * (rows[:, None] * signs).to(weight)


def _term_columns(model: HamiltonianModel, i: int, j: int, grade: int) -> list[list[IrrepTerm]]:
    """Terms of a couple that each weight matrix of its readout gives: scalars, pseudoscalars, doublets m = 1, 2, ..."""
    ordered = ordered_terms(_irreps(model, i, j).terms, grade)
    singlets = [[t for t in ordered if is_natural(t) == kind] for kind in (True, False)]
    return singlets + [[t for t in ordered if t.l >= m] for m in range(1, max(t.l for t in ordered) + 1)]


def _partners(model: HamiltonianModel, i: int, j: int) -> dict[int, tuple[int, int]]:
    """Start of each term of block (i, j) -> start of its partner in block (j, i), sign with the parity of inversion."""
    mine, theirs = _irreps(model, i, j), _irreps(model, j, i)
    signs = model.head_signs.numpy()
    n_i, n_j = (model.basis.species[k].n_orbitals for k in (i, j))
    blocks = theirs.matrix.reshape(n_j, n_i, len(signs), -1).transpose(1, 0, 2, 3) * signs[:, None]
    table = mine.matrix.T @ blocks.reshape(theirs.matrix.shape)
    result = {}
    for term in mine.terms:
        partner = int(np.abs(table[term.start]).argmax())
        result[term.start] = partner, round(float(table[term.start, partner])) * term.parity
    return result


def _irreps(model: HamiltonianModel, i: int, j: int) -> BlockIrreps:
    species = model.basis.species
    return block_irreps(species[i], species[j], model.head_spin, model.magnetic)


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
