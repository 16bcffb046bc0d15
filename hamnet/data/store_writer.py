"""StoreWriter: shards that survive a kill, merged into one file at the end."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np

import hamnet
from hamnet.core.basis import OrbitalBasis
from hamnet.core.calculation import Calculation
from hamnet.core.files import whole_file
from hamnet.data.store_format import (
    DESCRIPTIONS,
    FORMAT_NAME,
    FORMAT_VERSION,
    GLOSSARY,
    TABLES,
    TEXTS,
    check_header,
    shifted,
)
from hamnet.data.store_packing import Packer, in_basis
from hamnet.errors import FormatError

SHARD_SIZE = 256
SHARD_BYTES = 64 * 2**20
"""A shard is closed at this size too: a kill should not cost an hour of large calculations."""
COPY_ROWS = 2**20
TEXT = h5py.string_dtype("utf-8")


class StoreWriter:
    """Writes calculations to a store through shards in `<path>.parts/`; a context manager.

    Each shard is written under a temporary name and renamed, so a kill at any moment loses at most the open shard.
    Leaving the context merges all shards into `path`; a new writer on the same path goes on where the last stopped.

    Args:
        path: the store to write.
        shard_size: most calculations in one shard.
        resume: keep what the output and finished shards already hold; False starts anew.
        metadata: text that the file carries about itself, beside the format's own.

    Raises:
        FormatError: the folder is missing, or the path holds something else than a store of this version.
    """

    def __init__(
        self,
        path: str | Path,
        shard_size: int = SHARD_SIZE,
        *,
        resume: bool = True,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        self.path = Path(path)
        self.parts = self.path.with_name(self.path.name + ".parts")
        self.shard_size = min(shard_size, SHARD_SIZE)
        self.fingerprints: dict[str, str] = {}
        """Fingerprint of the latest calculation under each name."""
        self._resume = resume
        self._metadata = dict(metadata or {})
        self._basis: OrbitalBasis | None = None
        self._spin: str | None = None
        self._open = Packer()
        self._has_stale = False
        self._discarded = False
        self._check_place()
        self._finished = self._take_up()

    @property
    def names(self) -> list[str]:
        """Names written so far, those of an earlier run included."""
        return list(self.fingerprints)

    def add(self, name: str, calculation: Calculation, fingerprint: str = "") -> None:
        """Append one calculation.

        Args:
            name: must be new, unless the fingerprint has changed: then it takes the old one's place.
            calculation: any basis whose species agree with those already here.
            fingerprint: text that changes when the source changes.

        Raises:
            FormatError: the name is taken, or the spin layout is not the store's.
            BasisError: a species label stands for other orbitals than in the store.
            OSError: a shard could not be written.
        """
        if name in self.fingerprints:
            if self.fingerprints[name] == fingerprint:
                raise FormatError(f"the name {name!r} is already in {self.path}: names in a store must differ")
            self._has_stale = True
        spin = self._agreed_spin(name, calculation)
        basis = calculation.basis if self._basis is None else self._basis.merged(calculation.basis)
        self._open.add(name, in_basis(calculation, basis), fingerprint)
        self._basis, self._spin = basis, spin
        self.fingerprints[name] = fingerprint
        if len(self._open) >= self.shard_size or self._open.n_bytes >= SHARD_BYTES:
            self.flush()

    def flush(self) -> None:
        """Close the open shard: what was added so far survives a kill."""
        if len(self._open):
            target = self.parts / f"{self._next_number():06d}.h5"
            self._finished.append(_write_shard(target, self._open, self._header(), self.path))
            self._open = Packer()

    def close(self) -> None:
        """Merge the shards into the store and remove them.

        Raises:
            OSError: the store could not be written; the shards are kept, and nothing is left under its name.
        """
        if self._discarded:
            return
        self.flush()
        sources = ([self.path] if self._resume and self.path.exists() else []) + self._finished
        if self._has_stale:
            self._rewrite(sources)
        elif sources != [self.path]:
            self._replace_output(sources)
        shutil.rmtree(self.parts, ignore_errors=True)

    def discard(self) -> None:
        """Forget what was written since the last merge, shards included; closing then writes nothing."""
        self._discarded = True
        self._open, self._finished, self._resume = Packer(), [], False
        shutil.rmtree(self.parts, ignore_errors=True)

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if kind is None:
            self.close()
        elif not self._resume:
            shutil.rmtree(self.parts, ignore_errors=True)
        elif not isinstance(error, OSError):
            self.flush()

    def _check_place(self) -> None:
        if not self.path.parent.is_dir():
            raise FormatError(f"the folder {self.path.parent} does not exist: make it before writing {self.path.name}")
        if self.path.is_dir():
            raise FormatError(f"{self.path} is a folder: give the name of a file to write, as {self.path}/data.h5")
        if not self._resume:
            shutil.rmtree(self.parts, ignore_errors=True)
        try:
            self.parts.mkdir(exist_ok=True)
        except OSError as error:
            raise FormatError(f"cannot write in {self.path.parent}: {error.strerror}") from error

    def _take_up(self) -> list[Path]:
        """Names, basis and spin of an earlier run; the shards it has finished."""
        if not self._resume:
            return []
        for leftover in self.parts.glob("*.tmp"):
            leftover.unlink()
        finished = sorted(self.parts.glob("*.h5"))
        for path in ([self.path] if self.path.exists() else []) + finished:
            with open_hdf5(path) as file:
                names, prints = (file[t].asstr()[()].tolist() for t in ("names", "fingerprints"))
                basis = OrbitalBasis.from_json(file.attrs["basis"])
                self._metadata = json.loads(file.attrs["metadata"]) | self._metadata
                if (file["matrices"]["kind"] == 1).any():
                    self._spin = str(file.attrs["spin"])
            # the file's own species come first: its rows must keep their meaning when they are copied
            self._basis = basis if self._basis is None else self._basis.merged(basis)
            self._has_stale |= not self.fingerprints.keys().isdisjoint(names)
            self.fingerprints.update(zip(names, prints, strict=True))
        return finished

    def _agreed_spin(self, name: str, calculation: Calculation) -> str | None:
        if calculation.hamiltonian is None:
            return self._spin
        spin = calculation.spin.value
        if self._spin is not None and spin != self._spin:
            raise FormatError(
                f"{name!r} has spin layout {spin}, but the calculations already in {self.path} have {self._spin}: "
                "one store holds one layout; write the others to a store of their own"
            )
        return spin

    def _next_number(self) -> int:
        return 1 + max((int(p.stem) for p in self._finished), default=-1)

    def _header(self) -> dict[str, str | int]:
        return store_header(self._basis or OrbitalBasis(()), self._spin or "none", self._metadata)

    def _replace_output(self, sources: list[Path]) -> None:
        temporary = self.parts / "merged.tmp"
        try:
            _merge(sources, temporary, self._header())
            _sync(temporary)
            os.replace(temporary, self.path)
        except (OSError, RuntimeError) as error:
            temporary.unlink(missing_ok=True)
            raise write_error(error, self.path) from error

    def _rewrite(self, sources: list[Path]) -> None:
        """Merge with only the latest calculation of each name: a source has changed since it was read."""
        from hamnet.data.store import Store  # the reader knows the writer as its public home

        stores = [Store(p) for p in sources]
        latest = {name: (store, i) for store in stores for i, name in enumerate(store.names)}
        fresh = self.path.with_name(self.path.name + ".fresh")
        with StoreWriter(fresh, self.shard_size, resume=False, metadata=self._metadata) as writer:
            for name, (store, i) in latest.items():
                writer.add(name, store.read(i), store.fingerprints[i])
        for store in stores:
            store.close()
        os.replace(fresh, self.path)


def store_header(basis: OrbitalBasis, spin: str, metadata: Mapping[str, str]) -> dict[str, str | int]:
    """Attributes of a store's root."""
    return {
        "format": FORMAT_NAME,
        "version": FORMAT_VERSION,
        "written_by": f"hamnet {hamnet.__version__}",
        "basis": basis.to_json(),
        "basis_hash": basis.hash,
        "spin": spin,
        "metadata": json.dumps(dict(metadata)),
        **GLOSSARY,
    }


