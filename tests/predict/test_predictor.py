"""From a checkpoint and atoms to H and S."""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import graphene as ase_graphene
from golden_files import golden, shared_data
from model_files import graphene, untrained
from scipy.spatial.transform import Rotation

from hamnet.core.basis import OrbitalBasis, Shell, Species
from hamnet.core.calculation import Calculation
from hamnet.core.pairs import orbital_pairs
from hamnet.core.rotation import rotate_blocks, rotate_structure
from hamnet.core.structure import AtomicStructure
from hamnet.data.store import Store, write_store
from hamnet.errors import BasisError, ConfigError, FormatError, PhysicsError
from hamnet.nn.checkpoint import load_checkpoint
from hamnet.predict.batch import named_frames, predict_files
from hamnet.predict.overlap import fit_overlap, overlap_from_file, overlap_of, structure_pairs
from hamnet.predict.predictor import Predictor, load
from hamnet_preprocess.openmx import OpenMXReader


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return untrained(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def predictor(checkpoint: Path) -> Predictor:
    return Predictor.load(checkpoint)


@pytest.fixture(scope="module")
def calculation() -> Calculation:
    return graphene()


def rattled(seed: int = 0, size: int = 2) -> Atoms:
    atoms = ase_graphene(size=(size, size, 1), vacuum=8.0)
    atoms.pbc = True
    atoms.rattle(0.02, seed=seed)
    return atoms


def test_calculation_has_everything_that_bands_need(predictor: Predictor) -> None:
    result = predictor.calculation(rattled())
    assert result.hamiltonian is not None
    assert result.hamiltonian.values.dtype == np.float64
    assert result.hamiltonian.hermitian_residual()[0] == 0.0
    assert result.overlap.hermitian_residual()[0] == 0.0
    assert result.n_electrons == pytest.approx(32)
    assert result.provenance.code == "hamnet"
    assert len(result.provenance.sha256) == 64
    assert result.fermi_energy is None


def test_prediction_is_deterministic_and_is_what_predict_gives(predictor: Predictor) -> None:
    first, second = predictor.calculation(rattled()).hamiltonian, predictor.predict(rattled())
    assert first is not None
    assert np.array_equal(first.values, second.values)


def test_prediction_commutes_with_rotation_and_inversion(predictor: Predictor) -> None:
    structure = predictor.structure(rattled(3))
    operation = -Rotation.random(random_state=1).as_matrix()
    straight = predictor.calculation(structure)
    turned = predictor.calculation(rotate_structure(structure, operation))
    for name in ("hamiltonian", "overlap"):
        expected = rotate_blocks(getattr(straight, name), operation).values
        found = getattr(turned, name).values
        # A float64 network: rounding only; a wrong axis or sign is off at order one.
        assert np.abs(found - expected).max() < 1e-10 * np.abs(expected).max()


def test_overlap_of_the_training_cell_comes_back(predictor: Predictor, calculation: Calculation) -> None:
    found = predictor.calculation(calculation.structure)
    # A handful of distances determines the splines there; OpenMX's own asymmetry is 1e-10.
    np.testing.assert_allclose(found.overlap.values, calculation.overlap.values, atol=1e-7)
    assert np.array_equal(found.overlap.pairs.cell_shift, calculation.overlap.pairs.cell_shift)


def test_unseen_distances_are_said(predictor: Predictor, caplog: pytest.LogCaptureFixture) -> None:
    atoms = ase_graphene(a=2.9, vacuum=8.0)
    atoms.pbc = True
    with caplog.at_level(logging.WARNING, logger="hamnet"):
        predictor.calculation(atoms)
    assert "away from any distance in the training set" in caplog.text


def test_an_overlap_that_is_not_positive_is_said(predictor: Predictor) -> None:
    structure = predictor.structure(rattled())
    good = predictor.calculation(structure).overlap
    assert not any("positive" in remark for remark in predictor.run(structure, good).remarks)
    values = good.values.copy()
    values[~np.repeat(good.pairs.on_site, np.diff(good.offsets))] *= 5
    prediction = predictor.run(structure, good.with_values(values))
    assert prediction.least_overlap_eigenvalue is not None
    assert prediction.least_overlap_eigenvalue < 0
    assert "not positive definite" in prediction.remarks[-1]


def test_unknown_element_names_the_known_ones(predictor: Predictor) -> None:
    with pytest.raises(BasisError, match="has Si, and the model has no orbitals for it; it knows C"):
        predictor.predict(Atoms("CSi", [[0, 0, 0], [0, 0, 1.8]]))


def test_two_atoms_on_one_place_are_refused(predictor: Predictor) -> None:
    with pytest.raises(PhysicsError, match="two atoms on one place"):
        predictor.predict(Atoms("C2", [[0, 0, 0], [0, 0, 0]]))


def test_a_singular_cell_is_refused(predictor: Predictor) -> None:
    with pytest.raises(PhysicsError, match="cell is singular"):
        predictor.predict(Atoms("C", [[0, 0, 0]], cell=[[1, 0, 0], [2, 0, 0], [0, 0, 1]], pbc=True))


def test_a_free_molecule_has_no_images(predictor: Predictor) -> None:
    result = predictor.calculation(Atoms("C2", [[0, 0, 0], [0, 0, 1.42]]))
    assert result.overlap.pairs.n_pairs == 4
    assert not result.structure.is_periodic


def test_molecules_have_the_charge_of_the_training_data(checkpoint: Path) -> None:
    known = load_checkpoint(checkpoint)
    ions = Predictor(replace(known, metadata=known.metadata | {"charge": -1.0}))
    pair = Atoms("C2", [[0, 0, 0], [0, 0, 1.42]])
    assert ions.calculation(pair).n_electrons == pytest.approx(9)
    # a charged cell's charge does not grow with the cell: larger ones are neutral
    assert ions.calculation(rattled()).n_electrons == pytest.approx(32)


def test_load_refuses_what_is_no_checkpoint(tmp_path: Path, checkpoint: Path) -> None:
    with pytest.raises(FormatError, match="no checkpoint at"):
        load(tmp_path / "absent.ckpt")
    text = tmp_path / "text.ckpt"
    text.write_text("hello")
    with pytest.raises(FormatError, match="not a readable checkpoint"):
        load(text)
    cut = tmp_path / "cut.ckpt"
    cut.write_bytes(checkpoint.read_bytes()[:2000])
    with pytest.raises(FormatError, match="not a readable checkpoint"):
        load(cut)
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.ckpt")
    with pytest.raises(FormatError, match="is a torch file but no hamnet checkpoint"):
        load(tmp_path / "other.ckpt")
    content = torch.load(checkpoint, weights_only=True)
    torch.save({**content, "format": 99}, tmp_path / "new.ckpt")
    with pytest.raises(FormatError, match="checkpoint format 99, this hamnet reads 1"):
        load(tmp_path / "new.ckpt")


def test_an_absent_device_is_refused(predictor: Predictor) -> None:
    with pytest.raises(ConfigError, match="no device 'abacus'"):
        Predictor(predictor.checkpoint, "abacus")
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="finds no CUDA device"):
            Predictor(predictor.checkpoint, "cuda")


