"""LabelEngine: what a DFT code offers that makes training data, and the loop that drives it.

Resumable: a file is written under a temporary name and renamed, and one that is there with the same settings and
geometry is skipped.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

from hamnet.core.processes import worker_pool
from hamnet.errors import ConfigError, HamnetError

LOOSEST_CONV_TOL = 1e-9
"""Hartree. At 1e-9 labels carry 0.014 micro-Hartree of noise, at 1e-7 a hundred times that."""
ENGINES = {
    "cp2k": ("hamnet_preprocess.label_cp2k", "CP2KLabelEngine"),
    "pyscf": ("hamnet_preprocess.label_pyscf", "PySCFLabelEngine"),
}
"""Name of the code -> module and class."""
Outcome = Literal["written", "skipped", "failed"]
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class LabelSettings:
    """What to compute.

    Args:
        basis: name of the basis, as the code knows it.
        xc: functional; "hf" for Hartree-Fock.
        kmesh: Gamma-centred mesh for periodic structures.
        conv_tol: Hartree, 1e-9 or tighter.
        pseudo: pseudopotential of periodic structures, as "gth-pbe".
        ecp: effective core potential of molecules.
        charge: of the molecule or cell.
        spin: unpaired electrons; above 0 the calculation is unrestricted.
        grid_level: of the integration grid of molecules.
        density_fit: Coulomb matrices by density fitting; never mix such labels with exact ones.
        soc: spin-orbit coupling of the ECP (spinor Hamiltonian).
        reference: H0 to keep beside H: "minao", the Fock matrix of superposed atoms; None: none. Molecules only.

    Raises:
        ConfigError: conv_tol is loose, or the mesh or spin is impossible.
    """

    basis: str = "def2-svp"
    xc: str = "pbe"
    kmesh: tuple[int, int, int] = (1, 1, 1)
    conv_tol: float = 1e-10
    pseudo: str | None = None
    ecp: str | None = None
    charge: int = 0
    spin: int = 0
    grid_level: int = 4
    density_fit: bool = False
    soc: bool = False
    reference: str | None = None

    def __post_init__(self) -> None:
        if not 0 < self.conv_tol <= LOOSEST_CONV_TOL:
            raise ConfigError(
                f"conv_tol is {self.conv_tol:g} Ha, expected {LOOSEST_CONV_TOL:g} or tighter: looser labels carry "
                "noise that a network would have to learn"
            )
        if len(self.kmesh) != 3 or min(self.kmesh) < 1:
            raise ConfigError(f"kmesh is {self.kmesh}, expected three positive integers")
        if self.reference not in (None, "minao"):
            raise ConfigError(f"reference is {self.reference!r}, expected minao or none at all")
        if self.spin < 0 or not 0 <= self.grid_level <= 9:
            raise ConfigError(f"spin is {self.spin} and grid_level {self.grid_level}; expected >= 0 and 0 to 9")

    def text(self, atoms: Any) -> str:
        """Canonical text of settings and geometry: equal texts mean equal labels."""
        settings = asdict(self)
        if self.reference is None:
            del settings["reference"]  # files labelled before there were references stay valid
        return json.dumps({**settings, "geometry": geometry_hash(atoms)}, sort_keys=True)


def geometry_hash(atoms: Any) -> str:
    """SHA-256 of elements, positions, cell and periodicity of an `ase.Atoms`."""
    geometry = (atoms.numbers.tolist(), atoms.positions.tolist(), atoms.cell.array.tolist(), atoms.pbc.tolist())
    return hashlib.sha256(json.dumps(geometry).encode()).hexdigest()


class Settings(Protocol):
    """What an engine is asked to compute; each engine has a class of its own."""

    def text(self, atoms: Any) -> str:
        """Canonical text of settings and geometry: equal texts mean equal labels."""


EngineSettings = TypeVar("EngineSettings", bound=Settings, contravariant=True)


class LabelEngine(Protocol[EngineSettings]):
    """Runs one DFT code. A new code is one module with such a class."""

    name: str
    """Name of the code, as given on the command line."""
    suffix: str
    """Suffix of its outputs; empty where an output is a folder."""

    def settings_of(self, target: Path) -> str | None:
        """`Settings.text` that an output was made with; None for what is not a finished output."""

    def label(self, atoms: Any, target: Path, settings: EngineSettings) -> None:
        """Run one calculation; `target` appears complete or not at all.

        Args:
            atoms: `ase.Atoms`.
            target: file or folder to write.
            settings: what to compute.

        Raises:
            ConvergenceError: the SCF did not converge.
            ConfigError, BasisError, PhysicsError: the settings do not fit the structure.
            FormatError: the code ended badly or its output is not whole.
        """


@dataclass
class LabelResult:
    """Names by outcome; `failed` holds (name, reason)."""

    written: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)

    def add(self, name: str, outcome: Outcome, reason: str) -> None:
        """Count one structure."""
        if outcome == "failed":
            self.failed.append((name, reason))
        else:
            (self.written if outcome == "written" else self.skipped).append(name)


def engine(name: str) -> LabelEngine[Any]:
    """The engine of a code.

    Raises:
        ConfigError: no engine has this name.
    """
    if name not in ENGINES:
        raise ConfigError(f"no label engine {name!r}; there are {', '.join(sorted(ENGINES))}")
    module, class_name = ENGINES[name]
    result: LabelEngine[Any] = getattr(import_module(module), class_name)()
    return result


def label_all(
    engine_name: str,
    structures: list[tuple[str, Any]],
    folder: Path,
    settings: Settings,
    jobs: int = 1,
    on_event: Callable[[str, Outcome, str], None] = lambda name, outcome, reason: None,
) -> LabelResult:
    """Label structures, one file or folder `<folder>/<name><suffix>` each; a failure does not stop the others.

    Args:
        engine_name: code.
        structures: (name, `ase.Atoms`); slashes in names become underscores.
        folder: made when absent.
        settings: the same for all.
        jobs: processes side by side, one thread each; 1 runs here.
        on_event: called with name, outcome and reason as each one ends.

    Raises:
        ConfigError: unknown engine, or two structures of one name.
    """
    tool = engine(engine_name)
    folder.mkdir(parents=True, exist_ok=True)
    names = [name.replace("/", "_") for name, _ in structures]
    if len(set(names)) != len(names):
        raise ConfigError("two structures have the same name, so one would overwrite the other: rename them")
    tasks = [(n, folder / (n + tool.suffix), atoms) for n, (_, atoms) in zip(names, structures, strict=True)]
    result = LabelResult()
    for name, outcome, reason in _run(engine_name, tasks, settings, jobs):
        result.add(name, outcome, reason)
        on_event(name, outcome, reason)
    return result


def _run(
    engine_name: str, tasks: list[tuple[str, Path, Any]], settings: Settings, jobs: int
) -> Iterator[tuple[str, Outcome, str]]:
    if jobs == 1 or len(tasks) < 2:
        for task in tasks:
            yield _one(engine_name, *task, settings)
        return
    with _one_thread_each(), worker_pool(min(jobs, len(tasks))) as pool:
        futures = {pool.submit(_one, engine_name, *task, settings): task[0] for task in tasks}
        for future in as_completed(futures):
            error = future.exception()
            if error is None:
                yield future.result()
            else:
                yield futures[future], "failed", f"the process died ({error}); is there enough memory?"


def _one(engine_name: str, name: str, target: Path, atoms: Any, settings: Settings) -> tuple[str, Outcome, str]:
    tool = engine(engine_name)
    try:
        if target.exists():
            before = tool.settings_of(target)
            if before == settings.text(atoms):
                return name, "skipped", ""
            if before is None:
                raise ConfigError(f"{target} is there already and is no finished output of {engine_name}: remove it")
            raise ConfigError(f"{target} is there already with other settings or another geometry: remove it")
        tool.label(atoms, target, settings)
    except HamnetError as error:
        return name, "failed", f"{type(error).__name__}: {error}"
    except Exception as error:  # whatever the DFT code raises must not stop the other structures
        return name, "failed", f"{type(error).__name__}: {' '.join(str(error).split())}"
    return name, "written", ""


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Children started inside see one thread per process: BLAS reads these variables when it is loaded."""
    before = {name: os.environ.get(name) for name in _THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(_THREAD_VARIABLES, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
