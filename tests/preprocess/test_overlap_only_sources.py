"""Overlap-only sources: read as what they are, told by preprocess, refused by train, used by predict."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from foreign_cases import openmx_case
from golden_files import golden

from hamnet.core.calculation import Calculation
from hamnet.data.store import Store
from hamnet.errors import PhysicsError
from hamnet.predict.overlap import overlap_from_file
from hamnet.testing import assert_same_matrix
from hamnet_preprocess.collect import collect
from hamnet_preprocess.openmx import OpenMXReader
from hamnet_preprocess.openmx_scfout import read_header


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A .scfout as a build that computes only the overlap leaves it: every number of H is zero."""
    path = tmp_path / "run" / "openmx.scfout"
    path.parent.mkdir()
    shutil.copy(golden("openmx/graphene") / "openmx.scfout", path)
    header = read_header(path)
    with path.open("r+b") as file:
        file.seek(header.matrix_start)
        file.write(bytes(8 * header.size * (header.spin + 1)))
    return path.parent


def test_openmx_without_hamiltonian_is_an_overlap(folder: Path) -> None:
    calculation = OpenMXReader().read(folder)
    assert calculation.hamiltonian is None
    assert calculation.fermi_energy is None
    assert calculation.provenance.convergence.startswith("overlap only")
    assert_same_matrix(calculation.overlap, openmx_case("graphene").overlap, 0.0)


def test_preprocess_says_so_and_predict_uses_it(folder: Path, tmp_path: Path) -> None:
    result = collect("openmx", [folder], tmp_path / "s.h5")
    assert (result.read, result.overlap_only) == (1, 1)
    case = openmx_case("graphene")
    found = overlap_from_file(tmp_path / "s.h5", case.structure, case.basis)
    np.testing.assert_array_equal(found.values, case.overlap.values)
    with Store(tmp_path / "s.h5") as store:
        assert store.read(0).hamiltonian is None


def test_learning_from_it_is_refused(folder: Path) -> None:
    from hamnet.nn.dataset import make_sample

    calculation: Calculation = OpenMXReader().read(folder)
    with pytest.raises(PhysicsError, match="has no Hamiltonian, so nothing can be learnt"):
        make_sample("run", calculation, calculation.basis, 5.0)
