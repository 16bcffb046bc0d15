"""What the training set did not have is said with its numbers; a cell smaller than the reach is right."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model_files import graphene, untrained

from hamnet.core.basis import OrbitalBasis, Shell, Species
from hamnet.core.pairs import neighbour_pairs
from hamnet.core.structure import AtomicStructure
from hamnet.core.supercell import supercell_matrix, supercell_structure
from hamnet.errors import BasisError
from hamnet.nn.checkpoint import load_checkpoint
from hamnet.predict import tiling
from hamnet.predict.predictor import Predictor
from hamnet.predict.seen import RESOLUTION, SeenLengths, from_text, merged, refuse_unknown, remarks, to_text
from hamnet.predict.tiling import TileSettings, predict_in_tiles

BASIS = OrbitalBasis((Species("A", 6, 4.0, (Shell(0),)), Species("B", 1, 1.0, (Shell(0),))))
CUTOFFS = np.full((2, 2), 4.0)
SEEN = SeenLengths({("A", "A"): np.array([1.4, 2.4, 2.8]), ("A", "B"): np.array([1.1])})


def found(*x: float, species: tuple[int, ...] | None = None):
    """Atoms on a line against `SEEN`."""
    places = np.zeros((len(x), 3))
    places[:, 0] = x
    kinds = np.zeros(len(x), dtype=int) if species is None else np.array(species)
    line = AtomicStructure(np.array([6, 1])[kinds], kinds, places)
    return SEEN.compare(line, BASIS, neighbour_pairs(line, 5.0), CUTOFFS)


def test_what_was_seen_needs_no_words() -> None:
    inside = found(0.0, 1.42)
    assert remarks(inside, "the model") == []
    assert found(0.0, 4.5) == {}  # beyond the cutoff H is zero
    assert remarks(found(0.0, 3.95), "the model") == []  # near the cutoff it vanishes


def test_numbers_are_in_the_words() -> None:
    (short,) = remarks(found(0.0, 1.2), "the model")
    assert "A - A: the nearest two atoms are 1.200 A apart, in the training set 1.400 A; 1 pair(s)" in short
    (strange,) = remarks(found(0.0, 1.9), "the model")
    assert "1.90 A apart, 0.50 A away from any distance in the training set (the nearest there: " in strange


def test_unknown_pairs_are_refused_with_their_number_and_distance() -> None:
    with pytest.raises(BasisError, match=r"B - B: 1 pairs, the nearest 0\.900 A"):
        refuse_unknown(found(0.0, 0.9, species=(1, 1)))
    refuse_unknown(found(0.0, 1.1, species=(0, 1)))


@settings(max_examples=50, deadline=None)
@given(x=st.lists(st.floats(0.5, 9.0), min_size=2, max_size=8, unique=True), at=st.integers(1, 7))
def test_parts_together_find_what_the_whole_finds(x: list[float], at: int) -> None:
    lengths = np.array([value for value in x if value < 4.0])
    whole = SEEN.compare(*_dimers(lengths)) if len(lengths) else {}
    parts = [SEEN.compare(*_dimers(part)) for part in (lengths[:at], lengths[at:]) if len(part)]
    together = merged(parts)
    assert together.keys() == whole.keys()
    assert from_text(to_text(whole)) == whole
    for couple, entry in whole.items():
        other = together[couple]
        assert (other.n_pairs, other.shortest, other.n_short) == (entry.n_pairs, entry.shortest, entry.n_short)
        assert other.gap == pytest.approx(entry.gap, abs=1e-12)


def _dimers(lengths: np.ndarray):
    """Dimers far from one another, with exactly these lengths."""
    places = np.zeros((2 * len(lengths), 3))
    places[:, 1] = np.repeat(100.0 * np.arange(len(lengths)), 2)
    places[1::2, 0] = lengths
    structure = AtomicStructure(np.full(len(places), 6), np.zeros(len(places), dtype=int), places)
    return structure, BASIS, neighbour_pairs(structure, 9.5), CUTOFFS


def test_a_training_set_is_remembered() -> None:
    calculation = graphene()
    seen = SeenLengths.of([calculation])
    ((label, _),) = seen.lengths
    lengths = seen.lengths[label, label]
    assert lengths[0] == pytest.approx(1.42, abs=RESOLUTION)
    checkpoint = replace(_checkpoint(), metadata=seen.to_metadata())
    again = SeenLengths.of_checkpoint(checkpoint)
    assert again is not None
    np.testing.assert_allclose(again.lengths[label, label], lengths, atol=1e-3)
    pairs = calculation.overlap.pairs
    entry = again.compare(calculation.structure, calculation.basis, pairs, np.full((1, 1), 5.3))[label, label]
    assert entry.gap < RESOLUTION
    assert SeenLengths.of_checkpoint(replace(checkpoint, metadata={}, overlap_arrays=None)) is None


def test_two_training_sets_are_remembered_together() -> None:
    more = SeenLengths({("A", "A"): np.array([1.4, 1.9]), ("B", "B"): np.array([0.9])})
    both = SEEN.joined(more).lengths
    assert both["A", "A"].tolist() == [1.4, 1.9, 2.4, 2.8]
    assert set(both) == {("A", "A"), ("A", "B"), ("B", "B")}


def _checkpoint():
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        return load_checkpoint(untrained(Path(folder)))


def test_plain_and_tiled_predictions_say_the_same(tmp_path: Path) -> None:
    model = untrained(tmp_path)
    cell = graphene().structure
    strange = replace(cell, cell=cell.lattice * 0.9, positions=cell.positions * 0.9)
    plain = Predictor.load(model).run(strange).remarks
    assert any("nearest two atoms are 1.27" in remark and "in the training set 1.4" in remark for remark in plain)
    big = supercell_structure(strange, (3, 2, 1))
    summary = predict_in_tiles(model, "big", big, tmp_path / "big.h5", TileSettings(10**12, tile_atoms=2))
    assert set(summary.remarks) <= set(Predictor.load(model).run(big).remarks)  # that looks at S of small cells, too
    assert any("nearest two atoms are 1.27" in remark for remark in summary.remarks)


def test_a_resumed_run_knows_what_tiles_before_it_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, run_tiles = untrained(tmp_path), tiling.run_tiles
    cell = graphene().structure
    big = supercell_structure(replace(cell, cell=cell.lattice * 0.9, positions=cell.positions * 0.9), (2, 1, 1))

    def all_but_one(evaluator, task, left, *rest):
        """Ends the run before the last tile."""
        run_tiles(evaluator, task, left[:-1], *rest)
        raise KeyboardInterrupt

    monkeypatch.setattr(tiling, "run_tiles", all_but_one)
    with pytest.raises(KeyboardInterrupt):
        predict_in_tiles(model, "big", big, tmp_path / "big.h5", TileSettings(10**12, tile_atoms=1))
    monkeypatch.undo()
    summary = predict_in_tiles(model, "big", big, tmp_path / "big.h5", TileSettings(10**12, tile_atoms=1))
    assert summary.tiles_done_before == 3
    # the words have the number of short pairs, so a tile that is left out would show
    assert set(summary.remarks) <= set(Predictor.load(model).run(big).remarks)
    assert summary.remarks


def test_a_cell_smaller_than_the_reach_is_right(tmp_path: Path) -> None:
    predictor = Predictor.load(untrained(tmp_path))
    cell = graphene().structure
    reach = float(predictor.reach.max())
    assert np.linalg.norm(cell.lattice[0]) < reach / 2  # atoms see several of their own images
    small, repeats = predictor.calculation(cell), (5, 5, 1)
    large = predictor.calculation(supercell_structure(cell, repeats))
    for name in ("overlap", "hamiltonian"):
        expected = supercell_matrix(getattr(small, name), repeats)
        mine = getattr(large, name)
        assert np.array_equal(mine.pairs.cell_shift, expected.pairs.cell_shift)
        # a float64 network, sums in another order
        assert np.abs(mine.values - expected.values).max() < 1e-10
