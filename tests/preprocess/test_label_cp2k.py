"""`hamnet label cp2k`: with a stand-in for the program, so that it runs everywhere, and once with CP2K itself."""

import json
import shutil
import stat
import sys
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.io import write
from typer.testing import CliRunner

from hamnet.cli import app
from hamnet.errors import BasisError, ConfigError, ConvergenceError, FormatError, PhysicsError
from hamnet_preprocess.cp2k_input import TEMPLATE, cp2k_input, fill, join_segments, parse_path, placed
from hamnet_preprocess.cp2k_library import Kind, choose_kind, data_files
from hamnet_preprocess.label import label_all
from hamnet_preprocess.label_cp2k import COMMANDS, CP2KLabelEngine, CP2KSettings, find_program

SILICON = bulk("Si", a=5.43)
BASIS = """# a comment
Si DZVP-TEST DZVP-TEST-q4
 1
 3 0 0 1 1
 0.5 1.0
Ga DZVP-TEST DZVP-TEST-q13
Ga DZVP-TEST-q3
Si LONE
Si WHOLE-ae
"""
POTENTIALS = "Si GTH-PBE-q4 GTH-PBE\n 2 2\nGa GTH-PBE-q13 GTH-PBE\nGa GTH-PBE-q3\nSi GTH-PADE-q4\n"
FAKE = """#!{python}
import os, pathlib, signal, sys
mode = "{mode}"
out = pathlib.Path("cp2k.out")
text = " CP2K| version string:                    CP2K version 2023.1\\n"
if mode == "crash":
    out.write_text(text + " *   [ABORT]   *\\n *  basis set not found  *\\n")
    sys.exit(1)
if mode == "killed":
    out.write_text(text + "   1 NoMix/Diag. 0.40E+00\\n")
    os.kill(os.getpid(), signal.SIGKILL)
text += "     9 Broy./Diag. 0.40E+00    0.8     0.00000712        -7.8044098467 -6.06E-08\\n"
text += "  *** SCF run {said} ***\\n"
for matrix in {matrices}:
    pathlib.Path(f"cp2k-{{matrix}}_SPIN_1_R_1-1_0.csr").write_text("       1       1 0.1E+001\\n")
if mode != "short":
    text += " **** **** ******  **  PROGRAM ENDED AT   2026-11-21\\n"
out.write_text(text)
"""


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A data folder of CP2K with two elements."""
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "BASIS_MOLOPT").write_text(BASIS)
    (folder / "GTH_POTENTIALS").write_text(POTENTIALS)
    monkeypatch.setenv("CP2K_DATA_DIR", str(folder))
    return folder


def fake(
    folder: Path, mode: str, said: str = "converged in     9 steps", matrices: tuple[str, ...] = ("KS", "S")
) -> str:
    """A program that leaves what CP2K would."""
    path = folder / f"cp2k.{mode}"
    path.write_text(FAKE.format(python=sys.executable, mode=mode, said=said, matrices=matrices))
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def settings(command: str, **more: object) -> CP2KSettings:
    return CP2KSettings(basis="DZVP-TEST", command=command, **more)


def test_a_run_is_kept_with_its_provenance_and_not_repeated(tmp_path, data):
    write(tmp_path / "s.extxyz", [SILICON, SILICON * (2, 1, 1)])
    arguments = ["label", "cp2k", str(tmp_path / "s.extxyz"), "--basis", "DZVP-TEST", "--command"]
    arguments += [fake(tmp_path, "good"), "-o", str(tmp_path / "out"), "--bands", "auto", "--json"]
    for expected in ((2, 0), (0, 2)):
        outcome = CliRunner().invoke(app, arguments)
        assert outcome.exit_code == 0, outcome.output
        figures = json.loads(outcome.stdout)
        assert (figures["written"], figures["skipped"], figures["failed"]) == (*expected, 0)
    # nothing hidden is left beside the two
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["s_0", "s_1"]
    record = json.loads((tmp_path / "out/s_0/label.json").read_text())
    assert record["version"] == "CP2K version 2023.1"
    assert set(record) >= {"settings", "geometry", "command", "sha256"}
    text = (tmp_path / "out/s_0/cp2k.inp").read_text()
    assert "BASIS_SET DZVP-TEST\n" in text
    assert "POTENTIAL GTH-PBE-q4\n" in text
    assert "SPECIAL_POINT" in text
    # started in another way, the label is the same; with another cutoff it is not
    again = CliRunner().invoke(app, [*arguments, "--launcher", "nice"])
    assert json.loads(again.stdout)["skipped"] == 2
    other = CliRunner().invoke(app, [*arguments, "--cutoff", "123"])
    assert other.exit_code == 1
    assert "other settings" in json.loads(other.stdout)["failures"][0]["reason"]


@pytest.mark.parametrize(
    ("mode", "more", "error", "words"),
    [
        ("crash", {}, FormatError, ["exit code 1", "basis set not found"]),
        ("killed", {}, FormatError, ["signal 9", "memory"]),
        ("short", {}, FormatError, ["cut short"]),
        ("loose", {"said": "NOT converged"}, ConvergenceError, ["did not converge", "0.00000712", "--max-scf"]),
        ("nothing", {"matrices": ("KS",)}, FormatError, ["no S_SPIN_1"]),
    ],
)
def test_a_bad_run_is_refused_in_one_line_and_gets_no_name(tmp_path, data, mode, more, error, words):
    command = fake(tmp_path, mode, **more)
    with pytest.raises(error) as caught:
        CP2KLabelEngine().label(SILICON, tmp_path / "out/a", settings(command))
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message
    # the output stays to be looked at, the matrices do not
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".a.part"]
    assert not list((tmp_path / "out/.a.part").glob("*.csr"))
    # and the next try takes its place
    CP2KLabelEngine().label(SILICON, tmp_path / "out/a", settings(fake(tmp_path, "good")))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a"]


def test_a_failure_does_not_stop_the_others_and_a_folder_without_mark_is_not_overwritten(tmp_path, data):
    (tmp_path / "out/mine").mkdir(parents=True)
    structures = [("mine", SILICON), ("carbon", bulk("C", a=3.57)), ("good", SILICON)]
    result = label_all("cp2k", structures, tmp_path / "out", settings(fake(tmp_path, "good")))
    assert result.written == ["good"]
    reasons = dict(result.failed)
    assert "no finished output" in reasons["mine"]
    assert "for C" in reasons["carbon"]


def test_without_the_program_it_says_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="apt-get install cp2k.*conda"):
        find_program(None)
    with pytest.raises(ConfigError, match="nowhere"):
        find_program("nowhere")


def test_the_potential_follows_the_basis(data):
    files = data_files((), (), "cp2k.psmp")
    assert choose_kind("Si", "DZVP-TEST", "PBE", None, files).potential == "GTH-PBE-q4"
    assert choose_kind("Si", "DZVP-TEST", "LDA", None, files).potential == "GTH-PADE-q4"
    # the exact name wins over the same name with a suffix
    assert choose_kind("Ga", "DZVP-TEST", "PBE", None, files).potential == "GTH-PBE-q13"
    assert choose_kind("Ga", "DZVP-TEST-q3", "PBE", None, files).potential == "GTH-PBE-q3"
    assert choose_kind("Si", "LONE", "PBE", None, files).potential == "GTH-PBE-q4"
    with pytest.raises(BasisError, match="there are for Si: BASIS_MOLOPT: DZVP-TEST, LONE, WHOLE-ae"):
        choose_kind("Si", "TZVP", "PBE", None, files)
    with pytest.raises(BasisError, match="all electrons"):
        choose_kind("Si", "WHOLE-ae", "PBE", None, files)
    with pytest.raises(BasisError, match="no basis for Fe at all"):
        choose_kind("Fe", "DZVP-TEST", "PBE", None, files)
    with pytest.raises(BasisError, match="13 valence electrons.*3"):
        choose_kind("Ga", "DZVP-TEST", "PBE", "GTH-PBE-q3", files)


def test_bases_of_zurich_take_the_potentials_of_zurich(data):
    (data / "BASIS_MOLOPT_UZH").write_text("Si DZVP-PBE DZVP-PBE-q4\n")
    (data / "POTENTIAL_UZH").write_text("Si GTH-PBE-q4\n")
    files = data_files((), (), "cp2k.psmp")
    assert choose_kind("Si", "DZVP-PBE", "PBE", None, files).potential_file.name == "POTENTIAL_UZH"
    assert choose_kind("Si", "DZVP-TEST", "PBE", None, files).potential_file.name == "GTH_POTENTIALS"


def test_own_basis_files_are_searched_first_and_kept_in_the_folder(tmp_path, data):
    own = tmp_path / "MY_BASIS"
    own.write_text("Si DZVP-TEST DZVP-TEST-q4\n")
    chosen = settings(fake(tmp_path, "good"), basis_files=(str(own),))
    CP2KLabelEngine().label(SILICON, tmp_path / "out/a", chosen)
    assert (tmp_path / "out/a/MY_BASIS").is_file()
    assert "BASIS_SET_FILE_NAME MY_BASIS\n" in (tmp_path / "out/a/cp2k.inp").read_text()
    before = chosen.text(SILICON)
    own.write_text("Si DZVP-TEST DZVP-TEST-q4\n 1\n")
    assert chosen.text(SILICON) != before


KINDS = [Kind("Si", "B", Path("BASIS"), "P", Path("POTENTIALS"))]


def test_input_says_what_was_asked():
    text = cp2k_input(SILICON, KINDS, CP2KSettings(kmesh=(2, 3, 4), smearing=500.0, multiplicity=3, binary=True))
    # an even count is shifted by half a step, so that Gamma belongs to the mesh
    assert "SCHEME MACDONALD 2 3 4 0.2500000000 0.0000000000 0.1250000000" in text
    assert "ELECTRONIC_TEMPERATURE [K] 500" in text
    assert "MULTIPLICITY 3" in text
    assert text.count("BINARY T") == 2
    assert "{{" not in text
    shifted = cp2k_input(SILICON, KINDS, CP2KSettings(kmesh=(2, 2, 2), monkhorst_pack=True))
    assert "MACDONALD 2 2 2 0.0000000000 0.0000000000 0.0000000000" in shifted
    # one k-point is still a k-point section: without one H would be folded
    assert "&KPOINTS" in cp2k_input(SILICON, KINDS, CP2KSettings())


def test_a_slab_gets_vacuum_and_a_two_dimensional_poisson_solver():
    slab = Atoms("Si2", [[0, 0, -1.0], [1, 1, 1.5]], cell=[[3, 0, 0], [0, 3, 0], [0, 0, 0]], pbc=[True, True, False])
    cell, positions = placed(slab)
    # 2.5 A of atoms and 20 A of vacuum, atoms in the middle, shape unchanged
    np.testing.assert_allclose(cell[2], [0, 0, 22.5])
    np.testing.assert_allclose(positions[:, 2], [10.0, 12.5])
    np.testing.assert_allclose(np.diff(positions, axis=0), np.diff(slab.positions, axis=0))
    text = cp2k_input(slab, KINDS, CP2KSettings(kmesh=(2, 2, 5)))
    assert text.count("PERIODIC XY\n") == 2
    assert "MACDONALD 2 2 1 " in text
    with pytest.raises(ConfigError, match="pyscf"):
        cp2k_input(Atoms("H2", [[0, 0, 0], [0, 0, 1]]), KINDS, CP2KSettings())
    with pytest.raises(ConfigError, match="turn the cell"):
        cp2k_input(Atoms("H", cell=[2, 2, 2], pbc=[True, False, True]), KINDS, CP2KSettings())
    with pytest.raises(PhysicsError, match="volume"):
        placed(Atoms("H", cell=[2, 2, 0], pbc=True))


def test_templates_are_checked():
    with pytest.raises(ConfigError, match="has no {{kinds}}"):
        fill(TEMPLATE.replace("{{kinds}}", ""), {})
    with pytest.raises(ConfigError, match="asks for {{speed}}"):
        cp2k_input(SILICON, KINDS, CP2KSettings(template=TEMPLATE + "{{speed}}"))


def test_paths():
    path = parse_path("G 0 0 0, K 1/3 1/3 0 | M 0.5 0 0, G 0 0 0")
    assert [[name for name, _ in piece] for piece in path] == [["G", "K"], ["M", "G"]]
    assert path[0][1][1] == pytest.approx((1 / 3, 1 / 3, 0))
    for wrong in ("auto path", "G 0 0 0", "G 0 0 0, K 1/0 0 0"):
        with pytest.raises(ConfigError):
            parse_path(wrong)
    points = {name: np.zeros(3) for name in "ABCD"}
    pieces = join_segments(points, [("A", "B"), ("B", "C"), ("D", "A")])
    assert [[name for name, _ in piece] for piece in pieces or ()] == [["A", "B", "C"], ["D", "A"]]


@pytest.mark.parametrize("wrong", [{"cutoff": 0}, {"kmesh": (0, 1, 1)}, {"smearing": -1.0}, {"eps_scf": float("nan")}])
def test_settings_are_checked(wrong):
    with pytest.raises(ConfigError):
        CP2KSettings(**wrong)


@pytest.mark.skipif(not any(map(shutil.which, COMMANDS)), reason="CP2K is not installed (apt-get install cp2k)")
def test_cp2k_itself(tmp_path, monkeypatch):
    """A chain of H2, read back: energies differ in no digit that the reader would forgive."""
    from hamnet_preprocess.reader import reader

    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # threads that outnumber the cores wait for each other
    chain = Atoms("H2", [[0.5, 2, 2], [1.3, 2, 2]], cell=[2.5, 4, 4], pbc=True)
    coarse = CP2KSettings("SZV-MOLOPT-SR-GTH", kmesh=(2, 1, 1), cutoff=100, rel_cutoff=30, eps_default=1e-10)
    result = label_all("cp2k", [("chain", chain)], tmp_path, coarse)
    assert result.failed == []
    calculation = reader("cp2k").read(tmp_path / "chain")
    assert calculation.converged
    assert calculation.structure.n_atoms == 2
    # the first of many steps is far from convergence
    result = label_all("cp2k", [("hasty", chain)], tmp_path, CP2KSettings(**{**vars(coarse), "max_scf": 1}))
    assert "ConvergenceError" in result.failed[0][1]
