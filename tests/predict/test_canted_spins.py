"""H of tilted moments from a model that has seen collinear data alone: unrestricted PySCF in, spinors out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hamnet.config import Config, config_from_dict
from hamnet.core.blocks import BlockMatrix
from hamnet.core.calculation import Calculation
from hamnet.core.rotation import rotate_spins
from hamnet.core.spin import Spin, spinor_to_pauli
from hamnet.core.structure import AtomicStructure
from hamnet.data.store import Store, write_store
from hamnet.errors import PhysicsError
from hamnet.nn.checkpoint import as_spinor, load_checkpoint
from hamnet.nn.model import spinor_twin
from hamnet.nn.spin_space import in_layout, spin_coupling
from hamnet.predict.batch import OF_COLLINEAR, predict_files
from hamnet.predict.predictor import Predictor
from hamnet.predict.structures import read_structures
from hamnet.testing_moments import random_rotation
from hamnet.train.evaluation import evaluate
from hamnet.train.run import train
from hamnet_preprocess.pyscf import from_mean_field

N_TRAIN, N_TEST = 12, 2


def hydrogens(bonds: Sequence[float], degrees: float, spin: int) -> Any:
    """Three stretched hydrogen atoms, each with a moment: the second between the others, at an angle."""
    from pyscf import gto

    (first, second), angle = bonds, np.radians(degrees)
    places = [(0, 0, first), (0, 0, 0), (second * np.sin(angle), 0, second * np.cos(angle))]
    return gto.M(atom=[("H", place) for place in places], basis="6-31g", spin=spin, verbose=0)


def collinear_case(rng: np.random.Generator, parallel: bool) -> Calculation:
    """Unrestricted LDA: all spins up, or the one between the others down; nearer to a line than a triangle then."""
    from pyscf import dft

    spin, least = (3, 55) if parallel else (1, 75)
    mf = dft.UKS(hydrogens(rng.uniform(1.7, 1.9, 2), rng.uniform(least, 100), spin))
    mf.xc, mf.grids.level, mf.verbose = "lda,vwn", 1, 0
    density = sum(mf.get_init_guess()) / 2
    lean = np.diag(np.repeat([0.1, 0.1 if parallel else -0.1, 0.1], mf.mol.nao // 3))
    mf.kernel(dm0=np.array([density + lean, density - lean]))
    return from_mean_field(mf)


def canted_case(bond: float = 1.8, hartree_fock: bool = False) -> Calculation:
    """Spins at 120 degrees, as three antiferromagnetic neighbours must stand: non-collinear LDA, or Hartree-Fock."""
    from pyscf import dft, scf

    mol = hydrogens((bond, bond), 60.0, 1)
    mf = scf.GHF(mol) if hartree_fock else dft.GKS(mol)
    if not hartree_fock:
        mf.xc, mf.collinear, mf.grids.level = "lda,vwn", "ncol", 1
    angles = np.repeat(np.arange(3) * 2 * np.pi / 3, mol.nao // 3)
    density = sum(dft.UKS(mol).get_init_guess()) / 2
    x, z = (0.2 * np.diag(f(angles)) for f in (np.sin, np.cos))
    mf.max_cycle = 200
    mf.kernel(dm0=np.block([[density + z, x], [x, density - z]]).astype(complex))
    return from_mean_field(mf)


def as_spinors(matrix: BlockMatrix) -> BlockMatrix:
    """[[up, 0], [0, down]]."""
    parts = []
    for group in matrix.groups():
        n_i, n_j = group.blocks.shape[-2:]
        whole = np.zeros((len(group.blocks), 2 * n_i, 2 * n_j), dtype=np.complex128)
        whole[:, :n_i, :n_j], whole[:, n_i:, n_j:] = group.blocks[:, 0], group.blocks[:, 1]
        parts.append(whole.ravel())
    return BlockMatrix.from_values(matrix.pairs, matrix.basis, matrix.species, Spin.SPINOR, np.concatenate(parts))


def turned(calculation: Calculation, rotation: np.ndarray) -> Calculation:
    """The same solution with all spins turned: as exact as the collinear one, for there is no spin-orbit coupling."""
    assert calculation.hamiltonian is not None
    moments = np.asarray(calculation.structure.moments) @ rotation.T
    matrix = rotate_spins(as_spinors(calculation.hamiltonian), rotation)
    structure = replace(calculation.structure, moments=moments)
    return Calculation(structure, calculation.basis, calculation.overlap, matrix, n_electrons=calculation.n_electrons)


def extended_xyz(path: Path, calculation: Calculation) -> Path:
    """Atoms and moments as a user would write them."""
    import ase.io

    structure = calculation.structure
    atoms = ase.Atoms(numbers=structure.atomic_numbers, positions=structure.positions)
    atoms.set_initial_magnetic_moments(structure.moments)
    ase.io.write(path, atoms, format="extxyz")
    return path


SMALL = {"layers": 1, "channels": 8, "radial_hidden": 16, "radial_functions": 8, "lmax": 2}


def config(store: Path, output: Path, **training: object) -> Config:
    """A training of seconds."""
    base = {"output": output, "threads": 1, "progress": False, "clock": "process", "batch_size": 4}
    data = {"store": store, "validation_fraction": 0.2, "test_fraction": 0.0}
    return config_from_dict({"data": data, "network": SMALL, "training": base | training})


@pytest.fixture(scope="module")
def collinear() -> list[Calculation]:
    """Both orders of spins."""
    rng = np.random.default_rng(0)
    return [collinear_case(rng, bool(k % 2)) for k in range(N_TRAIN + N_TEST)]


@pytest.fixture(scope="module")
def model(collinear: list[Calculation], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained on collinear data alone."""
    folder = tmp_path_factory.mktemp("collinear")
    write_store(folder / "data.h5", ((f"c{k}", c) for k, c in enumerate(collinear[:N_TRAIN])))
    settings = config(folder / "data.h5", folder / "run", epochs=1000, max_minutes=0.1)
    return train(settings).checkpoint


