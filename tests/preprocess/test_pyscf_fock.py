"""Fock builds against PySCF's own converged calculation, and what must hold for every density."""

from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pyscf import dft, gto, scf
from scipy.spatial.transform import Rotation

from hamnet.core.structure import AtomicStructure
from hamnet.core.units import BOHR, HARTREE
from hamnet.errors import ConfigError, PhysicsError
from hamnet_preprocess.pyscf import calculation_of
from hamnet_preprocess.pyscf_basis import basis_of, structure_of
from hamnet_preprocess.pyscf_fock import FockBuilder, Method, commutator, dense_of, density_of, orbitals_of
from hamnet_preprocess.pyscf_state import state_of

WATER = "O 0 0 0; H 0 0.1 0.97; H 0.9 0 -0.2"


@lru_cache
def converged(xc: str = "pbe") -> tuple[Any, Any, FockBuilder]:
    """PySCF's converged water, the same as a Calculation, and a builder that knows only the latter."""
    mol = gto.M(atom=WATER, basis="6-31g*", verbose=0)
    mf: Any = scf.RHF(mol) if xc == "hf" else dft.RKS(mol, xc=xc)
    if xc != "hf":
        mf.grids.level = 1
    mf.conv_tol = 1e-12
    mf.kernel()
    calculation = calculation_of(state_of(mf))
    return mf, calculation, FockBuilder(calculation.structure, calculation.basis, Method.of(calculation))


def noise(seed: int, size: int) -> NDArray[np.float64]:
    """Symmetric noise, 1 eV in the mean."""
    matrix = np.random.default_rng(seed).normal(size=(size, size))
    return (matrix + matrix.T) / 2


@pytest.mark.parametrize("xc", ["hf", "pbe", "b3lyp5"])
def test_the_converged_state_is_pyscfs(xc: str) -> None:
    mf, calculation, builder = converged(xc)
    fock = dense_of(calculation.hamiltonian)
    # contractions are normalised once more on the way through the basis: 1e-9 of 500 eV
    np.testing.assert_allclose(builder.overlap, dense_of(calculation.overlap), atol=1e-8)
    density = density_of(fock, builder.overlap, builder.n_electrons)
    before = builder.builds
    result = builder.build(density)
    assert builder.builds == before + 1
    # conv_tol 1e-12 Ha leaves F at the square root of it, 1e-6 Ha
    np.testing.assert_allclose(result.fock, fock, atol=1e-4)
    assert result.energy == pytest.approx(mf.e_tot * HARTREE, abs=1e-6)
    assert commutator(result.fock, density, builder.overlap) < 1e-4
    expected = -mf.nuc_grad_method().kernel() * HARTREE / BOHR
    # forces follow F to first order: 1e-6 Ha
    np.testing.assert_allclose(builder.forces(fock), expected, atol=2e-4)


def test_the_minao_density_is_pyscfs() -> None:
    mf, _, builder = converged()
    found = builder.build(builder.minao_density())
    expected = mf.energy_tot(mf.get_init_guess(key="minao"))
    assert found.energy == pytest.approx(expected * HARTREE, abs=1e-6)
    assert np.vdot(builder.minao_density(), builder.overlap) == pytest.approx(10.0, abs=0.3)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**31), st.floats(0.01, 10.0))
def test_an_occupied_projector_is_idempotent_and_counts_electrons(seed: int, size: float) -> None:
    _, calculation, builder = converged()
    fock = dense_of(calculation.hamiltonian)
    density = density_of(fock + size * noise(seed, len(fock)), builder.overlap, 10)
    # rounding times the condition number of S, about 1e3
    np.testing.assert_allclose(density @ builder.overlap @ density, 2 * density, atol=1e-9)
    assert np.vdot(density, builder.overlap) == pytest.approx(10.0, abs=1e-9)


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 2**31))
def test_the_energy_is_second_order_and_above_the_scf_energy(seed: int) -> None:
    mf, calculation, builder = converged()
    fock = dense_of(calculation.hamiltonian)
    error = 0.1 * noise(seed, len(fock))
    above = []
    for scale in (1.0, 0.5):
        density = density_of(fock + scale * error, builder.overlap, 10)
        above.append(builder.build(density).energy - mf.e_tot * HARTREE)
    # third order is left: a tenth of an eV against gaps of ten
    assert above[0] > 0
    assert above[0] / above[1] == pytest.approx(4.0, rel=0.25)


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 2**31))
def test_the_commutator_is_the_occupied_virtual_block(seed: int) -> None:
    _, calculation, builder = converged()
    fock = dense_of(calculation.hamiltonian)
    other = fock + noise(seed, len(fock))
    density = density_of(other, builder.overlap, 10)
    orbitals = orbitals_of(other, builder.overlap)[1]
    mixed = orbitals[:, :5].T @ fock @ orbitals[:, 5:]
    expected = 2 * np.sqrt(2) * np.linalg.norm(mixed)
    # rounding
    assert commutator(fock, density, builder.overlap) == pytest.approx(expected, rel=1e-8)


