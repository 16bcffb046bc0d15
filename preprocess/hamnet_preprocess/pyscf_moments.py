"""Mulliken spin moments of a PySCF calculation, from its Fock matrix and occupations."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hamnet.core.spin import Spin
from hamnet_preprocess.pyscf_state import ScfState

NO_MOMENT = 1e-4
"""Bohr magnetons: below this everywhere nothing is magnetic (an unrestricted calculation of a closed shell)."""


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
