"""What the CP2K reader refuses, and in which words."""

import re

import numpy as np
import pytest
from cp2k_cases import change, run, spoiled

from hamnet.errors import BasisError, FormatError, PhysicsError
from hamnet_preprocess.cp2k import CP2KReader
from hamnet_preprocess.cp2k_csr import csr_files, read_csr


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.delenv("CP2K_DATA_DIR", raising=False)
    return spoiled("h_spin", tmp_path)


def refuses(folder, error, words):
    with pytest.raises(error, match=words) as caught:
        CP2KReader().read(folder)
    assert str(folder) in str(caught.value)


def csr(folder, matrix, image, spin=1):
    return folder / f"uks_hatom-{matrix}_SPIN_{spin}_R_{image}-1_0.csr"


@pytest.mark.parametrize(("matrix", "section"), [("S", "&S_CSR_WRITE"), ("KS", "&KS_CSR_WRITE")])
def test_no_files_of_a_matrix(folder, matrix, section):
    for path in folder.glob(f"*-{matrix}_SPIN*.csr"):
        path.unlink()
    refuses(folder, FormatError, f"{matrix}_SPIN_1: no .csr file: ask for {section}")


@pytest.mark.parametrize(("matrix", "spin"), [("S", 1), ("KS", 2)])
def test_one_file_missing(folder, matrix, spin):
    csr(folder, matrix, 7, spin).unlink()
    refuses(folder, FormatError, f"{matrix}_SPIN_{spin}: 1 of 61 files are missing, as that of image 7 ")


def test_a_file_too_many(folder):
    csr(folder, "S", 62).write_bytes(csr(folder, "S", 1).read_bytes())
    refuses(folder, FormatError, "a file of image 62, but the output lists 61")


def test_two_steps_in_a_folder(folder):
    (folder / "uks_hatom-KS_SPIN_1_R_1-1_5.csr").write_bytes(b"")
    refuses(folder, FormatError, "files of 2 runs or steps")


def test_images_of_h_and_s_differ(folder):
    text = (folder / "cp2k.out").read_text()
    at = text.index("S CSR write|", text.index("KS CSR write|") + 20)
    (folder / "cp2k.out").write_text(
        text[:at] + re.sub(r"( +2) +-1 +0 +0\n", r"\1      -1      0      5\n", text[at:], count=1)
    )
    refuses(folder, FormatError, "must be the same")


def test_no_list_of_images(folder):
    text = (folder / "cp2k.out").read_text()
    (folder / "cp2k.out").write_text(text.replace("CSR write|", "CSR gone|"))
    refuses(folder, FormatError, "no list of periodic images: ask for")
    (folder / "cp2k.out").write_text(text.replace("  S CSR write|", "  S CSR gone|"))
    refuses(folder, FormatError, "no list of periodic images of S")


def test_run_without_kpoints_is_refused():
    refuses(run("hbn_gamma"), FormatError, r"without k-points: .*\(folded\).*Repeat it with a &KPOINTS section")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda data: data[:-1], "cut short at byte"),
        (lambda data: data[:-27] + b"\n", "expected rows of 'row column value'"),
        (lambda data: data.replace(b"       1       1", b"       1      99", 1), "column 99 is no orbital"),
        (lambda data: re.sub(rb"\S+\n", b"nan\n", data, count=1), "no finite number"),
        (lambda data: b"surprise!\n" * 9, "expected rows of"),
    ],
)
def test_spoiled_text_file(folder, spoil, words):
    path = csr(folder, "KS", 1)
    path.write_bytes(spoil(path.read_bytes()))
    refuses(folder, FormatError, words)


def test_spoiled_binary_file(tmp_path):
    path = tmp_path / "x-S_SPIN_1_R_1-1_0.csr"
    record = np.array([(16, 1, 2, 0.5, 16)] * 3, dtype="i4,i4,i4,f8,i4")
    path.write_bytes(record.astype(">i4,>i4,>i4,>f8,>i4").tobytes())
    row, column, value = read_csr(path)
    assert (row.tolist(), column.tolist(), value.tolist()) == ([0] * 3, [1] * 3, [0.5] * 3)
    path.write_bytes(record.tobytes()[:-5])
    with pytest.raises(FormatError, match="byte 48 of 67 is no whole record"):
        read_csr(path)
    path.write_bytes(bytes(100))
    with pytest.raises(FormatError, match="neither text rows nor binary records"):
        read_csr(path)
    with pytest.raises(FormatError, match="cannot be read"):
        read_csr(tmp_path / "absent.csr")


def test_files_of_another_image_are_noticed(folder):
    a, b = csr(folder, "KS", 2), csr(folder, "KS", 4)
    one, other = a.read_bytes(), b.read_bytes()
    a.write_bytes(other)
    refuses(folder, PhysicsError, "matrix KS is not hermitian")
    a.write_bytes(one)
    for image in (2, 3):  # a pair of opposite images: symmetry is kept, S is not
        csr(folder, "S", image).write_bytes(csr(folder, "S", 1).read_bytes())
    refuses(folder, PhysicsError, "differs by .* from the integrals of the basis")


