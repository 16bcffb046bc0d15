"""Generalised eigenvalues H(k) c = E S(k) c: one protocol, the dense LAPACK solver."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from hamnet.core.bloch import BlochSum, spin_overlap
from hamnet.core.spin import Spin
from hamnet.errors import PhysicsError

FloatArray = NDArray[np.float64]
ComplexArray = NDArray[np.complex128]
MINIMUM_RECIPROCAL_CONDITION = 1e-13
"""Below this S(k) has lost all digits: eigenvalues would be noise."""


@dataclass(frozen=True, eq=False)
class Eigenstates:
    """States at one k-point.

    Args:
        energies: (n_spin, n_bands) eV, ascending; NaN at the top where modes of S were projected out.
        vectors: (n_spin, n, n_bands), c^dagger S c = 1; None when not asked for.
        overlap: (n, n) S(k), doubled for spinors; None when vectors were not asked for.
        n_projected: modes of S that were projected out.
    """

    energies: FloatArray
    vectors: ComplexArray | None
    overlap: ComplexArray | None
    n_projected: int


class EigenSolver(Protocol):
    """Anything that finds the states of H(k) and S(k)."""

    def solve(self, hamiltonian: BlochSum, overlap: BlochSum, kpoint: FloatArray, vectors: bool) -> Eigenstates:
        """States at a fractional k-point."""


@dataclass(frozen=True)
class DenseSolver:
    """All eigenvalues by LAPACK.

    Args:
        project_overlap: modes of S(k) with eigenvalues below this are projected out and counted;
            None refuses an S(k) that is not positive definite.
    """

    project_overlap: float | None = None

    def solve(self, hamiltonian: BlochSum, overlap: BlochSum, kpoint: FloatArray, vectors: bool) -> Eigenstates:
        """States at a fractional k-point.

        Raises:
            PhysicsError: S(k) is not positive definite, or so badly conditioned that bands would be noise.
        """
        s = overlap.dense(kpoint)
        if hamiltonian.spin is Spin.SPINOR:
            s = spin_overlap(s)
        h = hamiltonian.dense(kpoint)
        channels = h if hamiltonian.spin is Spin.COLLINEAR else h[None]
        if self.project_overlap is None:
            check_overlap(s, kpoint)
            results = [_eigh(channel, s, vectors) for channel in channels]
            n_projected = 0
        else:
            transform, n_projected = _kept_modes(s, self.project_overlap)
            results = [_projected(channel, transform, vectors) for channel in channels]
        energies = np.stack([energy for energy, _ in results])
        if not vectors:
            return Eigenstates(energies, None, None, n_projected)
        return Eigenstates(energies, np.stack([vector for _, vector in results]), s, n_projected)


def check_overlap(overlap: ComplexArray, kpoint: FloatArray) -> None:
    """Refuse an S(k) that is not positive definite or has lost its digits.

    Raises:
        PhysicsError: with the k-point, the least eigenvalue and the condition number.
    """
    factor, info = linalg.lapack.zpotrf(overlap, lower=1)
    if info == 0:
        condition, _ = linalg.lapack.zpocon(factor, np.abs(overlap).sum(axis=0).max(), uplo="L")
        if condition > MINIMUM_RECIPROCAL_CONDITION:
            return
    modes = np.linalg.eigvalsh(overlap)
    raise PhysicsError(
        f"S(k) at k = {np.round(kpoint, 6).tolist()} is not safely positive definite: least eigenvalue "
        f"{modes[0]:.3e} ({int((modes <= 0).sum())} not positive), greatest {modes[-1]:.3e}, condition "
        f"{modes[-1] / max(abs(modes[0]), 1e-300):.1e}. The basis is linearly dependent or S is wrong (cut off, "
        "other basis): mend S, or project its small modes out with --project-overlap 1e-6"
    )


def _eigh(h: ComplexArray, s: ComplexArray, vectors: bool) -> tuple[FloatArray, Any]:
    if not vectors:
        return linalg.eigh(h, s, eigvals_only=True, check_finite=False), None
    energies, states = linalg.eigh(h, s, check_finite=False)
    return energies.astype(np.float64, copy=False), states


def _kept_modes(s: ComplexArray, threshold: float) -> tuple[ComplexArray, int]:
    modes, states = np.linalg.eigh(s)
    keep = modes > threshold
    if not keep.any():
        raise PhysicsError(f"every mode of S(k) is below {threshold:g}: the greatest is {modes[-1]:.3e}")
    return states[:, keep] / np.sqrt(modes[keep]), int((~keep).sum())


def _projected(h: ComplexArray, transform: ComplexArray, vectors: bool) -> tuple[FloatArray, Any]:
    n, kept = transform.shape
    small = transform.conj().T @ h @ transform
    energies = np.full(n, np.nan)
    energies[:kept], states = np.linalg.eigh((small + small.conj().T) / 2)
    if not vectors:
        return energies, None
    full = np.zeros((n, n), dtype=np.complex128)
    full[:, :kept] = transform @ states
    return energies, full


def dense_memory(hamiltonian: BlochSum, vectors: bool) -> int:
    """Bytes that the dense solver needs at its peak: H(k), S(k), their copies, LAPACK's work space and vectors."""
    matrices = (2 if hamiltonian.spin is Spin.COLLINEAR else 1) * (3 if vectors else 1) + 6
    return 16 * hamiltonian.size**2 * matrices


def check_memory(hamiltonian: BlochSum, vectors: bool) -> None:
    """Refuse before allocating what the machine does not have.

    Raises:
        PhysicsError: with the bytes needed and the bytes available.
    """
    needed, available = dense_memory(hamiltonian, vectors), available_memory()
    if available is not None and needed > available:
        raise PhysicsError(
            f"dense bands of {hamiltonian.size} orbitals need about {needed / 2**30:.1f} GiB of memory, "
            f"{available / 2**30:.1f} GiB are available: a few bands need far less: hamnet bands FILE --bands 40"
        )


def available_memory() -> int | None:
    """Bytes of memory that can be had now; None where the system does not say."""
    path = Path("/proc/meminfo")
    if not path.exists():
        return None
    for line in path.read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None
