"""`hamnet demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hamnet.cli.common import JsonOption, Reporter


def register(app: typer.Typer) -> None:
    """Add the verb to the command."""
    app.command("demo")(demo)


def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write.")] = Path("hamnet-demo"),
    quick: Annotated[bool, typer.Option("--quick", help="Train for seconds only: the figures mean nothing.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Everything on a graphene sample that ships with hamnet, with 2.5 minutes of training.

    Example: hamnet demo -o hamnet-demo
    """
    from hamnet.demo.script import run_demo

    reporter = Reporter(as_json)
    result = run_demo(output, quick, reporter.line, progress=not as_json)
    reporter.result({**result.figures, "output": str(result.output), "commands": result.commands})
