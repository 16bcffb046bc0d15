"""`hamnet bands`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
from hamnet.errors import ConfigError

if TYPE_CHECKING:
    from hamnet.core.calculation import Calculation
    from hamnet.core.reference import ReferenceBands

HELP = """Bands, gap and effective masses of any H and S: a store, a prediction, a DFT output.

Example: hamnet bands graphene/openmx.scfout --path G,M,K,G -o graphene_bands

With --compare X.Band (OpenMX) or X.bs (CP2K) the bands are computed on that file's own k-points and the largest
differences reported. Large cells: --bands 40 --around fermi computes these bands alone; k-points done before are
taken from the folder of an interrupted run.
"""


def register(app: typer.Typer) -> None:
    """Add the verb to the command."""
    app.command("bands", help=HELP)(bands)


def bands(
    file: FileArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for bands.png, .csv and .h5.")] = Path("bands"),
    path: Annotated[str | None, typer.Option(help='"auto", "G,M,K,G", "|" for a break, or "0 0 0, 0.5 0 0".')] = None,
    points: Annotated[int, typer.Option(help="k-points along the whole path.", min=2)] = 200,
    compare: Annotated[
        Path | None, typer.Option(help="A .Band (OpenMX) or .bs (CP2K) file, or another calculation as FILE.")
    ] = None,
    window: Annotated[str | None, typer.Option(help='Compare only in eV about E_F: "-10,5", or "5" for both.')] = None,
    project: Annotated[bool, typer.Option("--project", help="Draw fat bands: weights of species or orbitals.")] = False,
    project_by: Annotated[str, typer.Option(help="What --project draws: orbital or species.")] = "orbital",
    spin: Annotated[str | None, typer.Option("--spin", help="Colour by the spin of each state: x, y or z.")] = None,
    project_overlap: Annotated[float | None, typer.Option(help="Project out modes of S(k) below this.")] = None,
    name: NameOption = None,
    index: IndexOption = None,
    emin: Annotated[float | None, typer.Option(help="Lower end of the plot, eV from E_F.")] = None,
    emax: Annotated[float | None, typer.Option(help="Upper end of the plot, eV from E_F.")] = None,
    n_bands: Annotated[int | None, typer.Option("--bands", help="Only so many bands: for large cells.", min=1)] = None,
    around: Annotated[str, typer.Option(help='With --bands: about "fermi" or an energy in eV.')] = "fermi",
    engine: EngineOption = "auto",
    threads: ThreadsOption = 1,
    jobs: JobsOption = 1,
    certify: CertifyOption = True,
    as_json: JsonOption = False,
) -> None:
    """Bands of one calculation, with files, figures and a comparison."""
    from hamnet.bands.large import LargeSettings
    from hamnet.bands.study import StudySettings, study_bands

    reporter = Reporter(as_json)
    limits = parse_window(window)
    calculation, label = load_calculation(file, name, index)
    reporter.line(label)
    settings = StudySettings(
        path,
        points,
        limits,
        project_by if project else "none",
        project_overlap,
        (emin, emax),
        "/".join(Path(label).parts[-2:]),
        "" if compare is None else compare.name,
        large=None if n_bands is None else LargeSettings(n_bands, around, engine, threads, jobs, certify),
        spin_axis=parse_axis(spin, project or n_bands is not None),
    )
    reference = None if compare is None else _load_reference(compare, label)
    study = study_bands(calculation, output, reference, settings, reporter.line, _progress(reporter))
    for line in study.lines():
        reporter.line(line)
    reporter.result(study.figures())


def parse_window(text: str | None) -> tuple[float, float] | None:
    """(low, high) from "-10,5", "-10 5", "-10:5" or "5" (which is -5 to 5).

    Raises:
        ConfigError: not one or two numbers, or low is not below high.
    """
    if text is None:
        return None
    try:
        numbers = [float(word) for word in text.replace(",", " ").replace(":", " ").split()]
    except ValueError:
        numbers = []
    if len(numbers) == 1:
        numbers = [-abs(numbers[0]), abs(numbers[0])]
    if len(numbers) != 2 or not numbers[0] < numbers[1]:
        raise ConfigError(
            f'--window {text!r}: expected "low,high" in eV about the Fermi level as "-10,5", or one number'
        )
    return numbers[0], numbers[1]


def parse_axis(text: str | None, taken: bool) -> int | None:
    """0, 1, 2 from "x", "y", "z".

    Args:
        text: what was given.
        taken: something else is drawn already, or the states are those of a large cell.

    Raises:
        ConfigError: another text, or both at once.
    """
    if text is None:
        return None
    if text not in ("x", "y", "z"):
        raise ConfigError(f"--spin {text!r}: expected x, y or z")
    if taken:
        raise ConfigError("--spin goes with neither --project nor --bands: give one of them")
    return "xyz".index(text)


def _load_reference(path: Path, label: str) -> ReferenceBands | Calculation:
    if path.suffix == ".Band":
        from hamnet_preprocess.openmx_band import read_band

        return read_band(path)
    if path.suffix == ".bs":
        from hamnet_preprocess.cp2k_bs import read_bs

        return read_bs(path)
    from hamnet_preprocess.sources import open_source

    names = [entry for entry, _ in open_source(path)]
    return load_calculation(path, label if label in names else None, None)[0]


def _progress(reporter: Reporter) -> Callable[[int, int], None]:
    from time import monotonic

    last = monotonic()

    def say(done: int, total: int) -> None:
        """A line every few seconds."""
        nonlocal last
        if monotonic() - last > 5:  # seconds: small cells stay silent
            last = monotonic()
            reporter.line(f"  {done} of {total} k-points")

    return say
