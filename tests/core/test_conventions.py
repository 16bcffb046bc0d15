"""Orbital order of each code against real harmonics written out, and round trips."""

from __future__ import annotations

import numpy as np
import pytest
from factories import seeds
from hypothesis import given
from hypothesis import strategies as st

from hamnet.core.basis import Shell, Species
from hamnet.core.conventions import CONVENTIONS, OPENMX, PYSCF, OrbitalConvention, from_ours, to_ours
from hamnet.errors import BasisError

# Every code's orbitals as functions of (x, y, z), unnormalised: what the permutations must map onto each other.
OURS = {
    1: ("y", "z", "x"),
    2: ("xy", "yz", "z2", "xz", "x2-y2"),
    3: ("y(3x2-y2)", "xyz", "yz2", "z3", "xz2", "z(x2-y2)", "x(x2-3y2)"),
}
CODES = {
    "openmx": {
        1: ("x", "y", "z"),
        2: ("z2", "x2-y2", "xy", "xz", "yz"),
        3: ("z3", "xz2", "yz2", "z(x2-y2)", "xyz", "x(x2-3y2)", "y(3x2-y2)"),
    },
    "pyscf": {1: ("x", "y", "z"), 2: OURS[2], 3: OURS[3]},
    "psi4": {
        1: ("z", "x", "y"),
        2: ("z2", "xz", "yz", "x2-y2", "xy"),
        3: ("z3", "xz2", "yz2", "z(x2-y2)", "xyz", "x(x2-3y2)", "y(3x2-y2)"),
    },
}
shell_lists = st.lists(st.integers(0, 3), min_size=1, max_size=4)


def species(ls: list[int]) -> Species:
    return Species("X", 1, 1.0, tuple(Shell(l) for l in ls))


@pytest.mark.parametrize("code", sorted(CODES))
@pytest.mark.parametrize("l", [1, 2, 3])
def test_order_maps_names_onto_ours(code: str, l: int) -> None:
    order, sign = CONVENTIONS[code].shell(l)
    assert tuple(CODES[code][l][k] for k in order) == OURS[l]
    assert (sign == 1).all()


@given(seeds, shell_lists, shell_lists, st.sampled_from(sorted(CONVENTIONS)))
def test_round_trip_is_exact(seed: int, row: list[int], column: list[int], code: str) -> None:
    highest = CONVENTIONS[code].maximum_l  # ORCA's is known up to d
    i, j = (species([min(l, highest) for l in ls]) for ls in (row, column))
    blocks = np.random.default_rng(seed).normal(size=(2, i.n_orbitals, j.n_orbitals))
    convention = CONVENTIONS[code]
    assert np.array_equal(from_ours(to_ours(blocks, convention, i, j), convention, i, j), blocks)
    assert np.array_equal(to_ours(from_ours(blocks, convention, i, j), convention, i, j), blocks)


@given(seeds, shell_lists)
def test_signed_permutation_keeps_eigenvalues(seed: int, ls: list[int]) -> None:
    flipped = OrbitalConvention("flip", {1: (2, 0, 1)}, {1: (-1, 1, -1)})
    kind = species(ls)
    block = np.random.default_rng(seed).normal(size=(kind.n_orbitals, kind.n_orbitals))
    block = block + block.T
    ours = to_ours(block, flipped, kind, kind)
    # 1e-10: eigenvalues of a matrix of order one.
    np.testing.assert_allclose(np.linalg.eigvalsh(ours), np.linalg.eigvalsh(block), atol=1e-10)
    assert np.array_equal(from_ours(ours, flipped, kind, kind), block)


def test_shells_stay_in_place() -> None:
    order, _ = OPENMX.species(species([0, 1, 2]))
    assert order.tolist() == [0, 2, 3, 1, 6, 8, 4, 7, 5]
    order, _ = PYSCF.species(species([1, 1]))
    assert order.tolist() == [1, 2, 0, 4, 5, 3]


def test_unknown_shell_is_refused() -> None:
    with pytest.raises(BasisError, match="openmx is known up to l = 3, found l = 4"):
        OPENMX.shell(4)
