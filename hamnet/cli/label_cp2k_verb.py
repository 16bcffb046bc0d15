"""`hamnet label cp2k`: crystals and slabs -> CP2K folders."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hamnet.cli.common import JsonOption, Reporter

if TYPE_CHECKING:
    from hamnet_preprocess.cp2k_input import BandPath


def cp2k(
    structures: Annotated[Path, typer.Argument(help="Structures: extxyz, xyz, cif, POSCAR.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder with one folder for each structure.")],
    basis: Annotated[str, typer.Option(help="Basis by CP2K's name, or Ga=NAME,As=NAME.")] = "DZVP-MOLOPT-SR-GTH",
    functional: Annotated[str, typer.Option(help="Functional by CP2K's name.")] = "PBE",
    kmesh: Annotated[tuple[int, int, int], typer.Option(help="Gamma-centred k-mesh.")] = (1, 1, 1),
    cutoff: Annotated[float, typer.Option(help="Ry, finest grid.")] = 400.0,
    rel_cutoff: Annotated[float, typer.Option(help="Ry, grid of a Gaussian of exponent 1.")] = 60.0,
    eps_default: Annotated[float, typer.Option(help="Accuracy of integrals.")] = 1e-12,
    eps_scf: Annotated[float, typer.Option(help="Convergence of the SCF.")] = 1e-7,
    max_scf: Annotated[int, typer.Option(help="Steps of the SCF.")] = 100,
    charge: Annotated[int, typer.Option(help="Charge of each cell.")] = 0,
    multiplicity: Annotated[int, typer.Option(help="2 S + 1; above 1: unrestricted.")] = 1,
    spin: Annotated[bool, typer.Option("--spin", help="Unrestricted even for a singlet.")] = False,
    smearing: Annotated[float | None, typer.Option(help="K, Fermi-Dirac, for metals.")] = None,
    monkhorst_pack: Annotated[bool, typer.Option("--monkhorst-pack", help="Mesh off Gamma for even counts.")] = False,
    bands: Annotated[str | None, typer.Option(help='.bs file: "auto", or "G 0 0 0, K 1/3 1/3 0".')] = None,
    binary: Annotated[bool, typer.Option("--binary", help="Matrices as binary files.")] = False,
    potential: Annotated[str | None, typer.Option(help="Pseudopotential instead of GTH-<functional>.")] = None,
    basis_file: Annotated[list[Path] | None, typer.Option(help="Own basis file, searched first.")] = None,
    potential_file: Annotated[list[Path] | None, typer.Option(help="Own potential file, searched first.")] = None,
    template: Annotated[Path | None, typer.Option(help="Own input template (docs/cp2k.md).")] = None,
    command: Annotated[str | None, typer.Option(help="Program; else the cp2k.psmp that is found.")] = None,
    launcher: Annotated[str, typer.Option(help='What stands before the program, as "srun -n 16".')] = "",
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, help="Runs side by side.")] = 1,
    as_json: JsonOption = False,
) -> None:
    """Run CP2K on every structure of a file; finished ones are skipped, unconverged ones refused.

    Example: hamnet label cp2k structures.extxyz --basis DZVP-MOLOPT-SR-GTH --kmesh 2 2 1 -o labels --jobs 2
    """
    from hamnet.cli.label_verb import label_structures
    from hamnet.predict.structures import read_structures
    from hamnet_preprocess.label_cp2k import CP2KSettings, read_template

    found = read_structures(structures)
    settings = CP2KSettings(
        basis, functional, kmesh, cutoff, rel_cutoff, eps_default, eps_scf, max_scf, charge, multiplicity, spin,
        smearing, monkhorst_pack, _path(bands, found[0][1]), binary=binary, potential=potential,
        basis_files=tuple(map(str, basis_file or ())), potential_files=tuple(map(str, potential_file or ())),
        template=read_template(template), command=command, launcher=launcher,
    )  # fmt: skip
    label_structures("cp2k", found, output, settings, jobs, Reporter(as_json))


def _path(text: str | None, atoms: Any) -> BandPath | None:
    """The path that was typed, or the usual one of the first structure's cell."""
    from hamnet_preprocess.cp2k_input import parse_path

    if text is None:
        return None
    if text.strip().lower() != "auto":
        return parse_path(text)
    import numpy as np

    from hamnet.bands.kpath import special_points
    from hamnet.core.structure import AtomicStructure
    from hamnet_preprocess.cp2k_input import join_segments, placed

    cell, positions = placed(atoms)
    numbers = np.asarray(atoms.numbers, dtype=np.int64)
    structure = AtomicStructure(numbers, np.zeros_like(numbers), positions, cell, np.asarray(atoms.pbc))
    points, segments, _ = special_points(structure)
    return join_segments(points, segments)
