"""OpenMX's input deck: keys, blocks, and the basis that the PAO names in it stand for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from ase.data import atomic_numbers as ELEMENTS
from numpy.typing import NDArray

from hamnet.core.basis import SPECTROSCOPIC, OrbitalBasis, Shell, Species
from hamnet.core.units import BOHR
from hamnet.errors import BasisError, FormatError

IntArray = NDArray[np.int64]

# "Fe5.5H-s3p2d1": element, radius in bohr, anything up to the last dash (H, S, _1s, ...), shells.
_PAO = re.compile(r"^(?P<element>[A-Z][a-z]?)[^-]*?(?P<radius>\d+(?:\.\d+)?)(?P<rest>.*)-(?P<shells>[^-]*)$")
_SHELL = re.compile(r"([spdfg])(\d+)(?:>(\d+))?")


@dataclass(frozen=True)
class Deck:
    """The keys and blocks of an input deck; keys are in lower case.

    Args:
        path: the file that holds the deck, for messages.
        keys: key -> rest of its line.
        blocks: name of a <block -> its lines, cut into words.
    """

    path: Path
    keys: dict[str, str]
    blocks: dict[str, tuple[tuple[str, ...], ...]]

    @classmethod
    def parse(cls, lines: Sequence[str], path: Path) -> Deck:
        """Deck from its lines; what follows a # is a comment."""
        keys: dict[str, str] = {}
        blocks: dict[str, tuple[tuple[str, ...], ...]] = {}
        name: str | None = None
        rows: list[tuple[str, ...]] = []
        for line in lines:
            words = tuple(line.split("#", 1)[0].split())
            if not words:
                continue
            if name is None and words[0].startswith("<"):
                name, rows = words[0][1:].lower(), []
            elif name is not None and words[0].lower() == f"{name}>":
                blocks[name], name = tuple(rows), None
            elif name is not None:
                rows.append(words)
            else:
                keys[words[0].lower()] = " ".join(words[1:])
        if name is not None:
            raise FormatError(f"{path}: the input deck's block <{name} is not closed: expected a line '{name}>'")
        return cls(path, keys, blocks)

    def number(self, key: str, default: float) -> float:
        """A number; the default where the key is absent.

        Raises:
            FormatError: the value is not a number.
        """
        text = self.keys.get(key.lower(), "")
        try:
            return float(text.split()[0]) if text else default
        except ValueError as error:
            raise FormatError(f"{self.path}: the input deck has {key} = {text!r}, expected a number") from error

    @property
    def kmesh(self) -> tuple[int, int, int] | None:
        """The three integers of scf.Kgrid; None where absent."""
        words = self.keys.get("scf.kgrid", "").split()[:3]
        if len(words) < 3 or not all(word.isdigit() for word in words):
            return None
        return int(words[0]), int(words[1]), int(words[2])

    def block(self, name: str) -> tuple[tuple[str, ...], ...]:
        """Rows of a block.

        Raises:
            FormatError: the deck has no such block.
        """
        if name.lower() not in self.blocks:
            raise FormatError(f"{self.path}: the input deck has no block <{name}; found {sorted(self.blocks)}")
        return self.blocks[name.lower()]


def basis_of_deck(deck: Deck, n_orbitals: IntArray) -> tuple[OrbitalBasis, IntArray]:
    """Species from the deck, in the order of their first atom, and (n_atoms,) the species of each atom.

    Two names with one PAO and one valence are one species. Orbital counts of the file decide between the two
    numbers of an old PAO name.

    Args:
        deck: the input deck.
        n_orbitals: (n_atoms,) orbitals of each atom in the file.

    Raises:
        FormatError: the deck names another number of atoms than the file.
        BasisError: an atom's species has no PAO, or a PAO name is not understood or does not fit the file.
    """
    paos = _definitions(deck)
    rows = deck.block("Atoms.SpeciesAndCoordinates")
    if len(rows) != len(n_orbitals):
        raise FormatError(f"{deck.path}: the input deck has {len(rows)} atoms, the file {len(n_orbitals)}")
    found: dict[str, Species] = {}
    labels = []
    for atom, (row, count) in enumerate(zip(rows, n_orbitals.tolist(), strict=True)):
        species = _species_of_atom(deck, paos, atom, row, count)
        known = found.setdefault(species.label, species)
        if known != species:
            raise BasisError(
                f"{deck.path}: atom {atom + 1} ({row[1]}) has {species.valence_electrons:g} electrons and "
                f"{species.n_orbitals} orbitals, an earlier atom with the PAO {species.label} has "
                f"{known.valence_electrons:g} and {known.n_orbitals}: expected the same; mend the up and down columns"
            )
        labels.append(species.label)
    basis = OrbitalBasis(tuple(found.values()))
    return basis, np.array([basis.index(label) for label in labels], dtype=np.int64)


