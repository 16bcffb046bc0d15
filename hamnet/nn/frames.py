"""Frames of edges: the rotation that takes each edge to the z axis, as real Wigner matrices of all degrees.

R = Rz(alpha) Ry(beta) takes z to the edge, so D(R)^T x are the features seen from the edge. D_l(Rz) mixes m with -m
by cos(m alpha) and sin(m alpha); D_l(Ry) is a polynomial in cos(beta), sin(beta) without mixing m >= 0 with m < 0.
Every entry of D is therefore one factor of alpha times a Fourier series of beta: one small matrix product and one
product by elements. At the poles alpha is free and set to 0: what is computed in the frame and brought back does
not depend on it.
"""

from __future__ import annotations

from functools import lru_cache
from math import cos, pi, sin

import numpy as np
import torch
from numpy.typing import NDArray

from hamnet.core.rotation import wigner_d

POLE = 1e-12
"""Edges closer to the z axis than this part of their length have alpha = 0."""


@lru_cache(maxsize=32)
def frame_rows(lmax: int, mmax: int) -> tuple[tuple[int, int], ...]:
    """(l, m) of the rows in a frame: m = 0 for all l; then for m = 1..mmax all l with +m, all l with -m."""
    rows = [(l, 0) for l in range(lmax + 1)]
    for m in range(1, mmax + 1):
        rows += [(l, m) for l in range(m, lmax + 1)] + [(l, -m) for l in range(m, lmax + 1)]
    return tuple(rows)


@lru_cache(maxsize=32)
def _about_y(l: int) -> NDArray[np.float64]:
    """(2l+1, 2l+1, 2l+1) Fourier coefficients f of D_l(Ry(beta)): last axis 1, cos(k beta), sin(k beta)."""
    angles = np.linspace(0, 2 * pi, 4 * l + 4, endpoint=False) + 0.1
    matrices = [wigner_d(l, np.array([[cos(b), 0, sin(b)], [0, 1, 0], [-sin(b), 0, cos(b)]])) for b in angles]
    orders = np.arange(1, l + 1)
    series = np.hstack((np.ones((len(angles), 1)), np.cos(angles[:, None] * orders), np.sin(angles[:, None] * orders)))
    solution = np.linalg.lstsq(series, np.reshape(matrices, (len(angles), -1)))[0]
    solution[np.abs(solution) < 1e-12] = 0.0
    return np.asarray(solution.T.reshape(2 * l + 1, 2 * l + 1, 2 * l + 1))


@lru_cache(maxsize=32)
def _tables(lmax: int, mmax: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Index of the alpha factor, and Fourier coefficients of the beta factor, of each entry of the frame matrix.

    The matrix is D^T with rows of `frame_rows` and columns (l, m) of features; alpha factors are 1, cos(m alpha),
    sin(m alpha); beta factors 1, cos(k beta), sin(k beta).
    """
    rows = frame_rows(lmax, mmax)
    index = np.zeros((len(rows), (lmax + 1) ** 2), dtype=np.int64)
    series = np.zeros((*index.shape, 2 * lmax + 1))
    for r, (l, m) in enumerate(rows):
        table = _about_y(l)
        columns = [0, *range(1, l + 1), *range(lmax + 1, lmax + 1 + l)]
        for feature_m in range(-l, l + 1):
            # D[n, m] = cos(n a) Dy[n, m] - sin(n a) Dy[-n, m] for row n of either sign; one of both terms is zero
            same = (feature_m >= 0) == (m >= 0)
            source = feature_m if same else -feature_m
            sign = 1.0 if same else -float(np.sign(feature_m))
            order = abs(feature_m)
            index[r, l * l + l + feature_m] = order if same else lmax + order
            if same or feature_m:
                series[r, l * l + l + feature_m, columns] = sign * table[l + source, l + m]
    return torch.from_numpy(index.ravel()), torch.from_numpy(series.reshape(-1, 2 * lmax + 1).T.copy())


class EdgeFrames:
    """Frames of a set of edges; the matrices of a degree are made when first asked for, and kept.

    Args:
        vectors: (n, 3) Angstrom, none of them zero.
        dtype: of the matrices.
    """

    def __init__(self, vectors: torch.Tensor, dtype: torch.dtype) -> None:
        self.vectors = vectors
        x, y, z = vectors.double().unbind(-1)
        across, length = torch.hypot(x, y), vectors.double().norm(dim=-1)
        at_pole = across <= POLE * length
        safe = torch.where(at_pole, torch.ones_like(across), across)
        alpha = torch.complex(torch.where(at_pole, safe, x / safe), torch.where(at_pole, torch.zeros_like(y), y / safe))
        beta = torch.complex(z / length, across / length)
        self._alpha, self._beta = alpha, beta
        self._dtype = dtype
        self._matrices: dict[tuple[int, int], torch.Tensor] = {}

    def __len__(self) -> int:
        """Number of edges."""
        return len(self.vectors)

    def matrix(self, lmax: int, mmax: int | None = None) -> torch.Tensor:
        """(n, n_frame_rows, (lmax+1)^2): features seen from the edge are `matrix @ features`; back by the transpose.

        Rows are `frame_rows(lmax, mmax)`; orthonormal.
        """
        key = (lmax, lmax if mmax is None else min(mmax, lmax))
        if key not in self._matrices:
            index, series = _tables(*key)
            device = self.vectors.device
            with torch.autocast(device.type, enabled=False):  # a rotation in bfloat16 would not be one
                beta = _fourier(self._beta, lmax, self._dtype) @ series.to(device, self._dtype)
            alpha = _fourier(self._alpha, lmax, self._dtype).index_select(1, index.to(device))
            self._matrices[key] = (alpha * beta).reshape(len(self), len(frame_rows(*key)), (lmax + 1) ** 2)
        return self._matrices[key]


def _fourier(unit: torch.Tensor, order: int, dtype: torch.dtype) -> torch.Tensor:
    """exp(i a) (n,) -> (n, 2 order + 1): 1, cos(k a), sin(k a) by powers."""
    powers = [torch.ones_like(unit)]
    for _ in range(order):
        powers.append(powers[-1] * unit)
    stacked = torch.stack(powers, dim=-1)
    return torch.cat((stacked.real, stacked.imag[:, 1:]), dim=-1).to(dtype)
