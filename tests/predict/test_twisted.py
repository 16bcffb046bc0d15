"""A model on twisted bilayers: folding, and stackings that are the same crystal give the same energies."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import graphene
from model_files import untrained
from numpy.typing import NDArray

from hamnet.core.bloch import BlochSum
from hamnet.core.blocks import BlockMatrix
from hamnet.predict.predictor import Predictor
from hamnet_preprocess.twist import Twist, stacked_bilayer, twisted_bilayer

EXACT = 1e-9
"""eV, float64 network: orbital energies up to 30 eV times rounding of sums over 140 to 280 orbitals."""
SHEET = graphene(a=2.46, vacuum=5.0)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    """Random weights: no symmetry of these energies has been learnt."""
    return Predictor.load(untrained(tmp_path_factory.mktemp("model")))


def levels(matrix: BlockMatrix, kpoint: tuple[float, float, float]) -> NDArray[np.float64]:
    """Eigenvalues of one matrix at one k-point; turning the crystal turns orbitals orthogonally and leaves them."""
    return np.linalg.eigvalsh(BlochSum(matrix).dense(np.array(kpoint)))


def energies(model: Predictor, atoms: Atoms, *kpoints: tuple[float, float, float]) -> NDArray[np.float64]:
    """Sorted eigenvalues of H, then of S, at all the k-points together."""
    found = model.calculation(atoms)
    assert found.hamiltonian is not None
    matrices = (found.hamiltonian, found.overlap)
    return np.concatenate([np.sort(np.concatenate([levels(m, k) for k in kpoints])) for m in matrices])


def test_a_doubled_cell_has_the_folded_energies(model: Predictor) -> None:
    atoms = twisted_bilayer(SHEET, Twist(1))
    folded = energies(model, atoms, (0.1, 0.3, 0.0), (0.6, 0.3, 0.0))
    np.testing.assert_allclose(energies(model, atoms * (2, 1, 1), (0.2, 0.3, 0.0)), folded, atol=EXACT)


def test_sixty_degrees_about_a_hexagon_change_nothing(model: Predictor) -> None:
    """38.21 degrees about the middle of hexagons is -21.79 and 60: the mirror image of 21.79 degrees."""
    middle = (1 / 3, 2 / 3)
    sheet = SHEET.copy()
    # where the middle of a hexagon is, by search: it has six atoms around it
    ring = [f for f in (middle, middle[::-1], (2 / 3, 2 / 3), (1 / 3, 1 / 3)) if _neighbours(sheet, f) == 6][0]
    few, many = (twisted_bilayer(sheet, Twist(1, r), centre=ring) for r in (1, 3))
    assert len(few) == len(many) == 28
    gamma = (0.0, 0.0, 0.0)
    np.testing.assert_allclose(energies(model, many, gamma), energies(model, few, gamma), atol=EXACT)
    about_atoms = [energies(model, twisted_bilayer(sheet, Twist(1, r)), gamma) for r in (1, 3)]
    # about an atom they are two crystals: the comparison above can fail
    assert np.abs(about_atoms[0] - about_atoms[1]).max() > 1e-6


def test_a_layer_turned_by_sixty_degrees_about_an_atom_changes_aa_into_ab(model: Predictor) -> None:
    aa = stacked_bilayer(SHEET)
    ab = [stacked_bilayer(SHEET, shift) for shift in ((1 / 3, 2 / 3), (2 / 3, 1 / 3))]
    turned = aa.copy()
    upper = turned.get_tags() == 2
    centre, half = turned.positions[upper][0], np.sqrt(0.75)
    turn = np.array([[0.5, half, 0], [-half, 0.5, 0], [0, 0, 1]])
    turned.positions[upper] = (turned.positions[upper] - centre) @ turn + centre
    k = (0.2, 0.1, 0.0)
    new = energies(model, turned, k)
    # one of the two directions of AB; the other is its image under inversion, whose energies at k and -k are the same
    for stacking in ab:
        np.testing.assert_allclose(new, energies(model, stacking, k), atol=EXACT)
    assert np.abs(new - energies(model, aa, k)).max() > 1e-3


def test_shifts_of_a_layer_by_a_lattice_vector_change_nothing(model: Predictor) -> None:
    k = (0.2, 0.1, 0.0)
    one, other = (energies(model, stacked_bilayer(SHEET, shift), k) for shift in ((0.2, 0.4), (1.2, -0.6)))
    np.testing.assert_allclose(one, other, atol=EXACT)


def _neighbours(sheet: Atoms, fraction: tuple[float, float]) -> int:
    """Atoms of the sheet within 1.6 A of a place in its plane."""
    place = np.asarray(fraction) @ sheet.cell.array[:2, :2]
    big = sheet.repeat((7, 7, 1))
    offset = 3 * (sheet.cell.array[0, :2] + sheet.cell.array[1, :2])
    return int((np.linalg.norm(big.positions[:, :2] - offset - place, axis=1) < 1.6).sum())
