"""Normalisation from the training set: per species pair, shell pair and irrep, on-site and off-site apart."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hamnet.config import NetworkConfig
from hamnet.core.basis import OrbitalBasis
from hamnet.core.blocks import BlockMatrix
from hamnet.core.calculation import Calculation
from hamnet.core.pairs import neighbour_pairs
from hamnet.core.spin import Spin
from hamnet.data.irrep_blocks import BlockIrreps, block_irreps, values_to_channels
from hamnet.errors import PhysicsError
from hamnet.nn.moments import check_moments
from hamnet.nn.spin_space import head_layout, uncoupled_channels

FloatArray = NDArray[np.float64]

MOLECULE_MESSAGE_CUTOFF = 5.0
"""Reach of messages (Angstrom) where the orbitals have no sharp radius and the configuration gives none."""
MOLECULE_MARGIN = 1.5
"""Orbitals without a sharp radius: pairs may be this much longer than the longest pair of molecules seen."""
CRYSTAL_MARGIN = 1.1
"""A crystal shows pairs of every length, so that H's own reach is seen."""
NEGLIGIBLE = 1e-5
"""eV: orbitals without a sharp radius reach as far as some number of a block is larger than this."""
LARGEST_SAMPLE = 50_000
"""Pairs of a group that enter the statistics: enough for a mean, small enough for memory."""
SCALE_FLOOR = 1e-3
"""Smallest scale (eV): components that are zero by symmetry in the training set are not divided by zero."""


@dataclass(frozen=True, eq=False)
class GroupStatistics:
    """Scales of the irrep coefficients of one ordered pair of species.

    coefficient = mean + scale * exp(-decay * distance) * network output.

    Args:
        mean: (n_coefficients,) eV, zero but for even scalars on site.
        scale: (n_coefficients,) eV, equal within an irrep.
        decay: 1 / Angstrom; 0 on site.
    """

    mean: FloatArray
    scale: FloatArray
    decay: float


@dataclass(frozen=True, eq=False)
class Statistics:
    """What a model takes from its training set beside its weights.

    Args:
        pair_cutoffs: (n_species, n_species) Angstrom, where the output vanishes.
        message_cutoff: Angstrom.
        average_neighbours: mean number of messages per atom.
        groups: (species_i, species_j, on_site) -> scales; absent groups were not seen.
        magnetic: the model takes moments and gives what is odd under time reversal, too.
        spin_orbit: spinors couple spin to space; if not, scales are those of `head_layout`.
    """

    pair_cutoffs: FloatArray
    message_cutoff: float
    average_neighbours: float
    groups: dict[tuple[int, int, bool], GroupStatistics]
    magnetic: bool = False
    spin_orbit: bool = True

    def to_arrays(self) -> dict[str, FloatArray]:
        """Plain arrays for a checkpoint."""
        arrays = {
            "pair_cutoffs": self.pair_cutoffs,
            "scalars": np.array([self.message_cutoff, self.average_neighbours]),
        }
        if self.magnetic:
            arrays["magnetic"] = np.ones(1)
        if not self.spin_orbit:
            arrays["uncoupled"] = np.ones(1)
        for (a, b, on_site), group in self.groups.items():
            name = f"{a}_{b}_{'on' if on_site else 'off'}"
            arrays[name] = np.stack((group.mean, group.scale, np.full_like(group.mean, group.decay)))
        return arrays

    @classmethod
    def from_arrays(cls, arrays: dict[str, FloatArray]) -> Statistics:
        """Inverse of `to_arrays`."""
        groups = {}
        for name, table in arrays.items():
            if name not in ("pair_cutoffs", "scalars", "magnetic", "uncoupled"):
                a, b, where = name.split("_")
                groups[int(a), int(b), where == "on"] = GroupStatistics(table[0], table[1], float(table[2, 0]))
        message_cutoff, neighbours = arrays["scalars"].tolist()
        flags = "magnetic" in arrays, "uncoupled" not in arrays
        return cls(arrays["pair_cutoffs"], message_cutoff, neighbours, groups, *flags)


