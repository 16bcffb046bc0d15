"""PySCF cells: real-space blocks from a k-mesh, right off the mesh or refused."""

import shutil
from itertools import product
from pathlib import Path

import h5py
import numpy as np
import pytest
from numpy.testing import assert_allclose

from hamnet.core.basis import OrbitalBasis, Shell, Species
from hamnet.core.bloch import BlochSum
from hamnet.core.pairs import neighbour_pairs
from hamnet.core.spin import Spin
from hamnet.core.structure import AtomicStructure
from hamnet.errors import PhysicsError
from hamnet_preprocess import pyscf_overlap
from hamnet_preprocess.pyscf import PySCFReader
from hamnet_preprocess.pyscf_basis import basis_of, orbital_order, structure_of
from hamnet_preprocess.pyscf_chkfile import GROUP
from hamnet_preprocess.pyscf_overlap import overlap_from_basis
from hamnet_preprocess.pyscf_periodic import bloch_eigenvalues, blocks_from_mesh, mesh_of

GOLDEN = Path(__file__).parents[1] / "golden" / "pyscf_h2_chain_7x1x1.chk"
"""Made by `hamnet label pyscf` with PBE, gth-szv, 7x1x1; H2 in a cell of 2 x 7 x 7 Angstrom."""


def mesh_points(mesh):
    return np.array(list(product(*(np.arange(m) / m for m in mesh))))


def test_golden_cell_agrees_on_and_off_the_mesh():
    calculation = PySCFReader().read(GOLDEN)  # refuses above 1e-4 eV off the mesh
    assert calculation.kmesh == (7, 1, 1)
    with h5py.File(GOLDEN) as file:
        off = file["hamnet/off_mesh_kpoints"][()]
        expected = file["hamnet/off_mesh_energies"][()] * 27.211386245988
    h, s = calculation.hamiltonian, calculation.overlap
    assert_allclose(bloch_eigenvalues(h, s, off), expected, atol=1e-5)  # 1e-4 is promised, 1e-6 found
    # On the mesh the transform is exact; S comes from our lattice sum, PySCF's is cut at its precision of 1e-8.
    assert_allclose(bloch_eigenvalues(h, s, calculation.kpoints), calculation.eigenvalues, atol=1e-6)
    assert (h.pairs.find(s.pairs) >= 0).all()
    assert calculation.n_electrons == pytest.approx(2)


def test_golden_cell_on_a_part_of_its_mesh_is_refused(tmp_path):
    path = tmp_path / "x.chk"
    path.write_bytes(GOLDEN.read_bytes())
    with h5py.File(path, "a") as file:
        file["hamnet/off_mesh_energies"][...] += 1e-5  # Hartree: 2.7e-4 eV
    with pytest.raises(PhysicsError, match="7x1x1 is too small.*needs about"):
        PySCFReader().read(path)


@pytest.mark.parametrize("mesh", [(2, 1, 1), (3, 2, 1), (4, 4, 1)])
def test_blocks_are_hermitian_and_exact_on_even_and_odd_meshes(mesh):
    rng = np.random.default_rng(7)
    basis = OrbitalBasis((Species("A", 1, 1.0, (Shell(0), Shell(1))), Species("B", 2, 2.0, (Shell(2),))))
    cell = np.array([[3.0, 0, 0], [1.2, 2.7, 0], [0, 0, 5]])
    structure = AtomicStructure([1, 2, 1], [0, 1, 0], rng.uniform(-6, 6, (3, 3)), cell, [True] * 3)
    points, n = mesh_points(mesh), 13
    h_k = rng.normal(size=(len(points), n, n)) + 1j * rng.normal(size=(len(points), n, n))
    h_k = h_k + h_k.conj().swapaxes(1, 2)
    opposite = [int(np.abs((points + k + 0.5) % 1 - 0.5).sum(axis=1).argmin()) for k in points]
    h_k = (h_k + h_k[opposite].conj()) / 2  # H(-k) = conj H(k)
    pairs = neighbour_pairs(structure, 2.0)
    blocks = blocks_from_mesh(h_k, points, structure, basis, Spin.NONE, pairs)
    assert blocks.hermitian_residual()[0] == 0
    unit = blocks_from_mesh(np.broadcast_to(np.eye(n), h_k.shape) + 0j, points, structure, basis, Spin.NONE, pairs)
    found = bloch_eigenvalues(blocks, unit, points)[0]
    assert_allclose(found, np.linalg.eigvalsh(h_k), atol=1e-11)  # rounding of sums over the mesh


