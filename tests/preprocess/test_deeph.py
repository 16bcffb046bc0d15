"""DeepH's two formats: round trips, bands, the reader contract, refusals."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from foreign_cases import band_difference, openmx_case

from hamnet.core.basis import OrbitalBasis, Shell, Species
from hamnet.core.calculation import Calculation
from hamnet.core.conventions import OPENMX, from_ours
from hamnet.core.spin import Spin
from hamnet.errors import BasisError, FormatError, PhysicsError
from hamnet.testing import ReaderContract, assert_same_matrix
from hamnet_preprocess.deeph import DeepHLegacyReader, DeepHReader
from hamnet_preprocess.deeph_write import reorder_atoms, write_deeph, write_deeph_legacy

FORMATS = {"deeph": (DeepHReader(), write_deeph), "deeph-legacy": (DeepHLegacyReader(), write_deeph_legacy)}
Writer = Callable[[Calculation, Path], None]


class TestContractNew(ReaderContract):
    reader = DeepHReader()
    case = "hbn"

    @pytest.fixture(scope="class")
    def source(self, tmp_path_factory: pytest.TempPathFactory) -> Path:
        folder = tmp_path_factory.mktemp("source")
        FORMATS[self.reader.name][1](openmx_case(self.case), folder)
        return folder


class TestContractNewSpinor(TestContractNew):
    case = "bismuthene_soc"


class TestContractLegacy(TestContractNew):
    reader = DeepHLegacyReader()


class TestContractLegacySpinor(TestContractLegacy):
    case = "bismuthene_soc"


@pytest.mark.parametrize("name", ["graphene", "hbn", "bismuthene_soc", "water"])
@pytest.mark.parametrize("form", sorted(FORMATS))
def test_round_trip(form: str, name: str, tmp_path: Path) -> None:
    reader, write = FORMATS[form]
    original = openmx_case(name)
    write(original, tmp_path)
    back = reader.read(tmp_path)
    assert back.hamiltonian is not None
    # orbitals move and change sign, numbers do not: the symmetrisation on reading is exact for a hermitian matrix
    assert_same_matrix(back.hamiltonian, original.hamiltonian, 1e-12)
    assert_same_matrix(back.overlap, original.overlap, 1e-12)
    # 17 digits are printed; POSCAR and lat.dat lose nothing above rounding
    np.testing.assert_allclose(back.structure.positions, original.structure.positions, atol=1e-13)
    np.testing.assert_allclose(back.structure.lattice, original.structure.lattice, atol=1e-13)
    assert back.basis == original.basis
    assert back.n_electrons == original.n_electrons
    assert back.fermi_energy == original.fermi_energy
    assert band_difference(back, original) < 1e-9


@pytest.mark.parametrize("form", sorted(FORMATS))
def test_foreign_folder_without_our_remarks(form: str, tmp_path: Path) -> None:
    reader, write = FORMATS[form]
    write(openmx_case("hbn"), tmp_path)
    info = json.loads((tmp_path / "info.json").read_text())
    del info["hamnet"]
    (tmp_path / "info.json").write_text(json.dumps(info))
    back = reader.read(tmp_path)
    assert [s.label for s in back.basis.species] == ["B-s2p2d1", "N-s2p1"]
    assert back.n_electrons is None
    assert back.provenance.code.startswith("DeepH")
    assert band_difference(back, openmx_case("hbn")) < 1e-9


def test_bands_are_scored_about_the_fermi_level_without_electrons(tmp_path: Path) -> None:
    from hamnet.train.metrics import spectrum_errors

    case = openmx_case("graphene")
    write_deeph(case, tmp_path)
    info = json.loads((tmp_path / "info.json").read_text())
    del info["hamnet"]
    (tmp_path / "info.json").write_text(json.dumps(info))
    foreign = DeepHReader().read(tmp_path)
    assert foreign.n_electrons is None
    assert case.hamiltonian is not None
    assert foreign.hamiltonian is not None
    known, found = spectrum_errors(case, case.hamiltonian, 0.0), spectrum_errors(foreign, foreign.hamiltonian, 0.0)
    assert len(known.bands) > 0
    assert abs(len(found.bands) - len(known.bands)) <= 0.05 * len(known.bands)  # window about E_F against mid-gap


def test_legacy_file_is_what_deeph_writes(tmp_path: Path) -> None:
    """Keys from 1, vectors in columns, OpenMX's order inside a shell: told from the file, not by our reader."""
    original = openmx_case("hbn")
    write_deeph_legacy(original, tmp_path)
    np.testing.assert_allclose(np.loadtxt(tmp_path / "lat.dat").T, original.structure.cell, atol=1e-14)
    rlat = np.loadtxt(tmp_path / "rlat.dat")
    np.testing.assert_allclose(np.loadtxt(tmp_path / "lat.dat").T @ rlat, 2 * np.pi * np.eye(3), atol=1e-12)
    h = original.hamiltonian
    assert h is not None
    p = int(np.flatnonzero((h.pairs.i == 0) & (h.pairs.j == 1) & h.pairs.cell_shift.any(axis=1))[0])
    key = json.dumps([*h.pairs.cell_shift[p].tolist(), 1, 2])
    boron, nitrogen = (original.basis.species[k] for k in original.structure.species)
    with h5py.File(tmp_path / "hamiltonians.h5") as file:
        np.testing.assert_array_equal(file[key], from_ours(h.block(p), OPENMX, boron, nitrogen))


