"""AtomicStructure refuses what is not a structure, and says why."""

from __future__ import annotations

import numpy as np
import pytest

from hamnet.core.structure import AtomicStructure
from hamnet.errors import PhysicsError

CELL = np.diag([3.0, 4.0, 5.0])


def make(**changes: object) -> AtomicStructure:
    arguments: dict[str, object] = {
        "atomic_numbers": [6, 1],
        "species": [0, 1],
        "positions": [[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]],
        "cell": CELL,
        "pbc": [True, True, False],
    }
    return AtomicStructure(**{**arguments, **changes})  # type: ignore[arg-type]


def test_lists_become_arrays_of_the_declared_types() -> None:
    structure = make(moments=[[0, 0, 1], [0, 0, -1]])
    assert structure.atomic_numbers.dtype == np.int64
    assert structure.positions.dtype == np.float64
    assert structure.moments is not None
    assert structure.moments.dtype == np.float64
    assert structure.n_atoms == 2
    assert structure.is_periodic


def test_molecule_has_a_lattice_of_zeros() -> None:
    molecule = make(cell=None, pbc=[False] * 3)
    assert not molecule.is_periodic
    assert np.array_equal(molecule.lattice, np.zeros((3, 3)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"atomic_numbers": [], "species": [], "positions": np.zeros((0, 3))}, "no atoms"),
        ({"positions": [[0.0, 0.0, 0.0]]}, r"positions has shape \(1, 3\), expected \(2, 3\)"),
        ({"species": [0]}, "species has shape"),
        ({"pbc": [True, True]}, "pbc has shape"),
        ({"moments": np.zeros((2, 1))}, "moments has shape"),
        ({"positions": [[0.0, 0.0, 0.0], [np.nan, 0.0, 0.0]]}, "position of atom 1 is not finite"),
        ({"cell": None}, "pbc is set but there is no cell"),
        ({"cell": np.zeros((2, 3))}, "cell must be 3 x 3"),
        ({"cell": np.full((3, 3), np.inf)}, "cell must be 3 x 3"),
        ({"cell": [[1.0, 0, 0], [2.0, 0, 0], [0, 0, 1.0]]}, "cell is singular"),
        ({"cell": np.zeros((3, 3))}, "cell is singular"),
    ],
)
def test_bad_input_is_named(changes: dict[str, object], message: str) -> None:
    with pytest.raises(PhysicsError, match=message):
        make(**changes)


def test_with_species_keeps_everything_else() -> None:
    structure = make(moments=np.ones((2, 3)))
    other = structure.with_species(np.array([1, 0]))
    assert other.species.tolist() == [1, 0]
    assert other.moments is not None
    assert np.array_equal(other.positions, structure.positions)
    assert np.array_equal(other.moments, np.ones((2, 3)))
