"""`hamnet train`: store -> model.ckpt."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hamnet.cli.common import JsonOption, Reporter

INTERRUPTED = 130


def register(app: typer.Typer) -> None:
    """Add the verb to the command."""
    app.command("train", no_args_is_help=True)(train)


def train(
    config: Annotated[Path, typer.Argument(help="Configuration (YAML), as those in configs/.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="section.key=value, as training.epochs=100.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from last.ckpt in the output folder.")] = False,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; stands before the configuration's.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Train a model from a store.

    Example: hamnet train configs/crystal.yaml data.store=data.h5 training.output=run training.max_minutes=30
    """
    from hamnet.config import load_config
    from hamnet.train.run import train as run

    reporter = Reporter(as_json)
    changes = [*(overrides or []), *([f"training.device={device}"] if device else [])]
    changes += ["training.progress=false"] if as_json else []
    try:
        result = run(load_config(config, changes), resume, reporter.line)
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    reporter.line(f"model: {result.checkpoint}")
    reporter.result(result.figures)
