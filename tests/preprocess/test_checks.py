"""The physics doctor: a lawful calculation passes, and each law can be broken and is then named with its pair."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from factories import lawful_calculation, seeds, spins
from hypothesis import given, settings

from hamnet.core.blocks import BlockMatrix
from hamnet.core.calculation import Calculation
from hamnet.core.pairs import PairList, neighbour_pairs
from hamnet.core.spin import Spin, time_reversed
from hamnet_preprocess.check_spectra import count_electrons, eigenvalues_at, overlap_spectrum, probe_kpoints
from hamnet_preprocess.checks import Finding, check_calculation, check_file


def hamiltonian_of(calculation: Calculation) -> BlockMatrix:
    assert calculation.hamiltonian is not None
    return calculation.hamiltonian


def failed(calculation: Calculation) -> dict[str, Finding]:
    return {f.check: f for f in check_calculation("here", calculation) if not f.passed}


def without_time_reversal(calculation: Calculation) -> Calculation:
    """Moments, so that a random spinor matrix need not be time-reversal symmetric."""
    moments = np.ones((calculation.structure.n_atoms, 3))
    return dataclasses.replace(calculation, structure=dataclasses.replace(calculation.structure, moments=moments))


def without_moments(calculation: Calculation) -> Calculation:
    """No moments: a random spinor matrix then breaks time reversal."""
    return dataclasses.replace(calculation, structure=dataclasses.replace(calculation.structure, moments=None))


def off_site(matrix: BlockMatrix) -> int:
    return int(np.flatnonzero(~matrix.pairs.on_site)[0])


@settings(deadline=None, max_examples=15)
@given(seeds, spins)
def test_lawful_calculation_passes(seed: int, spin: Spin) -> None:
    findings = check_calculation("here", without_time_reversal(lawful_calculation(seed, spin)))
    assert [f for f in findings if not f.passed] == []
    assert {"key closure of H", "hermiticity of H", "S positive definite", "pairs of S inside H"} <= {
        f.check for f in findings
    }


def test_matrix_that_is_not_hermitian_names_the_pair() -> None:
    calculation = lawful_calculation(1)
    matrix = hamiltonian_of(calculation)
    p = off_site(matrix)
    values = matrix.values.copy()
    values[matrix.offsets[p]] += 0.25
    bad = failed(dataclasses.replace(calculation, hamiltonian=matrix.with_values(values)))["hermiticity of H"]
    assert bad.pair in (matrix.describe_pair(p), matrix.describe_pair(int(matrix.pairs.reverse[p])))
    assert bad.residual == pytest.approx(0.25, abs=1e-12)  # one addition of numbers of order one
    assert bad.tolerance is not None
    assert bad.residual > bad.tolerance


def test_broken_reverse_index_stops_everything_else() -> None:
    calculation = lawful_calculation(2)
    matrix = hamiltonian_of(calculation)
    p = off_site(matrix)
    pairs = matrix.pairs
    reverse = pairs.reverse.copy()
    reverse[p] = p
    broken = BlockMatrix(
        PairList(pairs.i, pairs.j, pairs.cell_shift, reverse),
        matrix.basis,
        matrix.species,
        matrix.spin,
        matrix.values,
        matrix.offsets,
    )
    findings = failed(dataclasses.replace(calculation, hamiltonian=broken))
    assert list(findings) == ["key closure of H"]
    assert findings["key closure of H"].pair == matrix.describe_pair(p)


def test_overlap_that_reaches_further_than_the_hamiltonian() -> None:
    calculation = lawful_calculation(3)
    structure, matrix = calculation.structure, hamiltonian_of(calculation)
    short = BlockMatrix.zeros(neighbour_pairs(structure, 2.0), matrix.basis, matrix.species)
    bad = failed(dataclasses.replace(calculation, hamiltonian=short))["pairs of S inside H"]
    assert bad.pair is not None
    assert bad.residual == calculation.overlap.pairs.n_pairs - short.pairs.n_pairs


def test_hamiltonian_beyond_the_orbitals_reach() -> None:
    calculation = lawful_calculation(4)
    wide = neighbour_pairs(calculation.structure, 5.0)
    matrix = hamiltonian_of(calculation).on_pairs(wide)
    bad = failed(dataclasses.replace(calculation, hamiltonian=matrix))["pairs of H inside the graph's"]
    assert bad.residual is not None
    # The cutoff less the smallest sum of two radii bounds what can be found.
    assert 0.1 < bad.residual <= 5.0 - 2.6
    assert bad.pair is not None


def test_overlap_that_is_not_positive_names_the_guilty_pair() -> None:
    calculation = lawful_calculation(5)
    overlap = calculation.overlap
    p = off_site(overlap)
    values = overlap.values.copy()
    values[overlap.offsets[p] : overlap.offsets[p + 1]] *= 400.0
    damaged = overlap.with_values(values).symmetrised()
    bad = failed(dataclasses.replace(calculation, overlap=damaged))["S positive definite"]
    assert bad.residual is not None
    assert bad.residual < 0
    assert bad.pair in (overlap.describe_pair(p), overlap.describe_pair(int(overlap.pairs.reverse[p])))


@pytest.mark.parametrize("spin", list(Spin))
def test_eigenvalues_of_the_code(spin: Spin) -> None:
    calculation = without_time_reversal(lawful_calculation(6, spin))
    kpoints = np.array([[0.0, 0.0, 0.0], [0.1, 0.2, 0.3]])
    energies = eigenvalues_at(calculation, kpoints)
    good = dataclasses.replace(calculation, kpoints=kpoints, eigenvalues=energies)
    assert failed(good) == {}
    assert "eigenvalues" in {f.check for f in check_calculation("here", good)}
    energies = energies.copy()
    energies[-1, 1, 2] += 0.01
    bad = failed(dataclasses.replace(good, eigenvalues=energies))["eigenvalues"]
    assert bad.residual == pytest.approx(0.01, abs=1e-9)  # rounding of eigh
    assert "band 2" in bad.message


def test_time_reversal() -> None:
    calculation = without_moments(lawful_calculation(7, Spin.SPINOR))
    assert failed(calculation)["time reversal"].pair is not None
    assert "time reversal" not in failed(without_time_reversal(calculation))
    matrix = hamiltonian_of(calculation)
    parts = [(g.blocks + time_reversed(g.blocks)).reshape(-1) / 2 for g in matrix.groups()]
    even = matrix.with_values(np.concatenate(parts))
    assert failed(dataclasses.replace(calculation, hamiltonian=even)) == {}
    p = off_site(matrix)
    values = even.values.copy()
    for q in (p, int(matrix.pairs.reverse[p])):
        values[even.offsets[q]] += 0.5  # a real number in uu alone: a moment on one bond
    bad = failed(dataclasses.replace(calculation, hamiltonian=even.with_values(values)))["time reversal"]
    assert bad.pair in (matrix.describe_pair(p), matrix.describe_pair(int(matrix.pairs.reverse[p])))


def test_electron_count() -> None:
    calculation = lawful_calculation(8)
    count = count_electrons(dataclasses.replace(calculation, fermi_energy=0.3, kmesh=(2, 2, 2)))
    assert count is not None
    good = dataclasses.replace(calculation, fermi_energy=0.3, kmesh=(2, 2, 2), n_electrons=count)
    assert failed(good) == {}
    assert list(failed(dataclasses.replace(good, n_electrons=count + 2))) == ["electron count"]


def test_unconverged_is_a_finding() -> None:
    assert list(failed(dataclasses.replace(lawful_calculation(9), converged=False))) == ["converged"]


def test_probe_points_keep_to_the_periodic_directions() -> None:
    assert probe_kpoints(np.array([False] * 3)).tolist() == [[0.0, 0.0, 0.0]]
    flat = probe_kpoints(np.array([True, True, False]))
    assert len(flat) > 3
    assert (flat[:, 2] == 0).all()


def test_least_eigenvalue_of_the_identity_is_one() -> None:
    overlap = lawful_calculation(10).overlap
    identity = np.zeros_like(overlap.values)
    for p in np.flatnonzero(overlap.pairs.on_site):
        n = overlap.block(int(p)).shape[0]
        identity[overlap.offsets[p] : overlap.offsets[p + 1]] = np.eye(n).reshape(-1)
    least, largest, _ = overlap_spectrum(overlap.with_values(identity), probe_kpoints(np.array([True] * 3)))
    # Eigenvalues of the identity: exact up to rounding.
    assert (least, largest) == pytest.approx((1.0, 1.0), abs=1e-14)


def gaussian_water() -> Calculation:
    pytest.importorskip("pyscf")
    from pyscf import gto, scf

    from hamnet_preprocess.pyscf import from_mean_field

    molecule = gto.M(atom="O 0 0 0; H 0.96 0 0; H -0.24 0.93 0", basis="def2-svp", verbose=0)
    return from_mean_field(scf.RHF(molecule).run(conv_tol=1e-10))


def test_overlap_is_rebuilt_from_gaussians() -> None:
    calculation = gaussian_water()
    findings = {f.check: f for f in check_calculation("water", calculation)}
    assert all(f.passed for f in findings.values())
    assert "S rebuilt from the basis" in findings
    overlap = calculation.overlap
    p = off_site(overlap)
    values = overlap.values.copy()
    for q in (p, int(overlap.pairs.reverse[p])):
        values[overlap.offsets[q]] *= -1  # a wrong sign convention of one orbital
    bad = failed(dataclasses.replace(calculation, overlap=overlap.with_values(values)))["S rebuilt from the basis"]
    assert bad.pair in (overlap.describe_pair(p), overlap.describe_pair(int(overlap.pairs.reverse[p])))


def test_store_with_a_sick_calculation_is_refused_by_the_command(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from hamnet.cli import app
    from hamnet.data.store import write_store

    good = lawful_calculation(11)
    matrix = hamiltonian_of(good)
    wide = matrix.on_pairs(neighbour_pairs(good.structure, 5.0))
    path = tmp_path / "mixed.h5"
    write_store(path, [("good", good), ("sick", dataclasses.replace(good, hamiltonian=wide))])
    result = CliRunner().invoke(app, ["check", str(path), "--json"])
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert report["passed"] is False
    bad = [f for f in report["findings"] if not f["passed"]]
    assert [(f["source"], f["check"]) for f in bad] == [("sick", "pairs of H inside the graph's")]
    assert bad[0]["pair"]
    write_store(tmp_path / "good.h5", [("good", good)])
    assert CliRunner().invoke(app, ["check", str(tmp_path / "good.h5")]).exit_code == 0


def test_real_openmx_output_passes(shared_dir: Path) -> None:
    import golden_files

    for name in ("graphene/prim", "diamond/prim", "mos2_soc/prim", "hgraphene_spin", "water"):
        folder = golden_files.shared_data(f"openmx/{name}")
        assert folder is not None
        assert [f for f in check_file(folder) if not f.passed] == [], name
