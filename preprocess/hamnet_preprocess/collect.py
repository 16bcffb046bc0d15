"""collect: every calculation below some folders into one store, side by side and resumable."""

from __future__ import annotations

import hashlib
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path

from hamnet.core.calculation import Calculation
from hamnet.core.processes import worker_pool
from hamnet.data.store import StoreWriter
from hamnet.errors import ConfigError, FormatError, HamnetError
from hamnet_preprocess.reader import reader
from hamnet_preprocess.row_database import split_row
from hamnet_preprocess.sources import source_name

IN_FLIGHT = 4
"""Sources per process that are read ahead of the writer: bounds the memory."""


@dataclass(frozen=True)
class Event:
    """What has become of one source.

    Args:
        kind: "read", "skipped" (already in the store) or "failed".
        source: file or folder.
        reason: why it failed, else empty.
        done, total: sources dealt with so far, and all.
    """

    kind: str
    source: str
    reason: str
    done: int
    total: int


@dataclass(frozen=True)
class _Task:
    source: Path
    name: str
    fingerprint: str
    n_bytes: int


@dataclass
class CollectResult:
    """Figures of one run."""

    output: Path
    read: int = 0
    skipped: int = 0
    seconds: float = 0.0
    n_bytes: int = 0
    """Bytes of the DFT output that was read."""
    overlap_only: int = 0
    """Calculations read now that hold S and no Hamiltonian."""
    failures: list[tuple[str, str]] = field(default_factory=list)
    """(source, reason)."""

    @property
    def failed(self) -> int:
        """Sources that could not be read."""
        return len(self.failures)

    @property
    def done(self) -> int:
        """Sources dealt with so far."""
        return self.read + self.skipped + self.failed

    def note(self, task: _Task, calculation: Calculation | None, reason: str) -> None:
        """Count one source: as failed where there is a reason, else as read."""
        if reason:
            self.failures.append((str(task.source), reason))
            return
        self.read += 1
        self.n_bytes += task.n_bytes
        self.overlap_only += calculation is not None and calculation.hamiltonian is None

    @property
    def megabytes_per_second(self) -> float:
        """DFT output read per second of wall time, in 10^6 bytes."""
        return self.n_bytes / 1e6 / self.seconds if self.seconds > 0 else 0.0


@dataclass(frozen=True)
class Refinement:
    """What is done to each calculation once it is read.

    Args:
        name: short word; sources that were read without it are read again.
        apply: function of a calculation; it may raise a HamnetError, which is reported like one of the reader.
            It goes to other processes, so it must be picklable.
    """

    name: str
    apply: Callable[[Calculation], Calculation]


def collect(
    reader_name: str,
    roots: Sequence[Path],
    output: Path,
    jobs: int = 1,
    allow_unconverged: bool = False,
    on_event: Callable[[Event], None] | None = None,
    refinement: Refinement | None = None,
) -> CollectResult:
    """Read every calculation at or below the roots into a store.

    A source that cannot be read is reported and left out. Run again on the same output, sources that are already
    there and have not changed are skipped. When interrupted, what was read so far is kept for the next run. When
    no source could be read, `failures` says why and no store is written.

    Args:
        reader_name: code, as "openmx".
        roots: folders or files.
        output: the store.
        jobs: processes that read side by side.
        allow_unconverged: keep an SCF that did not converge, marked.
        on_event: called once for each source.
        refinement: done to each calculation once it is read.

    Raises:
        ConfigError: no such reader or root, jobs below 1.
        FormatError: nothing was found, or the output cannot be written.
    """
    if jobs < 1:
        raise ConfigError(f"jobs = {jobs}: expected 1 or more")
    started = time.perf_counter()
    sources = find_sources(reader_name, roots)
    result = CollectResult(Path(output))
    tell = on_event or (lambda event: None)
    with StoreWriter(output) as writer:
        tasks = _tasks(sources, writer, refinement)
        waiting = [t for t in tasks if writer.fingerprints.get(t.name) != t.fingerprint]
        for task in tasks:
            if writer.fingerprints.get(task.name) == task.fingerprint:
                result.skipped += 1
                tell(Event("skipped", str(task.source), "", result.skipped, len(tasks)))
        for task, calculation, reason in _read_all(_Reading(reader_name, allow_unconverged, refinement), waiting, jobs):
            reason = reason or _keep(writer, task, calculation)
            result.note(task, calculation, reason)
            tell(Event("failed" if reason else "read", str(task.source), reason, result.done, len(tasks)))
        if not writer.names:
            writer.discard()  # a store without a calculation has no basis; the failures say why
    result.seconds = time.perf_counter() - started
    return result


