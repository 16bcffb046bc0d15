"""convert: one and many calculations into every format and back; nothing half-written."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from foreign_cases import band_difference, openmx_case
from golden_files import golden
from typer.testing import CliRunner

from hamnet.cli import app
from hamnet.data.store import Store, write_store
from hamnet.errors import ConfigError, ConvergenceError, FormatError, PhysicsError
from hamnet.testing import assert_same_matrix
from hamnet_preprocess.convert import TARGETS, Target, convert, write_whole
from hamnet_preprocess.reader import reader


@pytest.fixture
def store(tmp_path: Path) -> Path:
    cases = {"graphene": openmx_case("graphene"), "sheets/hbn": openmx_case("hbn")}
    write_store(tmp_path / "data.h5", cases.items())
    return tmp_path / "data.h5"


@pytest.mark.parametrize("form", ["deeph", "deeph-legacy"])
def test_store_to_folders_and_back(form: str, store: Path, tmp_path: Path) -> None:
    result = convert(store, tmp_path / "out", form)
    assert [path for _, path, _ in result.written] == [tmp_path / "out" / n for n in ("graphene", "sheets/hbn")]
    back = convert(tmp_path / "out", tmp_path / "back.h5", "hamnet", code=form)
    assert not back.failures
    with Store(tmp_path / "back.h5") as again:
        assert again.names == ["graphene", "sheets/hbn"]
        for name, case in (("graphene", openmx_case("graphene")), ("sheets/hbn", openmx_case("hbn"))):
            found = again.read(name)
            np.testing.assert_array_equal(found.overlap.pairs.cell_shift, case.overlap.pairs.cell_shift)
            # a store rounds nothing; the way through DeepH moves numbers only
            np.testing.assert_allclose(found.overlap.values, case.overlap.values, atol=1e-12)
            assert band_difference(found, case) < 1e-9


def test_one_calculation_takes_the_output_itself(tmp_path: Path) -> None:
    convert(golden("openmx/graphene"), tmp_path / "deeph", "deeph")
    assert (tmp_path / "deeph" / "hamiltonian.h5").is_file()
    # by content: a folder of DeepH's is known without being told
    convert(tmp_path / "deeph", tmp_path / "legacy", "deeph-legacy")
    found = reader("deeph-legacy").read(tmp_path / "legacy")
    assert_same_matrix(found.overlap, openmx_case("graphene").overlap, 1e-12)


def test_siesta_files(store: Path, tmp_path: Path) -> None:
    pytest.importorskip("sisl", reason="SIESTA files need sisl: pip install hamnet[sisl]")
    convert(store, tmp_path / "out", "hsx")
    assert band_difference(reader("sisl").read(tmp_path / "out/sheets/hbn.HSX"), openmx_case("hbn")) < 1e-9
    convert(golden("openmx/graphene"), tmp_path / "x.TSHS", "sisl")
    assert (tmp_path / "x.ORB_INDX").is_file()
    back = convert(tmp_path / "x.TSHS", tmp_path / "back", "deeph")
    assert len(back.written) == 1


def test_what_the_format_cannot_say_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(PhysicsError, match="no collinear spin"):
        convert(golden("openmx/o2_spin"), tmp_path / "out", "deeph")
    assert list(tmp_path.iterdir()) == []


def test_failure_halfway_leaves_nothing(tmp_path: Path) -> None:
    def broken(calculation: object, folder: Path) -> None:
        (folder / "half").write_text("x")
        raise FormatError("disk full")

    with pytest.raises(FormatError, match="disk full"):
        write_whole(Target(broken), openmx_case("graphene"), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_files_beside_the_output_are_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "o2_up_hr.dat").write_text("precious")
    with pytest.raises(ConfigError, match=r"o2_up_hr\.dat exists already"):
        convert(golden("openmx/o2_spin"), tmp_path / "o2_hr.dat", "wannier90")
    assert [path.name for path in tmp_path.iterdir()] == ["o2_up_hr.dat"]
    (tmp_path / "o2_up_hr.dat").unlink()
    (_, _, figures), *_ = convert(golden("openmx/o2_spin"), tmp_path / "o2_hr.dat", "wannier90").written
    assert [Path(name).name for name in figures["files"]] == ["o2.win", "o2_dn_hr.dat", "o2_up_hr.dat"]


def test_unconverged_is_said(tmp_path: Path) -> None:
    said: list[str] = []
    convert(golden("openmx/o2_noncollinear_soc"), tmp_path / "out", "deeph", on_event=said.append)
    assert "did not converge" in said[0]
    with pytest.raises(ConvergenceError, match="give allow_unconverged"):
        reader("deeph").read(tmp_path / "out")
    assert not reader("deeph").read(tmp_path / "out", allow_unconverged=True).converged


def test_one_bad_folder_does_not_stop_the_others(store: Path, tmp_path: Path) -> None:
    convert(store, tmp_path / "out", "deeph")
    (tmp_path / "out" / "graphene" / "hamiltonian.h5").write_bytes(b"\x89HDF")
    result = convert(tmp_path / "out", tmp_path / "back.h5", "hamnet", code="deeph")
    assert [name for name, _, _ in result.written] == ["sheets/hbn"]
    assert "no whole HDF5 file" in result.failures[0][1]


def test_arguments_are_checked(store: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no format 'cif' to write; there are deeph, .*hamnet"):
        convert(store, tmp_path / "x", "cif")
    with pytest.raises(ConfigError, match="no file or folder"):
        convert(tmp_path / "none", tmp_path / "x", "deeph")
    with pytest.raises(ConfigError, match="exists already"):
        convert(store, store, "deeph")
    with pytest.raises(ConfigError, match="2 calculations: give a folder"):
        convert(store, tmp_path / "x_hr.dat", "wannier90")
    with pytest.raises(ConfigError, match=r"must end in _hr\.dat"):
        convert(golden("openmx/water"), tmp_path / "x", "wannier90")
    with pytest.raises(ConfigError, match="no reader for 'vasp'"):
        convert(store, tmp_path / "x", "deeph", code="vasp")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FormatError, match="no deeph output was found"):
        convert(tmp_path / "empty", tmp_path / "x", "hamnet", code="deeph")
    assert set(TARGETS) == {"deeph", "deeph-legacy", "sisl", "hsx", "wannier90"}


def test_command(tmp_path: Path) -> None:
    out = tmp_path / "water_hr.dat"
    done = CliRunner().invoke(app, ["convert", str(golden("openmx/water")), str(out), "--to", "wannier90", "--json"])
    assert done.exit_code == 0
    figures = json.loads(done.stdout)
    assert figures["written"][0]["path"] == str(out)
    assert "Loewdin" in figures["written"][0]["remark"]
    assert out.is_file()
    assert (tmp_path / "water.win").is_file()


@pytest.mark.parametrize("form", ["deeph", "deeph-legacy"])
def test_preprocess_reads_converted_folders(form: str, tmp_path: Path) -> None:
    convert(golden("openmx/graphene"), tmp_path / "in", form)
    command = ["preprocess", form, str(tmp_path / "in"), "-o", str(tmp_path / "x.h5")]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    with Store(tmp_path / "x.h5") as store:
        assert len(store) == 1
    name = "hamiltonian.h5" if form == "deeph" else "hamiltonians.h5"
    (tmp_path / "in" / name).unlink()
    done = CliRunner().invoke(app, [*command[:-1], str(tmp_path / "s.h5")])
    assert "1 hold S and no Hamiltonian" in done.output
