"""ABACUS reader on files of our own in its documented format."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from abacus_files import THRESHOLD, write_abacus
from foreign_cases import band_difference, openmx_case

from hamnet.core.basis import Shell, Species
from hamnet.core.conventions import ABACUS, OPENMX
from hamnet.core.units import BOHR
from hamnet.errors import BasisError, ConvergenceError, FormatError, PhysicsError
from hamnet.testing import ReaderContract
from hamnet_preprocess.abacus import AbacusReader
from hamnet_preprocess.abacus_stru import read_stru, shells_of_name
from hamnet_preprocess.deeph_write import reorder_atoms


class TestContract(ReaderContract):
    reader = AbacusReader()
    case = "hbn"

    @pytest.fixture(scope="class")
    def source(self, tmp_path_factory: pytest.TempPathFactory) -> Path:
        folder = tmp_path_factory.mktemp("abacus")
        write_abacus(openmx_case(self.case), folder)
        return folder / "OUT.ABACUS"


class TestContractSpinor(TestContract):
    case = "bismuthene_soc"


@pytest.mark.parametrize("name", ["graphene", "hbn", "bismuthene_soc", "o2_spin"])
def test_bands_equal_the_original(name: str, tmp_path: Path) -> None:
    case = openmx_case(name)
    write_abacus(case, tmp_path)
    back = AbacusReader().read(tmp_path / "OUT.ABACUS")
    assert back.spin is case.spin
    assert band_difference(back, case) < 1e-9
    assert back.converged
    assert back.fermi_energy == pytest.approx(case.fermi_energy, abs=1e-11)
    np.testing.assert_allclose(back.structure.positions, case.structure.positions, atol=1e-12)
    assert back.basis.species[0].radius == pytest.approx(7 * BOHR)


def test_elements_left_out_for_being_small_do_little(tmp_path: Path) -> None:
    write_abacus(openmx_case("hbn"), tmp_path, THRESHOLD)
    # 1e-10 of S at 30 eV and 1e-9 eV of H, some thousand of them, times the condition of S
    assert band_difference(AbacusReader().read(tmp_path / "OUT.ABACUS"), openmx_case("hbn")) < 1e-5


@pytest.mark.parametrize(
    ("l", "order", "minus"),
    [(1, [1, 2, 0], [0, 1]), (2, [0, 3, 4, 1, 2], [3, 4]), (3, [0, 1, 2, 3, 4, 5, 6], [1, 2, 5, 6])],
)
def test_order_and_signs_are_those_of_deephs_converter(l: int, order: list[int], minus: list[int]) -> None:
    """DeepH-pack takes ABACUS's orbitals to OpenMX's by this order and these signs; both then become ours."""
    species = Species("X", 1, 0.0, (Shell(l),))
    theirs = np.random.default_rng(l).standard_normal(2 * l + 1)
    openmx = theirs[order]
    openmx[minus] *= -1
    (a, sign_a), (o, sign_o) = ABACUS.species(species), OPENMX.species(species)
    np.testing.assert_array_equal(theirs[a] * sign_a, openmx[o] * sign_o)


def test_signs_and_images_are_abacuss_own() -> None:
    """S between an s and p, d orbitals as ABACUS printed it follows the direction between the atoms.

    Silicon (deepmodeling/abacus-develop, examples/matrix_hs/out_hs2_multik): image (-1, 1, 2), first row of atom 1,
    columns of atom 0: its first p shell and its d shell.
    """
    lattice = np.array([[0.5, 0.5, 0.0], [0.5, 0.0, 0.5], [0.0, 0.5, 0.5]])
    x, y, z = np.array([-1, 1, 2]) @ lattice - 0.25  # r_0 + R - r_1
    p = np.array([-2.95926902e-04, -5.91853803e-05, 5.91853803e-05])
    d = np.array([9.57738101e-05, 3.45593969e-05, -3.45593969e-05, 0.0, -6.91187938e-06])
    expected_p = -np.array([y, z, x])  # an s and a p lobe that points to it from beyond: negative
    r2 = x * x + y * y + z * z
    expected_d = np.array([x * y, y * z, (3 * z * z - r2) / np.sqrt(12), x * z, (x * x - y * y) / 2])
    for printed, expected, l in ((p, expected_p, 1), (d, expected_d, 2)):
        order, sign = ABACUS.species(Species("Si", 14, 4.0, (Shell(l),)))
        ours = printed[order] * sign
        # nine digits are printed
        np.testing.assert_allclose(ours / np.linalg.norm(ours), expected / np.linalg.norm(expected), atol=1e-7)


def test_orbital_files_tell_their_shells(tmp_path: Path) -> None:
    assert shells_of_name("dir/C_gga_8au_100Ry_2s2p1d.orb") == ((0, 0, 1, 1, 2), 8.0)
    assert shells_of_name("Fe_gga_9au_100Ry_4s2p2d1f.orb") == ((0, 0, 0, 0, 1, 1, 2, 2, 3), 9.0)
    assert shells_of_name("carbon.orb") == ((), None)
    write_abacus(openmx_case("graphene"), tmp_path)
    text = (tmp_path / "STRU").read_text()
    (tmp_path / "STRU").write_text(text.replace("C_gga_7au_100Ry_2s2p1d.orb", "mine.orb"))
    if "mine.orb" not in (tmp_path / "STRU").read_text():
        (tmp_path / "STRU").write_text(text.replace("C_gga_7au_100Ry_2s1p.orb", "mine.orb"))
    with pytest.raises(BasisError, match=r"'mine\.orb' does not tell its shells"):
        read_stru(tmp_path / "STRU")
    ls = openmx_case("graphene").basis.species[0].shell_ls
    counts = "\n".join(f"Number of {'SPD'[l]}orbital-->    {ls.count(l)}" for l in sorted(set(ls)))
    (tmp_path / "mine.orb").write_text(f"Element C\nRadius Cutoff(a.u.)  7\n{counts}\n")
    assert read_stru(tmp_path / "STRU")[1].species[0].shell_ls == ls


def test_valence_electrons_come_from_the_pseudopotential(tmp_path: Path) -> None:
    write_abacus(openmx_case("graphene"), tmp_path)
    assert read_stru(tmp_path / "STRU")[1].species[0].valence_electrons == 0
    (tmp_path / "C.upf").write_text('<PP_HEADER z_valence="4.000000D+00"/>')
    assert read_stru(tmp_path / "STRU")[1].species[0].valence_electrons == 4


def test_overlap_only(tmp_path: Path) -> None:
    case = openmx_case("graphene")
    write_abacus(case, tmp_path)
    out = tmp_path / "OUT.ABACUS"
    (out / "data-HR-sparse_SPIN0.csr").unlink()
    (out / "data-SR-sparse_SPIN0.csr").replace(out / "SR.csr")
    assert AbacusReader().find(tmp_path) == [out]
    assert AbacusReader().read(out).hamiltonian is None


def test_images_counted_the_other_way_are_refused(tmp_path: Path) -> None:
    write_abacus(openmx_case("hbn"), tmp_path)
    for path in (tmp_path / "OUT.ABACUS").glob("*.csr"):
        lines = path.read_text().splitlines()
        flipped = [_flipped(line) if len(line.split()) == 4 else line for line in lines]
        path.write_text("\n".join(flipped) + "\n")
    with pytest.raises(PhysicsError, match="if R were -R"):
        AbacusReader().read(tmp_path / "OUT.ABACUS")


def _flipped(line: str) -> str:
    words = line.split()
    return line if ":" in line else " ".join([*(str(-int(w)) for w in words[:3]), words[3]])


def test_unconverged_is_refused_unless_asked_for(tmp_path: Path) -> None:
    write_abacus(openmx_case("graphene"), tmp_path)
    out = tmp_path / "OUT.ABACUS"
    (out / "running_scf.log").write_text("!! convergence has not been achieved\n")
    with pytest.raises(ConvergenceError, match="did not converge"):
        AbacusReader().read(out)
    assert not AbacusReader().read(out, allow_unconverged=True).converged


def test_bad_input_is_told(tmp_path: Path) -> None:
    write_abacus(openmx_case("graphene"), tmp_path)
    out = tmp_path / "OUT.ABACUS"
    whole = (out / "data-HR-sparse_SPIN0.csr").read_text()
    (out / "data-HR-sparse_SPIN0.csr").write_text(whole[: len(whole) // 2])
    with pytest.raises(FormatError, match="cut short or damaged"):
        AbacusReader().read(out)
    (out / "data-HR-sparse_SPIN0.csr").write_text("nothing\n")
    with pytest.raises(FormatError, match="no line 'Matrix Dimension"):
        AbacusReader().read(out)
    (tmp_path / "STRU").unlink()
    with pytest.raises(FormatError, match="no STRU here"):
        AbacusReader().read(out)
    (out / "data-SR-sparse_SPIN0.csr").replace(out / "srs1_nao.csr")
    with pytest.raises(FormatError, match=r"ABACUS 3\.9"):
        AbacusReader().read(out)


def test_matrices_of_another_basis_are_refused(tmp_path: Path) -> None:
    write_abacus(openmx_case("graphene"), tmp_path / "a")
    write_abacus(openmx_case("hbn"), tmp_path / "b")
    (tmp_path / "b" / "STRU").replace(tmp_path / "a" / "STRU")
    with pytest.raises(FormatError, match="but STRU's orbitals are"):
        AbacusReader().read(tmp_path / "a" / "OUT.ABACUS")


def test_atoms_may_be_cartesian(tmp_path: Path) -> None:
    case = reorder_atoms(openmx_case("hbn"), np.array([1, 0]))
    write_abacus(case, tmp_path)
    lines = (tmp_path / "STRU").read_text().splitlines()
    at = lines.index("Direct")
    lines[at] = "Cartesian_angstrom"
    rows = iter(" ".join(f"{x:.17g}" for x in row) for row in case.structure.positions)
    lines[at + 1 :] = [next(rows) if len(line.split()) > 3 else line for line in lines[at + 1 :]]
    (tmp_path / "STRU").write_text("\n".join(lines))
    np.testing.assert_allclose(read_stru(tmp_path / "STRU")[0].positions, case.structure.positions, atol=1e-12)
