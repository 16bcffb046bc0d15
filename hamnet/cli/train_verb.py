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
    config: Annotated[Path, typer.Argument(help="Configuration (YAML), as those in configs/; or a store (.h5).")],
    overrides: Annotated[list[str] | None, typer.Argument(help="section.key=value, as training.epochs=100.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from last.ckpt in the output folder.")] = False,
    source: Annotated[
        Path | None, typer.Option("--from", help="model.ckpt to start from: same or other elements and orbitals.")
    ] = None,
    ensemble: Annotated[
        int, typer.Option("--ensemble", min=1, help="Train so many seeds into output/0, output/1, ...")
    ] = 1,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; stands before the configuration's.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Train a model from a store; without a network section its size is chosen, with reasons.

    Example: hamnet train configs/crystal.yaml data.store=data.h5 training.output=run training.max_minutes=30

    Example: hamnet train data.h5 training.max_minutes=30
    """
    from hamnet.config import load_config
    from hamnet.train.ensemble import ensemble_figures, train_ensemble
    from hamnet.train.run import train as run

    reporter = Reporter(as_json)
    changes = [*(overrides or []), *([f"training.device={device}"] if device else [])]
    changes += ["training.progress=false"] if as_json else []
    settings = load_config(config, changes)
    try:
        if ensemble > 1:
            results = train_ensemble(settings, ensemble, resume, reporter.line, source)
            reporter.line("models: " + " ".join(str(result.checkpoint) for result in results))
            reporter.result(ensemble_figures(results))
            return
        result = run(settings, resume, reporter.line, source=source)
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    reporter.line(f"model: {result.checkpoint}")
    reporter.result(result.figures)