def test_turned_solutions_are_predicted_as_well_as_collinear_ones(
    model: Path, collinear: list[Calculation], tmp_path: Path
) -> None:
    """All spins of unseen structures turned: H of PySCF turned is exact, and so is that of the model."""
    rotation = random_rotation(4)
    for k, calculation in enumerate(collinear[N_TRAIN:]):
        assert calculation.hamiltonian is not None
        tilted = turned(calculation, rotation)
        summary = predict_files(model, [extended_xyz(tmp_path / f"{k}.extxyz", tilted)], tmp_path / f"{k}.h5")
        assert summary.remarks[0] == OF_COLLINEAR
        with Store(tmp_path / f"{k}.h5") as store:
            found = store.read(store.names[0]).hamiltonian
        plain = Predictor.load(model).predict(calculation.structure)
        assert found is not None
        assert tilted.hamiltonian is not None
        # the network is in float32, and the file has the places and moments in eight decimals
        expected = rotate_spins(as_spinors(plain), rotation)
        assert np.abs(found.values - expected.values).max() < 1e-4
        error = np.abs(found.values - tilted.hamiltonian.values).max()
        alone = np.abs(plain.values - calculation.hamiltonian.values).max()
        # the turn mixes up and down: a number may take parts of the errors of both
        assert error < 2 * alone + 1e-4
        exchange = np.abs(plain.values.reshape(-1)).max()
        assert alone < 0.2 * exchange


def test_canted_spins_from_collinear_data(model: Path) -> None:
    """Spins at 120 degrees, which no turn makes collinear, by non-collinear LDA: most of A is there, unseen."""
    calculation = canted_case()
    assert not spin_coupling(calculation).there
    assert calculation.hamiltonian is not None
    found = Predictor.load(model).predict(calculation.structure)
    truth = [spinor_to_pauli(g.blocks)[:, 1:].real for g in calculation.hamiltonian.groups()]
    guess = [spinor_to_pauli(g.blocks)[:, 1:].real for g in found.groups()]
    ratio = max(np.abs(a - b).max() for a, b in zip(truth, guess, strict=True)) / max(np.abs(a).max() for a in truth)
    assert ratio < 0.5


