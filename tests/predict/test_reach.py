"""Pairs of a prediction cover what H reached in the training data, S or no S."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from hamnet.config import config_from_dict
from hamnet.core.basis import OrbitalBasis, Shell, Species
from hamnet.core.blocks import BlockMatrix
from hamnet.core.calculation import Calculation
from hamnet.core.pairs import neighbour_pairs
from hamnet.core.spin import Spin
from hamnet.core.structure import AtomicStructure
from hamnet.nn.checkpoint import Checkpoint, save_checkpoint
from hamnet.nn.model import HamiltonianModel
from hamnet.nn.statistics import fit_statistics
from hamnet.predict.overlap import structure_pairs
from hamnet.predict.predictor import Predictor
from hamnet_preprocess.pyscf_overlap import THRESHOLD, gaussian_cutoffs, overlap_from_basis


def chain() -> Calculation:
    """A chain of tight s orbitals, whose S ends long before its (made-up) H does."""
    basis = OrbitalBasis((Species("H", 1, 1.0, (Shell(0, None, (4.0,), (1.0,)),)),))
    structure = AtomicStructure([1], [0], [[0.1, 0, 0]], np.diag([1.5, 20, 20]), [True] * 3)
    pairs = neighbour_pairs(structure, 8.0)
    lengths = np.linalg.norm(pairs.vectors(structure), axis=1)
    hamiltonian = BlockMatrix.from_values(pairs, basis, structure.species, Spin.NONE, -np.exp(-lengths))
    return Calculation(structure, basis, overlap_from_basis(structure, basis), hamiltonian)


def test_prediction_has_every_pair_of_the_training_data(tmp_path):
    calculation = chain()
    structure, basis = calculation.structure, calculation.basis
    assert (calculation.overlap.pairs.find(calculation.hamiltonian.pairs) < 0).any()
    sizes = {"layers": 1, "channels": 4, "radial_functions": 6, "radial_hidden": 8}
    config = config_from_dict({"data": {"store": "unused.h5"}, "network": sizes})
    statistics = fit_statistics([calculation], basis, calculation.spin, config.network)
    model = HamiltonianModel(config.network, basis, calculation.spin, statistics, dtype=torch.float64)
    save_checkpoint(tmp_path / "m.ckpt", Checkpoint(model, config, basis, calculation.spin, statistics, None, {}))
    found = Predictor.load(tmp_path / "m.ckpt").run(structure).calculation
    assert (found.hamiltonian.pairs.find(calculation.hamiltonian.pairs) >= 0).all()
    at = found.overlap.pairs.find(calculation.overlap.pairs)
    assert_allclose(found.overlap.values[found.overlap.offsets[at]], calculation.overlap.values, atol=1e-14)


def test_pairs_reach_as_far_as_h_of_their_species():
    calculation = chain()
    structure = calculation.structure
    expected = neighbour_pairs(structure, 5.0)
    pairs = structure_pairs(structure, calculation.basis, np.array([[5.0]]))
    assert pairs.n_pairs == expected.n_pairs
    assert (pairs.find(expected) >= 0).all()
    alone = structure_pairs(structure, calculation.basis)
    assert (alone.find(calculation.overlap.pairs) >= 0).all()
    assert alone.n_pairs <= calculation.overlap.pairs.n_pairs + 2


@pytest.mark.parametrize("seed", range(3))
def test_beyond_the_cutoffs_of_gaussians_s_is_negligible(seed):
    shells = (Shell(0, None, (0.3, 2.0), (0.6, 0.5)), Shell(1, None, (0.25,), (1.0,)), Shell(2, None, (0.8,), (1.0,)))
    basis = OrbitalBasis((Species("A", 6, 4.0, shells), Species("B", 1, 1.0, shells[:1])))
    cutoffs = gaussian_cutoffs(basis.species)
    assert cutoffs[0, 1] == cutoffs[1, 0] < cutoffs[0, 0]
    direction = np.random.default_rng(seed).normal(size=3)
    direction /= np.linalg.norm(direction)
    for a, b in ((0, 0), (0, 1), (1, 1)):
        for factor, some in ((1.0, False), (0.97, True)):
            dimer = AtomicStructure([6, 6], [a, b], np.array([np.zeros(3), direction * cutoffs[a, b] * factor]))
            matrix = overlap_from_basis(dimer, basis)
            far = matrix.block(int(np.flatnonzero(~matrix.pairs.on_site)[0]))
            # not below the threshold long before: lists of pairs would be longer than need be (norms against numbers)
            assert (np.abs(far).max() > THRESHOLD) == some
