"""One tile of a large structure: H and S of its pairs, from its atoms and those around them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hamnet.core.blocks import BlockMatrix
from hamnet.core.pairs import PairList
from hamnet.core.structure import AtomicStructure
from hamnet.core.tiles import MARGIN, Surroundings, TilePairs, Tiling, is_leading
from hamnet.data.store_in_place import PairLayout, PieceWriter, float_factor
from hamnet.errors import BasisError, ConfigError
from hamnet.predict.evaluate import evaluate
from hamnet.predict.overlap import has_exponents, overlap_of
from hamnet.predict.predictor import Predictor

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class TileNumbers:
    """What a tile gives.

    Args:
        pair_rows: (n, 6) int rows of the store's table `pairs`, sorted by place; pair_places: (n,) theirs.
        overlap, hamiltonian: (n_values,) float64 of the kept blocks, block after block.
        value_places: (n_blocks,) where each block of S begins; value_sizes: (n_blocks,) numbers of each of S.
        unseen: largest distance (Angstrom) of a pair's length to any in the training set; 0 where that is not known.
    """

    pair_rows: IntArray
    pair_places: IntArray
    overlap: FloatArray
    hamiltonian: FloatArray
    value_places: IntArray
    value_sizes: IntArray
    unseen: float


class TileEvaluator:
    """A model and a structure, evaluated tile by tile. The energy zero is that of the model: tiles never shift it.

    Args:
        predictor: one model.
        structure: the whole, with the model's species.

    Raises:
        ConfigError: the model needs an H0 from outside.
        BasisError: the orbitals do not say how far they reach.
    """

    def __init__(self, predictor: Predictor, structure: AtomicStructure) -> None:
        known = predictor.checkpoint.baseline
        if known is not None and known.kind == "reference":
            raise ConfigError("the model adds H0 from outside to its output: it cannot predict in tiles (--memory)")
        self.predictor, self.structure, self.tiling = predictor, structure, Tiling(structure)
        self.cutoffs = pair_cutoffs(predictor, structure)
        network = predictor.model
        message = float(network.statistics.message_cutoff)
        reach = float(self.cutoffs.max())
        self.receiving = reach + (network.settings.layers - 1) * message
        """Angstrom around the core within which atoms must gather messages."""
        fields = [float(prior.field.cutoffs.max()) for prior in ([] if known is None else known.priors)]
        self.halo = max(self.receiving + message, 2 * reach, *fields)
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
        owned, numbers, unseen = self._matrices(around, leading)
        value_places, sizes = self._value_places(around, owned, layout)
        return TileNumbers(rows, places, *numbers, value_places, sizes, unseen)

    def _rows(self, around: Surroundings, pairs: TilePairs, layout: PairLayout) -> tuple[IntArray, IntArray]:
        """Rows of the table `pairs` that start at the core, and their places."""
        starts = layout.pair_starts
        species, n = around.structure.species, len(around.atom)
        place = starts[around.atom[pairs.first], species[pairs.second]] + _rank(pairs.first, species[pairs.second])
        chosen = np.flatnonzero(around.core[pairs.first])
        first, second = pairs.first[chosen], pairs.second[chosen]
        at = np.searchsorted(pairs.first * n + pairs.second, second * n + first)
        i, j, shift = around.atom[first], around.atom[second], pairs.cell_shift[chosen]
        order = np.argsort(place[chosen])
        return np.column_stack((i, j, shift, place[at]))[order], place[chosen][order]

    def _matrices(self, around: Surroundings, leading: TilePairs) -> tuple[PairList, tuple[Any, Any], float]:
        """The owned pairs in the store's order, S and H of their blocks as float64 numbers, and `unseen`."""
        structure, basis, predictor = around.structure, self.predictor.basis, self.predictor
        both = leading.first != leading.second
        first = np.concatenate((leading.first, leading.second[both]))
        second = np.concatenate((leading.second, leading.first[both]))
        zeros = np.zeros((len(first), 3), dtype=np.int64)
        local, order = PairList.build_with_order(first, second, zeros, structure.species)
        kept = order < len(leading.first)
        overlap = overlap_of(structure, basis, predictor.overlap_fit, local)
        receivers = around.distance <= self.receiving + MARGIN
        baseline = predictor.baseline(structure, local)
        hamiltonian = evaluate(predictor.model, structure, local, predictor.device, baseline, receivers)
        owned = PairList(local.i[kept], local.j[kept], leading.cell_shift[order[kept]], np.flatnonzero(kept))
        return owned, (_kept_values(overlap, kept), _kept_values(hamiltonian, kept)), predictor.unseen(structure, local)

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


def pair_cutoffs(predictor: Predictor, structure: AtomicStructure) -> FloatArray:
    """(n_species, n_species) Angstrom: pairs shorter than this have a block; from the radii of the orbitals.

    Raises:
        BasisError: a species has orbitals without a radius.
    """
    basis = predictor.basis
    used = np.unique(structure.species).tolist()
    without = [basis.species[k].label for k in used if basis.species[k].radius is None]
    if without:
        kind = "Gaussians" if has_exponents(structure, basis) else "orbitals without a radius"
        raise BasisError(
            f"species {without} have {kind}, whose pairs no length decides: such a structure is predicted in one piece "
            "only (leave --memory out)"
        )
    radii = np.array([s.radius if k in used and s.radius is not None else 0.0 for k, s in enumerate(basis.species)])
    return np.asarray(radii[:, None] + radii[None, :])


def _kept_values(matrix: BlockMatrix, kept: NDArray[np.bool_]) -> FloatArray:
    values: FloatArray = matrix.values[np.repeat(kept, np.diff(matrix.offsets))].view(np.float64)
    return values


def _rank(first: IntArray, species: IntArray) -> IntArray:
    """Place of each row in its run of equal (first, species); rows sorted by first, then species, or the reverse."""
    new = np.ones(len(first), dtype=bool)
    new[1:] = (np.diff(first) != 0) | (np.diff(species) != 0)
    starts = np.flatnonzero(new)
    return np.asarray(np.arange(len(first)) - np.repeat(starts, np.diff(np.append(starts, len(first)))))
