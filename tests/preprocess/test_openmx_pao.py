"""OpenMX's .pao files. No number of a real one is in this repository: those tests need the shared data."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
from golden_files import golden, shared_data
from numpy.testing import assert_allclose
from typer.testing import CliRunner

from hamnet.cli import app
from hamnet.core.basis import OrbitalBasis
from hamnet.core.overlap import two_centre_overlap
from hamnet.data.store import Store
from hamnet.errors import BasisError, FormatError, PhysicsError
from hamnet_preprocess.openmx import OpenMXReader
from hamnet_preprocess.openmx_deck import parse_pao
from hamnet_preprocess.openmx_pao import attach, read_pao, with_radial_functions

SYSTEMS = (
    "graphene/prim",
    "graphene/prim_dzp",
    "hbn/prim",
    "silicon/prim",
    "diamond/rattle222/0",
    "bilayer/train2x2/000",
    "bismuthene_soc/prim",
    "mos2_soc/prim",
    "water",
    "methane",
    "hgraphene_spin",
    "o2_spin",
    "o2_noncollinear_soc",
)


def made_up(path: Path, rows: int = 300, norm: float = 1.0) -> list[str]:
    """Lines of a file of our own making: two s and one p from Gaussians, cut at a radius; written to the path."""
    x = np.linspace(-7.0, 2.0, rows)
    r = np.exp(x)
    lines = ["some words", "PAO.Lmax 1", "PAO.Mul 2"]
    for l, exponents in ((0, (0.6, 1.5)), (1, (0.8, 1.1))):
        lines.append(f"<pseudo.atomic.orbitals.L={l}")
        columns = [np.where(r < 5.0, r**l * np.exp(-a * r**2), 0.0) for a in exponents]
        columns = [c * np.sqrt(norm / np.trapezoid(r**3 * c**2, x)) for c in columns]
        lines += [" ".join(f"{v:.15f}" for v in row) for row in zip(x, r, *columns, strict=True)]
        lines.append(f"pseudo.atomic.orbitals.L={l}>")
    path.write_text("\n".join(lines) + "\n")
    return lines


@pytest.fixture(scope="module")
def pao() -> Path:
    folder = shared_data("pao")
    if folder is None:
        pytest.skip("OpenMX's .pao files are GPL and not ours to ship: set HAMNET_SHARED_DATA to a folder with pao/")
    return folder


def system(name: str) -> Path:
    folder = shared_data(f"openmx/{name}")
    if folder is None:
        pytest.skip("the shared data is not here: set HAMNET_SHARED_DATA")
    return folder


def test_columns_become_radial_functions(tmp_path: Path) -> None:
    made_up(tmp_path / "C5.0.pao")
    file = read_pao(tmp_path / "C5.0.pao")
    assert sorted(file.columns) == [0, 1]
    basis = with_radial_functions(OrbitalBasis((parse_pao("C5.0-s2p1")[0],)), tmp_path)
    tight = basis.species[0].shells[1].radial
    assert tight is not None
    r, values, slopes = (np.array(v) for v in (tight.r, tight.values, tight.slopes))
    inside = r < 1.0
    bohr = 0.529177210903
    expected = -2 * 1.5 * r / bohr**2 * values
    # Parabolas through points 3 % apart: slopes to 0.2 % of their largest.
    assert_allclose(slopes[inside], expected[inside], atol=2e-3 * np.abs(expected).max())
    assert abs(values[-1]) < 1e-9 * values.max()  # the table goes on to where it is negligible
    assert OrbitalBasis.from_json(basis.to_json()) == basis


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda t: t.replace("orbitals.L=0>", "orbitals.L=7>"), r"line 4: .*not closed before line 306"),
        (lambda t: t[: len(t) // 2], "line 4: .*cut short|line 1[0-9][0-9]: .*expected 4"),
        (lambda t: t.replace("<pseudo.atomic.orbitals.L=0", "<pseudo.atomic.orbitals.L=x"), "line 4: found .*0 to 6"),
        (lambda t: _line(t, 9, lambda row: row.replace(".", "?")), "line 10: found .*expected numbers"),
        (lambda t: _line(t, 9, lambda row: row + " 1.0"), "line 10: found 5 numbers, expected 4"),
        (lambda t: _line(t, 9, lambda row: row.rsplit(" ", 1)[0] + " nan"), "line 10: .*not finite"),
        (lambda t: _line(t, 9, lambda row: row.replace("-", "-9", 1)), r"line 10: r = .* is not exp\(-9"),
        (lambda t: "\n".join(t.split("\n")[:9] + t.split("\n")[8:]), "line 10: r = .* does not increase"),
        (lambda t: "nothing", "no section .*L=0"),
    ],
)
def test_damaged_files_are_refused_with_the_line(tmp_path: Path, spoil, message: str) -> None:
    path = tmp_path / "C5.0.pao"
    text = spoil("\n".join(made_up(path)))
    path.write_text(text)
    with pytest.raises(FormatError, match=message):
        read_pao(path)


def _line(text: str, at: int, change) -> str:
    lines = text.split("\n")
    lines[at] = change(lines[at])
    return "\n".join(lines)


def test_what_a_folder_lacks_is_named(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="cannot be read"):
        read_pao(tmp_path / "absent.pao")
    made_up(tmp_path / "C5.0.pao")
    with pytest.raises(BasisError, match=r"'C6.0-s1' needs .*C6.0.pao.*there: \['C5.0.pao'\].*--pao"):
        with_radial_functions(OrbitalBasis((parse_pao("C6.0-s1")[0],)), tmp_path)
    with pytest.raises(BasisError, match="no p number 3"):
        with_radial_functions(OrbitalBasis((parse_pao("C5.0-s2p3")[0],)), tmp_path)
    with pytest.raises(BasisError, match="no d number 1"):
        with_radial_functions(OrbitalBasis((parse_pao("C5.0-s2d1")[0],)), tmp_path)
    path = tmp_path / "H5.0.pao"
    made_up(path, norm=2.0)
    with pytest.raises(FormatError, match="norm"):
        with_radial_functions(OrbitalBasis((parse_pao("H5.0-s1")[0],)), tmp_path)


def test_files_of_another_basis_are_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Their S is not the file's: with --pao an error, with the deck's own DATA.PATH a warning."""
    source = golden("openmx/graphene")
    calculation = OpenMXReader().read(source)
    (tmp_path / "DFT_DATA19/PAO").mkdir(parents=True)
    made_up(tmp_path / "DFT_DATA19/PAO/C5.0.pao")
    with pytest.raises(PhysicsError, match=r"differs from that of .* at pair \(.*not the files that OpenMX ran with"):
        attach(calculation, tmp_path / "DFT_DATA19/PAO")
    shutil.copytree(source, tmp_path / "run")
    with caplog.at_level(logging.WARNING):
        read = OpenMXReader().read(tmp_path / "run")
    assert read.basis == calculation.basis
    assert "radial functions left out" in caplog.text
    result = CliRunner().invoke(
        app, ["preprocess", "openmx", str(source), "-o", str(tmp_path / "s.h5"), "--pao", str(tmp_path), "--json"]
    )
    assert result.exit_code == 1
    assert "BasisError" in json.loads(result.stdout)["failures"][0]["reason"]