def test_bs_of_another_run(folder):
    path = folder / "uks_hatom.bs"
    text = path.read_text()
    path.write_text(re.sub(r"^( +1 +)(-?\d+)\.", lambda m: f"{m[1]}{int(m[2]) + 3}.", text, flags=re.M))
    refuses(folder, PhysicsError, "the .bs is of another run")
    path.write_text((run("si") / "si.bs").read_text())
    refuses(folder, FormatError, "1 spin.s. and 8 bands")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("PROGRAM ENDED AT", "PROGRAM", "the run did not end"),
        ("CP2K| version string:", "CP2K| no string:", "no output of CP2K"),
        (" ENERGY\n", " GEO_OPT\n", "RUN_TYPE GEO_OPT: its matrices belong to other positions"),
        ("ATOMIC COORDINATES IN ANGSTROM", "ATOMS", "no 'ATOMIC COORDINATES IN ANGSTROM'"),
        ("Number of orbital functions", "Orbitals", "no 'Number of electrons' or"),
        ("Orbital Basis Set", "Orbitals", "no orbital basis of kind H"),
        ("Atomic kind:", "Kind:", "no ATOMIC KIND INFORMATION"),
        ("KS CSR write|  61", "KS CSR write| 999", "names 999 periodic images"),
    ],
)
def test_spoiled_output(folder, old, new, words):
    change(folder / "cp2k.out", old, new)
    refuses(folder, FormatError, words)


def test_output_of_another_version(folder):
    out = folder / "cp2k.out"
    change(out, "CP2K version 2023.1", "CP2K version 2031.2")
    assert CP2KReader().read(folder).provenance.version == "2031.2"  # whatever still reads and passes the checks
    change(out, "ATOMIC COORDINATES IN ANGSTROM", "WHERE THE ATOMS ARE")
    refuses(folder, FormatError, "this is CP2K 2031.2, its output was tried with 2023.1 only")


def test_error_of_cp2k_is_quoted(folder):
    box = """
 *******************************************************************************
 *   ___                                                                       *
 *  /   \\                                                                      *
 * [ABORT]                                                                     *
 *  \\___/             Extra MOs (ADDED_MOS) are required for smearing          *
 *    |                                                                        *
 *  O/|                                                                        *
 * /| |                                                                        *
 * / \\                                                   qs_environment.F:1521 *
 *******************************************************************************
"""
    text = (folder / "cp2k.out").read_text()
    (folder / "cp2k.out").write_text(text[: text.index("SCF WAVEFUNCTION")] + box)
    refuses(folder, FormatError, r"stopped with an error: Extra MOs \(ADDED_MOS\) are required for smearing qs_env")


def test_outputs_and_inputs_that_are_not_one(folder):
    (folder / "second.out").write_bytes((folder / "cp2k.out").read_bytes())
    refuses(folder, FormatError, "2 outputs, expected one")
    (folder / "second.out").unlink()
    (folder / "cp2k.inp").unlink()
    refuses(folder, FormatError, "0 inputs .none. and none called 'cp2k.inp'")


def test_input_changed_after_the_run(folder):
    path = folder / "cp2k.inp"
    text = path.read_text()
    path.write_text(text.replace("A 3.0", "A 3.01"))
    refuses(folder, FormatError, "cell vector a is 3.01")
    path.write_text(text.replace("H 0 0 0.1", "H 0 0 0.1\n      H 1 1 1"))
    refuses(folder, FormatError, "2 atoms, the output cp2k.out has 1")


def test_basis_file_not_found(folder, monkeypatch):
    (folder / "BASIS_MOLOPT").rename(folder / "elsewhere")
    monkeypatch.setattr("hamnet_preprocess.cp2k_basis.FALLBACK_FOLDERS", ())
    change(folder / "cp2k.out", "/usr/share/cp2k", "/nowhere/at/all")
    refuses(folder, BasisError, "took its orbitals from BASIS_MOLOPT, .*set CP2K_DATA_DIR")
    data = folder / "data"
    data.mkdir()
    (folder / "elsewhere").rename(data / "BASIS_MOLOPT")
    monkeypatch.setenv("CP2K_DATA_DIR", str(data))
    assert CP2KReader().read(folder).overlap.n_orbitals == 5


def test_basis_of_another_file(folder):
    path = folder / "BASIS_MOLOPT"
    text = path.read_text()
    path.write_text(text.replace("H  DZVP-MOLOPT-SR-GTH", "H  OTHER").replace("DZVP-MOLOPT-SR-GTH-q1", "OTHER-q1"))
    refuses(folder, BasisError, "no basis set 'DZVP-MOLOPT-SR-GTH' for H .*there are for H: OTHER")
    path.write_text(re.sub(r"(H  DZVP-MOLOPT-SR-GTH.*\n.*\n.*\n +)\d+\.", r"\g<1>9.", text))
    refuses(folder, PhysicsError, "from the integrals of the basis")


def test_csr_names():
    assert {(f.matrix, f.spin) for f in csr_files(run("h_spin"))} == {("KS", 1), ("KS", 2), ("S", 1)}
    assert {f.image for f in csr_files(run("hbn_gamma"))} == {0}
