"""Tiles of ensembles, of several structures, of a given S, of Gaussians; two processes that are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.io import write
from model_cases import crystal, model_of
from test_tiling import EXACT, PLENTY, checkpoint, differences, structure, tiled

from hamnet.config import config_from_dict
from hamnet.core.basis import OrbitalBasis, Shell, Species
from hamnet.core.calculation import Calculation
from hamnet.core.pairs import PairList
from hamnet.core.spin import Spin
from hamnet.core.structure import AtomicStructure
from hamnet.core.supercell import supercell_structure
from hamnet.data.store import Store, write_store
from hamnet.errors import FormatError, PhysicsError
from hamnet.nn.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from hamnet.nn.model import HamiltonianModel
from hamnet.nn.statistics import fit_statistics
from hamnet.predict.batch import OF_COLLINEAR, predict_files
from hamnet.predict.ensemble import EnsemblePrediction, load_models, spread_path
from hamnet.predict.given_overlap import GivenOverlap
from hamnet.predict.overlap import structure_pairs
from hamnet.predict.predictor import Predictor
from hamnet.predict.tile import TileEvaluator, tile_cutoffs
from hamnet.predict.tiled_files import predict_files_in_tiles
from hamnet.predict.tiling import TileSettings, predict_in_tiles
from hamnet_preprocess.pyscf_overlap import overlap_from_basis


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


def ensemble(folder: Path, spin: Spin, n: int = 3) -> list[Path]:
    """Models whose weights differ a little."""
    known = load_checkpoint(checkpoint(folder, spin))
    paths = []
    for k in range(n):
        torch.manual_seed(k)
        state = {
            name: value + 0.05 * torch.randn_like(value) if value.is_floating_point() else value
            for name, value in known.model.state_dict().items()
        }
        paths.append(folder / f"{spin.value}-member-{k}.ckpt")
        save_checkpoint(paths[-1], known, state)
    return paths


@pytest.mark.parametrize(
    ("kind", "spin"), [("crystal", Spin.NONE), ("molecule", Spin.COLLINEAR), ("crystal", Spin.SPINOR)]
)
def test_an_ensemble_in_tiles_has_its_mean_and_spread(tmp_path: Path, folder: Path, kind: str, spin: Spin) -> None:
    models, atoms, output = ensemble(folder, spin), structure(kind), tmp_path / "big.h5"
    expected = load_models(models).run(atoms)
    assert isinstance(expected, EnsemblePrediction)
    summary = predict_in_tiles(models, "big", atoms, output, TileSettings(PLENTY, tile_atoms=1))
    found = Store(output).read(0)
    assert max(differences(found, expected.calculation)) < EXACT
    assert found.provenance == expected.calculation.provenance
    with np.load(spread_path(output)) as file:
        pairs, spread = file["0/pairs"], file["0/spread"]
    theirs = expected.calculation.overlap.pairs
    assert np.array_equal(pairs, np.column_stack((theirs.i, theirs.j, theirs.cell_shift)))
    assert expected.spread.max() > 1e-3  # the members do differ
    # a difference of squares: rounding of numbers of order one
    np.testing.assert_allclose(spread, expected.spread, rtol=1e-7, atol=1e-8)
    assert summary.remarks[-1] == expected.remarks[-1]
    assert summary.spread == spread_path(output)


def test_tilted_moments_of_a_collinear_model_give_spinors(tmp_path: Path, folder: Path) -> None:
    known = load_checkpoint(checkpoint(folder, Spin.COLLINEAR))
    model = model_of(Spin.COLLINEAR, magnetic=True)
    path = folder / "magnetic.ckpt"
    config = known.config.model_copy(update={"network": model.settings})
    save_checkpoint(path, replace(known, model=model, config=config, statistics=model.statistics))
    cell = crystal(0, magnetic=Spin.SPINOR)
    numbers = ["Si" if z == 14 else "N" for z in cell.atomic_numbers]
    write(tmp_path / "tilted.extxyz", Atoms(numbers, cell.positions, cell=cell.cell, pbc=True, magmoms=cell.moments))
    predict_files([path], [tmp_path / "tilted.extxyz"], tmp_path / "plain.h5")
    summary = predict_files_in_tiles([path], [tmp_path / "tilted.extxyz"], tmp_path / "big.h5", TileSettings(PLENTY))
    assert summary.remarks[0] == OF_COLLINEAR
    found, expected = Store(tmp_path / "big.h5").read(0), Store(tmp_path / "plain.h5").read(0)
    assert found.hamiltonian is not None
    assert found.hamiltonian.spin is Spin.SPINOR
    assert max(differences(found, expected)) < EXACT


def frames(folder: Path, n: int = 3) -> Path:
    """Small crystals of both species, as a file."""
    made = [structure("crystal", seed) for seed in range(n)]
    numbers = ["Si" if z == 14 else "N" for z in made[0].atomic_numbers]
    write(folder / "md.extxyz", [Atoms(numbers, s.positions, cell=s.cell, pbc=True) for s in made])
    return folder / "md.extxyz"


def test_several_structures_become_one_store(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models, path, output = ensemble(folder, Spin.NONE, 2), frames(tmp_path), tmp_path / "H.h5"
    done: list[str] = []

    def stopped(*arguments, **options):
        """Ends the run at the third structure."""
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(arguments[1])
        return predict_in_tiles(*arguments, **options)

    monkeypatch.setattr("hamnet.predict.tiled_files.predict_in_tiles", stopped)
    with pytest.raises(KeyboardInterrupt):
        predict_files_in_tiles(models, [path], output, TileSettings(PLENTY))
    assert not output.exists()
    monkeypatch.undo()
    said: list[str] = []
    summary = predict_files_in_tiles(models, [path], output, TileSettings(PLENTY), on_event=said.append)
    assert sum("is taken from" in line for line in said) == 2
    assert (summary.structures, summary.atoms) == (3, 12)
    expected = load_models(models)
    with Store(output) as store, np.load(spread_path(output)) as spreads:
        assert list(store.names) == ["md/0", "md/1", "md/2"] == spreads["names"].tolist()
        for k, name in enumerate(store.names):
            found = store.read(name)
            prediction = expected.run(found.structure)
            assert isinstance(prediction, EnsemblePrediction)
            assert max(differences(found, prediction.calculation)) < EXACT
            np.testing.assert_allclose(spreads[f"{k}/spread"], prediction.spread, rtol=1e-7, atol=1e-8)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["H.h5", "H.spread.npz", "md.extxyz"]


def test_one_structure_of_a_file_and_bad_files(tmp_path: Path, folder: Path) -> None:
    model = checkpoint(folder, Spin.NONE)
    write(tmp_path / "one.extxyz", Atoms("N2", [[0, 0, 0], [0, 0, 1.2]]))
    summary = predict_files_in_tiles([model], [tmp_path / "one.extxyz"], tmp_path / "big.h5", TileSettings(PLENTY))
    assert (summary.atoms, summary.tiles, summary.pairs) == (2, 1, 4)
    assert summary.forecast_seconds > 0
    with pytest.raises(FormatError):
        predict_files_in_tiles(
            [tmp_path / "no.ckpt"], [tmp_path / "one.extxyz"], tmp_path / "big.h5", TileSettings(PLENTY)
        )


# ---------------------------------------------------------------- S from a file


def given(calculation: Calculation, scale: float) -> Calculation:
    """Another S of the same atoms, and no H."""
    overlap = calculation.overlap
    return replace(calculation, overlap=overlap.with_values(scale * overlap.values), hamiltonian=None)


def test_a_given_overlap_is_taken_block_by_block(tmp_path: Path, folder: Path) -> None:
    model, atoms = checkpoint(folder, Spin.NONE), structure("slab")
    plain = Predictor.load(model).calculation(atoms)
    write_store(tmp_path / "S.h5", [("S", given(plain, 0.5))])
    said: list[str] = []
    predict_in_tiles(
        model,
        "big",
        atoms,
        tmp_path / "big.h5",
        TileSettings(PLENTY, overlap=tmp_path / "S.h5", tile_atoms=1),
        on_event=said.append,
    )
    found = Store(tmp_path / "big.h5").read(0)
    assert np.array_equal(found.overlap.values, 0.5 * plain.overlap.values)
    assert differences(found, replace(plain, overlap=found.overlap))[1] < EXACT
    assert any("S.h5" in line for line in said)


def test_pairs_that_a_given_overlap_lacks_are_zero(tmp_path: Path, folder: Path) -> None:
    predictor, atoms = Predictor.load(checkpoint(folder, Spin.NONE)), structure("crystal")
    plain = predictor.calculation(atoms)
    old = plain.overlap.pairs
    near = np.linalg.norm(old.vectors(atoms), axis=1) < 2.5
    pairs = PairList.build(old.i[near], old.j[near], old.cell_shift[near], atoms.species)
    values = plain.overlap.values[np.repeat(near, np.diff(plain.overlap.offsets))]
    few = replace(
        plain.overlap,
        pairs=pairs,
        values=values,
        offsets=np.concatenate(([0], np.cumsum(np.diff(plain.overlap.offsets)[near]))),
    )
    write_store(tmp_path / "S.h5", [("S", replace(plain, overlap=few, hamiltonian=None))])
    model, output = checkpoint(folder, Spin.NONE), tmp_path / "big.h5"
    predict_in_tiles(model, "big", atoms, output, TileSettings(PLENTY, overlap=tmp_path / "S.h5", tile_atoms=2))
    found = Store(output).read(0).overlap
    assert np.array_equal(found.values, few.on_pairs(found.pairs).values)


def test_a_given_overlap_of_longer_pairs_is_refused(tmp_path: Path, folder: Path) -> None:
    predictor, atoms = Predictor.load(checkpoint(folder, Spin.NONE)), structure("crystal")
    write_store(tmp_path / "S.h5", [("S", given(predictor.calculation(atoms), 1.0))])
    short = tile_cutoffs(predictor, atoms) - 0.8
    with pytest.raises(
        PhysicsError, match=r"blocks of S are beyond the pairs that tiles know, the largest .* A in pair"
    ):
        GivenOverlap(tmp_path / "S.h5", atoms, predictor.basis, short)
    with pytest.raises(FormatError, match="no such file"):
        TileEvaluator(predictor, atoms, tmp_path / "absent.h5")


# ---------------------------------------------------------------- Gaussians


@pytest.fixture(scope="module")
def gaussian_model(folder: Path) -> Path:
    """An untrained model of s and p Gaussians on two elements."""
    p_shell = Shell(1, None, (1.6,), (1.0,))
    carbon = Species("C", 6, 4.0, (Shell(0, None, (1.5, 4.0), (0.6, 0.5)), p_shell))
    basis = OrbitalBasis((carbon, Species("H", 1, 1.0, (Shell(0, None, (0.6,), (1.0,)),))))
    cell = np.array([[3.0, 0, 0], [0.4, 3.2, 0], [0.2, 0.3, 3.4]])
    places = np.array([[0.1, 0, 0], [1.5, 1.4, 0.2], [0.9, 0.1, 0.8], [2.4, 1.7, 1.9]])
    atoms = AtomicStructure(np.array([6, 6, 1, 1]), np.array([0, 0, 1, 1]), places, cell, np.ones(3, dtype=bool))
    overlap = overlap_from_basis(atoms, basis)
    lengths = np.linalg.norm(overlap.pairs.vectors(atoms), axis=1)
    scale = np.repeat(np.exp(-4 * lengths), np.diff(overlap.offsets))  # H ends before S
    calculation = Calculation(atoms, basis, overlap, overlap.with_values(-20 * scale * overlap.values))
    sizes = {"layers": 2, "channels": 4, "radial_functions": 6, "radial_hidden": 8}
    config = config_from_dict({"data": {"store": "unused.h5"}, "network": sizes})
    statistics = fit_statistics([calculation], basis, calculation.spin, config.network)
    torch.manual_seed(0)
    model = HamiltonianModel(config.network, basis, calculation.spin, statistics, dtype=torch.float64)
    save_checkpoint(folder / "gauss.ckpt", Checkpoint(model, config, basis, calculation.spin, statistics, None, {}))
    write_store(folder / "gauss.h5", [("atoms", calculation)])
    return folder / "gauss.ckpt"


def test_gaussians_in_a_crystal(tmp_path: Path, folder: Path, gaussian_model: Path) -> None:
    atoms = supercell_structure(Store(folder / "gauss.h5").read(0).structure, (2, 1, 1))
    expected = Predictor.load(gaussian_model).calculation(atoms)
    assert max(differences(tiled(gaussian_model, atoms, tmp_path / "big.h5", 3), expected)) < EXACT


def test_gaussians_in_a_molecule_lose_only_what_is_negligible(tmp_path: Path, gaussian_model: Path) -> None:
    places = np.array([[0, 0, 0], [1.1, 0, 0], [30.0, 0, 0], [31.1, 0.1, 0]])
    atoms = AtomicStructure(np.array([6, 1, 6, 1]), np.array([0, 1, 0, 1]), places)
    expected = Predictor.load(gaussian_model).calculation(atoms)
    found = tiled(gaussian_model, atoms, tmp_path / "big.h5", 1)
    assert structure_pairs(atoms, expected.basis).n_pairs == 16
    assert found.overlap.pairs.n_pairs == 8
    for name in ("overlap", "hamiltonian"):
        mine = getattr(found, name).on_pairs(expected.overlap.pairs)
        # what is left out is below 1e-11
        assert np.abs(mine.values - getattr(expected, name).values).max() < EXACT


# ---------------------------------------------------------------- two processes, killed


SCRIPT = """
import sys
from pathlib import Path
sys.path[:0] = {paths!r}
from test_tiling import structure
from hamnet.core.supercell import supercell_structure
from hamnet.predict.tiling import TileSettings, predict_in_tiles
if __name__ == "__main__":
    atoms = supercell_structure(structure("crystal"), (3, 2, 1))
    predict_in_tiles(Path({model!r}), "big", atoms, Path({output!r}), TileSettings(10**12, tile_atoms=1, jobs=2))
