"""The molecular field's metrics: against definitions written out, and the laws that they obey."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from factories import lawful_calculation, seeds
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.linalg import eigh, sqrtm
from training_cases import NETWORK, small_store, small_train
from typer.testing import CliRunner

from hamnet.cli import app
from hamnet.config import config_from_dict, load_config
from hamnet.core.calculation import Calculation, Provenance
from hamnet.core.spin import Spin
from hamnet.data.store import write_store
from hamnet.errors import PhysicsError
from hamnet.nn.checkpoint import load_checkpoint
from hamnet.nn.dataset import StoreCollection
from hamnet.train.evaluation import evaluate
from hamnet.train.label_noise import label_noise
from hamnet.train.molecule_metrics import KEYS, MICROHARTREE, STACK, MoleculeErrors, is_closed_shell, spectral_errors
from hamnet.train.named_split import split_remark
from hamnet.train.run import make_split, summary, train
from hamnet_preprocess.pyscf_basis import basis_of, molecule_calculation

Array = NDArray[np.float64]
ROUNDING = 1e-9
"""Eigenvalues of order 10 eV and S of condition 100, in uEh per eV 4e4: 1e-10 eV is 4e-6 uEh; relative below."""


few = settings(max_examples=25, deadline=None)


def random_problem(seed: int, n_molecules: int = 3, n: int = 7) -> tuple[Array, Array, Array]:
    """S near one, H with levels some electronvolts apart, H' near H."""
    rng = np.random.default_rng(seed)
    a = 0.2 * rng.normal(size=(n_molecules, n, n))
    overlap = np.eye(n) + a @ a.swapaxes(1, 2)
    truth = np.diag(3.0 * np.arange(n)) + symmetric(rng, n_molecules, n)
    return overlap, truth, truth + 0.05 * symmetric(rng, n_molecules, n)


def symmetric(rng: np.random.Generator, n_molecules: int, n: int) -> Array:
    a = rng.normal(size=(n_molecules, n, n))
    return (a + a.swapaxes(1, 2)) / 2


@few
@given(seeds, st.integers(1, 7))
def test_stacks_equal_the_definitions(seed: int, n_occupied: int) -> None:
    overlap, truth, prediction = random_problem(seed)
    found = spectral_errors(overlap, truth, prediction, n_occupied)
    for k in range(3):
        (e, c), (f, d) = eigh(truth[k], overlap[k]), eigh(prediction[k], overlap[k])
        occupied = MICROHARTREE * np.abs(f - e)[:n_occupied].mean()
        assert found["occupied_mae_uEh"][k] == pytest.approx(occupied, abs=1e-3)  # 3e-8 eV
        cosine = [abs(c[:, m] @ d[:, m]) / np.linalg.norm(c[:, m]) / np.linalg.norm(d[:, m]) for m in range(n_occupied)]
        assert found["coefficient_similarity"][k] == pytest.approx(np.mean(cosine), abs=ROUNDING)
        root = np.real(sqrtm(overlap[k]))
        p, q = (root @ x[:, :n_occupied] @ x[:, :n_occupied].T @ root for x in (c, d))
        # 1e-6: the difference of projectors written out loses half the digits
        assert found["subspace_distance"][k] == pytest.approx(np.linalg.norm(p - q), abs=1e-6)
        if n_occupied < 7:
            gap = (f[n_occupied] - f[n_occupied - 1]) - (e[n_occupied] - e[n_occupied - 1])
            assert found["gap_mae_uEh"][k] == pytest.approx(MICROHARTREE * abs(gap), abs=1e-3)
        else:
            assert np.isnan(found["gap_mae_uEh"][k])


@few
@given(seeds)
def test_a_perfect_prediction(seed: int) -> None:
    overlap, truth, _ = random_problem(seed)
    found = spectral_errors(overlap, truth, truth.copy(), 3)
    assert np.allclose(found["coefficient_similarity"], 1, rtol=0, atol=1e-12)
    for key, values in found.items():
        if key != "coefficient_similarity":
            assert np.abs(values).max() < 1e-10


