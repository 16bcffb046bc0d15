"""PySCF molecules: eigenvalues, S from the basis, spin layouts, chkfiles, refusals."""

from pathlib import Path

import h5py
import numpy as np
import pytest
from numpy.testing import assert_allclose
from pyscf import dft, gto, scf
from scipy.linalg import eigh
from scipy.spatial.transform import Rotation

from hamnet.core.spin import Spin
from hamnet.core.structure import AtomicStructure
from hamnet.core.units import HARTREE
from hamnet.errors import BasisError, ConvergenceError, FormatError, PhysicsError
from hamnet.testing import ReaderContract
from hamnet_preprocess.label_pyscf import write_to
from hamnet_preprocess.pyscf import PySCFReader, from_mean_field
from hamnet_preprocess.pyscf_basis import molecule_calculation
from hamnet_preprocess.pyscf_overlap import overlap_from_basis

WATER = "O 0 0 0; H 0.2 0.757 0.587; H 0 -0.757 0.587"
NANO_HARTREE = 1e-9 * HARTREE


def dense(matrix):
    """Whole matrix of a molecule, (layers, n, n) or (1, 2n, 2n) with all up orbitals first."""
    n, at = matrix.n_orbitals, matrix.orbital_offsets
    layers = {Spin.NONE: 1, Spin.COLLINEAR: 2, Spin.SPINOR: 4}[matrix.spin]
    out = np.zeros((layers, n, n), dtype=matrix.values.dtype)
    for p, (i, j) in enumerate(zip(matrix.pairs.i, matrix.pairs.j, strict=True)):
        block = matrix.block(p)
        rows, columns = slice(at[i], at[i + 1]), slice(at[j], at[j + 1])
        if matrix.spin is Spin.SPINOR:
            a, b = block.shape[0] // 2, block.shape[1] // 2
            block = np.array([block[:a, :b], block[:a, b:], block[a:, :b], block[a:, b:]])
        out[:, rows, columns] = block
    if matrix.spin is Spin.SPINOR:
        return np.block([[out[0], out[1]], [out[2], out[3]]])[None]
    return out


def run(kind, mol, chkfile=None):
    mf = kind(mol)
    # The gradient is converged so far that mo_energy, which belongs to the cycle before, agrees to 1e-9 Ha.
    mf.conv_tol, mf.conv_tol_grad = 1e-13, 1e-9
    if chkfile is not None:
        write_to(mf, chkfile)
    mf.kernel()
    assert mf.converged
    return mf


@pytest.fixture(scope="module")
def water():
    return run(scf.RHF, gto.M(atom=WATER, basis="def2-tzvp", verbose=0))


@pytest.mark.parametrize(
    ("kind", "atoms", "unpaired", "spin"),
    [
        (scf.RHF, WATER, 0, Spin.NONE),
        (scf.UHF, "O 0 0 0; H 0 0.3 0.92", 1, Spin.COLLINEAR),
        (scf.GHF, "O 0 0 0; H 0 0.3 0.92", 1, Spin.SPINOR),
        (dft.RKS, WATER, 0, Spin.NONE),
    ],
)
def test_eigenvalues_are_pyscfs(kind, atoms, unpaired, spin, tmp_path):
    mf = run(kind, gto.M(atom=atoms, basis="def2-svp", spin=unpaired, verbose=0), tmp_path / "x.chk")
    live, stored = from_mean_field(mf), PySCFReader().read(tmp_path / "x.chk")
    for calculation in (live, stored):
        assert calculation.spin is spin
        s = dense(calculation.overlap)[0]
        s = np.kron(np.eye(2), s) if spin is Spin.SPINOR else s
        found = np.array([eigh(h, s, eigvals_only=True) for h in dense(calculation.hamiltonian)])
        expected = np.reshape(mf.mo_energy, found.shape) * HARTREE
        assert_allclose(found, expected, atol=NANO_HARTREE)  # the promise to users
        assert_allclose(calculation.eigenvalues[:, 0], expected, atol=NANO_HARTREE)
        assert calculation.n_electrons == pytest.approx(mf.mol.nelectron)
        assert calculation.hamiltonian.hermitian_residual()[0] == 0
        assert calculation.energy == pytest.approx(mf.e_tot * HARTREE, abs=NANO_HARTREE)
    # F = S C e C^T S of the last cycle and F of the final density differ by the SCF's residual gradient, 1e-9 Ha.
    assert_allclose(live.hamiltonian.values, stored.hamiltonian.values, atol=1e-7)
    assert "not stated" in stored.provenance.convergence


@pytest.mark.parametrize("basis", ["sto-3g", "cc-pvtz", "ano"])
def test_overlap_from_the_basis_is_pyscfs(basis):
    mol = gto.M(atom="C 0 0 0; O 0.3 0.2 1.1", basis=basis, verbose=0)  # s to f (g in ano), shells with nctr > 1
    calculation = from_overlap(mol)
    assert_allclose(
        overlap_from_basis(calculation.structure, calculation.basis).values, calculation.overlap.values, atol=1e-10
    )


def from_overlap(mol):
    from hamnet_preprocess.pyscf_basis import basis_of, dense_to_blocks, structure_of

    basis, species = basis_of(mol)

    class Parts:
        structure = structure_of(mol, species, basis)
        overlap = dense_to_blocks(mol.intor("int1e_ovlp"), basis, species)

    Parts.basis = basis
    return Parts