def _definitions(deck: Deck) -> dict[str, tuple[str, bool]]:
    """Name -> (PAO name, empty atom)."""
    result = {}
    for row in deck.block("Definition.of.Atomic.Species"):
        if len(row) < 2:
            raise BasisError(f"{deck.path}: species line {' '.join(row)!r} has no PAO, expected 'C C5.0-s2p1 C_PBE19'")
        potential = row[2] if len(row) > 2 else ""
        result[row[0]] = (row[1], potential == "E" or potential.startswith("E_"))
    return result


def _species_of_atom(
    deck: Deck, paos: dict[str, tuple[str, bool]], atom: int, row: tuple[str, ...], count: int
) -> Species:
    name = row[1] if len(row) > 1 else ""
    if name not in paos:
        raise BasisError(
            f"{deck.path}: atom {atom + 1} is of species {name!r}, which has no PAO; "
            f"<Definition.of.Atomic.Species names {sorted(paos)}"
        )
    try:
        valence = float(row[5]) + float(row[6])
    except (IndexError, ValueError) as error:
        raise FormatError(
            f"{deck.path}: line {' '.join(row)!r} of atom {atom + 1} in the input deck: expected number, species, "
            "x, y, z, up and down electrons"
        ) from error
    pao, empty = paos[name]
    return _fitting(deck, pao, empty, 0.0 if empty else valence, atom, count)


def _fitting(deck: Deck, pao: str, empty: bool, valence: float, atom: int, count: int) -> Species:
    candidates = parse_pao(pao)
    for species in candidates:
        if species.n_orbitals == count:
            is_ghost = empty or species.atomic_number == 0
            label = f"ghost:{pao}" if empty else pao
            z = 0 if is_ghost else species.atomic_number
            return replace(species, label=label, atomic_number=z, valence_electrons=valence)
    sizes = " or ".join(str(n) for n in sorted({s.n_orbitals for s in candidates}))
    raise BasisError(
        f"{deck.path}: the PAO {pao} has {sizes} orbitals, but the file holds {count} for atom {atom + 1}: "
        "the input deck does not belong to these matrices"
    )


def parse_pao(name: str) -> list[Species]:
    """Readings of a PAO name, without valence electrons: "C5.0-s2p1" is radius 5.0 bohr, two s, one p.

    "s2>1" and the old "s21" (primitive, contracted) have two readings: contracted first, then primitive.

    Raises:
        BasisError: the name is not understood.
    """
    match = _PAO.match(name)
    shells = match["shells"] if match else ""
    if match is None or not shells or _SHELL.sub("", shells):
        raise BasisError(
            f"PAO name {name!r} is not understood: expected element, radius in bohr, dash, shells, as C5.0-s2p1"
        )
    element = match["element"]
    if element != "E" and element not in ELEMENTS:
        raise BasisError(f"PAO name {name!r} begins with {element!r}, which is no chemical element")
    z = 0 if element == "E" else ELEMENTS[element]
    radius = float(match["radius"]) * BOHR
    parts = [_counts(*part) for part in _SHELL.findall(shells)]
    readings = []
    for pick in range(2):
        ls = sorted(l for l, counts in parts for _ in range(counts[pick]))
        species = Species(name, z, 0.0, tuple(Shell(l, radius) for l in ls))
        if species not in readings:
            readings.append(species)
    return readings


def _counts(letter: str, digits: str, contracted: str) -> tuple[int, tuple[int, int]]:
    """(l, (contracted, primitive)) of one part of the shell string."""
    angular = SPECTROSCOPIC.index(letter)
    if contracted:
        return angular, (int(contracted), int(digits))
    if len(digits) == 2:
        return angular, (int(digits[1]), int(digits[0]))
    return angular, (int(digits), int(digits))