def test_overlap_of_a_supercell_folds():
    """S(k = 0) of a doubled cell has the eigenvalues of S at k = 0 and 1/2 of the single one."""
    kind = Species("H", 1, 1.0, (Shell(0, None, (0.5, 1.5), (0.6, 0.5)), Shell(1, None, (0.8,), (1.0,))))
    basis = OrbitalBasis((kind,))
    single = AtomicStructure([1], [0], [[0.1, 0, 0]], np.diag([1.5, 4, 4]), [True, False, False])
    double = AtomicStructure([1, 1], [0, 0], [[0.1, 0, 0], [1.6, 0, 0]], np.diag([3.0, 4, 4]), [True, False, False])

    def eigenvalues(structure, kpoint):
        s = overlap_from_basis(structure, basis)
        one = overlap_from_basis(structure, basis, neighbour_pairs(structure, 0.2))
        identity = one.with_values(np.tile(np.eye(4).ravel(), structure.n_atoms))
        return bloch_eigenvalues(s, identity, np.array([[kpoint, 0, 0]]))[0, 0]

    folded = np.sort(np.concatenate((eigenvalues(single, 0), eigenvalues(single, 0.5))))
    assert_allclose(eigenvalues(double, 0), folded, atol=1e-8)  # pairs below 1e-10 are dropped


@pytest.mark.parametrize("shift", [0.1, 0.25])
def test_shifted_or_incomplete_meshes_are_refused(shift):
    points = mesh_points((2, 3, 1))
    assert mesh_of(points) == (2, 3, 1)
    assert mesh_of(points - 1.0) == (2, 3, 1)
    with pytest.raises(PhysicsError, match="Gamma-centred"):
        mesh_of(points + [shift, 0, 0])
    with pytest.raises(PhysicsError, match="Gamma-centred"):
        mesh_of(points[:-1])


def test_a_plain_chkfile_is_read_as_far_as_the_mesh_check(tmp_path):
    plain = tmp_path / "plain.chk"
    shutil.copy(GOLDEN, plain)
    with h5py.File(plain, "r+") as file:
        del file[GROUP]
    with pytest.raises(PhysicsError, match="no eigenvalues off the mesh are stored.*it needs about 9x1x1"):
        PySCFReader().read(plain)


def test_large_cells_take_integrals_atom_by_atom(monkeypatch):
    """The two ways to the integrals give the same numbers, and S(k) is PySCF's own lattice sum to 1e-10."""
    from pyscf.pbc import gto

    atoms = [("C", (0, 0, 0)), ("H", (0.3, 1.1, 0)), ("C", (1.5, 0.2, 0.4))]
    cell = gto.M(
        atom=atoms, a=np.diag([4.0, 5.0, 6.0]), basis="gth-dzvp", pseudo="gth-pbe", spin=1, precision=1e-14, verbose=0
    )
    basis, species = basis_of(cell)
    structure = structure_of(cell, species, basis)
    dense = overlap_from_basis(structure, basis)
    monkeypatch.setattr(pyscf_overlap, "LARGEST_DENSE", 0)
    rows = overlap_from_basis(structure, basis)
    assert np.array_equal(rows.pairs.cell_shift, dense.pairs.cell_shift)
    assert_allclose(rows.values, dense.values, atol=1e-15)  # the same integrals, in another order
    kpoint, order = np.array([0.3, 0.1, -0.2]), orbital_order(basis, species)
    expected = cell.pbc_intor("int1e_ovlp", kpts=cell.get_abs_kpts(kpoint[None]))[0]
    assert_allclose(BlochSum(rows).dense(kpoint), expected[np.ix_(order, order)], atol=1e-10)
