"""OpenMX reader: physics against OpenMX's own numbers."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from golden_files import golden, shared_data

from hamnet.core.bloch import BlochSum
from hamnet.core.calculation import Calculation
from hamnet.core.pairs import orbital_pairs
from hamnet.core.spin import Spin, spinor_to_pauli, time_reversed
from hamnet.core.units import HARTREE
from hamnet.errors import ConfigError, ConvergenceError, FormatError
from hamnet.testing import ReaderContract, eigenvalues_at
from hamnet_preprocess.openmx import OpenMXReader
from hamnet_preprocess.openmx_band import read_band
from hamnet_preprocess.openmx_out import on_mesh
from hamnet_preprocess.reader import reader

GOLDEN_BANDS = ("graphene", "hbn", "bismuthene_soc", "o2_noncollinear_soc")
SHARED_BANDS = (
    "graphene/prim_dzp",
    "silicon/prim",
    "diamond/prim",
    "bismuthene_soc/prim_300Ry",
    "mos2_soc/prim",
    "hgraphene_spin",
)


def read(name: str, **options: bool) -> Calculation:
    return OpenMXReader().read(golden(f"openmx/{name}"), **options)


class TestContractSpinless(ReaderContract):
    reader = OpenMXReader()
    eigenvalue_tolerance = 1e-5  # the k-points are those of the mesh; S of the highest states amplifies rounding

    @pytest.fixture
    def source(self) -> Path:
        return golden("openmx/hbn")


class TestContractSpinor(TestContractSpinless):
    @pytest.fixture
    def source(self) -> Path:
        return golden("openmx/bismuthene_soc")


class TestContractCollinear(TestContractSpinless):
    eigenvalue_tolerance = 1e-6  # one k-point, Gamma: nothing but rounding

    @pytest.fixture
    def source(self) -> Path:
        return golden("openmx/o2_spin")


class TestContractMolecule(TestContractCollinear):
    @pytest.fixture
    def source(self) -> Path:
        return golden("openmx/water")


def band_deviation(folder: Path) -> float:
    """Largest deviation (eV) of H(k)'s eigenvalues from the folder's .Band."""
    calculation = OpenMXReader().read(folder, allow_unconverged=True)
    bands = read_band(next(folder.glob("*.Band")))
    # Zero of energy: the printed chemical potential has fifteen digits.
    assert bands.fermi_energy == pytest.approx(calculation.fermi_energy, abs=1e-9)
    ks = range(len(bands.kpoints))
    return max(np.abs(eigenvalues_at(calculation, bands.kpoints[k]) - bands.energies[:, k]).max() for k in ks)


@pytest.mark.parametrize("name", GOLDEN_BANDS)
def test_bands_equal_openmx(name: str) -> None:
    # The largest seen is 8.7e-8 (h-BN), from H's own asymmetry.
    assert band_deviation(golden(f"openmx/{name}")) < 1e-6


@pytest.mark.parametrize("name", SHARED_BANDS)
def test_bands_equal_openmx_on_shared_data(name: str) -> None:
    folder = shared_data(f"openmx/{name}")
    if folder is None:
        pytest.skip("the shared data is not here")
    assert band_deviation(folder) < 1e-6


def test_nonmagnetic_spinor_is_time_reversal_symmetric() -> None:
    h = read("bismuthene_soc").hamiltonian
    assert h is not None
    # OpenMX's spin-orbit blocks keep time reversal to 5e-9 Hartree; a wrong sign in any part breaks it by 0.1 eV.
    assert max(np.abs(g.blocks - time_reversed(g.blocks)).max() for g in h.groups()) < 5e-9 * HARTREE * 4
    assert max(np.abs(spinor_to_pauli(g.blocks)[:, 1:]).max() for g in h.groups()) > 0.1


def test_kramers_pairs_at_time_reversal_points() -> None:
    calculation = read("bismuthene_soc")
    for k in ([0, 0, 0], [0.5, 0, 0], [0.5, 0.5, 0]):
        e = eigenvalues_at(calculation, np.array(k, dtype=np.float64))[0]
        assert np.abs(e[::2] - e[1::2]).max() < 1e-6  # 5e-9 Hartree of noise in H


@pytest.mark.parametrize("name", ["graphene", "hbn", "bismuthene_soc", "o2_spin", "water"])
def test_pairs_are_those_whose_orbitals_overlap(name: str) -> None:
    calculation = read(name)
    expected = orbital_pairs(calculation.structure, calculation.basis)
    found = calculation.overlap.pairs
    assert expected.n_pairs == found.n_pairs
    assert (found.find(expected) >= 0).all()


def test_water_is_what_its_files_say() -> None:
    calculation = read("water")
    assert calculation.structure.atomic_numbers.tolist() == [8, 1, 1]
    assert calculation.structure.pbc.all()
    np.testing.assert_allclose(
        calculation.structure.positions[0], [4.53, 4.50, 4.52], atol=1e-6
    )  # ten decimals, bohr 2014
    assert calculation.energy == pytest.approx(-17.454061503623 * HARTREE)
    assert calculation.forces is not None
    # Newton's third law holds to what the grid breaks: 1e-3 Hartree/bohr.
    assert np.abs(calculation.forces.sum(axis=0)).max() < 0.05
    assert calculation.n_electrons == 8
    assert calculation.kmesh == (1, 1, 1)
    assert calculation.electronic_temperature == 300
    assert calculation.converged
    origin = calculation.provenance
    assert (origin.code, origin.version, origin.functional, origin.grid) == ("OpenMX", "3.9", "GGA-PBE", "150 Ry")


def test_electrons_fill_the_bands_of_a_molecule() -> None:
    calculation = read("water")
    e = eigenvalues_at(calculation, np.zeros(3))[0]
    assert 2 * (e < calculation.fermi_energy).sum() == calculation.n_electrons


def test_collinear_moment_and_spin_order() -> None:
    calculation = read("o2_spin")
    assert calculation.spin is Spin.COLLINEAR
    np.testing.assert_allclose(calculation.structure.moments, [[0, 0, 1], [0, 0, 1]], atol=1e-6)
    up, down = (eigenvalues_at(calculation, np.zeros(3)) < calculation.fermi_energy).sum(axis=1)
    assert (up, down) == (7, 5)


def test_noncollinear_moments_are_those_of_the_density_of_h() -> None:
    calculation = read("o2_noncollinear_soc", allow_unconverged=True)
    moments = calculation.structure.moments
    assert moments is not None
    h, s = BlochSum(calculation.hamiltonian), BlochSum(calculation.overlap)
    # The exchange part of H points against the moment: its spin components times S, summed, are antiparallel.
    pauli = spinor_to_pauli(h.dense(np.zeros(3)))
    field = np.array([np.trace(pauli[a] @ np.linalg.inv(s.dense(np.zeros(3)))).real for a in (1, 2, 3)])
    total = moments.sum(axis=0)
    # Not converged, and spin-orbit coupling turns them a little: 0.9 of antiparallel.
    assert field @ total / np.linalg.norm(field) / np.linalg.norm(total) < -0.9


@pytest.mark.parametrize("name", ["diamond/prim", "mos2_soc/prim", "hgraphene_spin", "graphene/train3x3/000", "water"])
def test_eigenvalues_in_the_out_are_those_of_the_stored_matrices(name: str) -> None:
    folder = shared_data(f"openmx/{name}")
    if folder is None:
        pytest.skip("the shared data is not here")
    calculation = OpenMXReader().read(folder)
    assert calculation.kpoints is not None
    assert calculation.eigenvalues is not None
    few = slice(0, len(calculation.kpoints), max(1, len(calculation.kpoints) // 5))
    ours = np.stack([eigenvalues_at(calculation, k) for k in calculation.kpoints[few]], axis=1)
    theirs = calculation.eigenvalues[:, few]
    n = min(ours.shape[-1], theirs.shape[-1])
    # Printed with 14 decimals; S amplifies rounding by its condition, so the highest states are left out.
    near = ours[..., :n] < calculation.fermi_energy + 5
    assert np.abs(ours[..., :n] - theirs[..., :n])[near].max() < 2e-7


def test_printed_kpoints_go_back_to_their_mesh() -> None:
    printed = np.array([[-0.42857, 0.14286, 0.0], [0.33333, -0.33333, 0.0]])
    exact = on_mesh(printed[:1], (7, 7, 1))
    np.testing.assert_allclose(exact, [[-3 / 7 + 1e-6, 1 / 7 - 1e-6, 2e-6]], atol=1e-15)  # rounding of doubles
    assert on_mesh(printed, (7, 7, 1)) is printed


def test_unconverged_is_refused_unless_asked_for() -> None:
    with pytest.raises(ConvergenceError, match="200 cycles.*allow_unconverged"):
        read("o2_noncollinear_soc")
    assert not read("o2_noncollinear_soc", allow_unconverged=True).converged


def test_without_out_convergence_is_unknown(tmp_path: Path) -> None:
    shutil.copy(golden("openmx/water") / "openmx.scfout", tmp_path)
    calculation = OpenMXReader().read(tmp_path)
    assert calculation.converged
    assert calculation.provenance.convergence.startswith("unknown")
    assert calculation.energy is None


def test_find_lists_outputs_and_inputs_without_output(tmp_path: Path) -> None:
    for name in ("a", "b/c", "unrun"):
        (tmp_path / name).mkdir(parents=True)
        shutil.copy(golden("openmx/water") / "openmx.dat", tmp_path / name)
    for name in ("a", "b/c"):
        shutil.copy(golden("openmx/water") / "openmx.scfout", tmp_path / name)
    found = OpenMXReader().find(tmp_path)
    assert found == [tmp_path / "a", tmp_path / "b/c", tmp_path / "unrun"]
    with pytest.raises(FormatError, match=r"unrun: no \.scfout here.*openmx\.dat.*HS\.fileout on"):
        OpenMXReader().read(found[2])


def test_two_outputs_in_one_folder_are_named(tmp_path: Path) -> None:
    for name in ("x.scfout", "y.scfout"):
        shutil.copy(golden("openmx/water") / "openmx.scfout", tmp_path / name)
    with pytest.raises(FormatError, match=r"x\.scfout.*y\.scfout"):
        OpenMXReader().read(tmp_path)
    assert OpenMXReader().read(tmp_path / "x.scfout").structure.n_atoms == 3


def test_band_labels_and_cut_band_file(tmp_path: Path) -> None:
    path = golden("openmx/graphene") / "openmx.Band"
    bands = read_band(path)
    assert bands.labels == ((0, "G"), (19, "M"), (20, "M"), (39, "K"), (40, "K"), (59, "G"))
    assert bands.energies.shape == (1, 60, 10)
    cut = tmp_path / "cut.Band"
    cut.write_text("\n".join(path.read_text().splitlines()[:20]))
    with pytest.raises(FormatError, match="line 21 should hold"):
        read_band(cut)
    cut.write_text("not bands\n")
    with pytest.raises(FormatError, match="line 1 is 'not bands'"):
        read_band(cut)


def test_readers_by_name() -> None:
    assert isinstance(reader("openmx"), OpenMXReader)
    with pytest.raises(ConfigError, match="openmx"):
        reader("vasp")
