"""The store's format: names, versions, tables and the text that a file carries about itself."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from hamnet.errors import FormatError

FORMAT_NAME = "hamnet-store"
FORMAT_VERSION = 2
"""Version written. 2: the shells of the attribute `basis` may carry radial functions; all else is as in 1."""
READABLE_VERSIONS = (1, 2)


def _with_radial_functions(old: Path, new: Path) -> None:
    """Version 1 is version 2 of a basis without radial functions."""
    shutil.copyfile(old, new)
    with h5py.File(new, "r+") as file:
        file.attrs["version"] = 2


UPGRADES: dict[int, Callable[[Path, Path], None]] = {1: _with_radial_functions}
"""version -> function(old file, new file) that writes the same data one version later."""

KINDS = ("overlap", "hamiltonian", "reference_hamiltonian", "density")
"""Code of a matrix in the table `matrices` is its place in this tuple; also the field of `Calculation`."""

SPINS = ("none", "collinear", "spinor")
"""Code of a spin layout in the table `matrices` is its place in this tuple."""

OPTIONAL = (
    "cell",
    "moments",
    "forces",
    "kpoints",
    "eigenvalues",
    "energy",
    "fermi_energy",
    "n_electrons",
    "electronic_temperature",
    "kmesh",
)
"""Optional parts of a calculation: bit k of the field `present` says that OPTIONAL[k] is there."""

CALCULATION = np.dtype(
    [
        ("atoms_start", "<i8"),
        ("n_atoms", "<i8"),
        ("vectors_start", "<i8"),
        ("bands_start", "<i8"),
        ("n_kpoints", "<i8"),
        ("eigenvalues_shape", "<i8", (3,)),
        ("matrices_start", "<i8"),
        ("n_matrices", "<i8"),
        ("present", "<u4"),
        ("converged", "<u4"),
        ("pbc", "<i4", (3,)),
        ("kmesh", "<i4", (3,)),
        ("cell", "<f8", (3, 3)),
        ("energy", "<f8"),
        ("fermi_energy", "<f8"),
        ("n_electrons", "<f8"),
        ("electronic_temperature", "<f8"),
    ]
)
MATRIX = np.dtype(
    [
        ("kind", "<i4"),
        ("spin", "<i4"),
        ("half", "<i8"),
        ("pairs_start", "<i8"),
        ("n_pairs", "<i8"),
        ("values_start", "<i8"),
        ("n_values", "<i8"),
        ("runs_start", "<i8"),
        ("n_runs", "<i8"),
    ]
)
RUN = np.dtype([("species_i", "<i4"), ("species_j", "<i4"), ("n_blocks", "<i8"), ("values_start", "<i8")])
ATOM = np.dtype([("atomic_number", "<i4"), ("species", "<i4"), ("position", "<f8", (3,))])

TABLES: dict[str, tuple[np.dtype[Any], tuple[int, ...]]] = {
    "calculations": (CALCULATION, ()),
    "matrices": (MATRIX, ()),
    "runs": (RUN, ()),
    "pairs": (np.dtype("<i4"), (6,)),
    "atoms": (ATOM, ()),
    "vectors": (np.dtype("<f8"), (3,)),
    "bands": (np.dtype("<f8"), ()),
    "values": (np.dtype("<f8"), ()),
}
"""Flat datasets: type and shape of one row. A field `<dataset>_start` counts rows of that dataset."""

TEXTS = ("names", "provenance", "fingerprints")
"""Datasets of UTF-8 text, one row per calculation."""

DESCRIPTIONS = {
    "calculations": "one row per calculation; bit k of `present` says that the k-th of "
    + ", ".join(OPTIONAL)
    + " is there; cell: rows are lattice vectors (A); energies in eV; electronic_temperature in K",
    "matrices": "one row per matrix; kind: 0 overlap, 1 hamiltonian, 2 reference_hamiltonian, 3 density; "
    "spin: 0 none, 1 collinear, 2 spinor; half = 1: only pairs p with p <= reverse[p] have values, "
    "the block of reverse[p] is the conjugate transpose; n_values counts float64 numbers",
    "runs": "runs of blocks with one ordered pair of species: n_blocks blocks of equal shape, one after the other",
    "pairs": "atom pairs: i, j, n1, n2, n3, reverse; the pair vector is r_j + n . cell - r_i; sorted by "
    "(species_i, species_j, i, j, n); reverse is the row, from the list's first, of (j, i, -n)",
    "atoms": "atomic number (0: ghost), index into the attribute `basis`, position (A)",
    "vectors": "per calculation: forces (eV/A), then moments (Bohr magnetons), each n_atoms rows, where present",
    "bands": "per calculation: kpoints (n_kpoints, 3) fractional, then eigenvalues (n_spin, n_k, n_bands) in eV",
    "values": "row-major blocks in pair order; eV for hamiltonians; spinor blocks are complex: real, imaginary",
    "names": "name of each calculation, no repeats",
    "provenance": "JSON: code, version, functional, basis, grid, convergence, source, sha256",
    "fingerprints": "what tells that a source has changed since it was read; empty where nothing was read",
}

GLOSSARY = {
    "units": "energies eV, lengths Angstrom, k-points fractional of the reciprocal rows",
    "orbital_order": "shells in the order of the basis; inside a shell real harmonics m = -l..l without "
    "Condon-Shortley sign (p: y, z, x; d: xy, yz, z2, xz, x2-y2)",
    "spin_layout": "none: (n_i, n_j) float64; collinear: (2, n_i, n_j) float64, up then down; spinor: "
    "(2 n_i, 2 n_j) complex128, spin-major [[uu, ud], [du, dd]]; the overlap is always spinless",
    "gauge": "lattice: M(k) = sum_n exp(+2 pi i k.n) M(n)",
    "block": "M_ij(n) = <phi_i,0| M |phi_j,n>, n_i x n_j, n the cell shift (three integers)",
}


def check_header(path: Path, attributes: Any) -> None:
    """Refuse a file that is not a store of a version that this hamnet reads.

    Raises:
        FormatError: another format, or another version.
    """
    name = attributes.get("format")
    if name != FORMAT_NAME:
        raise FormatError(
            f"{path} is an HDF5 file but not a hamnet store: its attribute 'format' is {name!r}, expected "
            f"{FORMAT_NAME!r}; make a store with `hamnet preprocess`"
        )
    version = int(attributes.get("version", 0))
    if version in READABLE_VERSIONS:
        return
    readable = " and ".join(str(v) for v in READABLE_VERSIONS)
    found = f"{path} is a store of version {version}, this hamnet reads version {readable}"
    if version > FORMAT_VERSION:
        raise FormatError(f"{found}: update hamnet, or make the store again with `hamnet preprocess`")
    if all(step in UPGRADES for step in range(version, FORMAT_VERSION)):
        raise FormatError(f"{found}: bring it up to date with hamnet.data.store.upgrade_store({str(path)!r}, NEW)")
    raise FormatError(f"{found} and knows no way up from it: make the store again with `hamnet preprocess`")


def is_store(path: Path) -> bool:
    """True for an HDF5 file that says it is a hamnet store, of whatever version."""
    if not path.is_file() or not h5py.is_hdf5(path):
        return False
    try:
        with h5py.File(path, "r") as file:
            return bool(file.attrs.get("format") == FORMAT_NAME)
    except OSError:
        return False


def empty_tables() -> dict[str, NDArray[Any]]:
    """Tables without a row."""
    return {name: np.zeros((0, *shape), dtype=dtype) for name, (dtype, shape) in TABLES.items()}


def shifted(name: str, rows: NDArray[Any], before: dict[str, int]) -> NDArray[Any]:
    """Rows of a table with every `<dataset>_start` moved on by the rows that come before in that dataset."""
    fields = [f for f in (rows.dtype.names or ()) if f.endswith("_start")]
    if not fields:
        return rows
    rows = rows.copy()
    for field in fields:
        rows[field] += before[field.removesuffix("_start")]
    return rows