def write_store(
    path: str | Path, items: Iterable[tuple[str, Calculation]], metadata: Mapping[str, str] | None = None
) -> None:
    """Write a new store, in place of any that is there; an error leaves the old one as it was.

    Args:
        path: file to write.
        items: (name, calculation), names without repeats.
        metadata: text that the file carries about itself.

    Raises:
        FormatError, BasisError, OSError: as `StoreWriter`.
    """
    with StoreWriter(path, resume=False, metadata=metadata) as writer:
        for name, calculation in items:
            writer.add(name, calculation)


def merge_stores(sources: Sequence[Path], target: Path) -> None:
    """One store with the calculations of several that have the same basis and spin layout, in little memory.

    Args:
        sources: stores, whose names must differ.
        target: file to write, in place of any that is there.

    Raises:
        FormatError: a source is no store.
        OSError: the file cannot be written.
    """
    with open_hdf5(sources[0]) as file:
        header = dict(file.attrs)
    try:
        with whole_file(target) as temporary:
            _merge(list(sources), temporary, header)
    except (OSError, RuntimeError) as error:
        raise write_error(error, target) from error


def open_hdf5(path: Path) -> h5py.File:
    """Store opened for reading, its header checked.

    Raises:
        FormatError: no such file, no HDF5, cut short, another format or version.
    """
    if not path.exists():
        raise FormatError(f"{path}: there is no such file")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise FormatError(
            f"{path} ({path.stat().st_size} bytes) cannot be read as HDF5: {error}; "
            "it is no store, or it was cut short: make it again with `hamnet preprocess`"
        ) from error
    try:
        check_header(path, file.attrs)
        missing = [name for name in (*TABLES, *TEXTS) if name not in file]
        if missing:
            raise FormatError(f"{path} lacks the datasets {missing}: make it again with `hamnet preprocess`")
    except FormatError:
        file.close()
        raise
    return file


