"""OrbitalBasis: which orbitals sit on which species."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hamnet.errors import BasisError

MAXIMUM_L = 6
SPECTROSCOPIC = "spdfghi"
MINIMUM_POINTS = 16
"""A radial function with fewer points is no table of an orbital."""


@dataclass(frozen=True)
class RadialFunction:
    """R(r) with phi(r) = R(|r|) Y_lm(r / |r|) as a piecewise cubic; zero beyond the last point.

    Between two points R is the cubic with the values and slopes given there (Hermite), so that a DFT code's own
    interpolation of a table can be kept; below the first point it goes as r^l.

    Args:
        r: increasing distances from the nucleus in Angstrom, at least `MINIMUM_POINTS`.
        values: R at these distances in Angstrom^(-3/2), so that int r^2 R^2 dr = 1.
        slopes: dR/dr at these distances in Angstrom^(-5/2).

    Raises:
        BasisError: too few points, distances that do not increase, or a number that is not finite.
    """

    r: tuple[float, ...]
    values: tuple[float, ...]
    slopes: tuple[float, ...]

    def __post_init__(self) -> None:
        r = np.array(self.r)
        if not len(self.slopes) == len(self.values) == len(self.r) >= MINIMUM_POINTS:
            raise BasisError(
                f"a radial function has {len(self.r)} distances, {len(self.values)} values and {len(self.slopes)} "
                f"slopes, expected as many of each, at least {MINIMUM_POINTS}"
            )
        if not all(np.isfinite(numbers).all() for numbers in (r, self.values, self.slopes)):
            raise BasisError("a radial function holds a number that is not finite")
        if r[0] < 0 or (np.diff(r) <= 0).any():
            raise BasisError("the distances of a radial function must be positive and increase")


@dataclass(frozen=True)
class Shell:
    """One radial function with its 2l+1 real orbitals, m = -l..l.

    Args:
        l: angular momentum, 0 to 6.
        radius: reach of the radial function in Angstrom (a numerical orbital is zero beyond it); None when
            it has no sharp end (Gaussians).
        exponents: Gaussian exponents (1 / bohr^2), empty for other kinds.
        coefficients: contraction coefficients of normalised primitives as PySCF keeps them, empty for other kinds.
        radial: the radial function of a numerical orbital; None where it is not known.
    """

    l: int
    radius: float | None = None
    exponents: tuple[float, ...] = ()
    coefficients: tuple[float, ...] = ()
    radial: RadialFunction | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not 0 <= self.l <= MAXIMUM_L:
            raise BasisError(f"a shell has l = {self.l}, expected 0 to {MAXIMUM_L}")
        if self.radius is not None and not self.radius > 0:
            raise BasisError(f"a shell has radius {self.radius} A, expected a positive number")
        if len(self.exponents) != len(self.coefficients):
            raise BasisError(f"a shell has {len(self.exponents)} exponents but {len(self.coefficients)} coefficients")

    @property
    def size(self) -> int:
        """Number of orbitals, 2l+1."""
        return 2 * self.l + 1


@dataclass(frozen=True)
class Species:
    """A kind of atom: its label, element and orbitals.

    Args:
        label: name that tells bases apart, as "C5.0-s2p1" or "O:def2-svp".
        atomic_number: element; 0 for a ghost atom.
        valence_electrons: electrons that this atom brings into the calculation (no core of a pseudopotential).
        shells: ordered shells; orbitals follow this order.
    """

    label: str
    atomic_number: int
    valence_electrons: float
    shells: tuple[Shell, ...]

    def __post_init__(self) -> None:
        if not self.shells:
            raise BasisError(f"species {self.label!r} has no shells: every species needs at least one orbital")

    @cached_property
    def n_orbitals(self) -> int:
        """Number of orbitals."""
        return sum(shell.size for shell in self.shells)

    @cached_property
    def slices(self) -> tuple[slice, ...]:
        """Rows of each shell inside the species' blocks."""
        ends = np.cumsum([shell.size for shell in self.shells]).tolist()
        return tuple(slice(end - shell.size, end) for end, shell in zip(ends, self.shells, strict=True))

    @property
    def shell_ls(self) -> tuple[int, ...]:
        """Angular momentum of each shell."""
        return tuple(shell.l for shell in self.shells)

    @property
    def radius(self) -> float | None:
        """Largest radius of the shells in Angstrom; None when any has no sharp end."""
        radii = [shell.radius for shell in self.shells]
        return None if any(r is None for r in radii) else max(r for r in radii if r is not None)

    @property
    def has_radial_functions(self) -> bool:
        """True when the radial function of every shell is known."""
        return all(shell.radial is not None for shell in self.shells)

    def without_radial_functions(self) -> Species:
        """The same orbitals with their radial functions forgotten."""
        return replace(self, shells=tuple(replace(shell, radial=None) for shell in self.shells))

    def describe(self) -> str:
        """Short text as "C5.0-s2p1: 2s 1p, 5 orbitals, 4 valence electrons"."""
        counts = {letter: sum(s.l == k for s in self.shells) for k, letter in enumerate(SPECTROSCOPIC)}
        shells = " ".join(f"{count}{letter}" for letter, count in counts.items() if count)
        return f"{self.label}: {shells}, {self.n_orbitals} orbitals, {self.valence_electrons:g} valence electrons"