@few
@given(seeds)
def test_a_shift_of_the_zero_moves_levels_alone(seed: int) -> None:
    overlap, truth, _ = random_problem(seed)
    found = spectral_errors(overlap, truth, truth + 0.1 * overlap, 3)
    assert np.allclose(found["homo_mae_uEh"], 0.1 * MICROHARTREE, rtol=1e-8)
    assert np.abs(found["gap_mae_uEh"]).max() < 1e-3  # 3e-8 eV
    assert found["subspace_distance"].max() < 1e-9
    assert found["coefficient_similarity"].min() > 1 - 1e-9


@few
@given(seeds)
def test_rotated_occupied_orbitals_spoil_similarity_and_not_the_subspace(seed: int) -> None:
    """Why the subspace is reported: two occupied levels within the model's error of each other may swap."""
    overlap, _, _ = random_problem(seed)
    orbitals = np.stack([eigh(symmetric(np.random.default_rng(seed), 1, 7)[0], s)[1] for s in overlap])
    energies = np.array([-5.0, -3.0, -3.0 + 1e-6, 1.0, 2.0, 3.0, 4.0])
    swapped = energies[[0, 2, 1, 3, 4, 5, 6]]
    bras = (overlap @ orbitals).swapaxes(1, 2)
    truth, prediction = (bras.swapaxes(1, 2) @ (e[:, None] * bras) for e in (energies, swapped))
    found = spectral_errors(overlap, truth, prediction, 3)
    assert found["subspace_distance"].max() < 1e-8
    assert found["coefficient_similarity"].min() < 0.99
    assert found["occupied_mae_uEh"].max() < 0.1  # 1e-6 eV is 0.037 uEh


@few
@given(seeds)
def test_the_subspace_does_not_depend_on_the_basis(seed: int) -> None:
    """Any mixing T of basis functions: S -> T^T S T; the published similarity does depend on it."""
    overlap, truth, prediction = random_problem(seed)
    t = np.eye(7) + 0.3 * np.random.default_rng(seed + 1).uniform(-1, 1, (7, 7))
    found = spectral_errors(overlap, truth, prediction, 3)
    mixed = spectral_errors(*(t.T @ m @ t for m in (overlap, truth, prediction)), 3)
    assert np.allclose(mixed["subspace_distance"], found["subspace_distance"], rtol=1e-5, atol=1e-9)
    assert np.allclose(mixed["occupied_mae_uEh"], found["occupied_mae_uEh"], rtol=0, atol=1e-2)


@few
@given(seeds)
def test_the_subspace_is_of_first_order(seed: int) -> None:
    """Half the error of H, half the distance; levels below a gap of 2 eV, errors of some 0.001 eV."""
    overlap, truth, prediction = random_problem(seed)
    small = [truth + step * (prediction - truth) for step in (0.01, 0.005)]
    first, second = (spectral_errors(overlap, truth, h, 3)["subspace_distance"] for h in small)
    assert np.allclose(first / second, 2, rtol=0.05)


def hydrogens(n: int, count: int) -> list[tuple[str, Calculation]]:
    """Chains of n hydrogen atoms with H of the nuclei alone: no SCF is needed."""
    from pyscf import gto

    rng, made = np.random.default_rng(n), []
    for k in range(count):
        positions = np.array([[0.1 * m, 0.2, 0.8 * m] for m in range(n)]) + 0.05 * rng.normal(size=(n, 3))
        mol = gto.M(atom=[("H", x) for x in positions], basis="def2-svp", spin=n % 2, verbose=0)
        core = mol.intor("int1e_kin") + mol.intor("int1e_nuc")
        basis, _ = basis_of(mol)
        origin = Provenance("pyscf", "", "pbe", "", "level 3", "conv_tol 1e-09 Ha")
        numbers = np.ones(n, dtype=np.int64)
        s = mol.intor("int1e_ovlp")
        calculation = molecule_calculation(
            numbers, positions, basis, (core + core.T) / 2, (s + s.T) / 2, n_electrons=float(n), provenance=origin
        )
        made.append((f"h{n}-{k}", calculation))
    return made


