"""CP2K's recorded runs: bands, overlap, images, spin, text and binary."""

import json
import shutil

import numpy as np
import pytest
from cp2k_cases import calculation, run, spoiled
from numpy.testing import assert_allclose
from typer.testing import CliRunner

from hamnet.cli import app
from hamnet.core.spin import Spin
from hamnet.errors import ConvergenceError, PhysicsError
from hamnet.testing import ReaderContract, eigenvalues_at
from hamnet_preprocess.check_spectra import count_electrons
from hamnet_preprocess.cp2k import CP2KReader
from hamnet_preprocess.cp2k_csr import csr_files, read_csr
from hamnet_preprocess.pyscf_overlap import overlap_from_basis


class TestCP2KReader(ReaderContract):
    reader = CP2KReader()
    eigenvalue_tolerance = 1e-6  # the .bs has eight decimals in eV and in k: 2e-7 found, 1e-5 promised

    @pytest.fixture(params=["hbn_2d", "h_spin"])
    def source(self, request):
        return run(request.param)


@pytest.mark.parametrize("name", ["si", "al", "hbn", "hbn_2d", "hbn_binary", "h_spin", "bn_ties"])
def test_bands_are_those_of_the_bs_off_the_mesh(name):
    """The k-points of a .bs are a path: a band that is right there needs no finer mesh."""
    found = calculation(name)
    n = found.eigenvalues.shape[2]
    for k, kpoint in enumerate(found.kpoints):
        # eight decimals of k times a slope of some 20 eV, and eight decimals of the energy
        assert_allclose(eigenvalues_at(found, kpoint)[:, :n], found.eigenvalues[:, k], atol=1e-6)


@pytest.mark.parametrize(
    ("name", "tolerance"),
    [("si", 1e-8), ("al", 1e-8), ("hbn", 1e-8), ("hbn_2d", 1e-8), ("hbn_binary", 1e-8), ("h_spin", 1e-7)],
)
def test_overlap_is_that_of_the_basis(name, tolerance):
    """Order, sign, contraction, images at once. CP2K leaves out primitives below sqrt(EPS_DEFAULT): 1e-5 in h_spin."""
    found = calculation(name)
    rebuilt = overlap_from_basis(found.structure, found.basis, found.overlap.pairs)
    assert_allclose(found.overlap.values, rebuilt.values, atol=tolerance)


def test_figures_of_silicon():
    found = calculation("si")
    (kind,) = found.basis.species
    assert kind.label == "Si:szv-molopt-sr-gth/gth-pbe-q4"
    assert (kind.shell_ls, kind.valence_electrons, found.n_electrons) == ((0, 1), 4, 8)
    assert (found.kmesh, found.spin, found.converged) == ((3, 3, 3), Spin.NONE, True)
    assert found.energy == pytest.approx(-7.80444938928257 * 27.211386245988, abs=1e-8)
    assert_allclose(found.structure.cell, 5.431 / 2 * (1 - np.eye(3)), atol=2e-8)  # CP2K's bohr differs by 4e-9
    assert found.fermi_energy is None  # printed with smearing only
    assert (found.provenance.code, found.provenance.version, found.provenance.functional) == ("CP2K", "2023.1", "PBE")
    assert "eps_scf 1.00E-08" in found.provenance.convergence
    assert found.provenance.grid.startswith("200 Ry")


def test_metal_has_a_fermi_level_and_a_temperature():
    found = calculation("al")
    assert found.fermi_energy == pytest.approx(0.30388115436017 * 27.211386245988)
    assert found.electronic_temperature == 1000


def test_spin_channels_are_alpha_and_beta():
    found = calculation("h_spin")
    assert found.spin is Spin.COLLINEAR
    assert found.eigenvalues[0].min() < found.eigenvalues[1].min() - 1  # the filled channel lies lower
    assert_allclose(found.structure.moments, [[0, 0, 1]], atol=1e-3)  # Mulliken moment of one electron
    assert found.n_electrons == 1


def test_species_know_their_d_shells():
    boron, nitrogen = calculation("hbn").basis.species
    assert (boron.shell_ls, nitrogen.shell_ls) == ((0, 0, 1, 1, 2), (0, 1))


def test_slab_is_periodic_in_two_directions():
    found = calculation("hbn_2d")
    assert found.structure.pbc.tolist() == [True, True, False]
    assert not found.hamiltonian.pairs.cell_shift[:, 2].any()


def test_molecule_needs_no_images():
    found = calculation("hf_molecule")
    assert not found.structure.is_periodic
    assert found.hamiltonian.pairs.n_pairs == 4
    assert_allclose(found.forces[0], np.array([-0.00699812, 0, -0.07124883]) * 51.42206747632590, atol=1e-6)
    assert found.basis.species[1].shell_ls == (0, 0, 1, 1, 2)  # three sets of the second basis-set file
    rebuilt = overlap_from_basis(found.structure, found.basis, found.overlap.pairs)
    assert_allclose(found.overlap.values, rebuilt.values, atol=1e-8)


def test_text_and_binary_are_one(tmp_path):
    folder = spoiled("hbn_binary", tmp_path)
    for file in csr_files(folder):
        rows = zip(*read_csr(file.path), strict=True)
        file.path.write_text("".join(f"{i + 1:8d}{j + 1:8d} {x:.14E}\n" for i, j, x in rows))
    assert len(csr_files(folder)) > 100
    again, found = CP2KReader().read(folder), calculation("hbn_binary")
    assert_allclose(again.hamiltonian.values, found.hamiltonian.values, atol=1e-12)  # fifteen digits in the text


