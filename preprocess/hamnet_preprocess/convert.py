"""convert: calculations of any source that hamnet reads, written in another program's format.

Folder formats (deeph, deeph-legacy) take one calculation into one folder, several into one folder each below OUT;
file formats (sisl, hsx, wannier90) likewise into one file each. Everything is written under a temporary name beside
its place and renamed at the end: a failure leaves nothing half-written.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hamnet.core.calculation import Calculation
from hamnet.errors import ConfigError, FormatError, HamnetError
from hamnet_preprocess.deeph_write import write_deeph, write_deeph_legacy
from hamnet_preprocess.reader import READER_CLASSES, reader
from hamnet_preprocess.sources import Opened, open_source, source_name

Figures = dict[str, Any]


@dataclass(frozen=True)
class Target:
    """A format to write.

    Args:
        write: writes one calculation to a path; may return figures.
        suffix: how the file's name ends; empty for a folder.
        suffixes: other endings that a single OUT may have.
    """

    write: Callable[[Calculation, Path], Figures | None]
    suffix: str = ""
    suffixes: tuple[str, ...] = ()


def _write_sisl(calculation: Calculation, path: Path) -> Figures:
    from hamnet_preprocess.sisl_io import write_sisl

    write_sisl(calculation, path)
    return {} if calculation.fermi_energy is not None else {"remark": "no Fermi energy: the zero of energy is kept"}


def _write_wannier90(calculation: Calculation, path: Path) -> Figures:
    from hamnet_preprocess.wannier90 import write_wannier90

    figures = write_wannier90(calculation, path)
    mesh = "x".join(map(str, figures["mesh"]))
    remark = f"Loewdin-orthogonalised on a {mesh} mesh; bands off it deviate by at most {figures['deviation']:.1e} eV"
    return {**figures, "remark": remark}


TARGETS = {
    "deeph": Target(write_deeph),
    "deeph-legacy": Target(write_deeph_legacy),
    "sisl": Target(_write_sisl, ".HSX", (".TSHS", ".nc")),
    "hsx": Target(_write_sisl, ".HSX"),
    "wannier90": Target(_write_wannier90, "_hr.dat"),
}
"""Name of a format -> how it is written; "hamnet", the store, is written by `convert` itself."""


@dataclass
class ConvertResult:
    """What was written.

    Args:
        output: OUT as given.
        written: (name of the calculation, path, figures).
        failures: (name, reason).
    """

    output: Path
    written: list[tuple[str, Path, Figures]] = field(default_factory=list)
    failures: list[tuple[str, str]] = field(default_factory=list)


def convert(
    source: Path, output: Path, to: str, code: str | None = None, on_event: Callable[[str], None] | None = None
) -> ConvertResult:
    """Read every calculation of a source and write it in another format.

    A calculation that cannot be read or said in the format is reported and left out; the others are written.

    Args:
        source: store, file or folder that hamnet reads.
        output: file or folder; several calculations go into files or folders of their own below it.
        to: a key of `TARGETS`, or "hamnet" for a store.
        code: reader to use; None to tell by content.
        on_event: called with a line for each calculation.

    Raises:
        ConfigError: unknown format or reader, no such source, OUT exists already or has the wrong ending.
        FormatError: nothing to read in the source.
        HamnetError: the only calculation cannot be read or said in the format.
    """
    if to not in (*TARGETS, "hamnet"):
        raise ConfigError(f"no format {to!r} to write; there are {', '.join([*TARGETS, 'hamnet'])}")
    if not source.exists():
        raise ConfigError(f"there is no file or folder {source}")
    if output.exists():
        raise ConfigError(f"{output} exists already: remove it or give another name")
    opened = _opened(source, code)
    tell = on_event or (lambda line: None)
    if to == "hamnet":
        return _to_store(opened, output, tell)
    target = TARGETS[to]
    places = _places(opened, output, target)
    result = ConvertResult(output)

    def write(_: str, calculation: Calculation, place: Path) -> Figures:
        """Write one calculation and say where it is."""
        figures = write_whole(target, calculation, place)
        tell(f"wrote {', '.join(figures['files'])}" + (f": {figures['remark']}" if figures["remark"] else ""))
        return figures

    _write_each(write, opened, places, result, tell)
    return result


def write_whole(target: Target, calculation: Calculation, place: Path) -> Figures:
    """Write into a temporary folder beside the place, then rename: all of it or nothing.

    Returns:
        The format's figures, "files" that were written, and "remark", what the user should know.

    Raises:
        ConfigError: a file is there already.
        HamnetError: the calculation cannot be said in the format.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=f".{place.name}.") as name:
        scratch = Path(name) / place.name
        if not target.suffix:
            scratch.mkdir()
        figures = target.write(calculation, scratch) or {}
        # files written beside the main one (.win, .ORB_INDX) go with it
        moves = [(path, place.parent / path.name) for path in sorted(Path(name).iterdir())]
        there = [str(final) for _, final in moves if final.exists()]
        if there:
            raise ConfigError(f"{', '.join(there)} exists already: remove it or give another name")
        for path, final in moves:
            os.replace(path, final)
    remarks = [figures["remark"]] if "remark" in figures else []
    if not calculation.converged:
        remarks.append("its SCF did not converge")
    return {**figures, "remark": "; ".join(remarks), "files": [str(final) for _, final in moves]}


