"""A store filled piece by piece, in any order, is the store that the writer makes at once."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from factories import random_structure, two_species

from hamnet.core.blocks import BlockMatrix
from hamnet.core.calculation import Calculation
from hamnet.core.pairs import orbital_pairs
from hamnet.core.spin import Spin
from hamnet.data.store import write_store
from hamnet.data.store_format import TABLES, TEXTS
from hamnet.data.store_in_place import PairLayout, PieceWriter, float_factor, make_store, no_overlap
from hamnet.errors import FormatError

BASIS = two_species()


def random_calculation(seed: int, spin: Spin) -> Calculation:
    """Hermitian S and H of random numbers."""
    structure, rng = random_structure(seed), np.random.default_rng(seed)
    pairs = orbital_pairs(structure, BASIS)
    matrices = []
    for layer in (Spin.NONE, spin):
        matrix = BlockMatrix.zeros(pairs, BASIS, structure.species, layer)
        values = rng.normal(size=len(matrix.values)).astype(layer.dtype)
        if layer is Spin.SPINOR:
            values = values + 1j * rng.normal(size=len(values))
        matrices.append(matrix.with_values(values).symmetrised())
    return Calculation(structure, BASIS, *matrices, n_electrons=3.0)


def layout_of(calculation: Calculation) -> PairLayout:
    pairs, species = calculation.overlap.pairs, calculation.structure.species
    every = np.zeros((len(species), len(BASIS.species)), dtype=np.int64)
    kept = np.zeros_like(every)
    np.add.at(every, (pairs.i, species[pairs.j]), 1)
    leading = np.arange(pairs.n_pairs) <= pairs.reverse
    np.add.at(kept, (pairs.i[leading], species[pairs.j[leading]]), 1)
    return PairLayout(species, BASIS.n_orbitals, every, kept)


def fill(path: Path, calculation: Calculation, layout: PairLayout, seed: int) -> None:
    """Pairs and blocks of the calculation in a random order."""
    pairs, rng = calculation.overlap.pairs, np.random.default_rng(seed)
    rows = np.column_stack((pairs.i, pairs.j, pairs.cell_shift, pairs.reverse))
    leading = np.flatnonzero(np.arange(pairs.n_pairs) <= pairs.reverse)
    sizes = np.diff(calculation.overlap.offsets)[leading]
    places = np.cumsum(sizes) - sizes
    base = 0
    with PieceWriter(path) as writer:
        order = rng.permutation(pairs.n_pairs)
        for part in np.array_split(order, 3):
            writer.write("pairs", rows[part], part)
        for matrix in (calculation.overlap, calculation.hamiltonian):
            factor = float_factor(matrix.spin)
            for part in np.array_split(rng.permutation(len(leading)), 3):
                chosen = [np.atleast_1d(matrix.block(p).ravel()).view(np.float64) for p in leading[part]]
                writer.write("values", np.concatenate(chosen), base + factor * places[part], factor * sizes[part])
            base += factor * int(sizes.sum())
        writer.write("pairs", rows[:0], order[:0])
        writer.sync()


@pytest.mark.parametrize("spin", list(Spin))
@pytest.mark.parametrize("seed", range(4))
def test_pieces_in_any_order_make_the_store_of_the_writer(tmp_path: Path, spin: Spin, seed: int) -> None:
    calculation = random_calculation(seed, spin)
    write_store(tmp_path / "whole.h5", [("a", calculation)])
    bare = no_overlap(BASIS, calculation.structure.species)
    layout = layout_of(calculation)
    make_store(tmp_path / "pieces.h5", "a", replace(calculation, overlap=bare, hamiltonian=None), spin, layout)
    fill(tmp_path / "pieces.h5", calculation, layout, seed)
    with h5py.File(tmp_path / "whole.h5") as whole, h5py.File(tmp_path / "pieces.h5") as pieces:
        assert dict(whole.attrs) == dict(pieces.attrs)
        for name in (*TABLES, *TEXTS):
            assert np.array_equal(whole[name][()], pieces[name][()]), name
            assert whole[name].dtype == pieces[name].dtype
            assert dict(whole[name].attrs) == dict(pieces[name].attrs)


def test_more_pairs_than_the_store_can_count_are_refused(tmp_path: Path) -> None:
    calculation = random_calculation(0, Spin.NONE)
    bare = replace(calculation, overlap=no_overlap(BASIS, calculation.structure.species), hamiltonian=None)
    layout = layout_of(calculation)
    with pytest.raises(FormatError, match="more than a store can count"):
        make_store(tmp_path / "a.h5", "a", bare, Spin.NONE, replace(layout, pairs=layout.pairs + 2**31))


def test_a_full_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calculation = random_calculation(0, Spin.NONE)
    bare = replace(calculation, overlap=no_overlap(BASIS, calculation.structure.species), hamiltonian=None)
    layout = layout_of(calculation)
    make_store(tmp_path / "a.h5", "a", bare, Spin.NONE, layout)

    def full(*_: object) -> int:
        """As a full disk answers."""
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OSError, match="could not write the store"):
        fill(tmp_path / "a.h5", calculation, layout, 0)


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    calculation = random_calculation(0, Spin.NONE)
    bare = replace(calculation, overlap=no_overlap(BASIS, calculation.structure.species), hamiltonian=None)
    with pytest.raises(OSError, match="could not write the store"):
        make_store(tmp_path / "no" / "a.h5", "a", bare, Spin.NONE, layout_of(calculation))
