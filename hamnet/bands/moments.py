"""Chebyshev moments of S^-1 H on random vectors, and the density that they make."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from hamnet.bands.solvers.lanczos import Basis

FloatArray = NDArray[np.float64]
Solve = Callable[[NDArray[Any]], NDArray[Any]]
RANGE_BLOCKS = 15
MARGIN = 0.02
"""Share of the spectrum's width that is added at both ends: outside, Chebyshev polynomials explode."""


def spectral_range(h: csr_matrix, s: csr_matrix, solve: Solve) -> tuple[float, float]:
    """(low, high) energies between which all states lie, from some Lanczos steps.

    Args:
        h, s: hermitian, s positive definite.
        solve: B -> S^-1 B.
    """
    n = h.shape[0]
    block = min(4, n)
    basis = Basis(s.__matmul__, n, min(n, (RANGE_BLOCKS + 1) * block), h.dtype, block)
    basis.start(block)
    error, theta = np.inf, np.zeros(1)
    for _ in range(RANGE_BLOCKS):
        couple = basis.extend(solve(h @ basis.last))
        theta, states = np.linalg.eigh(basis.projected)
        tail = states[len(states) - couple.shape[1] :]
        error = float(np.linalg.norm(couple @ tail[:, [0, -1]], axis=0).max())
        if basis.is_full or couple.shape[0] < block:
            break
    margin = MARGIN * float(theta[-1] - theta[0]) + error
    return float(theta[0]) - margin, float(theta[-1]) + margin


def chebyshev_moments(
    h: csr_matrix, solve: Solve, low: float, high: float, n_moments: int, n_vectors: int, seed: int
) -> FloatArray:
    """(n_moments, n_vectors) mu_n = Re z^dagger T_n(A) z with A = (S^-1 H - c) / d, z of random signs.

    The mean over vectors of z^dagger f(A) z is the trace of f(A), whatever scalar product A is hermitian in.

    Args:
        h: H.
        solve: B -> S^-1 B.
        low, high: energies that enclose the spectrum.
        n_moments: moments; n_vectors: random vectors; seed: of these.
    """
    middle, half = (high + low) / 2, (high - low) / 2
    z = np.random.default_rng(seed).choice([-1.0, 1.0], size=(h.shape[0], n_vectors)).astype(h.dtype)

    def apply(x: NDArray[Any]) -> NDArray[Any]:
        """A x."""
        return np.asarray((solve(h @ x) - middle * x) / half)

    moments = np.empty((n_moments, n_vectors))
    before, now = z, apply(z)
    for n in range(n_moments):
        moments[n] = np.real(np.einsum("ij,ij->j", z.conj(), before))
        before, now = now, 2 * apply(now) - before
    return moments


def chebyshev_density(
    moments: FloatArray, energies: FloatArray, low: float, high: float
) -> tuple[FloatArray, FloatArray]:
    """Density and its integral, both (n_vectors, n), from moments with Jackson's kernel.

    Args:
        moments: (n_moments, n_vectors); energies: (n,) eV; low, high: as for the moments.
    """
    count = len(moments)
    n = np.arange(count)
    width = np.pi / (count + 1)
    jackson = ((count - n + 1) * np.cos(width * n) + np.sin(width * n) / np.tan(width)) / (count + 1)
    damped = jackson[:, None] * moments
    x = (energies - (high + low) / 2) / ((high - low) / 2)
    inside = np.abs(x) < 1
    angle = np.arccos(np.clip(x, -1 + 1e-12, 1 - 1e-12))
    waves = np.cos(np.outer(angle, n[1:]))
    density = (damped[0][:, None] + 2 * (waves @ damped[1:]).T) / (np.pi * np.sin(angle)) / ((high - low) / 2)
    sines = np.sin(np.outer(angle, n[1:])) / n[1:]
    integral = (damped[0][:, None] * (np.pi - angle) - 2 * (sines @ damped[1:]).T) / np.pi
    full = np.where(x[None] > 0, moments[0][:, None], 0.0)
    return np.where(inside, density, 0.0), np.where(inside, integral, full)
