"""SCF of molecules from a prediction: cycles, Fock builds and wall time, beside plain PySCF's where asked."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hamnet.core.structure import AtomicStructure
from hamnet.core.units import HARTREE
from hamnet.errors import ConfigError, ConvergenceError, HamnetError, PhysicsError
from hamnet.predict.fock_check import method_of
from hamnet.predict.handover import counted_builds, hand_over
from hamnet.predict.predictor import Predictor
from hamnet.predict.scf_guess import scf_guess
from hamnet_preprocess.label_pyscf import write_to
from hamnet_preprocess.pyscf_chkfile import add_state
from hamnet_preprocess.pyscf_fock import Method, mean_field
from hamnet_preprocess.pyscf_molecule import molecule
from hamnet_preprocess.pyscf_state import state_of

CONV_TOL = 1e-9
"""Hartree; PySCF's own default."""
MAXIMUM_CYCLES = 100
NAMED = 5
"""So many structures an error message names."""


@dataclass(frozen=True)
class ScfSettings:
    """How the SCF is run.

    Args:
        method: functional, grid, charge.
        conv_tol: change of the energy (Hartree) at which it ends; the gradient must be below its square root.
        max_cycle: cycles at most.
        compare: run plain PySCF (from minao) beside it.

    Raises:
        ConfigError: a conv_tol or max_cycle that is not positive.
    """

    method: Method
    conv_tol: float = CONV_TOL
    max_cycle: int = MAXIMUM_CYCLES
    compare: bool = False

    def __post_init__(self) -> None:
        if not (0.0 < self.conv_tol < math.inf and self.max_cycle > 0):
            raise ConfigError(
                f"conv_tol {self.conv_tol:g} and max_cycle {self.max_cycle} must be above 0: take {CONV_TOL:g} Hartree "
                f"and {MAXIMUM_CYCLES}"
            )


@dataclass(frozen=True)
class PlainRun:
    """An SCF from minao.

    Args:
        cycles: SCF cycles.
        builds: Fock builds: one for the guess, one a cycle, one at the end.
        seconds: wall time.
        energy: eV.
        converged: whether it did.
    """

    cycles: int
    builds: int
    seconds: float
    energy: float
    converged: bool


@dataclass(frozen=True)
class ScfRun(PlainRun):
    """An SCF from a prediction; `builds` and `seconds` count the prediction and what it cost to judge it.

    Args:
        name: of the structure.
        n_atoms: number of atoms.
        origin: "prediction" or "minao", where it really started.
        commutator: eV, of the prediction.
        guess_seconds: wall time of the prediction and of its Fock builds; part of `seconds`.
        plain: from minao; None where not asked for.
        chkfile: where PySCF's result is; None where not asked for.
    """

    name: str
    n_atoms: int
    origin: str
    commutator: float
    guess_seconds: float
    plain: PlainRun | None = None
    chkfile: str | None = None

    @property
    def figures(self) -> dict[str, Any]:
        """JSON-ready; seconds, eV."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class ScfFailure:
    """A structure that no SCF could be run for.

    Args:
        name: of the structure.
        error: why.
    """

    name: str
    error: HamnetError

    @property
    def figures(self) -> dict[str, str]:
        """JSON-ready."""
        return {"name": self.name, "error": f"{type(self.error).__name__}: {self.error}"}


def run_scf(model: Predictor, name: str, atoms: Any, settings: ScfSettings, chkfile: Path | None = None) -> ScfRun:
    """SCF of one molecule from the model's prediction.

    An SCF that does not converge is no error here: `converged` says so and the chkfile is kept.

    Args:
        model: trained on molecules.
        name: of the structure.
        atoms: ASE, pymatgen or hamnet atoms.
        settings: method and convergence.
        chkfile: where PySCF's result is written, with F, functional, grid and convergence, as `hamnet label` does.

    Raises:
        BasisError, PhysicsError: as `scf_guess`.
    """
    structure = model.structure(atoms)
    if structure.is_periodic:
        raise PhysicsError("the structure is periodic, SCF from a prediction is for molecules: set its pbc to F F F")
    mf = _prepared(model, structure, settings)
    with _chkfile(mf, chkfile) as temporary:
        start = time.perf_counter()
        found = scf_guess(mf, model)
        guessed = time.perf_counter() - start
        last = _LastBuild(mf)
        with counted_builds(mf) as builds:
            found.hand_over(mf)
            mf.kernel(found.density)
            seconds = time.perf_counter() - start
            if temporary is not None:
                last.hand_over(mf)
                add_state(temporary, state_of(mf, allow_unconverged=True))
    return ScfRun(
        int(mf.cycles),
        found.builds + builds(),
        seconds,
        float(mf.e_tot) * HARTREE,
        bool(mf.converged),
        name,
        structure.n_atoms,
        found.origin,
        found.commutator,
        guessed,
        run_plain(model, structure, settings) if settings.compare else None,
        None if chkfile is None else str(chkfile),
    )


@contextmanager
def _chkfile(mf: Any, path: Path | None) -> Iterator[Path | None]:
    """Lets `mf` write to a temporary file, which gets its name at the end and goes if there is none."""
    if path is None:
        yield None
        return
    temporary = path.with_name(f".{path.name}.part")
    temporary.unlink(missing_ok=True)
    write_to(mf, temporary)
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


class _LastBuild:
    """Keeps the last Fock build of an SCF: the state that is stored needs the same."""

    def __init__(self, mf: Any) -> None:
        self._found: tuple[Any, Any] | None = None
        mf.post_kernel = self._keep

    def _keep(self, variables: Mapping[str, Any]) -> None:
        self._found = variables["dm"], variables["vhf"]

    def hand_over(self, mf: Any) -> None:
        """Let `mf` use it once more."""
        if self._found is not None:
            hand_over(mf, *self._found)


def run_plain(model: Predictor, structure: AtomicStructure, settings: ScfSettings) -> PlainRun:
    """The same SCF from PySCF's own guess, minao."""
    mf = _prepared(model, structure, settings)
    start = time.perf_counter()
    with counted_builds(mf) as builds:
        mf.kernel(mf.get_init_guess(key="minao"))
    seconds = time.perf_counter() - start
    return PlainRun(int(mf.cycles), builds(), seconds, float(mf.e_tot) * HARTREE, bool(mf.converged))