def test_upper_triangles_are_completed(tmp_path):
    folder = spoiled("h_spin", tmp_path)
    for file in csr_files(folder):
        i, j, x = read_csr(file.path)
        upper = zip(i[i <= j], j[i <= j], x[i <= j], strict=True)
        file.path.write_text("".join(f"{a + 1:8d}{b + 1:8d} {v:.14E}\n" for a, b, v in upper))
    again, found = CP2KReader().read(folder), calculation("h_spin")
    assert_allclose(again.hamiltonian.values, found.hamiltonian.values, atol=1e-12)


def test_atom_at_a_half_is_counted_from_where_cp2k_has_it():
    """Read at all means that S agrees with integrals: 0.6 off with the wrong side."""
    found = calculation("bn_ties")
    assert_allclose((found.structure.positions @ np.linalg.inv(found.structure.cell))[1], [-0.5, 0.5, 0.5], atol=1e-12)
    rebuilt = overlap_from_basis(found.structure, found.basis, found.overlap.pairs)
    assert_allclose(found.overlap.values, rebuilt.values, atol=1e-6)  # EPS_DEFAULT 1e-10


def test_unconverged_needs_consent():
    with pytest.raises(ConvergenceError, match="did not converge: convergence .* after 2 cycles, eps_scf"):
        CP2KReader().read(run("bn_ties"))
    assert not calculation("bn_ties").converged


def test_names_are_free(tmp_path):
    """Other names of input, output and project; the output itself is a source too."""
    folder = spoiled("h_spin", tmp_path)
    (folder / "cp2k.out").rename(folder / "night.log")
    (folder / "cp2k.inp").rename(folder / "mine.inp")
    for file in csr_files(folder):
        file.path.rename(folder / file.path.name.replace("uks_hatom", "other-H_atom"))
    assert CP2KReader().find(tmp_path) == [folder]
    for source in (folder, folder / "night.log"):
        assert_allclose(CP2KReader().read(source).overlap.values, calculation("h_spin").overlap.values)


def test_output_with_an_older_run_before_it(tmp_path):
    folder = spoiled("h_spin", tmp_path)
    text = (folder / "cp2k.out").read_text()
    older = text.replace("0.20314533978036", "9.99999999999999")
    (folder / "cp2k.out").write_text(older + text)
    assert CP2KReader().read(folder).fermi_energy == pytest.approx(0.20314533978036 * 27.211386245988)


def test_find_skips_hidden_folders_and_keeps_broken_ones(tmp_path):
    for name in ("good", ".x.part", "broken"):
        shutil.copytree(run("h_spin"), tmp_path / name)
    for path in (tmp_path / "broken").glob("*.csr"):
        path.unlink()
    (tmp_path / "empty").mkdir()
    assert CP2KReader().find(tmp_path) == [tmp_path / "broken", tmp_path / "good"]


def invoke(*arguments, code=0):
    result = CliRunner().invoke(app, [str(word) for word in arguments])
    assert result.exit_code == code, result.output
    return result.output


def last(output):
    return json.loads(output.splitlines()[-1])


def test_verbs(tmp_path):
    folder, store = run("h_spin"), tmp_path / "h.h5"
    assert last(invoke("preprocess", "cp2k", folder, "-o", store, "--json"))["read"] == 1
    found = last(invoke("inspect", folder, "--json"))
    assert (found["calculations"], found["spin"]) == (1, ["collinear"])
    bs = folder / "uks_hatom.bs"
    figures = last(invoke("bands", store, "--compare", bs, "-o", tmp_path / "b", "--json"))
    assert figures["max_difference_eV"] < 1e-6  # as above
    few = tmp_path / "few.bs"
    lines = bs.read_text().replace("5 bands", "2 bands").splitlines()
    few.write_text("\n".join(line for line in lines if line.startswith("#") or int(line.split()[0]) <= 2) + "\n")
    assert "5 bands against 2" in invoke("bands", folder, "--compare", few, "-o", tmp_path / "b")


def test_electrons_are_counted_on_the_mesh_that_cp2k_used():
    """Monkhorst and Pack's 4x4x4 does not hold Gamma; on the one that does aluminium has 3.16 electrons."""
    found = calculation("al")
    assert count_electrons(found) == pytest.approx(3, abs=1e-4)  # the Fermi level comes from the same sum


def test_a_reference_with_more_bands_is_an_error(tmp_path):
    output = tmp_path / "b"
    result = CliRunner().invoke(
        app, ["bands", str(run("al")), "--compare", str(run("si") / "si.bs"), "-o", str(output)]
    )
    assert result.exit_code == 1
    assert isinstance(result.exception, PhysicsError)
    assert "the reference has 8 bands, the calculation 4" in str(result.exception)


def test_scheme_gamma_is_a_mesh_of_one(tmp_path):
    folder = spoiled("h_spin", tmp_path)
    out = (folder / "cp2k.out").read_text()
    grid = next(line for line in out.splitlines() if "K-Point grid" in line)
    (folder / "cp2k.out").write_text(out.replace(grid, f" BRILLOUIN|{'Gamma-point calculation':>69}"))
    assert CP2KReader().read(folder).kmesh == (1, 1, 1)
