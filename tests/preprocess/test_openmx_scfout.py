"""Bad .scfout files: each is refused in words, none lets a numpy error escape, none allocates by a corrupt count."""

from __future__ import annotations

import contextlib
import shutil
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from golden_files import golden
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hamnet.core.spin import Spin
from hamnet.errors import BasisError, FormatError, HamnetError, PhysicsError
from hamnet_preprocess.openmx import OpenMXReader
from hamnet_preprocess.openmx_scfout import LINE, ScfoutHeader, read_header

GOOD = golden("openmx/water") / "openmx.scfout"
RAW = GOOD.read_bytes()
HEADER = read_header(GOOD)
N_ATOMS, N_PAIRS = len(HEADER.n_orbitals), len(HEADER.i)
N_CELLS = struct.unpack_from("<i", RAW, 20)[0]
ATV_END = 28 + (N_CELLS + 1) * 32
ORBITALS = ATV_END + (N_CELLS + 1) * 16
FNAN = ORBITALS + 4 * N_ATOMS
NATN = FNAN + 4 * N_ATOMS
NCN = NATN + 4 * N_PAIRS


def mutated(folder: Path, offset: int, data: bytes, raw: bytes = RAW) -> Path:
    path = folder / "bad.scfout"
    path.write_bytes(raw[:offset] + data + raw[offset + len(data) :])
    return path


def read(path: Path) -> object:
    return OpenMXReader().read(path)


def integer(value: int) -> bytes:
    return struct.pack("<i", value)


def deck_replaced(folder: Path, old: bytes, new: bytes) -> Path:
    assert old in RAW
    at = RAW.index(old)
    return mutated(folder, at, new.ljust(len(old)))


def swapped(header: ScfoutHeader, raw: bytes) -> bytes:
    """The same file as a machine of the other byte order writes it."""

    def turn(part: bytes, size: int) -> bytes:
        return np.frombuffer(part, dtype=f"<u{size}").byteswap().tobytes()

    lattice = header.matrix_start - 8 * (24 + 4 * len(header.n_orbitals))
    end = len(raw) - 80 - 4 - LINE * len(header.deck) - 4
    n_cells = struct.unpack_from("<i", raw, 20)[0]
    atv = 28 + (n_cells + 1) * 32
    return (
        turn(raw[:28], 4)
        + turn(raw[28:atv], 8)
        + turn(raw[atv:lattice], 4)
        + turn(raw[lattice:end], 8)
        + turn(raw[end : end + 4], 4)
        + turn(raw[end + 4 : end + 84], 8)
        + turn(raw[end + 84 : end + 88], 4)
        + raw[end + 88 :]
    )


def test_other_endianness_is_read(tmp_path: Path) -> None:
    header, raw = HEADER, RAW
    # No text is appended to this file, so the trailer is where `swapped` looks for it.
    assert raw[-LINE * len(header.deck) - 4 :][:4] == integer(len(header.deck))
    path = tmp_path / "big.scfout"
    path.write_bytes(swapped(header, raw))
    assert read_header(path).order == ">"
    ours, theirs = OpenMXReader().read(GOOD), OpenMXReader().read(path)
    assert ours.hamiltonian is not None
    assert theirs.hamiltonian is not None
    np.testing.assert_array_equal(ours.hamiltonian.values, theirs.hamiltonian.values)
    assert theirs.fermi_energy == ours.fermi_energy


@pytest.mark.parametrize("version", [0, 1, 2])
@pytest.mark.parametrize("name", ["water", "o2_spin", "bismuthene_soc"])
def test_older_layouts_are_read(tmp_path: Path, version: int, name: str) -> None:
    """A 3.9 file with what 3.9 added taken out is what the layout of the older versions says."""
    source = golden(f"openmx/{name}") / "openmx.scfout"
    raw, header = source.read_bytes(), read_header(source)
    block = header.size * 8
    n_h = header.matrix_index("S") + 1
    start = header.matrix_start
    density = start + (n_h + 6) * block
    density_end = density + (header.spin + 1) * block
    old = (
        raw[:4]
        + integer(header.spin + 4 * version)
        + raw[8:24]
        + raw[28 : start + (n_h + 3) * block]
        + raw[density:density_end]
        + raw[density_end + 2 * block :]
    )
    path = tmp_path / "old.scfout"
    path.write_bytes(old)
    ours, theirs = OpenMXReader().read(path), OpenMXReader().read(source)
    assert ours.hamiltonian is not None
    assert theirs.hamiltonian is not None
    np.testing.assert_array_equal(ours.hamiltonian.values, theirs.hamiltonian.values)
    assert read_header(path).version == version
    np.testing.assert_array_equal(read_header(path).read_matrix("DM0"), header.read_matrix("DM0"))


def test_density_matrix_counts_the_electrons() -> None:
    # Tr(DM S) of one spin is half the electrons; 1e-9 is the SCF's own threshold.
    assert 2 * (HEADER.read_matrix("DM0") @ HEADER.read_matrix("S")) == pytest.approx(8, abs=1e-8)


def test_text_after_the_end_is_ignored(tmp_path: Path) -> None:
    path = tmp_path / "with_out.scfout"
    path.write_bytes(RAW + b"\n SCF=  1 appended for another tool\n")
    assert OpenMXReader().read(path).spin is Spin.NONE


def test_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "bad.scfout"
    path.write_bytes(b"")
    with pytest.raises(FormatError, match=r"bad\.scfout: the file is empty"):
        read(path)


def test_text_file(tmp_path: Path) -> None:
    path = tmp_path / "bad.scfout"
    path.write_text("System.Name water\nSpecies.Number 2\n")
    with pytest.raises(FormatError, match="text where binary was expected.*System.Name"):
        read(path)


