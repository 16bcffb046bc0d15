"""PySCF's chkfiles: the state of one SCF, and what hamnet adds to them in the group `hamnet`.

A plain chkfile has orbitals but no Fock matrix; F = S C e C^dagger S is exact for canonical orbitals of full rank.
Text in the file is read as JSON and literals only, never evaluated.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hamnet.core.spin import Spin
from hamnet.errors import BasisError, ConvergenceError, FormatError, PhysicsError
from hamnet_preprocess.pyscf_state import ScfState

GROUP = "hamnet"
FORMAT_VERSION = 1
SUFFIXES = (".chk", ".chkfile", ".h5", ".hdf5")
_TEXTS = ("functional", "grid", "convergence", "code_version")
_LITERALS = ("basis", "ecp", "pseudo")
_TABLES = {"_atm": np.int32, "_bas": np.int32, "_env": np.float64, "_ecpbas": np.int32}
_PLAIN = ("cart", "charge", "spin", "unit", "a", "dimension", "_atom", "_ecp", "_pseudo", "low_dim_ft_type")
ORTHONORMAL = 1e-6
"""Largest |C^dagger S C - 1| of orbitals that a Fock matrix is rebuilt from."""


def is_chkfile(path: Path) -> bool:
    """True for an HDF5 file with PySCF's `mol` and `scf`."""
    import h5py

    if path.suffix not in SUFFIXES or not path.is_file() or not h5py.is_hdf5(path):
        return False
    with h5py.File(path, "r") as file:
        return "mol" in file and "scf" in file


def add_state(path: Path, state: ScfState, settings: str = "") -> None:
    """Write Fock matrix, overlap, H0, convergence and provenance into the chkfile's group `hamnet`."""
    import h5py

    with h5py.File(path, "a") as file:
        if GROUP in file:
            del file[GROUP]
        group = file.create_group(GROUP)
        group.attrs["format_version"] = FORMAT_VERSION
        group.attrs["settings"] = settings
        group.attrs["units"] = "Hartree, PySCF's orbital order"
        group.attrs["spin"] = state.spin.value
        for name in _TEXTS:
            group.attrs[name] = getattr(state, name)
        group.attrs["converged"] = bool(state.converged)
        group.attrs["sigma"] = state.sigma or 0.0
        group["fock"], group["overlap"], group["mo_energy"] = state.fock, state.overlap, state.mo_energy
        if state.reference is not None:
            group["reference"] = state.reference
        if state.off_mesh is not None:
            group["off_mesh_kpoints"], group["off_mesh_energies"] = state.off_mesh


def stored_settings(path: Path) -> str | None:
    """The settings text that a labelled chkfile was made with; None for another or broken file."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            return str(file[GROUP].attrs["settings"]) if GROUP in file else None
    except (OSError, KeyError):
        return None


def state_from_file(path: Path, *, allow_unconverged: bool = False) -> ScfState:
    """State of a chkfile.

    Raises:
        FormatError: no HDF5 file, cut short, or without orbitals.
        ConvergenceError: the file says that the SCF did not converge.
        BasisError, PhysicsError: orbitals that no Fock matrix can be rebuilt from.
    """
    import h5py

    try:
        with h5py.File(path, "r") as file:
            for name in ("mol", "scf"):
                if name not in file:
                    raise FormatError(f"{path}: no {name!r} in this HDF5 file, expected a PySCF chkfile of an SCF")
            mol = _load_mol(file["mol"][()], path)
            scf = {key: _load(file["scf"][key]) for key in file["scf"]}
            extra = _load_extra(file[GROUP]) if GROUP in file else {}
    except (OSError, KeyError, json.JSONDecodeError) as error:
        raise FormatError(f"{path}: not a complete PySCF chkfile ({error}); run the SCF again") from error
    if extra and not extra["converged"] and not allow_unconverged:
        raise ConvergenceError(f"{path}: the SCF did not converge; use --allow-unconverged to read it all the same")
    return _build(path, mol, _plain_keys(scf, path), extra)


def _plain_keys(scf: Mapping[str, Any], path: Path) -> dict[str, Any]:
    plain = {key.split("__from_list__")[0]: value for key, value in scf.items()}
    for name in ("mo_energy", "mo_occ", "mo_coeff"):
        if name not in plain:
            raise FormatError(f"{path}: no scf/{name}: the SCF was stopped before its first cycle ended; run it again")
    return plain


def _load(node: Any) -> Any:
    """A dataset, or PySCF's list of datasets (numbered keys), nested."""
    if hasattr(node, "shape"):
        return node[()]
    return [_load(node[key]) for key in sorted(node)]


def _load_mol(text: Any, path: Path) -> Any:
    from pyscf import gto
    from pyscf.pbc import gto as pbc_gto

    entries = json.loads(text)
    missing = [key for key in ("_atm", "_bas", "_env", "_atom") if key not in entries]
    if missing:
        raise FormatError(f"{path}: the molecule lacks {missing}; expected a chkfile of PySCF 2")
    mol = pbc_gto.Cell() if "a" in entries else gto.Mole()
    values = {key: entries[key] for key in _PLAIN if key in entries}
    values |= {key: np.array(entries.get(key, []), dtype=kind) for key, kind in _TABLES.items()}
    values |= {key: _literal(entries.get(key)) for key in _LITERALS}
    values["_built"] = True
    mol.__dict__.update(values)
    if "a" in entries and mol.rcut is None:  # not in every chkfile; without it no lattice sum
        mol.rcut = pbc_gto.cell.estimate_rcut(mol, mol.precision)
    return mol


def _literal(text: Any) -> Any:
    try:
        return ast.literal_eval(text) if isinstance(text, str) else text
    except (ValueError, SyntaxError):
        return None  # arrays in the text: the shells themselves are in _bas and _env