def _write_shard(target: Path, packer: Packer, header: Mapping[str, str | int], output: Path) -> Path:
    temporary = target.with_suffix(".tmp")
    try:
        with h5py.File(temporary, "w") as file:
            file.attrs.update(header)
            for name, rows in packer.tables().items():
                file.create_dataset(name, data=rows)
            for name in TEXTS:
                file.create_dataset(name, data=packer.texts[name], dtype=TEXT)
        _sync(temporary)
        os.replace(temporary, target)
    except (OSError, RuntimeError) as error:
        temporary.unlink(missing_ok=True)
        raise write_error(error, output) from error
    return target


def _merge(sources: list[Path], target: Path, header: Mapping[str, str | int]) -> None:
    """One file from many: every dataset is the others' rows one after another."""
    totals = dict.fromkeys((*TABLES, *TEXTS), 0)
    for source in sources:
        with open_hdf5(source) as file:
            for name in totals:
                totals[name] += len(file[name])
    before = dict.fromkeys(totals, 0)
    with h5py.File(target, "w") as merged:
        merged.attrs.update(header)
        for name, n_rows in totals.items():
            dtype, shape = TABLES.get(name, (TEXT, ()))
            merged.create_dataset(name, (n_rows, *shape), dtype=dtype).attrs["description"] = DESCRIPTIONS[name]
        for source in sources:
            with open_hdf5(source) as file:
                counts = {name: _copy_rows(file, merged, name, before) for name in totals}
            before = {name: before[name] + counts[name] for name in totals}


def _copy_rows(source: h5py.File, target: h5py.File, name: str, before: dict[str, int]) -> int:
    n_rows, at = len(source[name]), before[name]
    for start in range(0, n_rows, COPY_ROWS):
        stop = min(start + COPY_ROWS, n_rows)
        rows: Any = source[name][start:stop]
        if name in TABLES:
            rows = shifted(name, np.asarray(rows), before)
        target[name][at + start : at + stop] = rows
    return n_rows


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def write_error(error: BaseException, path: Path) -> OSError:
    """What to tell the user when a store could not be written."""
    number = getattr(error, "errno", None) or 0
    if not number and "No space left" in str(error):
        number = errno.ENOSPC
    why = os.strerror(number) if number else str(error)
    return OSError(
        number or errno.EIO,
        f"could not write the store ({why}); nothing was left half-written under its name: "
        "free some space or mend the disk, then run again to go on with the finished shards",
        str(path),
    )
