"""Windows of bands, Fermi levels by counts, densities of states, unfolding, resuming: against all states by LAPACK."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from factories import lawful_calculation
from golden_files import golden

from hamnet.bands import band_path, compute_bands
from hamnet.bands.dos import DosTask, dos_by_counts, dos_by_moments, dos_by_states
from hamnet.bands.fermi import divided_mesh, find_fermi
from hamnet.bands.fermi_counts import CountedMesh, fermi_by_counting
from hamnet.bands.kpoint_runs import fingerprint, processes, run_kpoints
from hamnet.bands.large import LargeSettings, window_bands
from hamnet.bands.solvers import DenseEigensolver, SparseEigensolver
from hamnet.bands.unfold import map_sites, unfold_bands, weights_of
from hamnet.core.calculation import Calculation
from hamnet.core.spin import Spin
from hamnet.core.structure import AtomicStructure
from hamnet.core.supercell import supercell
from hamnet.errors import ConfigError, PhysicsError
from hamnet_preprocess.openmx import OpenMXReader

ENGINE = "auto"


@pytest.fixture(scope="module")
def graphene() -> Calculation:
    return OpenMXReader().read(golden("openmx/graphene"))


@pytest.fixture(scope="module")
def sheet(graphene: Calculation) -> Calculation:
    """4 x 4 graphene, 160 rows."""
    return supercell(graphene, (4, 4, 1))


def test_window_of_bands_is_a_cut_through_all_bands(graphene: Calculation, sheet: Calculation, tmp_path: Path) -> None:
    path = band_path(sheet.structure, "G,M", 4)
    said: list[str] = []
    bands = window_bands(sheet, path, LargeSettings(10, engine="superlu"), tmp_path, "orbital", on_line=said.append)
    every = compute_bands(sheet, path, "orbital")
    cut = slice(bands.first_band, bands.first_band + bands.energies.shape[2])
    assert bands.energies.shape[2] >= 10
    np.testing.assert_allclose(bands.energies, every.energies[:, :, cut], atol=1e-9)  # eV, as promised
    np.testing.assert_allclose(bands.weights.sum(axis=-1), 1, atol=1e-9)  # Mulliken populations of normalised states
    assert bands.fermi_energy == graphene.fermi_energy
    assert any("expected" in line and "GB" in line for line in said)


def test_interrupted_run_takes_up_what_is_there(tmp_path: Path) -> None:
    calls: list[int] = []

    def task(n: int) -> dict[str, np.ndarray]:
        """Fails at the third k-point the first time."""
        calls.append(n)
        if calls == [0, 1, 2]:
            raise KeyboardInterrupt
        return {"value": np.array(n)}

    with pytest.raises(KeyboardInterrupt):
        run_kpoints(task, 4, tmp_path, "a")
    assert [int(r["value"]) for r in run_kpoints(task, 4, tmp_path, "a")] == [0, 1, 2, 3]
    assert calls == [0, 1, 2, 2, 3]
    (tmp_path / "00001.npz").write_bytes(b"cut short")
    run_kpoints(task, 4, tmp_path, "a")
    assert calls[5:] == [1]
    run_kpoints(task, 4, tmp_path, "another key")
    assert calls[6:] == [0, 1, 2, 3]


def test_kpoints_side_by_side_give_the_same(sheet: Calculation, tmp_path: Path) -> None:
    solver = SparseEigensolver(sheet, "superlu")
    k = np.array([[0.1, 0.2, 0.0], [0.3, 0.1, 0.0]])
    task = DosTask(sheet, solver, k, np.array([0.5, 0.5]), tmp_path / "one")
    energies = np.linspace(-8, -3, 5)
    alone = dos_by_counts(task, energies)
    together = dos_by_counts(replace(task, folder=tmp_path / "two", jobs=2), energies)
    np.testing.assert_array_equal(alone.integrated, together.integrated)


def test_processes_obey_memory_and_wishes() -> None:
    assert processes(1, 1, 10) == 1
    assert processes(8, 2**60, 10) == 1  # a process larger than the machine still gets its own refusal
    assert processes(0, 1, 1) == 1


def test_fingerprint_tells_matrices_and_settings_apart(graphene: Calculation, sheet: Calculation) -> None:
    assert fingerprint(graphene, 1) == fingerprint(graphene, 1)
    assert len({fingerprint(graphene, 1), fingerprint(graphene, 2), fingerprint(sheet, 1)}) == 3


@pytest.mark.parametrize("name", ["graphene", "hbn", "bismuthene_soc"])
def test_fermi_level_by_counts_is_that_of_all_states(name: str) -> None:
    calculation = replace(OpenMXReader().read(golden(f"openmx/{name}")), fermi_energy=None)
    large = supercell(calculation, (1, 2, 1) if name == "bismuthene_soc" else (2, 2, 1))
    mesh = divided_mesh((2, 2, 1), True)
    dense = DenseEigensolver(large)
    energies = np.stack([dense.all_energies(k) for k in mesh[0]], axis=1)
    exact = find_fermi(energies, mesh[1], large.n_electrons, large.spin, 300.0)
    level = fermi_by_counting(large, SparseEigensolver(large, ENGINE), large.n_electrons, 300.0, mesh)
    assert level.energy == pytest.approx(exact, abs=1e-6)  # eV; Fermi tails cut 12 k T away
    counts = fermi_by_counting(large, dense, large.n_electrons, 300.0, mesh, resolution=1e-3)
    below = CountedMesh(dense, *mesh, large.n_electrons, large.spin)
    if name == "hbn":  # an insulator: the middle of its gap
        assert counts.energy == pytest.approx(exact, abs=2e-3)
        assert below.electrons_below(counts.energy) == pytest.approx(large.n_electrons)
    else:
        assert below.electrons_below(counts.energy - 1e-3) <= large.n_electrons
        assert below.electrons_below(counts.energy + 1e-3) >= large.n_electrons


def test_electrons_that_do_not_fit_are_refused(graphene: Calculation) -> None:
    with pytest.raises(PhysicsError, match="do not fit"):
        fermi_by_counting(graphene, DenseEigensolver(graphene), 1000.0)


def test_around_is_checked(sheet: Calculation, tmp_path: Path) -> None:
    path = band_path(sheet.structure, "G,M", 3)
    with pytest.raises(ConfigError, match="--around"):
        window_bands(sheet, path, LargeSettings(4, around="somewhere"), tmp_path)


@pytest.mark.parametrize("spin", list(Spin))
def test_three_densities_of_states_agree(spin: Spin, tmp_path: Path) -> None:
    calculation = supercell(lawful_calculation(3, spin), (2, 2, 1))
    k, weights = np.array([[0.1, 0.2, 0.3], [0.5, 0.0, 0.0]]), np.array([0.7, 0.3])
    energies = np.linspace(-25, 25, 61)
    task = DosTask(calculation, DenseEigensolver(calculation), k, weights, tmp_path / "states")
    states = dos_by_states(task, energies, 0.3)
    sparse = replace(task, solver=SparseEigensolver(calculation, "superlu"), folder=tmp_path / "counts")
    counts = dos_by_counts(sparse, energies[::15])
    level = np.stack([task.solver.all_energies(point) for point in k])
    exact = task.factor * np.einsum("k,ksne->se", weights, level[..., None] < energies[::15])
    np.testing.assert_allclose(counts.integrated, exact, atol=1e-9)  # whole numbers times weights
    capacity = task.factor * sparse.solver.n_rows
    np.testing.assert_allclose(states.integrated[:, -1], capacity, rtol=1e-6)  # 25 eV: above every Gaussian
    moments = dos_by_moments(replace(sparse, folder=tmp_path / "moments"), energies, 120, 8)
    # Five times the stated error of the density, summed over some 40 resolved energies, bounds its integral.
    spread = 5 * moments.error.max() * (energies[1] - energies[0]) * np.sqrt(40)
    assert np.abs(moments.integrated - states.integrated).max() < spread + 0.02 * capacity
    np.testing.assert_allclose(moments.integrated[:, -1], capacity, rtol=1e-9)  # all states, without any error


def test_moments_at_the_ends_of_the_spectrum_do_not_explode(sheet: Calculation, tmp_path: Path) -> None:
    solver = SparseEigensolver(sheet, "superlu")
    task = DosTask(sheet, solver, np.zeros((1, 3)), np.ones(1), tmp_path)
    low, high = -40.0, 200.0
    moments = dos_by_moments(task, np.linspace(low, high, 50), 200, 4)
    assert np.abs(moments.density).max() < 2 * solver.n_rows


def test_exact_supercell_unfolds_to_weights_of_nought_and_one(
    graphene: Calculation, sheet: Calculation, tmp_path: Path
) -> None:
    path = band_path(graphene.structure, "0.13 0.21 0, 0.37 0.05 0", 3)
    unfolded = unfold_bands(
        sheet, graphene.structure, path, DenseEigensolver(sheet), graphene.fermi_energy, 160, tmp_path
    )
    small = compute_bands(graphene, path).energies[0]
    for k, (energies, weights) in enumerate(zip(unfolded.energies, unfolded.weights, strict=True)):
        np.testing.assert_allclose(weights, np.round(weights), atol=1e-10)  # condition of S times rounding
        assert weights.sum() == pytest.approx(10)
        np.testing.assert_allclose(energies[weights > 0.5], small[k], atol=1e-8)  # eV, condition of S times rounding


@pytest.mark.parametrize("spin", list(Spin))
def test_weights_of_a_rattled_cell_with_a_defect_add_up_to_one(spin: Spin) -> None:
    primitive = lawful_calculation(4, spin)
    exact = supercell(primitive, (2, 2, 1))
    rng = np.random.default_rng(0)
    positions = exact.structure.positions + rng.normal(scale=0.05, size=exact.structure.positions.shape)
    old = exact.structure
    structure = AtomicStructure(old.atomic_numbers, old.species, positions, old.cell, old.pbc)
    noisy = exact.hamiltonian.with_values(
        exact.hamiltonian.values + 0.1 * rng.normal(size=exact.hamiltonian.values.size)
    )
    rattled = replace(exact, structure=structure, hamiltonian=noisy.symmetrised())
    sites = map_sites(primitive.structure, structure)
    assert sites.n_cells == 4
    assert sites.n_missing == 0
    # one atom becomes a vacancy plus an atom off every site: it gets a label of its own
    moved = replace(sites, labels=np.where(np.arange(len(positions)) == 3, sites.labels.max() + 1, sites.labels))
    folded = np.array([0.2, 0.3, 0.1])
    window = DenseEigensolver(rattled).window(folded, 0.0, rattled.hamiltonian.n_orbitals, vectors=True)[0]
    for some in (sites, moved):
        total = sum(
            weights_of(some, rattled, (folded + [i, j, 0]) / [2, 2, 1], window.vectors, window.overlap_vectors)
            for i in range(2)
            for j in range(2)
        )
        np.testing.assert_allclose(total, 1, atol=1e-10)  # exact sum rule, rounding


def test_sites_of_a_defective_shifted_supercell(graphene: Calculation, sheet: Calculation) -> None:
    s = sheet.structure
    keep = np.arange(s.n_atoms) != 5
    extra = s.positions[7] + [0.0, 0.0, 1.5]
    positions = np.vstack((s.positions[keep], extra)) + [0.7, -0.4, 0.9]
    numbers = np.append(s.atomic_numbers[keep], 6)
    structure = AtomicStructure(numbers, np.zeros(len(numbers), int), positions, s.cell, s.pbc)
    sites = map_sites(graphene.structure, structure)
    assert sites.n_missing == 1
    assert np.isnan(sites.displacement).sum() == 1
    assert np.nanmax(sites.displacement) < 1e-6  # the origin was found
    assert "1 site(s) empty" in sites.describe()


def test_cells_that_do_not_fit_are_refused(graphene: Calculation) -> None:
    s = graphene.structure
    other = AtomicStructure(s.atomic_numbers, s.species, s.positions * 1.3, s.cell * 1.3, s.pbc)
    with pytest.raises(PhysicsError, match="no multiple"):
        map_sites(s, other)
