"""SLEPc and MUMPS under MPI against LAPACK, and what is said where they are absent or fail."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from factories import lawful_calculation

from hamnet.bands.solvers import DenseEigensolver, SlepcEigensolver, make_eigensolver, slepc
from hamnet.core.spin import Spin
from hamnet.core.supercell import supercell
from hamnet.errors import ConfigError, ConvergenceError, PhysicsError


def installed() -> bool:
    """True when the workers can be started."""
    try:
        slepc.worker_command(1)
    except ConfigError:
        return False
    return True


needs_slepc = pytest.mark.skipif(not installed(), reason="no slepc4py of real numbers, mpi4py or mpirun")
GENERAL, EDGE = np.array([0.13, -0.21, 0.34]), np.array([0.5, 0.0, 0.5])


@needs_slepc
@pytest.mark.parametrize("spin", list(Spin))
def test_states_and_counts_equal_those_of_lapack(spin: Spin) -> None:
    cell = supercell(lawful_calculation(3, spin), (2, 2, 1))
    dense, solver = DenseEigensolver(cell), make_eigensolver(cell, "slepc")
    for k in (GENERAL, EDGE):
        np.testing.assert_array_equal(solver.count(k, 0.1), dense.count(k, 0.1))
        for ours, theirs in zip(solver.window(k, 0.3, 8, vectors=True), dense.window(k, 0.3, 200), strict=True):
            assert ours.certified
            assert len(ours.energies) >= 8
            wanted = theirs.energies[ours.first - theirs.first :][: len(ours.energies)]
            np.testing.assert_allclose(ours.energies, wanted, atol=1e-9)  # eV, as promised
            norm = ours.vectors.conj().T @ ours.overlap_vectors
            np.testing.assert_allclose(norm, np.eye(len(norm)), atol=1e-10)  # orthonormal in S, each pair joined


@needs_slepc
def test_overlap_that_is_not_positive_is_refused() -> None:
    cell = lawful_calculation(3, Spin.NONE)
    overlap = cell.overlap
    values = overlap.values.copy()
    own = int(np.flatnonzero(overlap.pairs.on_site)[0])
    values[overlap.offsets[own]] = -0.5
    with pytest.raises(PhysicsError, match="not positive definite"):
        SlepcEigensolver(replace(cell, overlap=overlap.with_values(values))).window(EDGE, 0.0, 2)


def test_processes_that_die_are_reported() -> None:
    with pytest.raises(ConvergenceError, match="no more memory"):
        slepc.SlepcProcess([sys.executable, "-c", "import sys; sys.exit('no more memory')"], dict(os.environ))


def test_absence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(slepc.PYTHON, "/nowhere/python")
    with pytest.raises(ConfigError, match="apt-get install python3-slepc4py-real"):
        make_eigensolver(lawful_calculation(3, Spin.NONE), "slepc")


def test_absent_mpirun_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slepc, "_interpreter", lambda _: (sys.executable, ""))
    monkeypatch.setenv("PATH", "/nowhere")
    for name in slepc.SIZE_NAMES:
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match="no mpirun"):
        slepc.worker_command(2)


def test_under_mpirun_others_than_the_first_become_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[list[str]] = []
    monkeypatch.setattr(slepc, "_interpreter", lambda _: ("python-of-slepc", ""))
    monkeypatch.setattr(os, "execve", lambda name, command, environment: started.append(command))
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    for rank in "01":
        monkeypatch.setenv("OMPI_COMM_WORLD_RANK", rank)
        slepc.follow_mpirun(["bands", "x.h5", "--engine", "slepc"])
        slepc.follow_mpirun(["bands", "x.h5"])
    assert started == [["python-of-slepc", str(Path(slepc.slepc_worker.__file__).resolve())]]


def test_worker_needs_nothing_of_hamnet() -> None:
    code = "import runpy, sys; runpy.run_path(sys.argv[1]); sys.exit('hamnet' in sys.modules)"
    subprocess.run([sys.executable, "-c", code, slepc.slepc_worker.__file__], check=True, cwd="/")
