"""Rattled and strained supercells of a crystal: the structures that a training set is made of.

Reproducible: structure n of a seed is the same however many are made.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hamnet.core.files import whole_file
from hamnet.errors import ConfigError, PhysicsError

FloatArray = NDArray[np.float64]

CLOSEST = 0.6
"""Least distance of two atoms, in sums of covalent radii (0.9 to 1.1 in crystals)."""
VACUUM = 6.0
"""A layer of empty space wider than this (Angstrom) ends the crystal in that direction."""


@dataclass(frozen=True)
class PerturbSettings:
    """How structures are perturbed.

    Args:
        rattle: standard deviation of each Cartesian coordinate of each atom, Angstrom.
        strain: largest entry of the symmetric strain tensor; entries are uniform in [-strain, strain].
        supercell: repeats along the lattice vectors.
        seed: of the random numbers.

    Raises:
        ConfigError: a number is impossible.
    """

    rattle: float = 0.05
    strain: float = 0.02
    supercell: tuple[int, int, int] = (1, 1, 1)
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.rattle < 1:
            raise ConfigError(f"rattle is {self.rattle} A, expected 0 or more, and less than 1")
        if not 0 <= self.strain < 0.3:
            raise ConfigError(f"strain is {self.strain}, expected 0 or more, and less than 0.3")
        if len(self.supercell) != 3 or min(self.supercell) < 1:
            raise ConfigError(f"supercell is {self.supercell}, expected three positive integers")
        if self.seed < 0:
            raise ConfigError(f"seed is {self.seed}, expected 0 or more")


def perturb(atoms: Any, n: int, settings: PerturbSettings) -> list[Any]:
    """n perturbed copies of a structure.

    The cell rows become a (1 + e), e symmetric; along directions in which the crystal ends (not periodic, or
    more than `VACUUM` of empty space) e is zero, so a slab is strained in its plane alone.

    Args:
        atoms: `ase.Atoms`.
        n: how many.
        settings: how.

    Returns:
        list of `ase.Atoms`.

    Raises:
        ConfigError: n below 1, or a supercell along a direction that is not periodic.
        PhysicsError: two atoms come closer than `CLOSEST` times the sum of their covalent radii.
    """
    if n < 1:
        raise ConfigError(f"n is {n}, expected 1 or more")
    wrong = [axis for axis in range(3) if settings.supercell[axis] > 1 and not atoms.pbc[axis]]
    if wrong:
        raise ConfigError(
            f"supercell is {settings.supercell}, but the structure is not periodic along lattice vector {wrong[0]}"
        )
    base = atoms.repeat(settings.supercell)
    _refuse_close(base, "the structure itself")
    found = []
    for k in range(n):
        copy = _perturbed(base, settings, np.random.default_rng([settings.seed, k]))
        _refuse_close(copy, f"structure {k}")
        found.append(copy)
    return found


def strain_tensor(size: float, directions: FloatArray, rng: np.random.Generator) -> FloatArray:
    """(3, 3) symmetric tensor with entries uniform in [-size, size], projected onto some directions.

    Args:
        size: largest entry.
        directions: (m, 3) vectors that span the space in which the crystal is periodic.
        rng: random numbers.
    """
    upper = np.triu(rng.uniform(-size, size, (3, 3)))
    tensor = upper + upper.T - np.diag(np.diag(upper))
    projector = directions.T @ np.linalg.pinv(directions.T)
    result: FloatArray = projector @ tensor @ projector
    return (result + result.T) / 2


def periodic_directions(atoms: Any) -> list[int]:
    """Lattice directions along which the crystal goes on: periodic, with no more than `VACUUM` of empty space."""
    axes = [axis for axis in range(3) if atoms.pbc[axis]]
    if not axes:
        return []
    cell = np.asarray(atoms.cell.complete().array)
    heights = 1 / np.linalg.norm(np.linalg.inv(cell), axis=0)
    fractional = np.sort((np.asarray(atoms.positions) @ np.linalg.inv(cell)) % 1.0, axis=0)
    empty = np.diff(np.vstack((fractional, fractional[:1] + 1)), axis=0).max(axis=0) * heights
    return [axis for axis in axes if empty[axis] <= VACUUM]


def _perturbed(base: Any, settings: PerturbSettings, rng: np.random.Generator) -> Any:
    copy = base.copy()
    axes = periodic_directions(base)
    if axes:
        change = np.eye(3) + strain_tensor(settings.strain, np.asarray(base.cell.array)[axes], rng)
        copy.set_cell(np.asarray(base.cell.array) @ change)
        copy.positions = np.asarray(base.positions) @ change
    copy.positions = copy.positions + rng.normal(0.0, settings.rattle, copy.positions.shape)
    return copy


def _refuse_close(atoms: Any, what: str) -> None:
    from ase.data import covalent_radii

    radii = np.asarray(covalent_radii)[atoms.numbers]
    cell, pbc = np.asarray(atoms.cell.array), np.asarray(atoms.pbc)
    steps = [(-1, 0, 1) if periodic else (0,) for periodic in pbc]
    for shift in product(*steps):
        vectors = atoms.positions[None] + np.array(shift) @ cell - atoms.positions[:, None]
        ratio = np.linalg.norm(vectors, axis=-1) / (radii[:, None] + radii[None])
        if shift == (0, 0, 0):
            np.fill_diagonal(ratio, np.inf)
        i, j = np.unravel_index(int(ratio.argmin()), ratio.shape)
        if ratio[i, j] < CLOSEST:
            symbols = atoms.get_chemical_symbols()
            raise PhysicsError(
                f"in {what} atoms {i} ({symbols[i]}) and {j} ({symbols[j]}, cell shift {shift}) are "
                f"{np.linalg.norm(vectors[i, j]):.3f} A apart, {ratio[i, j]:.2f} of the sum of their covalent radii "
                f"({CLOSEST} is the least): rattle and strain less, or take another seed"
            )


def write_structures(path: Path, structures: list[Any]) -> None:
    """Write structures as extxyz (eight decimals); the file appears complete or not at all.

    Raises:
        ConfigError: the name does not end in .extxyz or .xyz.
    """
    from ase.io.extxyz import write_extxyz

    if path.suffix not in (".extxyz", ".xyz"):
        raise ConfigError(f"{path}: structures are written as extxyz, so the name must end in .extxyz")
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        write_extxyz(file, structures)
