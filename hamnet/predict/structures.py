"""Structures from other programs: files (POSCAR, cif, xyz, extxyz) and ASE or pymatgen objects, by duck typing."""

from __future__ import annotations

import hashlib
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hamnet.core.basis import OrbitalBasis
from hamnet.core.structure import AtomicStructure
from hamnet.errors import BasisError, FormatError
from hamnet.predict.xyz_frames import find_broken_frame

SPECIES_KEY = "hamnet_species"
"""Name of a per-atom array (`atoms.arrays`, `site_properties`) of species labels; without it elements decide."""

FORMATS = "POSCAR/CONTCAR (.vasp), .cif, .xyz, .extxyz"


def read_structures(path: Path | str) -> list[tuple[str, Any]]:
    """Every structure of a file as (name, ase.Atoms); several frames get names "stem/0", "stem/1", ...

    Raises:
        FormatError: the file is missing, empty, or in no format that can be read; of xyz it names the broken frame.
    """
    path = Path(path)
    if not path.is_file():
        raise FormatError(f"no structure file at {path}; formats are {FORMATS}")
    if path.stat().st_size == 0:
        raise FormatError(f"{path} is empty; expected a structure ({FORMATS})")
    frames = _read(path)
    if not frames:
        raise FormatError(f"{path} holds no structure; formats are {FORMATS}")
    stem = path.stem or path.name
    if len(frames) == 1:
        return [(stem, frames[0])]
    width = len(str(len(frames) - 1))
    return [(f"{stem}/{k:0{width}d}", atoms) for k, atoms in enumerate(frames)]


def _read(path: Path) -> list[Any]:
    import ase.io

    name = path.name.lower()
    kind = "vasp" if name.startswith(("poscar", "contcar")) or name.endswith((".vasp", ".poscar")) else None
    if name.endswith(".xyz"):
        kind = "extxyz"  # a plain xyz file is one without keys in its comment line
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # remarks of the parsers on their own tables, nothing on the structure
        try:
            frames = ase.io.read(path, index=":", format=kind)
        except Exception as error:  # each parser raises kinds of its own on damaged files
            if name.endswith(".cif"):
                return [_read_cif(path, error)]
            if kind == "extxyz":
                find_broken_frame(path, parse=True)
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise FormatError(f"{path} cannot be read as a structure ({reason}); formats are {FORMATS}") from error
    if kind == "extxyz":
        find_broken_frame(path)
    return list(frames)


def _read_cif(path: Path, first: Exception) -> Any:
    from pymatgen.core import Structure
    from pymatgen.io.ase import AseAtomsAdaptor

    try:
        return AseAtomsAdaptor.get_atoms(Structure.from_file(path))
    except Exception as error:  # as above
        raise FormatError(f"{path} cannot be read as cif by ase ({first}) nor by pymatgen ({error})") from error


def to_structure(atoms: Any, basis: OrbitalBasis) -> AtomicStructure:
    """AtomicStructure of an ASE `Atoms`, a pymatgen `Structure` or `Molecule`, or an `AtomicStructure` itself.

    Species follow the elements, or the labels in the per-atom array `hamnet_species` where one element has several.
    A cell is kept only where some direction is periodic. Moments are ASE's `initial_magmoms`, pymatgen's `magmom`.

    Raises:
        BasisError: the object is of no known kind, or an element is one that the basis does not know.
        PhysicsError: a position is not finite or the cell is singular.
    """
    if isinstance(atoms, AtomicStructure):
        return atoms
    if hasattr(atoms, "get_atomic_numbers") and hasattr(atoms, "get_positions"):
        return _from_ase(atoms, basis)
    if hasattr(atoms, "sites") and hasattr(atoms, "cart_coords"):
        return _from_pymatgen(atoms, basis)
    raise BasisError(
        f"cannot make a structure of {type(atoms).__module__}.{type(atoms).__name__}: "
        "give ase.Atoms, a pymatgen Structure or Molecule, or a hamnet AtomicStructure"
    )


