"""H0 of PySCF molecules: the Fock matrix of superposed atoms, in labels, files and predictions alike."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from pyscf import dft, gto

from hamnet.core.basis import OrbitalBasis
from hamnet.core.spin import Spin
from hamnet.core.structure import AtomicStructure
from hamnet.core.units import HARTREE
from hamnet.errors import BasisError, ConfigError, PhysicsError
from hamnet_preprocess.label import LabelSettings
from hamnet_preprocess.label_pyscf import PySCFLabelEngine
from hamnet_preprocess.pyscf import PySCFReader
from hamnet_preprocess.pyscf_basis import basis_of, dense_to_blocks, structure_of
from hamnet_preprocess.pyscf_molecule import molecule
from hamnet_preprocess.pyscf_reference import minao_fock, reference_blocks, reference_from_basis

OH = [[0.0, 0.0, 0.0], [0.0, 0.1, 0.97]]


def test_it_is_the_fock_matrix_that_an_scf_starts_from() -> None:
    mol = gto.M(atom="O 0 0 0; H 0 0.1 0.97; H 0.9 0 -0.2", basis="def2-svp", verbose=0)
    mf = dft.RKS(mol, xc="pbe")
    mf.grids.level = 1
    expected = mf.get_fock(dm=mf.get_init_guess(key="minao"))
    # the same code with the same numbers: rounding
    np.testing.assert_allclose(minao_fock(mol, "pbe", 1), expected, atol=1e-12)


@pytest.mark.parametrize("spin", list(Spin))
def test_a_molecule_of_the_basis_alone_has_the_same_h0(spin: Spin) -> None:
    mol = gto.M(atom="O 0 0 0; H 0 0.1 0.97; H 0.9 0 -0.2", basis="6-31g*", verbose=0)
    basis, species = basis_of(mol)
    structure = structure_of(mol, species, basis)
    expected = reference_blocks(minao_fock(mol, "pbe", 1), basis, species, spin)
    found = reference_from_basis(structure, basis, spin, "pbe (libxc 7.0.0)", "level 1")
    # contractions are normalised once more: 1e-9 of 500 eV
    np.testing.assert_allclose(found.values, expected.values, atol=1e-6)
    assert found.hermitian_residual()[0] == 0.0
    assert found.spin is spin


def test_fitted_labels_have_a_fitted_h0() -> None:
    """The fitting basis goes by the orbitals' name: built from numbers alone it was another, 11 uEh off."""
    mol = gto.M(atom="O 0 0 0; H 0 0.1 0.97; H 0.9 0 -0.2", basis="def2-svp", verbose=0)
    basis, species = basis_of(mol)
    expected = reference_blocks(minao_fock(mol, "pbe", 1, density_fit=True), basis, species, Spin.NONE)
    grid = "level 1, density fit default"
    found = reference_from_basis(structure_of(mol, species, basis), basis, Spin.NONE, "pbe", grid)
    np.testing.assert_allclose(found.values, expected.values, atol=1e-6)  # as without a fit: 1e-9 of 500 eV


def test_labels_keep_it_and_the_reader_finds_it(tmp_path: Path) -> None:
    settings = LabelSettings("sto-3g", "hf", spin=1, reference="minao")
    target = tmp_path / "oh.chk"
    PySCFLabelEngine().label(Atoms("OH", OH), target, settings)
    found = PySCFReader().read(target)
    assert found.reference_hamiltonian is not None
    assert found.hamiltonian is not None
    assert found.reference_hamiltonian.spin is Spin.COLLINEAR
    again = reference_from_basis(
        found.structure, found.basis, Spin.COLLINEAR, found.provenance.functional, found.provenance.grid
    )
    np.testing.assert_allclose(found.reference_hamiltonian.values, again.values, atol=1e-6)
    # H0 is much nearer to H than nothing is, and it is no copy of it
    left = np.abs(found.hamiltonian.values - found.reference_hamiltonian.values).mean()
    assert 1e-3 * HARTREE < left < 0.5 * np.abs(found.hamiltonian.values).mean()


def test_labels_without_it_keep_their_settings() -> None:
    atoms = Atoms("OH", OH)
    assert "reference" not in LabelSettings().text(atoms)
    assert LabelSettings().text(atoms) != LabelSettings(reference="minao").text(atoms)


def test_what_has_no_such_h0_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected minao"):
        LabelSettings(reference="huckel")
    crystal = Atoms("H", [[0, 0, 0]], cell=[4, 4, 4], pbc=True)
    with pytest.raises(ConfigError, match="for molecules"):
        PySCFLabelEngine().label(crystal, tmp_path / "x.chk", LabelSettings(pseudo="gth-pbe", reference="minao"))
    mol = gto.M(atom="O 0 0 0; H 0 0.1 0.97; H 0.9 0 -0.2", basis="sto-3g", verbose=0)
    basis, species = basis_of(mol)
    structure = structure_of(mol, species, basis)
    with pytest.raises(PhysicsError, match="give H0 from a file"):
        reference_from_basis(structure, basis, Spin.NONE, "pbe", "level 4, density fit weigend")
    nameless = OrbitalBasis(tuple(replace(kind, label=f"{kind.label}-mine") for kind in basis.species))
    with pytest.raises(PhysicsError, match="default density fit, which goes by the name of the basis"):
        reference_from_basis(structure, nameless, Spin.NONE, "pbe", "level 4, density fit default")
    periodic = AtomicStructure(
        structure.atomic_numbers, species, structure.positions, 9 * np.eye(3), np.ones(3, dtype=bool)
    )
    with pytest.raises(PhysicsError, match="periodic"):
        reference_from_basis(periodic, basis, Spin.NONE, "pbe", "level 4")


def test_a_core_potential_is_refused() -> None:
    mol = gto.M(atom="I 0 0 0; H 0 0 1.6", basis="def2-svp", ecp="def2-svp", verbose=0)
    basis, species = basis_of(mol)
    with pytest.raises(BasisError, match="core potential"):
        molecule(structure_of(mol, species, basis), basis)


def test_blocks_are_those_of_the_dense_matrix() -> None:
    mol = gto.M(atom="H 0 0 0; H 0 0 0.8", basis="6-31g", verbose=0)
    basis, species = basis_of(mol)
    fock = minao_fock(mol, "hf", 1)
    expected = dense_to_blocks(fock, basis, species).values * HARTREE
    np.testing.assert_allclose(reference_blocks(fock, basis, species, Spin.NONE).values, expected, atol=1e-10)
