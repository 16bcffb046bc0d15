"""Tiles give what one piece gives, whatever the tiles; a killed run goes on; the store is a store."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model_cases import basis_of, crystal, model_of, random_calculation

from hamnet.config import config_from_dict
from hamnet.core.blocks import BlockMatrix
from hamnet.core.calculation import Calculation
from hamnet.core.spin import Spin
from hamnet.core.structure import AtomicStructure
from hamnet.core.tiles import Tiling
from hamnet.data.store import Store
from hamnet.errors import BasisError, ConfigError, PhysicsError
from hamnet.nn.checkpoint import Checkpoint, save_checkpoint
from hamnet.nn.prior import Baseline
from hamnet.predict import tile_plan, tiling
from hamnet.predict.memory import parse_memory
from hamnet.predict.overlap import fit_overlap
from hamnet.predict.predictor import Predictor
from hamnet.predict.tile import TileEvaluator
from hamnet.predict.tiling import TileSettings, predict_in_tiles

EXACT = 1e-10
"""eV, of a float64 network whose numbers are of order one: rounding of sums in another order."""
SINGLE = 1e-6
"""eV, of a float32 network."""
PERIODIC = {"molecule": (0, 0, 0), "wire": (0, 1, 0), "slab": (1, 0, 1), "crystal": (1, 1, 1)}
PLENTY = 10**12


def checkpoint(folder: Path, spin: Spin, layers: int = 1, double: bool = True) -> Path:
    """An untrained model with a fitted overlap and a fitted prior, of random matrices."""
    calculations = [with_overlap(random_calculation(seed, spin)) for seed in (0, 1)]
    config = config_from_dict({"data": {"store": "unused.h5"}, "network": {"channels": 4, "layers": layers}})
    model = model_of(spin, layers, double)
    arrays = fit_overlap(calculations).to_arrays()
    baseline = Baseline.fit("two_centre", calculations, spin)
    path = folder / f"{spin.value}-{layers}-{double}.ckpt"
    basis = basis_of(spin)
    # the network's own settings, not the configuration's, make the checkpoint's model
    config = config.model_copy(update={"network": model.settings})
    save_checkpoint(path, Checkpoint(model, config, basis, spin, model.statistics, arrays, {}, baseline=baseline))
    return path


def with_overlap(calculation: Calculation) -> Calculation:
    """A made-up S instead of zeros."""
    zero = calculation.overlap
    values = np.random.default_rng(0).normal(size=len(zero.values))
    return replace(calculation, overlap=zero.with_values(values).symmetrised())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module", params=list(Spin))
def model(request: pytest.FixtureRequest, folder: Path) -> Path:
    return checkpoint(folder, request.param)


def structure(kind: str, seed: int = 0, n_atoms: int = 4) -> AtomicStructure:
    """Two species, some atoms moved out of the cell, periodic in some directions."""
    made = crystal(seed, n_atoms)
    away = np.random.default_rng(seed).integers(-1, 2, (made.n_atoms, 3)) * np.array(PERIODIC[kind])
    positions = made.positions + away @ made.lattice
    return replace(made, positions=positions, pbc=np.array(PERIODIC[kind], dtype=bool))


def differences(found: Calculation, expected: Calculation) -> list[float]:
    """Largest differences of S and H; their pairs must agree exactly."""
    result = []
    for name in ("overlap", "hamiltonian"):
        mine: BlockMatrix = getattr(found, name)
        theirs: BlockMatrix = getattr(expected, name)
        for part in ("i", "j", "cell_shift", "reverse"):
            assert np.array_equal(getattr(mine.pairs, part), getattr(theirs.pairs, part)), (name, part)
        assert mine.hermitian_residual()[0] == 0.0
        result.append(float(np.abs(mine.values - theirs.values).max()))
    return result


def tiled(model: Path, atoms: AtomicStructure, output: Path, tile_atoms: int, jobs: int = 1) -> Calculation:
    """Predicted in tiles and read back."""
    predict_in_tiles(model, "big", atoms, output, TileSettings(PLENTY, jobs=jobs, tile_atoms=tile_atoms))
    assert not output.with_name(output.name + ".tiles").exists()
    with Store(output) as store:
        return store.read("big")


@pytest.mark.parametrize("kind", PERIODIC)
def test_tiles_of_one_atom_give_what_one_piece_gives(tmp_path: Path, model: Path, kind: str) -> None:
    atoms = structure(kind)
    expected = Predictor.load(model).calculation(atoms)
    found = tiled(model, atoms, tmp_path / "big.h5", 1)
    assert max(differences(found, expected)) < EXACT
    assert found.n_electrons == expected.n_electrons
    assert found.provenance == expected.provenance
    assert np.array_equal(found.structure.positions, atoms.positions)


@pytest.mark.parametrize("tile_atoms", [2, 3, 100])
def test_the_size_of_tiles_does_not_matter(tmp_path: Path, folder: Path, tile_atoms: int) -> None:
    model = checkpoint(folder, Spin.NONE, layers=2)
    cell = structure("crystal")
    lattice = cell.lattice
    places = np.concatenate([cell.positions + shift for shift in (np.zeros(3), lattice[0], lattice[1])])
    cell_3 = np.array([lattice[0] * 2, lattice[1] * 2, lattice[2]])
    atoms = AtomicStructure(np.tile(cell.atomic_numbers, 3), np.tile(cell.species, 3), places, cell_3, cell.pbc)
    expected = Predictor.load(model).calculation(atoms)
    assert max(differences(tiled(model, atoms, tmp_path / "big.h5", tile_atoms), expected)) < EXACT


def test_single_precision_agrees_to_a_microelectronvolt(tmp_path: Path, folder: Path) -> None:
    model, atoms = checkpoint(folder, Spin.NONE, double=False), structure("slab")
    expected = Predictor.load(model).calculation(atoms)
    assert max(differences(tiled(model, atoms, tmp_path / "big.h5", 2), expected)) < SINGLE


def test_two_processes_write_one_store(tmp_path: Path, folder: Path) -> None:
    model, atoms = checkpoint(folder, Spin.NONE), structure("crystal")
    one = tiled(model, atoms, tmp_path / "one.h5", 1)
    assert differences(tiled(model, atoms, tmp_path / "two.h5", 1, jobs=2), one) == [0.0, 0.0]


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), n_tiles=st.integers(1, 9), kind=st.sampled_from(list(PERIODIC)))
def test_tiles_part_the_atoms_and_know_their_surroundings(seed: int, n_tiles: int, kind: str) -> None:
    atoms = structure(kind, seed)
    cutting = Tiling(atoms)
    tiles = cutting.cut(n_tiles)
    assert np.array_equal(np.sort(np.concatenate(tiles)), np.arange(atoms.n_atoms))
    assert np.ptp([len(tile) for tile in tiles]) <= 2
    halo = 4.3
    around = cutting.surroundings(tiles[0], halo)
    assert np.array_equal(np.sort(around.atom[around.core]), tiles[0])
    places = atoms.positions[around.atom] + around.shift @ atoms.lattice
    # wrapping back and forth rounds
    np.testing.assert_allclose(places, around.structure.positions, atol=1e-12)
    # every image of every atom within the halo is there once
    ranges = [range(-5, 6) if p else range(1) for p in PERIODIC[kind]]
    shifts = np.array([(a, b, c) for a in ranges[0] for b in ranges[1] for c in ranges[2]])
    images = (atoms.positions[:, None] + shifts @ atoms.lattice).reshape(-1, 3)
    own = around.structure.positions[around.core]
    near = (np.linalg.norm(images[:, None] - own, axis=2).min(axis=1) < halo).sum()
    assert len(around.atom) == near


class Killed(Exception):
    """Stands for the end of a process."""


def test_a_stopped_run_goes_on_with_what_is_left(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, atoms = checkpoint(folder, Spin.NONE), structure("crystal")
    expected = Predictor.load(model).calculation(atoms)
    evaluate, done = TileEvaluator.evaluate, []

    def counted(self, core, layout):
        """Ends the run at the third tile of the plan; the measured one has no layout."""
        if layout.n_pairs:
            if len(done) == 2:
                raise Killed
            done.append(core)
        return evaluate(self, core, layout)

    monkeypatch.setattr(TileEvaluator, "evaluate", counted)
    output = tmp_path / "big.h5"
    with pytest.raises(Killed):
        predict_in_tiles(model, "big", atoms, output, TileSettings(PLENTY, tile_atoms=1))
    assert not output.exists()
    with (tmp_path / "big.h5.tiles" / "done").open("a") as journal:
        journal.write("3")  # cut short: tile 3 or 30, nobody knows
    done.clear()
    monkeypatch.setattr(TileEvaluator, "evaluate", lambda *a: done.append(a[1]) or evaluate(*a))
    summary = predict_in_tiles(model, "big", atoms, output, TileSettings(PLENTY, tile_atoms=1))
    assert summary.tiles_done_before == 2
    assert len(done) == 2  # four tiles, two of them before, and nothing is measured again
    assert max(differences(Store(output).read(0), expected)) < EXACT


def test_another_structure_does_not_take_up_the_tiles(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, output = checkpoint(folder, Spin.NONE), tmp_path / "big.h5"
    monkeypatch.setattr(tiling, "run_tiles", lambda *a: (_ for _ in ()).throw(Killed))
    with pytest.raises(Killed):
        predict_in_tiles(model, "big", structure("crystal", 1), output, TileSettings(PLENTY, tile_atoms=1))
    monkeypatch.undo()
    atoms, said = structure("crystal", 2), []
    predict_in_tiles(model, "big", atoms, output, TileSettings(PLENTY, tile_atoms=2), on_event=said.append)
    assert "belongs to another model" in said[0]
    assert max(differences(Store(output).read(0), Predictor.load(model).calculation(atoms))) < EXACT


SCRIPT = """
import sys
from pathlib import Path
sys.path[:0] = {paths!r}
from test_tiling import structure
from hamnet.predict.tiling import TileSettings, predict_in_tiles
if __name__ == "__main__":
    predict_in_tiles(Path({model!r}), "big", structure("crystal"), Path({output!r}), TileSettings(10**12, tile_atoms=1))