def noisy(calculation: Calculation, size: float, seed: int) -> Any:
    """H with a symmetric error of some size (eV)."""
    hamiltonian = calculation.hamiltonian
    assert hamiltonian is not None
    noise = size * np.random.default_rng(seed).normal(size=len(hamiltonian.values))
    return hamiltonian.with_values(hamiltonian.values + noise).symmetrised()


def test_molecules_of_several_sizes() -> None:
    """Each counts once; stacks do not mix them; the matrix error is that of the blocks."""
    cases = hydrogens(2, STACK + 3) + hydrogens(4, 3)
    errors = MoleculeErrors()
    for k, (name, calculation) in enumerate(cases):
        errors.add(name, calculation, noisy(calculation, 0.01, k))
    figures = errors.figures()
    assert list(errors.rows) == [name for name, _ in cases]
    assert set(figures) == set(KEYS)
    for key in KEYS:
        assert figures[key] == pytest.approx(np.mean([row[key] for row in errors.rows.values()]))
    name, calculation = cases[-1]
    alone = MoleculeErrors()
    alone.add(name, calculation, noisy(calculation, 0.01, len(cases) - 1))
    assert alone.figures() == pytest.approx(errors.rows[name], rel=1e-9)


def test_a_molecule_that_cannot_be_solved_is_named() -> None:
    """S that is not positive definite: this one has no levels, the others of its stack have."""
    cases = hydrogens(2, 3)
    broken = cases[1][1].overlap
    bad = Calculation(**(vars(cases[1][1]) | {"overlap": broken.with_values(-broken.values)}))
    errors = MoleculeErrors()
    for name, calculation in (cases[0], ("bad", bad), cases[2]):
        errors.add(name, calculation, noisy(calculation, 0.01, 0))
    assert errors.figures()["homo_mae_uEh"] > 0
    assert errors.rows["bad"]["homo_mae_uEh"] is None
    assert errors.rows["bad"]["hamiltonian_mae_uEh"] > 0
    assert "bad" in errors.notes["bad"]


def test_closed_shells_alone() -> None:
    assert is_closed_shell(hydrogens(2, 1)[0][1])
    assert not is_closed_shell(hydrogens(3, 1)[0][1])
    assert not is_closed_shell(lawful_calculation(0))  # periodic


@pytest.mark.parametrize(
    ("grid", "convergence", "n_atoms", "floor", "word"),
    [
        ("level 3", "conv_tol 1e-09 Ha", 3, 0.02, "grid level 3"),
        ("level 3", "conv_tol 1e-09 Ha", 9, 0.33, "grid level 3"),
        ("level 5", "conv_tol 1e-07 Ha", 9, 1.4, "SCF threshold 1e-07"),
        ("", "printed with six decimals", 9, 0.25, "six decimals"),
        ("", "float32", 9, 0.02, "float32"),
    ],
)
def test_label_noise(grid: str, convergence: str, n_atoms: int, floor: float, word: str) -> None:
    found, text = label_noise([Provenance("pyscf", grid=grid, convergence=convergence)], n_atoms)
    assert found == pytest.approx(floor, rel=0.2)
    assert word in text


def test_label_noise_of_others() -> None:
    assert label_noise([Provenance("OpenMX")], 2)[1].startswith("labels from OpenMX")
    assert label_noise([Provenance("unknown")], 2) == (None, "")
    # coarser than what was measured: at least as noisy
    coarse, finer = (label_noise([Provenance("pyscf", grid=f"level {n}")], 2)[0] for n in (1, 2))
    assert coarse == finer
    mixed = [Provenance("pyscf", grid=grid) for grid in ("level 3", "level 3, density fit default")]
    assert "differ by 7 uEh" in label_noise(mixed, 9)[1]


