"""Real Hamiltonians with tilted moments, OpenMX's and PySCF's, under rotation, time reversal and folding.

What the network is built on must hold for data: the DFT run of the turned structure gives the turned H; turned H and S
keep the spectrum; moments turn as axial vectors; T H T^-1 belongs to the opposite moments.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from golden_files import golden, shared_data
from numpy.typing import NDArray
from pyscf import dft, gto, scf
from scipy.linalg import block_diag
from scipy.spatial.transform import Rotation

from hamnet.bands.spin_texture import spin_moments
from hamnet.core.blocks import BlockMatrix
from hamnet.core.calculation import Calculation
from hamnet.core.rotation import orbital_rotation, rotate_blocks, rotate_structure, spin_rotation
from hamnet.core.spin import Spin, pauli_to_spinor, spinor_to_pauli, time_reversed
from hamnet.core.supercell import supercell
from hamnet.core.time_reversal import odd_part
from hamnet.errors import PhysicsError
from hamnet.testing import eigenvalues_at
from hamnet_preprocess.openmx import OpenMXReader
from hamnet_preprocess.pyscf import from_mean_field
from hamnet_preprocess.pyscf_basis import basis_of, orbital_order

FloatArray = NDArray[np.float64]
TURN = Rotation.from_rotvec([0.7, -0.4, 1.1]).as_matrix()
K = np.array([0.21, -0.34, 0.13])
ROTATIONS = [TURN, -TURN, np.diag([1.0, -1.0, 1.0]), np.array([[0, 1, 0], [-1, 0, 0], [0, 0, 1.0]])]


def turned(calculation: Calculation, rotation: FloatArray) -> Calculation:
    """Atoms, cell, moments, H and S under an orthogonal map."""
    return replace(
        calculation,
        structure=rotate_structure(calculation.structure, rotation),
        hamiltonian=rotate_blocks(calculation.hamiltonian, rotation),
        overlap=rotate_blocks(calculation.overlap, rotation),
    )


def reversed_in_time(matrix: BlockMatrix) -> BlockMatrix:
    """T H T^-1."""
    return matrix.with_values(np.concatenate([time_reversed(group.blocks).ravel() for group in matrix.groups()]))


def spins_turned(calculation: Calculation, rotation: FloatArray) -> Calculation:
    """A collinear calculation as spinors whose spins alone are turned: what a run without coupling gives as well."""
    h, u = calculation.hamiltonian, spin_rotation(rotation)
    axes = [np.real(np.trace(p @ u @ np.diag([1, -1]) @ u.conj().T)) / 2 for p in pauli_matrices()]
    values = []
    for group in h.groups():
        a_0, a_z = (group.blocks[:, 0] + group.blocks[:, 1]) / 2, (group.blocks[:, 0] - group.blocks[:, 1]) / 2
        values.append(pauli_to_spinor(np.stack([a_0, *(axis * a_z for axis in axes)], axis=1) + 0j).ravel())
    spinor = BlockMatrix.from_values(h.pairs, h.basis, h.species, Spin.SPINOR, np.concatenate(values))
    moments = calculation.structure.moments @ rotation.T
    return replace(calculation, hamiltonian=spinor, structure=replace(calculation.structure, moments=moments))


def pauli_matrices() -> list[NDArray[np.complex128]]:
    """s_x, s_y, s_z."""
    return [np.array(m, dtype=np.complex128) for m in ([[0, 1], [1, 0]], [[0, -1j], [1j, 0]], [[1, 0], [0, -1]])]


@pytest.fixture(scope="module")
def oxygen() -> Calculation:
    """OpenMX, O2 in a box, spin-orbit coupling, moments tilted from all axes; its SCF is not converged."""
    return OpenMXReader().read(golden("openmx/o2_noncollinear_soc"), allow_unconverged=True)


@pytest.fixture(scope="module")
def crystal() -> Calculation:
    """OpenMX, H on graphene, 1 mu_B a cell: a magnetic crystal with the spins turned off every axis."""
    folder = shared_data("openmx/hgraphene_spin")
    if folder is None:
        pytest.skip("the shared data is not here: set HAMNET_SHARED_DATA")
    return spins_turned(OpenMXReader().read(folder), TURN)


@pytest.mark.parametrize("rotation", ROTATIONS)
@pytest.mark.parametrize("name", ["oxygen", "crystal"])
def test_turned_hamiltonian_keeps_what_must_be_kept(
    name: str, rotation: FloatArray, request: pytest.FixtureRequest
) -> None:
    """Spectrum, hermiticity, T and moments of a real magnetic H under turns, inversion and a mirror."""
    calculation: Calculation = request.getfixturevalue(name)
    other = turned(calculation, rotation)
    h = other.hamiltonian
    scale = np.abs(h.values).max()
    assert h.hermitian_residual()[0] < 1e-14 * scale  # the turned blocks of a pair and its reverse are rounded apart
    energies = eigenvalues_at(calculation, K)
    # 1e-14 of H, amplified by 1/s of the least mode of S (1e-2)
    np.testing.assert_allclose(eigenvalues_at(other, K), energies, atol=1e-9)
    back = rotate_blocks(h, rotation.T)
    # SU(2) is known up to a sign, which H does not see
    np.testing.assert_allclose(back.values, calculation.hamiltonian.values, atol=1e-13 * scale)
    # T commutes with every turn, and takes H to that of -m: E(k) -> E(-k)
    both = reversed_in_time(h).values - rotate_blocks(reversed_in_time(calculation.hamiltonian), rotation).values
    assert np.abs(both).max() < 1e-13 * scale
    opposite = replace(other, hamiltonian=reversed_in_time(h))
    np.testing.assert_allclose(eigenvalues_at(opposite, -K), energies, atol=1e-9)
    assert odd_part(h) > 0.1  # eV: this is a magnet


def test_moments_of_the_turned_hamiltonian_turn(oxygen: Calculation) -> None:
    for rotation in (TURN, -TURN):
        other = turned(oxygen, rotation)
        found = spin_moments(other, (2, 1, 1))
        # OpenMX prints five decimals, and its unconverged density is one step older than H
        np.testing.assert_allclose(found.moments, other.structure.moments, atol=5e-5)
        opposite = replace(other, hamiltonian=reversed_in_time(other.hamiltonian))
        np.testing.assert_allclose(spin_moments(opposite, (2, 1, 1)).moments, -found.moments, atol=1e-8)


def test_a_supercell_of_a_tilted_crystal_folds_and_turns(oxygen: Calculation) -> None:
    """2 x 1 x 1 of the cell, turned: its states at k are the cell's at k and k + 1/2; every atom's moment turns."""
    large = turned(supercell(oxygen, (2, 1, 1)), TURN)
    k = np.array([0.3, 0.1, -0.2])
    folded = [eigenvalues_at(oxygen, np.array([(k[0] + n) / 2, k[1], k[2]])) for n in (0, 1)]
    np.testing.assert_allclose(eigenvalues_at(large, k), np.sort(np.concatenate(folded, axis=1)), atol=1e-9)
    found = spin_moments(large, (1, 1, 1))
    np.testing.assert_allclose(found.moments, large.structure.moments, atol=5e-5)


def test_without_coupling_spins_turn_alone(crystal: Calculation) -> None:
    """A_0 does not change, A_a turns as a vector; the lattice stays. The spectrum is that of the collinear run."""
    folder = shared_data("openmx/hgraphene_spin")
    collinear = OpenMXReader().read(folder)
    energies = np.sort(np.concatenate(list(eigenvalues_at(collinear, K))))
    np.testing.assert_allclose(eigenvalues_at(crystal, K)[0], energies, atol=1e-9)
    straight = spins_turned(collinear, np.eye(3)).hamiltonian.groups()
    for before, after in zip(straight, crystal.hamiltonian.groups(), strict=True):
        a, b = spinor_to_pauli(before.blocks), spinor_to_pauli(after.blocks)
        np.testing.assert_allclose(b[:, 0], a[:, 0], atol=1e-12)
        np.testing.assert_allclose(b[:, 1:], np.einsum("ab,pbij->paij", TURN, a[:, 1:]), atol=1e-12)


def hydrogen_iodide(rotation: FloatArray) -> gto.Mole:
    """HI+, a doublet, with the spin-orbit ECP of crenbl, turned."""
    iodine, hydrogen = np.array([[0, 0, 0], [0.3, 0.4, 1.55]]) @ rotation.T
    return gto.M(
        atom=[("I", iodine), ("H", hydrogen)], basis={"I": "crenbl", "H": "6-31g"}, ecp={"I": "crenbl"},
        charge=1, spin=1, verbose=0,
    )  # fmt: skip


def turn_of(mol: gto.Mole, rotation: FloatArray) -> NDArray[np.complex128]:
    """D^{1/2} x U in PySCF's order of orbitals."""
    basis, species = basis_of(mol)
    order = orbital_order(basis, species)
    result = np.zeros((mol.nao_nr(),) * 2)
    result[np.ix_(order, order)] = block_diag(*(orbital_rotation(basis.species[k], rotation) for k in species))
    return np.kron(spin_rotation(rotation), result)