def fit_statistics(
    calculations: Iterable[Calculation],
    basis: OrbitalBasis,
    spin: Spin,
    settings: NetworkConfig,
    magnetic: bool = False,
    spin_orbit: bool = True,
) -> Statistics:
    """Statistics of the training calculations, in one pass.

    Args:
        calculations: H (less the baseline) of the training part.
        basis: orbitals of the model.
        spin: layout of H.
        settings: of the network.
        magnetic: whether some atoms have moments (`hamnet.nn.moments.is_magnetic`).
        spin_orbit: whether spinors couple spin to space (`hamnet.nn.spin_space.couples_spin`).

    Raises:
        PhysicsError: there are no calculations, one has no Hamiltonian, or one is magnetic without moments.
    """
    sums = _Sums(basis, spin, magnetic, spin_orbit)
    neighbours: list[tuple[int, int]] = []
    message_cutoff: float | None = None
    for calculation in calculations:
        if calculation.hamiltonian is None:
            raise PhysicsError(f"{calculation.provenance.source}: no Hamiltonian to learn from, only an overlap")
        check_moments(calculation.provenance.source or "a calculation", calculation)
        message_cutoff = message_cutoff or _message_cutoff(basis, settings)
        found = neighbour_pairs(calculation.structure, message_cutoff)
        neighbours.append((found.n_pairs - calculation.structure.n_atoms, calculation.structure.n_atoms))
        sums.add(
            calculation.hamiltonian,
            np.linalg.norm(calculation.hamiltonian.pairs.vectors(calculation.structure), axis=1),
            CRYSTAL_MARGIN if calculation.structure.is_periodic else MOLECULE_MARGIN,
        )
    if message_cutoff is None:
        raise PhysicsError("no calculations to take statistics from: the training part is empty")
    average = sum(n for n, _ in neighbours) / sum(n for _, n in neighbours)
    return Statistics(sums.pair_cutoffs(), message_cutoff, max(average, 1.0), sums.groups(), magnetic, spin_orbit)


def _message_cutoff(basis: OrbitalBasis, settings: NetworkConfig) -> float:
    if settings.message_cutoff is not None:
        return settings.message_cutoff
    radii = [species.radius for species in basis.species]
    known = [radius for radius in radii if radius is not None]
    return 2 * max(known) if len(known) == len(radii) else MOLECULE_MESSAGE_CUTOFF


