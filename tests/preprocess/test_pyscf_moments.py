"""Mulliken moments of PySCF calculations: against its own density matrix, and turned with the spins."""

import numpy as np
import pytest
from pyscf import gto, scf
from scipy.spatial.transform import Rotation

from hamnet.core.rotation import spin_rotation
from hamnet.core.spin import Spin
from hamnet.core.time_reversal import EVEN, odd_part
from hamnet_preprocess.pyscf import from_mean_field

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
