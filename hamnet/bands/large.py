"""Bands of large cells: some states about an energy at each k-point, with absolute band indices."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hamnet.bands.band_structure import BandStructure, electrons
from hamnet.bands.eigen import available_memory
from hamnet.bands.fermi import FermiLevel, energy_and_method
from hamnet.bands.fermi_counts import fermi_by_counting
from hamnet.bands.kpath import KPath
from hamnet.bands.kpoint_runs import Arrays, Task, fingerprint, processes, run_kpoints
from hamnet.bands.solvers import Eigensolver, make_eigensolver
from hamnet.bands.weights import populations, projection_groups
from hamnet.core.calculation import Calculation
from hamnet.errors import ConfigError, PhysicsError

FloatArray = NDArray[np.float64]
Say = Callable[[str], None]
SPARE = 1.3, 8
"""States computed for n bands: 1.3 n + 8, since bands cross the window's ends and only whole bands are kept."""


@dataclass(frozen=True)
class LargeSettings:
    """How to find some bands of a large cell.

    Args:
        n_bands: bands wanted; None: all (dense).
        around: "fermi", or an energy in eV; then a Fermi level that is not known is not counted for either.
        engine: "auto", "dense", "pardiso" or "superlu".
        threads: of BLAS and of a factorisation, per process.
        jobs: k-points side by side; 0: as many as processors and memory allow.
        certify: prove by counting that no state is missed, at three to six times the cost.
    """

    n_bands: int | None = None
    around: str = "fermi"
    engine: str = "auto"
    threads: int = 1
    jobs: int = 1
    certify: bool = True


def window_bands(
    calculation: Calculation,
    path: KPath,
    settings: LargeSettings,
    folder: Path,
    project: str = "none",
    project_overlap: float | None = None,
    on_line: Say = lambda _: None,
) -> BandStructure:
    """Bands about an energy along a path; time and memory are told first, and k-points done before are not repeated.

    Bands that are complete along the path are kept, numbered from the lowest band of the cell.

    Args:
        calculation: with a Hamiltonian.
        path: k-points.
        settings: how many bands, where, and with what means.
        folder: of the results of single k-points.
        project: "none", "species" or "orbital": weights for fat bands.
        project_overlap: modes of S(k) below this are projected out (dense).
        on_line: told what is expected and how far it is.

    Raises:
        PhysicsError: no Fermi level can be found, S(k) is not positive definite, or no band is complete.
        ConvergenceError: states were missed, or residuals are too large.
    """
    if calculation.hamiltonian is None:
        raise PhysicsError("this calculation has no Hamiltonian (overlap only): bands need H and S")
    solver = make_eigensolver(calculation, settings.engine, settings.threads, project_overlap)
    wanted = min(round(SPARE[0] * (settings.n_bands or solver.n_rows)) + SPARE[1], solver.n_rows)
    jobs = tell_need(solver, path.kpoints, wanted, settings, on_line)
    level = known_level(calculation)
    if level is None and _is_fermi(settings.around):
        level = level_of(calculation, solver, folder, on_line)
    centre = centre_of(settings.around, level)
    groups: tuple[str, ...] = ()
    table = None
    if project != "none":
        spin = calculation.hamiltonian.spin
        groups, table = projection_groups(calculation.basis, calculation.structure.species, spin, project)
    task = _window_task(solver, path.kpoints, centre, wanted, table, settings.certify)
    marks = wanted, centre, project, project_overlap, settings.certify
    key = fingerprint(calculation, path.kpoints.tobytes(), *marks)
    results = run_kpoints(task, len(path.kpoints), folder, key, jobs, on_line)
    worst = max(float(r["residual"].max()) for r in results)
    certified = settings.certify or not hasattr(solver, "prove_overlap")
    proof = "counting proves that none is missed" if certified else "not certified: indices count from the centre"
    on_line(f"states at {len(results)} k-points, largest residual {worst:.1e} eV; {proof}")
    return _assemble(calculation, path, results, solver.n_channels, settings.n_bands, level, groups, on_line)


def _window_task(
    solver: Eigensolver, kpoints: FloatArray, centre: float, wanted: int, table: FloatArray | None, certify: bool
) -> Task:
    """k index -> energies, index of the first state and residual of each channel; weights where a table is given."""

    def task(n: int) -> Arrays:
        """States at one k-point."""
        window = solver.window(kpoints[n], centre, wanted, vectors=table is not None, certify=certify)
        arrays: Arrays = {"residual": np.array([channel.residual for channel in window])}
        for s, channel in enumerate(window):
            below = int((channel.energies < centre).sum())
            arrays[f"first{s}"] = np.array(-below if channel.first is None else channel.first)
            arrays[f"energies{s}"] = channel.energies
            if table is not None and channel.vectors is not None and channel.overlap_vectors is not None:
                arrays[f"weights{s}"] = populations(channel.vectors, channel.overlap_vectors, table)
        return arrays

    return task


