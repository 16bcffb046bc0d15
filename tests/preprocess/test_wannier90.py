"""Wannier90's _hr.dat: read back by a small parser of our own, bands against the original."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from foreign_cases import KPOINTS, openmx_case

from hamnet.core.calculation import Calculation
from hamnet.core.spin import Spin
from hamnet.errors import ConfigError, PhysicsError
from hamnet.testing import eigenvalues_at
from hamnet_preprocess.wannier90 import write_wannier90


def bands_of_file(path: Path, kpoint: np.ndarray) -> np.ndarray:
    """Eigenvalues from a _hr.dat as its documentation reads: H_mn(k) = sum_R exp(2 pi i k.R) H_mn(R) / ndegen."""
    lines = path.read_text().splitlines()
    n, n_images = int(lines[1]), int(lines[2])
    n_lines = -(-n_images // 15)
    weights = np.array(" ".join(lines[3 : 3 + n_lines]).split(), dtype=int)
    table = np.array([line.split() for line in lines[3 + n_lines :]], dtype=float).reshape(n_images, n * n, 7)
    h = np.zeros((n, n), dtype=complex)
    for image, weight in zip(table, weights, strict=True):
        m, j = image[:, 3].astype(int) - 1, image[:, 4].astype(int) - 1
        block = np.zeros((n, n), dtype=complex)
        block[m, j] = image[:, 5] + 1j * image[:, 6]
        h += np.exp(2j * np.pi * kpoint @ image[0, :3]) * block / weight
    assert np.abs(h - h.conj().T).max() < 1e-9  # twelve printed decimals, summed over the images
    return np.linalg.eigvalsh(h)


@pytest.mark.parametrize("name", ["graphene", "water", "o2_noncollinear_soc"])
def test_bands_agree(name: str, tmp_path: Path) -> None:
    case = openmx_case(name)
    # a coarser mesh than the default, which would take most of the time of these tests
    tolerance = 1e-3
    report = write_wannier90(case, tmp_path / "x_hr.dat", tolerance)
    assert "Loewdin" in (tmp_path / "x_hr.dat").read_text().splitlines()[0]
    for k in KPOINTS[:2] if report["mesh"] != [1, 1, 1] else KPOINTS[:1]:
        error = np.abs(bands_of_file(tmp_path / "x_hr.dat", k) - eigenvalues_at(case, k)[0]).max()
        # twelve decimals times the number of images, or what the mesh leaves
        assert error < 1e-8 + 3 * report["deviation"]
    assert report["deviation"] < tolerance


def test_collinear_gives_two_files(tmp_path: Path) -> None:
    case = openmx_case("o2_spin")
    assert case.spin is Spin.COLLINEAR
    write_wannier90(case, tmp_path / "o2_hr.dat")
    for s, name in enumerate(("up", "dn")):
        found = bands_of_file(tmp_path / f"o2_{name}_hr.dat", np.zeros(3))
        np.testing.assert_allclose(found, eigenvalues_at(case, np.zeros(3))[s], atol=1e-9)
    assert "num_wann" in (tmp_path / "o2.win").read_text()


def test_refusals(tmp_path: Path) -> None:
    case = openmx_case("graphene")
    with pytest.raises(ConfigError, match=r"end in _hr\.dat"):
        write_wannier90(case, tmp_path / "x.dat")
    with pytest.raises(PhysicsError, match="no Hamiltonian"):
        write_wannier90(Calculation(case.structure, case.basis, case.overlap), tmp_path / "x_hr.dat")
