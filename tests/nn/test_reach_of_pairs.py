"""Orbitals without a sharp radius: how far pairs reach, and that pairs beyond are zero and change nothing else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from model_cases import basis_of, crystal, model_of, predict_all

from hamnet.config import NetworkConfig
from hamnet.core.basis import OrbitalBasis
from hamnet.core.blocks import BlockMatrix
from hamnet.core.calculation import Calculation
from hamnet.core.pairs import neighbour_pairs
from hamnet.core.spin import Spin
from hamnet.nn.statistics import CRYSTAL_MARGIN, fit_statistics

FELT = 5.6
"""Angstrom, above the 5 A that every pair may have; the tests make H vanish beyond it."""


def without_radii() -> tuple[OrbitalBasis, Calculation]:
    """Random blocks on all pairs up to 7 A, tiny ones beyond `FELT`, in a basis that says no radius."""
    species = tuple(
        replace(s, shells=tuple(replace(shell, radius=None) for shell in s.shells)) for s in basis_of(Spin.NONE).species
    )
    basis, structure = OrbitalBasis(species), crystal(0)
    pairs = neighbour_pairs(structure, 7.0)
    empty = BlockMatrix.zeros(pairs, basis, structure.species)
    values = np.random.default_rng(0).normal(size=len(empty.values))
    matrix = empty.with_values(values).symmetrised()
    lengths = np.linalg.norm(pairs.vectors(structure), axis=1)
    factor = np.repeat(np.where(lengths > FELT, 1e-7, 1.0), np.diff(matrix.offsets))
    return basis, Calculation(structure, basis, empty, matrix.with_values(matrix.values * factor))


def test_reach_is_that_of_numbers_that_count() -> None:
    """Blocks of 1e-7 eV do not make pairs longer: the cutoff is a margin beyond the longest block that is felt."""
    basis, calculation = without_radii()
    found = fit_statistics([calculation], basis, Spin.NONE, NetworkConfig(channels=4)).pair_cutoffs
    assert (found <= CRYSTAL_MARGIN * FELT).all()
    assert found.max() > FELT


def test_pairs_beyond_the_cutoff_are_zero_and_change_nothing() -> None:
    """A model whose cutoff is shorter than its pairs: zero beyond, and within the same bits as without them."""
    model, structure = model_of(Spin.NONE), crystal(seed=2)
    whole = predict_all(model, [structure])[0]
    lengths = np.linalg.norm(whole.pairs.vectors(structure), axis=1)
    before = model.pair_cutoffs
    try:
        model.pair_cutoffs = torch.full_like(before, 2.5)
        short = predict_all(model, [structure])[0]
    finally:
        model.pair_cutoffs = before
    beyond = np.repeat(lengths >= 2.5, np.diff(whole.offsets))
    assert beyond.any()
    assert not short.values[beyond].any()
    assert short.values[~beyond].any()
