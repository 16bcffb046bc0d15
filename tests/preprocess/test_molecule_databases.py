"""Readers of the molecular benchmarks, on files of their schemas made with PySCF."""

from __future__ import annotations

import json
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from molecule_databases import (
    Molecule,
    calculated,
    write_nabladft,
    write_qh9,
    write_qh9_dynamic,
    write_schnorb,
)
from typer.testing import CliRunner

from hamnet.cli import app
from hamnet.core.basis import OrbitalBasis
from hamnet.core.calculation import Calculation
from hamnet.core.conventions import CONVENTIONS
from hamnet.core.units import BOHR, HARTREE
from hamnet.data.store import Store
from hamnet.errors import BasisError, ConvergenceError, FormatError, HamnetError, PhysicsError
from hamnet.testing import ReaderContract
from hamnet_preprocess.fock_check import check_database
from hamnet_preprocess.nabladft import NablaDFTReader
from hamnet_preprocess.pyscf_basis import basis_of, dense_to_blocks
from hamnet_preprocess.qh9 import QH9Reader
from hamnet_preprocess.schnorb import SchNOrbReader
from hamnet_preprocess.sources import open_source

NAMES = ("water", "hydrogen", "water")
FLOAT32 = 1e-6 * HARTREE
"""Half a step of float32 at the largest number of these H, 20 Hartree."""
PRINTED = 0.51e-6 * HARTREE + FLOAT32
"""Half of the last of six decimals besides."""


@pytest.fixture(scope="module")
def molecules() -> list[Molecule]:
    """Three molecules, B3LYP5 with QH9's settings."""
    return [calculated(name) for name in NAMES]


