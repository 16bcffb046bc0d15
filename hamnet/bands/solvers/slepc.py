"""SLEPc and MUMPS under MPI behind the protocol of large cells: for what outgrows the memory of one machine.

Complex hermitian matrices go there as their real embedding, [[a, -b], [b, a]] per number: PETSc offers no hermitian
LDL^H, its complex LU takes the same memory and work, and only real symmetric factors give their inertia. Each state is
then found twice; the pairs are joined by Rayleigh and Ritz. Nothing of SLEPc is loaded into this process; see
`slepc_worker`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import weakref
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hamnet.bands.solvers import slepc_worker
from hamnet.bands.solvers.factor import NotPositiveDefinite, embedded, embedded_data
from hamnet.bands.solvers.protocol import RESIDUAL_TOLERANCE, Need
from hamnet.bands.solvers.sparse import NUDGE, SparseEigensolver, machine_rate
from hamnet.core.calculation import Calculation
from hamnet.errors import ConfigError, ConvergenceError

FloatArray = NDArray[np.float64]
PYTHON = "HAMNET_SLEPC_PYTHON"
"""Environment variable: the interpreter that has slepc4py, where it is not hamnet's own or the system's."""
DEBIAN = (
    "/usr/lib/petscdir/*/*-real/lib/python3/dist-packages",
    "/usr/lib/slepcdir/*/*-real/lib/python3/dist-packages",
)
PROBE = (
    "import petsc4py; petsc4py.init(); from petsc4py import PETSc; import slepc4py.SLEPc, mpi4py.MPI; "
    "print(PETSc.RealType is PETSc.ScalarType)"
)
SIZE_NAMES, RANK_NAMES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE"), ("OMPI_COMM_WORLD_RANK", "PMI_RANK")
INSTALL = (
    "Debian: apt-get install python3-slepc4py-real python3-mpi4py; elsewhere: pip install hamnet[mpi] with a PETSc of "
    f"real numbers that has MUMPS; {PYTHON} names another interpreter. On one machine --engine pardiso is faster"
)
FILL = 20
"""Entries of L over those of the matrix that are reckoned with: MUMPS says only once it runs."""


class SlepcEigensolver(SparseEigensolver):
    """States of a large cell by SLEPc's Krylov-Schur on MUMPS's LDL^T, spread over MPI processes.

    Args:
        calculation: with a Hamiltonian.
        processes: MPI processes that are started; under mpirun its own take their place.

    Raises:
        ConfigError: SLEPc, MPI or mpirun are not there.
        PhysicsError: there is no Hamiltonian, or H or S is not hermitian.
    """

    def __init__(self, calculation: Calculation, processes: int = 1) -> None:
        command, environment = worker_command(processes)
        super().__init__(calculation, "auto")
        self._command, self._environment = command, environment
        self._processes = (_first_of(SIZE_NAMES) if _under_mpirun() else None) or processes
        self._workers: dict[int, SlepcProcess] = {}

    def need(self, kpoint: FloatArray, n_bands: int, certify: bool) -> Need:
        """Time and memory of `window`: a guess, since MUMPS says nothing beforehand."""
        real = self.is_real(kpoint)
        copies = 1 if real else 4
        entries = FILL * copies * self.pattern.n_entries
        memory = 8 * 2 * entries + 24 * copies * self.pattern.n_entries
        flops = (4 if certify else 1) * 30.0 * entries * 10 + 48 * n_bands * entries * (1 if real else 2)
        numbers = "real" if real else "complex as real"
        text = f"SLEPc and MUMPS, {self._processes} process(es) ({numbers}, {self.n_rows} rows; a guess)"
        return Need(self.n_channels * flops / machine_rate() / self._processes, memory, text)

    def _least_of_overlap(self, data: NDArray[Any], where: str) -> float:
        """Least eigenvalue of S(k), once its inertia has proved S(k) > 0."""
        worker = self._worker(np.iscomplexobj(data))
        worker.values("s", data)
        found = worker.ask("inertia", energy=None)
        if found["failed"] < 0:
            raise ConvergenceError(f"MUMPS cannot factorise {where}: error {found['failed']} (-9, -13: memory)")
        if found["negative"] or found["zero"]:
            raise NotPositiveDefinite(f"{where}: {found['negative']} negative, {found['zero']} zero pivots")
        return float(found["least"])

    def _near(
        self, h: NDArray[Any], s: NDArray[Any], centre: float, wanted: int, block: int
    ) -> tuple[FloatArray, NDArray[Any], NDArray[Any], float]:
        double = 2 if np.iscomplexobj(h) else 1
        worker = self._worker(double == 2)
        worker.values("h", h)
        worker.values("s", s)
        hamiltonian, overlap = self.full(h), self.full(s)
        residual, failure = np.inf, ""
        for attempt in range(3):  # a shift on an eigenvalue shows in the residual, and a little aside it does not
            shift = centre + 137 * attempt * NUDGE
            found = worker.ask(
                "window", folder=str(worker.folder), target=shift, wanted=min(wanted, self.n_rows) * double
            )
            if found["found"] < double:
                failure = f" ({found['found']} states converged)"
                continue
            vectors = np.load(worker.folder / "vectors.npy").T
            states = vectors if double == 1 else vectors[0::2] + 1j * vectors[1::2]
            energies, states, mapped = _ritz(hamiltonian, overlap, states)
            keep = np.sort(np.argsort(np.abs(energies - centre))[:wanted])
            energies, states, mapped = energies[keep], states[:, keep], mapped[:, keep]
            residual = float(np.linalg.norm(hamiltonian @ states - mapped * energies, axis=0).max())
            if residual <= RESIDUAL_TOLERANCE:
                return energies, states, mapped, residual
        raise ConvergenceError(
            f"states about {centre:.6f} eV: residual {residual:.1e} eV, at most {RESIDUAL_TOLERANCE:.0e} is accepted: "
            f"S or H - E S is badly conditioned there; move the energy{failure}"
        )

    def _count(self, h: NDArray[Any], s: NDArray[Any], energy: float, real: bool) -> int:
        worker = self._worker(not real)
        worker.values("h", h)
        worker.values("s", s)
        double, found = 1 if real else 2, {}
        for aside in (0, 1, -1, 3):
            found = worker.ask("inertia", energy=energy + aside * NUDGE)
            whole = found["negative"] + found["positive"] == double * self.n_rows
            if found["failed"] >= 0 and not found["zero"] and whole and found["negative"] % double == 0:
                return int(found["negative"]) // double
        raise ConvergenceError(f"states below {energy:.6f} eV cannot be counted: MUMPS says {found}")

    def _worker(self, double: bool) -> SlepcProcess:
        """The processes that work for this one, with the pattern they need; forked k-points start their own."""
        worker = self._workers.get(os.getpid())
        if worker is None:
            if self._workers and _under_mpirun():
                raise ConfigError("under mpirun k-points go one after another: --jobs 1")
            worker = self._workers[os.getpid()] = SlepcProcess(self._command, self._environment)
        if worker.double is not double:
            worker.pattern(self.pattern.indptr, self.pattern.indices, double)
        return worker


class SlepcProcess:
    """The workers under MPI and the folder through which arrays go.

    Args:
        command: that starts them; environment: theirs.
    """

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self.double: bool | None = None
        self._source: NDArray[np.int64] = np.zeros(0, dtype=np.int64)
        self._sent: dict[str, NDArray[Any]] = {}
        self._place = tempfile.TemporaryDirectory(prefix="hamnet-slepc-")
        self.folder = Path(self._place.name)
        self._errors = (self.folder / "stderr").open("w+")
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=self._errors, text=True, env=environment
        )
        self._stop = weakref.finalize(self, _stop, self._process, self._errors, self._place, os.getpid())
        self.ask("about")

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """The answer to one command.

        Raises:
            ConvergenceError: PETSc or MPI fails; with what they said.
        """
        source, sink = self._process.stdin, self._process.stdout
        if source is None or sink is None:
            raise ConvergenceError("SLEPc: the processes have no pipes")
        try:
            source.write(json.dumps({"do": do, **arguments}) + "\n")
            source.flush()
        except BrokenPipeError:
            raise ConvergenceError(self._ended(do)) from None
        for line in sink:
            if line.startswith(slepc_worker.MARK):
                answer: dict[str, Any] = json.loads(line[len(slepc_worker.MARK) :])
                if "error" in answer:
                    raise ConvergenceError(f"SLEPc cannot do {do!r}: {answer['error']}")
                return answer
        raise ConvergenceError(self._ended(do))

    def pattern(self, indptr: NDArray[np.int64], indices: NDArray[Any], double: bool) -> None:
        """Send a pattern, the upper triangle of all matrices to come; as real embedding with `double`."""
        self._source, self.double = indptr, double
        rows, columns = embedded(indptr, indices) if double else (indptr, indices)
        np.save(self.folder / "indptr.npy", rows)
        np.save(self.folder / "indices.npy", columns)
        self._sent.clear()
        self.ask("pattern", folder=str(self.folder))

    def values(self, name: str, data: NDArray[Any]) -> None:
        """Send the numbers of "h" or "s" unless they are there."""
        if self._sent.get(name) is data:
            return
        numbers = embedded_data(self._source, data) if self.double else data
        np.save(self.folder / f"{name}.npy", numbers)
        self.ask("values", folder=str(self.folder), name=name)
        self._sent[name] = data

    def _ended(self, do: str) -> str:
        self._process.wait(10)
        self._errors.seek(0)
        said = " ".join(self._errors.read().split())[-600:]
        return f"SLEPc's processes ended during {do!r} (exit code {self._process.returncode}): {said or 'no message'}"


def _stop(process: subprocess.Popen[str], errors: Any, place: Any, owner: int) -> None:
    if os.getpid() != owner:  # a forked copy of the owner: the workers are not its own
        return
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.terminate()
        process.wait(10)
    errors.close()
    place.cleanup()


def _ritz(hamiltonian: Any, overlap: Any, vectors: NDArray[Any]) -> tuple[FloatArray, NDArray[Any], NDArray[Any]]:
    """Energies, S-orthonormal states and S times them in the span of some vectors, which may depend on each other."""
    gram = vectors.conj().T @ (overlap @ vectors)
    values, turn = np.linalg.eigh((gram + gram.conj().T) / 2)
    keep = values > 1e-8 * values[-1]  # of a pair of embedded vectors one is i times the other
    basis = vectors @ (turn[:, keep] / np.sqrt(values[keep]))
    small = basis.conj().T @ (hamiltonian @ basis)
    energies, turn = np.linalg.eigh((small + small.conj().T) / 2)
    states = basis @ turn
    return energies, states, overlap @ states


def worker_command(processes: int) -> tuple[list[str], dict[str, str]]:
    """Command and environment that start the workers: mpirun, or none where this process runs under mpirun itself.

    Raises:
        ConfigError: no interpreter with slepc4py of real numbers, or no mpirun.
    """
    found = _interpreter(os.environ.get(PYTHON, ""))
    if found is None:
        raise ConfigError(f"--engine slepc needs slepc4py (real numbers), petsc4py and mpi4py: not found. {INSTALL}")
    python, path = found
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    if path:
        environment["PYTHONPATH"] = path
    own = [python, str(Path(slepc_worker.__file__).resolve())]
    if _under_mpirun():
        return own, environment
    mpirun = shutil.which("mpirun") or shutil.which("mpiexec")
    if mpirun is None:
        raise ConfigError(f"--engine slepc needs MPI: no mpirun on the PATH. {INSTALL}")
    if hasattr(os, "geteuid") and os.geteuid() == 0:  # Open MPI asks root to say so twice
        environment |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    return [mpirun, "-n", str(processes), *own], environment


def follow_mpirun(arguments: list[str]) -> None:
    """Under `mpirun -n N hamnet ... --engine slepc` all processes but the first become workers; does not return there.

    Args:
        arguments: of the command line.

    Raises:
        ConfigError: slepc4py is not there.
    """
    rank = _first_of(RANK_NAMES)
    asked = "slepc" in arguments or "--engine=slepc" in arguments
    if asked and rank is not None and rank > 0:
        command, environment = worker_command(1)
        os.execve(command[0], command, environment)


def _under_mpirun() -> bool:
    return (_first_of(SIZE_NAMES) or 1) > 1


def _first_of(names: tuple[str, ...]) -> int | None:
    return next((int(os.environ[name]) for name in names if name in os.environ), None)


@cache
def _interpreter(named: str) -> tuple[str, str] | None:
    """(interpreter, PYTHONPATH) where slepc4py loads; the one named, hamnet's own, the system's."""
    debian = os.pathsep.join(str(p) for pattern in DEBIAN for p in sorted(Path("/").glob(pattern[1:])))
    system = shutil.which("python3", path="/usr/bin")
    for python, path in ((named, ""), (sys.executable, ""), (system or "", debian)):
        if not python or (named and python != named):
            continue
        environment = {**os.environ, **({"PYTHONPATH": path} if path else {})}
        environment = {k: v for k, v in environment.items() if not k.startswith(("OMPI_", "PMIX_", "PMI_"))}
        try:
            done = subprocess.run([python, "-c", PROBE], capture_output=True, text=True, env=environment, check=False)
        except OSError:
            continue
        if done.returncode == 0 and done.stdout.strip().endswith("True"):
            return python, path
    return None
