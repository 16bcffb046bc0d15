"""Frames of edges and the two kernels: equivariance, poles, parity, and that both span the same maps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from feature_cases import GRADED, close, few, orthogonal, random_features, rotated, seeds
from hypothesis import given

from hamnet.core.rotation import real_spherical_harmonics
from hamnet.nn.features import FeatureLayout
from hamnet.nn.frames import EdgeFrames, frame_rows
from hamnet.nn.so2 import SO2Convolution, frame_layout, into_frame, out_of_frame
from hamnet.nn.tensor_product import TensorProductConvolution, edge_harmonics

KERNELS = [SO2Convolution, TensorProductConvolution]
WIDER = FeatureLayout(3, 2, 2, 1, 1)
AXES = torch.tensor(
    [[0, 0, 1], [0, 0, -1], [1, 0, 0], [0, -2, 0], [1e-9, 0, 1], [0, 1e-7, -3], [1, 1, 0], [0.3, -0.2, 0.9]],
    dtype=torch.float64,
)
"""Both poles, next to them, along axes, and a general direction."""


def kernel_of(kind: type[torch.nn.Module], a: FeatureLayout = GRADED, b: FeatureLayout = WIDER) -> torch.nn.Module:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)  # e3nn makes its constants in the default type
    torch.manual_seed(5)
    kernel = kind(a, b)
    torch.set_default_dtype(before)
    return kernel


def weights_of(kernel: torch.nn.Module, n: int, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, kernel.n_weights, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("lmax", [0, 3, 6])
def test_frames_turn_edges_onto_z(lmax: int) -> None:
    """D^T Y(edge) = Y(z), D orthogonal; 1e-12: products of a few sines. Also at the poles and next to them."""
    vectors = np.concatenate((AXES.numpy(), np.random.default_rng(0).normal(size=(20, 3))))
    matrix = EdgeFrames(torch.from_numpy(vectors), torch.float64).matrix(lmax).numpy()
    harmonics = np.concatenate([real_spherical_harmonics(l, vectors) for l in range(lmax + 1)], axis=1)
    pole = np.concatenate([real_spherical_harmonics(l, np.array([0, 0, 1.0])) for l in range(lmax + 1)])
    expected = np.array([pole[l * l + l + m] for l, m in frame_rows(lmax, lmax)])
    np.testing.assert_allclose(np.einsum("nrk,nk->nr", matrix, harmonics) - expected, 0, atol=1e-12)
    np.testing.assert_allclose(matrix @ matrix.transpose(0, 2, 1) - np.eye(matrix.shape[1]), 0, atol=1e-12)


def test_frames_in_single_precision() -> None:
    """float32 against float64, all directions: rounding (6e-8) times a few terms, nowhere singular."""
    vectors = torch.cat((AXES, random_features(FeatureLayout(0, 3), 500)[:, 0]))
    single, double = (EdgeFrames(vectors.to(t), t).matrix(6) for t in (torch.float32, torch.float64))
    regular = vectors[:, :2].norm(dim=1) > 1e-3 * vectors.norm(dim=1)
    assert float((single - double)[regular].abs().max()) < 3e-6


@pytest.mark.parametrize("grade", [1, -1])
def test_into_the_frame_and_back(grade: int) -> None:
    """The rotation is orthogonal and the split into irreps of O(2) a permutation with signs: 1e-13."""
    x, frames = random_features(GRADED, len(AXES)), EdgeFrames(AXES, torch.float64)
    part = slice(GRADED.grade(grade)[0].start, GRADED.grade(grade)[1].stop)
    inside = into_frame(x, GRADED, grade, frames.matrix(2))
    assert tuple(s.shape[1] for s in inside.singlets) == frame_layout(GRADED, grade, 2).sizes[:2]
    assert close(out_of_frame(inside, GRADED, grade, frames.matrix(2)), x[..., part], 1e-13)


@given(seeds)
@few
@pytest.mark.parametrize("kind", KERNELS)
def test_kernels_are_equivariant(kind: type[torch.nn.Module], seed: int) -> None:
    """kernel(D x, O r, w) = D kernel(x, r, w): rotations and inversions, from the poles and onto them."""
    kernel, matrix = kernel_of(kind), orthogonal(seed)
    x, w = random_features(GRADED, len(AXES), seed), weights_of(kernel, len(AXES), seed)
    turned = AXES @ torch.from_numpy(matrix).T
    before = kernel(x, EdgeFrames(AXES, torch.float64), w)
    after = kernel(rotated(x, GRADED, matrix), EdgeFrames(turned, torch.float64), w)
    assert close(after, rotated(before, WIDER, matrix), 1e-10)


@pytest.mark.parametrize("mirror", [np.diag([1.0, 1, -1]), np.diag([-1.0, 1, 1]), -np.eye(3)])
@pytest.mark.parametrize("kind", KERNELS)
def test_kernels_keep_parity(kind: type[torch.nn.Module], mirror: np.ndarray) -> None:
    """Mirrors through the edge and across it."""
    kernel = kernel_of(kind)
    x, w = random_features(GRADED, len(AXES)), weights_of(kernel, len(AXES))
    before = kernel(x, EdgeFrames(AXES, torch.float64), w)
    after = kernel(rotated(x, GRADED, mirror), EdgeFrames(AXES @ torch.from_numpy(mirror).T, torch.float64), w)
    assert close(after, rotated(before, WIDER, mirror), 1e-10)


def test_both_kernels_span_the_same_maps() -> None:
    """Along one edge: all equivariant maps. Their number from O(2): 2 x 3^2 (m = 0), 4^2 (m = 1), 2^2 (m = 2)."""
    layout = FeatureLayout(2, 1, 1)
    n = layout.rows * 2
    frames = EdgeFrames(torch.tensor([[0.3, -0.5, 0.8]], dtype=torch.float64).expand(n, 3), torch.float64)
    basis = torch.eye(n, dtype=torch.float64).reshape(n, layout.rows, 2)
    maps = []
    for kind in KERNELS:
        kernel = kernel_of(kind, layout, layout)
        rows = []
        for seed in range(50):
            torch.manual_seed(seed)
            for parameter in kernel.parameters():
                torch.nn.init.normal_(parameter)
            weights = weights_of(kernel, 1, seed).expand(n, -1)
            rows.append(kernel(basis, frames, weights).detach().flatten().numpy())
        maps.append(np.array(rows))
    # singular values fall from order one to rounding
    assert [np.linalg.matrix_rank(m, tol=1e-6) for m in (*maps, np.vstack(maps))] == [38, 38, 38]


@pytest.mark.parametrize("kind", KERNELS)
def test_kernels_keep_the_grade_and_are_linear_in_weights(kind: type[torch.nn.Module]) -> None:
    """Even messages from even features alone, odd from odd; no weight, no message."""
    kernel, frames = kernel_of(kind), EdgeFrames(AXES, torch.float64)
    x, w = random_features(GRADED, len(AXES)), weights_of(kernel, len(AXES))
    messages, first_odd = kernel(x, frames, w), WIDER.classes[2].start
    even = x.clone()
    even[..., GRADED.classes[2].start :] = 0
    assert torch.equal(kernel(even, frames, w)[..., :first_odd], messages[..., :first_odd])
    assert not kernel(even, frames, w)[..., first_odd:].any()
    assert not kernel(x, frames, 0 * w).any()
    assert close(kernel(x, frames, 2 * w), 2 * messages, 1e-13)


def test_edge_harmonics_are_ours() -> None:
    """Component normalisation: sqrt(4 pi) times unit-norm harmonics, in our order, whatever the length."""
    vectors = np.random.default_rng(0).normal(size=(20, 3))
    expected = np.concatenate([real_spherical_harmonics(l, vectors) for l in range(5)], axis=1) * np.sqrt(4 * np.pi)
    found = edge_harmonics(torch.from_numpy(vectors), 4).numpy()
    # polynomials up to degree 4 against trigonometric functions, values up to 3
    np.testing.assert_allclose(found, expected, atol=1e-12)
    np.testing.assert_allclose(edge_harmonics(torch.from_numpy(3 * vectors), 4).numpy(), found, atol=1e-12)
