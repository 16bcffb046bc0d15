"""Mulliken moments of PySCF calculations: against its own density matrix, and turned with the spins."""

import numpy as np
import pytest
from pyscf import dft, gto, scf
from pyscf.pbc import dft as pbc_dft
from pyscf.pbc import gto as pbc_gto
from pyscf.pbc import scf as pbc_scf
from scipy.spatial.transform import Rotation

from hamnet.core.rotation import spin_rotation
from hamnet.core.spin import Spin
from hamnet.core.time_reversal import EVEN, odd_part
from hamnet.errors import BasisError, PhysicsError
from hamnet_preprocess.pyscf import from_mean_field
from hamnet_preprocess.pyscf_moments import refuse_fixed_axis

TILT = Rotation.from_rotvec([0.3, -0.8, 0.4]).as_matrix()


@pytest.fixture(scope="module")
def radical():
    """OH, one unpaired electron; molecules keep their orbitals in the order of atoms."""
    mf = scf.UHF(gto.M(atom="O 0 0 0; H 0.1 0.2 0.95", basis="6-31g", spin=1, verbose=0))
    mf.conv_tol = 1e-11
    mf.kernel()
    return mf


def spin_population(mf) -> np.ndarray:
    """Moments of O and H from PySCF's density matrix."""
    up, down = mf.make_rdm1()
    share = ((up - down) * mf.get_ovlp()).sum(axis=1)
    n = mf.mol.aoslice_by_atom()[0, 3]
    return np.array([share[:n].sum(), share[n:].sum()])


def test_unrestricted_moments_are_those_of_the_density(radical):
    calculation = from_mean_field(radical)
    moments = calculation.structure.moments
    # orbitals of the final Fock matrix against the density that made it: the square root of conv_tol
    np.testing.assert_allclose(moments[:, 2], spin_population(radical), atol=1e-5)
    assert not moments[:, :2].any()
    assert moments.sum() == pytest.approx(1.0, abs=1e-10)
    assert odd_part(calculation.hamiltonian) > EVEN


def test_tilted_spins_give_tilted_moments(radical):
    """GHF started from the turned density of UHF stays there: moments are R times those along z."""
    start = radical.to_ghf()
    n = radical.mol.nao_nr()
    turn = np.kron(spin_rotation(TILT), np.eye(n))
    mf = scf.GHF(radical.mol)
    mf.conv_tol = 1e-11
    mf.kernel(turn @ start.make_rdm1() @ turn.conj().T)
    calculation = from_mean_field(mf)
    assert calculation.spin is Spin.SPINOR
    expected = np.outer(spin_population(radical), TILT[:, 2])
    np.testing.assert_allclose(calculation.structure.moments, expected, atol=1e-4)


def test_closed_shells_have_no_moments():
    for kind in (scf.RHF, scf.UHF):
        mf = kind(gto.M(atom="H 0 0 0; F 0 0 0.95", basis="sto-3g", verbose=0))
        mf.kernel()
        assert from_mean_field(mf).structure.moments is None


def chain(kind, up: int, down: int, **settings):
    """Two H atoms 2 Angstrom apart in a cell of 4 Angstrom along z, 3 k-points, (up, down) electrons in a cell.

    A coarse grid, the same about both atoms: moments against PySCF's density matrix ask for no accuracy of the energy.
    """
    cell = pbc_gto.M(
        atom="H 0 0 0; H 0 0 2.0", a=np.diag([4.0, 4.0, 4.0]), unit="A", basis="gth-szv", pseudo="gth-pade",
        mesh=[12, 12, 12], spin=3 * (up - down), verbose=0,
    )  # fmt: skip
    mf = kind(cell, cell.make_kpts([1, 1, 3]))
    mf.conv_tol = 1e-10
    for name, value in settings.items():
        setattr(mf, name, value)
    return mf


def density_moments(mf) -> np.ndarray:
    """Moments along z from PySCF's density matrices and S(k), one orbital for each atom."""
    up, down = np.asarray(mf.make_rdm1())
    overlap = np.asarray(mf.get_ovlp())
    return np.einsum("kab,kba->a", up - down, overlap).real / len(overlap)


@pytest.mark.parametrize("kind", ["KUHF", "KUKS"])
def test_ferromagnetic_chain(kind):
    """Both electrons of every cell up: 2 mu_B a cell, the same on both atoms."""
    mf = chain(pbc_scf.KUHF, 2, 0) if kind == "KUHF" else chain(pbc_dft.KUKS, 2, 0, xc="lda,vwn")
    mf.kernel()
    calculation = from_mean_field(mf, off_mesh_tolerance=np.inf)
    moments = calculation.structure.moments
    np.testing.assert_allclose(moments[:, 2], density_moments(mf), atol=1e-8)  # all states of one spin: no SCF error
    np.testing.assert_allclose(moments, [[0, 0, 1], [0, 0, 1]], atol=1e-8)
    assert calculation.spin is Spin.COLLINEAR
    assert odd_part(calculation.hamiltonian) > EVEN


def test_antiferromagnetic_chain():
    """Neel order: opposite moments, none in total; started from one atom up and one down."""
    mf = chain(pbc_scf.KUHF, 1, 1)
    start = np.array([np.diag([1.0, 0.0]), np.diag([0.0, 1.0])])
    mf.kernel(np.repeat(start[:, None], 3, axis=1).astype(np.complex128))
    calculation = from_mean_field(mf, off_mesh_tolerance=np.inf)
    moments = calculation.structure.moments[:, 2]
    # moments come from the final Fock matrix, PySCF's density from the one before: the square root of conv_tol
    np.testing.assert_allclose(moments, density_moments(mf), atol=3e-5)
    assert moments[0] > 0.3
    assert moments.sum() == pytest.approx(0, abs=3e-5)
    # the sublattices change places with the spins: H up of one is H down of the other
    own = [calculation.hamiltonian.block(p) for p in np.flatnonzero(calculation.hamiltonian.pairs.on_site)]
    np.testing.assert_allclose(own[0][0], own[1][1], atol=2e-3)  # eV: how far the SCF is from its end


def test_nonmagnetic_chain_has_no_moments():
    mf = chain(pbc_scf.KUHF, 1, 1)
    mf.kernel()
    assert from_mean_field(mf, off_mesh_tolerance=np.inf).structure.moments is None


def test_periodic_spinors_are_refused():
    with pytest.raises(BasisError, match="do not turn with the spins"):
        from_mean_field(chain(pbc_scf.KGHF, 1, 1))


def test_functionals_that_see_one_axis_are_refused_for_tilted_moments(radical):
    """GKS, collinear = "col": fine along z, and refused across; "ncol" and GHF see all directions."""
    along, across = np.array([[0, 0, 1.0]]), np.array([[0.3, 0, 0.9]])
    mf = dft.GKS(radical.mol)
    for moments in (None, along):
        refuse_fixed_axis(mf, moments)
    with pytest.raises(PhysicsError, match="mcol"):
        refuse_fixed_axis(mf, across)
    mf.collinear = "ncol"
    refuse_fixed_axis(mf, across)
    refuse_fixed_axis(scf.GHF(radical.mol), across)
