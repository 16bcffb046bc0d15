"""Scales of the training set: round trip, invariance, what they are of data that are known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from model_cases import MESSAGE_CUTOFF, PAIR_CUTOFF, RADII, basis_of, random_calculation
from scipy.spatial.transform import Rotation

from hamnet.config import NetworkConfig
from hamnet.core.blocks import BlockMatrix
from hamnet.core.rotation import rotate_blocks, rotate_structure
from hamnet.core.spin import Spin
from hamnet.data.irrep_blocks import block_irreps
from hamnet.errors import PhysicsError
from hamnet.nn.statistics import SCALE_FLOOR, Statistics, fit_statistics

SETTINGS = NetworkConfig(channels=4, layers=1)


def fit(calculations: list, spin: Spin) -> Statistics:  # type: ignore[type-arg]
    return fit_statistics(calculations, basis_of(spin), spin, SETTINGS)


@pytest.mark.parametrize("spin", list(Spin))
def test_arrays_round_trip(spin: Spin) -> None:
    """Through plain arrays, bitwise, as a checkpoint keeps them."""
    before = fit([random_calculation(0, spin)], spin)
    after = Statistics.from_arrays(before.to_arrays())
    assert np.array_equal(after.pair_cutoffs, before.pair_cutoffs)
    assert (after.message_cutoff, after.average_neighbours) == (before.message_cutoff, before.average_neighbours)
    assert after.groups.keys() == before.groups.keys()
    assert len(after.groups) == 6
    for key, group in before.groups.items():
        other = after.groups[key]
        assert np.array_equal(group.mean, other.mean)
        assert np.array_equal(group.scale, other.scale)
        assert group.decay == other.decay


@pytest.mark.parametrize("spin", list(Spin))
@pytest.mark.parametrize("sign", [1, -1])
def test_scales_do_not_feel_a_rotation(spin: Spin, sign: int) -> None:
    """Turned training data give the same statistics, else the model would prefer a direction of space."""
    rotation = sign * Rotation.random(random_state=5).as_matrix()
    given = [random_calculation(seed, spin) for seed in (0, 1)]
    turned = [
        replace(
            c,
            structure=rotate_structure(c.structure, rotation),
            overlap=rotate_blocks(c.overlap, rotation),
            hamiltonian=rotate_blocks(c.hamiltonian, rotation),
        )
        for c in given
        if c.hamiltonian is not None
    ]
    before, after = fit(given, spin), fit(turned, spin)
    assert after.average_neighbours == before.average_neighbours
    for key, group in before.groups.items():
        # sums of squares of about a hundred numbers of order one
        np.testing.assert_allclose(after.groups[key].scale, group.scale, rtol=1e-10)
        np.testing.assert_allclose(after.groups[key].mean, group.mean, atol=1e-10)
        assert abs(after.groups[key].decay - group.decay) < 1e-10


def test_cutoffs_are_those_of_the_orbitals() -> None:
    """Radii add up; messages reach as far as the longest pair unless the configuration says otherwise."""
    calculation = random_calculation(0, Spin.NONE)
    found = fit([calculation], Spin.NONE)
    np.testing.assert_allclose(found.pair_cutoffs, np.add.outer(RADII, RADII), rtol=1e-15)
    assert found.pair_cutoffs[0, 1] == PAIR_CUTOFF
    assert found.message_cutoff == MESSAGE_CUTOFF
    shorter = NetworkConfig(channels=4, message_cutoff=2.5)
    assert fit_statistics([calculation], basis_of(Spin.NONE), Spin.NONE, shorter).message_cutoff == 2.5


def test_only_even_scalars_on_site_have_a_mean() -> None:
    """A mean of anything else would be a direction of space, or would not vanish at the cutoff."""
    found = fit([random_calculation(0, Spin.SPINOR)], Spin.SPINOR)
    basis = basis_of(Spin.SPINOR)
    for (a, b, on_site), group in found.groups.items():
        for term in block_irreps(basis.species[a], basis.species[b], Spin.SPINOR).terms:
            if not on_site or (term.l, term.parity) != (0, 1):
                assert not group.mean[term.columns].any()
            assert np.ptp(group.scale[term.columns]) == 0
    assert found.groups[0, 0, True].mean.any()


def test_known_numbers_are_found() -> None:
    """Twice the data: twice the mean and scale, the same decay; constant on-site scalars leave the floor."""
    calculation = random_calculation(0, Spin.NONE)
    h = calculation.hamiltonian
    assert h is not None
    one, two = (fit([replace(calculation, hamiltonian=h.with_values(f * h.values))], Spin.NONE) for f in (1.0, 2.0))
    for key, group in one.groups.items():
        np.testing.assert_allclose(two.groups[key].mean, 2 * group.mean, rtol=1e-12)
        # components that are zero by symmetry (odd L of a shell with itself on site) stay on the floor
        doubled = np.where(group.scale == SCALE_FLOOR, SCALE_FLOOR, 2 * group.scale)
        np.testing.assert_allclose(two.groups[key].scale, doubled, rtol=1e-12)
        assert (group.scale > SCALE_FLOOR).any()
    values = BlockMatrix.zeros(h.pairs, h.basis, h.species).values
    constant = h.with_values(values)
    for p in np.flatnonzero(h.pairs.on_site):
        constant.block(int(p))[...] = -3 * np.eye(len(constant.block(int(p))))
    found = fit([replace(calculation, hamiltonian=constant)], Spin.NONE)
    basis = basis_of(Spin.NONE)
    for k in (0, 1):
        irreps = block_irreps(basis.species[k], basis.species[k], Spin.NONE)
        mean = irreps.matrix @ found.groups[k, k, True].mean
        n = basis.species[k].n_orbitals
        np.testing.assert_allclose(mean.reshape(n, n), -3 * np.eye(n), atol=1e-12)
    assert all((group.scale == SCALE_FLOOR).all() for group in found.groups.values())


def test_decay_is_found() -> None:
    """Off-site blocks that fall as exp(-0.8 d): the exponent comes back."""
    calculation = random_calculation(0, Spin.NONE)
    h = calculation.hamiltonian
    assert h is not None
    length = np.linalg.norm(h.pairs.vectors(calculation.structure), axis=1)
    values = np.ones_like(h.values) * np.repeat(np.exp(-0.8 * length), np.diff(h.offsets))
    found = fit([replace(calculation, hamiltonian=h.with_values(values))], Spin.NONE)
    for (_, _, on_site), group in found.groups.items():
        assert abs(group.decay - (0.0 if on_site else 0.8)) < 1e-10 or group.decay == 0.0
    assert any(group.decay > 0.7 for group in found.groups.values())


def test_refuses_nothing_to_learn_from() -> None:
    with pytest.raises(PhysicsError):
        fit([], Spin.NONE)
    with pytest.raises(PhysicsError):
        fit([replace(random_calculation(0, Spin.NONE), hamiltonian=None)], Spin.NONE)
