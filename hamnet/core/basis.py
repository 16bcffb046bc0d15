"""OrbitalBasis: which orbitals sit on which species."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hamnet.errors import BasisError

MAXIMUM_L = 6
SPECTROSCOPIC = "spdfghi"


@dataclass(frozen=True)
class Shell:
    """One radial function with its 2l+1 real orbitals, m = -l..l.

    Args:
        l: angular momentum, 0 to 6.
        radius: reach of the radial function in Angstrom (a numerical orbital is zero beyond it); None when
            it has no sharp end (Gaussians).
        exponents: Gaussian exponents (1 / bohr^2), empty for other kinds.
        coefficients: contraction coefficients of normalised primitives as PySCF keeps them, empty for other kinds.
    """

    l: int
    radius: float | None = None
    exponents: tuple[float, ...] = ()
    coefficients: tuple[float, ...] = ()

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
        """Sixteen hex digits that change with any shell, radius or label."""
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
        """Union of two bases, this one's species first.

        Raises:
            BasisError: the same label stands for different orbitals.
        """
        mine = {s.label: s for s in self.species}
        extra = []
        for species in other.species:
            if species.label not in mine:
                extra.append(species)
            elif mine[species.label] != species:
                raise BasisError(f"species {species.label!r} means different orbitals in the two bases")
        return OrbitalBasis(self.species + tuple(extra))

    def n_electrons(self, species: NDArray[np.int64]) -> float:
        """Valence electrons of the neutral structure."""
        return float(sum(self.species[k].valence_electrons for k in species))

    def to_json(self) -> str:
        """Canonical JSON text; `from_json` gives back an equal basis."""
        return json.dumps([asdict(s) for s in self.species], sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> OrbitalBasis:
        """Basis from the text of `to_json`."""
        return cls(tuple(_species_from_dict(entry) for entry in json.loads(text)))


def _species_from_dict(entry: dict[str, Any]) -> Species:
    shells = tuple(Shell(s["l"], s["radius"], tuple(s["exponents"]), tuple(s["coefficients"])) for s in entry["shells"])
    return Species(entry["label"], entry["atomic_number"], entry["valence_electrons"], shells)
