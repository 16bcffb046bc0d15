"""Fine-tuning: the same predictions where nothing is new, weights by label where species are others."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from model_cases import crystal, model_of, predict_all
from training_cases import small_config, small_store, small_train

from hamnet.core.basis import OrbitalBasis, Shell, Species
from hamnet.core.bloch import BlochSum
from hamnet.core.spin import Spin
from hamnet.nn.checkpoint import load_checkpoint
from hamnet.nn.model import HamiltonianModel
from hamnet.nn.statistics import Statistics
from hamnet.train.finetune import SPECIES_COLUMNS, take_over
from hamnet.train.run import train


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_train(tmp_path_factory.mktemp("trained"), epochs=2).checkpoint


def with_basis(model: HamiltonianModel, basis: OrbitalBasis, order: list[int], seed: int) -> HamiltonianModel:
    """An untrained model of other species; `order[k]` is the old index of new species k."""
    old = model.statistics
    place = {was: now for now, was in enumerate(order)}
    groups = {(place[a], place[b], on): g for (a, b, on), g in old.groups.items() if a in place and b in place}
    cutoffs = old.pair_cutoffs[np.ix_(order, order)]
    statistics = Statistics(cutoffs, old.message_cutoff, old.average_neighbours, groups)
    torch.manual_seed(seed)
    return HamiltonianModel(model.settings, basis, model.spin, statistics, model.dtype)


def test_species_in_another_order_keep_their_weights(trained: Path) -> None:
    source = load_checkpoint(trained).model
    species = source.basis.species
    turned = with_basis(source, OrbitalBasis(species[::-1]), [1, 0], seed=5)
    result = take_over(turned, source)
    assert not result.anew
    assert not result.partly
    assert result.numbers == result.total
    back = with_basis(turned, OrbitalBasis(species), [1, 0], seed=6)
    take_over(back, turned)
    mine, theirs = dict(back.named_parameters()), dict(source.named_parameters())
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
    # the columns of the two species have changed places
    assert torch.equal(turned.embedding.weight, source.embedding.weight.flip(1))


@pytest.mark.parametrize("spin", Spin, ids=lambda spin: spin.value)
def test_species_in_another_order_give_the_same_hamiltonian(spin: Spin) -> None:
    source = model_of(spin)
    basis = OrbitalBasis(source.basis.species[::-1])
    turned = with_basis(source, basis, [1, 0], seed=5)
    take_over(turned, source)
    structure = crystal(3)
    other = replace(structure, species=1 - structure.species)
    (mine,), (theirs,) = predict_all(turned, [other]), predict_all(source, [structure])
    # blocks stand in the order of the species: compare the matrices; float64, sums in another order
    at = np.array([0.1, 0.2, 0.3])
    np.testing.assert_allclose(BlochSum(mine).dense(at), BlochSum(theirs).dense(at), rtol=0, atol=1e-9)


def test_every_weight_that_grows_with_the_species_is_known_by_name(trained: Path) -> None:
    """A new kind of weight that depends on the species must be entered in `SPECIES_COLUMNS`."""
    source = load_checkpoint(trained).model
    light = source.basis.species[1]
    third = replace(light, label="C-s1p1", atomic_number=7)
    larger = with_basis(source, OrbitalBasis((*source.basis.species, third)), [0, 1, 1], seed=0)
    old = {name: weight.shape for name, weight in source.named_parameters()}
    grown = [n for n, w in larger.named_parameters() if n in old and w.shape != old[n]]
    assert grown
    assert all(any(re.fullmatch(pattern, name) for pattern in SPECIES_COLUMNS) for name in grown)
    result = take_over(larger, source)
    assert set(result.partly) == set(grown)
    assert "taken over" in result.lines()[0]


def test_other_orbitals_of_an_element_start_from_it(trained: Path) -> None:
    source = load_checkpoint(trained).model
    heavy, light = source.basis.species
    small = Species("A-s1", heavy.atomic_number, heavy.valence_electrons, (Shell(0, 1.6),))
    model = with_basis(source, OrbitalBasis((light, heavy)), [1, 0], seed=0)
    take_over(model, source)
    basis = OrbitalBasis((light, replace(small, shells=heavy.shells, label="A-new")))
    other = with_basis(source, basis, [1, 0], seed=1)
    take_over(other, source)
    assert torch.equal(other.embedding.weight, model.embedding.weight)


def test_nothing_new_starts_from_the_very_predictions(trained: Path, tmp_path: Path) -> None:
    store = small_store(tmp_path / "new.h5", n=5, first=20)
    lines: list[str] = []
    # a learning rate of nothing: what comes out is what went in
    config = small_config(store, tmp_path / "run", epochs=1, learning_rate=1e-30, weight_decay=0.0)
    result = train(config, on_line=lines.append, source=trained)
    one, two = load_checkpoint(trained), load_checkpoint(result.checkpoint)
    assert one.basis.hash == two.basis.hash
    for name, value in one.model.state_dict().items():
        torch.testing.assert_close(two.model.state_dict()[name], value, rtol=1e-6, atol=1e-12, msg=name)
    assert any("taken over" in line for line in lines)
    assert two.metadata["from"] == one.sha256
    assert two.statistics.average_neighbours == one.statistics.average_neighbours


def test_spin_may_differ(trained: Path, tmp_path: Path) -> None:
    store = small_store(tmp_path / "spinor.h5", Spin.SPINOR, n=5)
    lines: list[str] = []
    train(small_config(store, tmp_path / "run", epochs=1), on_line=lines.append, source=trained)
    assert any("anew: " in line and "moments.odd" in line for line in lines)