def test_files_become_a_store(tmp_path: Path, checkpoint: Path) -> None:
    folders = [tmp_path / "a", tmp_path / "b"]
    for seed, folder in enumerate(folders):
        folder.mkdir()
        rattled(seed).write(folder / "POSCAR", format="vasp")
    frames = tmp_path / "md.extxyz"
    rattled(5).write(frames)
    rattled(6).write(frames, append=True)
    output = tmp_path / "H.h5"
    lines: list[str] = []
    summary = predict_files(checkpoint, [*(f / "POSCAR" for f in folders), frames], output, on_event=lines.append)
    with Store(output) as store:
        assert sorted(store.names) == ["a/POSCAR", "b/POSCAR", "md/0", "md/1"]
        pairs = sum(store.read(name).overlap.pairs.n_pairs for name in store.names)
        assert all(store.read(name).hamiltonian is not None for name in store.names)
    assert (summary.structures, summary.pairs) == (4, pairs)
    assert summary.seconds > 0
    assert 0.05 < summary.peak_memory_gb < 50
    assert any(line.startswith("md/0: 8 atoms") for line in lines)


def test_a_failure_names_the_structure_and_leaves_no_store(tmp_path: Path, checkpoint: Path) -> None:
    Atoms("Si", [[0, 0, 0]]).write(tmp_path / "bad.xyz")
    with pytest.raises(BasisError, match="^bad: the structure has Si"):
        predict_files(checkpoint, [tmp_path / "bad.xyz"], tmp_path / "H.h5")
    assert not list(tmp_path.glob("*.h5*"))


def test_same_names_stay_apart(tmp_path: Path) -> None:
    path = tmp_path / "POSCAR"
    rattled().write(path, format="vasp")
    names = [name for name, _ in named_frames([path, path, path])]
    assert len(set(names)) == 3


def test_a_given_overlap_is_found_by_its_atoms(tmp_path: Path, predictor: Predictor, calculation: Calculation) -> None:
    write_store(tmp_path / "S.h5", [("other", predictor.calculation(rattled())), ("mine", calculation)])
    found = overlap_from_file(tmp_path / "S.h5", calculation.structure, predictor.basis)
    assert np.array_equal(found.values, calculation.overlap.values)
    given = predictor.calculation(calculation.structure, tmp_path / "S.h5")
    assert np.array_equal(given.overlap.values, calculation.overlap.values)
    moved = calculation.structure.positions + [[0.01, 0, 0], [0, 0, 0]]
    s = calculation.structure
    structure = AtomicStructure(s.atomic_numbers, s.species, moved, s.cell, s.pbc)
    with pytest.raises(PhysicsError, match=r"no overlap or H0 for this structure.*mine: an atom is 0\.01 A away"):
        predictor.calculation(structure, tmp_path / "S.h5")