def _load_extra(group: Any) -> dict[str, Any]:
    extra: dict[str, Any] = {name: str(group.attrs.get(name, "")) for name in _TEXTS}
    extra |= {"spin": Spin(group.attrs["spin"]), "converged": bool(group.attrs["converged"])}
    extra |= {name: group[name][()] for name in ("fock", "overlap", "mo_energy")}
    extra["sigma"] = float(group.attrs.get("sigma", 0.0)) or None
    if "reference" in group:
        extra["reference"] = group["reference"][()]
    if "off_mesh_kpoints" in group:
        extra["off_mesh"] = (group["off_mesh_kpoints"][()], group["off_mesh_energies"][()])
    return extra


def _build(path: Path, mol: Any, scf: Mapping[str, Any], extra: Mapping[str, Any]) -> ScfState:
    periodic = hasattr(mol, "lattice_vectors")
    kpoints = _kpoints(mol, scf) if periodic else None
    n_k, n = (1 if kpoints is None else len(kpoints)), mol.nao_nr()
    coefficients = _array(scf["mo_coeff"], path)
    spin = extra["spin"] if extra else _spin(coefficients.shape, n_k, n, path)
    n_spin = 2 if spin is Spin.COLLINEAR else 1
    energies = _array(scf["mo_energy"], path).reshape(n_spin, n_k, -1)
    occupations = _array(scf["mo_occ"], path).reshape(n_spin, n_k, -1)
    energy = float(scf["e_tot"]) if "e_tot" in scf else None
    if extra:
        return ScfState(mol, mo_occ=occupations, energy=energy, kpoints=kpoints, **extra)
    _refuse_rohf(occupations, spin, path)
    overlap = np.asarray(mol.pbc_intor("int1e_ovlp", kpts=_cartesian(mol, kpoints))) if periodic else None
    overlap = mol.intor_symmetric("int1e_ovlp")[None] if overlap is None else overlap.reshape(n_k, n, n)
    orbitals = coefficients.reshape(n_spin, n_k, *coefficients.shape[-2:])
    fock = _rebuild(orbitals, energies, overlap, spin, path)
    return ScfState(
        mol, spin, fock, overlap, energies, occupations, energy, kpoints, convergence="not stated by the chkfile"
    )


def _array(value: Any, path: Path) -> NDArray[Any]:
    try:
        return np.array(value)
    except ValueError as error:
        raise PhysicsError(
            f"{path}: spins or k-points have different numbers of orbitals (linearly dependent basis): "
            "the Fock matrix cannot be rebuilt; remove diffuse functions or label with hamnet"
        ) from error


def _kpoints(mol: Any, scf: Mapping[str, Any]) -> NDArray[np.float64]:
    kpts = np.asarray(scf.get("kpts", scf.get("kpt", np.zeros(3)))).reshape(-1, 3)
    scaled: NDArray[np.float64] = kpts @ np.asarray(mol.lattice_vectors()).T / (2 * np.pi)
    return scaled


def _cartesian(mol: Any, kpoints: NDArray[np.float64] | None) -> NDArray[np.float64]:
    reciprocal = 2 * np.pi * np.linalg.inv(np.asarray(mol.lattice_vectors())).T
    result: NDArray[np.float64] = np.asarray(kpoints) @ reciprocal
    return result


def _spin(shape: tuple[int, ...], n_k: int, n: int, path: Path) -> Spin:
    square = shape[-2] == shape[-1]
    if square and shape[-1] == n and int(np.prod(shape[:-2])) in (n_k, 2 * n_k):
        return Spin.NONE if int(np.prod(shape[:-2])) == n_k else Spin.COLLINEAR
    if square and shape[-1] == 2 * n and n_k == 1:
        return Spin.SPINOR
    if shape[-2] == n and shape[-1] < n:
        raise PhysicsError(
            f"{path}: {shape[-1]} molecular orbitals for {n} basis functions (linearly dependent basis): F = "
            "S C e C^T S needs all of them; remove diffuse functions, or label with hamnet, which stores F itself"
        )
    raise BasisError(
        f"{path}: orbital coefficients of shape {shape} for {n} basis functions and {n_k} k-points: expected RHF, UHF "
        "or GHF orbitals; four-component and j-basis calculations are not read"
    )


def _refuse_rohf(occupations: NDArray[Any], spin: Spin, path: Path) -> None:
    if spin is Spin.NONE and np.any(np.abs(occupations - 1) < 1e-9):
        raise BasisError(
            f"{path}: singly occupied orbitals in one set (ROHF): its effective Fock matrix depends on a convention; "
            "run UHF/UKS instead"
        )


def _rebuild(
    orbitals: NDArray[Any], energies: NDArray[np.float64], overlap: NDArray[Any], spin: Spin, path: Path
) -> NDArray[Any]:
    """(n_k, ...) F = S C e C^dagger S, after a check that C is orthonormal in S."""
    metric = np.array([np.kron(np.eye(2), s) for s in overlap]) if spin is Spin.SPINOR else overlap
    projected = metric @ orbitals
    residual = np.abs(orbitals.conj().swapaxes(-1, -2) @ projected - np.eye(orbitals.shape[-1])).max()
    if residual > ORTHONORMAL:
        raise PhysicsError(
            f"{path}: orbitals are not orthonormal in S (|C^dagger S C - 1| = {residual:.3g}): the file was damaged, "
            "or they are two-component orbitals in a j-basis, which are not read (use GHF/GKS with .x2c1e())"
        )
    fock = (projected * energies[..., None, :]) @ projected.conj().swapaxes(-1, -2)
    result: NDArray[Any] = fock.swapaxes(0, 1) if spin is Spin.COLLINEAR else fock[0]
    return result