@pytest.mark.parametrize("name", SYSTEMS)
def test_overlap_equals_openmx(pao: Path, name: str) -> None:
    calculation = OpenMXReader().read(system(name), allow_unconverged=True)
    basis = with_radial_functions(calculation.basis, pao)
    overlap = two_centre_overlap(calculation.structure, basis, calculation.overlap.pairs)
    # 1e-6 is asked for; found 1e-8 to 1.1e-7, largest on-site, where OpenMX's 900 points in k and r end.
    assert_allclose(overlap.values, calculation.overlap.values, atol=2e-7)
    assert overlap.hermitian_residual()[0] == 0.0


def test_the_basis_travels_from_the_dft_run_to_a_big_cell(tmp_path: Path, pao: Path) -> None:
    store, big = tmp_path / "data.h5", tmp_path / "S.h5"
    run = CliRunner()
    source = str(system("graphene/prim"))
    assert run.invoke(app, ["preprocess", "openmx", source, "-o", str(store)]).exit_code == 0
    # read again because the radial functions were not there the first time
    again = run.invoke(app, ["preprocess", "openmx", source, "-o", str(store), "--pao", str(pao), "--json"])
    assert json.loads(again.stdout)["read"] == 1
    with Store(store) as opened:
        calculation = opened.read(0)
        assert opened.basis.species[0].has_radial_functions
        assert opened.basis.hash == opened.metadata["basis_hash"]
    cell = calculation.structure.cell
    lines = ["graphene", "1.0", *(" ".join(map(repr, row)) for row in cell.tolist()), "C", "2", "Cartesian"]
    lines += [" ".join(map(repr, row)) for row in calculation.structure.positions.tolist()]
    (tmp_path / "POSCAR").write_text("\n".join(lines))
    command = ["overlap", str(tmp_path / "POSCAR"), "--basis-from", str(store), "-o", str(big), "--json"]
    figures = json.loads(run.invoke(app, command).stdout)
    assert "radial functions" in figures["origin"]
    with Store(big) as opened:
        found = opened.read(0)
    assert found.hamiltonian is None
    assert_allclose(found.overlap.on_pairs(calculation.overlap.pairs).values, calculation.overlap.values, atol=2e-7)


def test_the_decks_own_data_path_is_found(tmp_path: Path, pao: Path) -> None:
    (tmp_path / "DFT_DATA19").mkdir()
    shutil.copytree(pao, tmp_path / "DFT_DATA19/PAO")
    shutil.copytree(golden("openmx/graphene"), tmp_path / "run")
    assert OpenMXReader().read(tmp_path / "run").basis.species[0].has_radial_functions
