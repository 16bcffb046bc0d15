"""Readers of DeepH's two folder formats.

New: POSCAR, info.json, overlap.h5, hamiltonian.h5 with atom_pairs (N, 5) = R1 R2 R3 i j, 0-based; chunk_shapes (N, 2);
chunk_boundaries (N + 1); entries, flat; orbitals m = -l..l; eV. Legacy: element.dat, lat.dat (vectors in columns),
site_positions.dat (3 x N), orbital_types.dat, info.json, overlaps.h5, hamiltonians.h5 with one dataset for each pair
under the key "[R1, R2, R3, i, j]", 1-based; OpenMX's orbital order; eV. In both spinors are spin-major and S spinless.
Sources: DeepH-dock docs/key_concepts.md; DeepH-pack preprocess/openmx_get_data.jl.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from hamnet.core.basis import OrbitalBasis
from hamnet.core.blocks import BlockMatrix
from hamnet.core.calculation import Calculation
from hamnet.core.conventions import HAMNET, OPENMX, OrbitalConvention
from hamnet.core.spin import Spin
from hamnet.core.structure import AtomicStructure
from hamnet.errors import ConvergenceError, FormatError
from hamnet_preprocess.code_blocks import matrix_from_blocks, with_pairs_of
from hamnet_preprocess.deeph_info import Json, basis_of_shells, provenance_of, read_json, scalars_of, structure_with
from hamnet_preprocess.elements import number_of

IntArray = NDArray[np.int64]
LEGACY_TEXTS = ("info.json", "element.dat", "lat.dat", "site_positions.dat", "orbital_types.dat")


@dataclass(frozen=True, eq=False)
class _Blocks:
    """Blocks as a file gives them: pairs (n, 5) R1 R2 R3 i j 0-based, shapes (n, 2), all numbers flat."""

    pairs: IntArray
    shapes: IntArray
    entries: NDArray[Any]


@dataclass(frozen=True)
class _Format:
    """What tells the two formats apart.

    Args:
        code: name in the provenance; what: name in messages.
        texts: files that every folder has beside the overlap.
        overlap, hamiltonian: names of the matrices' files.
        spin_key, fermi_key: keys of info.json.
        structure: (folder, info, extras) -> structure and basis.
        blocks: reads one matrix file.
        order: of the orbitals.
    """

    code: str
    what: str
    texts: tuple[str, ...]
    overlap: str
    hamiltonian: str
    spin_key: str
    fermi_key: str
    structure: Callable[[Path, Json, Json], tuple[AtomicStructure, OrbitalBasis]]
    blocks: Callable[[Path], _Blocks]
    order: OrbitalConvention


class DeepHReader:
    """Reads DeepH's new format; a folder without hamiltonian.h5 is an overlap-only calculation."""

    name = "deeph"

    def find(self, root: Path) -> list[Path]:
        """Folders at or below root with POSCAR and info.json, or with overlap.h5; a file stands for its folder."""
        if root.is_file():
            return [root]
        found = {p.parent for p in root.rglob("info.json") if (p.parent / "POSCAR").is_file()}
        return sorted(found | {p.parent for p in root.rglob("overlap.h5")})

    def read(self, source: Path, *, allow_unconverged: bool = False) -> Calculation:
        """One calculation from a folder; DeepH does not say whether the SCF converged, hamnet's remarks do.

        Raises:
            FormatError: a file is missing or does not follow the format.
            PhysicsError: H or S is not hermitian.
            ConvergenceError: hamnet wrote the folder from an SCF that did not converge.
        """
        return _calculation(source, _NEW, allow_unconverged)


class DeepHLegacyReader:
    """Reads DeepH's legacy format; a folder without hamiltonians.h5 is an overlap-only calculation."""

    name = "deeph-legacy"

    def find(self, root: Path) -> list[Path]:
        """Folders at or below root with orbital_types.dat or overlaps.h5; a file stands for its folder."""
        if root.is_file():
            return [root]
        return sorted({p.parent for name in ("orbital_types.dat", "overlaps.h5") for p in root.rglob(name)})

    def read(self, source: Path, *, allow_unconverged: bool = False) -> Calculation:
        """One calculation from a folder; raises as `DeepHReader.read`."""
        return _calculation(source, _LEGACY, allow_unconverged)


