"""`hamnet inspect`: what is in a file or folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from hamnet.cli.common import JsonOption, Reporter


def register(app: typer.Typer) -> None:
    """Add the verb to the command."""
    app.command("inspect")(inspect)


def inspect(
    file: Annotated[Path, typer.Argument(help="Store, checkpoint (.ckpt), .scfout, chkfile or DFT folder.")],
    as_json: JsonOption = False,
) -> None:
    """Say what is in a file: elements, basis, pairs, ranges, spin, energies, provenance.

    Example: hamnet inspect data.h5
    """
    from hamnet_preprocess.inspection import figures_text, inspect_source

    reporter = Reporter(as_json)
    if file.suffix == ".ckpt" and file.is_file():
        figures = _checkpoint_figures(file)
        lines = _checkpoint_text(figures)
    else:
        figures = inspect_source(file)
        lines = figures_text(figures)
    for line in lines:
        reporter.line(line)
    reporter.result(figures)


def _checkpoint_figures(file: Path) -> dict[str, Any]:
    from hamnet.core.spin import Spin
    from hamnet.predict.seen import in_short
    from hamnet.train.checkpoint import load_checkpoint

    checkpoint = load_checkpoint(file)
    return {
        "file": str(file),
        "kind": "checkpoint",
        "spin": checkpoint.spin.value,
        "spin_orbit": checkpoint.statistics.spin_orbit if checkpoint.spin is Spin.SPINOR else None,
        "basis": [species.describe() for species in checkpoint.basis.species],
        "parameters": sum(p.numel() for p in checkpoint.model.parameters()),
        "config": checkpoint.config.model_dump(mode="json"),
        "metadata": in_short(checkpoint.metadata),
    }


def _checkpoint_text(figures: Mapping[str, Any]) -> list[str]:
    coupling = " without spin-orbit coupling" if figures["spin_orbit"] is False else ""
    lines = [f"{figures['file']}: checkpoint, {figures['parameters']} parameters, spin {figures['spin']}{coupling}"]
    lines += [f"  basis             {text}" for text in figures["basis"]]
    lines += [
        f"  {section}.{key:<{max(1, 16 - len(section))}} {value}"
        for section, entries in figures["config"].items()
        for key, value in entries.items()
    ]
    return lines + [f"  {key:<17} {value}" for key, value in figures["metadata"].items()]