def test_layouts_can_be_asked_for(model: Path, collinear: list[Calculation], tmp_path: Path) -> None:
    """`spinor`: also where moments lie along z; the blocks are the collinear ones."""
    path = extended_xyz(tmp_path / "up.extxyz", collinear[-1])
    for flag, spin in ((False, Spin.COLLINEAR), (True, Spin.SPINOR)):
        predict_files(model, [path], tmp_path / "h.h5", spinor=flag)
        with Store(tmp_path / "h.h5") as store:
            assert store.spin is spin
            found = store.read(store.names[0]).hamiltonian
        expected = Predictor.load(model).predict(store_structure(path, model))
        assert found is not None
        # float32 sums in another order
        assert np.abs(found.values - (expected if spin is Spin.COLLINEAR else as_spinors(expected)).values).max() < 1e-5


def store_structure(path: Path, model: Path) -> AtomicStructure:
    """The structure as prediction reads it."""
    ((_, atoms),) = read_structures(path)
    return Predictor.load(model).structure(atoms)


def test_training_finds_that_there_is_no_coupling(collinear: list[Calculation], model: Path, tmp_path: Path) -> None:
    """Turned and canted data together: the model knows spins as vectors, and starts from the collinear one."""
    data = [turned(c, random_rotation(k)) for k, c in enumerate(collinear[:4])] + [canted_case(1.75)]
    write_store(tmp_path / "data.h5", ((f"c{k}", c) for k, c in enumerate(data)))
    lines: list[str] = []
    settings = config(tmp_path / "data.h5", tmp_path / "run", epochs=2)
    checkpoint = load_checkpoint(train(settings, on_line=lines.append, source=model).checkpoint)
    assert any("spin-orbit coupling: none in H" in line for line in lines)
    assert any("taken over" in line for line in lines)
    assert (checkpoint.spin, checkpoint.model.axes, checkpoint.statistics.spin_orbit) == (Spin.SPINOR, 3, False)
    source = load_checkpoint(model)
    assert np.array_equal(checkpoint.statistics.pair_cutoffs, source.statistics.pair_cutoffs)
    result = evaluate(model, [tmp_path / "data.h5"])
    assert result.figures["hamiltonian_mae_meV"] < 1000


def test_chirality_of_exact_exchange_is_told_from_a_functional_of_the_density(tmp_path: Path) -> None:
    """Hartree-Fock of canted spins has Im A across their plane: without coupling, but of another kind than built in."""
    calculation = canted_case(hartree_fock=True)
    assert spin_coupling(calculation).imaginary > 0.01
    write_store(tmp_path / "data.h5", [("a", calculation)])
    tree = {"data": {"store": tmp_path / "data.h5", "spin_orbit": False}, "network": SMALL}
    tree["training"] = {"output": tmp_path / "run", "progress": False, "epochs": 1}
    with pytest.raises(PhysicsError, match="data.spin_orbit is false, but H of a .* imaginary parts of A_0"):
        train(config_from_dict(tree))


def test_h0_in_another_layout() -> None:
    """Equal for both spins it is so as spinors; else nobody knows along which axis."""
    calculation = collinear_case(np.random.default_rng(1), True)
    with pytest.raises(PhysicsError, match="differs between up and down"):
        in_layout(calculation.hamiltonian, Spin.SPINOR)
    twice = in_layout(calculation.overlap, Spin.SPINOR)
    assert twice.hermitian_residual()[0] == 0
    assert in_layout(in_layout(calculation.overlap, Spin.COLLINEAR), Spin.NONE).values.tolist() == (
        calculation.overlap.values.tolist()
    )


def test_spinless_models_have_no_spinors(model: Path) -> None:
    """A_0 alone says nothing about up and down; a model that is spinor already is left alone."""
    spinor = as_spinor(load_checkpoint(model))
    assert as_spinor(spinor) is spinor
    spinor.model.spin = Spin.NONE
    with pytest.raises(PhysicsError, match="only a model of collinear data"):
        spinor_twin(spinor.model)
