"""Metrics by themselves: known errors come back as known figures, in every spin layout."""

from dataclasses import replace

import numpy as np
import pytest
from factories import lawful_calculation, two_species

from hamnet.core.blocks import BlockMatrix
from hamnet.core.calculation import Calculation
from hamnet.core.spin import Spin
from hamnet.errors import PhysicsError
from hamnet.nn.dataset import overlap_like
from hamnet.train.metrics import (
    BAND_WINDOW,
    HamiltonianErrors,
    Spectrum,
    fitted_shift,
    k_mesh,
    spectrum_errors,
    spectrum_figures,
)


def case(spin: Spin = Spin.NONE, periodic: bool = True) -> tuple[Calculation, BlockMatrix]:
    calculation = lawful_calculation(4, spin)
    assert calculation.hamiltonian is not None
    if not periodic:
        bare = replace(calculation.structure, cell=None, pbc=np.zeros(3, dtype=bool))
        keep = ~calculation.overlap.pairs.cell_shift.any(axis=1)
        assert keep.any()
        calculation = Calculation(
            bare, calculation.basis, _home(calculation.overlap), _home(calculation.hamiltonian), n_electrons=12.0
        )
        assert calculation.hamiltonian is not None
    return calculation, calculation.hamiltonian


def _home(matrix: BlockMatrix) -> BlockMatrix:
    """The blocks inside the home cell."""
    from hamnet.core.pairs import PairList

    keep, old = ~matrix.pairs.cell_shift.any(axis=1), matrix.pairs
    pairs = PairList.build(old.i[keep], old.j[keep], old.cell_shift[keep], matrix.species)
    values = matrix.values[np.repeat(keep, np.diff(matrix.offsets))]
    return BlockMatrix.from_values(pairs, matrix.basis, matrix.species, matrix.spin, values)


@pytest.mark.parametrize("spin", list(Spin))
def test_a_moved_zero_is_told_and_leaves_no_error(spin: Spin) -> None:
    calculation, truth = case(spin)
    moved = truth.with_values(truth.values + 0.25 * overlap_like(calculation.overlap, truth).values)
    errors = HamiltonianErrors(two_species())
    assert errors.add(moved, truth, calculation.overlap, True) == pytest.approx(0.25, abs=1e-13)
    figures = errors.figures()
    # meV; rounding of numbers of order one is 1e-13 meV times a thousand
    assert figures["hamiltonian_max_meV"] < 1e-9
    assert figures["hamiltonian_mae_meV_raw"] > 1
    assert figures["mean_shift_meV"] == pytest.approx(250, abs=1e-9)
    # where the zero is physical it counts as an error
    kept = HamiltonianErrors(two_species())
    assert kept.add(moved, truth, calculation.overlap, False) == 0
    assert kept.figures()["hamiltonian_mae_meV"] == kept.figures()["hamiltonian_mae_meV_raw"]


def test_the_shift_is_the_least_squares_one() -> None:
    calculation, truth = case()
    noise = truth.with_values(np.random.default_rng(0).normal(size=len(truth.values)))
    s = overlap_like(calculation.overlap, truth)
    mu = fitted_shift(noise, s)
    rest = noise.values - mu * s.values
    # the rest is orthogonal to S: rounding of a sum of some thousand numbers
    assert abs(float(rest @ s.values)) < 1e-9


@pytest.mark.parametrize("spin", list(Spin))
def test_one_wrong_number_stands_in_its_place_alone(spin: Spin) -> None:
    calculation, truth = case(spin)
    p = int(np.flatnonzero(truth.pairs.on_site)[0])
    values = truth.values.copy()
    values[truth.offsets[p]] += 0.5
    errors = HamiltonianErrors(two_species())
    errors.add(truth.with_values(values), truth, calculation.overlap, False)
    wrong = [row for row in errors.shell_pairs() if row.maximum > 0]
    assert len(wrong) == 1
    assert (wrong[0].shell_i, wrong[0].shell_j, wrong[0].on_site) == (0, 0, True)
    assert wrong[0].maximum == pytest.approx(500)
    assert wrong[0].mae * wrong[0].count == pytest.approx(500)
    assert errors.figures()["off_site_mae_meV"] == 0
    assert errors.figures()["on_site_mae_meV"] > 0
    # every number of H is counted once
    assert sum(row.count for row in errors.shell_pairs()) == len(truth.values)


@pytest.mark.parametrize("spin", list(Spin))
def test_bands_of_the_truth_have_no_error_and_a_shift_is_taken_out(spin: Spin) -> None:
    calculation, truth = case(spin)
    moved = truth.with_values(truth.values + 0.1 * overlap_like(calculation.overlap, truth).values)
    found = spectrum_errors(calculation, moved, 0.1)
    assert found.bands.size > 0
    assert found.occupied.size == 0
    # meV^2; eigenvalues are right to 1e-13 eV
    assert found.bands.max() < 1e-16
    raw = spectrum_figures([spectrum_errors(calculation, moved, 0.0)])
    assert raw["band_rmse_meV"] == pytest.approx(100, abs=1e-6)
    assert raw["occupied_mae_meV"] is None


def test_levels_of_a_molecule_are_the_occupied_ones() -> None:
    calculation, truth = case(periodic=False)
    moved = truth.with_values(truth.values + 0.1 * calculation.overlap.values)
    found = spectrum_errors(calculation, moved, 0.0)
    assert found.bands.size == 0
    assert len(found.occupied) == 6  # twelve electrons, two to a level
    np.testing.assert_allclose(found.occupied, 100, atol=1e-6)


def test_only_bands_in_the_window_count() -> None:
    calculation, truth = case()
    spectrum = Spectrum(calculation)
    n_all = len(k_mesh(calculation)) * truth.n_orbitals
    scored = spectrum.errors(truth, 0.0).bands.size
    assert 0 < scored < n_all
    assert BAND_WINDOW > 0


def test_what_cannot_be_solved_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    calculation, truth = case()
    negative = replace(calculation, overlap=calculation.overlap.with_values(-calculation.overlap.values))
    assert "eigenvalues failed" in spectrum_errors(negative, truth, 0.0).note
    monkeypatch.setattr("hamnet.train.metrics.LARGEST_EIGENPROBLEM", 5)
    large = spectrum_errors(calculation, truth, 0.0)
    assert "too many for a dense eigenproblem" in large.note
    assert spectrum_figures([large])["band_rmse_meV"] is None
    with pytest.raises(PhysicsError, match="no Hamiltonian"):
        spectrum_errors(replace(calculation, hamiltonian=None), truth, 0.0)


def test_the_mesh_is_one_point_across_a_slab() -> None:
    calculation, _ = case()
    slab = replace(calculation, structure=replace(calculation.structure, pbc=np.array([True, True, False])))
    assert set(k_mesh(slab)[:, 2]) == {0.0}
    assert len(k_mesh(calculation)) > len(k_mesh(slab))
