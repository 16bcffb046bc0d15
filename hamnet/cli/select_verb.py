"""`hamnet select`: structures without labels -> those that need one."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from hamnet.cli.common import JsonOption, Reporter


class By(StrEnum):
    """What structures are ranked by."""

    COMMUTATOR = "commutator"
    SPREAD = "spread"


def register(app: typer.Typer) -> None:
    """Add the verb to the command."""
    app.command("select", no_args_is_help=True)(select)


def select(
    model: Annotated[Path, typer.Argument(help="Checkpoint, or the folder of an ensemble.")],
    structures: Annotated[
        list[Path], typer.Argument(help="Structures: extxyz, xyz, cif, POSCAR; before them more .ckpt files.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Table to write (.csv); .extxyz beside it.")],
    by: Annotated[
        By | None,
        typer.Option(
            help="commutator: one Fock build each (two where the model learnt H - H0), molecules; "
            "spread: of an ensemble, crystals too."
        ),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Structures to write as extxyz, the least known first.")] = 10,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    as_json: JsonOption = False,
) -> None:
    """Rank structures by how little the model knows of them, and write those to label next.

    Example: hamnet select run/model.ckpt pool.extxyz -o ranked.csv && hamnet label pyscf ranked.extxyz -o labels
    """
    from hamnet.predict.batch import named_frames
    from hamnet.predict.ensemble import models_and_structures
    from hamnet.predict.selection import select as rank

    reporter = Reporter(as_json)
    models, files = models_and_structures([model, *structures])
    frames = named_frames(files)
    ranking = rank(models, frames, output, by.value if by else None, top, device, reporter.line, inputs=files)
    for number, row in enumerate(ranking.rows[:top], start=1):
        reporter.line(
            f"{number:4d}  {row.name}  {row.score:.4e} eV" if not row.reason else f"{number:4d}  {row.name}  -"
        )
    reporter.line(f"wrote {output} and {output.with_suffix('.extxyz')}; {ranking.builds} Fock builds")
    failed = [{"name": row.name, "reason": row.reason} for row in ranking.rows if row.reason]
    reporter.result(
        {"measure": ranking.measure, "fock_builds": ranking.builds, "ranked": len(ranking.rows) - len(failed),
         "failed": failed, "output": str(output), "first": ranking.rows[0].name}
    )  # fmt: skip
