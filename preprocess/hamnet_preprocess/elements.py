"""Symbols and cells as other programs' files want them."""

from __future__ import annotations

import numpy as np
from ase.data import atomic_numbers as ase_numbers
from ase.data import chemical_symbols
from numpy.typing import NDArray

from hamnet.core.structure import AtomicStructure
from hamnet.errors import BasisError, FormatError

BOX = 20.0
"""Empty space (Angstrom) around a molecule where a format asks for a cell."""


def symbol_of(number: int) -> str:
    """Chemical symbol of an atomic number.

    Raises:
        BasisError: a ghost atom, or no element.
    """
    if not 0 < number < len(chemical_symbols):
        raise BasisError(f"atomic number {number} is no element: this format has no ghost atoms")
    return str(chemical_symbols[number])


def number_of(symbol: str, where: str) -> int:
    """Atomic number of a chemical symbol.

    Raises:
        FormatError: no such element.
    """
    number = int(ase_numbers.get(symbol, 0))
    if number == 0:
        raise FormatError(f"{where}: {symbol!r} is no chemical element")
    return number


def cell_for_file(structure: AtomicStructure) -> NDArray[np.float64]:
    """(3, 3) cell rows; for a molecule a box around it, since these formats know crystals only."""
    if structure.cell is not None:
        return structure.cell
    return np.diag(np.ptp(structure.positions, axis=0) + BOX)
