"""A store of one calculation whose matrices are written block by block into a file of full size.

The place of every pair and block follows from two tables of counts, so that pieces may come in any order and from
several processes: they are written with `pwrite` at their offsets, past the HDF5 library, whose structures are
complete before the first piece comes. H and S share one list of pairs, and of each reverse couple of blocks one is
kept, as in every store of hermitian matrices.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from hamnet.core.basis import OrbitalBasis
from hamnet.core.blocks import BlockMatrix
from hamnet.core.calculation import Calculation
from hamnet.core.pairs import PairList
from hamnet.core.spin import Spin
from hamnet.data.store_format import DESCRIPTIONS, KINDS, MATRIX, RUN, SPINS, TABLES, TEXTS
from hamnet.data.store_packing import Packer
from hamnet.data.store_writer import TEXT, store_header, write_error
from hamnet.errors import FormatError

IntArray = NDArray[np.int64]

FILLED = ("pairs", "values")
"""Datasets that are written in place."""


@dataclass(frozen=True, eq=False)
class PairLayout:
    """Where the pairs and blocks of a sorted list stand, from their numbers alone.

    Args:
        species: (n_atoms,) species of each atom.
        n_orbitals: (n_species,) of the basis.
        pairs: (n_atoms, n_species) directed pairs of each first atom and species of the second.
        kept: (n_atoms, n_species) those of them whose blocks are kept.
    """

    species: IntArray
    n_orbitals: IntArray
    pairs: IntArray
    kept: IntArray

    @property
    def n_pairs(self) -> int:
        """Directed pairs."""
        return int(self.pairs.sum())

    @property
    def n_values(self) -> int:
        """Numbers of the kept blocks of a spinless matrix."""
        return int((self.kept * self.block_sizes).sum())

    @property
    def block_sizes(self) -> IntArray:
        """(n_atoms, n_species) numbers of a spinless block."""
        n = self.n_orbitals
        return np.asarray(n[self.species][:, None] * n[None, :])

    @cached_property
    def pair_starts(self) -> IntArray:
        """(n_atoms, n_species) row of the first pair."""
        return self._starts(self.pairs)

    @cached_property
    def value_starts(self) -> IntArray:
        """(n_atoms, n_species) place of the first number of a spinless matrix."""
        return self._starts(self.kept * self.block_sizes)

    def _starts(self, counts: IntArray) -> IntArray:
        result, start = np.zeros_like(counts), 0
        for a in range(len(self.n_orbitals)):
            atoms = np.flatnonzero(self.species == a)
            for b in range(len(self.n_orbitals)):
                ends = start + np.cumsum(counts[atoms, b])
                result[atoms, b] = ends - counts[atoms, b]
                start = int(ends[-1]) if len(ends) else start
        return result

    def runs(self, start: int, factor: int) -> NDArray[Any]:
        """Rows of the table `runs` of a matrix with `factor` float64 numbers for each of a spinless one."""
        found = []
        for a, n_a in enumerate(self.n_orbitals.tolist()):
            for b, n_b in enumerate(self.n_orbitals.tolist()):
                blocks = int(self.kept[self.species == a, b].sum())
                if blocks:
                    found.append((a, b, blocks, start))
                    start += blocks * n_a * n_b * factor
        return np.array(found, dtype=RUN)


def float_factor(spin: Spin) -> int:
    """Float64 numbers of a matrix for each number of a spinless one."""
    return spin.factor * (2 if spin is Spin.SPINOR else 1)


def store_size(layout: PairLayout, spin: Spin) -> int:
    """Bytes of the filled datasets, nearly the whole file.

    Args:
        layout: of the pairs.
        spin: layout of H.
    """
    numbers = {"pairs": layout.n_pairs, "values": layout.n_values * (1 + float_factor(spin))}
    return sum(n * TABLES[name][0].itemsize * int(np.prod(TABLES[name][1])) for name, n in numbers.items())


def make_store(
    path: Path, name: str, calculation: Calculation, spin: Spin, layout: PairLayout, fingerprint: str = ""
) -> None:
    """Write a store of full size whose pairs and values are zeros.

    Args:
        path: file to write; one that is there is overwritten.
        name: of the calculation.
        calculation: everything but pairs and numbers: its overlap has no pairs (`no_overlap`), and it has no H.
        spin: layout of H.
        layout: of the pairs.
        fingerprint: text that the store keeps.

    Raises:
        FormatError: more pairs or atoms than the store's 32-bit numbers can count.
        OSError: the file cannot be written.
    """
    limit = np.iinfo(np.int32).max
    if max(layout.n_pairs, len(layout.species)) > limit:
        raise FormatError(f"{layout.n_pairs} pairs are more than a store can count ({limit}): cut the structure in two")
    packer = Packer()
    packer.add(name, calculation, fingerprint)
    tables = packer.tables()
    tables["matrices"], tables["runs"] = _matrix_rows(spin, layout)
    tables["calculations"]["n_matrices"] = len(tables["matrices"])
    sizes = {"pairs": layout.n_pairs, "values": layout.n_values * (1 + float_factor(spin))}
    header = store_header(calculation.basis, spin.value, {})
    try:
        with h5py.File(path, "w") as file:
            file.attrs.update(header)
            for table, (dtype, shape) in TABLES.items():
                rows = None if table in FILLED else tables[table]
                _make_dataset(file, table, dtype, (sizes.get(table, 0 if rows is None else len(rows)), *shape), rows)
            for text, value in zip(TEXTS, (name, json.dumps(asdict(calculation.provenance)), fingerprint), strict=True):
                file.create_dataset(text, data=[value], dtype=TEXT).attrs["description"] = DESCRIPTIONS[text]
    except (OSError, RuntimeError) as error:
        raise write_error(error, path) from error


def no_overlap(basis: OrbitalBasis, species: IntArray) -> BlockMatrix:
    """S without a pair, for the calculation that `make_store` takes."""
    empty = np.zeros(0, dtype=np.int64)
    pairs = PairList(empty, empty, np.zeros((0, 3), dtype=np.int64), empty)
    return BlockMatrix.zeros(pairs, basis, species)


def _matrix_rows(spin: Spin, layout: PairLayout) -> tuple[NDArray[Any], NDArray[Any]]:
    rows = np.zeros(2, dtype=MATRIX)
    runs: list[NDArray[Any]] = []
    start = 0
    for row, kind, layer in zip(rows, ("overlap", "hamiltonian"), (Spin.NONE, spin), strict=True):
        factor = float_factor(layer)
        found = layout.runs(start, factor)
        row["kind"], row["spin"], row["half"] = KINDS.index(kind), SPINS.index(layer.value), 1
        row["n_pairs"], row["values_start"], row["n_values"] = layout.n_pairs, start, layout.n_values * factor
        row["runs_start"], row["n_runs"] = sum(len(run) for run in runs), len(found)
        runs.append(found)
        start += layout.n_values * factor
    return rows, np.concatenate(runs)


def _make_dataset(
    file: h5py.File, name: str, dtype: np.dtype[Any], shape: tuple[int, ...], rows: NDArray[Any] | None
) -> None:
    if rows is not None:
        dataset = file.create_dataset(name, data=rows)
    else:
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_layout(h5py.h5d.CONTIGUOUS)
        properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        properties.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        space, kind = h5py.h5s.create_simple(shape), h5py.h5t.py_create(dtype, logical=True)
        dataset = h5py.Dataset(h5py.h5d.create(file.id, name.encode(), kind, space, properties))
    dataset.attrs["description"] = DESCRIPTIONS[name]


class PieceWriter:
    """Writes rows of the filled datasets of a store at their places; a context manager. Several may share a file.

    Args:
        path: made by `make_store`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with h5py.File(path, "r") as file:
            self._offsets = {name: file[name].id.get_offset() or 0 for name in FILLED}
        self._file = os.open(path, os.O_RDWR)

    def write(self, dataset: str, rows: NDArray[Any], places: IntArray, sizes: IntArray | None = None) -> None:
        """Write rows at the given places; neighbours go in one piece.

        Args:
            dataset: one of `FILLED`.
            rows: (n, ...) one after another.
            places: (n_parts,) row of the dataset where each part begins.
            sizes: (n_parts,) rows of each part; None: one.

        Raises:
            OSError: the disk is full or broken.
        """
        if not len(places):
            return
        dtype, shape = TABLES[dataset]
        data = np.ascontiguousarray(rows, dtype=dtype).reshape(-1).data.cast("B")
        width = dtype.itemsize * int(np.prod(shape))
        counts = np.ones(len(places), dtype=np.int64) if sizes is None else sizes
        ends = np.cumsum(counts)
        breaks = np.flatnonzero(places[1:] != places[:-1] + counts[:-1]) + 1
        first = np.concatenate(([0], breaks)).astype(np.int64)
        last = np.concatenate((breaks, [len(places)])).astype(np.int64) - 1
        begins = (ends - counts)[first] * width
        stops, offsets = ends[last] * width, self._offsets[dataset] + places[first] * width
        for begin, stop, offset in zip(begins.tolist(), stops.tolist(), offsets.tolist(), strict=True):
            self._write_all(data[begin:stop], offset)

    def _write_all(self, data: memoryview, offset: int) -> None:
        try:
            while data:
                written = os.pwrite(self._file, data, offset)
                data, offset = data[written:], offset + written
        except OSError as error:
            raise write_error(error, self.path) from error

    def sync(self) -> None:
        """What was written is on the disk."""
        os.fsync(self._file)

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def __enter__(self) -> PieceWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()
