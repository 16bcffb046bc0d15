"""What a model has seen: lengths of pairs in its training set, and how far a structure lies outside of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hamnet.core.basis import OrbitalBasis
from hamnet.core.calculation import Calculation
from hamnet.core.pairs import PairList
from hamnet.core.structure import AtomicStructure
from hamnet.data.two_centre import TwoCentreFit
from hamnet.errors import BasisError
from hamnet.nn.checkpoint import Checkpoint

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Couple = tuple[str, str]

RESOLUTION = 0.02
"""Lengths are remembered to this (Angstrom)."""
GAP_TOLERANCE = 0.1
"""Lengths further than this (Angstrom) from any in the training set are reported."""
SHORT_TOLERANCE = 0.05
"""Pairs that are this much (Angstrom) shorter than the shortest of the training set are reported."""
METADATA_KEY = "seen_lengths"
_SHOWN = 4


@dataclass(frozen=True)
class CoupleFound:
    """Pairs of one couple of species in a structure, against the training set.

    Args:
        n_pairs: in the structure, within reach, each counted once.
        shortest: Angstrom, in the structure; shortest_seen: in the training set, NaN: the couple never occurred.
        n_short: pairs shorter than `shortest_seen` by more than `SHORT_TOLERANCE`.
        strangest: Angstrom, the length furthest from any in the training set; nearest_seen: the one nearest to it.
    """

    n_pairs: int
    shortest: float
    shortest_seen: float
    n_short: int
    strangest: float
    nearest_seen: float

    @property
    def gap(self) -> float:
        """Angstrom from the strangest length to the training set."""
        return abs(self.strangest - self.nearest_seen)

    def merged(self, other: CoupleFound) -> CoupleFound:
        """The same couple in two parts of a structure."""
        strange = self if self.gap >= other.gap else other
        return replace(
            strange,
            n_pairs=self.n_pairs + other.n_pairs,
            shortest=min(self.shortest, other.shortest),
            n_short=self.n_short + other.n_short,
        )


Found = dict[Couple, CoupleFound]


@dataclass(frozen=True, eq=False)
class SeenLengths:
    """Lengths of pairs in a training set.

    Args:
        lengths: couple of species labels, in alphabetical order -> ascending lengths (Angstrom).
    """

    lengths: dict[Couple, FloatArray]

    @classmethod
    def of(cls, calculations: Iterable[Calculation]) -> SeenLengths:
        """Those of the pairs of H (of S where there is no H) of calculations, on-site ones left out."""
        steps: dict[Couple, set[int]] = {}
        for calculation in calculations:
            matrix = calculation.overlap if calculation.hamiltonian is None else calculation.hamiltonian
            structure = calculation.structure
            for couple, lengths in _lengths(structure, calculation.basis, matrix.pairs).items():
                steps.setdefault(couple, set()).update(np.unique(np.round(lengths / RESOLUTION).astype(int)).tolist())
        return cls({couple: RESOLUTION * np.array(sorted(found)) for couple, found in steps.items()})

    @classmethod
    def of_checkpoint(cls, checkpoint: Checkpoint) -> SeenLengths | None:
        """Those that a checkpoint remembers, of itself or through its fits; None where it does not know."""
        known: Mapping[str, list[float]] | None = checkpoint.metadata.get(METADATA_KEY)
        if known is not None:
            return cls({_couple(*name.split("|")): np.array(values) for name, values in known.items()})
        if checkpoint.overlap_arrays is not None:
            return cls._of_fit(TwoCentreFit.from_arrays(checkpoint.overlap_arrays))
        if checkpoint.baseline is not None and checkpoint.baseline.priors:
            return cls._of_fit(checkpoint.baseline.priors[0].two_centre)
        return None

    @classmethod
    def _of_fit(cls, fit: TwoCentreFit) -> SeenLengths:
        labels = [species.label for species in fit.basis.species]
        return cls({_couple(labels[a], labels[b]): spline.seen for (a, b), spline in fit.radial.items()})

    def joined(self, other: SeenLengths) -> SeenLengths:
        """What either has seen."""
        both = dict(self.lengths)
        for couple, lengths in other.lengths.items():
            both[couple] = np.union1d(both[couple], lengths) if couple in both else lengths
        return SeenLengths(both)

    def to_metadata(self) -> dict[str, Any]:
        """Entry of a checkpoint's metadata."""
        return {METADATA_KEY: {"|".join(c): np.round(values, 3).tolist() for c, values in self.lengths.items()}}

    def compare(
        self, structure: AtomicStructure, basis: OrbitalBasis, pairs: PairList, cutoffs: FloatArray
    ) -> dict[Couple, CoupleFound]:
        """Each couple of species of a structure against the training set.

        Args:
            structure, basis: the atoms and their orbitals.
            pairs: of the structure.
            cutoffs: (n_species, n_species) Angstrom, where H ends: longer pairs have none, and this length counts as
                seen, because the network's output vanishes there.
        """
        species = {s.label: k for k, s in enumerate(basis.species)}
        found = {}
        for couple, lengths in _lengths(structure, basis, pairs).items():
            cutoff = float(cutoffs[species[couple[0]], species[couple[1]]])
            inside = lengths[lengths < cutoff] if cutoff > 0 else lengths
            if len(inside):
                found[couple] = _against(self.lengths.get(couple), inside, cutoff)
        return found


