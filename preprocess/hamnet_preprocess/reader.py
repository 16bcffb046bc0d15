"""Reader: what the reader of a DFT code offers, and the table of readers."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Protocol

from hamnet.core.calculation import Calculation
from hamnet.errors import ConfigError

READER_CLASSES = {
    "openmx": ("hamnet_preprocess.openmx", "OpenMXReader"),
    "cp2k": ("hamnet_preprocess.cp2k", "CP2KReader"),
    "pyscf": ("hamnet_preprocess.pyscf", "PySCFReader"),
    "deeph": ("hamnet_preprocess.deeph", "DeepHReader"),
    "deeph-legacy": ("hamnet_preprocess.deeph", "DeepHLegacyReader"),
    "sisl": ("hamnet_preprocess.sisl_io", "SislReader"),
    "abacus": ("hamnet_preprocess.abacus", "AbacusReader"),
    "qh9": ("hamnet_preprocess.qh9", "QH9Reader"),
    "schnorb": ("hamnet_preprocess.schnorb", "SchNOrbReader"),
    "nabladft": ("hamnet_preprocess.nabladft", "NablaDFTReader"),
}
"""Name of the code -> module and class; a module is imported only when its reader is asked for."""


class Reader(Protocol):
    """Turns the output of one DFT code into Calculations. A new code is one module with such a class."""

    name: str
    """Name of the code, as given on the command line."""

    def find(self, root: Path) -> list[Path]:
        """Sources at or below a folder, sorted; a file that the reader reads is its own source.

        A folder that looks like the code's but has no output is returned too, so that `read` can say why.
        """

    def read(self, source: Path, *, allow_unconverged: bool = False) -> Calculation:
        """One calculation in hamnet's units and orbital order.

        Args:
            source: one of the paths that `find` returns.
            allow_unconverged: read an SCF that did not converge too (then `converged` is False).

        Raises:
            FormatError: the output is missing, cut short or of an unknown version.
            PhysicsError: the numbers break a physical law.
            ConvergenceError: the SCF did not converge and `allow_unconverged` is False.
        """


def reader(name: str) -> Reader:
    """The reader of a code.

    Raises:
        ConfigError: no reader has this name.
    """
    if name not in READER_CLASSES:
        raise ConfigError(f"no reader for {name!r}; there are readers for {', '.join(sorted(READER_CLASSES))}")
    module, class_name = READER_CLASSES[name]
    result: Reader = getattr(import_module(module), class_name)()
    return result
