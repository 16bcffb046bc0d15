"""Which calculation of a file or folder a verb is to work on, and the options that large cells share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hamnet.errors import ConfigError

if TYPE_CHECKING:
    from hamnet.core.calculation import Calculation

FileArgument = Annotated[Path, typer.Argument(help="Store or prediction (.h5), .scfout, CP2K output, or a DFT folder.")]
NameOption = Annotated[str | None, typer.Option(help="Which calculation of a store.")]
IndexOption = Annotated[int | None, typer.Option(help="Which calculation of a store, from 0.")]
EngineOption = Annotated[str, typer.Option(help="auto, dense, pardiso (wheel mkl), superlu or slepc (MPI).")]
ThreadsOption = Annotated[int, typer.Option(help="Threads of each process; MPI processes for --engine slepc.", min=1)]
JobsOption = Annotated[
    int, typer.Option("--jobs", "-j", help="k-points side by side; 0: as many as fit into memory.", min=0)
]
CertifyOption = Annotated[bool, typer.Option("--certify/--no-certify", help="Prove by counts that no state is missed.")]
MeshOption = Annotated[str | None, typer.Option(help='k mesh as "3,3,1"; chosen from the cell if not given.')]
ElectronsOption = Annotated[float | None, typer.Option(help="Electrons in the cell, where the file does not say.")]


def load_calculation(path: Path, name: str | None, index: int | None) -> tuple[Calculation, str]:
    """One calculation and what it is called.

    Raises:
        ConfigError: none or several, and neither name nor index says which.
    """
    from hamnet_preprocess.sources import open_source

    items = open_source(path)
    names = [entry for entry, _ in items]
    if not items:
        raise ConfigError(f"{path} holds no calculation")
    if name is not None:
        if name not in names:
            raise ConfigError(f"{path} has no calculation {name!r}; it has {_some(names)}")
        index = names.index(name)
    if index is None:
        if len(items) > 1:
            raise ConfigError(f"{path} holds {len(items)} calculations: give --name or --index; it has {_some(names)}")
        index = 0
    if not -len(items) <= index < len(items):
        raise ConfigError(f"--index {index}: {path} holds {len(items)} calculations, 0 to {len(items) - 1}")
    return items[index][1](), names[index]


def parse_mesh(text: str | None) -> tuple[int, int, int] | None:
    """Divisions from "3,3,1" or "3x3x1".

    Raises:
        ConfigError: not three whole numbers above zero.
    """
    if text is None:
        return None
    try:
        size = [int(word) for word in text.replace("x", " ").replace(",", " ").split()]
    except ValueError:
        size = []
    if len(size) != 3 or min(size) < 1:
        raise ConfigError(f'--mesh {text!r}: expected three whole numbers as "3,3,1"')
    return size[0], size[1], size[2]


def _some(names: list[str]) -> str:
    return ", ".join(names[:8]) + (f", ... ({len(names)} in all)" if len(names) > 8 else "")
