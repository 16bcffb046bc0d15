"""Rotations of feature tensors by the reference of core, for the tests of kernels and products."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import settings
from hypothesis import strategies as st
from scipy.linalg import block_diag
from scipy.spatial.transform import Rotation

from hamnet.core.rotation import wigner_d
from hamnet.nn.features import FeatureLayout

few = settings(max_examples=8, deadline=None)
seeds = st.integers(0, 2**31)
GRADED = FeatureLayout(2, 3, 2, 2, 1)
"""All four classes, with another number of channels each."""


def orthogonal(seed: int) -> np.ndarray:
    """A random rotation; every second one with an inversion."""
    return Rotation.random(random_state=seed).as_matrix() * (-1 if seed % 2 else 1)


def rotated(features: torch.Tensor, layout: FeatureLayout, matrix: np.ndarray) -> torch.Tensor:
    """D(O) x, with the sign of unnatural classes under improper O."""
    turn = torch.from_numpy(block_diag(*(wigner_d(l, matrix) for l in range(layout.lmax + 1))))
    result = torch.einsum("kl,nlc->nkc", turn, features)
    if np.linalg.det(matrix) < 0:
        for part in (layout.classes[1], layout.classes[3]):
            result[..., part] *= -1
    return result


def random_features(layout: FeatureLayout, n: int, seed: int = 0) -> torch.Tensor:
    """Unit normal numbers, float64."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, layout.rows, layout.channels, generator=generator, dtype=torch.float64)


def close(found: torch.Tensor, expected: torch.Tensor, relative: float) -> bool:
    """Largest difference within `relative` of the largest number."""
    found, expected = found.detach(), expected.detach()
    return float((found - expected).abs().max()) <= relative * float(expected.abs().max())
