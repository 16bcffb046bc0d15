"""`hamnet moments`."""

from __future__ import annotations

from typing import Annotated

import typer

from hamnet.cli.common import JsonOption, Reporter
from hamnet.cli.open_calculation import (
    FileArgument,
    IndexOption,
    MeshOption,
    NameOption,
    load_calculation,
    parse_mesh,
)


def register(app: typer.Typer) -> None:
    """Add the verb to the command."""
    app.command("moments")(moments)


def moments(
    file: FileArgument,
    mesh: MeshOption = None,
    temperature: Annotated[float | None, typer.Option(help="Kelvin, of the occupations.")] = None,
    name: NameOption = None,
    index: IndexOption = None,
    as_json: JsonOption = False,
) -> None:
    """Magnetic moments of a cell and of its atoms (Mulliken), from the states of H filled up to the Fermi level.

    Example: hamnet moments o2_spin/openmx.scfout
    """
    from hamnet.bands.spin_texture import spin_moments

    reporter = Reporter(as_json)
    calculation, label = load_calculation(file, name, index)
    reporter.line(label)
    found = spin_moments(calculation, parse_mesh(mesh), temperature)
    for atom, (vector, electrons) in enumerate(zip(found.moments, found.electrons, strict=True)):
        x, y, z = vector
        reporter.line(f"atom {atom}: moment {x:8.4f} {y:8.4f} {z:8.4f} mu_B, {electrons:.4f} electrons")
    x, y, z = found.total
    k = " x ".join(map(str, found.mesh))
    reporter.line(f"cell: {x:.4f} {y:.4f} {z:.4f} mu_B at E_F {found.fermi_energy:.4f} eV, {k} k-points")
    reporter.result(
        {
            "moments_bohr_magneton": found.moments.tolist(),
            "total_bohr_magneton": found.total.tolist(),
            "electrons": found.electrons.tolist(),
            "fermi_eV": found.fermi_energy,
            "mesh": list(found.mesh),
            "temperature_K": found.temperature,
        }
    )
