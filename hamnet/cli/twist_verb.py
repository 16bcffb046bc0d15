"""`hamnet twist`: a hexagonal sheet -> a twisted bilayer in its commensurate cell."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hamnet.cli.common import JsonOption, Reporter


def register(app: typer.Typer) -> None:
    """Add the verb to the command."""
    app.command("twist")(twist)


def twist(
    sheet: Annotated[Path, typer.Argument(help="One layer in its primitive cell: cif, POSCAR, xyz, extxyz.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Structure to write, .extxyz.")],
    angle: Annotated[float | None, typer.Option(help="Degrees; the nearest cell with --r 1 is taken.")] = None,
    m: Annotated[int, typer.Option(help="Cell m a1 + (m + r) a2, where no angle is given.")] = 1,
    r: Annotated[int, typer.Option(help="See --m.")] = 1,
    distance: Annotated[float, typer.Option(help="Angstrom between the layers' mean heights.")] = 3.35,
    vacuum: Annotated[float, typer.Option(help="Angstrom of empty space above the layers.")] = 15.0,
    as_json: JsonOption = False,
) -> None:
    """Build a rigid twisted bilayer of a hexagonal sheet in its commensurate cell.

    Example: hamnet twist graphene.cif --angle 1.05 -o tbg.extxyz && hamnet predict run/model.ckpt tbg.extxyz -o
    tbg.h5 --memory 8GB && hamnet bands tbg.h5 --bands 40 --around fermi --path G,M,K,G -o bands
    """
    from hamnet.predict.structures import read_structures
    from hamnet_preprocess.perturb import write_structures
    from hamnet_preprocess.twist import Twist, twisted_bilayer

    reporter = Reporter(as_json)
    chosen = Twist(m, r) if angle is None else Twist.nearest(angle)
    atoms = twisted_bilayer(read_structures(sheet)[-1][1], chosen, distance, vacuum)
    write_structures(output, [atoms])
    reporter.line(
        f"{output}: {len(atoms)} atoms, {chosen.angle:.4f} degrees (m = {chosen.m}, r = {chosen.r}), moire cell of "
        f"{atoms.cell.lengths()[0]:.3f} A"
    )
    reporter.result({"atoms": len(atoms), "angle": chosen.angle, "m": chosen.m, "r": chosen.r, "output": str(output)})