def _opened(source: Path, code: str | None) -> Opened:
    if code is None:
        return open_source(source)
    chosen = reader(code)

    def reading(path: Path) -> Callable[[], Calculation]:
        """A function that reads one source when asked for."""
        return lambda: chosen.read(path, allow_unconverged=True)

    opened: Opened = [(source_name(path, source), reading(path)) for path in chosen.find(source)]
    if not opened:
        raise FormatError(f"no {code} output was found in {source}; the readers are {', '.join(READER_CLASSES)}")
    return opened


def _places(opened: Opened, output: Path, target: Target) -> list[Path]:
    """Where each calculation goes: OUT itself for one; below OUT for several."""
    endings = (target.suffix, *target.suffixes)
    if len(opened) == 1:
        if target.suffix and not output.name.endswith(endings):
            raise ConfigError(f"{output}: the name must end in {' or '.join(endings)}, as {output.name}{target.suffix}")
        return [output]
    if target.suffix and output.name.endswith(endings):
        raise ConfigError(f"the source holds {len(opened)} calculations: give a folder, not the file {output.name}")
    names = [_file_name(name) + target.suffix for name, _ in opened]
    if len(set(names)) < len(names):
        raise FormatError(f"calculations with equal names cannot be told apart in {output}: {sorted(names)[:5]}")
    return [output / name for name in names]


def _file_name(name: str) -> str:
    """A name of a calculation as a name of a file: its folders stay, what leads out of OUT does not."""
    parts = [part for part in Path(name).parts if part not in ("..", "/", ".")]
    return str(Path(*parts)) if parts else "calculation"


def _to_store(opened: Opened, output: Path, tell: Callable[[str], None]) -> ConvertResult:
    from hamnet.data.store import StoreWriter

    result = ConvertResult(output)
    if not output.parent.is_dir():
        raise ConfigError(f"there is no folder {output.parent} to write {output.name} into")
    scratch = Path(tempfile.mkdtemp(dir=output.parent, prefix=f".{output.name}."))
    try:
        with StoreWriter(scratch / output.name) as writer:

            def add(name: str, calculation: Calculation, _: Path) -> Figures:
                """Add one calculation to the store."""
                writer.add(name, calculation)
                return {}

            _write_each(add, opened, [output] * len(opened), result, tell)
            if not result.written:
                writer.discard()
        if result.written:
            os.replace(scratch / output.name, output)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    tell(f"wrote {output}: {len(result.written)} calculation(s)" if result.written else "nothing was written")
    return result


def _write_each(
    write: Callable[[str, Calculation, Path], Figures],
    opened: Opened,
    places: Sequence[Path],
    result: ConvertResult,
    tell: Callable[[str], None],
) -> None:
    """Read and write one calculation after the other; one of several that fails is told and left out."""
    for (name, read), place in zip(opened, places, strict=True):
        try:
            figures = write(name, read(), place)
        except HamnetError as error:
            if len(opened) == 1:
                raise
            result.failures.append((name, f"{type(error).__name__}: {error}"))
            tell(f"failed: {name}: {error}")
            continue
        result.written.append((name, place, figures))
