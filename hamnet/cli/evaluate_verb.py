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
    split: Annotated[
        Path | None, typer.Option(help="Split file, or a benchmark's split as qh9-stable-iid; else all calculations.")
    ] = None,
    part: Annotated[str, typer.Option(help="Part of the split: train, validation or test.")] = "test",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for metrics.json, error_map.png.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    scf: Annotated[
        int, typer.Option(min=0, help="On so many molecules also energy, forces and SCF cycles saved (PySCF).")
    ] = 0,
    as_json: JsonOption = False,
) -> None:
    """Compare a model with calculations: H, bands near the Fermi level; levels and orbitals of molecules.

    Example: hamnet evaluate run/model.ckpt data.h5 --split run/split.json --part test -o evaluation
    """
    from hamnet.train.evaluation import evaluate as run
    from hamnet.train.molecule_metrics import micro
    from hamnet.train.run import summary
    from hamnet.train.scf_metrics import scf_summary

    reporter = Reporter(as_json)
    result = run(model, data, output, split, part, device, scf)
    for row in result.structures[:20]:
        raw = row.get("hamiltonian_mae_uEh")
        error = f"{row['hamiltonian_mae_meV']:.3f} meV" if raw is None else f"{micro(raw)} uEh"
        reporter.line(f"{row['name']}: H MAE {error}")
    reporter.line(summary(result.figures))
    if scf:
        reporter.line(scf_summary(result.figures))
    reporter.result(result.figures)
