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
from hamnet.errors import ConfigError, PhysicsError
from hamnet_preprocess.pyscf_basis import dense_to_blocks
from hamnet_preprocess.pyscf_molecule import molecule, refuse_unknown_fit

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
        functional, grid: as the provenance of the training data says them ("pbe (libxc 7.0.0)", "level 4"); Coulomb
            matrices are fitted where those of the labels were.

    Raises:
        PhysicsError: the structure is periodic; the labels were made with X2C, or with a fit that is not known.
        BasisError: an effective core potential, which the orbitals do not tell, or orbitals that are no Gaussians.
    """
    if structure.is_periodic:
        raise PhysicsError("H0 from the minao guess is for molecules, this structure is periodic: give H0 from a file")
    fit = re.search(r"density fit ([^,]+)", grid)
    if "x2c" in grid or (fit and fit[1].strip() != "default"):
        raise PhysicsError(f"the labels were made with {grid!r}, which H0 must be made with too: give H0 from a file")
    mol = molecule(structure, basis)
    if fit:
        refuse_unknown_fit(mol)
    level = re.search(r"level (\d)", grid)
    name = functional.split(" (libxc")[0].strip() or "hf"
    fock = minao_fock(mol, name, int(level[1]) if level else 4, fit is not None)
    return reference_blocks(fock, basis, structure.species, spin)
