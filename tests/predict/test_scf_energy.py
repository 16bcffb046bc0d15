"""Energy and forces from a prediction and one Fock build, and the figures made of them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms, units
from ase.md.verlet import VelocityVerlet
from hypothesis import given, settings
from hypothesis import strategies as st
from scf_cases import WATER, Oracle, checkpoint, moved, stored_fock, water
from scipy.spatial.transform import Rotation

from hamnet.errors import BasisError, ConfigError, PhysicsError
from hamnet.integrations.ase import HamnetCalculator
from hamnet.nn.checkpoint import save_checkpoint
from hamnet.predict.energy import molecule_energy
from hamnet.train.scf_metrics import add_scf_figures, sample, scf_errors, scf_figures, scf_summary
from hamnet_preprocess.pyscf_energy import one_build
from hamnet_preprocess.pyscf_fock import FockBuilder, Method, orbitals_of

HF = Method("hf")


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 2**31))
def test_the_energy_lies_in_its_bracket_and_is_second_order(seed: int) -> None:
    calculation = water()
    assert calculation.energy is not None
    builder = FockBuilder(calculation.structure, calculation.basis, HF)
    fock = stored_fock()
    error = np.random.default_rng(seed).normal(size=fock.shape)
    found = [one_build(builder, fock + scale * (error + error.T), False) for scale in (0.02, 0.01)]
    # third order: hundredths of an eV against gaps of ten; and 1e-6 eV that the stored SCF left
    above = [result.upper_bound - calculation.energy for result in found]
    assert above[0] / above[1] == pytest.approx(4.0, rel=0.1)
    gains = [result.upper_bound - result.lower_estimate for result in found]
    assert gains[0] / gains[1] == pytest.approx(4.0, rel=0.1)
    for result in found:
        assert result.forces is None
        assert result.lower_estimate <= result.energy <= result.upper_bound
        # the bracket is exact when F does not answer to D; here it does, a little
        assert abs(result.energy - calculation.energy) < 2 * result.energy_error


def test_exact_hamiltonians_have_no_error() -> None:
    calculation = water()
    result = molecule_energy(Oracle(), calculation.structure, HF)
    # conv_tol 1e-12 Ha: energies to 1e-10 eV, forces and commutator to its root
    assert result.energy == pytest.approx(calculation.energy, abs=1e-6)
    assert result.energy_error < 1e-8
    assert result.commutator < 1e-4
    assert result.forces is not None
    assert np.abs(result.forces.sum(axis=0)).max() < 1e-4


def test_forces_are_the_derivative_of_the_energy() -> None:
    structure, model = water().structure, Oracle()
    step = np.zeros((3, 3))
    step[2, 0] = 2e-3
    energies = [
        molecule_energy(model, moved(structure, structure.positions + s * step), HF, False).energy for s in (1, -1)
    ]
    forces = molecule_energy(model, structure, HF).forces
    assert forces is not None
    # central difference: h^2 E'''/6 is 3e-4 eV/A for a third derivative of 500 eV/A^3
    assert forces[2, 0] == pytest.approx((energies[1] - energies[0]) / 4e-3, abs=1e-3)


def test_force_errors_are_of_first_order() -> None:
    calculation = water()
    builder = FockBuilder(calculation.structure, calculation.basis, HF)
    fock, errors = stored_fock(), []
    exact = builder.forces(fock)
    noise = np.random.default_rng(1).normal(size=fock.shape)
    for scale in (0.01, 0.005):
        forces = one_build(builder, fock + scale * (noise + noise.T)).forces
        assert forces is not None
        errors.append(np.linalg.norm(forces - exact))
    # second order is left
    assert errors[0] / errors[1] == pytest.approx(2.0, rel=0.1)


@settings(max_examples=3, deadline=None)
@given(st.tuples(*[st.floats(-3.0, 3.0)] * 3))
def test_energy_stays_and_forces_turn_with_the_molecule(vector: tuple[float, float, float]) -> None:
    turn = Rotation.from_rotvec(vector).as_matrix()
    structure = water().structure
    one = molecule_energy(Oracle(), structure, HF)
    other = molecule_energy(Oracle(), moved(structure, structure.positions @ turn.T), HF)
    assert one.forces is not None
    assert other.forces is not None
    # Hartree-Fock has no grid: what is left is conv_tol
    assert other.energy == pytest.approx(one.energy, abs=1e-7)
    np.testing.assert_allclose(other.forces, one.forces @ turn.T, atol=1e-4)


def test_the_calculator_gives_ase_what_it_asks_for() -> None:
    atoms = WATER.copy()
    atoms.calc = HamnetCalculator(Oracle())
    assert atoms.get_potential_energy() == pytest.approx(water().energy, abs=1e-6)
    assert "forces" not in atoms.calc.results
    expected = FockBuilder(water().structure, water().basis, HF).forces(stored_fock())
    np.testing.assert_allclose(atoms.get_forces(), expected, atol=1e-4)
    assert atoms.calc.results["energy_error"] < 1e-8
    assert atoms.calc.results["commutator"] < 1e-4
    atoms.positions[1, 2] += 0.05
    assert atoms.get_potential_energy() != pytest.approx(water().energy, abs=1e-3)


def test_dynamics_with_exact_forces_keep_the_energy() -> None:
    atoms = WATER.copy()
    atoms.calc = HamnetCalculator(Oracle())
    run = VelocityVerlet(atoms, 0.5 * units.fs)
    start = atoms.get_total_energy()
    run.run(6)
    # Verlet at 0.5 fs on O-H stretches of 10 fs: (pi dt / T)^2 / 2 of some 0.5 eV
    assert atoms.get_total_energy() == pytest.approx(start, abs=0.01)
    assert atoms.get_kinetic_energy() > 0.02


def test_the_calculator_refuses_what_the_model_does_not_know(tmp_path: Path) -> None:
    path = tmp_path / "m.ckpt"
    known = checkpoint()
    save_checkpoint(path, replace(known, metadata={**known.metadata, "functional": ""}))
    with pytest.raises(ConfigError, match="hamnet scf --xc.*or train on data"):
        HamnetCalculator(path)
    calculator = HamnetCalculator(path, xc="hf")
    with pytest.raises(BasisError, match="no orbitals for it"):
        Atoms("He", calculator=calculator).get_potential_energy()
    with pytest.raises(PhysicsError, match="periodic"):
        Atoms("OHH", WATER.positions, cell=[9, 9, 9], pbc=True, calculator=calculator).get_potential_energy()
    same = WATER.copy()
    same.positions[2] = same.positions[1]
    same.calc = calculator
    with pytest.raises(PhysicsError, match="two on one place"):
        same.get_potential_energy()
    with pytest.raises(PhysicsError, match="only seen charge 0"):
        HamnetCalculator(path, xc="hf", charge=1)


def test_figures_of_a_perfect_model_and_of_a_poor_one() -> None:
    perfect = scf_errors(Oracle(), "w", water())
    figures = scf_figures([perfect])
    # conv_tol 1e-12 Ha; forces to its root
    assert figures["energy_mae_meV"] < 1e-3
    assert figures["forces_mae_meV_A"] < 0.1
    assert figures["scf_cycles"] < figures["scf_cycles_minao"]
    assert "1 molecules" in scf_summary(figures)
    poor = scf_errors(Oracle(30.0), "w", water())
    assert scf_figures([poor])["scf_from_minao"] == 1
    assert scf_figures([perfect, poor])["energy_mae_meV"] > 1.0


def test_figures_stand_beside_those_of_the_evaluation() -> None:
    figures: dict[str, object] = {"structures": 2}
    rows: list[dict[str, object]] = [{"name": "a"}, {"name": "b"}]
    add_scf_figures(figures, rows, Oracle(), {"a": water, "b": water}, 1)
    assert figures["structures"] == 2
    assert figures["scf_sample"] == 1
    assert rows[0]["scf_start"] == "prediction"
    assert "scf_start" not in rows[1]


def test_a_molecule_without_scf_figures_is_left_out_and_named() -> None:
    figures: dict[str, object] = {}
    calculations = {"a": water, "bare": lambda: replace(water(), hamiltonian=None)}
    add_scf_figures(figures, [], Oracle(), calculations, 2)
    assert figures["scf_sample"] == 1
    assert figures["notes"] == ["no SCF figures: bare: SCF figures are for molecules with a Hamiltonian"]
    with pytest.raises(PhysicsError, match="none of 1 molecules"):
        add_scf_figures({}, [], Oracle(), {"bare": calculations["bare"]}, 1)


def test_a_sample_is_spread_over_the_list() -> None:
    names = [str(k) for k in range(10)]
    assert sample(names, 3) == ["0", "4", "9"]
    assert sample(names, 99) == names
    with pytest.raises(ConfigError, match="at least one"):
        sample([], 3)


def test_orbital_energies_of_the_oracle_are_those_of_the_label() -> None:
    calculation = water()
    builder = FockBuilder(calculation.structure, calculation.basis, HF)
    found = orbitals_of(stored_fock(), builder.overlap)[0]
    assert calculation.eigenvalues is not None
    # one SCF, contractions normalised once more
    np.testing.assert_allclose(found, calculation.eigenvalues.reshape(-1), atol=1e-4)