def to_text(found: Found) -> str:
    """One line of JSON, for a journal."""
    return json.dumps([[*couple, *astuple(entry)] for couple, entry in found.items()])


def from_text(text: str) -> Found:
    """Inverse of `to_text`."""
    return {(one, other): CoupleFound(*numbers) for one, other, *numbers in json.loads(text)}


def in_short(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """A checkpoint's metadata with the least and the largest length (Angstrom) of each couple instead of all."""
    known: Mapping[str, list[float]] = metadata.get(METADATA_KEY, {})
    ends = {name: (values[0], values[-1]) for name, values in known.items() if values}
    return dict(metadata) | ({METADATA_KEY: ends} if ends else {})


def merged(parts: Iterable[Found]) -> Found:
    """What the parts of a structure found, together."""
    result: Found = {}
    for part in parts:
        for couple, found in part.items():
            result[couple] = result[couple].merged(found) if couple in result else found
    return result


def refuse_unknown(found: Found) -> None:
    """A model has no output for a couple of species that it never saw.

    Raises:
        BasisError: names the couples with the number of their pairs and the nearest of them.
    """
    unknown = [(couple, entry) for couple, entry in found.items() if np.isnan(entry.shortest_seen)]
    if unknown:
        text = "; ".join(f"{_named(c)}: {e.n_pairs} pairs, the nearest {e.shortest:.3f} A" for c, e in unknown)
        raise BasisError(
            f"the structure has pairs of species that the training set did not have ({text}): the model has no blocks "
            "for them; train on structures with such neighbours"
        )


def remarks(found: Found, extrapolating: str) -> list[str]:
    """What a user should know about a structure's lengths, with the numbers; at most two sentences for each couple.

    Args:
        found: from `SeenLengths.compare`.
        extrapolating: what cannot be trusted, as "the model".
    """
    lines = []
    order = sorted(found.items(), key=lambda entry: -entry[1].gap)
    for couple, entry in order:
        name = _named(couple)
        if entry.n_short:
            lines.append(
                f"{name}: the nearest two atoms are {entry.shortest:.3f} A apart, in the training set "
                f"{entry.shortest_seen:.3f} A; {entry.n_short} pair(s) are shorter than that by more than "
                f"{SHORT_TOLERANCE:g} A: {extrapolating} extrapolates there"
            )
        if entry.gap > GAP_TOLERANCE and not entry.strangest < entry.shortest_seen:
            lines.append(
                f"{name}: two atoms are {entry.strangest:.2f} A apart, {entry.gap:.2f} A away from any distance in "
                f"the training set (the nearest there: {entry.nearest_seen:.2f} A): {extrapolating} extrapolates there"
            )
    more = len(lines) - _SHOWN
    return lines[:_SHOWN] + ([f"{more} more such remark(s) about other species are left out"] if more > 0 else [])


def _against(seen: FloatArray | None, lengths: FloatArray, cutoff: float) -> CoupleFound:
    shortest = float(lengths.min())
    if seen is None or not len(seen):
        return CoupleFound(len(lengths), shortest, np.nan, 0, np.nan, np.nan)
    known = np.append(seen, cutoff) if cutoff > seen[-1] else seen
    at = np.clip(np.searchsorted(known, lengths), 1, max(len(known) - 1, 1))
    low, high = known[at - 1], known[np.minimum(at, len(known) - 1)]
    nearest = np.where(np.abs(lengths - low) <= np.abs(high - lengths), low, high)
    worst = int(np.abs(lengths - nearest).argmax())
    n_short = int((lengths < seen[0] - SHORT_TOLERANCE).sum())
    return CoupleFound(len(lengths), shortest, float(seen[0]), n_short, float(lengths[worst]), float(nearest[worst]))


def _lengths(structure: AtomicStructure, basis: OrbitalBasis, pairs: PairList) -> dict[Couple, FloatArray]:
    """Lengths (Angstrom) of the pairs of each couple, of reverse couples one, on-site ones left out."""
    once = np.flatnonzero(np.arange(pairs.n_pairs) < pairs.reverse)
    i, j = pairs.i[once], pairs.j[once]
    shift = pairs.cell_shift[once] @ structure.lattice
    lengths = np.linalg.norm(structure.positions[j] - structure.positions[i] + shift, axis=1)
    species_i, species_j = structure.species[i], structure.species[j]
    code = np.minimum(species_i, species_j) * len(basis.species) + np.maximum(species_i, species_j)
    result = {}
    for value in np.unique(code).tolist():
        a, b = divmod(value, len(basis.species))
        result[_couple(basis.species[a].label, basis.species[b].label)] = lengths[code == value]
    return result


def _couple(one: str, other: str) -> Couple:
    return (one, other) if one <= other else (other, one)


def _named(couple: Couple) -> str:
    return f"{couple[0]} - {couple[1]}"
