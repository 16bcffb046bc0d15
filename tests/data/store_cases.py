"""Random and water-like calculations for the tests of the store."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from hamnet.core.basis import OrbitalBasis, Shell, Species
from hamnet.core.blocks import BlockMatrix
from hamnet.core.calculation import Calculation, Provenance
from hamnet.core.pairs import PairList
from hamnet.core.spin import Spin
from hamnet.core.structure import AtomicStructure

SPECIES = (
    Species("H5.0-s1", 1, 1.0, (Shell(0, 2.6),)),
    Species("C5.0-s2p1", 6, 4.0, (Shell(0, 2.6), Shell(0, 2.6), Shell(1, 2.6))),
    Species("O:g", 8, 6.0, (Shell(0, None, (1.5, 0.3), (0.2, 0.8)), Shell(1, None, (0.7,), (1.0,)))),
    Species("Mo-d1", 42, 14.0, (Shell(2, 3.7),)),
    Species("ghost", 0, 0.0, (Shell(0, 2.0),)),
)


def random_pairs(rng: np.random.Generator, species: np.ndarray, periodic: bool, density: float) -> PairList:
    n = len(species)
    rows = {(i, i, 0, 0, 0) for i in range(n)}
    reach = (-1, 0, 1) if periodic else (0,)
    for i in range(n):
        for j in range(n):
            for a in reach:
                if (i, j, a, 0, 0) not in rows and rng.random() < density:
                    rows |= {(i, j, a, -a, 0), (j, i, -a, a, 0)}
    table = np.array(sorted(rows))
    return PairList.build(table[:, 0], table[:, 1], table[:, 2:], species)


def random_matrix(
    rng: np.random.Generator, pairs: PairList, basis: OrbitalBasis, species: np.ndarray, spin: Spin, hermitian: bool
) -> BlockMatrix:
    matrix = BlockMatrix.zeros(pairs, basis, species, spin)
    values = rng.normal(size=len(matrix.values)) * 10.0 ** rng.integers(-9, 3)
    if spin is Spin.SPINOR:
        values = values + 1j * rng.normal(size=len(values))
    matrix = matrix.with_values(values)
    return matrix.symmetrised() if hermitian else matrix


@st.composite
def calculations(draw: st.DrawFn, spin: Spin | None = None) -> Calculation:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    chosen = draw(st.permutations(SPECIES))[: draw(st.integers(1, len(SPECIES)))]
    basis = OrbitalBasis(tuple(chosen))
    spin = draw(st.sampled_from(Spin)) if spin is None else spin
    periodic = draw(st.booleans())
    n = draw(st.integers(1, 6))
    species = rng.integers(0, len(chosen), n)
    return random_calculation(rng, basis, species, spin, periodic, draw(st.integers(0, 2**16 - 1)))


def random_calculation(
    rng: np.random.Generator, basis: OrbitalBasis, species: np.ndarray, spin: Spin, periodic: bool, flags: int
) -> Calculation:
    """Bit k of `flags` decides about the k-th optional part."""

    def has(k: int) -> bool:
        return bool(flags >> k & 1)

    n = len(species)
    numbers = np.array([basis.species[k].atomic_number for k in species])
    structure = AtomicStructure(
        numbers,
        species,
        rng.normal(size=(n, 3)) * 5,
        rng.normal(size=(3, 3)) + 5 * np.eye(3) if periodic else None,
        np.array([periodic, periodic and has(0), False]),
        rng.normal(size=(n, 3)) if has(1) else None,
    )
    pairs = random_pairs(rng, structure.species, periodic, 0.3)
    wider = random_pairs(rng, structure.species, periodic, 0.6) if has(2) else pairs
    make = lambda p, s, h: random_matrix(rng, p, basis, structure.species, s, h)  # noqa: E731
    n_k = int(rng.integers(1, 4))
    return Calculation(
        structure,
        basis,
        make(pairs, Spin.NONE, True),
        make(wider, spin, has(3)) if has(4) else None,
        make(wider, spin, True) if has(5) else None,
        make(pairs, spin, has(6)) if has(7) else None,
        energy=float(rng.normal()) if has(8) else None,
        forces=rng.normal(size=(n, 3)) if has(9) else None,
        kpoints=rng.normal(size=(n_k, 3)) if has(10) else None,
        eigenvalues=rng.normal(size=(2, n_k, 5)) if has(11) else None,
        fermi_energy=float(rng.normal()) if has(12) else None,
        n_electrons=7.0 if has(13) else None,
        kmesh=(3, 1, 2) if has(14) else None,
        electronic_temperature=300.0 if has(15) else None,
        converged=has(0),
        provenance=Provenance("test", "1", "PBE", source="a/b c", sha256="00"),
    )


WATER_BASIS = OrbitalBasis(
    (
        Species("O:def2-svp", 8, 8.0, (*(Shell(0),) * 3, *(Shell(1),) * 2, Shell(2))),
        Species("H:def2-svp", 1, 1.0, (*(Shell(0),) * 2, Shell(1))),
    )
)


def water(rng: np.random.Generator) -> Calculation:
    """A molecule the size of water in def2-SVP: 24 orbitals, 9 pairs."""
    species = np.array([0, 1, 1])
    atoms = np.array([[0.0, 0.0, 0.0], [0.76, 0.59, 0.0], [-0.76, 0.59, 0.0]]) + 0.05 * rng.normal(size=(3, 3))
    structure = AtomicStructure(np.array([8, 1, 1]), species, atoms)
    i, j = (part.ravel() for part in np.mgrid[:3, :3])
    pairs = PairList.build(i, j, np.zeros((9, 3), dtype=int), structure.species)
    overlap, hamiltonian = (
        random_matrix(rng, pairs, WATER_BASIS, structure.species, Spin.NONE, True) for _ in range(2)
    )
    return Calculation(
        structure,
        WATER_BASIS,
        overlap,
        hamiltonian,
        energy=-2079.1,
        eigenvalues=rng.normal(size=(1, 1, 24)),
        kpoints=np.zeros((1, 3)),
        n_electrons=10.0,
        provenance=Provenance("pyscf", "2.14", "PBE"),
    )