def test_rotated_overlap_is_the_rotated_matrix(water):
    rotation = pytest.importorskip("hamnet.core.rotation")
    calculation = from_mean_field(water)
    turn = Rotation.from_rotvec([0.3, -0.8, 0.5]).as_matrix()
    old = calculation.structure
    turned = AtomicStructure(old.atomic_numbers, old.species, old.positions @ turn.T)
    expected = rotation.rotate_blocks(calculation.overlap, turn)
    assert_allclose(overlap_from_basis(turned, calculation.basis).values, expected.values, atol=1e-10)


def test_ready_arrays_give_the_same_calculation(water):
    live = from_mean_field(water)
    made = molecule_calculation(
        live.structure.atomic_numbers,
        live.structure.positions,
        live.basis,
        water.get_fock(),
        water.get_ovlp(),
        energy=water.e_tot,
    )
    # Live blocks are symmetrised, which moves them by PySCF's own asymmetry.
    assert_allclose(made.hamiltonian.values, live.hamiltonian.values, atol=1e-9)
    assert made.energy == live.energy


def test_ghost_and_ecp_atoms():
    mol = gto.M(
        atom="I 0 0 0; H 0 0 1.6; GHOST-H 0 0 4",
        basis={"I": "def2-svp", "default": "def2-svp", "GHOST-H": gto.basis.load("def2-svp", "H")},
        ecp={"I": "def2-svp"},
        verbose=0,
    )
    parts = from_overlap(mol)
    assert parts.structure.atomic_numbers.tolist() == [53, 1, 0]
    assert [s.valence_electrons for s in parts.basis.species] == [25, 1, 0]
    assert parts.basis.species[0].label == "I:def2-svp/def2-svp"


def test_two_bases_on_one_element_are_two_species():
    mol = gto.M(atom="H1 0 0 0; H2 0 0 .7", basis={"H1": "sto-3g", "H2": "def2-svp"}, verbose=0)
    assert [s.label for s in from_overlap(mol).basis.species] == ["H:sto-3g", "H:def2-svp"]


def test_refusals():
    cartesian = gto.M(atom=WATER, basis="def2-svp", cart=True, verbose=0)
    with pytest.raises(BasisError, match="Cartesian"):
        from_overlap(cartesian)
    mol = gto.M(atom=WATER, basis="sto-3g", verbose=0)
    stopped = scf.RHF(mol)
    stopped.max_cycle = 1
    stopped.kernel()
    with pytest.raises(ConvergenceError, match="did not converge"):
        from_mean_field(stopped)
    assert not from_mean_field(stopped, allow_unconverged=True).converged
    with pytest.raises(ConvergenceError, match="kernel"):
        from_mean_field(scf.RHF(mol))
    with pytest.raises(BasisError, match="UHF"):
        from_mean_field(scf.ROHF(mol))
    with pytest.raises(BasisError, match="j-basis"):
        from_mean_field(mol.DHF())
    with pytest.raises(BasisError, match="j-basis"):
        from_mean_field(mol.X2C())
    silent = scf.GHF(mol)
    silent.with_soc = True
    with pytest.raises(PhysicsError, match="silently"):
        from_mean_field(silent)


def test_bad_files(tmp_path, water):
    text = tmp_path / "a.chk"
    text.write_text("not a chkfile")
    empty = tmp_path / "b.h5"
    with h5py.File(empty, "w") as file:
        file["other"] = 1
    reader = PySCFReader()
    assert reader.find(tmp_path) == [text]  # an .h5 of another kind is not PySCF's
    for path in (text, empty, tmp_path / "none.chk"):
        with pytest.raises(FormatError):
            reader.read(path)
    rohf = tmp_path / "rohf.chk"
    run(scf.ROHF, gto.M(atom="O 0 0 0; H 0 0 .97", basis="sto-3g", spin=1, verbose=0), rohf)
    with pytest.raises(BasisError, match="ROHF"):
        reader.read(rohf)
    with h5py.File(rohf, "a") as file:
        file["scf/mo_coeff"][...] *= 1.1
        file["scf/mo_occ"][...] = 2
    with pytest.raises(PhysicsError, match="orthonormal"):
        reader.read(rohf)


def test_text_in_a_chkfile_is_never_evaluated(tmp_path):
    import json

    path, mark = tmp_path / "x.chk", tmp_path / "mark"
    run(scf.RHF, gto.M(atom="He 0 0 0", basis="sto-3g", verbose=0), path)
    with h5py.File(path, "a") as file:
        entries = json.loads(file["mol"][()])
        entries["basis"] = f"open({str(mark)!r}, 'w')"
        del file["mol"]
        file["mol"] = json.dumps(entries)
    assert PySCFReader().read(path).basis.species[0].label.startswith("He:custom-")
    assert not Path(mark).exists()


class TestContract(ReaderContract):
    reader = PySCFReader()
    eigenvalue_tolerance = 1e-6  # eV; the rebuilt Fock matrix has PySCF's own eigenvalues up to rounding

    @pytest.fixture
    def source(self, tmp_path):
        path = tmp_path / "water.chk"
        run(scf.RHF, gto.M(atom=WATER, basis="sto-3g", verbose=0), path)
        return path


class TestPeriodicContract(ReaderContract):
    reader = PySCFReader()
    eigenvalue_tolerance = 1e-6  # eV; PySCF cuts its lattice sums at 1e-8

    @pytest.fixture
    def source(self):
        return Path(__file__).parents[1] / "golden" / "pyscf_h2_chain_7x1x1.chk"
