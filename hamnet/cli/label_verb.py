"""`hamnet label`: structures -> DFT output."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hamnet.cli.common import JsonOption, Reporter
from hamnet.cli.label_cp2k_verb import cp2k

if TYPE_CHECKING:
    from hamnet_preprocess.label import Settings


def register(app: typer.Typer) -> None:
    """Add the verb to the command."""
    verb = typer.Typer(
        help="Make training data with a DFT code. Example: hamnet label pyscf water.extxyz --basis def2-svp -o labels",
        no_args_is_help=True,
    )
    verb.callback()(lambda: None)
    verb.command("pyscf")(pyscf)
    verb.command("cp2k")(cp2k)
    app.add_typer(verb, name="label")


def pyscf(
    structures: Annotated[Path, typer.Argument(help="Structures: extxyz, xyz, cif, POSCAR.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of chkfiles, one for each structure.")],
    basis: Annotated[str, typer.Option(help="Basis by PySCF's name.")] = "def2-svp",
    xc: Annotated[str, typer.Option(help="Functional by PySCF's name; hf for Hartree-Fock.")] = "pbe",
    kmesh: Annotated[tuple[int, int, int], typer.Option(help="Gamma-centred k-mesh of cells.")] = (1, 1, 1),
    conv_tol: Annotated[float, typer.Option(help="Hartree, 1e-9 or tighter.")] = 1e-10,
    pseudo: Annotated[str | None, typer.Option(help="Pseudopotential of cells, as gth-pbe.")] = None,
    ecp: Annotated[str | None, typer.Option(help="Effective core potential of molecules.")] = None,
    charge: Annotated[int, typer.Option(help="Charge of each structure.")] = 0,
    spin: Annotated[int, typer.Option(help="Unpaired electrons; above 0: unrestricted.")] = 0,
    grid_level: Annotated[int, typer.Option(help="Integration grid of molecules, 0 to 9.")] = 4,
    density_fit: Annotated[bool, typer.Option("--density-fit", help="Fit Coulomb matrices (shifts H).")] = False,
    soc: Annotated[bool, typer.Option("--soc", help="Spin-orbit part of the ECP.")] = False,
    reference: Annotated[
        str | None, typer.Option(help="Keep an H0 beside H: minao, from superposed atoms (molecules).")
    ] = None,
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, help="Processes side by side, one thread each.")] = 1,
    as_json: JsonOption = False,
) -> None:
    """Run PySCF on every structure of a file; finished ones are skipped.

    Example: hamnet label pyscf structures.extxyz --basis def2-svp --xc pbe -o labels --jobs 2
    """
    from hamnet.predict.structures import read_structures
    from hamnet_preprocess.label import LabelSettings

    settings = LabelSettings(
        basis,
        xc,
        kmesh,
        conv_tol,
        pseudo,
        ecp,
        charge,
        spin,
        grid_level,
        density_fit=density_fit,
        soc=soc,
        reference=reference,
    )
    label_structures("pyscf", read_structures(structures), output, settings, jobs, Reporter(as_json))


def label_structures(
    engine: str, structures: list[tuple[str, Any]], output: Path, settings: Settings, jobs: int, reporter: Reporter
) -> None:
    """Label, tell what became of each structure, and exit with 1 when one failed."""
    from hamnet_preprocess.label import label_all

    def tell(name: str, outcome: str, reason: str) -> None:
        """One line for each structure."""
        reporter.line(f"{outcome}: {name}" + (f": {reason}" if reason else ""))

    result = label_all(engine, structures, output, settings, jobs, tell)
    counts = {"written": len(result.written), "skipped": len(result.skipped), "failed": len(result.failed)}
    reporter.line(f"{output}: " + ", ".join(f"{count} {what}" for what, count in counts.items()))
    failures = [{"name": name, "reason": reason} for name, reason in result.failed]
    reporter.result({**counts, "failures": failures, "output": str(output)})
    if result.failed:
        raise typer.Exit(1)
