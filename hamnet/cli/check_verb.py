"""`hamnet check`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hamnet.cli.common import JsonOption, Reporter


def register(app: typer.Typer) -> None:
    """Add the verb to the command."""
    app.command("check")(check)


def check(
    file: Annotated[Path, typer.Argument(help="Store, prediction, .scfout, PySCF chkfile or DFT folder.")],
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show the checks that passed too.")] = False,
    as_json: JsonOption = False,
) -> None:
    """The physics doctor: hermiticity, pairs, positive S, eigenvalues, time reversal, electrons.

    Exit code 1 when a check does not pass.

    Example: hamnet check data.h5
    """
    from hamnet_preprocess.checks import check_file

    reporter = Reporter(as_json)
    findings = check_file(file)
    failed = [f for f in findings if not f.passed]
    for f in findings if verbose else failed:
        where = f" at pair {f.pair}" if f.pair else ""
        reporter.line(f"{'ok    ' if f.passed else 'FAILED'} {f.source}: {f.check}{where}: {f.message}")
    sources = len({f.source for f in findings})
    reporter.line(f"{sources} calculations, {len(findings)} checks, {len(failed)} failed")
    reporter.result({"passed": not failed, "findings": [f.as_dict() for f in findings]})
    if failed:
        raise typer.Exit(1)