def tell_need(solver: Eigensolver, kpoints: FloatArray, n_bands: int, settings: LargeSettings, on_line: Say) -> int:
    """Say what time and memory is expected; how many k-points go side by side.

    Raises:
        PhysicsError: it does not fit into the memory that is free; with the need, and what would do.
    """
    needs = [solver.need(k, n_bands, settings.certify) for k in kpoints]
    most = max(needs, key=lambda need: need.memory)
    jobs = processes(settings.jobs, most.memory, len(kpoints))
    seconds = sum(need.seconds for need in needs) / jobs
    on_line(
        f"{most.text}; expected: {most.memory / 1e9:.2f} GB for each of {jobs} process(es), "
        f"{seconds / len(kpoints):.1f} s per k-point, {seconds:.0f} s in all on an idle machine"
    )
    free = available_memory()
    if free is not None and most.memory > free and settings.engine != "slepc":  # whose memory may be elsewhere
        point = kpoints[int(np.argmax([need.memory for need in needs]))]
        raise PhysicsError(
            f"{most.text} needs {most.memory / 1e9:.1f} GB, {free / 1e9:.1f} GB are free. "
            + _what_would_do(solver, point, n_bands, settings.certify)
        )
    return jobs


def _what_would_do(solver: Eigensolver, kpoint: FloatArray, n_bands: int, certify: bool) -> str:
    """Smaller needs of the same cell, for a message."""
    tries = {
        "at this k without counts (--no-certify)": solver.need(kpoint, n_bands, False),
        "at Gamma": solver.need(np.zeros(3), n_bands, certify),
        "at Gamma without counts": solver.need(np.zeros(3), n_bands, False),
    }
    sizes = ", ".join(f"{need.memory / 1e9:.1f} GB {where}" for where, need in tries.items())
    return f"What would do: {sizes}; fewer --bands; or several machines (--engine slepc under mpirun)"


def level_of(
    calculation: Calculation, solver: Eigensolver, folder: Path, on_line: Say, n_electrons: float | None = None
) -> FermiLevel | None:
    """The calculation's Fermi level, else (or for another number of electrons) one by counting; None without any.

    What was counted is kept in the folder, so that a run that resumes need not count again.
    """
    given = known_level(calculation)
    if given is not None and n_electrons is None:
        return given
    count = electrons(calculation) if n_electrons is None else n_electrons
    if count is None:
        return None

    def task(_: int) -> Arrays:
        """Count."""
        on_line("no Fermi level is given: counting states")
        level = fermi_by_counting(calculation, solver, count, on_line=on_line)
        return {"energy": np.array(level.energy), "method": np.array(level.method)}

    key = fingerprint(calculation, "fermi", count, calculation.electronic_temperature)
    found = run_kpoints(task, 1, folder / "fermi", key)[0]
    return FermiLevel(float(found["energy"]), str(found["method"]))


def known_level(calculation: Calculation) -> FermiLevel | None:
    """The Fermi level that came with a calculation."""
    if calculation.fermi_energy is None:
        return None
    return FermiLevel(calculation.fermi_energy, "given by the calculation")


def _is_fermi(around: str) -> bool:
    return around.strip().lower() == "fermi"


def centre_of(around: str, level: FermiLevel | None) -> float:
    """Energy in eV that a window of states lies about.

    Args:
        around: "fermi", or an energy in eV.
        level: the Fermi level, if there is one.

    Raises:
        ConfigError: `around` is neither.
        PhysicsError: the Fermi level is asked for and unknown.
    """
    if not _is_fermi(around):
        try:
            return float(around)
        except ValueError:
            raise ConfigError(f'--around {around!r}: expected "fermi" or an energy in eV') from None
    if level is None:
        raise PhysicsError(
            "no Fermi level: neither it nor the number of electrons is known; give --around ENERGY in eV"
        )
    return level.energy


def _assemble(
    calculation: Calculation,
    path: KPath,
    results: list[Arrays],
    n_channels: int,
    n_bands: int | None,
    level: FermiLevel | None,
    groups: tuple[str, ...],
    on_line: Say,
) -> BandStructure:
    """Whole bands only: those whose index is found at every k-point, of every spin."""
    starts = np.array([[int(r[f"first{s}"]) for r in results] for s in range(n_channels)])
    sizes = np.array([[len(r[f"energies{s}"]) for r in results] for s in range(n_channels)])
    first, last = int(starts.max()), int((starts + sizes).min())
    if last <= first:
        raise PhysicsError("no band lies in the window at every k-point: ask for more bands with --bands")
    if n_bands is not None and last - first < n_bands:
        on_line(f"{last - first} of {n_bands} bands are in the window at every k-point: ask for more to see the others")

    def stack(name: str) -> FloatArray:
        """(n_spin, n_k, n_bands, ...) of the whole bands."""
        cut = [
            [r[f"{name}{s}"][first - starts[s, k] : last - starts[s, k]] for k, r in enumerate(results)]
            for s in range(n_channels)
        ]
        return np.array(cut)

    fermi, how = energy_and_method(level)
    return BandStructure(
        path,
        stack("energies"),
        calculation.spin,
        fermi,
        how,
        electrons(calculation),
        calculation.structure,
        groups,
        stack("weights") if groups else None,
        first_band=first,
    )
