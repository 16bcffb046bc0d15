"""ASE and pymatgen: structures in, structures out, and a calculator for ASE.

Neither program is imported unless its objects are asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from hamnet.core.basis import OrbitalBasis
from hamnet.core.structure import AtomicStructure
from hamnet.predict.structures import SPECIES_KEY, read_structures, to_structure

if TYPE_CHECKING:
    from hamnet.integrations.ase_calculator import HamnetCalculator

__all__ = ["SPECIES_KEY", "HamnetCalculator", "read_structures", "to_ase", "to_structure"]


def __getattr__(name: str) -> Any:
    """`HamnetCalculator`, whose base class is ASE's."""
    if name == "HamnetCalculator":
        from hamnet.integrations.ase_calculator import HamnetCalculator

        return HamnetCalculator
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def to_ase(structure: AtomicStructure, basis: OrbitalBasis | None = None) -> Any:
    """`ase.Atoms` of a structure with its moments; with a basis the species labels go along as a per-atom array.

    `to_structure(to_ase(structure, basis), basis)` gives back the same atoms, species and moments.
    """
    from ase import Atoms

    atoms = Atoms(
        numbers=structure.atomic_numbers, positions=structure.positions, cell=structure.cell, pbc=structure.pbc
    )
    if structure.moments is not None:
        atoms.set_initial_magnetic_moments(structure.moments)
    if basis is not None:
        atoms.new_array(SPECIES_KEY, np.array([basis.species[k].label for k in structure.species]))
    return atoms
