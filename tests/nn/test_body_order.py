"""What each body order can tell apart, at one atom: distances, then angles, then handedness."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hamnet.nn.features import FeatureLayout
from hamnet.nn.frames import EdgeFrames
from hamnet.nn.interaction import Interaction

LAYOUT = FeatureLayout(2, 6, 4)
TRIPOD = np.array([[1.0, 0.2, 0.1], [-0.3, 1.1, 0.2], [0.1, -0.4, 0.9]])
"""Three neighbours that do not lie in one plane with the atom."""
MIRROR = np.diag([1.0, 1.0, -1.0])


def atom_features(neighbours: np.ndarray, body_order: int) -> torch.Tensor:
    """(rows, channels) of an atom after one untrained layer, float64; its neighbours are all alike."""
    torch.manual_seed(4)
    layer = Interaction(FeatureLayout(0, 6), LAYOUT, 1, 8, 16, 3.0, body_order, "so2").double()
    n = len(neighbours)
    vectors = torch.from_numpy(neighbours)
    features = torch.ones(n + 1, 1, 6, dtype=torch.float64)
    onehot = torch.ones(n + 1, 1, dtype=torch.float64)
    source, target = torch.arange(1, n + 1), torch.zeros(n, dtype=torch.int64)
    frames, scaled = EdgeFrames(vectors, torch.float64), vectors.norm(dim=1) / 3.0
    with torch.no_grad():
        result: torch.Tensor = layer(features, onehot, source, target, frames, scaled)
    return result[0]


def difference(a: torch.Tensor, b: torch.Tensor) -> float:
    """Largest difference over the largest number."""
    return float((a - b).abs().max() / a.abs().max())


def bent(angle: float) -> np.ndarray:
    """Two neighbours at 1.2 A with the given angle (degrees) between them."""
    half = np.radians(angle) / 2
    return 1.2 * np.array([[np.sin(half), np.cos(half), 0], [-np.sin(half), np.cos(half), 0]])


@pytest.mark.parametrize(("body_order", "sees"), [(2, False), (3, True), (4, True)])
def test_same_distances_other_angle(body_order: int, sees: bool) -> None:
    """Scalars at order 2 are sums over distances, equal to rounding (1e-12); angles enter by the first product."""
    scalars = [atom_features(bent(angle), body_order)[0, : LAYOUT.natural] for angle in (95.0, 140.0)]
    assert (difference(*scalars) > 1e-3) if sees else (difference(*scalars) < 1e-12)


@pytest.mark.parametrize(("body_order", "sees"), [(2, False), (3, False), (4, True)])
def test_same_angles_other_hand(body_order: int, sees: bool) -> None:
    """The pseudoscalar a . (b x c) of a mirrored environment has the other sign; it needs three neighbours at once."""
    left, right = (atom_features(TRIPOD @ m, body_order)[0, LAYOUT.natural :] for m in (np.eye(3), MIRROR))
    if sees:
        assert float(left.abs().max()) > 1e-6
        assert difference(left, -right) < 1e-10
    else:
        # exactly nothing at order 2; at order 3 the cross product of a vector with itself, up to rounding
        assert float(left.abs().max()) < 1e-12


@pytest.mark.parametrize("body_order", [2, 3, 4])
def test_scalars_do_not_see_the_hand(body_order: int) -> None:
    """True scalars are the same in a mirror, whatever the order."""
    left, right = (atom_features(TRIPOD @ m, body_order)[0, : LAYOUT.natural] for m in (np.eye(3), MIRROR))
    assert difference(left, right) < 1e-12
