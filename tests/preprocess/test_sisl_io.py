"""SIESTA's files through sisl: what sisl itself computes from them, round trips, the reader contract."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from foreign_cases import KPOINTS, band_difference, openmx_case

from hamnet.core.calculation import Calculation
from hamnet.core.spin import Spin
from hamnet.errors import BasisError, ConfigError, FormatError, PhysicsError
from hamnet.testing import ReaderContract, assert_same_matrix, eigenvalues_at
from hamnet_preprocess.sisl_io import SislReader, to_sisl, write_sisl

sisl = pytest.importorskip("sisl", reason="SIESTA files need sisl: pip install hamnet[sisl]")
pytestmark = pytest.mark.filterwarnings("ignore")  # sisl warns of itself

CASES = ("graphene", "hbn", "bismuthene_soc", "o2_spin", "water")


class TestContract(ReaderContract):
    reader = SislReader()
    case = "hbn"

    @pytest.fixture(scope="class")
    def source(self, tmp_path_factory: pytest.TempPathFactory) -> Path:
        folder = tmp_path_factory.mktemp("run")
        write_sisl(openmx_case(self.case), folder / "run.HSX")
        return folder / "run.HSX"


class TestContractSpinor(TestContract):
    case = "bismuthene_soc"


@pytest.mark.parametrize("name", CASES)
def test_sisl_computes_our_bands(name: str) -> None:
    """sisl's own eigenvalues at k: layout of spins and images told by another program, not by our reader."""
    case = openmx_case(name)
    h = to_sisl(case)
    for k in KPOINTS:
        channels = (0, 1) if case.spin is Spin.COLLINEAR else (0,)
        options = [{"spin": s} for s in channels] if case.spin is Spin.COLLINEAR else [{}]
        theirs = np.stack([h.eigh(k, **option) for option in options])
        assert np.abs(theirs - eigenvalues_at(case, k) + (case.fermi_energy or 0.0)).max() < 1e-9


@pytest.mark.parametrize("suffix", [".HSX", ".TSHS", ".nc"])
@pytest.mark.parametrize("name", CASES)
def test_round_trip(name: str, suffix: str, tmp_path: Path) -> None:
    if suffix == ".nc":
        pytest.importorskip("netCDF4", reason="netcdf files need netCDF4: pip install hamnet[sisl]")
    case = openmx_case(name)
    path = tmp_path / f"run{suffix}"
    write_sisl(case, path)
    back = SislReader().read(path)
    h, s = case.hamiltonian, case.overlap
    assert h is not None
    assert back.hamiltonian is not None
    # units go through SIESTA's Rydberg and bohr: a few roundings
    assert_same_matrix(back.overlap, s, 1e-12)
    relative = back.hamiltonian.with_values(back.hamiltonian.values)
    shift = case.fermi_energy or 0.0
    for mine, theirs, overlap in zip(relative.groups(), h.groups(), s.groups(), strict=True):
        expected = theirs.blocks - shift * _spin_identity(overlap.blocks, case.spin)
        assert np.abs(mine.blocks - expected).max() < 1e-10  # eV; 30 eV x 1e-16 x a few, and Ry <-> eV
    assert band_difference(back, case) < 1e-9
    np.testing.assert_allclose(back.structure.positions, case.structure.positions, atol=1e-12)
    assert [s.shell_ls for s in back.basis.species] == [s.shell_ls for s in case.basis.species]


def _spin_identity(overlap: np.ndarray, spin: Spin) -> np.ndarray:
    if spin is Spin.NONE:
        return overlap
    if spin is Spin.COLLINEAR:
        return np.stack((overlap, overlap), axis=1)
    return np.kron(np.eye(2)[None], overlap)


def test_find_takes_one_file_of_a_run(tmp_path: Path) -> None:
    write_sisl(openmx_case("graphene"), tmp_path / "run.TSHS")
    assert SislReader().find(tmp_path) == [tmp_path / "run.TSHS"]
    write_sisl(openmx_case("graphene"), tmp_path / "run.HSX")
    assert SislReader().find(tmp_path) == [tmp_path / "run.HSX"]
    assert band_difference(SislReader().read(tmp_path), openmx_case("graphene")) < 1e-9


