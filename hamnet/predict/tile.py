"""One tile of a large structure: H and S of its pairs, from its atoms and those around them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hamnet.core.blocks import BlockMatrix
from hamnet.core.pairs import PairList
from hamnet.core.spin import Spin
from hamnet.core.structure import AtomicStructure
from hamnet.core.tiles import MARGIN, Surroundings, TilePairs, Tiling, is_leading
from hamnet.data.store_in_place import PairLayout, PieceWriter, float_factor
from hamnet.errors import BasisError, ConfigError
from hamnet.predict.ensemble import mean_matrix
from hamnet.predict.evaluate import evaluate
from hamnet.predict.given_overlap import GivenOverlap
from hamnet.predict.overlap import overlap_of, pair_cutoffs
from hamnet.predict.predictor import Predictor
from hamnet.predict.seen import Found
from hamnet.predict.tile_spread import spread_sums

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class TileNumbers:
    """What a tile gives.

    Args:
        pair_rows: (n, 6) int rows of the store's table `pairs`, sorted by place; pair_places: (n,) theirs.
        overlap, hamiltonian: (n_values,) float64 of the kept blocks, block after block.
        value_places: (n_blocks,) where each block of S begins; value_sizes: (n_blocks,) numbers of each of S.
        block_places: (n_blocks,) row of the pair of each kept block.
        found: lengths of the pairs against those of the training set.
        spread: (n_blocks, n_models + 2) of an ensemble, see `spread_sums`; None: one model.
    """

    pair_rows: IntArray
    pair_places: IntArray
    overlap: FloatArray
    hamiltonian: FloatArray
    value_places: IntArray
    value_sizes: IntArray
    block_places: IntArray
    found: Found
    spread: FloatArray | None


class TileEvaluator:
    """A model and a structure, evaluated tile by tile. The energy zero is that of the model: tiles never shift it.

    Args:
        predictor: one model, or an ensemble.
        structure: the whole, with the model's species.
        overlap: store with S of these atoms; None: from the basis or the model's fit.

    Raises:
        ConfigError: the model needs an H0 from outside.
        BasisError: the orbitals do not say how far they reach.
        PhysicsError, BasisError: S is of other atoms or orbitals, or reaches further than the pairs.
    """

    def __init__(self, predictor: Predictor, structure: AtomicStructure, overlap: Path | None = None) -> None:
        if any(part.needs_reference for part in predictor.parts):
            raise ConfigError(
                "the model adds H0 from outside to its output, which is made for whole molecules: it cannot predict in "
                "tiles, leave --memory out"
            )
        self.predictor, self.structure, self.tiling = predictor, structure, Tiling(structure)
        self.cutoffs = tile_cutoffs(predictor, structure)
        self.given = None if overlap is None else GivenOverlap(overlap, structure, predictor.basis, self.cutoffs)
        longest = float(self.cutoffs.max())
        reach = min(longest, float(predictor.reach.max()))
        self.receiving = [reach + _behind_the_last(part) for part in predictor.parts]
        """Angstrom around the core within which atoms must gather messages, for each model."""
        messages = [float(part.model.statistics.message_cutoff) for part in predictor.parts]
        halos = [r + m for r, m in zip(self.receiving, messages, strict=True)]
        baselines = [part.checkpoint.baseline for part in predictor.parts]
        fields = [float(prior.field.cutoffs.max()) for b in baselines if b is not None for prior in b.priors]
        self.halo = max(*halos, 2 * longest, *fields)
        """Angstrom around the core that its numbers depend on."""

    @cached_property
    def n_orbitals(self) -> IntArray:
        """(n_species,) of the basis."""
        return self.predictor.basis.n_orbitals

    def counts(self, core: IntArray) -> tuple[IntArray, IntArray]:
        """(n_core, n_species) pairs of each atom, and how many of them are kept; see `PairLayout`.

        Raises:
            PhysicsError: two atoms are on one place.
        """
        around = self.tiling.surroundings(core, float(self.cutoffs.max()))
        pairs = self.tiling.pairs(around, self.cutoffs, around.core)
        rows = np.searchsorted(core, around.atom[pairs.first])
        species = around.structure.species
        shape = len(core), len(self.n_orbitals)
        every, kept = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
        np.add.at(every, (rows, species[pairs.second]), 1)
        leading = is_leading(species, around, pairs)
        np.add.at(kept, (rows[leading], species[pairs.second[leading]]), 1)
        return every, kept

    def evaluate(self, core: IntArray, layout: PairLayout) -> TileNumbers:
        """The numbers of a tile and their places in the store.

        Args:
            core: atoms of the tile.
            layout: of the whole structure; zeros will do where only the numbers matter.

        Raises:
            BasisError, PhysicsError: the model cannot predict these atoms.
        """
        around = self.tiling.surroundings(core, self.halo)
        close = around.distance <= float(self.cutoffs.max()) + MARGIN
        pairs = self.tiling.pairs(around, self.cutoffs, close)
        mine = pairs.chosen(around.core[pairs.first])
        leading = mine.chosen(is_leading(around.structure.species, around, mine))
        rows, places = self._rows(around, pairs, layout)
        local, order = _both_ways(leading, around)
        kept = order < len(leading.first)
        overlap = self._overlap(around, leading, local, order)
        hamiltonian, spread = self._hamiltonian(around, local, overlap)
        owned = PairList(local.i[kept], local.j[kept], leading.cell_shift[order[kept]], np.flatnonzero(kept))
        value_places, sizes = self._value_places(around, owned, layout)
        order_of_rows = np.argsort(places)
        return TileNumbers(
            rows[order_of_rows],
            places[order_of_rows],
            _kept_values(overlap, kept),
            _kept_values(hamiltonian, kept),
            value_places,
            sizes,
            places[is_leading(around.structure.species, around, mine)][order[kept]],
            self.predictor.found(around.structure, local),
            None if spread is None else spread[kept],
        )

    def _rows(self, around: Surroundings, pairs: TilePairs, layout: PairLayout) -> tuple[IntArray, IntArray]:
        """Rows of the table `pairs` that start at the core, in the order of `pairs`, and their places."""
        starts = layout.pair_starts
        species, n = around.structure.species, len(around.atom)
        place = starts[around.atom[pairs.first], species[pairs.second]] + _rank(pairs.first, species[pairs.second])
        chosen = np.flatnonzero(around.core[pairs.first])
        first, second = pairs.first[chosen], pairs.second[chosen]
        at = np.searchsorted(pairs.first * n + pairs.second, second * n + first)
        i, j, shift = around.atom[first], around.atom[second], pairs.cell_shift[chosen]
        return np.column_stack((i, j, shift, place[at])), place[chosen]

    def _overlap(self, around: Surroundings, leading: TilePairs, local: PairList, order: IntArray) -> BlockMatrix:
        """S on the local pairs; `order`: from the leading pairs and then their reverses to the local ones."""
        structure, basis = around.structure, self.predictor.basis
        if self.given is None:
            return overlap_of(structure, basis, self.predictor.overlap_fit, local)
        both = leading.first != leading.second
        shift = np.concatenate((leading.cell_shift, -leading.cell_shift[both]))[order]
        wanted = PairList(around.atom[local.i], around.atom[local.j], shift, local.reverse)
        sizes = self.n_orbitals[structure.species[local.i]] * self.n_orbitals[structure.species[local.j]]
        return BlockMatrix.from_values(local, basis, structure.species, Spin.NONE, self.given.values(wanted, sizes))

    def _hamiltonian(
        self, around: Surroundings, local: PairList, overlap: BlockMatrix
    ) -> tuple[BlockMatrix, FloatArray | None]:
        """H on the local pairs, the mean over the models, and for several models what their spread needs."""
        structure, matrices = around.structure, []
        for part, receiving in zip(self.predictor.parts, self.receiving, strict=True):
            receivers = around.distance <= receiving + MARGIN
            baseline = part.baseline(structure, local)
            matrices.append(evaluate(part.model, structure, local, part.device, baseline, receivers))
        if len(matrices) == 1:
            return matrices[0], None
        mean = mean_matrix(matrices)
        return mean, spread_sums(matrices, mean, overlap)

    def _value_places(self, around: Surroundings, owned: PairList, layout: PairLayout) -> tuple[IntArray, IntArray]:
        """Place and size of each owned block in S."""
        species = around.structure.species
        s_i, s_j = species[owned.i], species[owned.j]
        sizes = self.n_orbitals[s_i] * self.n_orbitals[s_j]
        start = layout.value_starts[around.atom[owned.i], s_j]
        return start + _rank(owned.i, s_j) * sizes, sizes


def write_tile(writer: PieceWriter, numbers: TileNumbers, evaluator: TileEvaluator, n_values: int) -> None:
    """Put the numbers of a tile into the store.

    Args:
        writer: of the store.
        numbers: of the tile.
        evaluator: which made them.
        n_values: numbers of S in the whole store: H comes after them.
    """
    factor = float_factor(evaluator.predictor.model.spin)
    writer.write("pairs", numbers.pair_rows, numbers.pair_places)
    writer.write("values", numbers.overlap, numbers.value_places, numbers.value_sizes)
    writer.write("values", numbers.hamiltonian, n_values + factor * numbers.value_places, factor * numbers.value_sizes)


def tile_cutoffs(predictor: Predictor, structure: AtomicStructure) -> FloatArray:
    """(n_species, n_species) Angstrom: pairs shorter than this have a block.

    Raises:
        BasisError: a species has orbitals without a radius that are no Gaussians.
    """
    cutoffs = pair_cutoffs(structure, predictor.basis, predictor.reach)
    if cutoffs is None:
        species = (predictor.basis.species[k] for k in np.unique(structure.species).tolist())
        without = [s.label for s in species if s.radius is None]
        raise BasisError(
            f"species {without} have orbitals without a radius, whose pairs no length decides: such a structure is "
            "predicted in one piece only (leave --memory out)"
        )
    return cutoffs


def _behind_the_last(part: Predictor) -> float:
    """Angstrom that messages travel before the last layer."""
    return float((part.model.settings.layers - 1) * part.model.statistics.message_cutoff)


def _both_ways(leading: TilePairs, around: Surroundings) -> tuple[PairList, IntArray]:
    """The pairs and their reverses as a list of the cluster, and which of (pairs, reverses) each of it is."""
    both = leading.first != leading.second
    first = np.concatenate((leading.first, leading.second[both]))
    second = np.concatenate((leading.second, leading.first[both]))
    zeros = np.zeros((len(first), 3), dtype=np.int64)
    return PairList.build_with_order(first, second, zeros, around.structure.species)


def _kept_values(matrix: BlockMatrix, kept: NDArray[np.bool_]) -> FloatArray:
    values: FloatArray = matrix.values[np.repeat(kept, np.diff(matrix.offsets))].view(np.float64)
    return values


def _rank(first: IntArray, species: IntArray) -> IntArray:
    """Place of each row in its run of equal (first, species); rows sorted by first, then species, or the reverse."""
    new = np.ones(len(first), dtype=bool)
    new[1:] = (np.diff(first) != 0) | (np.diff(species) != 0)
    starts = np.flatnonzero(new)
    return np.asarray(np.arange(len(first)) - np.repeat(starts, np.diff(np.append(starts, len(first)))))
