"""S from a basis alone: out of a store, out of a checkpoint, or refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from model_files import graphene, tabulated, untrained

from hamnet.core.basis import OrbitalBasis
from hamnet.core.overlap import two_centre_overlap
from hamnet.data.store import Store
from hamnet.errors import BasisError, FormatError
from hamnet.nn.checkpoint import load_checkpoint, save_checkpoint
from hamnet.predict.overlap import overlap_origin
from hamnet.predict.overlap_only import basis_source, overlap_files
from hamnet.predict.predictor import Predictor

POSCAR = "carbon\n1.0\n4 0 0\n0 4 0\n0 0 9\nC\n2\nCartesian\n0 0 0\n0.9 1.1 0.3\n"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, OrbitalBasis]:
    """A structure, a checkpoint whose basis has radial functions and whose fit is of another S, and that basis."""
    folder = tmp_path_factory.mktemp("overlap")
    (folder / "POSCAR").write_text(POSCAR)
    checkpoint = load_checkpoint(untrained(folder))
    (species,) = checkpoint.basis.species
    basis = OrbitalBasis((replace(species, shells=tuple(tabulated(s) for s in species.shells)),))
    save_checkpoint(folder / "radial.ckpt", replace(checkpoint, basis=basis))
    return folder / "POSCAR", folder / "radial.ckpt", basis


def test_a_checkpoint_carries_its_radial_functions(files: tuple[Path, Path, OrbitalBasis], tmp_path: Path) -> None:
    poscar, model, basis = files
    assert basis_source(model).basis == basis
    summary = overlap_files([poscar], model, tmp_path / "S.h5")
    assert "radial functions" in summary.origin
    with Store(tmp_path / "S.h5") as store:
        found = store.read(0)
    expected = two_centre_overlap(found.structure, basis)
    assert np.array_equal(found.overlap.values, expected.values)
    assert (summary.structures, summary.atoms, summary.pairs) == (1, 2, expected.pairs.n_pairs)
    # a store of S serves as the source of a basis too
    assert overlap_files([poscar], tmp_path / "S.h5", tmp_path / "T.h5").pairs == summary.pairs


def test_predict_prefers_the_radial_functions_to_the_fit(files: tuple[Path, Path, OrbitalBasis]) -> None:
    _, model, basis = files
    predictor, structure = Predictor.load(model), graphene().structure
    found = predictor.calculation(structure).overlap
    assert np.array_equal(found.values, two_centre_overlap(structure, basis, found.pairs).values)
    assert "radial functions" in predictor.overlap_origin(structure)


def test_the_fit_serves_without_them_and_its_error_is_said(tmp_path: Path) -> None:
    calculation = graphene()
    (tmp_path / "POSCAR").write_text(POSCAR.replace("0.9 1.1 0.3", "0.7 1.2 0.0"))
    summary = overlap_files([tmp_path / "POSCAR"], untrained(tmp_path), tmp_path / "S.h5")
    assert "fit to the training set" in summary.origin
    figures = {"overlap_rms": 2e-8, "overlap_max": 9e-7}
    text = overlap_origin(calculation.structure, calculation.basis, figures)
    assert "2e-08 rms, 9e-07 largest" in text


def test_what_cannot_be_had_is_refused(tmp_path: Path) -> None:
    from hamnet.data.store import write_store

    (tmp_path / "POSCAR").write_text(POSCAR)
    write_store(tmp_path / "bare.h5", [("g", graphene())])
    with pytest.raises(BasisError, match="POSCAR: the basis has no radial functions.*--pao"):
        overlap_files([tmp_path / "POSCAR"], tmp_path / "bare.h5", tmp_path / "S.h5")
    assert not (tmp_path / "S.h5").exists()
    with pytest.raises(FormatError, match="no checkpoint"):
        overlap_files([tmp_path / "POSCAR"], tmp_path / "absent.h5", tmp_path / "S.h5")
    (tmp_path / "Si").write_text(POSCAR.replace("\nC\n", "\nSi\n"))
    (tmp_path / "Si").rename(tmp_path / "Si.vasp")
    with pytest.raises(BasisError, match="no orbitals for it"):
        overlap_files([tmp_path / "Si.vasp"], tmp_path / "bare.h5", tmp_path / "S.h5")
