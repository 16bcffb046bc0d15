"""Mulliken spin moments of a PySCF calculation, from its Fock matrix and occupations."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hamnet.core.spin import Spin
from hamnet.errors import PhysicsError
from hamnet_preprocess.pyscf_state import ScfState

NO_MOMENT = 1e-4
"""Bohr magnetons: below this everywhere nothing is magnetic (an unrestricted calculation of a closed shell)."""

TRANSVERSE = 1e-3
"""Bohr magnetons across z from which on a GKS state is taken for tilted: an SCF leaves some 1e-5 of none."""


def refuse_fixed_axis(mf: Any, moments: NDArray[np.float64] | None) -> None:
    """Refuse tilted moments of GKS with `collinear = "col"`, its default: the functional then sees m_z alone.

    Such an H singles out the z axis of the laboratory: HI+ with spin-orbit coupling, turned and run again, is 0.25 eV
    (LDA) off its turned H, with "ncol" 1e-5 eV. No network that is equivariant can learn it.

    Args:
        mf: PySCF's object; only GKS has the attribute.
        moments: (n_atoms, 3) Bohr magnetons, None without any.

    Raises:
        PhysicsError: with what to set instead.
    """
    if getattr(mf, "collinear", "")[:1] != "c" or moments is None:
        return
    across = float(np.abs(moments[:, :2]).max())
    if across > TRANSVERSE:
        raise PhysicsError(
            f"the moments are tilted from z by up to {across:.3g} mu_B, and GKS was run with collinear = 'col', "
            "PySCF's default: its functional sees the z component alone, so that H depends on how the molecule lies in "
            "the laboratory; set mf.collinear = 'mcol' (package mcfun), or 'ncol' with an LDA, or use GHF"
        )


def mulliken_moments(state: ScfState) -> NDArray[np.float64] | None:
    """(n_atoms, 3) Bohr magnetons, along z where collinear; None without spin or where all are zero.

    m_a = sum over filled states and the atom's rows of c* (s_a x S) c, averaged over k-points.
    """
    if state.spin is Spin.NONE:
        return None
    n_k, n = state.overlap.shape[:2]
    rows = np.zeros((3, n))
    for k, (fock, overlap) in enumerate(zip(state.fock, state.overlap, strict=True)):
        if state.spin is Spin.COLLINEAR:
            for channel, sign in enumerate((1, -1)):
                c = _filled(fock[channel], overlap, state.mo_occ[channel, k])
                rows[2] += sign * (c.conj() * (overlap @ c)).real.sum(axis=1)
        else:
            c = _filled(fock, np.kron(np.eye(2), overlap), state.mo_occ[0, k])
            up, down = c[:n].conj(), c[n:].conj()
            s_up, s_down = overlap @ c[:n], overlap @ c[n:]
            across, back = up * s_down, down * s_up
            parts = (across + back).real, (across - back).imag, (up * s_up - down * s_down).real
            rows += np.stack([part.sum(axis=1) for part in parts])
    slices = state.mol.aoslice_by_atom()[:, 2:]
    moments = np.array([rows[:, a:b].sum(axis=1) for a, b in slices]) / n_k
    return moments if np.abs(moments).max() > NO_MOMENT else None


def _filled(fock: NDArray[Any], overlap: NDArray[Any], occupations: NDArray[np.float64]) -> NDArray[Any]:
    """Eigenvectors with c^dagger S c = their occupation; modes of S that PySCF dropped are left out."""
    modes, vectors = np.linalg.eigh(overlap)
    count = len(occupations)
    transform = vectors[:, -count:] / np.sqrt(modes[-count:])
    states = np.linalg.eigh(transform.conj().T @ fock @ transform)[1]
    result: NDArray[Any] = (transform @ states) * np.sqrt(occupations)
    return result
