"""H0 of a molecule from PySCF: the Fock matrix of superposed atoms (the `minao` guess), one Fock build.

H0 = h + J[D] + v_xc[D] of the restricted method, D the guess density: it does not depend on charge or spin, and both
spins get the same. Learning H - H0 makes the target about ten times smaller.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hamnet.core.basis import OrbitalBasis
from hamnet.core.blocks import BlockMatrix
from hamnet.core.spin import Spin
from hamnet.core.structure import AtomicStructure
from hamnet.core.units import HARTREE
from hamnet.errors import BasisError, ConfigError, PhysicsError
from hamnet_preprocess.pyscf_basis import basis_of, dense_to_blocks

REFERENCES = ("minao",)
"""Guesses that an H0 can be made of."""


def minao_fock(mol: Any, functional: str, grid_level: int, density_fit: bool = False) -> NDArray[np.float64]:
    """(n, n) Hartree, PySCF's orbital order: the restricted Fock matrix of the minao guess.

    Args:
        mol: PySCF `Mole`.
        functional: PySCF's name; "hf" for Hartree-Fock.
        grid_level: of the integration grid.
        density_fit: Coulomb matrices by density fitting, as in the labels.

    Raises:
        ConfigError: a periodic cell.
    """
    from pyscf import dft, scf

    if hasattr(mol, "lattice_vectors"):
        raise ConfigError("the reference minao is for molecules, this is a periodic cell: label it without a reference")
    if functional.lower() == "hf":
        mf = scf.hf.RHF(mol)
    else:
        mf = dft.rks.RKS(mol)
        mf.xc, mf.grids.level = functional, grid_level
    if density_fit:
        mf = mf.density_fit()
    mf.verbose = 0
    fock: NDArray[np.float64] = np.asarray(mf.get_fock(dm=mf.get_init_guess(key="minao")), dtype=np.float64)
    return fock


def in_layout(fock: NDArray[np.float64], spin: Spin) -> NDArray[Any]:
    """A spinless dense matrix in another layout: the same for both spins, nothing between them."""
    if spin is Spin.COLLINEAR:
        return np.stack((fock, fock))
    return np.kron(np.eye(2), fock).astype(np.complex128) if spin is Spin.SPINOR else fock


def reference_blocks(
    fock: NDArray[np.float64], basis: OrbitalBasis, species: NDArray[np.int64], spin: Spin
) -> BlockMatrix:
    """H0 in eV from the dense matrix in Hartree, bitwise hermitian, in the layout of H."""
    blocks = dense_to_blocks(in_layout(fock, spin), basis, species, spin).symmetrised()
    return blocks.with_values(blocks.values * HARTREE)


def reference_from_basis(
    structure: AtomicStructure, basis: OrbitalBasis, spin: Spin, functional: str, grid: str
) -> BlockMatrix:
    """H0 of a molecule that has not been calculated: eV, on all its pairs.

    Args:
        structure: molecule; species index `basis`.
        basis: contracted Gaussians.
        spin: layout of H.
        functional, grid: as the provenance of the training data says them ("pbe (libxc 7.0.0)", "level 4").

    Raises:
        PhysicsError: the structure is periodic, or the labels were made with density fitting or X2C.
        BasisError: an effective core potential, which the orbitals do not tell, or orbitals that are no Gaussians.
    """
    if structure.is_periodic:
        raise PhysicsError("H0 from the minao guess is for molecules, this structure is periodic: give H0 from a file")
    if "density fit" in grid or "x2c" in grid:
        raise PhysicsError(f"the labels were made with {grid!r}, which H0 must be made with too: give H0 from a file")
    mol = molecule(structure, basis)
    level = re.search(r"level (\d)", grid)
    name = functional.split(" (libxc")[0].strip() or "hf"
    return reference_blocks(minao_fock(mol, name, int(level[1]) if level else 4), basis, structure.species, spin)


def molecule(structure: AtomicStructure, basis: OrbitalBasis) -> Any:
    """PySCF's `Mole` with exactly these orbitals.

    Raises:
        BasisError: an effective core potential, orbitals that are no Gaussians, or shells in an order that PySCF
            would change.
    """
    from pyscf import gto
    from pyscf.data.elements import ELEMENTS

    labels, shells = {}, {}
    for k in np.unique(structure.species).tolist():
        kind = basis.species[k]
        if kind.atomic_number and kind.valence_electrons != kind.atomic_number:
            raise BasisError(f"species {kind.label!r} has a core potential, which its orbitals do not tell: give H0")
        if any(not shell.exponents for shell in kind.shells):
            raise BasisError(f"species {kind.label!r} has orbitals that are no Gaussians: give H0 from a file")
        ghost = "" if kind.atomic_number else "GHOST-"
        labels[k] = f"{ghost}{ELEMENTS[kind.atomic_number] if kind.atomic_number else 'H'}{k + 1}"
        shells[labels[k]] = [[s.l, *zip(s.exponents, s.coefficients, strict=True)] for s in kind.shells]
    atoms = [(labels[k], x.tolist()) for k, x in zip(structure.species.tolist(), structure.positions, strict=True)]
    mol = gto.M(atom=atoms, basis=shells, unit="Angstrom", spin=None, verbose=0)
    found, species = basis_of(mol)
    for k, m in zip(structure.species.tolist(), species.tolist(), strict=True):
        if found.species[m].shell_ls != basis.species[k].shell_ls:
            raise BasisError(f"PySCF reorders the shells of {basis.species[k].label!r}: sort them by angular momentum")
    return mol
