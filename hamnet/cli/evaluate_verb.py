"""`hamnet evaluate`: errors of a model on a store."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hamnet.cli.common import JsonOption, Reporter


def register(app: typer.Typer) -> None:
    """Add the verb to the command."""
    app.command("evaluate", no_args_is_help=True)(evaluate)


def evaluate(
    model: Annotated[Path, typer.Argument(help="Checkpoint, the model.ckpt of hamnet train.")],
    data: Annotated[list[Path], typer.Argument(help="Store or stores with the truth (.h5).")],
    split: Annotated[Path | None, typer.Option(help="Split file; without it all calculations count.")] = None,
    part: Annotated[str, typer.Option(help="Part of the split: train, validation or test.")] = "test",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for metrics.json, error_map.png.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    as_json: JsonOption = False,
) -> None:
    """Compare a model with calculations: H, bands near the Fermi level, occupied levels.

    Example: hamnet evaluate run/model.ckpt data.h5 --split run/split.json --part test -o evaluation
    """
    from hamnet.train.evaluation import evaluate as run
    from hamnet.train.run import summary

    reporter = Reporter(as_json)
    result = run(model, data, output, split, part, device)
    for row in result.structures[:20]:
        reporter.line(f"{row['name']}: H MAE {row['hamiltonian_mae_meV']:.3f} meV")
    reporter.line(summary(result.figures))
    reporter.result(result.figures)
