"""Ranking: known errors come first, molecules and crystals, files, bad structures and resuming."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from hypothesis import given
from hypothesis import strategies as st
from model_files import graphene, untrained

from hamnet.cli import app
from hamnet.config import config_from_dict
from hamnet.core.spin import Spin
from hamnet.core.structure import AtomicStructure
from hamnet.errors import ConfigError, PhysicsError
from hamnet.nn.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from hamnet.nn.model import HamiltonianModel
from hamnet.nn.prior import Baseline
from hamnet.nn.statistics import fit_statistics
from hamnet.predict.fock_check import MakeBuilder
from hamnet.predict.selection import Ranked, Ranking, select, write_top
from hamnet_preprocess.pyscf_basis import basis_of, molecule_calculation
from hamnet_preprocess.pyscf_fock import FockBuilder, FockResult, Method, dense_of

WATER = np.array([[0.0, 0.0, 0.0], [0.76, 0.59, 0.0], [-0.76, 0.59, 0.0]])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Untrained model of water in a minimal basis, whose H is the mean of one label."""
    from pyscf import gto, scf

    mol = gto.M(atom=list(zip("OHH", WATER.tolist(), strict=True)), basis="sto-3g", verbose=0)
    mf = scf.RHF(mol).run()
    basis, _ = basis_of(mol)
    numbers = np.array([8, 1, 1])
    calculation = molecule_calculation(numbers, WATER, basis, mf.get_fock(), mf.get_ovlp())
    sizes = {"layers": 1, "channels": 4, "radial_functions": 6, "radial_hidden": 8, "message_cutoff": 5.0}
    config = config_from_dict({"data": {"store": "unused.h5"}, "network": sizes | {"baseline": "none"}})
    statistics = fit_statistics([calculation], basis, calculation.spin, config.network)
    torch.manual_seed(0)
    network = HamiltonianModel(config.network, basis, calculation.spin, statistics)
    path = tmp_path_factory.mktemp("model") / "model.ckpt"
    metadata = {"functional": "hf", "grid": "", "code": "pyscf"}
    save_checkpoint(path, Checkpoint(network, config, basis, calculation.spin, statistics, None, metadata))
    return path


def pool() -> list[tuple[str, Atoms]]:
    return [(f"w{k}", Atoms("OHH", WATER * (1 + 0.1 * k))) for k in range(3)]


class Known(FockBuilder):
    """F = H + error, the error growing with the size of the molecule."""

    def build(self, density: np.ndarray) -> FockResult:
        """The density's own F, perturbed."""
        result = super().build(density)
        rng = np.random.default_rng(0)
        noise = rng.normal(size=density.shape)
        size = float(np.ptp(self.structure.positions)) - 1.4
        own = _fixed_point(density, self.overlap)
        return FockResult(own + size * (noise + noise.T), result.energy)


def _fixed_point(density: np.ndarray, overlap: np.ndarray) -> np.ndarray:
    """An F that commutes with the density: -S D S."""
    return -overlap @ density @ overlap