def find_sources(reader_name: str, roots: Sequence[Path]) -> list[tuple[Path, str]]:
    """(source, name) of every calculation at or below the roots, each source once.

    Raises:
        ConfigError: no such reader or root.
        FormatError: nothing was found.
    """
    code_reader = reader(reader_name)
    found: dict[Path, tuple[Path, str]] = {}
    for root in map(Path, roots):
        if not root.exists() and split_row(root) is None:
            raise ConfigError(f"there is no file or folder {root}")
        for source in code_reader.find(root):
            found.setdefault(source.resolve(), (source, source_name(source, root)))
    if not found:
        raise FormatError(f"no {reader_name} output was found in {', '.join(map(str, roots))}")
    return list(found.values())


def _tasks(sources: Sequence[tuple[Path, str]], writer: StoreWriter, refinement: Refinement | None) -> list[_Task]:
    """A unique name for each source; the one that it has where it was read before."""
    taken: set[str] = set()
    tasks = []
    for source, wish in sources:
        stamp, n_bytes = _stamp(source)
        fingerprint = f"{stamp}{'+' + refinement.name if refinement else ''} {source.resolve()}"
        for name in _candidates(source, wish):
            if name not in taken and _same_source(writer.fingerprints.get(name), fingerprint):
                break
        taken.add(name)
        tasks.append(_Task(source, name, _settled(writer.fingerprints.get(name), fingerprint), n_bytes))
    return tasks


def _candidates(source: Path, wish: str) -> Iterator[str]:
    yield wish
    yield source.resolve().relative_to(source.resolve().anchor).as_posix()
    number = 2
    while True:
        yield f"{wish}-{number}"
        number += 1


def _same_source(old: str | None, new: str) -> bool:
    """Free, or one source by its place or by its stamp (a folder that was moved)."""
    return old is None or bool(set(old.split(" ", 1)) & set(new.split(" ", 1)))


def _settled(old: str | None, new: str) -> str:
    """The old fingerprint where the stamp is the same: a moved folder need not be read again."""
    return old if old is not None and old.split(" ", 1)[0] == new.split(" ", 1)[0] else new


def _stamp(source: Path) -> tuple[str, int]:
    """Digits that change with the names, sizes and times of a source's files; bytes of the file that is read.

    A row of a database has its file's digits and its index, and no bytes of its own.
    """
    row = split_row(source)
    if row is not None:
        return f"{_stamp(row[0])[0]}.{row[1]}", 0
    try:
        files = sorted(p for p in source.iterdir() if p.is_file()) if source.is_dir() else [source]
        facts = [(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in files]
    except OSError:
        return "-", 0
    digits = hashlib.sha256(repr(facts).encode()).hexdigest()[:16]
    return digits, max((size for _, size, _ in facts), default=0)


def _keep(writer: StoreWriter, task: _Task, calculation: Calculation | None) -> str:
    """Reason why the calculation does not fit the store; empty when it was added."""
    if calculation is None:
        return "the reader gave nothing"
    try:
        writer.add(task.name, calculation, task.fingerprint)
    except HamnetError as error:
        return f"{type(error).__name__}: {error}"
    return ""


@dataclass(frozen=True)
class _Reading:
    """How every source is read."""

    reader_name: str
    allow_unconverged: bool
    refinement: Refinement | None


def _read_all(how: _Reading, tasks: Sequence[_Task], jobs: int) -> Iterator[tuple[_Task, Calculation | None, str]]:
    """Results in the order of the tasks, so that a store does not depend on the number of processes."""
    if jobs == 1 or len(tasks) < 2:
        for task in tasks:
            yield task, *_read(how, task.source)
        return
    flying: deque[tuple[_Task, Future[tuple[Calculation | None, str]]]] = deque()
    try:
        with worker_pool(min(jobs, len(tasks))) as pool:
            for task in tasks:
                flying.append((task, pool.submit(_read, how, task.source)))
                if len(flying) >= IN_FLIGHT * jobs:
                    oldest, future = flying.popleft()
                    yield oldest, *future.result()
            while flying:
                oldest, future = flying.popleft()
                yield oldest, *future.result()
    except BrokenProcessPool as error:
        raise HamnetError(
            "a reading process was killed, most likely for lack of memory: run again with fewer --jobs; "
            "what was read so far is kept"
        ) from error


def _read(how: _Reading, source: Path) -> tuple[Calculation | None, str]:
    try:
        calculation = reader(how.reader_name).read(source, allow_unconverged=how.allow_unconverged)
        return (how.refinement.apply(calculation) if how.refinement else calculation), ""
    except HamnetError as error:
        return None, f"{type(error).__name__}: {error}"
    except Exception as error:  # one odd file must not stop a run over thousands: it is reported like the others
        return None, f"unexpected {type(error).__name__}: {error}"