def _prepared(model: Predictor, structure: AtomicStructure, settings: ScfSettings) -> Any:
    mf = mean_field(molecule(structure, model.basis, settings.method.charge), settings.method)
    mf.conv_tol, mf.max_cycle = settings.conv_tol, settings.max_cycle
    return mf


def run_frames(
    model: Predictor,
    frames: Sequence[tuple[str, Any]],
    folder: Path | None,
    conv_tol: float = CONV_TOL,
    max_cycle: int = MAXIMUM_CYCLES,
    compare: bool = False,
    xc: str | None = None,
    charge: int | None = None,
    on_run: Callable[[ScfRun], None] = lambda run: None,
    on_failure: Callable[[ScfFailure], None] = lambda failure: None,
) -> list[ScfRun]:
    """SCF of each frame, one chkfile `name.chk` each in the folder; a frame that cannot be run does not stop the rest.

    Args:
        model: trained on molecules.
        frames: (name, atoms).
        folder: for the chkfiles; None: none are written.
        conv_tol, max_cycle, compare: as `ScfSettings`.
        xc, charge: where they are not the model's; see `method_of`.
        on_run, on_failure: called after each.

    Raises:
        ConfigError, PhysicsError: at once; as `ScfSettings` and `method_of`.
        BasisError, PhysicsError: at the end, when frames could not be run (see `run_scf`): the kind of the first.
        ConvergenceError: at the end, when some did not converge; their chkfiles are there.
    """
    settings = ScfSettings(method_of(model.checkpoint, xc, charge), conv_tol, max_cycle, compare)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    runs: list[ScfRun] = []
    failures: list[ScfFailure] = []
    for name, atoms in frames:
        target = None if folder is None else folder / f"{name.replace('/', '_')}.chk"
        try:
            runs.append(run_scf(model, name, atoms, settings, target))
        except HamnetError as error:
            failures.append(ScfFailure(name, error))
            on_failure(failures[-1])
        else:
            on_run(runs[-1])
    _refuse_unfinished(runs, failures, settings)
    return runs


def _refuse_unfinished(runs: Sequence[ScfRun], failures: Sequence[ScfFailure], settings: ScfSettings) -> None:
    if failures:
        told = "; ".join(f"{failure.name}: {failure.error}" for failure in failures[:NAMED])
        raise type(failures[0].error)(f"{len(failures)} of {len(failures) + len(runs)} could not be run: {told}")
    stopped = [run.name for run in runs if not run.converged]
    if stopped:
        raise ConvergenceError(
            f"{len(stopped)} of {len(runs)} did not converge in {settings.max_cycle} cycles (conv_tol "
            f"{settings.conv_tol:g}): {', '.join(stopped[:NAMED])}; the last cycle is in the chkfile: go on from it, "
            "or allow more with --max-cycle"
        )
