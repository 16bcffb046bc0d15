"""SCF from a prediction: fewer cycles when it is good, one Fock build more at most when it is not."""

import json
import pickle
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.io import write
from hypothesis import given, settings
from hypothesis import strategies as st
from pyscf import dft, scf
from scf_cases import WATER, Oracle, checkpoint, mole, stored_fock, untrained, water
from typer.testing import CliRunner

from hamnet.cli import app
from hamnet.core.basis import OrbitalBasis
from hamnet.core.units import HARTREE
from hamnet.errors import BasisError, ConfigError, ConvergenceError, PhysicsError
from hamnet.integrations.pyscf import guess
from hamnet.predict.fock_check import method_of
from hamnet.predict.handover import counted_builds
from hamnet.predict.predictor import Prediction, Predictor
from hamnet.predict.scf_guess import same_functional, scf_guess
from hamnet.predict.scf_run import ScfFailure, ScfRun, ScfSettings, run_frames, run_plain, run_scf
from hamnet_preprocess.pyscf import PySCFReader, calculation_of
from hamnet_preprocess.pyscf_fock import Method, dense_of, mean_field
from hamnet_preprocess.pyscf_molecule import molecule
from hamnet_preprocess.pyscf_state import state_of


def plain_builds() -> int:
    """Fock builds of PySCF from minao."""
    return run_plain(Oracle(), water().structure, ScfSettings(Method("hf"))).builds


def builds_of(mf: Any, model: Predictor) -> int:
    """Fock builds of everything: guess, check and SCF."""
    with counted_builds(mf) as builds:
        mf.kernel(guess(mf, model))
    assert mf.converged
    return builds()


def coarse() -> Any:
    """Water, PBE on a coarse grid."""
    return closed(mean_field(mole(WATER), Method("pbe", 0)))


def closed(mf: Any) -> Any:
    """PySCF opens a nameless chkfile for every object, and leaves it open."""
    if getattr(mf, "_chkfile", None) is not None:
        mf._chkfile.close()
    return mf


def test_the_exact_hamiltonian_converges_in_two_cycles() -> None:
    mf = scf.RHF(mole(WATER))
    # 1 for the check, which is the SCF's first; a cycle or two; one after convergence
    assert builds_of(mf, Oracle()) <= 4
    assert mf.cycles <= 2
    assert mf.e_tot * HARTREE == pytest.approx(water().energy, abs=1e-6)


# the same examples each time: where prediction and minao are about as good, a cycle more or less is chance
@settings(max_examples=12, deadline=None, derandomize=True)
@given(st.floats(-3.0, 1.5), st.integers(0, 100), st.sampled_from(["none", "reference"]))
def test_no_prediction_costs_more_than_one_build(exponent: float, seed: int, kind: str) -> None:
    mf = scf.RHF(mole(WATER))
    used = builds_of(mf, Oracle(10.0**exponent, kind, seed))
    assert used <= plain_builds() + 1
    # conv_tol 1e-9 Ha
    assert mf.e_tot * HARTREE == pytest.approx(water().energy, abs=1e-6)


def test_garbage_falls_back_to_minao() -> None:
    found = scf_guess(scf.RHF(mole(WATER)), Oracle(30.0))
    assert found.origin == "minao"
    assert found.minao_commutator is not None
    assert found.builds == 2
    mf = scf.RHF(mole(WATER))
    np.testing.assert_array_equal(found.density, mf.get_init_guess(key="minao"))
    assert builds_of(mf, Oracle(30.0)) == plain_builds() + 1


@pytest.mark.parametrize("kind", ["none", "reference"])
def test_builds_are_shared(kind: str) -> None:
    model = Oracle(1e-3, kind)
    mf = scf.RHF(mole(WATER))
    with counted_builds(mf) as builds:
        found = scf_guess(mf, model)
        assert builds() == found.builds == (2 if kind == "reference" else 1)
        found.hand_over(mf)
        mf.get_veff(mf.mol, found.density)
        assert builds() == found.builds
        mf.get_veff(mf.mol, found.density)
        assert builds() == found.builds + 1
    if kind == "reference":
        reference = water().reference_hamiltonian
        assert model.given is not None
        assert reference is not None
        # the model's H0 is the SCF's own first Fock matrix: contractions normalised once more, 1e-9 of 500 eV
        np.testing.assert_allclose(dense_of(model.given), dense_of(reference), atol=1e-6)


