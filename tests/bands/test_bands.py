"""Bands of real and made-up matrices: folding, paths, edges, weights, counting, comparison."""

from dataclasses import replace

import numpy as np
import pytest
from factories import lawful_calculation
from golden_files import golden
from hypothesis import given, settings
from hypothesis import strategies as st

from hamnet.bands import band_path, compare, compute_bands, effective_masses
from hamnet.bands.fermi import find_fermi, occupations
from hamnet.bands.kpath import vacuum_directions
from hamnet.core.reference import ReferenceBands
from hamnet.core.spin import Spin
from hamnet.core.structure import AtomicStructure
from hamnet.core.supercell import supercell
from hamnet.errors import ConfigError, PhysicsError
from hamnet_preprocess.openmx import OpenMXReader


def graphene(cell: np.ndarray) -> AtomicStructure:
    return AtomicStructure([6, 6], [0, 0], np.array([[0, 0, 0], [1 / 3, 1 / 3, 0]]) @ cell, cell, np.ones(3, bool))


def read(name: str):
    return OpenMXReader().read(golden(f"openmx/{name}"))


@pytest.mark.parametrize("digits", [4, 10])
def test_k_of_graphene_is_found_in_a_rounded_cell(digits: int) -> None:
    cell = np.round([[2.4612, 0, 0], [2.4612 / 2, 2.4612 * 0.75**0.5, 0], [0, 0, 15]], digits)
    path = band_path(graphene(cell), "auto", 60)
    assert [name for _, name in path.labels] == ["G", "M", "K", "G"]
    k = path.kpoints[dict((name, index) for index, name in path.labels)["K"]]
    # the two inequivalent corners in a 60 degree cell are +-(1/3, 2/3) and what reciprocal vectors make of them
    corner = sorted(abs(k[:2] - np.round(k[:2])))
    np.testing.assert_allclose(corner, [1 / 3, 1 / 3], atol=1e-12)
    np.testing.assert_array_equal(path.kpoints[:, 2], 0)


def test_vacuum_and_molecule() -> None:
    cell = np.diag([3.0, 3.0, 20.0])
    assert vacuum_directions(AtomicStructure([6], [0], np.zeros((1, 3)), cell, np.ones(3, bool))) == (2,)
    assert len(band_path(AtomicStructure([6], [0], np.zeros((1, 3)))).kpoints) == 1


def test_path_as_given_with_break_and_fractions() -> None:
    cell = np.array([[2.46, 0, 0], [1.23, 2.46 * 0.75**0.5, 0], [0, 0, 15.0]])
    path = band_path(graphene(cell), "G,M|0 0 0, 0.25 0 0", 20)
    assert len(path.breaks) == 2
    assert path.distances[path.breaks[1]] == path.distances[path.breaks[1] - 1]
    with pytest.raises(ConfigError, match="'Q' is no k-point"):
        band_path(graphene(cell), "G,Q")


def test_effective_mass_and_gap_of_hbn() -> None:
    calculation = read("hbn")
    bands = compute_bands(calculation, band_path(calculation.structure, "auto", 60), "orbital")
    assert bands.valence_edge.label == "K"
    assert bands.conduction_edge.label == "K"
    assert bands.is_direct
    assert bands.gap == pytest.approx(4.817, abs=0.001)  # OpenMX's own eigenvalues at K
    # Mulliken populations of a normalised state add up to one; 1e-9 is rounding with a condition of S of 1e4
    np.testing.assert_allclose(bands.weights.sum(axis=-1), 1, atol=1e-9)
    for mass in effective_masses(calculation, bands):
        assert 0.1 < mass.mass < 5
        assert mass.fit > 0.99


def test_graphene_is_no_insulator_and_its_supercell_folds() -> None:
    calculation = read("graphene")
    bands = compute_bands(calculation, band_path(calculation.structure, "G,M,K,G", 40))
    assert bands.is_metal
    large = supercell(calculation, (3, 1, 1))
    folded = band_path(large.structure, "0.3 0.2 0, 0.3 0.2 0.1", 3)
    small = [band_path(calculation.structure, f"{(0.3 + m) / 3} 0.2 0, {(0.3 + m) / 3} 0.2 0.1", 3) for m in range(3)]
    ours = compute_bands(large, folded).energies[0, 0]
    theirs = np.sort(np.concatenate([compute_bands(calculation, p).energies[0, 0] for p in small]))
    np.testing.assert_allclose(ours, theirs, atol=1e-8)  # eV, condition of S times rounding


