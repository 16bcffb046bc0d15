"""Store: calculations in one HDF5 file, read lazily. The format is described in docs/store.md."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from hamnet.core.basis import OrbitalBasis
from hamnet.core.calculation import Calculation
from hamnet.core.spin import Spin
from hamnet.data.store_format import FORMAT_VERSION, UPGRADES, is_store
from hamnet.data.store_packing import unpack
from hamnet.data.store_writer import StoreWriter, open_hdf5, write_store
from hamnet.errors import FormatError

__all__ = ["Store", "StoreWriter", "is_store", "upgrade_store", "write_store"]


class Store:
    """Calculations in one file; only what is asked for is read.

    The file is opened once per process, so a Store may be pickled or used after a fork. A context manager.

    Args:
        path: the store.

    Raises:
        FormatError: no such file, no HDF5, cut short, another format or version.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._file: h5py.File | None = None
        self._datasets: dict[str, h5py.Dataset] = {}
        self._pid = -1
        file = self._opened()
        self.basis = OrbitalBasis.from_json(file.attrs["basis"])
        """Species of all calculations."""
        self.spin = Spin(file.attrs["spin"])
        """Spin layout of all Hamiltonians."""
        self.metadata: dict[str, Any] = {
            **json.loads(file.attrs["metadata"]),
            "version": int(file.attrs["version"]),
            "written_by": str(file.attrs["written_by"]),
            "basis_hash": str(file.attrs["basis_hash"]),
        }
        """What the file says about itself."""
        self._calculations: NDArray[Any] = file["calculations"][()]
        self._matrices: NDArray[Any] = file["matrices"][()]

    @cached_property
    def names(self) -> list[str]:
        """Name of each calculation."""
        return list(self._opened()["names"].asstr()[()].tolist())

    @cached_property
    def fingerprints(self) -> list[str]:
        """What tells that a source has changed since it was read, one text per calculation."""
        return list(self._opened()["fingerprints"].asstr()[()].tolist())

    @cached_property
    def n_atoms(self) -> NDArray[np.int64]:
        """(n_calculations,) atoms of each, without reading any calculation."""
        return np.asarray(self._calculations["n_atoms"], dtype=np.int64)

    @cached_property
    def n_pairs(self) -> NDArray[np.int64]:
        """(n_calculations,) longest pair list of each, without reading any calculation."""
        n = np.zeros(len(self), dtype=np.int64)
        owner = np.repeat(np.arange(len(self)), self._calculations["n_matrices"])
        np.maximum.at(n, owner, self._matrices["n_pairs"])
        return n

    @cached_property
    def _index(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.names)}

    def index(self, name: str) -> int:
        """Place of the calculation with this name.

        Raises:
            FormatError: no calculation has this name.
        """
        if name not in self._index:
            some = ", ".join(self.names[:5]) + (", ..." if len(self) > 5 else "")
            raise FormatError(f"no calculation {name!r} in {self.path}; it holds {len(self)}: {some}")
        return self._index[name]

    def read(self, which: int | str) -> Calculation:
        """One calculation, by place or by name.

        Raises:
            FormatError: no such calculation.
        """
        i = self.index(which) if isinstance(which, str) else int(which)
        if not -len(self) <= i < len(self):
            raise FormatError(f"no calculation {i} in {self.path}: it holds {len(self)}")
        row = self._calculations[i]
        start = int(row["matrices_start"])
        matrices = self._matrices[start : start + int(row["n_matrices"])]
        self._opened()
        provenance = self._datasets["provenance"][i % len(self)].decode()
        return unpack(row, matrices, self.basis, self._rows, provenance)

    def close(self) -> None:
        """Close the file; reading again opens it again."""
        if self._file is not None and self._pid == os.getpid():
            self._file.close()
        self._file = None
        self._datasets = {}

    def __len__(self) -> int:
        return len(self._calculations)

    def __iter__(self) -> Iterator[Calculation]:
        return (self.read(i) for i in range(len(self)))

    def __enter__(self) -> Store:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_file": None, "_datasets": {}, "_pid": -1}

    def _opened(self) -> h5py.File:
        if self._file is None or self._pid != os.getpid():
            # a handle inherited by a fork is left alone, not closed: it is the parent's
            self._file, self._pid = open_hdf5(self.path), os.getpid()
            self._datasets = {name: self._file[name] for name in self._file}
        return self._file

    def _rows(self, dataset: str, start: int, stop: int) -> NDArray[Any]:
        rows: NDArray[Any] = self._datasets[dataset][start:stop]
        if len(rows) != stop - start:
            raise FormatError(
                f"{self.path}: rows {start} to {stop} of {dataset!r} are asked for, it has "
                f"{len(self._datasets[dataset])}: the file is damaged, make it again"
            )
        return rows


def upgrade_store(old: str | Path, new: str | Path) -> None:
    """Write a store of an older version as one of this version, by the chain of upgrades.

    Raises:
        FormatError: the store needs no upgrade, or there is no way up from its version.
    """
    source, target = Path(old), Path(new)
    with h5py.File(source, "r") as file:
        version = int(file.attrs.get("version", 0))
    steps = range(version, FORMAT_VERSION)
    missing = [step for step in steps if step not in UPGRADES]
    if missing or not steps:
        raise FormatError(
            f"{old} is a store of version {version}, this hamnet writes version {FORMAT_VERSION}: "
            + (f"there is no way up from version {missing[0]}; make it again" if missing else "nothing to upgrade")
        )
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as folder:
        for step in steps:
            upgraded = Path(folder) / f"{step + 1}.h5"
            UPGRADES[step](source, upgraded)
            source = upgraded
        os.replace(source, target)