def test_a_given_overlap_may_number_its_species_otherwise(
    tmp_path: Path, predictor: Predictor, calculation: Calculation
) -> None:
    extra = Species("H5.0-s1", 1, 1.0, (Shell(0, 2.6),))
    basis = OrbitalBasis((extra, *calculation.basis.species))
    shifted = calculation.structure.with_species(calculation.structure.species + 1)
    write_store(tmp_path / "S.h5", [("mine", calculation)])
    found = overlap_from_file(tmp_path / "S.h5", shifted, basis)
    assert np.array_equal(found.species, shifted.species)
    assert np.array_equal(found.values, calculation.overlap.values)


def test_the_fit_learns_from_readers_and_goes_through_arrays(calculation: Calculation) -> None:
    fit = fit_overlap([calculation])
    rms, worst = fit.error([calculation])
    # The numbers of one cell are interpolated; what remains is OpenMX's asymmetry.
    assert rms < 1e-8
    assert worst < 1e-7
    assert type(fit).from_arrays(fit.to_arrays()).error([calculation]) == (rms, worst)


def test_gaussians_take_integrals_not_the_fit() -> None:
    s = Species("H:test", 1, 1.0, (Shell(0, None, (0.8,), (1.0,)),))
    structure = AtomicStructure(np.array([1, 1]), np.array([0, 0]), np.array([[0, 0, 0], [0, 0, 0.9]]))
    basis = OrbitalBasis((s,))
    matrix = overlap_of(structure, basis, None)
    d = 0.9 / 0.529177210903
    # Overlap of two normalised s Gaussians of equal exponent a at distance d: exp(-a d^2 / 2).
    block = matrix.block(int(np.flatnonzero(~matrix.pairs.on_site)[0]))
    own = matrix.block(int(np.flatnonzero(matrix.pairs.on_site)[0]))
    assert block[0, 0] / own[0, 0] == pytest.approx(np.exp(-0.8 * d**2 / 2), abs=1e-10)


def test_pairs_without_radii() -> None:
    bare = OrbitalBasis((Species("X", 1, 1.0, (Shell(0),)),))
    molecule = AtomicStructure(np.array([1, 1, 1]), np.zeros(3, dtype=int), np.diag([1.0, 9.0, 30.0]))
    assert structure_pairs(molecule, bare).n_pairs == 9
    with pytest.raises(BasisError, match="no fitted overlap"):
        overlap_of(molecule, bare, None)
    crystal = AtomicStructure(np.array([1]), np.array([0]), np.zeros((1, 3)), 3 * np.eye(3), np.ones(3, dtype=bool))
    with pytest.raises(BasisError, match="without a radius"):
        structure_pairs(crystal, bare)


def test_pairs_of_a_prediction_are_those_of_openmx(calculation: Calculation) -> None:
    mine = orbital_pairs(calculation.structure, calculation.basis)
    assert np.array_equal(mine.cell_shift, calculation.overlap.pairs.cell_shift)


def test_overlap_fit_on_unseen_graphene(shared_dir: Path) -> None:
    def read(name: str) -> Calculation:
        folder = shared_data(f"openmx/graphene/{name}")
        assert folder is not None
        return OpenMXReader().read(folder)

    folders = sorted(p.name for p in (shared_dir / "openmx/graphene/train3x3").iterdir())
    fit = fit_overlap(read(f"train3x3/{name}") for name in folders[:8])
    rms, worst = fit.error([read("test3x3"), read("test4x4")])
    # Measured with 40 structures: 2e-8 and 9e-7; with 5: 5e-8 and 2e-6.
    assert rms < 5e-7
    assert worst < 2e-5


@pytest.mark.parametrize("name", ["hbn", "o2_spin", "bismuthene_soc"])
def test_every_spin_layout_and_two_species(tmp_path: Path, name: str) -> None:
    calculation = OpenMXReader().read(golden(f"openmx/{name}"))
    assert calculation.hamiltonian is not None
    predictor = Predictor.load(untrained(tmp_path, name))
    found = predictor.calculation(calculation.structure)
    assert found.hamiltonian is not None
    assert found.hamiltonian.spin is calculation.spin
    assert found.hamiltonian.values.shape == calculation.hamiltonian.values.shape
    assert found.hamiltonian.hermitian_residual()[0] == 0.0
    # The splines pass through the few distances of one cell; OpenMX's own asymmetry is 1e-10.
    np.testing.assert_allclose(found.overlap.values, calculation.overlap.values, atol=1e-6)
    operation = Rotation.random(random_state=2).as_matrix()
    turned = predictor.predict(rotate_structure(calculation.structure, operation))
    expected = rotate_blocks(found.hamiltonian, operation).values
    # A float64 network: rounding only.
    assert np.abs(turned.values - expected).max() < 1e-10 * np.abs(expected).max()


def test_single_precision_weights_stay_single(tmp_path: Path) -> None:
    predictor = Predictor.load(untrained(tmp_path, dtype=torch.float32))
    hamiltonian = predictor.predict(rattled())
    assert predictor.checkpoint.model.dtype is torch.float32
    assert hamiltonian.values.dtype == np.float64
    assert hamiltonian.hermitian_residual()[0] == 0.0
