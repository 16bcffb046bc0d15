"""AtomicStructure: atoms, species, cell; the input of everything."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hamnet.errors import PhysicsError

MINIMUM_DISTANCE = 0.1
"""Two atoms closer than this (Angstrom) are taken for a mistake in the input."""


@dataclass(frozen=True, eq=False)
class AtomicStructure:
    """Atoms in space, in a cell or free.

    Args:
        atomic_numbers: (n_atoms,) int; 0 is a ghost atom (orbitals without an element).
        species: (n_atoms,) int, index into `OrbitalBasis.species`: the species, not the element, decides the orbitals.
        positions: (n_atoms, 3) float64, Angstrom.
        cell: (3, 3) float64, rows are lattice vectors in Angstrom; None for a molecule.
        pbc: (3,) bool, periodic along each lattice vector.
        moments: (n_atoms, 3) float64, Bohr magnetons; None without magnetism.

    Raises:
        PhysicsError: shapes do not fit, a number is not finite, or the cell is singular.
    """

    atomic_numbers: NDArray[np.int64]
    species: NDArray[np.int64]
    positions: NDArray[np.float64]
    cell: NDArray[np.float64] | None = None
    pbc: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(3, dtype=bool))
    moments: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        def put(name: str, value: Any) -> None:
            """Set a field of the frozen object while it is being made."""
            object.__setattr__(self, name, value)

        put("atomic_numbers", np.asarray(self.atomic_numbers, dtype=np.int64))
        put("species", np.asarray(self.species, dtype=np.int64))
        put("positions", np.asarray(self.positions, dtype=np.float64))
        put("pbc", np.asarray(self.pbc, dtype=bool).reshape(-1))
        if self.cell is not None:
            put("cell", np.asarray(self.cell, dtype=np.float64))
        if self.moments is not None:
            put("moments", np.asarray(self.moments, dtype=np.float64))
        self._check_shapes()
        self._check_cell()

    def _check_shapes(self) -> None:
        n = len(self.atomic_numbers)
        if n == 0:
            raise PhysicsError("the structure has no atoms: at least one is needed")
        for name, shape in (("species", (n,)), ("positions", (n, 3)), ("pbc", (3,)), ("moments", (n, 3))):
            value = getattr(self, name)
            if value is not None and value.shape != shape:
                raise PhysicsError(f"{name} has shape {value.shape}, expected {shape} for {n} atoms")
        bad = np.flatnonzero(~np.isfinite(self.positions).all(axis=1))
        if bad.size:
            raise PhysicsError(f"position of atom {bad[0]} is not finite: {self.positions[bad[0]]}")

    def _check_cell(self) -> None:
        if self.cell is None:
            if self.pbc.any():
                raise PhysicsError("pbc is set but there is no cell: give the lattice vectors or pbc = False")
            return
        if self.cell.shape != (3, 3) or not np.isfinite(self.cell).all():
            raise PhysicsError(f"cell must be 3 x 3 finite numbers (rows are lattice vectors), found {self.cell}")
        volume = abs(float(np.linalg.det(self.cell)))
        lengths = np.linalg.norm(self.cell, axis=1)
        if volume <= 1e-6 * max(float(np.prod(lengths)), 1e-300):
            raise PhysicsError(
                f"the cell is singular: its volume is {volume:.3g} A^3 with lattice vectors of length {lengths}; "
                "give three vectors that do not lie in one plane"
            )

    @property
    def n_atoms(self) -> int:
        """Number of atoms."""
        return len(self.atomic_numbers)

    @property
    def lattice(self) -> NDArray[np.float64]:
        """(3, 3) lattice vectors as rows; zeros for a molecule, so that R = n . lattice always holds."""
        return np.zeros((3, 3)) if self.cell is None else self.cell

    @property
    def is_periodic(self) -> bool:
        """True when at least one direction is periodic."""
        return bool(self.pbc.any())

    def with_species(self, species: NDArray[np.int64]) -> AtomicStructure:
        """The same atoms with other indices into a basis."""
        return AtomicStructure(self.atomic_numbers, species, self.positions, self.cell, self.pbc, self.moments)
