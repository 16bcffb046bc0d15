"""`hamnet fermi`."""

from __future__ import annotations

from typing import Annotated

import typer

from hamnet.cli.common import JsonOption, Reporter
from hamnet.cli.open_calculation import (
    ElectronsOption,
    EngineOption,
    FileArgument,
    IndexOption,
    MeshOption,
    NameOption,
    ThreadsOption,
    load_calculation,
    parse_mesh,
)


def register(app: typer.Typer) -> None:
    """Add the verb to the command."""
    app.command("fermi")(fermi)


def fermi(
    file: FileArgument,
    electrons: ElectronsOption = None,
    mesh: MeshOption = None,
    temperature: Annotated[float | None, typer.Option(help="Kelvin, of the occupations.")] = None,
    resolution: Annotated[float | None, typer.Option(help="eV: bisect by counts alone to this width.")] = None,
    engine: EngineOption = "auto",
    threads: ThreadsOption = 1,
    name: NameOption = None,
    index: IndexOption = None,
    as_json: JsonOption = False,
) -> None:
    """Fermi level of any cell by counting states: exact, without diagonalising.

    Example: hamnet fermi H.h5 --mesh 12,12,1
    """
    from hamnet.bands.large import LargeSettings
    from hamnet.bands.large_studies import MeshSettings, study_fermi

    reporter = Reporter(as_json)
    calculation, label = load_calculation(file, name, index)
    reporter.line(label)
    settings = MeshSettings(parse_mesh(mesh), electrons, LargeSettings(engine=engine, threads=threads))
    report = study_fermi(calculation, settings, temperature, resolution, reporter.line)
    for line in report.lines:
        reporter.line(line)
    reporter.result(report.figures)
