"""Densities of states and Fermi levels with spins: against dense sums, closed forms and OpenMX's own moments."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from factories import lawful_calculation
from golden_files import golden, shared_data
from matplotlib.image import imread
from typer.testing import CliRunner

from hamnet.bands.dos import DensityOfStates, DosTask, dos_by_states
from hamnet.bands.eigen import DenseSolver
from hamnet.bands.fermi import divided_mesh, find_fermi
from hamnet.bands.fermi_counts import fermi_by_counting
from hamnet.bands.large_studies import MeshSettings, study_fermi
from hamnet.bands.plot_spectra import plot_dos
from hamnet.bands.solvers import DenseEigensolver, SparseEigensolver
from hamnet.bands.spin_texture import spin_moments
from hamnet.cli import app
from hamnet.core.bloch import BlochSum, spin_overlap
from hamnet.core.calculation import Calculation
from hamnet.core.rotation import PAULI
from hamnet.core.spin import Spin, time_reversed
from hamnet.core.supercell import supercell
from hamnet.errors import ConfigError, PhysicsError
from hamnet_preprocess.openmx import OpenMXReader

MESH = divided_mesh((2, 2, 1), False)
ENERGIES = np.linspace(-8, 8, 33)


def spinors(seed: int = 5) -> Calculation:
    """Random magnetic spinors with electrons."""
    calculation = lawful_calculation(seed, Spin.SPINOR)
    return replace(calculation, n_electrons=float(calculation.overlap.n_orbitals - 3))


def task_of(calculation: Calculation, folder: Path) -> DosTask:
    """All states on a whole mesh."""
    return DosTask(calculation, DenseEigensolver(calculation), *MESH, folder)


def test_spin_density_is_the_sum_over_states(tmp_path: Path) -> None:
    """sigma_a(E) from c^dagger (s_a x S) c of each state, one Gaussian each, written out."""
    calculation = spinors()
    dos = dos_by_states(task_of(calculation, tmp_path), ENERGIES, 0.3, spins=True)
    h, s = BlochSum(calculation.hamiltonian), BlochSum(calculation.overlap)
    expected = np.zeros((4, len(ENERGIES)))
    for k, weight in zip(*MESH, strict=True):
        states = DenseSolver().solve(h, s, k, True)
        c = states.vectors[0]
        norms = [np.einsum("in,ij,jn->n", c.conj(), spin_overlap(s.dense(k)), c).real]
        norms += [np.einsum("in,ij,jn->n", c.conj(), np.kron(p, s.dense(k)), c).real for p in PAULI]
        x = (ENERGIES[:, None] - states.energies[0]) / 0.3
        expected += weight * np.stack(norms) @ np.exp(-(x**2) / 2).T / (0.3 * np.sqrt(2 * np.pi))
    np.testing.assert_allclose(dos.density[0], expected[0], atol=1e-12)
    np.testing.assert_allclose(dos.spin_density, expected[1:], atol=1e-11)  # eigenvectors to 1e-13, 64 states
    assert np.abs(dos.spin_density).max() > 0.1
    two = dos.along(2)
    np.testing.assert_allclose(two.density.sum(axis=0), dos.density[0], atol=1e-12)
    np.testing.assert_allclose(two.density[0] - two.density[1], dos.spin_density[2], atol=1e-12)
    assert two.density.min() > -1e-12  # |<s>| <= 1


def test_moment_below_the_fermi_level_is_the_moment_of_the_cell(tmp_path: Path) -> None:
    """Sharp Gaussians at 1 K: the integrated spin density at E_F is what `hamnet moments` sums."""
    calculation = spinors()
    moments = spin_moments(calculation, (2, 2, 1), 1.0)
    dos = dos_by_states(task_of(calculation, tmp_path), np.array([moments.fermi_energy]), 1e-4, spins=True)
    np.testing.assert_allclose(dos.spin_integrated[:, 0], moments.total, atol=1e-6)  # a state at E_F is half filled
    assert dos.integrated[0, 0] == pytest.approx(calculation.n_electrons, abs=1e-6)


def test_time_reversal_leaves_no_spin_density(tmp_path: Path) -> None:
    calculation = spinors()
    h = calculation.hamiltonian
    back = np.concatenate([time_reversed(group.blocks).ravel() for group in h.groups()])
    even = replace(calculation, hamiltonian=h.with_values((h.values + back) / 2))
    dos = dos_by_states(task_of(even, tmp_path), ENERGIES, 0.3, spins=True)
    assert np.abs(dos.spin_density).max() < 1e-9  # k and -k cancel to the rounding of eigenvectors


@pytest.mark.parametrize("solver", [DenseEigensolver, SparseEigensolver])
def test_both_spins_share_one_fermi_level(solver: type) -> None:
    """Collinear channels far apart: counts, a sparse factorisation and all states give one level."""
    calculation = lawful_calculation(4, Spin.COLLINEAR)
    h = calculation.hamiltonian
    values = h.values.copy()
    for group in h.with_values(values).groups():  # up lies 3 S lower
        pairs = slice(group.pairs.start, group.pairs.stop)
        s = calculation.overlap.values[
            calculation.overlap.offsets[pairs.start] : calculation.overlap.offsets[pairs.stop]
        ]
        group.blocks[:, 0] -= 3 * s.reshape(group.blocks[:, 0].shape)
    calculation = replace(calculation, hamiltonian=h.with_values(values))
    n = float(calculation.overlap.n_orbitals) - 1
    dense = DenseEigensolver(calculation)
    energies = np.stack([dense.all_energies(k) for k in MESH[0]], axis=1)
    exact = find_fermi(energies, MESH[1], n, Spin.COLLINEAR, 300.0)
    level = fermi_by_counting(calculation, solver(calculation), n, 300.0, MESH)
    assert level.energy == pytest.approx(exact, abs=1e-6)  # eV; Fermi tails cut 12 k T away
    report = study_fermi(replace(calculation, n_electrons=n), MeshSettings((2, 2, 1)), 300.0)
    below = (energies < report.figures["fermi_eV"]).sum(axis=2) @ MESH[1]
    np.testing.assert_allclose(report.figures["states_of_spins"], below, atol=1e-12)
    assert below[0] > below[1] + 1  # up is filled more


def test_spinless_twin_of_a_collinear_calculation_has_its_density(tmp_path: Path) -> None:
    """Equal channels: each holds half of what the spinless calculation does, at the same Fermi level."""
    plain = lawful_calculation(6)
    h = plain.hamiltonian
    zeros = lawful_calculation(6, Spin.COLLINEAR).hamiltonian
    for group, source in zip(zeros.groups(), h.groups(), strict=True):
        group.blocks[:] = source.blocks[:, None]
    both = replace(plain, hamiltonian=zeros)
    one = dos_by_states(task_of(plain, tmp_path / "one"), ENERGIES, 0.2)
    two = dos_by_states(task_of(both, tmp_path / "two"), ENERGIES, 0.2)
    np.testing.assert_allclose(two.density, np.repeat(one.density / 2, 2, axis=0), atol=1e-12)
    n = float(plain.overlap.n_orbitals)
    levels = [fermi_by_counting(c, DenseEigensolver(c), n, 300.0, MESH).energy for c in (plain, both)]
    assert levels[0] == pytest.approx(levels[1], abs=1e-9)


def run(*arguments: str) -> dict:
    """Figures of one verb."""
    outcome = CliRunner().invoke(app, [*arguments, "--json"])
    assert outcome.exit_code == 0, outcome.output
    return json.loads(outcome.stdout)


def test_oxygen_holds_seven_up_and_five_down(tmp_path: Path) -> None:
    """O2, a triplet: 12 valence electrons, 2 mu_B; E_F of OpenMX lies in its gap and holds both spins."""
    folder = str(golden("openmx/o2_spin"))
    figures = run("dos", folder, "-o", str(tmp_path), "--broadening", "0.02")
    # Gaussians of 0.02 eV leave nothing across a gap of electronvolts
    np.testing.assert_allclose(figures["electrons_of_spins"], [7, 5], atol=1e-6)
    with (tmp_path / "dos.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert float(rows[-1]["integrated_up"]) >= 7
    assert imread(tmp_path / "dos.png").std() > 0.01  # something is drawn
    levels = run("fermi", folder)
    assert levels["states_of_spins"] == [7, 5]
    calculation = OpenMXReader().read(golden("openmx/o2_spin"))
    gap = np.sort(np.concatenate([e.ravel() for e in DenseEigensolver(calculation).all_energies(np.zeros(3))]))[11:13]
    assert gap[0] < levels["fermi_eV"] < gap[1]


def test_tilted_oxygen_points_where_openmx_says(tmp_path: Path) -> None:
    """Non-collinear O2: the moment below E_F is the sum of the moments that OpenMX prints."""
    source = golden("openmx/o2_noncollinear_soc") / "openmx.scfout"
    calculation = OpenMXReader().read(source.parent, allow_unconverged=True)
    level = calculation.fermi_energy
    task = DosTask(calculation, DenseEigensolver(calculation), *divided_mesh((2, 1, 1), False), tmp_path)
    dos = dos_by_states(task, np.array([level]), 0.005, spins=True)
    # the run is not converged: its printed moments are one step older than H
    np.testing.assert_allclose(dos.spin_integrated[:, 0], calculation.structure.moments.sum(axis=0), atol=5e-3)


@pytest.mark.parametrize(("name", "moment"), [("hgraphene_spin", 1.0), ("bismuthene_soc/prim", 0.0)])
def test_real_crystals_hold_their_electrons(name: str, moment: float, tmp_path: Path) -> None:
    folder = shared_data(f"openmx/{name}")
    if folder is None:
        pytest.skip("the shared data is not here: set HAMNET_SHARED_DATA")
    figures = run(
        "dos", str(folder), "-o", str(tmp_path), "--mesh", "3,3,1", "--broadening", "0.02", "--points", "2000"
    )
    # 0.02 eV Gaussians at OpenMX's E_F, which another mesh would place a little elsewhere
    assert figures["electrons_below_fermi"] == pytest.approx(figures["electrons"], abs=0.3)
    if "electrons_of_spins" in figures:
        up, down = figures["electrons_of_spins"]
        assert up - down == pytest.approx(moment, abs=0.1)


def test_spin_from_the_command_line(tmp_path: Path) -> None:
    folder = str(golden("openmx/bismuthene_soc"))
    figures = run("dos", folder, "-o", str(tmp_path), "--mesh", "2,2,1", "--spin", "z", "--points", "40")
    # OpenMX's H is even under time reversal to 5e-8 eV: no net moment
    assert np.abs(figures["moment_bohr_magneton"]).max() < 1e-5
    header = (tmp_path / "dos.csv").read_text().splitlines()[0].split(",")
    assert header[-6:] == [f"{kind}_s_{a}" for a in "xyz" for kind in ("density", "integrated")]


def test_mistakes_are_told(tmp_path: Path) -> None:
    collinear = str(golden("openmx/o2_spin"))
    spinor = str(golden("openmx/bismuthene_soc"))
    cases = [
        ([collinear, "--spin", "z"], PhysicsError, "spinors"),
        ([spinor, "--spin", "w"], ConfigError, "x, y or z"),
        ([spinor, "--spin", "z", "--method", "counts"], ConfigError, "--method states"),
    ]
    for arguments, kind, message in cases:
        outcome = CliRunner().invoke(app, ["dos", *arguments, "-o", str(tmp_path)])
        assert isinstance(outcome.exception, kind)
        assert message in str(outcome.exception)
    dos = DensityOfStates(ENERGIES, np.ones((1, 33)), np.ones((1, 33)), None, "made up")
    with pytest.raises(PhysicsError, match="not computed"):
        plot_dos(dos, tmp_path / "x.png", axis=0)


def test_density_of_a_supercell_is_that_of_the_cell(tmp_path: Path) -> None:
    """Folding: twice the cell at half the k-points holds twice the states, spin by spin."""
    calculation = spinors(8)
    k = divided_mesh((2, 1, 1), False)
    small = dos_by_states(DosTask(calculation, DenseEigensolver(calculation), *k, tmp_path / "a"), ENERGIES, 0.3, True)
    large = supercell(calculation, (2, 1, 1))
    gamma = (np.zeros((1, 3)), np.ones(1))
    folded = dos_by_states(DosTask(large, DenseEigensolver(large), *gamma, tmp_path / "b"), ENERGIES, 0.3, True)
    np.testing.assert_allclose(folded.density, 2 * small.density, atol=1e-9)
    np.testing.assert_allclose(folded.spin_density, 2 * small.spin_density, atol=1e-9)