def test_the_worst_comes_first(model: Path, tmp_path: Path) -> None:
    ranking = select([model], pool(), tmp_path / "ranked.csv", top=2, make_builder=Known)
    assert [row.name for row in ranking.rows] == ["w2", "w1", "w0"]
    assert ranking.builds == 3
    with (tmp_path / "ranked.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == ["w2", "w1", "w0"]
    assert [row["rank"] for row in rows] == ["1", "2", "3"]
    assert all(row["measure"] == "commutator" for row in rows)
    assert float(rows[0]["score_eV"]) == pytest.approx(ranking.rows[0].score, rel=1e-8)
    frames = ase.io.read(tmp_path / "ranked.extxyz", index=":")
    assert [frame.info["hamnet_name"] for frame in frames] == ["w2", "w1"]
    np.testing.assert_allclose(frames[0].positions, WATER * 1.2, atol=1e-8)  # extxyz keeps eight decimals
    assert not list(tmp_path.glob("*.part.csv"))


def test_bad_structures_come_last_with_their_reason(model: Path, tmp_path: Path) -> None:
    bad = [
        ("close", Atoms("OHH", 0.05 * WATER)),
        ("radical", Atoms("OH", WATER[:2])),
        ("gold", Atoms("Au", [[0, 0, 0]])),
        ("cell", Atoms("OHH", WATER, cell=5 * np.eye(3), pbc=True)),
        ("nan", Atoms("OHH", WATER * np.nan)),
    ]
    lines: list[str] = []
    ranking = select([model], [*bad, *pool()[:1]], tmp_path / "ranked.csv", on_line=lines.append)
    assert ranking.rows[0].name == "w0"
    assert [row.name for row in ranking.rows[1:]] == [name for name, _ in bad]
    assert all(row.reason and math.isnan(row.score) for row in ranking.rows[1:])
    assert len(ase.io.read(tmp_path / "ranked.extxyz", index=":")) == 1
    assert sum(line.startswith("left out: ") for line in lines) == len(bad)
    with pytest.raises(PhysicsError, match="no structure could be ranked"):
        select([model], bad, tmp_path / "none.csv")


def dying_at(number: int) -> MakeBuilder:
    """Fock builders, until Ctrl-C comes at this one."""
    count = 0

    def build(structure: AtomicStructure, *rest: Any) -> FockBuilder:
        nonlocal count
        count += 1
        if count == number:
            raise KeyboardInterrupt
        return FockBuilder(structure, *rest)

    return build


def test_a_killed_ranking_goes_on(model: Path, tmp_path: Path) -> None:
    whole = select([model], pool(), tmp_path / "whole.csv")
    with pytest.raises(KeyboardInterrupt):
        select([model], pool(), tmp_path / "ranked.csv", make_builder=dying_at(3))
    again = select([model], pool(), tmp_path / "ranked.csv")
    assert again.builds == 3
    assert [row.name for row in again.rows] == [row.name for row in whole.rows]
    # PySCF adds in an order of its own: the last digit may differ
    np.testing.assert_allclose([row.score for row in again.rows], [row.score for row in whole.rows], rtol=1e-10)


def test_a_structure_that_was_edited_after_a_kill_is_ranked_anew(model: Path, tmp_path: Path) -> None:
    """The others keep what was built for them."""
    with pytest.raises(KeyboardInterrupt):
        select([model], pool(), tmp_path / "ranked.csv", make_builder=dying_at(3))
    edited = pool()
    edited[0] = ("w0", Atoms("OHH", WATER * 1.15))
    again = select([model], edited, tmp_path / "ranked.csv")
    whole = select([model], edited, tmp_path / "whole.csv")
    assert again.builds == 4  # w0 twice
    assert [row.name for row in again.rows] == [row.name for row in whole.rows]
    np.testing.assert_allclose([row.score for row in again.rows], [row.score for row in whole.rows], rtol=1e-10)


def with_reference(model: Path, path: Path) -> Path:
    """The same weights as if they had learnt H - H0."""
    known = load_checkpoint(model)
    network = known.config.network.model_copy(update={"baseline": "reference"})
    config = known.config.model_copy(update={"network": network})
    save_checkpoint(path, replace(known, config=config, baseline=Baseline("reference", Spin.NONE)))
    return path


def test_builds_of_the_reference_are_told_and_counted(model: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    start = with_reference(model, tmp_path / "reference.ckpt")
    ranking = select([start], pool()[:2], tmp_path / "ranked.csv", on_line=lines.append)
    assert ranking.builds == 4
    assert "2 structures, two Fock builds each, one of them for the H0" in lines[0]
    ranking = select([start, start], pool()[:2], tmp_path / "spread.csv", on_line=lines.append)
    assert (ranking.measure, ranking.builds) == ("spread", 2)
    assert any("2 structures, one Fock build each, for the H0" in line for line in lines)


def test_the_time_of_one_is_told_after_the_first_that_succeeds(model: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    bad = [(name, Atoms("Au", [[0, 0, 0]])) for name in ("gold", "more gold")]
    select([model], [*bad, *pool()], tmp_path / "ranked.csv", on_line=lines.append)
    assert [line.startswith("left out: ") for line in lines] == [False, True, True, False]
    assert lines[3].startswith("one took ")


@pytest.fixture(scope="module")
def crystals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ensemble of two models of graphene whose weights differ a little."""
    root = tmp_path_factory.mktemp("ensemble")
    checkpoint = load_checkpoint(untrained(root))
    for k in range(2):
        torch.manual_seed(k)
        state = {
            name: value + 0.01 * torch.randn_like(value) if value.is_floating_point() else value
            for name, value in checkpoint.model.state_dict().items()
        }
        (root / str(k)).mkdir()
        save_checkpoint(root / str(k) / "model.ckpt", checkpoint, state)
    (root / "model.ckpt").unlink()
    return root


def test_crystals_are_ranked_by_spread(crystals: Path, tmp_path: Path) -> None:
    cell = graphene().structure
    first = Atoms(cell.atomic_numbers, cell.positions, cell=cell.cell, pbc=cell.pbc)
    second = first.copy()
    second.positions[0] += 0.1
    ranking = select([crystals], [("flat", first), ("moved", second)], tmp_path / "ranked.csv", top=1)
    assert ranking.measure == "spread"
    assert ranking.builds == 0
    assert ranking.rows[0].score >= ranking.rows[1].score > 0
    frame = ase.io.read(tmp_path / "ranked.extxyz")
    assert frame.pbc.all()
    with pytest.raises(ConfigError, match="one model has no spread"):
        select([crystals / "0" / "model.ckpt"], [("flat", first)], tmp_path / "one.csv", "spread")


def test_impossible_requests_are_refused(model: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"name a \.csv file"):
        select([model], pool(), tmp_path / "ranked.txt")
    with pytest.raises(ConfigError, match="one name"):
        select([model], pool() * 2, tmp_path / "ranked.csv")


@pytest.mark.parametrize("reached", ["by its name", "by a link", "through another folder"])
def test_the_pool_is_never_overwritten(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reached: str
) -> None:
    path = tmp_path / "pool.extxyz"
    ase.io.write(path, [atoms for _, atoms in pool()])
    before = path.read_bytes()
    given_path, output = path, tmp_path / "pool.csv"
    if reached == "by a link":
        given_path = tmp_path / "link.extxyz"
        given_path.symlink_to(path)
    elif reached == "through another folder":
        (tmp_path / "sub").mkdir()
        monkeypatch.chdir(tmp_path / "sub")
        output = Path("../pool.csv")
    with pytest.raises(ConfigError, match=r"another name than pool\.csv"):
        app(["select", str(model), str(given_path), "-o", str(output)], standalone_mode=False)
    assert path.read_bytes() == before
    assert not list(tmp_path.glob("*.csv"))


@given(scores=st.lists(st.floats(0, 1e3) | st.just(math.nan), min_size=1, max_size=6), top=st.integers(1, 8))
def test_tables_keep_what_is_not_known_empty(
    scores: list[float], top: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("table")
    rows = tuple(Ranked(f"s{k}", 3, score, reason="" if score == score else "why") for k, score in enumerate(scores))
    ranking = Ranking("commutator", rows, 0)
    ranking.write(folder / "table.csv")
    with (folder / "table.csv").open() as file:
        found = list(csv.DictReader(file))
    assert [row["score_eV"] == "" for row in found] == [math.isnan(score) for score in scores]
    count = write_top(folder / "top.extxyz", ranking, {row.name: Atoms("H") for row in rows}, top)
    assert count == sum(not math.isnan(score) for score in scores[:top])


def test_verb(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ase.io.write(tmp_path / "pool.extxyz", [atoms for _, atoms in pool()])
    arguments = ["select", model, tmp_path / "pool.extxyz", "-o", tmp_path / "ranked.csv", "--top", "1", "--json"]
    app(list(map(str, arguments)), standalone_mode=False)
    figures = json.loads(capsys.readouterr().out)
    assert (figures["measure"], figures["fock_builds"], figures["ranked"]) == ("commutator", 3, 3)
    assert len(ase.io.read(tmp_path / "ranked.extxyz", index=":")) == 1


def test_the_commutator_is_that_of_the_prediction(model: Path, tmp_path: Path) -> None:
    """Against PySCF's own orbital gradient: |F D S - S D F| = 2 sqrt(2) |F_ov|."""
    from hamnet.predict.predictor import Predictor
    from hamnet_preprocess.pyscf_fock import orbitals_of

    predictor = Predictor.load(model)
    (name, atoms) = pool()[1]
    ranking = select([model], [(name, atoms)], tmp_path / "ranked.csv")
    builder = FockBuilder(predictor.structure(atoms), predictor.basis, Method("hf"))
    _, states = orbitals_of(dense_of(predictor.predict(atoms)), builder.overlap)
    fock = builder.build(2 * states[:, :5] @ states[:, :5].T).fock
    expected = 2 * math.sqrt(2) * np.linalg.norm(states[:, :5].T @ fock @ states[:, 5:]) / math.sqrt(10)
    # S from PySCF twice, once through contracted shells: 1e-9
    assert ranking.rows[0].score == pytest.approx(expected, rel=1e-6)
