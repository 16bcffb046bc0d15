"""Orders of orbitals, blocks and elements: exact inverses on random matrices, spectra kept, damage told."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from factories import lawful_calculation, random_matrix, random_structure, seeds, spins, two_species
from hypothesis import given, settings
from hypothesis import strategies as st

from hamnet.core.conventions import CONVENTIONS
from hamnet.core.spin import Spin
from hamnet.errors import PhysicsError
from hamnet.testing import assert_same_matrix, relabelled
from hamnet_preprocess.code_blocks import elements_of, hermitian, matrix_from_blocks, matrix_from_elements, reordered
from hamnet_preprocess.deeph import DeepHLegacyReader, DeepHReader
from hamnet_preprocess.deeph_write import reorder_atoms, write_deeph, write_deeph_legacy

conventions = st.sampled_from(sorted(CONVENTIONS))


@given(seed=seeds, spin=spins, name=conventions)
@settings(max_examples=10, deadline=None)
def test_elements_and_blocks_are_inverse_to_reading(seed: int, spin: Spin, name: str) -> None:
    structure, code = random_structure(seed), CONVENTIONS[name]
    matrix = random_matrix(seed, structure, spin)
    frame = structure, two_species(), spin, code, "here"
    # permutations and signs only, and (M + M^dagger) / 2 of a hermitian matrix: not a bit changes
    assert_same_matrix(matrix_from_elements(elements_of(matrix, code), *frame), matrix, 0.0)
    pairs, values = matrix.pairs, reordered(matrix, code, to_code=True).values
    assert_same_matrix(matrix_from_blocks(pairs.i, pairs.j, pairs.cell_shift, values, *frame), matrix, 0.0)
    assert_same_matrix(reordered(reordered(matrix, code, to_code=True), code, to_code=False), matrix, 0.0)


@given(seed=seeds, spin=spins)
@settings(max_examples=15, deadline=None)
def test_order_of_elements_does_not_matter(seed: int, spin: Spin) -> None:
    structure, code = random_structure(seed), CONVENTIONS["abacus"]
    matrix = random_matrix(seed, structure, spin)
    e = elements_of(matrix, code)
    mixed = np.random.default_rng(seed).permutation(len(e.row))
    shuffled = type(e)(e.row[mixed], e.column[mixed], e.shift[mixed], e.component[mixed], e.value[mixed])
    assert_same_matrix(matrix_from_elements(shuffled, structure, two_species(), spin, code, "here"), matrix, 0.0)


@given(seed=seeds, spin=st.sampled_from([Spin.NONE, Spin.SPINOR]))
@settings(max_examples=10, deadline=None)
def test_deeph_round_trip_of_any_crystal(seed: int, spin: Spin) -> None:
    """Atoms outside the cell, sheared cells, two elements in any order, one of them perhaps absent."""
    case = lawful_calculation(seed, spin)
    numbers = case.structure.atomic_numbers.tolist()
    order = np.argsort([numbers.index(z) for z in numbers], kind="stable")
    for write, reader, expected in (
        (write_deeph, DeepHReader(), reorder_atoms(case, order)),
        (write_deeph_legacy, DeepHLegacyReader(), case),
    ):
        with tempfile.TemporaryDirectory() as name:
            write(case, Path(name))
            back = reader.read(Path(name))
        assert back.hamiltonian is not None
        assert expected.hamiltonian is not None
        assert_same_matrix(back.hamiltonian, expected.hamiltonian, 1e-12)
        assert_same_matrix(back.overlap, expected.overlap, 1e-12)
        np.testing.assert_allclose(back.structure.positions, expected.structure.positions, atol=1e-13)


@given(seed=seeds, spin=spins)
@settings(max_examples=10, deadline=None)
def test_new_numbers_of_atoms_are_a_relabelling(seed: int, spin: Spin) -> None:
    case = lawful_calculation(seed, spin)
    order = np.random.default_rng(seed).permutation(case.structure.n_atoms)
    moved = reorder_atoms(case, order)
    assert moved.hamiltonian is not None
    assert case.hamiltonian is not None
    assert_same_matrix(relabelled(moved.hamiltonian, atoms=order), case.hamiltonian, 0.0)


def test_a_small_block_without_reverse_is_completed_a_large_one_is_told() -> None:
    structure = random_structure(3)
    matrix = random_matrix(3, structure, Spin.NONE)
    e, code = elements_of(matrix, CONVENTIONS["hamnet"]), CONVENTIONS["hamnet"]
    lost = (e.shift == e.shift[-1]).all(axis=1) & (e.row >= e.row[-1])
    kept = replace(e, **{k: getattr(e, k)[~lost] for k in ("row", "column", "shift", "component", "value")})
    with pytest.raises(
        PhysicsError, match=r"here: the matrix is not hermitian: the block of pair \(.*a block is missing"
    ):
        matrix_from_elements(kept, structure, two_species(), Spin.NONE, code, "here")
    tiny = replace(e, value=np.where(lost, 0.0, e.value))
    one_way = replace(e, value=np.where(lost, e.value, 0.0) * 1e-9 + tiny.value * (e.row == e.column))
    matrix_from_elements(one_way, structure, two_species(), Spin.NONE, code, "here")


def test_wrong_numbers_are_told() -> None:
    structure = random_structure(4)
    matrix = random_matrix(4, structure, Spin.NONE)
    pairs, code = matrix.pairs, CONVENTIONS["hamnet"]
    frame = structure, two_species(), Spin.NONE, code, "here"
    with pytest.raises(PhysicsError, match="here: .* numbers, expected"):
        matrix_from_blocks(pairs.i, pairs.j, pairs.cell_shift, matrix.values[:-1], *frame)
    twice = [np.concatenate((x, x[:1])) for x in (pairs.i, pairs.j, pairs.cell_shift)]
    values = np.concatenate((matrix.values, matrix.block(0).ravel()))
    with pytest.raises(PhysicsError, match="here: pair .* appears more than once"):
        matrix_from_blocks(*twice, values, *frame)
    bad = matrix.with_values(matrix.values.copy())
    bad.block(int(np.flatnonzero(pairs.i != pairs.j)[0]))[0, 0] += 1
    with pytest.raises(PhysicsError, match="differs from its reverse by 1"):
        hermitian(bad, "here")