def _calculation(source: Path, layout: _Format, allow_unconverged: bool) -> Calculation:
    folder = _folder(source, (*layout.texts, layout.overlap), layout.what)
    info = read_json(folder / "info.json")
    extras = _remarks(info, folder, allow_unconverged)
    structure, basis = layout.structure(folder, info, extras)
    spin = Spin.SPINOR if _needed(info, layout.spin_key, folder) else Spin.NONE
    frame = structure, basis, layout.order
    overlap = _matrix(folder / layout.overlap, layout.blocks(folder / layout.overlap), Spin.NONE, *frame)
    path = folder / layout.hamiltonian
    hamiltonian = None
    if path.is_file():
        hamiltonian = with_pairs_of(_matrix(path, layout.blocks(path), spin, *frame), overlap)
    names = (*layout.texts, layout.overlap, layout.hamiltonian)
    files = [folder / name for name in names if (folder / name).is_file()]
    return Calculation(
        structure,
        basis,
        overlap,
        hamiltonian,
        fermi_energy=_optional(info.get(layout.fermi_key)),
        provenance=provenance_of(layout.code, files, source, basis, extras),
        **scalars_of(extras),
    )


def _folder(source: Path, needed: tuple[str, ...], what: str) -> Path:
    folder = source.parent if source.is_file() else source
    missing = [name for name in needed if not (folder / name).is_file()]
    if missing:
        raise FormatError(f"{folder}: not a whole {what}: {', '.join(missing)} missing")
    return folder


def _remarks(info: Json, folder: Path, allow_unconverged: bool) -> Json:
    extras = info.get("hamnet", {})
    if not isinstance(extras, dict):
        raise FormatError(f"{folder / 'info.json'}: the part 'hamnet' is damaged: remove it to read without")
    if extras.get("converged") is False and not allow_unconverged:
        raise ConvergenceError(f"{folder}: made from an SCF that did not converge: give allow_unconverged to read it")
    return extras


def _needed(info: Json, key: str, folder: Path) -> Any:
    if key not in info:
        raise FormatError(f"{folder / 'info.json'}: no key {key!r}; it has {sorted(info)}")
    return info[key]


def _optional(value: Any) -> float | None:
    return None if value is None else float(value)


def _poscar(folder: Path, info: Json, extras: Json) -> tuple[AtomicStructure, OrbitalBasis]:
    import ase.io

    if info.get("split_hkb"):
        raise FormatError(f"{folder}: H is stored in two parts (split_hkb): make the full hamiltonian.h5 first")
    path = folder / "POSCAR"
    try:
        atoms = ase.io.read(path, format="vasp")
    except Exception as error:  # ase raises kinds of its own on damaged files
        raise FormatError(f"{path}: no POSCAR that ase can read: {error}") from error
    shells = _needed(info, "elements_orbital_map", folder)
    absent = sorted(set(atoms.get_chemical_symbols()) - set(shells))
    if absent:
        raise FormatError(f"{folder / 'info.json'}: elements_orbital_map has {sorted(shells)}, not {absent}")
    each = [tuple(int(l) for l in shells[symbol]) for symbol in atoms.get_chemical_symbols()]
    numbers = np.asarray(atoms.numbers, dtype=np.int64)
    basis, species = basis_of_shells(numbers, each, extras, str(folder / "info.json"))
    cell = np.array(atoms.cell.array)
    structure = AtomicStructure(numbers, species, np.array(atoms.positions), cell, np.ones(3, dtype=bool))
    return structure_with(extras, structure), basis


def _legacy_structure(folder: Path, info: Json, extras: Json) -> tuple[AtomicStructure, OrbitalBasis]:
    cell = _table(folder / "lat.dat").T
    positions = _table(folder / "site_positions.dat").reshape(3, -1).T
    words = (folder / "element.dat").read_text().split()
    where = str(folder / "element.dat")
    # files by hand have symbols here, DeepH's own have numbers
    numbers = np.array([int(w) if w.isdigit() else number_of(w, where) for w in words], dtype=np.int64)
    path = folder / "orbital_types.dat"
    try:
        shells = [tuple(int(word) for word in line.split()) for line in path.read_text().splitlines() if line.strip()]
    except ValueError as error:
        raise FormatError(f"{path}: a line is not integers: {error}") from error
    if cell.shape != (3, 3) or not len(positions) == len(numbers) == len(shells):
        raise FormatError(
            f"{folder}: lat.dat is {cell.shape}, expected (3, 3); {len(numbers)} atoms in element.dat, "
            f"{len(positions)} in site_positions.dat, {len(shells)} in orbital_types.dat"
        )
    basis, species = basis_of_shells(numbers, shells, extras, str(folder / "info.json"))
    structure = AtomicStructure(numbers, species, positions, cell, np.ones(3, dtype=bool))
    return structure_with(extras, structure), basis


def _table(path: Path) -> NDArray[np.float64]:
    try:
        return np.loadtxt(path, ndmin=2)
    except ValueError as error:
        raise FormatError(f"{path}: no table of numbers: {error}") from error