@pytest.mark.parametrize("length", [3, 23])
def test_cut_in_the_first_bytes(tmp_path: Path, length: int) -> None:
    path = tmp_path / "bad.scfout"
    path.write_bytes(RAW[:length])
    with pytest.raises(FormatError, match=f"byte 0 expected 24 bytes.*found {length}"):
        read(path)


def test_cut_in_the_matrices_says_where(tmp_path: Path) -> None:
    path = tmp_path / "bad.scfout"
    path.write_bytes(RAW[: HEADER.matrix_start + 100])
    with pytest.raises(FormatError, match=f"at byte {HEADER.matrix_start} expected .* bytes .*found 100 before"):
        read(path)


def test_unknown_version(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="unknown version: the integer at byte 4 is 16.*0 to 15"):
        read(mutated(tmp_path, 4, integer(16)))
    with pytest.raises(FormatError, match="SpinP at byte 4 is 2"):
        read(mutated(tmp_path, 4, integer(14)))


@pytest.mark.parametrize(
    ("offset", "value", "message"),
    [
        (0, 0, "number of atoms at byte 0 is 0"),
        (0, 2_000_000_000, "cut short or corrupt"),
        (20, 2_000_000_000, "cut short or corrupt"),
        (20, -5, "TCpyCell at byte 20 is -5"),
        (24, 99, "order_max at byte 24 is 99"),
        (ORBITALS, 1_000_000, f"orbitals of an atom, entry 0, at byte {ORBITALS} is 1000000"),
        (FNAN + 4, -1, f"FNAN .*entry 1, at byte {FNAN + 4} is -1"),
        (FNAN, 2_000_000_000, "FNAN"),
        (NATN + 8, 4, f"natn .*entry 2, at byte {NATN + 8} is 4, expected 1 to 3"),
        (NATN, 0, "natn .* is 0, expected 1 to 3"),
        (NCN, -1, f"ncn .*entry 0, at byte {NCN} is -1"),
        (NCN + 4, N_CELLS + 1, f"ncn .*expected 0 to {N_CELLS}"),
    ],
)
def test_counts_that_cannot_be(tmp_path: Path, offset: int, value: int, message: str) -> None:
    path = mutated(tmp_path, offset, integer(value))
    tracemalloc.start()
    with pytest.raises(FormatError, match=message):
        read(path)
    # A corrupt count must not allocate: the file itself is smaller than this.
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()


def test_neighbour_without_its_reverse(tmp_path: Path) -> None:
    with pytest.raises(PhysicsError, match=r"bad\.scfout: pair .*(more than once|reverse)"):
        read(mutated(tmp_path, NATN + 4, integer(3)))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_number_that_is_not_finite(tmp_path: Path, value: float) -> None:
    at = HEADER.matrix_start + 8 * 40
    with pytest.raises(PhysicsError, match=f"matrix H0 holds {value} at byte {at}, in the block of pair"):
        read(mutated(tmp_path, at, struct.pack("<d", value)))


@pytest.mark.parametrize("name", ["water", "o2_spin", "bismuthene_soc"])
def test_asymmetric_matrix_is_refused(tmp_path: Path, name: str) -> None:
    source = golden(f"openmx/{name}") / "openmx.scfout"
    header, raw = read_header(source), source.read_bytes()
    at = header.matrix_start + 8  # element (0, 1) of the first on-site block
    value = struct.unpack_from("<d", raw, at)[0]
    path = mutated(tmp_path, at, struct.pack("<d", value + 1e-6), raw)
    with pytest.raises(PhysicsError, match=r"matrix H0 is not hermitian: the block of pair \(0, 0, \[0, 0, 0\]\)"):
        read(path)


def test_species_without_a_pao(tmp_path: Path) -> None:
    with pytest.raises(BasisError, match=r"atom 1 is of species 'O', which has no PAO.*'Q'"):
        read(deck_replaced(tmp_path, b" O O", b" Q O"))


def test_pao_that_is_not_understood(tmp_path: Path) -> None:
    pao = next(line.split()[1] for line in HEADER.deck if line.startswith(" O O")).encode()
    with pytest.raises(BasisError, match="is not understood: expected element, radius"):
        read(deck_replaced(tmp_path, pao, b"O5.0"))


def test_pao_of_another_size(tmp_path: Path) -> None:
    pao = next(line.split()[1] for line in HEADER.deck if line.startswith(" O O")).encode()
    with pytest.raises(BasisError, match=r"PAO O5\.0-s1 has 1 orbitals, but the file holds \d+ for atom 1"):
        read(deck_replaced(tmp_path, pao, b"O5.0-s1"))


def test_block_that_is_not_closed(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="not closed"):
        read(deck_replaced(tmp_path, b"Atoms.UnitVectors>", b"#"))


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="no such file or folder"):
        read(tmp_path / "none.scfout")


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, HEADER.matrix_start - 1), st.binary(min_size=1, max_size=8))
def test_any_damage_in_the_header_is_read_or_refused(tmp_path: Path, offset: int, data: bytes) -> None:
    """No error but hamnet's own escapes, whatever the bytes."""
    path = mutated(tmp_path, offset, data)
    with contextlib.suppress(HamnetError):
        read(path)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, len(RAW) - 1))
def test_any_cut_is_refused(tmp_path: Path, length: int) -> None:
    path = tmp_path / "bad.scfout"
    path.write_bytes(RAW[:length])
    with pytest.raises(FormatError, match=r"bad\.scfout"):
        read(path)


def test_damaged_out_and_folder_copy(tmp_path: Path) -> None:
    shutil.copy(GOOD, tmp_path)
    (tmp_path / "openmx.out").write_bytes(b"\xff\xfe garbage")
    assert OpenMXReader().read(tmp_path).provenance.convergence.startswith("unknown")
