"""Spin-orbit coupling from PySCF, end to end as a user types it: label, preprocess, train, predict, moments, check."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.io import write
from typer.testing import CliRunner

from hamnet.cli import app
from hamnet.core.spin import Spin
from hamnet.core.time_reversal import EVEN, odd_part
from hamnet.data.store import Store
from hamnet.testing import band_energies

SMALL = ("network.layers=1", "network.channels=4", "training.epochs=3", "training.threads=1", "training.progress=false")
SPLIT = ("data.train_fraction=0.67", "data.validation_fraction=0", "data.test_fraction=0.33")


def run(*arguments: object) -> dict:
    """Figures of one verb."""
    with warnings.catch_warnings():
        # PySCF says that crenbl has no ECP for hydrogen, which needs none
        warnings.simplefilter("ignore")
        outcome = CliRunner().invoke(app, [*map(str, arguments), "--json"])
    assert outcome.exit_code == 0, outcome.output + repr(outcome.exception)
    return json.loads(outcome.stdout)


@pytest.fixture(scope="module")
def molecules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three HI molecules of different lengths and directions."""
    path = tmp_path_factory.mktemp("hi") / "hi.extxyz"
    vectors = np.random.default_rng(1).normal(size=(3, 3))
    vectors *= np.array([[1.55], [1.6], [1.68]]) / np.linalg.norm(vectors, axis=1, keepdims=True)
    write(path, [Atoms("IH", [[0, 0, 0], vector]) for vector in vectors])
    return path


@pytest.fixture(scope="module")
def store(molecules: Path) -> Path:
    """Labelled by Hartree-Fock with the spin-orbit ECP of crenbl, and read."""
    labels, path = molecules.parent / "labels", molecules.parent / "hi.h5"
    options = ("--basis", "crenbl", "--ecp", "crenbl", "--xc", "hf", "--soc")
    assert run("label", "pyscf", molecules, *options, "-o", labels)["written"] == 3
    run("preprocess", "pyscf", labels, "-o", path)
    return path


def test_labels_hold_spin_orbit_coupling_and_no_magnetism(store: Path) -> None:
    with Store(store) as opened:
        calculation = opened.read(opened.names[0])
    assert calculation.spin is Spin.SPINOR
    assert odd_part(calculation.hamiltonian) < EVEN
    assert calculation.structure.moments is None
    energies = np.ravel(calculation.eigenvalues)
    np.testing.assert_allclose(
        energies[0::2], energies[1::2], atol=1e-5
    )  # Kramers, as well as the SCF converged: seen 2e-6
    # 5p of iodine: the pi level of HI is split by about 0.6 eV; without coupling these four levels are one
    level = energies[: int(calculation.n_electrons)][-4:]
    assert 0.3 < level[3] - level[0] < 1.2


def test_from_training_to_moments(store: Path, molecules: Path) -> None:
    """A model of three steps is wrong by electronvolts, and even under time reversal all the same."""
    folder = molecules.parent
    run("train", store, f"training.output={folder / 'run'}", *SPLIT, *SMALL)
    prediction = folder / "predicted.h5"
    run("predict", folder / "run" / "model.ckpt", molecules, "-o", prediction)
    with Store(prediction) as opened:
        predicted = opened.read(opened.names[0])
    assert odd_part(predicted.hamiltonian) == 0
    energies = band_energies(predicted.hamiltonian, np.zeros(3))
    assert np.abs(energies[0::2] - energies[1::2]).max() < 1e-10 * np.abs(energies).max()
    moments = run("moments", prediction, "--index", 0)
    assert np.abs(moments["moments_bohr_magneton"]).max() < 1e-8
    assert sum(moments["electrons"]) == pytest.approx(18, abs=1e-6)
    assert run("check", store)["passed"]


def test_an_ecp_without_spin_orbit_part_is_refused(molecules: Path, tmp_path: Path) -> None:
    options = ["--basis", "def2-svp", "--ecp", "def2-svp", "--xc", "hf", "--soc", "-o", str(tmp_path), "--json"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        outcome = CliRunner().invoke(app, ["label", "pyscf", str(molecules), *options])
    assert outcome.exit_code == 1
    report = json.loads(outcome.stdout)
    assert report["failed"] == 3
    assert "leaves spin-orbit coupling out silently" in report["failures"][0]["reason"]


def test_a_magnetic_ion_keeps_its_moments(tmp_path: Path) -> None:
    """HI+ in LDA, one unpaired electron, all directions of spin alike: read with moments, H odd under time reversal."""
    path = tmp_path / "ion.extxyz"
    write(path, Atoms("IH", [[0, 0, 0], [0.3, 0.4, 1.55]]))
    options = ("--basis", "crenbl", "--ecp", "crenbl", "--xc", "lda,vwn", "--soc", "--charge", 1, "--spin", 1)
    options += ("--grid-level", 1)
    assert run("label", "pyscf", path, *options, "-o", tmp_path / "labels")["written"] == 1
    run("preprocess", "pyscf", tmp_path / "labels", "-o", tmp_path / "ion.h5")
    with Store(tmp_path / "ion.h5") as opened:
        calculation = opened.read(opened.names[0])
    assert odd_part(calculation.hamiltonian) > 0.1
    found = run("moments", tmp_path / "ion.h5")
    # PySCF's density is one SCF step older than H: the square root of conv_tol 1e-10
    np.testing.assert_allclose(found["moments_bohr_magneton"], calculation.structure.moments, atol=1e-3)