@dataclass(frozen=True)
class OrbitalBasis:
    """The species of a calculation, a store or a model, in a fixed order."""

    species: tuple[Species, ...]

    def __post_init__(self) -> None:
        labels = [s.label for s in self.species]
        if len(set(labels)) != len(labels):
            raise BasisError(f"species labels must differ, found {labels}")

    @cached_property
    def n_orbitals(self) -> NDArray[np.int64]:
        """(n_species,) orbitals of each species."""
        return np.array([s.n_orbitals for s in self.species], dtype=np.int64)

    @cached_property
    def hash(self) -> str:
        """Sixteen hex digits that change with any shell, radius, radial function or label."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:16]

    @property
    def maximum_l(self) -> int:
        """Largest angular momentum of all shells."""
        return max(shell.l for s in self.species for shell in s.shells)

    def index(self, label: str) -> int:
        """Index of the species with this label.

        Raises:
            BasisError: no species has this label.
        """
        for k, species in enumerate(self.species):
            if species.label == label:
                return k
        raise BasisError(f"no species {label!r} in this basis; it has {[s.label for s in self.species]}")

    def species_of_elements(self, atomic_numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """(n_atoms,) species index of each atom where one element has exactly one species.

        Raises:
            BasisError: an element is missing or has several species.
        """
        found = {
            z: [k for k, s in enumerate(self.species) if s.atomic_number == z] for z in set(atomic_numbers.tolist())
        }
        known = sorted({s.atomic_number for s in self.species})
        for z, candidates in found.items():
            if not candidates:
                raise BasisError(f"no orbitals for the element with atomic number {z}; known are {known}")
            if len(candidates) > 1:
                labels = [self.species[k].label for k in candidates]
                raise BasisError(f"atomic number {z} has several species {labels}: say which atom takes which")
        return np.array([found[z][0] for z in atomic_numbers.tolist()], dtype=np.int64)

    def merged(self, other: OrbitalBasis) -> OrbitalBasis:
        """Union of two bases, this one's species first; radial functions that one of the two knows are kept.

        Raises:
            BasisError: the same label stands for different orbitals.
        """
        union = {s.label: s for s in self.species}
        for species in other.species:
            union[species.label] = _joined(union.get(species.label, species), species)
        return self if tuple(union.values()) == self.species else OrbitalBasis(tuple(union.values()))

    def n_electrons(self, species: NDArray[np.int64]) -> float:
        """Valence electrons of the neutral structure."""
        return float(sum(self.species[k].valence_electrons for k in species))

    def to_json(self) -> str:
        """Canonical JSON text; `from_json` gives back an equal basis."""
        return json.dumps([_species_to_dict(s) for s in self.species], sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> OrbitalBasis:
        """Basis from the text of `to_json`."""
        return cls(tuple(_species_from_dict(entry) for entry in json.loads(text)))


def _joined(one: Species, other: Species) -> Species:
    """One species from two readings of it, of which one may lack the radial functions."""
    if one == other:
        return one
    if one.without_radial_functions() == other.without_radial_functions():
        if not other.has_radial_functions:
            return one
        if not one.has_radial_functions:
            return other
        raise BasisError(f"species {one.label!r} has different radial functions in the two bases")
    raise BasisError(f"species {one.label!r} means different orbitals in the two bases")


def _species_to_dict(species: Species) -> dict[str, Any]:
    entry = asdict(species)
    for shell in entry["shells"]:
        if shell["radial"] is None:
            del shell["radial"]  # so that the text, and the hash, of a basis without them is what it always was
    return entry


def _species_from_dict(entry: dict[str, Any]) -> Species:
    return Species(
        entry["label"],
        entry["atomic_number"],
        entry["valence_electrons"],
        tuple(_shell_from_dict(shell) for shell in entry["shells"]),
    )


def _shell_from_dict(entry: dict[str, Any]) -> Shell:
    radial = entry.get("radial")
    function = None if radial is None else RadialFunction(*(tuple(radial[key]) for key in ("r", "values", "slopes")))
    return Shell(entry["l"], entry["radius"], tuple(entry["exponents"]), tuple(entry["coefficients"]), function)