"""


def test_a_killed_process_leaves_finished_tiles(tmp_path: Path, folder: Path) -> None:
    model, output = checkpoint(folder, Spin.NONE), tmp_path / "big.h5"
    here = Path(__file__).parent
    text = SCRIPT.format(paths=[str(here), str(here.parent)], model=str(model), output=str(output))
    with subprocess.Popen([sys.executable, "-c", text], env={**os.environ, "OMP_NUM_THREADS": "1"}) as process:
        journal, deadline = tmp_path / "big.h5.tiles" / "done", time.monotonic() + 240
        while process.poll() is None and time.monotonic() < deadline:
            if journal.exists() and journal.read_text().count("\n") >= 1:
                process.send_signal(signal.SIGKILL)
                break
            time.sleep(0.002)
    assert process.returncode in (0, -signal.SIGKILL)
    expected = Predictor.load(model).calculation(structure("crystal"))
    if not output.exists():  # the kill came in time
        summary = predict_in_tiles(model, "big", structure("crystal"), output, TileSettings(PLENTY, tile_atoms=1))
        assert summary.tiles_done_before >= 1
    assert max(differences(Store(output).read(0), expected)) < EXACT


# ---------------------------------------------------------------- bad input


def test_too_little_memory_says_how_much_would_do(tmp_path: Path, folder: Path) -> None:
    model = checkpoint(folder, Spin.NONE)
    with pytest.raises(ConfigError, match=r"does not hold a tile of 4 atoms.*allow [0-9.]+GB"):
        predict_in_tiles(model, "big", structure("crystal"), tmp_path / "big.h5", TileSettings(10**6))
    assert list(tmp_path.iterdir()) == []


def test_two_atoms_on_one_place_are_named(tmp_path: Path, folder: Path) -> None:
    model, atoms = checkpoint(folder, Spin.NONE), structure("crystal")
    positions = atoms.positions.copy()
    positions[3] = positions[1] + atoms.lattice[0]
    with pytest.raises(PhysicsError, match=r"atoms [13] and [13] are 0\.0000 A apart"):
        predict_in_tiles(
            model, "big", replace(atoms, positions=positions), tmp_path / "big.h5", TileSettings(PLENTY, tile_atoms=1)
        )


def test_orbitals_without_a_radius_are_refused(folder: Path) -> None:
    predictor = Predictor.load(checkpoint(folder, Spin.NONE))
    species = tuple(
        replace(s, shells=tuple(replace(x, radius=None) for x in s.shells)) for s in predictor.basis.species
    )
    known = replace(predictor.checkpoint, basis=replace(predictor.basis, species=species))
    with pytest.raises(BasisError, match="in one piece"):
        TileEvaluator(Predictor(known), structure("crystal"))


def test_a_model_that_needs_a_reference_is_refused(folder: Path) -> None:
    known = Predictor.load(checkpoint(folder, Spin.NONE)).checkpoint
    predictor = Predictor(replace(known, baseline=Baseline("reference", Spin.NONE)))
    with pytest.raises(ConfigError, match="H0"):
        TileEvaluator(predictor, structure("crystal"))


def test_a_place_that_cannot_be_written_is_refused_first(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, atoms = checkpoint(folder, Spin.NONE), structure("crystal")
    with pytest.raises(ConfigError, match="does not exist: make it"):
        predict_in_tiles(model, "big", atoms, tmp_path / "no" / "big.h5", TileSettings(PLENTY))
    with pytest.raises(ConfigError, match="is a folder"):
        predict_in_tiles(model, "big", atoms, tmp_path, TileSettings(PLENTY))
    monkeypatch.setattr(tile_plan.shutil, "disk_usage", lambda path: SimpleNamespace(free=100))
    with pytest.raises(ConfigError, match=r"the store takes 0\.00 GB and .* has 0\.00 GB left"):
        predict_in_tiles(model, "big", atoms, tmp_path / "big.h5", TileSettings(PLENTY, tile_atoms=4))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("text", "expected"), [("4GB", 4 * 10**9), ("800 mb", 8 * 10**8), ("2GiB", 2**31), ("7", 7)])
def test_memory_is_read_as_people_write_it(text: str, expected: int) -> None:
    assert parse_memory(text) == expected


@pytest.mark.parametrize("text", ["", "four", "-1GB", "0", "3 parsecs"])
def test_what_is_no_memory_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="is no size"):
        parse_memory(text)
