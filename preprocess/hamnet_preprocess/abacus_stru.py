"""ABACUS's STRU: species, orbital files, lattice (bohr) and atoms."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hamnet.core.basis import SPECTROSCOPIC, OrbitalBasis, Shell, Species
from hamnet.core.structure import AtomicStructure
from hamnet.core.units import BOHR
from hamnet.errors import BasisError, FormatError
from hamnet_preprocess.code_blocks import shell_text
from hamnet_preprocess.elements import number_of

SECTIONS = (
    "ATOMIC_SPECIES",
    "NUMERICAL_ORBITAL",
    "NUMERICAL_DESCRIPTOR",
    "LATTICE_CONSTANT",
    "LATTICE_VECTORS",
    "LATTICE_PARAMETERS",
    "ATOMIC_POSITIONS",
    "ABFS_ORBITAL",
    "PAW_FILES",
)


def read_stru(path: Path) -> tuple[AtomicStructure, OrbitalBasis]:
    """Structure and basis; species and atoms in the order of the file, as ABACUS numbers its orbitals.

    Valence electrons come from the pseudopotentials where STRU's names lead to them, else they are unknown (0).

    Raises:
        FormatError: a section is missing or does not follow the format.
        BasisError: an orbital file neither names nor holds its shells.
    """
    sections = _sections(path)
    kinds = [line.split() for line in _needed(sections, "ATOMIC_SPECIES", path)]
    orbitals = _needed(sections, "NUMERICAL_ORBITAL", path)
    if len(orbitals) != len(kinds):
        raise FormatError(f"{path}: {len(kinds)} lines in ATOMIC_SPECIES, {len(orbitals)} in NUMERICAL_ORBITAL")
    try:
        scale = float(_needed(sections, "LATTICE_CONSTANT", path)[0].split()[0]) * BOHR
        rows = [[float(x) for x in line.split()[:3]] for line in _needed(sections, "LATTICE_VECTORS", path)[:3]]
        cell = np.array(rows) * scale
        labels, positions = _atoms(_needed(sections, "ATOMIC_POSITIONS", path), cell, scale, path)
    except (ValueError, IndexError) as error:
        raise FormatError(f"{path}: does not follow the format of STRU: {error}") from error
    names = [kind[0] for kind in kinds]
    unknown = sorted(set(labels) - set(names))
    if unknown:
        raise FormatError(f"{path}: atoms of {unknown}, but ATOMIC_SPECIES has {names}")
    basis = OrbitalBasis(tuple(_species(kind, file, path) for kind, file in zip(kinds, orbitals, strict=True)))
    species = np.array([names.index(label) for label in labels], dtype=np.int64)
    numbers = np.array([basis.species[k].atomic_number for k in species], dtype=np.int64)
    return AtomicStructure(numbers, species, positions, cell, np.ones(3, dtype=bool)), basis


def shells_of_name(name: str) -> tuple[tuple[int, ...], float | None]:
    """Shells and radius (bohr) told by an orbital file's name: "C_gga_8au_100Ry_2s2p1d.orb" -> (0, 0, 1, 1, 2), 8.

    A name of another pattern gives no shells.
    """
    stem = re.sub(r"\.orb$", "", Path(name).name)
    found = re.search(rf"_((?:\d+[{SPECTROSCOPIC}])+)$", stem)
    radius = re.search(r"_(\d+(?:\.\d+)?)au", stem)
    pieces = re.findall(rf"(\d+)([{SPECTROSCOPIC}])", found[1]) if found else []
    ls = [l for count, letter in pieces for l in [SPECTROSCOPIC.index(letter)] * int(count)]
    return tuple(sorted(ls)), float(radius[1]) if radius else None


def _sections(path: Path) -> dict[str, list[str]]:
    sections: dict[str, list[str]] = {}
    current = ""
    for raw in path.read_text(errors="replace").splitlines():
        line = re.split(r"//|#", raw)[0].strip()
        if line.split(" ")[0] in SECTIONS:
            current = line.split(" ")[0]
            sections[current] = []
        elif line and current:
            sections[current].append(line)
    return sections


def _needed(sections: dict[str, list[str]], name: str, path: Path) -> list[str]:
    if not sections.get(name):
        raise FormatError(f"{path}: no section {name}; it has {sorted(sections)} (latname other than none is not read)")
    return sections[name]


def _atoms(
    lines: list[str], cell: NDArray[np.float64], scale: float, path: Path
) -> tuple[list[str], NDArray[np.float64]]:
    kind, rest = lines[0].split()[0].lower(), lines[1:]
    labels: list[str] = []
    rows: list[list[float]] = []
    at = 0
    while at < len(rest):
        label, count = rest[at].split()[0], int(rest[at + 2].split()[0])
        for line in rest[at + 3 : at + 3 + count]:
            rows.append([float(x) for x in line.split()[:3]])
            labels.append(label)
        if len(labels) == 0 or at + 3 + count > len(rest):
            raise FormatError(f"{path}: {count} atoms of {label} are announced, the file ends before")
        at += 3 + count
    table = np.array(rows)
    factors = {"direct": None, "cartesian": scale, "cartesian_angstrom": 1.0, "cartesian_au": BOHR}
    if kind not in factors:
        raise FormatError(f"{path}: positions are {lines[0]!r}, expected one of {', '.join(factors)}")
    factor = factors[kind]
    return labels, table @ cell if factor is None else table * factor


def _species(kind: list[str], orbital_file: str, path: Path) -> Species:
    symbol = re.sub(r"[^A-Za-z].*$", "", kind[0])
    ls, radius = shells_of_name(orbital_file)
    if not ls:
        ls, radius = _shells_of_file(orbital_file, path)
    reach = None if radius is None else radius * BOHR
    shells = tuple(Shell(l, reach) for l in ls)
    label = f"{kind[0]}-{shell_text(ls)}"
    return Species(label, number_of(symbol, str(path)), _valence(kind, path), shells)


def _shells_of_file(name: str, path: Path) -> tuple[tuple[int, ...], float | None]:
    """Shells from inside an orbital file: "Number of Sorbital--> 2" and "Radius Cutoff(a.u.) 8"."""
    found = next((p for p in _beside(name, path) if p.is_file()), None)
    text = found.read_text(errors="replace") if found else ""
    counts = re.findall(r"Number of ([A-Z])orbital\s*-->\s*(\d+)", text)
    ls = [l for letter, n in counts for l in [SPECTROSCOPIC.index(letter.lower())] * int(n)]
    if not ls:
        raise BasisError(
            f"{path}: the orbital file {name!r} does not tell its shells by its name (as C_gga_8au_100Ry_2s2p1d.orb), "
            "and is not beside STRU: put it there"
        )
    radius = re.search(r"Radius Cutoff\(a\.u\.\)\s+([\d.]+)", text)
    return tuple(sorted(ls)), float(radius[1]) if radius else None


def _valence(kind: list[str], path: Path) -> float:
    if len(kind) < 3:
        return 0.0
    found = next((p for p in _beside(kind[2], path) if p.is_file()), None)
    text = found.read_text(errors="replace") if found else ""
    number = re.search(r"z_valence\s*=\s*\"?\s*([\d.eEdD+]+)|([\d.]+)\s+Z valence", text)
    return float((number[1] or number[2]).replace("D", "E").replace("d", "e")) if number else 0.0


def _beside(name: str, path: Path) -> list[Path]:
    return [path.parent / name, path.parent / Path(name).name, path.parent.parent / Path(name).name]