def test_new_file_is_what_deeph_writes(tmp_path: Path) -> None:
    original = openmx_case("bismuthene_soc")
    write_deeph(original, tmp_path)
    h = original.hamiltonian
    assert h is not None
    with h5py.File(tmp_path / "hamiltonian.h5") as file, h5py.File(tmp_path / "overlap.h5") as s:
        assert np.array_equal(file["atom_pairs"], s["atom_pairs"])
        n = original.basis.n_orbitals[0]
        assert (file["chunk_shapes"][()] == 2 * n).all()
        assert (s["chunk_shapes"][()] == n).all()
        p = 5
        start, stop = file["chunk_boundaries"][p : p + 2]
        np.testing.assert_array_equal(file["entries"][start:stop].reshape(2 * n, 2 * n), h.block(p))
        assert file["atom_pairs"][p].tolist() == [*h.pairs.cell_shift[p].tolist(), h.pairs.i[p], h.pairs.j[p]]


def test_atoms_are_grouped_by_element(tmp_path: Path) -> None:
    original = reorder_atoms(openmx_case("water"), np.array([1, 0, 2]))
    write_deeph(original, tmp_path)
    back = DeepHReader().read(tmp_path)
    assert back.structure.atomic_numbers.tolist() == [1, 1, 8]
    assert band_difference(back, original) < 1e-9
    assert_same_matrix(back.overlap, reorder_atoms(original, np.array([0, 2, 1])).overlap, 1e-12)


@pytest.mark.parametrize("form", sorted(FORMATS))
def test_overlap_only(form: str, tmp_path: Path) -> None:
    reader, write = FORMATS[form]
    write(openmx_case("graphene"), tmp_path)
    (tmp_path / ("hamiltonian.h5" if form == "deeph" else "hamiltonians.h5")).unlink()
    back = reader.read(tmp_path)
    assert back.hamiltonian is None
    assert_same_matrix(back.overlap, openmx_case("graphene").overlap, 1e-12)


@pytest.mark.parametrize("form", sorted(FORMATS))
def test_collinear_is_refused(form: str, tmp_path: Path) -> None:
    with pytest.raises(PhysicsError, match="no collinear spin.*--to hsx"):
        FORMATS[form][1](openmx_case("o2_spin"), tmp_path)


def test_doubled_overlap_of_spinors_is_understood(tmp_path: Path) -> None:
    original = openmx_case("bismuthene_soc")
    write_deeph_legacy(original, tmp_path)
    with h5py.File(tmp_path / "overlaps.h5", "r+") as file:
        for key in list(file):
            block = file[key][()]
            del file[key]
            file[key] = np.kron(np.eye(2), block)
    assert_same_matrix(DeepHLegacyReader().read(tmp_path).overlap, original.overlap, 1e-12)


def test_two_bases_of_one_element_are_refused(tmp_path: Path) -> None:
    original = openmx_case("graphene")
    other = OrbitalBasis((Species("C1", 6, 4.0, (Shell(0),)), Species("C2", 6, 4.0, (Shell(1),))))
    structure = original.structure.with_species(np.array([0, 1]))
    s = type(original.overlap).zeros(original.overlap.pairs, other, structure.species, Spin.NONE)
    with pytest.raises(BasisError, match="one basis; atomic number 6 has"):
        write_deeph(Calculation(structure, other, s), tmp_path)


def test_bad_keys_are_never_evaluated(tmp_path: Path) -> None:
    write_deeph_legacy(openmx_case("graphene"), tmp_path)
    with h5py.File(tmp_path / "hamiltonians.h5", "r+") as file:
        file["__import__('os').abort()"] = np.zeros((2, 2))
    with pytest.raises(FormatError, match="abort.*five integers"):
        DeepHLegacyReader().read(tmp_path)


def test_missing_block_is_an_error(tmp_path: Path) -> None:
    write_deeph_legacy(openmx_case("graphene"), tmp_path)
    with h5py.File(tmp_path / "hamiltonians.h5", "r+") as file:
        del file["[0, 0, 0, 1, 2]"]
    with pytest.raises(PhysicsError, match="not hermitian.*a block is missing"):
        DeepHLegacyReader().read(tmp_path)


@pytest.mark.parametrize("name", ["POSCAR", "info.json", "overlap.h5"])
def test_missing_file_is_named(name: str, tmp_path: Path) -> None:
    write_deeph(openmx_case("graphene"), tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(FormatError, match=f"{name} missing"):
        DeepHReader().read(tmp_path)


def test_damaged_files_are_told(tmp_path: Path) -> None:
    write_deeph(openmx_case("graphene"), tmp_path)
    whole = (tmp_path / "hamiltonian.h5").read_bytes()
    (tmp_path / "hamiltonian.h5").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FormatError, match=r"hamiltonian\.h5: no whole HDF5 file"):
        DeepHReader().read(tmp_path)
    (tmp_path / "hamiltonian.h5").write_bytes(whole)
    with h5py.File(tmp_path / "hamiltonian.h5", "r+") as file:
        file["chunk_boundaries"][3] += 1
    with pytest.raises(FormatError, match="do not fit together"):
        DeepHReader().read(tmp_path)
    info = json.loads((tmp_path / "info.json").read_text())
    info["elements_orbital_map"] = {"C": [0, 1]}
    (tmp_path / "info.json").write_text(json.dumps(info))
    with pytest.raises(FormatError, match="names other shells"):
        DeepHReader().read(tmp_path)
    del info["hamnet"]
    (tmp_path / "info.json").write_text(json.dumps(info))
    with pytest.raises(FormatError, match="expected .* from the shells"):
        DeepHReader().read(tmp_path)
