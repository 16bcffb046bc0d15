"""`hamnet scf`: PySCF's SCF, started from a prediction."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hamnet.cli.common import JsonOption, Reporter

if TYPE_CHECKING:
    from hamnet.predict.scf_run import ScfFailure, ScfRun


HELP = """Run PySCF's SCF from the predicted density, in the functional and basis of the training data.

Where the prediction is no good, the SCF starts from minao: at most one Fock build more than plain PySCF, two with
another --xc than the model's where that has network.baseline=reference. A molecule that cannot be run is named,
the others are run, and the exit code is 1.

Example: hamnet scf run/model.ckpt water.xyz -o scf --compare
"""


def register(app: typer.Typer) -> None:
    """Add the verb to the command."""
    app.command("scf", no_args_is_help=True, help=HELP)(scf)


def scf(
    model: Annotated[Path, typer.Argument(help="Checkpoint of a model trained on molecules.")],
    molecules: Annotated[Path, typer.Argument(help="Molecule or molecules: .xyz or .extxyz.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for PySCF's chkfiles.")] = Path("scf"),
    xc: Annotated[str | None, typer.Option(help="Functional by PySCF's name, when not the model's.")] = None,
    charge: Annotated[int | None, typer.Option(help="Charge; only that of the training data is accepted.")] = None,
    conv_tol: Annotated[float, typer.Option(help="Change of the energy (Hartree) at which the SCF ends.")] = 1e-9,
    max_cycle: Annotated[int, typer.Option(min=1, help="Cycles at most.")] = 100,
    compare: Annotated[bool, typer.Option("--compare", help="Run plain PySCF, from minao, beside it.")] = False,
    as_json: JsonOption = False,
) -> None:
    """The SCF of each molecule, a line each; see the help."""
    import hamnet
    from hamnet.errors import HamnetError
    from hamnet.predict.scf_run import run_frames
    from hamnet.predict.structures import read_structures

    reporter = Reporter(as_json)
    runs: list[ScfRun] = []
    failures: list[ScfFailure] = []

    def told(run: ScfRun) -> None:
        """One line of the table."""
        runs.append(run)
        reporter.line(_line(run))

    def failed(failure: ScfFailure) -> None:
        """The line of a molecule that could not be run."""
        failures.append(failure)
        reporter.line(f"{failure.name:<24} FAILED: {failure.error}")

    def report() -> None:
        """What was done so far."""
        converged = not failures and all(run.converged for run in runs)
        found = [run.figures for run in runs]
        reporter.result({"runs": found, "failures": [entry.figures for entry in failures], "converged": converged})

    reporter.line(f"{'molecule':<24} {'atoms':>5} {'start':<10} {'cycles':>6} {'builds':>6} {'s':>7}  energy (eV)")
    frames = read_structures(molecules)
    try:
        run_frames(hamnet.load(model), frames, output, conv_tol, max_cycle, compare, xc, charge, told, failed)
    except HamnetError:
        if runs or failures:
            report()
        raise
    report()


def _line(run: ScfRun) -> str:
    failed = "" if run.converged else "  NOT CONVERGED"
    text = (
        f"{run.name:<24} {run.n_atoms:>5} {run.origin:<10} {run.cycles:>6} {run.builds:>6} {run.seconds:>7.2f}  "
        f"{run.energy:.6f}{failed}"
    )
    if run.plain is None:
        return text
    plain = run.plain
    beside = f"{'  plain PySCF':<30} {'minao':<10} {plain.cycles:>6} {plain.builds:>6} {plain.seconds:>7.2f}  "
    return f"{text}\n{beside}{plain.energy:.6f}"
