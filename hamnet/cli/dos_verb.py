"""`hamnet dos`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hamnet.cli.bands_verb import parse_axis, parse_window
from hamnet.cli.common import JsonOption, Reporter
from hamnet.cli.open_calculation import (
    ElectronsOption,
    EngineOption,
    FileArgument,
    IndexOption,
    JobsOption,
    MeshOption,
    NameOption,
    ThreadsOption,
    load_calculation,
    parse_mesh,
)


def register(app: typer.Typer) -> None:
    """Add the verb to the command."""
    app.command("dos")(dos)


def dos(
    file: FileArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for dos.png and dos.csv.")] = Path("dos"),
    method: Annotated[str, typer.Option(help="auto, states (all of them), counts (exact) or moments.")] = "auto",
    window: Annotated[str, typer.Option(help='eV about E_F: "-10,5", or "5" for both.')] = "-10,5",
    points: Annotated[int | None, typer.Option(help="Energies; 600, or 60 counts.", min=2)] = None,
    broadening: Annotated[float, typer.Option(help="eV, of each state's Gaussian.")] = 0.1,
    moments: Annotated[int, typer.Option(help="Chebyshev moments: more resolve more.", min=10)] = 600,
    vectors: Annotated[int, typer.Option(help="Random vectors: more make the error smaller.", min=2)] = 8,
    spin: Annotated[str | None, typer.Option("--spin", help="Spinors as up and down along x, y or z.")] = None,
    electrons: ElectronsOption = None,
    mesh: MeshOption = None,
    engine: EngineOption = "auto",
    threads: ThreadsOption = 1,
    jobs: JobsOption = 1,
    name: NameOption = None,
    index: IndexOption = None,
    as_json: JsonOption = False,
) -> None:
    """Density of states: all states, exact counts, or Chebyshev moments with their statistical error drawn.

    Example: hamnet dos H.h5 --method counts --window -3,3 --points 40 -o dos
    """
    from hamnet.bands.large import LargeSettings
    from hamnet.bands.large_studies import DosSettings, MeshSettings, study_dos

    reporter = Reporter(as_json)
    limits = parse_window(window) or (-10.0, 5.0)
    calculation, label = load_calculation(file, name, index)
    reporter.line(label)
    settings = MeshSettings(parse_mesh(mesh), electrons, LargeSettings(engine=engine, threads=threads, jobs=jobs))
    axis = parse_axis(spin, False)
    how = DosSettings(method, limits, points, broadening, moments, vectors, axis)
    report = study_dos(calculation, output, settings, how, reporter.line)
    for line in report.lines:
        reporter.line(line)
    reporter.result(report.figures)
