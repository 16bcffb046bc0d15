"""Two-centre functions: they reproduce integrals on structures not fitted, and keep every symmetry exactly."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyscf import gto
from scipy.spatial.transform import Rotation

from hamnet.core.basis import OrbitalBasis, Shell, Species
from hamnet.core.blocks import BlockMatrix
from hamnet.core.conventions import PYSCF, to_ours
from hamnet.core.pairs import PairList, orbital_pairs
from hamnet.core.rotation import rotate_blocks
from hamnet.core.spin import Spin
from hamnet.core.structure import AtomicStructure
from hamnet.data.radial_spline import RadialSpline, fit_radial
from hamnet.data.two_centre import TwoCentreFit
from hamnet.errors import BasisError, FormatError, PhysicsError

RADIUS = 3.0  # Angstrom; Gaussians with exponent >= 0.45 / bohr^2 overlap less than 1e-12 at twice this


def species(label: str, number: int, shells: list[tuple[int, float]]) -> Species:
    return Species(label, number, 4.0, tuple(Shell(angular, RADIUS, (a,), (1.0,)) for angular, a in shells))


BASIS = OrbitalBasis(
    (
        species("C", 6, [(0, 0.5), (0, 1.1), (1, 0.6), (2, 0.8)]),
        species("N", 7, [(0, 0.7), (1, 0.5)]),
    )
)


def integrals(structure: AtomicStructure, basis: OrbitalBasis) -> BlockMatrix:
    """S of a molecule from PySCF, in hamnet's order."""
    mole = gto.Mole(verbose=0, cart=False, unit="Angstrom", spin=None, charge=0)
    mole.atom = [(f"{'CN'[k]}{k}", x) for k, x in zip(structure.species, structure.positions, strict=True)]
    mole.basis = {
        f"{'CN'[k]}{k}": [[s.l, (s.exponents[0], 1.0)] for s in kind.shells] for k, kind in enumerate(basis.species)
    }
    mole.build()
    dense = mole.intor("int1e_ovlp_sph")
    pairs = orbital_pairs(structure, basis)
    matrix = BlockMatrix.zeros(pairs, basis, structure.species)
    start = matrix.orbital_offsets
    for p, (i, j) in enumerate(zip(pairs.i, pairs.j, strict=True)):
        block = dense[start[i] : start[i + 1], start[j] : start[j + 1]]
        kinds = basis.species[structure.species[i]], basis.species[structure.species[j]]
        matrix.block(p)[...] = to_ours(block, PYSCF, *kinds)
    return matrix


def cluster(seed: int, size: int = 14) -> AtomicStructure:
    """Atoms at random places, none closer than 1 A."""
    rng = np.random.default_rng(seed)
    places: list[np.ndarray] = []
    while len(places) < size:
        x = rng.uniform(0, 5.0, 3)
        if all(np.linalg.norm(x - y) > 1.0 for y in places):
            places.append(x)
    kind = rng.integers(0, 2, size)
    return AtomicStructure(np.array([6, 7])[kind], kind, np.array(places))


@pytest.fixture(scope="module")
def fit() -> TwoCentreFit:
    return TwoCentreFit.fit((s, integrals(s, BASIS)) for s in map(cluster, range(30)))


def test_it_reproduces_integrals_of_unseen_structures(fit: TwoCentreFit) -> None:
    unseen = [cluster(seed) for seed in range(100, 105)]
    rms, worst = fit.error((s, integrals(s, BASIS)) for s in unseen)
    # Measured 2e-8 and 3e-6; a wrong order, sign or angular function is off by 0.1.
    assert rms < 1e-6
    assert worst < 3e-5


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), mirror=st.booleans())
def test_it_commutes_with_rotations_and_mirrors(fit: TwoCentreFit, seed: int, mirror: bool) -> None:
    operation = Rotation.random(random_state=seed).as_matrix() * (-1 if mirror else 1)
    structure = cluster(seed, 6)
    turned = AtomicStructure(structure.atomic_numbers, structure.species, structure.positions @ operation.T)
    pairs = orbital_pairs(structure, BASIS)
    expected = rotate_blocks(fit.predict(structure, BASIS, pairs), operation)
    found = fit.predict(turned, BASIS, pairs)
    # Rounding of coordinates and harmonics only.
    np.testing.assert_allclose(found.values, expected.values, atol=1e-12)


def test_reverse_blocks_are_transposes_to_the_last_bit(fit: TwoCentreFit) -> None:
    structure = cluster(7)
    matrix = fit.predict(structure, BASIS, orbital_pairs(structure, BASIS))
    assert matrix.hermitian_residual()[0] == 0.0


def test_order_of_atoms_does_not_matter(fit: TwoCentreFit) -> None:
    structure = cluster(8, 6)
    order = np.random.default_rng(1).permutation(6)
    shuffled = AtomicStructure(structure.atomic_numbers[order], structure.species[order], structure.positions[order])
    first = fit.predict(structure, BASIS, orbital_pairs(structure, BASIS))
    second = fit.predict(shuffled, BASIS, orbital_pairs(shuffled, BASIS))
    back = {(order[i], order[j]): p for p, (i, j) in enumerate(zip(second.pairs.i, second.pairs.j, strict=True))}
    for p, (i, j) in enumerate(zip(first.pairs.i, first.pairs.j, strict=True)):
        # The couple (a, b) may be computed from the other end: rounding only.
        np.testing.assert_allclose(second.block(back[i, j]), first.block(p), atol=1e-13)


