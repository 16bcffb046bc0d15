"""`hamnet convert`: calculations in the format of another program."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hamnet.cli.common import JsonOption, Reporter


def register(app: typer.Typer) -> None:
    """Add the verb to the command."""
    app.command("convert")(convert)


def convert(
    source: Annotated[Path, typer.Argument(metavar="IN", help="Store, DFT folder or file; what hamnet reads.")],
    output: Annotated[Path, typer.Argument(metavar="OUT", help="File or folder; must not exist.")],
    to: Annotated[str, typer.Option("--to", help="deeph, deeph-legacy, sisl, hsx, wannier90 or hamnet (a store).")],
    code: Annotated[
        str | None, typer.Option("--from", help="Reader, as deeph or abacus; without it the content tells.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write H and S in another program's format; several calculations go into folders or files below OUT.

    Example: hamnet convert data.h5 deeph_data --to deeph
    """
    from hamnet_preprocess.convert import convert as run

    reporter = Reporter(as_json)
    result = run(source, output, to, code, reporter.line)
    reporter.result(
        {
            "output": str(result.output),
            "written": [{"name": name, "path": str(path), **figures} for name, path, figures in result.written],
            "failures": [{"name": name, "reason": reason} for name, reason in result.failures],
        }
    )
    if result.failures:
        raise typer.Exit(1)
