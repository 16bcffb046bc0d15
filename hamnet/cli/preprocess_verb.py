"""`hamnet preprocess`: DFT output -> store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hamnet.cli.common import JsonOption, Reporter

if TYPE_CHECKING:
    from hamnet_preprocess.collect import CollectResult, Event, Refinement

Paths = Annotated[list[Path], typer.Argument(help="Folders to walk, or files.")]
Output = Annotated[Path, typer.Option("--output", "-o", help="Store to write (.h5); goes on where a run stopped.")]
Jobs = Annotated[int, typer.Option("--jobs", "-j", min=1, help="Processes that read side by side.")]
Unconverged = Annotated[bool, typer.Option("--allow-unconverged", help="Keep SCFs that did not converge, marked.")]

CODES = {
    "pyscf": "PySCF chkfiles",
    "cp2k": "CP2K runs (output, input and the .csr files of KS and S)",
    "deeph": "DeepH folders (POSCAR, info.json, overlap.h5, hamiltonian.h5)",
    "deeph-legacy": "folders of DeepH's legacy format (lat.dat, overlaps.h5, hamiltonians.h5)",
    "sisl": "SIESTA output (.HSX, .TSHS, .nc) through sisl",
    "abacus": "ABACUS output (STRU, data-HR-sparse_SPIN0.csr, data-SR-sparse_SPIN0.csr)",
}
"""Codes and formats that need no option of their own -> what is read."""
DATABASES = {
    "qh9": ("QH9's databases (QH9Stable.db, QH9Dynamic_*.db)", 1),
    "schnorb": ("SchNOrb's ASE databases of MD17 (schnorb_hamiltonian_*.db)", 0),
    "nabladft": ("nablaDFT's Hamiltonian databases (dataset_*.db)", 0),
}
"""Benchmarks with one molecule in each row -> what is read, and how many Fock builds check a file unless told."""


def register(app: typer.Typer) -> None:
    """Add the verb to the command."""
    verb = typer.Typer(
        help="Read DFT output into a store. Example: hamnet preprocess openmx runs/ -o data.h5 --jobs 2",
        no_args_is_help=True,
    )
    verb.command("openmx")(openmx)
    for code, what in CODES.items():
        verb.command(code)(_reading(code, what))
    for code, (what, checks) in DATABASES.items():
        verb.command(code)(_reading_database(code, what, checks))
    app.add_typer(verb, name="preprocess")


def openmx(
    paths: Paths,
    output: Output,
    pao: Annotated[
        Path | None,
        typer.Option("--pao", help="Folder with OpenMX's .pao files (default: PAO in the deck's DATA.PATH)."),
    ] = None,
    jobs: Jobs = 1,
    allow_unconverged: Unconverged = False,
    as_json: JsonOption = False,
) -> None:
    """Read OpenMX output (.scfout) into a store, with --pao also the radial functions, which give S of any structure.

    Example: hamnet preprocess openmx runs/ -o data.h5 --pao DFT_DATA19/PAO --jobs 2
    """
    from functools import partial

    from hamnet_preprocess.collect import Refinement
    from hamnet_preprocess.openmx_pao import attach

    refinement = None if pao is None else Refinement("pao", partial(attach, folder=pao))
    _preprocess("openmx", paths, output, jobs, allow_unconverged, Reporter(as_json), refinement)


def _reading(code: str, what: str) -> Callable[..., None]:
    """The command that reads one format."""

    def command(
        paths: Paths,
        output: Output,
        jobs: Jobs = 1,
        allow_unconverged: Unconverged = False,
        as_json: JsonOption = False,
    ) -> None:
        """Read output into a store."""
        _preprocess(code, paths, output, jobs, allow_unconverged, Reporter(as_json))

    command.__doc__ = f"Read {what} into a store.\n\nExample: hamnet preprocess {code} runs/ -o data.h5"
    return command


def _reading_database(code: str, what: str, checks: int) -> Callable[..., None]:
    """The command that reads one benchmark."""

    def command(
        paths: Paths,
        output: Output,
        fock_checks: Annotated[
            int,
            typer.Option(min=0, help="Smallest molecules of each file whose H is held against a Fock build of PySCF."),
        ] = checks,
        jobs: Jobs = 1,
        allow_unconverged: Unconverged = False,
        as_json: JsonOption = False,
    ) -> None:
        """Read a database into a store."""
        from hamnet_preprocess.fock_check import check_databases

        reporter = Reporter(as_json)
        for check in check_databases(paths, code, fock_checks):
            reporter.line(f"{check.source}: H is its own Fock matrix to {check.deviation:.1e} Hartree ({check.method})")
        _preprocess(code, paths, output, jobs, allow_unconverged, reporter)

    command.__doc__ = f"Read {what} into a store.\n\nExample: hamnet preprocess {code} FILE.db -o data.h5 --jobs 2"
    return command


def _preprocess(
    code: str,
    paths: list[Path],
    output: Path,
    jobs: int,
    allow_unconverged: bool,
    reporter: Reporter,
    refinement: Refinement | None = None,
) -> None:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from hamnet_preprocess.collect import collect

    columns = (TextColumn("reading"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    silent = not reporter.console.is_terminal  # in a log file a bar that is taken away leaves an empty line
    with Progress(*columns, console=reporter.console, transient=True, disable=silent) as progress:
        on_event = _show(progress.add_task, progress.update)
        result = collect(code, paths, output, jobs, allow_unconverged, on_event, refinement)
    _report(result, reporter)
    if result.failed:
        raise typer.Exit(1)


def _show(add_task: Callable[..., int], update: Callable[..., None]) -> Callable[[Event], None]:
    bar: list[int] = []

    def on_event(event: Event) -> None:
        """Move the bar, which is drawn once the number of sources is known."""
        if not bar:
            bar.append(add_task("reading", total=event.total))
        update(bar[0], completed=event.done)

    return on_event


def _report(result: CollectResult, reporter: Reporter) -> None:
    for source, reason in result.failures:
        reporter.line(f"failed: {source}: {' '.join(reason.split())}")
    if not result.read and not result.skipped:
        reporter.line("nothing could be read, so no store was written")
    reporter.line(
        f"{result.output}: read {result.read}, already there {result.skipped}, failed {result.failed}, "
        f"in {result.seconds:.1f} s" + (f" ({result.megabytes_per_second:.1f} MB/s)" if result.n_bytes else "")
    )
    if result.overlap_only:
        reporter.line(f"{result.overlap_only} hold S and no Hamiltonian: for predict --overlap, not for training")
    reporter.result(
        {
            "read": result.read,
            "overlap_only": result.overlap_only,
            "failed": result.failed,
            "skipped": result.skipped,
            "seconds": result.seconds,
            "megabytes_per_second": result.megabytes_per_second,
            "failures": [{"source": source, "reason": reason} for source, reason in result.failures],
            "output": str(result.output),
        }
    )