def test_fermi_level_by_counting_agrees_with_the_code() -> None:
    calculation = read("graphene")
    counted = compute_bands(replace(calculation, fermi_energy=None), band_path(calculation.structure, "G,M", 3))
    assert "electrons counted" in counted.fermi_method
    # 0.1 eV: the code's own mesh is another one, and graphene has few states at the Dirac point
    assert counted.fermi_energy == pytest.approx(calculation.fermi_energy, abs=0.1)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 999), n=st.floats(0.6, 11.4), spin=st.sampled_from(list(Spin)))
def test_found_fermi_level_holds_the_electrons(seed: int, n: float, spin: Spin) -> None:
    energies = np.sort(np.random.default_rng(seed).normal(size=(1, 5, 12)), axis=-1)
    weights = np.full(5, 0.2)
    factor = 2 if spin is Spin.NONE else 1
    level = find_fermi(energies, weights, factor * n, spin, 2000.0)
    held = factor * (occupations(energies, level, 2000.0).sum(axis=(0, 2)) * weights).sum()
    assert held == pytest.approx(factor * n, abs=1e-6)


@pytest.mark.parametrize("spin", list(Spin))
def test_energies_at_opposite_k_are_equal_without_magnetism(spin: Spin) -> None:
    calculation = lawful_calculation(5, spin)
    path = band_path(calculation.structure, "0.1 0.2 0.3, -0.1 -0.2 -0.3", 3)
    energies = compute_bands(calculation, path).energies
    same = np.abs(energies[:, 0] - energies[:, -1]).max() < 1e-10
    assert same == (spin is not Spin.SPINOR)  # random complex spinor blocks are magnetic


def test_bad_overlap_is_refused_or_projected_and_counted() -> None:
    calculation = lawful_calculation(5)
    values = calculation.overlap.values.copy()
    values[calculation.overlap.offsets[0]] = -1.0  # a negative norm
    broken = replace(calculation, overlap=calculation.overlap.with_values(values))
    path = band_path(calculation.structure, "0 0 0, 0.5 0 0", 3)
    with pytest.raises(PhysicsError, match="least eigenvalue"):
        compute_bands(broken, path)
    bands = compute_bands(broken, path, project_overlap=1e-6)
    assert (bands.n_projected >= 1).all()
    assert np.isnan(bands.energies).sum() == bands.n_projected.sum()


def test_comparison_raw_aligned_window_and_refusal() -> None:
    calculation = read("graphene")
    bands = compute_bands(calculation, band_path(calculation.structure, "G,M,K,G", 12))
    moved = ReferenceBands(bands.path.kpoints, bands.energies + 0.5, bands.fermi_energy + 0.5)
    result = compare(bands, moved, (-5.0, 2.0))
    assert result.max_difference == pytest.approx(0.5)
    assert result.max_difference_aligned == pytest.approx(0, abs=1e-12)
    in_gap = compare(bands, replace(moved, fermi_energy=bands.fermi_energy + 0.4), (-5.0, 2.0))
    assert in_gap.max_difference_aligned == pytest.approx(0.1)  # Fermi levels elsewhere in one gap
    assert in_gap.shift == pytest.approx(-0.5)
    assert in_gap.max_difference_shifted == pytest.approx(0, abs=1e-12)
    assert in_gap.mean_difference_shifted == pytest.approx(0, abs=1e-12)
    assert result.n_compared < bands.energies.size
    fewer = compare(bands, replace(moved, energies=moved.energies[..., :4]))
    assert "lowest 4" in fewer.note
    with pytest.raises(PhysicsError, match="k-points"):
        compare(bands, replace(moved, kpoints=moved.kpoints[1:], energies=moved.energies[:, 1:]))