def test_a_build_is_not_handed_to_another_molecule() -> None:
    mf = scf.RHF(mole(WATER))
    found = scf_guess(mf, Oracle())
    found.hand_over(mf)
    moved = WATER.copy()
    moved.positions[1, 2] += 0.1
    mf.reset(mole(moved))
    expected = scf.RHF(mole(moved)).get_veff(dm=found.density)
    # rounding
    np.testing.assert_allclose(mf.get_veff(mf.mol, found.density), expected, atol=1e-10)


@pytest.mark.parametrize(
    "copy",
    [
        lambda mf: mf.copy().set(xc="pbe0"),
        lambda mf: mf.density_fit(),
        lambda mf: mf.to_uks(),
        lambda mf: mf.newton(),
        lambda mf: mf.to_hf(),
        lambda mf: pickle.loads(pickle.dumps(mf)).set(xc="pbe0"),
        lambda mf: deepcopy(mf).set(xc="pbe0"),
        lambda mf: mf.set(xc="pbe0"),
        lambda mf: (setattr(mf.grids, "level", 1), mf)[1],
        lambda mf: mf.as_scanner(),
    ],
    ids=["xc", "fitted", "unrestricted", "newton", "hf", "pickled", "deep", "changed", "grid", "scanner"],
)
def test_a_build_is_not_handed_to_copies_or_changed_objects(copy: Callable[[Any], Any]) -> None:
    mf = coarse()
    density = guess(mf, Oracle())
    found, plain = closed(copy(mf)), closed(copy(coarse()))
    start = np.stack((density, density)) / 2 if isinstance(plain, scf.uhf.UHF) else density
    other = np.roll(start, 1, axis=-1) + np.roll(start, 1, axis=-2)
    for dm in (start, other):
        # rounding; with xc, grid or integrals of another object 1e-3 and more
        np.testing.assert_allclose(found.get_veff(dm=dm), plain.get_veff(dm=dm), atol=1e-9)


@pytest.mark.parametrize(
    "prepare", [lambda mf: mf, lambda mf: mf.density_fit(), lambda mf: mf.newton(), lambda mf: mf.to_hf()]
)
def test_the_very_object_builds_once_less_and_is_itself_again(prepare: Callable[[Any], Any]) -> None:
    mf = closed(prepare(coarse()))
    kind, attributes = type(mf), set(vars(mf))
    density = guess(mf, Oracle())
    mf.conv_tol, mf.max_cycle = 1e-6, 3
    mf.build()
    with counted_builds(mf) as builds:
        mf.get_veff(mf.mol, density)
        assert builds() == 0
        mf.get_veff(mf.mol, density)
        assert builds() == 1
    assert type(mf) is kind
    # PySCF's own: integrals and times
    assert set(vars(mf)) - attributes <= {"_eri", "_t0", "_w0", "conv_tol", "max_cycle"}


def test_a_prediction_is_in_hamnets_order_and_the_guess_in_pyscfs() -> None:
    found = scf_guess(scf.RHF(mole(WATER)), Oracle())
    # two SCFs, conv_tol 1e-12 Ha each: F to 1e-6 Ha
    np.testing.assert_allclose(found.hamiltonian, stored_fock(), atol=1e-4)
    mf = scf.RHF(mole(WATER)).run(conv_tol=1e-12)
    np.testing.assert_allclose(found.density, mf.make_rdm1(), atol=1e-5)


def test_what_the_model_has_not_seen_is_refused() -> None:
    model = Oracle()
    with pytest.raises(BasisError, match=r"6-31g.*trained with 'O:sto-3g'"):
        guess(scf.RHF(mole(WATER, "6-31g")), model)
    with pytest.raises(PhysicsError, match=r"charge 2, the model has only seen charge 0"):
        guess(scf.RHF(mole(WATER, charge=2)), model)
    with pytest.raises(PhysicsError, match="closed shells"):
        guess(scf.UHF(mole(WATER, spin=2)), model)
    with pytest.raises(PhysicsError, match="UHF with 0 unpaired"):
        guess(scf.UHF(mole(WATER)), model)
    with pytest.raises(BasisError, match="no orbitals for it"):
        guess(scf.RHF(mole(Atoms("LiH", [[0, 0, 0], [0, 0, 1.6]]))), model)
    with pytest.raises(PhysicsError, match="closed shells"):
        run_scf(model, "oh", Atoms("OH", [[0, 0, 0], [0, 0, 1.0]]), ScfSettings(Method("hf")))


