"""`hamnet perturb`: a crystal -> rattled and strained supercells to label."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hamnet.cli.common import JsonOption, Reporter


def register(app: typer.Typer) -> None:
    """Add the verb to the command."""
    app.command("perturb")(perturb)


def perturb(
    structure: Annotated[Path, typer.Argument(help="Structure: cif, POSCAR, xyz, extxyz; its last frame is taken.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Structures to write, .extxyz.")],
    n: Annotated[int, typer.Option("--n", "-n", min=1, help="How many.")] = 64,
    rattle: Annotated[float, typer.Option(help="Angstrom: standard deviation of each coordinate.")] = 0.05,
    strain: Annotated[float, typer.Option(help="Largest entry of the symmetric strain tensor.")] = 0.02,
    supercell: Annotated[tuple[int, int, int], typer.Option(help="Repeats along the lattice vectors.")] = (1, 1, 1),
    seed: Annotated[int, typer.Option(min=0, help="Of the random numbers.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Rattle and strain supercells of a crystal; slabs are strained in their plane alone.

    Example: hamnet perturb hbn.cif --n 64 --rattle 0.05 --strain 0.02 --supercell 2 2 1 -o structures.extxyz
    """
    from hamnet.predict.structures import read_structures
    from hamnet_preprocess.perturb import PerturbSettings, periodic_directions, write_structures
    from hamnet_preprocess.perturb import perturb as make

    reporter = Reporter(as_json)
    atoms = read_structures(structure)[-1][1]
    found = make(atoms, n, PerturbSettings(rattle, strain, supercell, seed))
    write_structures(output, found)
    axes = periodic_directions(found[0])
    reporter.line(f"{output}: {n} structures of {len(found[0])} atoms, strained along {len(axes)} directions")
    reporter.result({"structures": n, "atoms": len(found[0]), "strained_directions": axes, "output": str(output)})