def converged(kind: str, mol: gto.Mole, density: NDArray[np.complex128]) -> scf.ghf.GHF:
    """One SCF with spin-orbit coupling; "lda" and "lda col" are GKS that sees all directions of spin, or z alone."""
    mf = scf.GHF(mol) if kind == "hf" else dft.GKS(mol)
    if kind != "hf":
        mf.xc, mf.grids.level, mf.collinear = "lda,vwn", 1, "col" if "col" in kind else "ncol"
    mf.with_soc, mf.conv_tol, mf.max_cycle = True, 1e-10, 200
    mf.kernel(density)
    return mf


def tilted_start() -> NDArray[np.complex128]:
    """Density of UHF with its spins turned off the axis of the molecule."""
    mol = hydrogen_iodide(np.eye(3))
    start = scf.UHF(mol)
    start.kernel()
    turn = np.kron(spin_rotation(Rotation.from_rotvec([0.6, 0.3, 0]).as_matrix()), np.eye(mol.nao_nr()))
    return turn @ start.to_ghf().make_rdm1() @ turn.conj().T


# GHF: integrals are exact, and the SCF stops sqrt(1e-10) from its end. LDA: the grid about each atom does
# not turn: 1e-4 eV at level 1, 9e-6 at level 3.
@pytest.mark.parametrize(("kind", "floor"), [("hf", 2e-4), ("lda", 3e-4)])
def test_the_run_of_the_turned_molecule_gives_the_turned_hamiltonian(kind: str, floor: float) -> None:
    """DFT run twice: H, S and moments of HI+ turned and run again against those turned by hamnet."""
    first = converged(kind, hydrogen_iodide(np.eye(3)), tilted_start())
    turn = turn_of(first.mol, TURN)
    again = converged(kind, hydrogen_iodide(TURN), turn @ first.make_rdm1() @ turn.conj().T)
    before, after = (from_mean_field(mf) for mf in (first, again))
    expected = turned(before, TURN)
    np.testing.assert_allclose(after.overlap.values, expected.overlap.values, atol=1e-12)
    np.testing.assert_allclose(after.hamiltonian.values, expected.hamiltonian.values, atol=floor)  # eV
    assert odd_part(before.hamiltonian) > 0.1  # magnetic: nothing above is true because it is zero
    parts = np.concatenate([np.abs(spinor_to_pauli(g.blocks)[:, 1:]).max(axis=(0, 2, 3))[:, None] for g in
                            before.hamiltonian.groups()], axis=1)  # fmt: skip
    assert (parts.max(axis=1) > 0.1).all()  # eV: A_x, A_y, A_z are all there
    if kind == "lda":
        moments = before.structure.moments
        assert np.linalg.norm(moments.sum(axis=0)) > 0.5
        np.testing.assert_allclose(after.structure.moments, expected.structure.moments, atol=1e-4)


def test_a_functional_that_sees_one_axis_is_not_covariant_and_refused() -> None:
    """PySCF's default for GKS: the molecule turned and run again is 0.2 eV away, so that such data are refused."""
    first = converged("lda col", hydrogen_iodide(np.eye(3)), tilted_start())
    with pytest.raises(PhysicsError, match="z component alone"):
        from_mean_field(first)
