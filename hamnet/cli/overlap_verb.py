"""`hamnet overlap`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hamnet.cli.common import JsonOption, Reporter


def register(app: typer.Typer) -> None:
    """Add the verb to the command."""
    app.command("overlap")(overlap)


def overlap(
    structures: Annotated[list[Path], typer.Argument(help="POSCAR, .cif, .xyz or .extxyz files (several frames too).")],
    basis_from: Annotated[Path, typer.Option("--basis-from", help="Store or checkpoint that holds the basis.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Store to write, with S of every structure.")],
    as_json: JsonOption = False,
) -> None:
    """Overlap matrix S of structures from the basis alone: no DFT run, no network.

    Example: hamnet overlap POSCAR --basis-from data.h5 -o S.h5

    The basis comes with its radial functions from `hamnet preprocess openmx runs/ -o data.h5 --pao DFT_DATA19/PAO`.
    """
    from hamnet.predict.overlap_only import overlap_files

    report = Reporter(as_json)
    summary = overlap_files(structures, basis_from, output, report.line)
    report.line(
        f"wrote {output}: {summary.structures} structure(s), {summary.pairs} pairs, {summary.seconds:.2f} s, "
        f"peak memory {summary.peak_memory_gb:.2f} GB"
    )
    report.result(
        {
            "structures": summary.structures,
            "atoms": summary.atoms,
            "orbitals": summary.orbitals,
            "pairs": summary.pairs,
            "seconds": summary.seconds,
            "peak_memory_GB": summary.peak_memory_gb,
            "origin": summary.origin,
            "output": str(output),
        }
    )