"""


def test_two_killed_processes_leave_finished_tiles(tmp_path: Path, folder: Path) -> None:
    model, output = checkpoint(folder, Spin.NONE), tmp_path / "big.h5"
    atoms = supercell_structure(structure("crystal"), (3, 2, 1))
    here = Path(__file__).parent
    text = SCRIPT.format(paths=[str(here), str(here.parent)], model=str(model), output=str(output))
    (tmp_path / "run.py").write_text(text)  # processes that are spawned import the main file
    options = {"env": {**os.environ, "OMP_NUM_THREADS": "1"}, "start_new_session": True}
    with subprocess.Popen([sys.executable, str(tmp_path / "run.py")], **options) as process:
        journal, deadline = tmp_path / "big.h5.tiles" / "done", time.monotonic() + 240
        while process.poll() is None and time.monotonic() < deadline:
            if journal.exists() and journal.read_text().count("\n") >= 2:
                break
            time.sleep(0.002)
        os.killpg(process.pid, signal.SIGKILL)  # the process and the two that it started
    assert not output.exists()
    summary = predict_in_tiles(model, "big", atoms, output, TileSettings(PLENTY, tile_atoms=1, jobs=1))
    assert 2 <= summary.tiles_done_before < 24
    expected = Predictor.load(model).calculation(atoms)
    assert max(differences(Store(output).read(0), expected)) < EXACT