def dimer(distance: float, kinds: tuple[int, int] = (0, 1)) -> tuple[AtomicStructure, PairList]:
    direction = np.array([0.36, 0.48, 0.8])
    structure = AtomicStructure(
        np.array([6, 7])[list(kinds)], np.array(kinds), np.array([np.zeros(3), distance * direction])
    )
    i, j = np.array([0, 1, 0, 1]), np.array([0, 1, 1, 0])
    return structure, PairList.build(i, j, np.zeros((4, 3), dtype=int), structure.species)


def test_blocks_vanish_smoothly_at_the_cutoff(fit: TwoCentreFit) -> None:
    def block(distance: float) -> np.ndarray:
        structure, pairs = dimer(distance)
        matrix = fit.predict(structure, BASIS, pairs)
        return matrix.block(int(np.flatnonzero((pairs.i == 0) & (pairs.j == 1))[0]))

    cutoff, step = 2 * RADIUS, 0.02
    assert not block(cutoff).any()
    assert not block(cutoff + 0.5).any()
    # Value, slope and curvature are zero at the end, so what is left falls with the cube of the step.
    near, further = (np.abs(block(cutoff - n * step)).max() for n in (1, 4))
    assert near <= max(further / 30, 1e-15)


def test_it_says_which_distances_it_has_seen(fit: TwoCentreFit) -> None:
    least, largest = fit.coverage["C", "N"]
    assert 0.9 < least < 1.3
    assert 5.5 < largest < 6.1


def test_close_atoms_get_a_straight_continuation() -> None:
    rng = np.random.default_rng(0)
    d = rng.uniform(1.0, 4.0, 500)
    spline = fit_radial(d, np.exp(-(d**2))[:, None], 4.0)
    start = spline.knots[0]
    line = spline(np.array([start - 0.2, start - 0.1, start]))[:, 0]
    assert line[1] == pytest.approx((line[0] + line[2]) / 2)


def test_arrays_bring_back_the_same_fit(fit: TwoCentreFit) -> None:
    again = TwoCentreFit.from_arrays(fit.to_arrays())
    structure = cluster(3)
    pairs = orbital_pairs(structure, BASIS)
    assert np.array_equal(again.predict(structure, BASIS, pairs).values, fit.predict(structure, BASIS, pairs).values)
    assert again.coverage == fit.coverage


def test_arrays_of_another_format_are_refused(fit: TwoCentreFit) -> None:
    with pytest.raises(FormatError, match="no header"):
        TwoCentreFit.from_arrays({})
    arrays = fit.to_arrays()
    text = arrays["header"].tobytes().replace(b'"format": 1', b'"format": 9')
    with pytest.raises(FormatError, match="format 9, expected 1"):
        TwoCentreFit.from_arrays(arrays | {"header": np.frombuffer(text, dtype=np.uint8)})


def test_one_lonely_distance_can_be_fitted() -> None:
    # A primitive cell alone has a handful of distances: they must come back, with nothing wild in between.
    d = np.repeat([1.42, 2.46, 2.84], 6)
    spline = fit_radial(d, np.exp(-d)[:, None], 5.0)
    np.testing.assert_allclose(spline(d)[:, 0], np.exp(-d), atol=1e-4)
    assert np.abs(spline(np.linspace(1.3, 5.0, 200))).max() < 1.0
    assert isinstance(spline, RadialSpline)


def test_a_species_without_data_is_refused(fit: TwoCentreFit) -> None:
    other = OrbitalBasis((*BASIS.species, species("O", 8, [(0, 1.0)])))
    structure = AtomicStructure(np.array([8]), np.array([2]), np.zeros((1, 3)))
    with pytest.raises(BasisError, match="no species 'O'"):
        fit.predict(structure, other, orbital_pairs(structure, other))


def test_a_couple_without_data_is_refused() -> None:
    far, pairs = dimer(20.0)
    lonely = PairList.build(pairs.i[:2] * 0 + [0, 1], [0, 1], np.zeros((2, 3), dtype=int), far.species)
    matrix = BlockMatrix.zeros(lonely, BASIS, far.species)
    fit = TwoCentreFit.fit([(far, matrix)])
    near, pairs = dimer(2.0)
    with pytest.raises(BasisError, match="no pair 'C' - 'N' was in the fitted data"):
        fit.predict(near, BASIS, pairs)


def test_nothing_to_fit_is_refused() -> None:
    with pytest.raises(PhysicsError, match="at least one"):
        TwoCentreFit.fit([])
    structure, pairs = dimer(2.0)
    spinor = BlockMatrix.zeros(pairs, BASIS, structure.species, Spin.SPINOR)
    with pytest.raises(PhysicsError, match="spinless"):
        TwoCentreFit.fit([(structure, spinor)])


def test_pairs_out_of_reach_are_zero_even_without_data() -> None:
    far, pairs = dimer(20.0)
    fit = TwoCentreFit.fit([(far, BlockMatrix.zeros(pairs, BASIS, far.species))])
    assert not fit.coverage
    assert not fit.predict(far, BASIS, pairs).values.any()
