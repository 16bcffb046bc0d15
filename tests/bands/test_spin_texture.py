"""Spin of states and atoms: against closed forms, against OpenMX's own moments, and under rotations of spin."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from factories import lawful_calculation
from golden_files import shared_data

from hamnet.bands.band_structure import compute_bands
from hamnet.bands.eigen import DenseSolver
from hamnet.bands.kpath import band_path
from hamnet.bands.spin_texture import spin_moments, spin_rows, texture
from hamnet.bands.study import StudySettings, study_bands
from hamnet.core.bloch import BlochSum, spin_overlap
from hamnet.core.blocks import BlockMatrix
from hamnet.core.calculation import Calculation
from hamnet.core.rotation import PAULI, rotate_blocks, rotate_structure
from hamnet.core.spin import Spin, pauli_to_spinor, time_reversed
from hamnet.errors import PhysicsError

K = np.array([0.21, -0.34, 0.13])


def electrons(calculation: Calculation) -> Calculation:
    """With an odd number of electrons: somewhat less than half of all states."""
    return replace(calculation, n_electrons=float(calculation.overlap.n_orbitals - 3))


def test_texture_is_the_expectation_of_the_pauli_matrices() -> None:
    calculation = lawful_calculation(5, Spin.SPINOR)
    h, s = BlochSum(calculation.hamiltonian), BlochSum(calculation.overlap)
    states = DenseSolver().solve(h, s, K, True)
    found = texture(states, Spin.SPINOR)[0]
    vectors = states.vectors[0]
    expected = [np.einsum("in,ij,jn->n", vectors.conj(), np.kron(p, s.dense(K)), vectors).real for p in PAULI]
    # random blocks without time reversal: no two levels are one
    np.testing.assert_allclose(found, np.stack(expected, axis=1), atol=1e-12)
    assert (np.linalg.norm(found, axis=1) <= 1 + 1e-9).all()
    norm = spin_rows(vectors, spin_overlap(s.dense(K)) @ vectors)[0].sum(axis=0)
    np.testing.assert_allclose(norm, 1.0, atol=1e-12)


def test_moments_turn_with_the_crystal() -> None:
    """Turned atoms and blocks: moments are axial vectors, electrons do not change; proper and improper."""
    calculation = electrons(lawful_calculation(5, Spin.SPINOR))
    before = spin_moments(calculation, (2, 2, 2), 2000.0)
    rotation = -np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0]
    turned = replace(
        calculation,
        structure=rotate_structure(calculation.structure, rotation),
        hamiltonian=rotate_blocks(calculation.hamiltonian, rotation),
        overlap=rotate_blocks(calculation.overlap, rotation),
    )
    after = spin_moments(turned, (2, 2, 2), 2000.0)
    # sums over some hundred states, Fermi level to 1e-10 eV
    np.testing.assert_allclose(after.moments, np.linalg.det(rotation) * before.moments @ rotation.T, atol=1e-8)
    np.testing.assert_allclose(after.electrons, before.electrons, atol=1e-8)
    assert np.abs(before.moments).max() > 0.01


def test_time_reversal_turns_moments_and_its_absence_cancels_them() -> None:
    calculation = electrons(lawful_calculation(5, Spin.SPINOR))
    h = calculation.hamiltonian
    back = h.with_values(np.concatenate([time_reversed(g.blocks).ravel() for g in h.groups()]))
    first = spin_moments(calculation, (2, 1, 1), 2000.0)
    second = spin_moments(replace(calculation, hamiltonian=back), (2, 1, 1), 2000.0)
    np.testing.assert_allclose(second.moments, -first.moments, atol=1e-8)
    even = replace(calculation, hamiltonian=h.with_values((h.values + back.values) / 2))
    assert np.abs(spin_moments(even, (2, 1, 1), 2000.0).moments).max() < 1e-8


def test_collinear_is_a_spinor_along_z() -> None:
    """Up and down as blocks of a spinor matrix give the same moments and textures."""
    calculation = electrons(lawful_calculation(5, Spin.COLLINEAR))
    h = calculation.hamiltonian
    values = []
    for group in h.groups():
        up, down = group.blocks[:, 0], group.blocks[:, 1]
        zero = np.zeros_like(up)
        values.append(pauli_to_spinor(np.stack(((up + down) / 2, zero, zero, (up - down) / 2), axis=1)).ravel())
    spinor = BlockMatrix.from_values(h.pairs, h.basis, h.species, Spin.SPINOR, np.concatenate(values) + 0j)
    first = spin_moments(calculation, (2, 1, 1), 2000.0)
    second = spin_moments(replace(calculation, hamiltonian=spinor), (2, 1, 1), 2000.0)
    np.testing.assert_allclose(second.moments, first.moments, atol=1e-8)
    assert abs(first.fermi_energy - second.fermi_energy) < 1e-8
    path = band_path(calculation.structure, "0.1 0.2 0.3, 0.4 0.2 0.3", 3)
    spins = compute_bands(replace(calculation, hamiltonian=spinor), path, spin_axis=2).spins
    np.testing.assert_allclose(np.abs(spins[..., 2]), 1.0, atol=1e-9)


@pytest.mark.parametrize("name", ["o2_spin", "o2_noncollinear_soc"])
def test_moments_of_oxygen_are_those_that_openmx_prints(name: str) -> None:
    """Mulliken moments from H and S against the .out of the same run; tilted ones too."""
    from hamnet_preprocess.openmx import OpenMXReader

    folder = shared_data(f"openmx/{name}")
    if folder is None:
        pytest.skip("the shared data is not here: set HAMNET_SHARED_DATA")
    calculation = OpenMXReader().read(folder, allow_unconverged=True)
    found = spin_moments(calculation)
    # OpenMX prints five decimals, and its density is one SCF step older than H: seen 2e-6
    np.testing.assert_allclose(found.moments, calculation.structure.moments, atol=5e-5)
    assert abs(np.linalg.norm(found.total) - 2.0) < 0.01


def test_study_writes_spins(tmp_path: Path) -> None:
    calculation = electrons(lawful_calculation(5, Spin.SPINOR))
    study = study_bands(calculation, tmp_path, settings=StudySettings("0 0 0, 0.5 0 0", 4, spin_axis=2))
    assert (tmp_path / "bands.png").stat().st_size > 1000
    header = (tmp_path / "bands.csv").read_text().splitlines()[0].split(",")
    assert header[-3:] == ["s_x", "s_y", "s_z"]
    assert study.bands.spins.shape == (*study.bands.energies.shape, 3)


def test_no_spin_has_no_texture() -> None:
    calculation = lawful_calculation(5)
    with pytest.raises(PhysicsError, match="no spin"):
        compute_bands(calculation, band_path(calculation.structure, "0 0 0, 0.5 0 0", 3), spin_axis=0)
