"""The convolution kernel and the one place where axes are relabelled for e3nn."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from e3nn import o3
from e3nn.o3._wigner import so3_generators
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import expm

from hamnet.core.rotation import real_spherical_harmonics, wigner_d
from hamnet.nn.tensor_product import E3NN_AXES, GradedIrreps, TensorProductConvolution, edge_harmonics

RELABEL = np.eye(3)[E3NN_AXES]
"""P with P (x, y, z) = (y, z, x)."""
IRREPS = GradedIrreps(o3.Irreps("3x0e+2x0o+2x1o+1x1e+1x2e"), o3.Irreps("2x1e+1x0o+1x2o"))
few = settings(max_examples=8, deadline=None)
angles = st.tuples(st.floats(0, 6.28), st.floats(0.01, 3.13), st.floats(0, 6.28))


@pytest.fixture(scope="module", autouse=True)
def double_precision() -> Iterator[None]:
    """e3nn makes its constants, also those of `wigner_D`, in the default type."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.fixture(scope="module")
def kernel(double_precision: None) -> TensorProductConvolution:
    return TensorProductConvolution(IRREPS, 2, IRREPS)


def rotation_of(alpha: float, beta: float, gamma: float) -> tuple[np.ndarray, tuple[torch.Tensor, ...]]:
    """(3, 3) in our axes, and e3nn's Euler angles of the same rotation."""
    euler = tuple(torch.tensor(x, dtype=torch.float64) for x in (alpha, beta, gamma))
    theirs = o3.angles_to_matrix(*euler).numpy()
    return RELABEL.T @ theirs @ RELABEL, euler


def irreps_d(irreps: o3.Irreps, rotation: np.ndarray, inverted: bool) -> torch.Tensor:
    """Our D on an e3nn feature, from the reference rotation and not from e3nn."""
    blocks = []
    for mul, ir in irreps:
        sign = ir.p if inverted else 1
        blocks += [torch.from_numpy(sign * wigner_d(ir.l, rotation))] * mul
    return torch.block_diag(*blocks) if blocks else torch.zeros((0, 0), dtype=torch.float64)


def graded_d(irreps: GradedIrreps, rotation: np.ndarray, inverted: bool) -> torch.Tensor:
    return torch.block_diag(*(irreps_d(part, rotation, inverted) for part in (irreps.even, irreps.odd)))


def inputs(kernel: TensorProductConvolution, n: int = 6) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    sizes = (kernel.irreps_in.dim, 3, kernel.n_weights)
    source, vector, weights = (torch.randn(n, size, generator=generator, dtype=torch.float64) for size in sizes)
    return source, vector, weights


@few
@given(angles)
def test_our_d_is_e3nns_with_the_axes_relabelled(euler: tuple[float, float, float]) -> None:
    """D_ours(R) = D_e3nn(P R P^T) up to l = 3; 1e-12 is rounding of a least-squares fit.

    From e3nn's generators and SciPy's exponential: torch.matrix_exp, which `o3.wigner_D` uses, is off by 1e-11.
    """
    rotation, (alpha, beta, gamma) = rotation_of(*euler)
    for l in range(4):
        x, y, _ = so3_generators(l).numpy()
        theirs = expm(float(alpha) * y) @ expm(float(beta) * x) @ expm(float(gamma) * y)
        np.testing.assert_allclose(wigner_d(l, rotation), theirs, atol=1e-12)


def test_relabelling_is_needed() -> None:
    """Without P the two differ at order one: the check above can fail."""
    rotation, _ = rotation_of(0.3, 0.8, -0.2)
    euler = o3.matrix_to_angles(torch.from_numpy(rotation))
    assert np.abs(wigner_d(1, rotation) - o3.wigner_D(1, *euler).numpy()).max() > 0.1


def test_edge_harmonics_are_ours() -> None:
    """Component normalisation: sqrt(4 pi) times unit-norm harmonics, in our order, whatever the length."""
    vectors = np.random.default_rng(0).normal(size=(20, 3))
    expected = np.concatenate([real_spherical_harmonics(l, vectors) for l in range(5)], axis=1) * np.sqrt(4 * np.pi)
    found = edge_harmonics(torch.from_numpy(vectors), 4).numpy()
    # polynomials up to degree 4 against trigonometric functions, values up to 3
    np.testing.assert_allclose(found, expected, atol=1e-12)
    np.testing.assert_allclose(edge_harmonics(torch.from_numpy(3 * vectors), 4).numpy(), found, atol=1e-12)


@few
@given(angles, st.booleans())
def test_kernel_is_equivariant(
    kernel: TensorProductConvolution, euler: tuple[float, float, float], inverted: bool
) -> None:
    """kernel(D x, O r, w) = D kernel(x, r, w), for even and odd features, 1e-10 relative."""
    rotation, _ = rotation_of(*euler)
    source, vector, weights = inputs(kernel)
    turned_vector = vector @ torch.from_numpy(rotation).T * (-1 if inverted else 1)
    turned = kernel(source @ graded_d(kernel.irreps_in, rotation, inverted).T, turned_vector, weights)
    expected = kernel(source, vector, weights) @ graded_d(kernel.irreps_messages, rotation, inverted).T
    assert float((turned - expected).abs().max()) <= 1e-10 * float(expected.abs().max())


def test_kernel_keeps_the_grade(kernel: TensorProductConvolution) -> None:
    """Even messages depend on even features only, odd on odd: exactly, so zero moments give the nonmagnetic model."""
    source, vector, weights = inputs(kernel)
    n_in, n_out = kernel.irreps_in.even.dim, kernel.irreps_messages.even.dim
    messages = kernel(source, vector, weights)
    assert messages.shape[1] == kernel.irreps_messages.dim
    no_odd = torch.cat((source[:, :n_in], torch.zeros_like(source[:, n_in:])), dim=1)
    assert torch.equal(kernel(no_odd, vector, weights)[:, :n_out], messages[:, :n_out])
    assert not kernel(no_odd, vector, weights)[:, n_out:].any()
    flipped = torch.cat((source[:, :n_in], -source[:, n_in:]), dim=1)
    assert torch.equal(kernel(flipped, vector, weights)[:, n_out:], -messages[:, n_out:])


def test_kernel_is_linear_in_weights(kernel: TensorProductConvolution) -> None:
    """No weight, no message: what vanishes at the cutoff takes the messages with it."""
    source, vector, weights = inputs(kernel)
    assert not kernel(source, vector, 0 * weights).any()
    double = kernel(source, vector, 2 * weights)
    assert torch.equal(double, 2 * kernel(source, vector, weights))


def test_no_path_gives_no_odd_part() -> None:
    """Without odd features a kernel has the even part alone."""
    kernel = TensorProductConvolution(GradedIrreps(o3.Irreps("2x0e")), 1, GradedIrreps(o3.Irreps("1x0e+1x1o")))
    assert kernel.odd is None
    assert kernel.irreps_messages == GradedIrreps(o3.Irreps("2x0e+2x1o"), o3.Irreps(""))
