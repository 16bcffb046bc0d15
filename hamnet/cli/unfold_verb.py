"""`hamnet unfold`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hamnet.cli.common import JsonOption, Reporter
from hamnet.cli.open_calculation import (
    CertifyOption,
    EngineOption,
    FileArgument,
    IndexOption,
    JobsOption,
    NameOption,
    ThreadsOption,
    load_calculation,
)


def register(app: typer.Typer) -> None:
    """Add the verb to the command."""
    app.command("unfold")(unfold)


def unfold(
    file: FileArgument,
    primitive: Annotated[Path, typer.Option("--primitive", help="Calculation of the primitive cell: its atoms count.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for unfolded.png and .csv.")] = Path(
        "unfolded"
    ),
    path: Annotated[str, typer.Option(help='Of the primitive cell: "auto", "G,M,K,G", "0 0 0, 0.5 0 0".')] = "auto",
    points: Annotated[int, typer.Option(help="k-points along the whole path.", min=2)] = 60,
    n_bands: Annotated[int | None, typer.Option("--bands", help="States at each k-point; all if not given.")] = None,
    around: Annotated[str, typer.Option(help='With --bands: about "fermi" or an energy in eV.')] = "fermi",
    emin: Annotated[float | None, typer.Option(help="Lower end of the plot, eV from E_F.")] = None,
    emax: Annotated[float | None, typer.Option(help="Upper end of the plot, eV from E_F.")] = None,
    engine: EngineOption = "auto",
    threads: ThreadsOption = 1,
    jobs: JobsOption = 1,
    certify: CertifyOption = True,
    name: NameOption = None,
    index: IndexOption = None,
    as_json: JsonOption = False,
) -> None:
    """Bands of a supercell, rattled or defective, on the wave vectors of its primitive cell.

    Example: hamnet unfold H.h5 --primitive graphene/prim --path G,M,K,G --bands 100 -o unfolded
    """
    from hamnet.bands.large import LargeSettings
    from hamnet.bands.large_studies import study_unfold

    reporter = Reporter(as_json)
    calculation, label = load_calculation(file, name, index)
    reporter.line(label)
    cell = load_calculation(primitive, None, 0)[0].structure
    large = LargeSettings(n_bands, around, engine, threads, jobs, certify)
    report = study_unfold(calculation, cell, output, path, points, large, (emin, emax), reporter.line)
    for line in report.lines:
        reporter.line(line)
    reporter.result(report.figures)