def test_the_method_is_that_of_the_training_data() -> None:
    model = Oracle()
    assert method_of(model.checkpoint) == Method("hf")
    model.checkpoint.metadata.update(functional="pbe (libxc 7.0.0)", grid="level 3, density fit default")
    assert method_of(model.checkpoint) == Method("pbe", 3, "default")
    assert method_of(model.checkpoint, "b3lyp5").xc == "b3lyp5"
    model.checkpoint.metadata["functional"] = ""
    with pytest.raises(ConfigError, match="give xc"):
        method_of(model.checkpoint)


def test_names_of_one_functional_are_the_same() -> None:
    mf = dft.RKS(mole(WATER), xc="pbe,pbe")
    assert same_functional(mf, Method("pbe"))
    assert not same_functional(mf, Method("b3lyp"))
    assert not same_functional(mf, Method("hf"))
    assert same_functional(scf.RHF(mole(WATER)), Method("hf"))


def test_pyscfs_molecule_has_the_basis_by_name_where_it_can() -> None:
    calculation = water()
    named = molecule(calculation.structure, calculation.basis)
    assert named.basis == "sto-3g"  # one name: that is how PySCF finds the fit of pure functionals
    ion = molecule(calculation.structure, calculation.basis, 2)
    assert ion.nelectron == 8
    kinds = tuple(replace(kind, label=f"{kind.label[0]}:mine") for kind in calculation.basis.species)
    unnamed = molecule(calculation.structure, OrbitalBasis(kinds), 2)
    assert (unnamed.nelectron, unnamed.charge) == (8, 2)


def test_frames_get_chkfiles_and_a_table(tmp_path: Path) -> None:
    other = WATER.copy()
    other.positions[1, 2] += 0.05
    runs = run_frames(Oracle(1e-3), [("w/0", WATER), ("w/1", other)], tmp_path, compare=True)
    assert [run.name for run in runs] == ["w/0", "w/1"]
    for run in runs:
        assert run.plain is not None
        assert run.builds < run.plain.builds
        assert run.energy == pytest.approx(run.plain.energy, abs=1e-6)
    found = PySCFReader().read(tmp_path / "w_0.chk")
    assert found.hamiltonian is not None
    # orbitals of the last cycle at conv_tol 1e-9 Ha
    np.testing.assert_allclose(dense_of(found.hamiltonian), stored_fock(), atol=1e-2)
    assert not list(tmp_path.glob(".*"))


def test_no_convergence_is_an_error_and_the_result_is_kept(tmp_path: Path) -> None:
    with pytest.raises(ConvergenceError, match=r"1 of 1 did not converge in 1 cycles.*water"):
        run_frames(Oracle(30.0), [("water", WATER)], tmp_path, max_cycle=1)
    assert (tmp_path / "water.chk").stat().st_size > 0


def test_a_chkfile_says_whether_it_converged_and_how_it_was_made(tmp_path: Path) -> None:
    model = Oracle()
    settings = ScfSettings(Method("pbe", 0))
    counted = run_scf(model, "w", WATER, settings)
    run = run_scf(model, "w", WATER, settings, tmp_path / "w.chk")
    # F of the last density is there already: storing it costs no build
    assert run.builds == counted.builds
    found = PySCFReader().read(tmp_path / "w.chk")
    assert found.converged
    assert found.provenance.functional.startswith("pbe (libxc")
    assert Method.of(found) == settings.method
    mf = mean_field(mole(WATER), settings.method)
    mf.kernel()
    assert found.hamiltonian is not None
    own = calculation_of(state_of(mf)).hamiltonian
    assert own is not None
    # two SCFs at conv_tol 1e-9 Ha: its root
    np.testing.assert_allclose(dense_of(found.hamiltonian), dense_of(own), atol=2e-3)
    stopped = run_scf(model, "s", WATER, ScfSettings(Method("pbe", 0), max_cycle=1), tmp_path / "s.chk")
    assert not stopped.converged
    with pytest.raises(ConvergenceError, match="did not converge"):
        PySCFReader().read(tmp_path / "s.chk")


