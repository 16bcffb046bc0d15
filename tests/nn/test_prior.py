"""The prior: exact symmetries, smooth ends, the same numbers from its arrays, and H0 from outside."""

from dataclasses import replace

import numpy as np
import pytest
from factories import random_structure, seeds, two_species
from golden_files import golden
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from hamnet.core.basis import OrbitalBasis
from hamnet.core.blocks import BlockMatrix
from hamnet.core.calculation import Calculation
from hamnet.core.pairs import PairList, orbital_pairs
from hamnet.core.rotation import rotate_blocks, rotate_structure
from hamnet.core.spin import Spin
from hamnet.core.structure import AtomicStructure
from hamnet.errors import BasisError, FormatError, PhysicsError
from hamnet.nn.dataset import make_sample, overlap_like
from hamnet.nn.prior import Baseline, matrix_channels, matrix_from_channels
from hamnet_preprocess.openmx import OpenMXReader

BASIS = two_species()


def model_hamiltonian(structure: AtomicStructure, spin: Spin) -> Calculation:
    """H that the prior can hold exactly: constants, hoppings by distance, and a crystal field by distance.

    s orbitals: -5 and the sum over neighbours of g(d); s-s hopping g(d), with g zero beyond the reach.
    """
    pairs = orbital_pairs(structure, BASIS)
    bare = BlockMatrix.zeros(pairs, BASIS, structure.species)
    vectors = pairs.vectors(structure)
    distance = np.linalg.norm(vectors, axis=1)
    for p in range(pairs.n_pairs):
        a, b = structure.species[pairs.i[p]], structure.species[pairs.j[p]]
        cutoff = BASIS.species[a].shells[0].radius + BASIS.species[b].shells[0].radius
        if pairs.on_site[p]:
            near = (pairs.i == pairs.i[p]) & ~pairs.on_site
            reach = [
                BASIS.species[structure.species[j]].shells[0].radius + BASIS.species[a].shells[0].radius
                for j in pairs.j[near]
            ]
            bare.block(p)[0, 0] = -5.0 + sum(smooth(d, c) for d, c in zip(distance[near], reach, strict=True))
        else:
            bare.block(p)[0, 0] = smooth(distance[p], cutoff)
    matrix = overlap_like(bare, BlockMatrix.zeros(pairs, BASIS, structure.species, spin))
    return Calculation(structure, BASIS, bare, matrix)


def smooth(distance: float, cutoff: float) -> float:
    """Zero with four derivatives at the cutoff."""
    return float(max(1 - (distance / cutoff) ** 2, 0.0) ** 5)


def fitted(spin: Spin, n: int = 12) -> Baseline:
    return Baseline.fit("two_centre", [model_hamiltonian(random_structure(k), spin) for k in range(n)], spin)


@pytest.fixture(scope="module", params=list(Spin))
def baseline(request: pytest.FixtureRequest) -> Baseline:
    return fitted(request.param)


def wild(seed: int, spin: Spin) -> Baseline:
    """A baseline with every function there and none of them zero: fitted to random numbers."""
    calculations = []
    for k in range(3):
        structure = random_structure(seed + k)
        matrix = BlockMatrix.zeros(orbital_pairs(structure, BASIS), BASIS, structure.species, spin)
        values = np.random.default_rng(seed + k).normal(size=len(matrix.values)).astype(spin.dtype)
        overlap = BlockMatrix.zeros(matrix.pairs, BASIS, structure.species)
        calculations.append(Calculation(structure, BASIS, overlap, matrix.with_values(values).symmetrised()))
    return Baseline.fit("two_centre", calculations, spin)


WILD = {spin: wild(0, spin) for spin in Spin}


def predict(baseline: Baseline, structure: AtomicStructure) -> BlockMatrix:
    found = baseline.predict(structure, BASIS, orbital_pairs(structure, BASIS))
    assert found is not None
    return found


