"""open_source tells files by their content."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import golden_files
import h5py
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "data"))

from store_cases import water

from hamnet.data.store import write_store
from hamnet.errors import FormatError
from hamnet_preprocess.sources import kind_of, open_source


def test_a_store_under_any_name(tmp_path):
    write_store(tmp_path / "x.dat", [("w", water(np.random.default_rng(0)))])
    ((name, read),) = open_source(tmp_path / "x.dat")
    assert (name, read().structure.n_atoms) == ("w", 3)


def test_openmx_folder_and_file():
    folder = sorted(golden_files.golden("openmx/graphene").rglob("*.scfout"))[0].parent
    ((name, read),) = open_source(folder)
    assert name == folder.name
    ((_, read_file),) = open_source(next(folder.glob("*.scfout")))
    assert np.array_equal(read().hamiltonian.values, read_file().hamiltonian.values)


def test_scfout_under_any_name(tmp_path):
    source = golden_files.golden("openmx/water") / "openmx.scfout"
    shutil.copy(source, tmp_path / "weird.bin")
    assert kind_of(tmp_path / "weird.bin") == "openmx"
    (tmp_path / "other.bin").write_bytes(bytes(4000))
    with pytest.raises(FormatError, match="nothing that hamnet understands"):
        kind_of(tmp_path / "other.bin")


def test_what_is_not_understood(tmp_path):
    with h5py.File(tmp_path / "chk.h5", "w") as file:
        file["mol"] = "{}"
    assert kind_of(tmp_path / "chk.h5") == "pyscf"
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["x"] = 1
    (tmp_path / "empty").touch()
    (tmp_path / "folder").mkdir()
    for name, message in (
        ("x.h5", "neither"),
        ("empty", "empty"),
        ("folder", "no output"),
        ("no", "no file or folder"),
    ):
        with pytest.raises(FormatError, match=message):
            open_source(tmp_path / name)
