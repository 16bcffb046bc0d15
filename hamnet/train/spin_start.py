"""Spin-orbit coupling as a difference: a spinor model that starts as the predictions of a spinless one.

A_0 of a spinor Hamiltonian is what a spinless network gives; A_a is what spin-orbit coupling and moments add. The
spinor model keeps the baseline, cutoffs and scales of the spinless one for A_0, its heads get the same columns, and
the columns of everything new start at zero: before the first step it predicts the spinless H times one, and the mean
l.s term of each species on site (where atoms have no moments). Few calculations with coupling then teach the rest. So
does a model without moments become one with them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch

from hamnet.core.basis import OrbitalBasis
from hamnet.core.spin import Spin
from hamnet.data.irrep_blocks import IrrepTerm, block_irreps
from hamnet.nn.block_head import OnSiteReadout, PairReadout, is_natural, ordered_terms
from hamnet.nn.model import HamiltonianModel
from hamnet.nn.statistics import GroupStatistics, Statistics

TermKey = tuple[int, int, int, int, int]
"""Shells of both atoms, degree, grade, and which one of several: couplings of A_0 stand before those of A_a."""
ColumnKey = tuple[TermKey, int]
"""A term and the irrep of O(2) in whose matrix it has a column; 0 on site."""


def can_widen(source: HamiltonianModel, spin: Spin, magnetic: bool) -> bool:
    """Whether blocks of a layout hold those of a trained model as their first part: A_0, or all that is even.

    Args:
        source: trained.
        spin: layout of the new model's heads (`hamnet.nn.spin_space.head_layout`).
        magnetic: whether the new model takes moments.
    """
    if source.magnetic or (source.head_spin, source.magnetic) == (spin, magnetic):
        return False
    return source.head_spin is spin or source.head_spin is not Spin.SPINOR


def term_keys(terms: Sequence[IrrepTerm]) -> list[TermKey]:
    """Key of each term; equal in all layouts that have it."""
    seen: Counter[tuple[int, int, int, int]] = Counter()
    keys = []
    for term in terms:
        kind = (term.shell_i, term.shell_j, term.l, term.grade)
        keys.append((*kind, seen[kind]))
        seen[kind] += 1
    return keys


def widened_statistics(
    fitted: Statistics, source: Statistics, basis: OrbitalBasis, spins: tuple[Spin, Spin]
) -> Statistics:
    """Fitted scales, with those of the source in the place of what it has; cutoffs and decays are the source's.

    Args:
        fitted: to the new data.
        source: of the trained model.
        basis: of both.
        spins: layouts of the heads of the new and of the trained model.
    """
    groups = {}
    for (a, b, on_site), group in fitted.groups.items():
        old = source.groups[a, b, on_site]
        mine, theirs = (
            block_irreps(basis.species[a], basis.species[b], spin, magnetic).terms
            for spin, magnetic in zip(spins, (fitted.magnetic, source.magnetic), strict=True)
        )
        places = dict(zip(term_keys(theirs), theirs, strict=True))
        mean, scale = group.mean.copy(), group.scale.copy()
        for key, term in zip(term_keys(mine), mine, strict=True):
            if key in places:
                mean[term.columns] = old.mean[places[key].columns]
                scale[term.columns] = old.scale[places[key].columns]
        groups[a, b, on_site] = GroupStatistics(mean, scale, old.decay)
    # couples that only the source has seen have no scales for what is new, so that they are left out
    return replace(source, groups=groups, magnetic=fitted.magnetic, spin_orbit=fitted.spin_orbit)


def widen_heads(model: HamiltonianModel, source: HamiltonianModel) -> int:
    """Copy the columns of the heads that the source has, and set the others to zero; returns the numbers copied.

    Args:
        model: the new network, changed in place; of the same basis and sizes as the source.
        source: the trained one.
    """
    copied = 0
    with torch.no_grad():
        for name, readout in model.readouts.items():
            if name not in source.readouts:
                continue
            theirs = {key: (weight, c) for key, weight, c in head_columns(source.readouts[name])}
            for key, weight, c in head_columns(readout):
                old, place = theirs.get(key, (weight, -1))
                if place >= 0 and old.shape[0] == weight.shape[0]:
                    weight[:, c] = old[:, place].to(weight)
                    copied += weight.shape[0]
                else:
                    weight[:, c] = 0.0
    return copied


def head_columns(readout: torch.nn.Module) -> Iterator[tuple[ColumnKey, torch.nn.Parameter, int]]:
    """Key, weight matrix and column of every column of a head."""
    if isinstance(readout, OnSiteReadout):
        keys = iter(term_keys(readout.terms))
        for (count, *_), weight in zip(readout.runs, readout.weights, strict=True):
            for column in range(count):
                yield (next(keys), 0), weight, column
    elif isinstance(readout, PairReadout):
        keyed = dict(zip(map(id, readout.terms), term_keys(readout.terms), strict=True))
        maps: Any = readout.linear  # a list of `TermLinear`; torch types its members as modules
        for grade, linear in zip(readout.grades, maps, strict=True):
            terms = ordered_terms(readout.terms, grade)
            matrices = [[t for t in terms if is_natural(t) == natural] for natural in (True, False)]
            matrices += [[t for t in terms if t.l >= m] for m in range(1, readout.lmax + 1)]
            for slot, (members, weight) in enumerate(zip(matrices, linear.weights, strict=False)):
                for column, term in enumerate(members):
                    yield (keyed[id(term)], slot), weight, column