def test_train_and_evaluate_print_them(tmp_path: Path) -> None:
    """The headline of molecules is the raw error in uEh, with the labels' noise beside it."""
    store = tmp_path / "data.h5"
    write_store(store, hydrogens(2, 4) + hydrogens(4, 2))
    data = {"store": str(store), "train_fraction": 0.6, "validation_fraction": 0.2, "test_fraction": 0.2}
    training = {"output": str(tmp_path / "run"), "epochs": 1, "progress": False, "threads": 1}
    lines: list[str] = []
    result = train(config_from_dict({"data": data, "network": NETWORK, "training": training}), on_line=lines.append)
    for key in KEYS:
        assert result.figures[key] is not None
    assert any("uEh" in line and "grid level 3" in line for line in lines)
    assert summary(result.figures).startswith("H MAE")
    ran = CliRunner().invoke(app, ["evaluate", str(result.checkpoint), str(store), "-o", str(tmp_path / "out")])
    assert ran.exit_code == 0, ran.output
    assert "coefficient similarity" in ran.stdout
    assert "uEh" in ran.stdout.splitlines()[0]


def test_labels_of_several_kinds_are_said(tmp_path: Path) -> None:
    """The network cannot tell functionals and charges apart; the checkpoint knows the most frequent kind."""
    made = hydrogens(2, 6)
    odd = made[0][1]
    of_ion = replace(odd, n_electrons=1.0, provenance=replace(odd.provenance, functional="pbe0"))
    store = tmp_path / "data.h5"
    write_store(store, [(made[0][0], of_ion), *made[1:]])
    data = {"store": str(store), "train_fraction": 1.0, "validation_fraction": 0.0, "test_fraction": 0.0}
    training = {"output": str(tmp_path / "run"), "epochs": 1, "progress": False, "threads": 1}
    lines: list[str] = []
    result = train(config_from_dict({"data": data, "network": NETWORK, "training": training}), on_line=lines.append)
    told = next(line for line in lines if "kinds" in line)
    assert "5 x pbe, level 3, charge 0" in told
    assert "1 x pbe0, level 3, charge 1" in told
    known = load_checkpoint(result.checkpoint).metadata
    assert (known["functional"], known["charge"]) == ("pbe", 0.0)


def test_another_spin_layout_is_refused(tmp_path: Path) -> None:
    model = small_train(tmp_path, epochs=1).checkpoint
    small_store(tmp_path / "collinear.h5", Spin.COLLINEAR, 2)
    with pytest.raises(PhysicsError, match="the data have spin layout collinear, the model's H none"):
        evaluate(model, [tmp_path / "collinear.h5"])


def test_a_runs_folder_is_its_model(tmp_path: Path) -> None:
    model = small_train(tmp_path, epochs=1).checkpoint
    whole, named = (evaluate(path, [tmp_path / "data.h5"]) for path in (model.parent, model))
    assert whole.figures == named.figures


def test_a_benchmarks_split_by_name(tmp_path: Path) -> None:
    """`data.split=qh9-stable-iid` is the split of the whole file; what is said of it says that it is unverified."""
    cases = [
        (str(k), Calculation(**(vars(c) | {"provenance": Provenance("pyscf", source=f"QH9Stable.db row {k} of 10")})))
        for k, (_, c) in enumerate(hydrogens(2, 10))
    ]
    store = tmp_path / "data.h5"
    write_store(store, cases[:9])
    path = tmp_path / "config.yaml"
    path.write_text(f"data: {{store: {store}}}\n")
    config = load_config(path, ["data.split=qh9-stable-iid"])
    collection = StoreCollection(config.data.store)
    split = make_split(config, collection, None)
    collection.close()
    order = [str(k) for k in np.random.RandomState(43).permutation(10)]
    assert [*split.train, *split.validation, *split.test] == [name for name in order if name != "9"]
    assert "not verified against its file" in split_remark(config.data.split, split)
    assert split_remark(None, split) == ""
