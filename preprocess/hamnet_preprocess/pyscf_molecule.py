"""PySCF's `Mole` of atoms and orbitals that are known by their numbers."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from hamnet.core.basis import OrbitalBasis, Species
from hamnet.core.structure import AtomicStructure
from hamnet.errors import BasisError, PhysicsError
from hamnet_preprocess.pyscf_basis import basis_of

SAME_SHELL = 1e-6
"""Largest relative difference of exponents and coefficients of one and the same basis: contractions are normalised
more than once on their way."""


def molecule(structure: AtomicStructure, basis: OrbitalBasis, charge: int = 0) -> Any:
    """PySCF's `Mole` with exactly these orbitals: by the name of the basis where that gives them, else by numbers.

    The name is what PySCF chooses a density-fitting basis by.

    Args:
        structure: molecule; species index `basis`.
        basis: contracted Gaussians.
        charge: of the molecule.

    Raises:
        BasisError: an effective core potential, orbitals that are no Gaussians, or shells in an order that PySCF
            would change.
    """
    used = [basis.species[k] for k in np.unique(structure.species).tolist()]
    for kind in used:
        if kind.atomic_number and kind.valence_electrons != kind.atomic_number:
            raise BasisError(f"species {kind.label!r} has a core potential, which its orbitals do not tell: give H0")
        if any(not shell.exponents for shell in kind.shells):
            raise BasisError(f"species {kind.label!r} has orbitals that are no Gaussians: give H0 from a file")
    mol = _by_name(structure, basis, used, charge)
    return _by_numbers(structure, basis, charge) if mol is None else mol


def same_orbitals(one: Species, other: Species) -> bool:
    """Whether two species have the same electrons and Gaussians in the same order."""
    if one.shell_ls != other.shell_ls or one.valence_electrons != other.valence_electrons:
        return False
    return all(
        len(a.exponents) == len(b.exponents)
        and np.allclose(a.exponents, b.exponents, rtol=SAME_SHELL)
        and np.allclose(a.coefficients, b.coefficients, rtol=SAME_SHELL)
        for a, b in zip(one.shells, other.shells, strict=True)
    )


def refuse_unknown_fit(mol: Any) -> None:
    """Refuse PySCF's default density fit where it would be another than that of the labels.

    Raises:
        PhysicsError: the basis is not known by its name.
    """
    names = mol.basis.values() if isinstance(mol.basis, dict) else [mol.basis]
    if not all(isinstance(name, str) for name in names):
        raise PhysicsError(
            "the labels were made with PySCF's default density fit, which goes by the name of the basis, and PySCF has "
            "no basis of the species' names with these orbitals: label without a density fit, or give H0 from a file"
        )


def _by_name(structure: AtomicStructure, basis: OrbitalBasis, used: Sequence[Species], charge: int) -> Any:
    """None where the name of a species gives other orbitals, or an element has several species."""
    from pyscf import gto
    from pyscf.data.elements import ELEMENTS

    names = {ELEMENTS[kind.atomic_number]: kind.label.partition(":")[2] for kind in used if kind.atomic_number}
    if not names or len(names) < len(used):
        return None
    # PySCF looks fits up under another spelling where each element has its name: of one name it is the labels' fit
    name = names if len(set(names.values())) > 1 else next(iter(names.values()))
    atoms = [(ELEMENTS[z], x.tolist()) for z, x in zip(structure.atomic_numbers, structure.positions, strict=True)]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # where else such a basis may be had: its numbers are here
            mol = gto.M(atom=atoms, basis=name, unit="Angstrom", charge=charge, spin=None, verbose=0)
    except (KeyError, RuntimeError):  # no basis of that name in PySCF
        return None
    found, own = basis_of(mol)
    pairs = set(zip(own.tolist(), structure.species.tolist(), strict=True))
    return mol if all(same_orbitals(found.species[a], basis.species[b]) for a, b in pairs) else None


def _by_numbers(structure: AtomicStructure, basis: OrbitalBasis, charge: int) -> Any:
    from pyscf import gto
    from pyscf.data.elements import ELEMENTS

    labels, shells = {}, {}
    for k in np.unique(structure.species).tolist():
        kind = basis.species[k]
        ghost = "" if kind.atomic_number else "GHOST-"
        labels[k] = f"{ghost}{ELEMENTS[kind.atomic_number] if kind.atomic_number else 'H'}{k + 1}"
        shells[labels[k]] = [[s.l, *zip(s.exponents, s.coefficients, strict=True)] for s in kind.shells]
    atoms = [(labels[k], x.tolist()) for k, x in zip(structure.species.tolist(), structure.positions, strict=True)]
    mol = gto.M(atom=atoms, basis=shells, unit="Angstrom", charge=charge, spin=None, verbose=0)
    found, species = basis_of(mol)
    for k, m in zip(structure.species.tolist(), species.tolist(), strict=True):
        if found.species[m].shell_ls != basis.species[k].shell_ls:
            raise BasisError(f"PySCF reorders the shells of {basis.species[k].label!r}: sort them by angular momentum")
    return mol