def test_forces_are_the_derivative_of_the_scf_energy() -> None:
    mol = gto.M(atom=WATER, basis="sto-3g", verbose=0)
    basis, species = basis_of(mol)
    structure = structure_of(mol, species, basis)

    def solved(positions: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        """SCF energy and forces of Hartree-Fock: no grid, so that both belong together."""
        moved = AtomicStructure(structure.atomic_numbers, structure.species, positions)
        builder = FockBuilder(moved, basis, Method("hf"))
        density = builder.minao_density()
        for _ in range(60):
            result = builder.build(density)
            density = density_of(result.fock, builder.overlap, 10)
        return result.energy, builder.forces(result.fock)

    step = np.zeros((3, 3))
    step[1, 2] = 1e-3
    difference = solved(structure.positions + step)[0] - solved(structure.positions - step)[0]
    # central difference: h^2 E'''/6 is 1e-4 eV/A for a third derivative of 500 eV/A^3
    assert solved(structure.positions)[1][1, 2] == pytest.approx(-difference / 2e-3, abs=5e-4)


def test_rotation_leaves_the_energy_and_turns_the_forces() -> None:
    _, calculation, _ = converged()
    basis, found = calculation.basis, []
    turn = Rotation.from_rotvec([0.3, -1.1, 0.7]).as_matrix()
    for matrix in (np.eye(3), turn):
        structure = AtomicStructure(
            calculation.structure.atomic_numbers,
            calculation.structure.species,
            calculation.structure.positions @ matrix.T,
        )
        builder = FockBuilder(structure, basis, Method("pbe", 3))
        fock = builder.build(builder.minao_density()).fock
        density = density_of(fock, builder.overlap, 10)
        result = builder.build(density)
        norm = commutator(result.fock, density, builder.overlap)
        found.append((result.energy, builder.forces(result.fock), norm))
    (energy, forces, norm), (energy_turned, forces_turned, norm_turned) = found
    # the integration grid is no rotation's friend: level 3 breaks E by some 10 uEh, F by some 1e-3 eV/A
    assert energy_turned == pytest.approx(energy, abs=1e-3)
    assert norm_turned == pytest.approx(norm, rel=1e-3)
    np.testing.assert_allclose(forces_turned, forces @ turn.T, atol=5e-3)


def test_blocks_and_dense_matrices_round_trip() -> None:
    _, calculation, builder = converged()
    dense = dense_of(calculation.hamiltonian)
    np.testing.assert_array_equal(dense_of(builder.blocks(dense)), (dense + dense.T) / 2)


def test_a_charge_changes_the_electrons() -> None:
    mol = gto.M(atom="O 0 0 0; H 0 0 0.97", basis="sto-3g", charge=-1, verbose=0)
    mf = scf.RHF(mol)
    calculation = calculation_of(state_of(mf.run(conv_tol=1e-12)))
    method = Method.of(calculation)
    assert method == Method("hf", charge=-1)
    builder = FockBuilder(calculation.structure, calculation.basis, method)
    density = density_of(dense_of(calculation.hamiltonian), builder.overlap, builder.n_electrons)
    assert builder.build(density).energy == pytest.approx(mf.e_tot * HARTREE, abs=1e-6)


def test_density_fitting_is_the_labels_one() -> None:
    mol = gto.M(atom=WATER, basis="sto-3g", verbose=0)
    mf = scf.RHF(mol).density_fit().run(conv_tol=1e-12)
    calculation = calculation_of(state_of(mf))
    method = Method.of(calculation)
    assert method.density_fit
    builder = FockBuilder(calculation.structure, calculation.basis, method)
    density = density_of(dense_of(calculation.hamiltonian), builder.overlap, builder.n_electrons)
    assert builder.build(density).energy == pytest.approx(mf.e_tot * HARTREE, abs=1e-6)


@pytest.mark.parametrize(
    "method", [Method("pbe"), Method("b3lyp5", 3, "default", -1), Method("pbe,pbe", 4, "def2-universal-jkfit", 2)]
)
def test_a_method_goes_through_its_text(method: Method) -> None:
    assert Method.from_text(method.text) == method


def test_what_cannot_be_built_is_refused() -> None:
    _, calculation, builder = converged()
    with pytest.raises(ConfigError, match="functional is not known"):
        Method.from_provenance("", "level 4")
    with pytest.raises(ConfigError, match="expected as"):
        Method.from_text("pbe")
    with pytest.raises(PhysicsError, match="relativity"):
        Method.from_provenance("pbe", "level 4, x2c")
    with pytest.raises(PhysicsError, match="closed shells"):
        FockBuilder(calculation.structure, calculation.basis, Method("pbe", charge=1))
    with pytest.raises(PhysicsError, match="expected an even number"):
        density_of(builder.overlap, builder.overlap, 9)
    with pytest.raises(PhysicsError, match="all finite"):
        builder.build(np.full_like(builder.overlap, np.nan))