def test_it_learns_a_two_centre_hamiltonian_with_crystal_field(baseline: Baseline) -> None:
    unseen = model_hamiltonian(random_structure(99), baseline.spin)
    assert unseen.hamiltonian is not None
    left = baseline.remainder(unseen).hamiltonian
    assert left is not None
    # splines 0.15 to 0.4 A apart against a polynomial of degree ten, from 12 small cells: measured 1e-5 of 5 eV
    assert np.abs(left.values).max() < 2e-4
    assert np.abs(unseen.hamiltonian.values).max() > 3


@settings(max_examples=10, deadline=None)
@given(seed=seeds, spin=st.sampled_from(list(Spin)), mirror=st.booleans())
def test_it_commutes_with_rotations_and_mirrors(seed: int, spin: Spin, mirror: bool) -> None:
    operation = Rotation.random(random_state=seed % 2**31).as_matrix() * (-1 if mirror else 1)
    structure = random_structure(seed)
    expected = rotate_blocks(predict(WILD[spin], structure), operation)
    found = predict(WILD[spin], rotate_structure(structure, operation))
    # rounding of coordinates and harmonics; numbers of order one
    np.testing.assert_allclose(found.values, expected.values, atol=1e-11)


@settings(max_examples=10, deadline=None)
@given(seed=seeds, spin=st.sampled_from(list(Spin)))
def test_it_is_hermitian_to_the_last_bit(seed: int, spin: Spin) -> None:
    assert predict(WILD[spin], random_structure(seed)).hermitian_residual()[0] == 0.0


def test_order_of_atoms_does_not_matter() -> None:
    structure = random_structure(5)
    order = np.random.default_rng(0).permutation(structure.n_atoms)
    shuffled = AtomicStructure(
        structure.atomic_numbers[order], structure.species[order], structure.positions[order], structure.cell,
        structure.pbc,
    )  # fmt: skip
    first, second = predict(WILD[Spin.NONE], structure), predict(WILD[Spin.NONE], shuffled)
    place = np.argsort(order)
    back = PairList.build_with_order(
        place[first.pairs.i], place[first.pairs.j], first.pairs.cell_shift, shuffled.species
    )[1]
    for p, q in enumerate(back.tolist()):
        # sums over neighbours run in another order: rounding
        np.testing.assert_allclose(second.block(p), first.block(q), atol=1e-12)


def test_an_atom_that_leaves_goes_without_a_jump() -> None:
    """The crystal field of one neighbour vanishes with slope and curvature at the cutoff, and is zero beyond."""

    def own(distance: float) -> np.ndarray:
        structure = AtomicStructure(np.array([6, 5]), np.array([0, 1]), np.array([[0, 0, 0], [0, 0, distance]]))
        matrix = predict(WILD[Spin.NONE], structure)
        return np.array(matrix.block(int(np.flatnonzero(matrix.pairs.on_site & (matrix.pairs.i == 0))[0])))

    cutoff, step = 1.6 + 1.3, 0.02
    alone = own(50.0)
    assert np.array_equal(own(cutoff), alone)
    assert np.abs(own(cutoff - 0.5) - alone).max() > 1e-4
    # the cube of the step: 64 times less at a quarter of the distance
    near, far = (np.abs(own(cutoff - n * step) - alone).max() for n in (1, 4))
    assert near <= far / 30


def test_atoms_out_of_reach_change_nothing() -> None:
    near = AtomicStructure(np.array([6, 5]), np.array([0, 1]), np.array([[0.0, 0, 0], [0, 0, 1.5]]))
    more = AtomicStructure(np.array([6, 5, 5]), np.array([0, 1, 1]), np.array([[0.0, 0, 0], [0, 0, 1.5], [0, 9, 0]]))
    first, second = predict(WILD[Spin.NONE], near), predict(WILD[Spin.NONE], more)
    assert np.array_equal(first.block(0), second.block(0))