def test_tshs_without_orbital_names_says_what_is_missing(tmp_path: Path) -> None:
    write_sisl(openmx_case("graphene"), tmp_path / "run.TSHS")
    (tmp_path / "run.ORB_INDX").unlink()
    with pytest.raises(BasisError, match=r"does not name its orbitals.*run\.ORB_INDX"):
        SislReader().read(tmp_path / "run.TSHS")


def test_companion_of_another_run_is_refused(tmp_path: Path) -> None:
    write_sisl(openmx_case("graphene"), tmp_path / "run.TSHS")
    write_sisl(openmx_case("hbn"), tmp_path / "other.TSHS")
    (tmp_path / "other.ORB_INDX").replace(tmp_path / "run.ORB_INDX")
    with pytest.raises(BasisError, match="different runs"):
        SislReader().read(tmp_path / "run.TSHS")


def test_damaged_file_is_told(tmp_path: Path) -> None:
    write_sisl(openmx_case("graphene"), tmp_path / "run.HSX")
    whole = (tmp_path / "run.HSX").read_bytes()
    (tmp_path / "run.HSX").write_bytes(whole[: len(whole) // 3])
    with pytest.raises(FormatError, match=r"run\.HSX"):
        SislReader().read(tmp_path / "run.HSX")


def test_refusals(tmp_path: Path) -> None:
    case = openmx_case("graphene")
    with pytest.raises(ConfigError, match=r"end in \.HSX"):
        write_sisl(case, tmp_path / "x.dat")
    with pytest.raises(PhysicsError, match="no Hamiltonian"):
        write_sisl(Calculation(case.structure, case.basis, case.overlap), tmp_path / "x.HSX")


@pytest.mark.parametrize("kind", ["non-colinear", "spin-orbit"])
def test_sisls_own_spinors_are_understood(kind: str, tmp_path: Path) -> None:
    """A chain made by sisl, with p orbitals: its eigenvalues are those of the file as we read it."""
    orbitals = [sisl.AtomicOrbital(n=2, l=1, m=m, zeta=1, R=-1.0) for m in (-1, 0, 1)]
    lattice = sisl.Lattice([2.0, 15.0, 15.0], nsc=[3, 1, 1])
    geometry = sisl.Geometry([[0.0, 0.0, 0.0]], sisl.Atom(6, orbitals, tag="C"), lattice=lattice)
    h = sisl.Hamiltonian(geometry, spin=sisl.Spin(kind), orthogonal=False, dtype=np.float64)
    own = [1.0, 2.0, 0.3, 0.1] if kind == "non-colinear" else [1.0, 2.0, 0.3, 0.1, 0.0, 0.0, 0.3, -0.1]
    hop = [-0.5, -0.4, 0.05, 0.02] if kind == "non-colinear" else [-0.5, -0.4, 0.05, 0.02, 0.03, 0.04, 0.06, -0.01]
    back = [-0.5, -0.4, 0.05, 0.02] if kind == "non-colinear" else [-0.5, -0.4, 0.06, 0.01, -0.03, -0.04, 0.05, -0.02]
    for o in range(3):
        h[o, o] = [*own, 1.0]
        h[o, o, (1, 0, 0)] = [*hop, 0.1]
        h[o, o, (-1, 0, 0)] = [*back, 0.1]
    with sisl.get_sile(tmp_path / "x.HSX", "w") as sile:
        sile.write_hamiltonian(h)
    read = SislReader().read(tmp_path / "x.HSX")
    assert read.spin is Spin.SPINOR
    k = np.array([0.17, 0.0, 0.0])
    assert np.abs(eigenvalues_at(read, k)[0] - h.eigh(k)).max() < 1e-10  # units through Rydberg
