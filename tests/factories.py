"""Small random structures, bases and matrices that obey the laws, for property tests."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import strategies as st

from hamnet.core.basis import OrbitalBasis, Shell, Species
from hamnet.core.blocks import BlockMatrix
from hamnet.core.calculation import Calculation, Provenance
from hamnet.core.pairs import neighbour_pairs
from hamnet.core.spin import Spin
from hamnet.core.structure import AtomicStructure

seeds = st.integers(0, 2**32 - 1)
spins = st.sampled_from(list(Spin))


def two_species() -> OrbitalBasis:
    """Rectangular blocks: 8 and 4 orbitals."""
    heavy = Species("A-s2p2", 6, 4.0, (Shell(0, 1.6), Shell(0, 1.6), Shell(1, 1.6), Shell(1, 1.6)))
    light = Species("B-s1p1", 5, 3.0, (Shell(0, 1.3), Shell(1, 1.3)))
    return OrbitalBasis((heavy, light))


def random_structure(seed: int, n_atoms: int = 4, pbc: tuple[bool, bool, bool] = (True, True, True)) -> AtomicStructure:
    """Atoms on a jittered grid in a sheared cell: never closer than 1 A, some outside the cell."""
    rng = np.random.default_rng(seed)
    cell = np.diag([4.0, 4.2, 4.4]) + rng.uniform(-0.4, 0.4, (3, 3))
    sites = np.stack(np.meshgrid([0.0, 0.5], [0.0, 0.5], [0.0, 0.5], indexing="ij"), axis=-1).reshape(-1, 3)
    fractional = sites[rng.permutation(8)[:n_atoms]] + rng.uniform(-0.06, 0.06, (n_atoms, 3))
    fractional += rng.integers(-1, 2, (n_atoms, 3)) * np.array(pbc)
    species = rng.integers(0, 2, n_atoms)
    numbers = np.array([6, 5])[species]
    return AtomicStructure(numbers, species, fractional @ cell, cell if any(pbc) else None, np.array(pbc))


def random_matrix(seed: int, structure: AtomicStructure, spin: Spin, cutoff: float = 3.2) -> BlockMatrix:
    """Hermitian matrix of random numbers on all pairs within the cutoff."""
    rng = np.random.default_rng(seed)
    matrix = BlockMatrix.zeros(neighbour_pairs(structure, cutoff), two_species(), structure.species, spin)
    values = rng.normal(size=len(matrix.values)).astype(spin.dtype)
    if spin is Spin.SPINOR:
        values = values + 1j * rng.normal(size=len(values))
    return matrix.with_values(values).symmetrised()


def lawful_calculation(seed: int, spin: Spin = Spin.NONE) -> Calculation:
    """A calculation that every check passes: S near the identity, H inside the orbitals' reach."""
    structure = random_structure(seed)
    # 2.6 A is the smallest sum of two radii of `two_species`.
    overlap = random_matrix(seed, structure, Spin.NONE, 2.6)
    values = 0.01 * overlap.values
    for p in np.flatnonzero(overlap.pairs.on_site):
        n = overlap.block(p).shape[0]
        values[overlap.offsets[p] : overlap.offsets[p + 1]] += np.eye(n).reshape(-1)
    hamiltonian = random_matrix(seed + 1, structure, spin, 2.6)
    if spin is not Spin.NONE:  # random blocks are odd under time reversal, too
        structure = replace(structure, moments=np.tile([0.0, 0.0, 1.0], (structure.n_atoms, 1)))
    return Calculation(
        structure, two_species(), overlap.with_values(values), hamiltonian, provenance=Provenance("made up")
    )
