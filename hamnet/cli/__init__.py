"""The command `hamnet`: each verb parses its arguments and makes one library call."""

from __future__ import annotations

import os
import sys
from importlib import import_module

import typer

from hamnet.errors import HamnetError

VERBS = (
    "perturb",
    "twist",
    "label",
    "preprocess",
    "convert",
    "inspect",
    "check",
    "train",
    "finetune",
    "select",
    "evaluate",
    "predict",
    "scf",
    "overlap",
    "bands",
    "fermi",
    "moments",
    "dos",
    "unfold",
    "demo",
)
"""Each verb is a module `hamnet.cli.<verb>_verb` with `register(app)`."""

app = typer.Typer(
    name="hamnet",
    help="Predict DFT Hamiltonians and turn them into bands. Start with: hamnet demo",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for _verb in VERBS:
    import_module(f"hamnet.cli.{_verb}_verb").register(app)


def _follow_mpirun() -> None:
    """Under mpirun all processes but the first leave here to work for it."""
    if any(name in os.environ for name in ("OMPI_COMM_WORLD_RANK", "PMI_RANK")):
        from hamnet.bands.solvers.slepc import follow_mpirun

        follow_mpirun(sys.argv)


def main() -> None:
    """Entry point: an error of ours is one message on standard error and exit code 1, never a traceback."""
    try:
        _follow_mpirun()
        app()
    except HamnetError as error:
        typer.echo(f"hamnet: {type(error).__name__}: {error}", err=True)
        sys.exit(1)
    except OSError as error:
        typer.echo(f"hamnet: {error.strerror or error}: {error.filename or ''}".rstrip(": "), err=True)
        sys.exit(1)
