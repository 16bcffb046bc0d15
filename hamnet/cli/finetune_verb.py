"""`hamnet finetune`: structures without labels -> a better model."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from hamnet.cli.common import JsonOption, Reporter

INTERRUPTED = 130


class TargetKind(StrEnum):
    """What a round's training learns."""

    RELAXED = "relaxed"
    MIXED = "mixed"


def register(app: typer.Typer) -> None:
    """Add the verb to the command."""
    app.command("finetune", no_args_is_help=True)(finetune)


def finetune(
    model: Annotated[Path, typer.Argument(help="Checkpoint of a model of molecules, or its training's folder.")],
    unlabelled: Annotated[Path, typer.Option("--unlabelled", help="Molecules to learn from: extxyz, xyz.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the run.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="section.key=value of each round's training; data.store=OLD.h5: labels to rehearse."),
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Fock builds of each molecule.")] = 2,
    target: Annotated[
        TargetKind, typer.Option(help="relaxed: F with its Coulomb part self-consistent; mixed: keep H + (1 - keep) F.")
    ] = TargetKind.RELAXED,
    keep: Annotated[float, typer.Option(min=0.0, max=0.99, help="Part of the prediction in a mixed target.")] = 0.4,
    rehearsal: Annotated[float, typer.Option(min=0.0, help="Labelled calculations per molecule in a round.")] = 3.0,
    as_json: JsonOption = False,
) -> None:
    """Teach a model molecules that have no labels: a few Fock builds each instead of an SCF.

    A run that was interrupted goes on when the same command is given again.

    Example: hamnet finetune run/model.ckpt --unlabelled new.extxyz -o run2 data.store=water.h5
    """
    from hamnet.predict.ensemble import model_file
    from hamnet.predict.structures import read_structures
    from hamnet.train.unlabelled import Unlabelled, UnlabelledSettings, unlabelled_config

    reporter = Reporter(as_json)
    start = model_file(model)
    config, labelled = unlabelled_config(start, output, overrides or [])
    settings = UnlabelledSettings(rounds, target.value, keep, rehearsal)
    try:
        run = Unlabelled(config, start, read_structures(unlabelled), settings, labelled, reporter.line)
        result = run.run()
    except KeyboardInterrupt:
        reporter.line("interrupted: give the same command to go on")
        raise typer.Exit(INTERRUPTED) from None
    reporter.line(f"model: {result.checkpoint}, {result.figures['fock_builds']} Fock builds")
    reporter.result(result.figures)
