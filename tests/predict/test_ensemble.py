"""Several models as one: the mean of their H, and a spread that knows of the free energy zero."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from model_files import graphene, untrained

import hamnet
from hamnet.core.calculation import Calculation
from hamnet.data.store import Store
from hamnet.errors import ConfigError, FormatError
from hamnet.nn.checkpoint import load_checkpoint, save_checkpoint
from hamnet.predict.batch import predict_files
from hamnet.predict.ensemble import Ensemble, block_spread, load_models


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three models whose weights differ a little, as `--ensemble 3` leaves them."""
    root = tmp_path_factory.mktemp("ensemble")
    checkpoint = load_checkpoint(untrained(root))
    for k in range(3):
        torch.manual_seed(k)
        state = {
            name: value + 0.01 * torch.randn_like(value) if value.is_floating_point() else value
            for name, value in checkpoint.model.state_dict().items()
        }
        (root / str(k)).mkdir()
        save_checkpoint(root / str(k) / "model.ckpt", checkpoint, state)
    (root / "model.ckpt").unlink()
    return root


def test_mean_and_spread(folder: Path) -> None:
    atoms = graphene().structure
    ensemble = hamnet.load(folder)
    assert isinstance(ensemble, Ensemble)
    single = [hamnet.load(folder / str(k) / "model.ckpt").predict(atoms) for k in range(3)]
    mean = ensemble.predict(atoms)
    np.testing.assert_allclose(mean.values, np.mean([m.values for m in single], axis=0), rtol=1e-14, atol=1e-14)
    assert mean.hermitian_residual()[0] == 0.0
    prediction = ensemble.run(atoms)
    by_hand = np.stack([m.values for m in single]).var(axis=0, ddof=1)
    block = slice(mean.offsets[3], mean.offsets[4])
    kept = block_spread(single, None)
    # float64 sums of a hundred numbers
    assert kept[3] == pytest.approx(np.sqrt(by_hand[block].mean()), rel=1e-10)
    assert prediction.spread.shape == (mean.pairs.n_pairs,)
    assert any("3 models differ" in remark for remark in prediction.remarks)


def test_spread_has_no_part_in_the_energy_zero(folder: Path) -> None:
    calculation: Calculation = graphene()
    h, s = calculation.hamiltonian, calculation.overlap.on_pairs(calculation.hamiltonian.pairs)
    moved = [h.with_values(h.values + mu * s.values) for mu in (0.0, 0.3, -0.1)]
    # rounding of numbers of some 10 eV
    assert block_spread(moved, s).max() < 1e-13
    # on site S is 1 on 5 of 25 numbers; the three mu have standard deviation 0.208 eV
    assert block_spread(moved, None).max() == pytest.approx(np.std([0.0, 0.3, -0.1], ddof=1) / np.sqrt(5), rel=1e-2)


def test_files_one_store_and_the_spread_beside_it(folder: Path, tmp_path: Path) -> None:
    from ase.io import write

    structure = graphene().structure
    from ase import Atoms

    write(tmp_path / "g.extxyz", Atoms(structure.atomic_numbers, structure.positions, cell=structure.lattice, pbc=True))
    summary = predict_files([folder], [tmp_path / "g.extxyz"], tmp_path / "H.h5")
    assert len(summary.spreads) == 1
    with Store(tmp_path / "H.h5") as store, np.load(tmp_path / "H.spread.npz") as beside:
        assert beside["names"].tolist() == store.names
        assert len(beside["0/spread"]) == store.read(0).hamiltonian.pairs.n_pairs == len(beside["0/pairs"])


def test_models_that_do_not_belong_together_are_refused(folder: Path, tmp_path: Path) -> None:
    one = load_checkpoint(folder / "0" / "model.ckpt")
    species = replace(one.basis.species[0], label="other")
    other = replace(one, basis=type(one.basis)((species,)))
    with pytest.raises(ConfigError, match="model 2 .*other"):
        Ensemble([one, other])
    with pytest.raises(FormatError, match="no model.ckpt"):
        load_models([tmp_path])