def test_a_frame_that_cannot_be_run_is_named_and_the_others_are_run(tmp_path: Path) -> None:
    same, cell = WATER.copy(), WATER.copy()
    same.positions[2] = same.positions[1]
    cell.set_cell([9.0, 9.0, 9.0])
    cell.set_pbc((False, False, True))
    frames = [("m/0", same), ("m/1", WATER), ("m/2", cell), ("m/3", Atoms("OH", [[0, 0, 0], [0, 0, 1.0]]))]
    runs: list[ScfRun] = []
    failures: list[ScfFailure] = []
    with pytest.raises(PhysicsError, match=r"3 of 4 could not be run: m/0: .*least eigenvalue.*m/2: .*periodic"):
        run_frames(Oracle(), frames, tmp_path, on_run=runs.append, on_failure=failures.append)
    assert [run.name for run in runs] == ["m/1"]
    assert [failure.name for failure in failures] == ["m/0", "m/2", "m/3"]
    assert "closed shells" in failures[2].figures["error"]
    assert [path.name for path in tmp_path.iterdir()] == ["m_1.chk"]


def test_an_interrupted_run_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        """ctrl-C."""
        (tmp_path / ".w.chk.part").write_bytes(b"begun")
        raise KeyboardInterrupt

    monkeypatch.setattr(scf.hf.SCF, "kernel", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_scf(Started(), "w", WATER, ScfSettings(Method("hf")), tmp_path / "w.chk")
    assert not list(tmp_path.iterdir())


class Started(Oracle):
    """Predicts without an SCF."""

    def run(self, atoms: Any, overlap: Any = None, reference: Any = None) -> Prediction:
        """Water as it is stored."""
        return Prediction(water(), 0.0, None, ())


@pytest.mark.parametrize(("conv_tol", "max_cycle"), [(0.0, 9), (-1.0, 9), (float("nan"), 9), (1e-9, 0)])
def test_a_tolerance_that_is_not_positive_is_refused(conv_tol: float, max_cycle: int) -> None:
    with pytest.raises(ConfigError, match="must be above 0"):
        ScfSettings(Method("hf"), conv_tol, max_cycle)


@pytest.mark.parametrize("xc", ["foo", "wb97x-d", "pbe,,"])
def test_a_functional_that_pyscf_cannot_do_is_refused(xc: str) -> None:
    with pytest.raises(ConfigError, match=rf"{xc}.*; give xc \(hamnet scf --xc pbe, say\), or train on data"):
        method_of(checkpoint(), xc)


def test_a_model_with_another_functional_costs_two_builds_more() -> None:
    # the mend is in the help and in docs/molecules.md: F[D_minao] of the model's functional and of the other one
    model = Predictor(checkpoint("reference"))
    settings = ScfSettings(Method("pbe", 0), compare=True)
    run = run_scf(model, "w", WATER, settings)
    assert run.plain is not None
    assert run.builds <= run.plain.builds + 2


def test_the_verb_reports_what_was_run_beside_what_was_not(tmp_path: Path) -> None:
    molecules = tmp_path / "m.xyz"
    write(molecules, [WATER, Atoms("OH", [[0, 0, 0], [0, 0, 1.0]])], format="extxyz")
    done = CliRunner().invoke(
        app, ["scf", str(untrained(tmp_path)), str(molecules), "-o", str(tmp_path / "out"), "--json"]
    )
    assert isinstance(done.exception, PhysicsError)
    figures = json.loads(done.stdout)
    assert [run["name"] for run in figures["runs"]] == ["m/0"]
    assert [failure["name"] for failure in figures["failures"]] == ["m/1"]
    assert not figures["converged"]
    assert "m/1" in done.stderr


def test_the_verb_runs_and_fails_in_plain_words(tmp_path: Path) -> None:
    model, molecule, out = untrained(tmp_path, "reference"), tmp_path / "w.xyz", tmp_path / "out"
    write(molecule, WATER)
    arguments = ["scf", str(model), str(molecule), "-o", str(out)]
    done = CliRunner().invoke(app, [*arguments, "--compare"])
    assert done.exit_code == 0, done.output
    assert "plain PySCF" in done.output
    assert (out / "w.chk").is_file()
    failed = CliRunner().invoke(app, [*arguments, "--max-cycle", "1"])
    assert isinstance(failed.exception, ConvergenceError)
    assert "NOT CONVERGED" in failed.output
