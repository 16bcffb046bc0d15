"""Pairs of a prediction cover what H reached in the training data, S or no S."""

import numpy as np
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
from hamnet.predict.overlap import covering, structure_pairs
from hamnet.predict.predictor import Predictor
from hamnet_preprocess.pyscf_overlap import overlap_from_basis


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


def test_covering_adds_what_is_inside_the_reach_of_its_species():
    calculation = chain()
    structure, few = calculation.structure, neighbour_pairs(calculation.structure, 1.6)
    pairs = covering(structure, few, np.array([[5.0]]))
    expected = neighbour_pairs(structure, 5.0)
    assert pairs.n_pairs == expected.n_pairs
    assert (pairs.find(expected) >= 0).all()
    assert covering(structure, few, None) is few
    assert structure_pairs(structure, calculation.basis, np.array([[5.0]])).n_pairs >= expected.n_pairs