@pytest.fixture(scope="module")
def databases(molecules: list[Molecule], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One database of each schema."""
    folder = tmp_path_factory.mktemp("databases")
    return {
        "qh9": write_qh9(folder / "QH9Stable.db", molecules),
        "qh9-dynamic": write_qh9_dynamic(folder / "QH9Dynamic_300k.db", molecules),
        "nabladft": write_nabladft(folder / "dataset_train_tiny.db", molecules),
        "schnorb": write_schnorb(folder / "schnorb_hamiltonian_water.db", molecules),
    }


def expected(molecule: Molecule) -> np.ndarray[Any, Any]:
    """Values of H (eV) through the reader of live PySCF objects."""
    basis, species = basis_of(molecule.mol)
    order = np.argsort([s.atomic_number for s in basis.species])
    inverse = np.argsort(order)
    sorted_basis = OrbitalBasis(tuple(basis.species[k] for k in order))
    return dense_to_blocks(molecule.fock, sorted_basis, inverse[species]).values * HARTREE


READERS = {
    "qh9": (QH9Reader(), 1e-11),
    "qh9-dynamic": (QH9Reader(), 1e-11),
    "nabladft": (NablaDFTReader(), FLOAT32),
    "schnorb": (SchNOrbReader(), PRINTED),
}


@pytest.mark.parametrize("schema", READERS)
def test_reads_what_pyscf_computed(schema: str, databases: dict[str, Path], molecules: list[Molecule]) -> None:
    """Order, signs and units of H and S, positions, energies and forces, for each schema."""
    reader, tolerance = READERS[schema]
    sources = reader.find(databases[schema])
    assert [source.name for source in sources] == ["0", "1", "2"]
    for source, molecule in zip(sources, molecules, strict=True):
        found = reader.read(source)
        assert found.hamiltonian is not None
        assert np.abs(found.hamiltonian.values - expected(molecule)).max() < tolerance
        # float32 bohr and ORCA's six decimals of an Angstrom
        assert np.abs(found.structure.positions - molecule.positions).max() < 1e-6
        assert found.n_electrons == molecule.numbers.sum()
        assert f"row {source.name} of 3" in found.provenance.source
        if schema != "qh9":
            assert found.energy == pytest.approx(molecule.energy * HARTREE, abs=1e-9)
        if schema in ("nabladft", "schnorb"):
            assert found.forces is not None
            assert np.abs(found.forces - molecule.forces * HARTREE / BOHR).max() < 1e-5


class _Rows(ReaderContract):
    schema = ""

    @pytest.fixture
    def source(self, databases: dict[str, Path]) -> Path:
        """The first row, water: s, p and d orbitals."""
        return databases[self.schema] / "0"

    def test_folder_and_file_give_all_rows(self, databases: dict[str, Path], tmp_path: Path) -> None:
        """A folder, a file and a row may be named."""
        copy = Path(shutil.copy(databases[self.schema], tmp_path / "some.db"))
        assert self.reader.find(tmp_path) == self.reader.find(copy) == [copy / str(k) for k in range(3)]

    def test_other_databases_are_left_alone(self, databases: dict[str, Path]) -> None:
        """A reader takes only files of its own schema."""
        for schema, path in databases.items():
            if not schema.startswith(self.reader.name):
                assert self.reader.find(path) == []

    def test_no_such_row(self, databases: dict[str, Path]) -> None:
        """The message says how many rows there are."""
        with pytest.raises(FormatError, match="3 rows"):
            self.reader.read(databases[self.schema] / "3")

    def test_opens_by_content(self, databases: dict[str, Path]) -> None:
        """inspect, check and bands take the file or one row."""
        path = databases[self.schema]
        opened = open_source(path)
        assert [name for name, _ in opened] == ["0", "1", "2"]
        (one,) = open_source(path / "1")
        assert one[1]().structure.n_atoms == 2


class TestQH9(_Rows):
    reader, schema = QH9Reader(), "qh9"


class TestQH9Dynamic(_Rows):
    reader, schema = QH9Reader(), "qh9-dynamic"


class TestNablaDFT(_Rows):
    reader, schema = NablaDFTReader(), "nabladft"


class TestSchNOrb(_Rows):
    reader, schema = SchNOrbReader(), "schnorb"


@pytest.mark.parametrize("wrong", sorted(set(CONVENTIONS) - {"psi4", "orca"}))
def test_overlap_names_the_order_that_fits(wrong: str, molecules: list[Molecule], tmp_path: Path) -> None:
    """A nablaDFT file in another order is refused; the message names it (hamnet's own and CP2K's are one)."""
    path = write_nabladft(tmp_path / "x.db", molecules[:1], CONVENTIONS[wrong])
    with pytest.raises(PhysicsError) as caught:
        NablaDFTReader().read(path / "0")
    names = ("hamnet", "cp2k") if wrong in ("hamnet", "cp2k") else (wrong,)
    assert any(f"the order of {name!r} with positions as they are" in str(caught.value) for name in names)


def test_overlap_names_the_unit_that_fits(molecules: list[Molecule], tmp_path: Path) -> None:
    """Angstrom where bohr is expected."""
    path = write_nabladft(tmp_path / "x.db", molecules[:1])
    with sqlite3.connect(path) as file:
        file.execute("UPDATE data SET R = ?", (molecules[0].positions.astype("<f4").tobytes(),))
    file.close()
    with pytest.raises(PhysicsError, match="in Angstrom, not in bohr"):
        NablaDFTReader().read(path / "0")


@pytest.mark.parametrize("wrong", ["psi4", "siesta", "abacus", "hamnet"])
def test_without_overlap_a_wrong_order_is_seen_in_h(wrong: str, molecules: list[Molecule], tmp_path: Path) -> None:
    """QH9 has no S: H must follow it all the same. (d alone in a wrong order needs the Fock build.)"""
    path = write_qh9(tmp_path / "x.db", molecules[:1], CONVENTIONS[wrong])
    with pytest.raises(PhysicsError, match="the best order is"):
        QH9Reader().read(path / "0")


def damage(path: Path, change: str, *values: Any) -> None:
    """Change row 1."""
    with sqlite3.connect(path) as file:
        file.execute(f"UPDATE data SET {change} WHERE rowid = 1", values)
    file.close()


def test_without_overlap_a_wrong_unit_is_no_matter_of_order(molecules: list[Molecule], tmp_path: Path) -> None:
    path = write_qh9(tmp_path / "x.db", [molecules[1], molecules[0]], CONVENTIONS["pyscf"])
    with sqlite3.connect(path) as file:
        (positions,) = file.execute("SELECT pos FROM data WHERE rowid = 1").fetchone()
    file.close()
    damage(path, "pos = ?", (np.frombuffer(positions, "<f8") / BOHR).tobytes())
    with pytest.raises(PhysicsError, match="no other order fits: the positions have another unit"):
        QH9Reader().read(path / "1")


BROKEN = {
    "short": ("Ham = ?", (b"\0" * 80,), FormatError, "80 bytes, expected"),
    "no bytes": ("Ham = NULL", (), FormatError, "NoneType"),
    "no element": ("Z = ?", (np.array([8, 99, 1], "<i4").tobytes(),), FormatError, r"\[99\]"),
    "an atom less": ("N = 2", (), FormatError, "expected"),
    "not finite": ("Ham = ?", (np.full((24, 24), np.nan).tobytes(),), FormatError, "not finite"),
    "not symmetric": ("Ham = ?", (np.arange(576.0).tobytes(),), PhysicsError, "transpose"),
    "open shell": ("Z = ?", (np.array([7, 1, 1], "<i4").tobytes(),), PhysicsError, "9 electrons"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_broken_rows(fault: str, molecules: list[Molecule], tmp_path: Path) -> None:
    """Each fault is one of ours, and names file and row."""
    change, values, kind, text = BROKEN[fault]
    path = write_qh9(tmp_path / "QH9Stable.db", [molecules[1], molecules[0]])
    damage(path, change, *values)
    with pytest.raises(kind, match=text) as caught:
        QH9Reader().read(path / "1")
    assert "QH9Stable.db" in str(caught.value)
    assert "1" in str(caught.value)
    assert isinstance(QH9Reader().read(path / "0"), Calculation)


def test_unconverged_frames(molecules: list[Molecule], tmp_path: Path) -> None:
    """Refused, or kept and marked."""
    path = write_qh9_dynamic(tmp_path / "x.db", molecules[:1], converged=False)
    with pytest.raises(ConvergenceError, match="row 0"):
        QH9Reader().read(path / "0")
    assert not QH9Reader().read(path / "0", allow_unconverged=True).converged


def test_other_basis(molecules: list[Molecule], tmp_path: Path) -> None:
    """A matrix of another size names the basis."""
    path = write_schnorb(tmp_path / "x.db", [molecules[1]])
    from ase.db import connect

    connect(path).update(1, data={"hamiltonian": np.eye(4), "overlap": np.eye(4)})
    with pytest.raises(BasisError, match="def2-svp"):
        SchNOrbReader().read(path / "0")


def test_base64_arrays_of_old_files(molecules: list[Molecule], tmp_path: Path) -> None:
    """Arrays as base64 text beside their shape and type."""
    import base64

    from ase.db import connect

    path = write_schnorb(tmp_path / "x.db", molecules[:1])
    before = SchNOrbReader().read(path / "0")
    database = connect(path)
    data = database.get(id=1).data
    coded: dict[str, Any] = {}
    for name, array in data.items():
        coded[name] = base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
        coded[f"_shape_{name}"], coded[f"_dtype_{name}"] = list(array.shape), str(array.dtype)
    database.update(1, data=coded)
    after = SchNOrbReader().read(path / "0")
    assert before.hamiltonian is not None
    assert after.hamiltonian is not None
    assert np.array_equal(after.hamiltonian.values, before.hamiltonian.values)
    database.update(1, data={"hamiltonian": "no base64"})
    with pytest.raises(FormatError, match="cannot be decoded"):
        SchNOrbReader().read(path / "0")


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    """Cut short after SQLite's first bytes: no rows, and reading one is an error of ours."""
    path = tmp_path / "x.db"
    path.write_bytes(b"SQLite format 3\0" + b"\1" * 50)
    for reader, _ in READERS.values():
        assert reader.find(path) == []
        with pytest.raises(HamnetError, match=r"x\.db"):
            reader.read(path / "0")


def test_a_fock_build_reproduces_h(databases: dict[str, Path]) -> None:
    """F[D(H)] = H to what the SCF's threshold leaves; the smallest molecule with d orbitals is chosen."""
    (check,) = check_database(databases["qh9"], "qh9", 1)
    assert check.source.endswith("QH9Stable.db/0")
    assert "b3lyp5" in check.method
    assert check.deviation < 1e-4  # conv_tol 1e-9 leaves an orbital gradient of 3e-5


@pytest.mark.parametrize(
    ("schema", "xc", "write"), [("nabladft", "hyb_gga_xc_wb97x_d", write_nabladft), ("schnorb", "pbe", write_schnorb)]
)
def test_fock_builds_of_other_codes(schema: str, xc: str, write: Any, tmp_path: Path) -> None:
    """float32 and six decimals are within the tolerance; another functional is not."""
    path = write(tmp_path / "right.db", [calculated("hydrogen", xc)])
    assert check_database(path, schema, 1)[0].deviation < 1e-4  # their grid is level 4, the molecule's level 3
    with pytest.raises(PhysicsError, match="the functional 'b3lyp5' fits best"):
        check_database(write(tmp_path / "wrong.db", [calculated("hydrogen")]), schema, 1)


def test_a_fock_build_names_the_functional(tmp_path: Path) -> None:
    """Hydrogen by today's b3lyp is not what QH9 holds."""
    path = write_qh9(tmp_path / "x.db", [calculated("hydrogen", "b3lyp")])
    with pytest.raises(PhysicsError, match="the functional 'b3lyp' fits best"):
        check_database(path, "qh9", 1)


def test_a_fock_build_sees_d_orbitals_in_a_wrong_order(molecules: list[Molecule], tmp_path: Path) -> None:
    """OpenMX's p is PySCF's, its d is not."""
    path = write_qh9(tmp_path / "x.db", molecules[:1], CONVENTIONS["openmx"])
    QH9Reader().read(path / "0")
    with pytest.raises(PhysicsError, match="the order of 'openmx' fits best"):
        check_database(path, "qh9", 1)


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_broken_row_is_named_skipped_and_counted(jobs: int, molecules: list[Molecule], tmp_path: Path) -> None:
    """The command's exit code, its report, and the store with the rest; a second run reads nothing again."""
    path = write_qh9(tmp_path / "QH9Stable.db", molecules)
    damage(path, "Ham = ?", b"\0" * 80)
    output = tmp_path / "data.h5"
    command = ["preprocess", "qh9", str(path), "-o", str(output), "--jobs", str(jobs), "--fock-checks", "0", "--json"]
    ran = CliRunner().invoke(app, command)
    assert ran.exit_code == 1
    figures = json.loads(ran.stdout)
    assert (figures["read"], figures["failed"]) == (2, 1)
    assert figures["failures"][0]["source"].endswith("QH9Stable.db/1")
    with Store(output) as store:
        assert store.names == ["0", "2"]
        assert [species.label for species in store.basis.species] == ["H:def2-svp", "O:def2-svp"]
    again = json.loads(CliRunner().invoke(app, command).stdout)
    assert (again["read"], again["skipped"], again["failed"]) == (0, 2, 1)
