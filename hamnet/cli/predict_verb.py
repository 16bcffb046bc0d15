"""`hamnet predict`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hamnet.cli.common import JsonOption, Reporter
from hamnet.errors import ConfigError

if TYPE_CHECKING:
    from hamnet.predict.tiling import TileSettings

HELP = """Predict H and S of structures that no DFT code has seen.

Example: hamnet predict run/model.ckpt POSCAR -o H.h5 && hamnet bands H.h5 -o bands

Several models predict together: their mean, and beside it their spread block by block.
Example: hamnet predict run/0/model.ckpt run/1/model.ckpt POSCAR -o H.h5

A collinear model predicts tilted moments too (initial_magmoms of an .extxyz file), as spinors.
Example: hamnet predict collinear/model.ckpt tilted.extxyz -o H.h5

A large structure, in bounded memory; a run that was killed goes on when it is started again.
Example: hamnet predict run/model.ckpt big.extxyz -o big.h5 --memory 4GB --jobs 2
"""


def register(app: typer.Typer) -> None:
    """Add the verb to the command."""
    app.command("predict", help=HELP)(predict)


def predict(
    model: Annotated[Path, typer.Argument(help="Checkpoint written by `hamnet train`, or an ensemble's folder.")],
    structures: Annotated[
        list[Path],
        typer.Argument(help="POSCAR, .cif, .xyz or .extxyz files (several frames too); before them more .ckpt files."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Store to write, with H and S of every structure.")],
    overlap: Annotated[
        Path | None, typer.Option("--overlap", help="Store with S of the same atoms, instead of the model's own S.")
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option("--reference", help="Store with H0 of the same atoms, for models that learnt H - H0."),
    ] = None,
    device: Annotated[str, typer.Option("--device", help="cpu, cuda or cuda:N.")] = "cpu",
    spinor: Annotated[
        bool,
        typer.Option("--spinor", help="H of a collinear model as spinors; done unasked where moments are tilted."),
    ] = False,
    memory: Annotated[
        str | None,
        typer.Option("--memory", help="Predict structures of any size tile by tile in this memory, as 4GB."),
    ] = None,
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, help="With --memory: processes that share it.")] = 1,
    as_json: JsonOption = False,
) -> None:
    """H and S of each structure into one store; options as the help says."""
    from hamnet.predict.ensemble import models_and_structures
    from hamnet.predict.memory import parse_memory
    from hamnet.predict.tiling import TileSettings

    report = Reporter(as_json)
    models, frames = models_and_structures([model, *structures])
    if memory is not None:
        if reference is not None:
            raise ConfigError("--reference is for models that learnt H - H0 of whole molecules: leave --memory out")
        _in_tiles(models, frames, output, TileSettings(parse_memory(memory), overlap, jobs, device, spinor), report)
        return
    _whole(models, frames, output, {"overlap": overlap, "reference": reference}, device, spinor, report)


def _whole(
    models: list[Path],
    frames: list[Path],
    output: Path,
    given: dict[str, Path | None],
    device: str,
    spinor: bool,
    report: Reporter,
) -> None:
    """Each structure at once."""
    from hamnet.predict.batch import predict_files
    from hamnet.predict.ensemble import spread_path

    summary = predict_files(models, frames, output, **given, device=device, spinor=spinor, on_event=report.line)
    done = f"{summary.structures} structure(s), {summary.pairs} pairs, {summary.seconds:.2f} s"
    report.line(f"wrote {output}: {done}, peak memory {summary.peak_memory_gb:.2f} GB")
    if summary.spreads:
        report.line(f"wrote {spread_path(output)}: spread of the models, block by block, eV")
    spread = str(spread_path(output)) if summary.spreads else None
    report.result(summary.figures() | {"output": str(output), "spread": spread})


def _in_tiles(models: list[Path], frames: list[Path], output: Path, settings: TileSettings, report: Reporter) -> None:
    """`--memory`: tile by tile."""
    from dataclasses import asdict

    from hamnet.predict.tiled_files import predict_files_in_tiles

    summary = predict_files_in_tiles(models, frames, output, settings, on_event=report.line)
    for remark in summary.remarks:
        report.line(f"  note: {remark}")
    report.line(
        f"wrote {output}: {summary.atoms} atoms, {summary.pairs} pairs, {summary.tiles} tiles, "
        f"{summary.seconds:.1f} s, peak memory {summary.peak_memory_gb:.2f} GB"
    )
    if summary.spread is not None:
        report.line(f"wrote {summary.spread}: spread of the models, block by block, eV")
    figures = asdict(summary)
    figures["peak_memory_GB"] = figures.pop("peak_memory_gb")
    figures["forecast_memory_GB"] = figures.pop("forecast_memory_gb")
    figures["spread"] = None if summary.spread is None else str(summary.spread)
    report.result({**figures, "output": str(output)})
