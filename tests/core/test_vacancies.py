"""Cells without some of their atoms: the rows and columns of the others, bitwise."""

import numpy as np
import pytest
from factories import lawful_calculation

from hamnet.core.bloch import BlochSum
from hamnet.core.spin import Spin
from hamnet.core.supercell import supercell, without_atoms
from hamnet.errors import PhysicsError


@pytest.mark.parametrize("spin", list(Spin))
def test_rows_and_columns_of_the_other_atoms_stay(spin: Spin) -> None:
    cell = supercell(lawful_calculation(1, spin), (2, 1, 1))
    fewer = without_atoms(cell, [1, 4])
    sizes = cell.basis.n_orbitals[cell.structure.species]
    rows = ~np.isin(np.repeat(np.arange(len(sizes)), sizes), [1, 4])
    both = np.tile(rows, 2) if spin is Spin.SPINOR else rows
    k = np.array([0.1, -0.2, 0.3])
    for name, mask in (("overlap", rows), ("hamiltonian", both)):
        whole, cut = (BlochSum(getattr(c, name)).dense(k) for c in (cell, fewer))
        np.testing.assert_array_equal(cut, whole[..., mask, :][..., mask])
    assert fewer.structure.n_atoms == cell.structure.n_atoms - 2
    assert fewer.hamiltonian.hermitian_residual()[0] == cell.hamiltonian.hermitian_residual()[0] == 0
    assert fewer.n_electrons is None


def test_atoms_that_do_not_exist_are_refused() -> None:
    cell = lawful_calculation(1, Spin.NONE)
    with pytest.raises(PhysicsError, match="the cell has"):
        without_atoms(cell, [cell.structure.n_atoms])
    with pytest.raises(PhysicsError, match="no atom is left"):
        without_atoms(cell, range(cell.structure.n_atoms))