class _Sums:
    """Rows of coefficients by group, up to `LARGEST_SAMPLE` each, and the longest pairs."""

    def __init__(self, basis: OrbitalBasis, spin: Spin, magnetic: bool, spin_orbit: bool) -> None:
        self.basis, self.magnetic = basis, magnetic
        self.spin, self.layout = spin, head_layout(spin, spin_orbit)
        self.irreps: dict[tuple[int, int], BlockIrreps] = {}
        self.longest = np.zeros((len(basis.species),) * 2)
        self.rows: dict[tuple[int, int, bool], list[FloatArray]] = {}
        self.distances: dict[tuple[int, int, bool], list[FloatArray]] = {}

    def add(self, matrix: BlockMatrix, distance: FloatArray, margin: float) -> None:
        """Take in one Hamiltonian; `distance` (n_pairs,) in Angstrom; pairs may be longer than its own by `margin`."""
        for group in matrix.groups():
            a, b = group.species_i, group.species_j
            irreps = self.irreps.setdefault(
                (a, b), block_irreps(self.basis.species[a], self.basis.species[b], self.layout, self.magnetic)
            )
            count, n_i, n_j = len(group.blocks), *(int(self.basis.n_orbitals[s]) for s in (a, b))
            shapes = [(count, n_i, n_j)]
            channels = values_to_channels(group.blocks.ravel(), self.spin, shapes, self.magnetic)
            coefficients = self._coefficients(channels.reshape(count, n_i * n_j, -1), irreps)
            lengths = distance[group.pairs]
            felt = np.abs(group.blocks).reshape(count, -1).max(axis=1) > NEGLIGIBLE
            self.longest[a, b] = max(self.longest[a, b], margin * float(lengths[felt].max(initial=0.0)))
            on_site = matrix.pairs.on_site[group.pairs]
            for wanted in (True, False):
                chosen = on_site == wanted
                rows = self.rows.setdefault((a, b, wanted), [])
                if chosen.any() and sum(map(len, rows)) < LARGEST_SAMPLE:
                    rows.append(coefficients[chosen])
                    self.distances.setdefault((a, b, wanted), []).append(lengths[chosen])

    def _coefficients(self, channels: FloatArray, irreps: BlockIrreps) -> FloatArray:
        """(n, n_i * n_j, n_channels) -> (n, n_coefficients); of spin vectors their length, which no turn changes."""
        if self.layout is self.spin:
            return np.asarray(channels.reshape(len(channels), -1) @ irreps.matrix)
        kept = uncoupled_channels(self.magnetic)
        a_0, *spins = (channels[..., k] for k in kept)
        each = [np.stack((a_0, a), axis=-1) for a in spins] or [a_0]
        table = np.stack([part.reshape(len(channels), -1) @ irreps.matrix for part in each])
        odd = [k for term in irreps.terms if term.grade == -1 for k in range(term.columns.start, term.columns.stop)]
        result = table[0]
        result[:, odd] = np.linalg.norm(table[:, :, odd], axis=0)
        return np.asarray(result)

    def pair_cutoffs(self) -> FloatArray:
        """Radii add up; without radii the longest pair that H feels, with a margin."""
        radii = [species.radius for species in self.basis.species]
        table = np.maximum(self.longest, self.longest.T)
        table = np.maximum(table, MOLECULE_MESSAGE_CUTOFF)
        for a, first in enumerate(radii):
            for b, second in enumerate(radii):
                if first is not None and second is not None:
                    table[a, b] = first + second
        return table

    def groups(self) -> dict[tuple[int, int, bool], GroupStatistics]:
        """Mean, scale and decay of every group that has rows."""
        return {key: self._group(key) for key, rows in self.rows.items() if rows}

    def _group(self, key: tuple[int, int, bool]) -> GroupStatistics:
        a, b, on_site = key
        terms = self.irreps[a, b].terms
        rows, distance = np.concatenate(self.rows[key]), np.concatenate(self.distances[key])
        mean = np.zeros(rows.shape[1])
        decay = 0.0
        if on_site:
            for term in terms:
                if term.l == 0 and term.parity == 1 and term.grade == 1:
                    mean[term.columns] = rows[:, term.columns].mean(axis=0)
        else:
            decay = _decay(distance, np.sqrt((rows**2).mean(axis=1)))
        spread = (((rows - mean) * np.exp(decay * distance)[:, None]) ** 2).mean(axis=0)
        scale = np.empty_like(mean)
        for term in terms:
            scale[term.columns] = max(float(np.sqrt(spread[term.columns].mean())), SCALE_FLOOR)
        return GroupStatistics(mean, scale, decay)


def _decay(distance: FloatArray, size: FloatArray) -> float:
    """Exponent of size ~ exp(-decay * distance), fitted to the logarithm; 0 where it does not decay.

    Points weigh as the root of their size: near the cutoff of numerical orbitals blocks fall faster than any
    exponential, and those tiny ones must not set the exponent of the large ones.
    """
    keep = size > 1e-3 * size.max(initial=0.0)
    if keep.sum() < 3 or np.ptp(distance[keep]) < 0.5:
        return 0.0
    slope = float(np.polyfit(distance[keep], np.log(size[keep]), 1, w=np.sqrt(size[keep]))[0])
    return float(np.clip(-slope, 0.0, 3.0))