def geometry_hash(atoms: Any) -> str:
    """SHA-256 of elements, species labels, positions, cell, periodicity and moments of atoms as `to_structure` takes.

    Equal hashes mean that a prediction made of the one is one of the other.
    """
    parts: list[Any]
    if isinstance(atoms, AtomicStructure):
        parts = [atoms.atomic_numbers, atoms.species, atoms.positions, atoms.cell, atoms.pbc, atoms.moments]
    elif hasattr(atoms, "get_atomic_numbers"):
        parts = [atoms.get_atomic_numbers(), atoms.get_positions(), np.array(atoms.cell), atoms.get_pbc()]
        parts += [atoms.arrays.get(SPECIES_KEY), atoms.arrays.get("initial_magmoms")]
    elif hasattr(atoms, "sites"):
        lattice = getattr(atoms, "lattice", None)
        parts = [[site.species_string for site in atoms.sites], atoms.cart_coords]
        parts += [None] * 2 if lattice is None else [lattice.matrix, lattice.pbc]
        parts += [atoms.site_properties.get(SPECIES_KEY), atoms.site_properties.get("magmom")]
    else:
        parts = [repr(atoms)]
    plain = [np.asarray(part).tolist() if isinstance(part, np.ndarray) else part for part in parts]
    return hashlib.sha256(json.dumps(plain, default=str).encode()).hexdigest()


def _from_ase(atoms: Any, basis: OrbitalBasis) -> AtomicStructure:
    numbers = np.asarray(atoms.get_atomic_numbers(), dtype=np.int64)
    pbc = np.asarray(atoms.get_pbc(), dtype=bool)
    species = _species(numbers, atoms.arrays.get(SPECIES_KEY), basis)
    cell = np.array(atoms.cell) if pbc.any() else None
    return AtomicStructure(numbers, species, np.array(atoms.get_positions()), cell, pbc, moments_of(atoms))


def moments_of(atoms: Any) -> NDArray[np.float64] | None:
    """(n, 3) Bohr magnetons of ASE's array `initial_magmoms`; single numbers lie along z; None where all are zero."""
    given = atoms.arrays.get("initial_magmoms")
    if given is None or not np.any(given):
        return None
    values = np.asarray(given, dtype=np.float64)
    return values if values.ndim == 2 else np.outer(values, [0.0, 0.0, 1.0])


def _from_pymatgen(atoms: Any, basis: OrbitalBasis) -> AtomicStructure:
    if not all(getattr(site, "is_ordered", True) for site in atoms.sites):
        raise BasisError("the pymatgen structure has sites with partial occupancy: order it first")
    numbers = np.array([site.specie.Z for site in atoms.sites], dtype=np.int64)
    species = _species(numbers, atoms.site_properties.get(SPECIES_KEY), basis)
    lattice = getattr(atoms, "lattice", None)
    cell = None if lattice is None else np.array(lattice.matrix)
    pbc = np.zeros(3, dtype=bool) if lattice is None else np.array(lattice.pbc, dtype=bool)
    magmoms = atoms.site_properties.get("magmom")
    moments = None if magmoms is None else np.array([_vector(moment) for moment in magmoms])
    cell = cell if pbc.any() else None
    return AtomicStructure(numbers, species, np.array(atoms.cart_coords), cell, pbc, moments)


def _vector(moment: Any) -> NDArray[np.float64]:
    """(3,) of pymatgen's site property: a number along z, three numbers, or None for zero."""
    if moment is None:
        return np.zeros(3)
    values = np.asarray(getattr(moment, "global_moment", moment), dtype=np.float64)
    return values if values.ndim else np.array([0.0, 0.0, float(values)])


def _species(numbers: NDArray[np.int64], labels: Any, basis: OrbitalBasis) -> NDArray[np.int64]:
    if labels is not None:
        return np.array([basis.index(str(label)) for label in labels], dtype=np.int64)
    known = {s.atomic_number for s in basis.species}
    missing = sorted(set(numbers.tolist()) - known)
    if missing:
        raise BasisError(
            f"the structure has {', '.join(map(element_symbol, missing))}, and the model has no orbitals for it; "
            f"it knows {', '.join(map(element_symbol, sorted(known)))}"
        )
    several = [z for z in sorted(set(numbers.tolist())) if sum(s.atomic_number == z for s in basis.species) > 1]
    if several:
        labels = [s.label for s in basis.species if s.atomic_number in several]
        raise BasisError(
            f"{', '.join(map(element_symbol, several))} has several species in the model, {labels}: "
            f"name each atom's in a per-atom array {SPECIES_KEY!r}"
        )
    return basis.species_of_elements(numbers)


def element_symbol(atomic_number: int) -> str:
    """Symbol as "Si"; "X" for a ghost atom."""
    from ase.data import chemical_symbols

    if 0 <= atomic_number < len(chemical_symbols):
        return str(chemical_symbols[atomic_number])
    return f"Z={atomic_number}"