def _opened(path: Path) -> h5py.File:
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise FormatError(f"{path}: no whole HDF5 file: {error}") from error


def _read_chunks(path: Path) -> _Blocks:
    with _opened(path) as file:
        names = ("atom_pairs", "chunk_shapes", "chunk_boundaries", "entries")
        missing = [name for name in names if name not in file]
        if missing:
            raise FormatError(f"{path}: no dataset {', '.join(missing)}; it holds {sorted(file)[:5]}")
        pairs, shapes, bounds, entries = (np.asarray(file[name]) for name in names)
    pairs, shapes = pairs.astype(np.int64).reshape(-1, 5), shapes.astype(np.int64).reshape(-1, 2)
    expected = np.concatenate(([0], np.cumsum(shapes[:, 0] * shapes[:, 1])))
    if len(shapes) != len(pairs) or not np.array_equal(bounds, expected) or entries.shape != (expected[-1],):
        raise FormatError(
            f"{path}: {len(pairs)} pairs, {len(shapes)} shapes, {len(bounds)} boundaries and {entries.shape} entries "
            f"do not fit together: expected {len(pairs)} shapes whose sizes add up to the boundaries"
        )
    return _Blocks(pairs, shapes, entries)


def _read_keys(path: Path) -> _Blocks:
    with _opened(path) as file:
        keys = list(file)
        pairs = np.array([_parsed_key(key, path) for key in keys], dtype=np.int64).reshape(-1, 5)
        blocks = [np.asarray(file[key]) for key in keys]
    if any(block.ndim != 2 for block in blocks) or not blocks:
        raise FormatError(f"{path}: {len(blocks)} datasets, expected one matrix for each pair")
    pairs[:, 3:] -= 1
    return _Blocks(pairs, np.array([b.shape for b in blocks]), np.concatenate([b.ravel() for b in blocks]))


def _parsed_key(key: str, path: Path) -> list[int]:
    try:
        numbers = json.loads(key)
    except ValueError:
        numbers = None
    if not isinstance(numbers, list) or len(numbers) != 5 or not all(type(n) is int for n in numbers):
        raise FormatError(f'{path}: the key {key!r} is not of the form "[R1, R2, R3, i, j]" with five integers')
    return numbers


def _matrix(
    path: Path, file: _Blocks, spin: Spin, structure: AtomicStructure, basis: OrbitalBasis, order: OrbitalConvention
) -> BlockMatrix:
    i, j = file.pairs[:, 3], file.pairs[:, 4]
    if file.pairs[:, 3:].min(initial=0) < 0 or file.pairs[:, 3:].max(initial=0) >= structure.n_atoms:
        raise FormatError(f"{path}: a pair names an atom outside the {structure.n_atoms} of the structure")
    n = basis.n_orbitals[structure.species]
    factor = 2 if spin is Spin.SPINOR else 1
    expected = factor * np.column_stack((n[i], n[j]))
    if spin is Spin.NONE and np.array_equal(file.shapes, 2 * expected):
        file = _upper_left(file)  # some writers double the overlap of spinors: diag(S, S)
    wrong = np.flatnonzero((file.shapes != expected).any(axis=1))
    if wrong.size:
        p = int(wrong[0])
        raise FormatError(
            f"{path}: the block of pair {file.pairs[p].tolist()} (R, i, j; 0-based) is {file.shapes[p].tolist()}, "
            f"expected {expected[p].tolist()} from the shells of its atoms"
        )
    if spin is Spin.NONE and np.iscomplexobj(file.entries):
        file = _Blocks(file.pairs, file.shapes, file.entries.real)
    return matrix_from_blocks(i, j, file.pairs[:, :3], file.entries, structure, basis, spin, order, str(path))


def _upper_left(file: _Blocks) -> _Blocks:
    ends = np.cumsum(file.shapes.prod(axis=1))
    parts = [
        file.entries[end - a * b : end].reshape(a, b)[: a // 2, : b // 2].ravel()
        for end, (a, b) in zip(ends.tolist(), file.shapes.tolist(), strict=True)
    ]
    return _Blocks(file.pairs, file.shapes // 2, np.concatenate(parts))


_NEW = _Format(
    "DeepH",
    "DeepH folder",
    ("POSCAR", "info.json"),
    "overlap.h5",
    "hamiltonian.h5",
    "spinful",
    "fermi_energy_eV",
    _poscar,
    _read_chunks,
    HAMNET,
)
_LEGACY = _Format(
    "DeepH legacy",
    "folder of DeepH's legacy format",
    LEGACY_TEXTS,
    "overlaps.h5",
    "hamiltonians.h5",
    "isspinful",
    "fermi_level",
    _legacy_structure,
    _read_keys,
    OPENMX,
)