@pytest.mark.parametrize("kind", ["none", "two_centre", "reference"])
@pytest.mark.parametrize("spin", list(Spin))
def test_arrays_bring_back_the_same_numbers(kind: str, spin: Spin) -> None:
    before = WILD[spin] if kind == "two_centre" else Baseline.fit(kind, [], spin)
    after = Baseline.from_arrays(before.to_arrays(), spin)
    assert after.kind == before.kind
    if kind == "two_centre":
        structure = random_structure(3)
        assert np.array_equal(predict(after, structure).values, predict(before, structure).values)


def test_arrays_of_another_format_are_refused() -> None:
    arrays = Baseline("reference", Spin.NONE).to_arrays()
    assert arrays is not None
    text = arrays["header"].tobytes().replace(b'"format": 1', b'"format": 9')
    with pytest.raises(FormatError, match="format 9, expected 1"):
        Baseline.from_arrays({"header": np.frombuffer(text, dtype=np.uint8)}, Spin.NONE)


@pytest.mark.parametrize("spin", list(Spin))
def test_the_reference_is_subtracted_and_needed(spin: Spin) -> None:
    calculation = model_hamiltonian(random_structure(1), spin)
    assert calculation.hamiltonian is not None
    half = calculation.hamiltonian.with_values(calculation.hamiltonian.values / 2)
    baseline = Baseline("reference", spin)
    known = replace(calculation, reference_hamiltonian=half)
    sample = make_sample("a", known, BASIS, 3.0, baseline)
    # halves are exact in binary
    assert np.array_equal(sample.target.numpy(), sample.baseline.numpy())
    back = matrix_from_channels((sample.target + sample.baseline).numpy(), calculation.hamiltonian)
    assert np.array_equal(matrix_channels(back), matrix_channels(calculation.hamiltonian))
    with pytest.raises(PhysicsError, match="--reference"):
        make_sample("a", calculation, BASIS, 3.0, baseline)
    with pytest.raises(PhysicsError, match="--reference"):
        baseline.predict(calculation.structure, BASIS, calculation.hamiltonian.pairs)


def test_a_reference_in_another_spin_layout_is_refused() -> None:
    calculation = model_hamiltonian(random_structure(1), Spin.NONE)
    other = model_hamiltonian(random_structure(1), Spin.COLLINEAR).hamiltonian
    with pytest.raises(PhysicsError, match="collinear, expected none"):
        Baseline("reference", Spin.NONE).of(replace(calculation, reference_hamiltonian=other))


def test_species_in_another_order_are_refused() -> None:
    swapped = OrbitalBasis(BASIS.species[::-1])
    structure = random_structure(1)
    with pytest.raises(BasisError, match="count species as the model does"):
        WILD[Spin.NONE].predict(structure.with_species(1 - structure.species), swapped, orbital_pairs(structure, BASIS))


def test_nothing_to_fit_is_refused() -> None:
    calculation = replace(model_hamiltonian(random_structure(1), Spin.NONE), hamiltonian=None)
    with pytest.raises(PhysicsError, match="no Hamiltonian"):
        Baseline.fit("two_centre", [calculation], Spin.NONE)
    with pytest.raises(PhysicsError, match="at least one"):
        Baseline.fit("two_centre", [], Spin.NONE)


def test_symmetric_sites_alone_do_not_make_a_wild_field() -> None:
    """On-site parts of degree 1 and 2 vanish in graphene but for noise: no field of a moved atom is read from them."""
    calculation = OpenMXReader().read(golden("openmx/graphene"))
    baseline = Baseline.fit("two_centre", [calculation], calculation.spin)
    structure = calculation.structure
    moved = replace(structure, positions=structure.positions + [[0.02, -0.03, 0.01], [-0.01, 0.02, 0.02]])
    pairs = orbital_pairs(moved, calculation.basis)
    own = np.repeat(pairs.on_site, calculation.basis.n_orbitals[0] ** 2)
    straight, bent = (baseline.predict(s, calculation.basis, pairs) for s in (structure, moved))
    assert straight is not None
    assert bent is not None
    # a real crystal field moves these numbers by some tenths of an eV for 0.03 A; noise divided by noise by thousands
    assert np.abs(straight.values - bent.values)[own].max() < 1.0
