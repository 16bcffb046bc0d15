"""All that `hamnet fermi`, `hamnet dos` and `hamnet unfold` say about one calculation: files, lines and figures."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hamnet.bands.band_structure import electrons
from hamnet.bands.dos import DensityOfStates, DosTask, dos_by_counts, dos_by_moments, dos_by_states
from hamnet.bands.fermi import divided_mesh, fermi_mesh, has_time_reversal
from hamnet.bands.fermi_counts import fermi_by_counting
from hamnet.bands.kpath import band_path
from hamnet.bands.large import LargeSettings, centre_of, level_of, tell_need
from hamnet.bands.plot_spectra import plot_dos, plot_unfolded
from hamnet.bands.solvers import Eigensolver, SparseEigensolver, make_eigensolver
from hamnet.bands.spin_texture import AXES
from hamnet.bands.unfold import UnfoldedBands, unfold_bands
from hamnet.core.calculation import Calculation
from hamnet.core.files import whole_file
from hamnet.core.structure import AtomicStructure
from hamnet.errors import ConfigError, PhysicsError

FloatArray = NDArray[np.float64]
Say = Callable[[str], None]
DOS_METHODS = ("auto", "states", "counts", "moments")


@dataclass(frozen=True)
class Report:
    """What a verb says.

    Args:
        lines: for people; figures: for machines.
    """

    lines: tuple[str, ...]
    figures: dict[str, Any]


@dataclass(frozen=True)
class MeshSettings:
    """Where and with what means states are counted.

    Args:
        mesh: divisions of the k mesh; None: chosen from the size of the cell.
        n_electrons: in the cell; None: the calculation's or the neutral atoms'.
        large: engine, threads, processes.
    """

    mesh: tuple[int, int, int] | None = None
    n_electrons: float | None = None
    large: LargeSettings = LargeSettings()


def study_fermi(
    calculation: Calculation,
    settings: MeshSettings,
    temperature: float | None = None,
    resolution: float | None = None,
    on_line: Say = lambda _: None,
) -> Report:
    """Fermi level by counting states; what the calculation itself says stands beside it.

    Args:
        calculation: with a Hamiltonian.
        settings: k mesh, electrons, engine.
        temperature: kelvin; None: the calculation's, else 300.
        resolution: eV, of counts alone; None: exact states about the Fermi level.
        on_line: told each count.

    Raises:
        PhysicsError: the number of electrons is unknown or does not fit.
    """
    count = electrons(calculation) if settings.n_electrons is None else settings.n_electrons
    if count is None:
        raise PhysicsError("the number of electrons is unknown: give --electrons")
    large = settings.large
    solver = make_eigensolver(calculation, large.engine, large.threads)
    kpoints, weights = _mesh(calculation, settings.mesh)
    tell_need(solver, kpoints, 16, replace(large, jobs=1), on_line)
    level = fermi_by_counting(calculation, solver, count, temperature, (kpoints, weights), resolution, on_line)
    least = solver.prove_overlap(kpoints[-1]) if isinstance(solver, SparseEigensolver) else None
    lines = [f"Fermi level {level.energy:.6f} eV ({level.method})"]
    if least is not None:
        lines.append(f"S is positive definite at every k-point; its least eigenvalue at the last is about {least:.1e}")
    if calculation.fermi_energy is not None:
        off = level.energy - calculation.fermi_energy
        lines.append(f"the calculation says {calculation.fermi_energy:.6f} eV: {off:+.6f} eV away, on its own k mesh")
    spins = _spins_below(solver, kpoints, weights, level.energy)
    if spins is not None:
        up, down = spins
        lines.append(f"states below it: spin up {up:.4f}, spin down {down:.4f}, one Fermi level for both")
    figures = {
        "fermi_eV": level.energy,
        "method": level.method,
        "electrons": count,
        "kpoints": len(kpoints),
        "fermi_of_calculation_eV": calculation.fermi_energy,
        "least_overlap_eigenvalue": least,
        "states_of_spins": spins,
    }
    return Report(tuple(lines), figures)


def _spins_below(
    solver: Eigensolver, kpoints: FloatArray, weights: FloatArray, energy: float
) -> tuple[float, float] | None:
    """Collinear states of each spin below an energy, averaged over the mesh; None without two spins."""
    if solver.n_channels != 2:
        return None
    up, down = np.sum([w * solver.count(k, energy) for k, w in zip(kpoints, weights, strict=True)], axis=0)
    return float(up), float(down)


@dataclass(frozen=True)
class DosSettings:
    """How a density of states is computed.

    Args:
        method: "auto" (states for small cells, else moments), "states", "counts" or "moments".
        window: (low, high) eV about the Fermi level.
        points: energies; for counts each costs one factorisation at each k-point.
        broadening: eV, of the states' Gaussians.
        moments, vectors: of the Chebyshev expansion.
        spin_axis: 0, 1, 2: spins of spinor states too, drawn as up and down along x, y, z.
    """

    method: str = "auto"
    window: tuple[float, float] = (-10.0, 5.0)
    points: int | None = None
    broadening: float = 0.1
    moments: int = 600
    vectors: int = 8
    spin_axis: int | None = None


def study_dos(
    calculation: Calculation, output: Path, settings: MeshSettings, how: DosSettings, on_line: Say = lambda _: None
) -> Report:
    """Density of states with dos.png and dos.csv.

    Args:
        calculation: with a Hamiltonian.
        output: folder, made if need be; k-points done before are taken from it.
        settings: k mesh, electrons, engine.
        how: method, window, resolution.
        on_line: told what is expected and how far it is.

    Raises:
        ConfigError: a method that does not exist.
        PhysicsError: method and engine do not fit, or there is no Fermi level for the window.
    """
    solver, method = _dos_solver(calculation, settings.large, how.method, how.spin_axis is not None)
    kpoints, weights = _mesh(calculation, settings.mesh, how.spin_axis is not None)
    jobs = tell_need(solver, kpoints, 16, settings.large, on_line)
    level = level_of(calculation, solver, output / "kpoints", on_line, settings.n_electrons)
    if level is None:
        raise PhysicsError("no Fermi level to place the window: give --electrons")
    output.mkdir(parents=True, exist_ok=True)
    energies = level.energy + np.linspace(*how.window, how.points or (60 if method == "counts" else 600))
    task = DosTask(calculation, solver, kpoints, weights, output / "kpoints", jobs, on_line)
    if method == "states":
        dos = dos_by_states(task, energies, how.broadening, how.spin_axis is not None)
    elif method == "counts":
        dos = dos_by_counts(task, energies)
    else:
        dos = dos_by_moments(task, energies, how.moments, how.vectors)
    dos = replace(dos, fermi_energy=level.energy)
    plot_dos(dos, output / "dos.png", axis=how.spin_axis)
    _write_dos(dos, output / "dos.csv")
    return _dos_report(dos, level.energy, settings.n_electrons or electrons(calculation), output)


def _dos_report(dos: DensityOfStates, level: float, count: float | None, output: Path) -> Report:
    """What lies below the Fermi level, for each spin where there are spins."""
    held = [float(np.interp(level, dos.energies, row)) for row in dos.integrated]
    figures = {
        "method": dos.method,
        "fermi_eV": level,
        "electrons_below_fermi": sum(held),
        "electrons": count,
        "files": {"png": str(output / "dos.png"), "csv": str(output / "dos.csv")},
    }
    lines = [
        f"density of states: {dos.method}",
        f"{sum(held):.3f} electrons below the Fermi level {level:.4f} eV; the cell has {count}",
    ]
    if len(held) == 2:
        figures["electrons_of_spins"] = held
        lines.append(f"spin up {held[0]:.3f}, spin down {held[1]:.3f}: moment {held[0] - held[1]:.3f} mu_B")
    if dos.spin_integrated is not None:
        x, y, z = moment = [float(np.interp(level, dos.energies, row)) for row in dos.spin_integrated]
        figures["moment_bohr_magneton"] = moment
        lines.append(f"moment {x:.4f} {y:.4f} {z:.4f} mu_B below the Fermi level")
    return Report((*lines, f"written: {output / 'dos.png'}, {output / 'dos.csv'}"), figures)


def _dos_solver(calculation: Calculation, large: LargeSettings, method: str, spins: bool) -> tuple[Eigensolver, str]:
    """The solver that a method needs, and the method that "auto" stands for with it."""
    if method not in DOS_METHODS:
        raise ConfigError(f"--method {method!r}: expected one of {', '.join(DOS_METHODS)}")
    if spins and method == "auto":
        method = "states"
    if spins and method != "states":
        raise ConfigError(f"--spin needs the vectors of all states: --method states, not {method}")
    solver = make_eigensolver(calculation, "dense" if method == "states" else large.engine, large.threads)
    if method == "moments" and large.engine == "auto" and not isinstance(solver, SparseEigensolver):
        solver = SparseEigensolver(calculation, large.engine, large.threads)
    if method == "auto":
        method = "moments" if isinstance(solver, SparseEigensolver) else "states"
    return solver, method


def study_unfold(
    calculation: Calculation,
    primitive: AtomicStructure,
    output: Path,
    path: str = "auto",
    points: int = 60,
    large: LargeSettings | None = None,
    window: tuple[float | None, float | None] = (None, None),
    on_line: Say = lambda _: None,
) -> Report:
    """Effective band structure with unfolded.png and unfolded.csv.

    Args:
        calculation: the supercell's.
        primitive: its cell gives the wave vectors.
        output: folder, made if need be; k-points done before are taken from it.
        path: of the primitive cell; points: along it.
        large: how many states (None: all), where, engine.
        window: (low, high) eV of the plot.
        on_line: told what is expected and how far it is.

    Raises:
        PhysicsError: the cells do not fit, or there is no Fermi level for the states to lie about.
        ConfigError: `large.around` is neither "fermi" nor an energy.
    """
    large = large or LargeSettings()
    solver = make_eigensolver(calculation, large.engine, large.threads)
    wanted = min(large.n_bands or solver.n_rows, solver.n_rows)
    kpath = band_path(primitive, path, points)
    jobs = tell_need(solver, kpath.kpoints, wanted, large, on_line)
    folder = output / "kpoints"
    level = level_of(calculation, solver, folder, on_line)
    centre = centre_of(large.around, level)
    output.mkdir(parents=True, exist_ok=True)
    bands = unfold_bands(calculation, primitive, kpath, solver, centre, wanted, folder, jobs, large.certify, on_line)
    bands = replace(bands, fermi_energy=None if level is None else level.energy)
    plot_unfolded(bands, output / "unfolded.png", window)
    _write_unfolded(bands, output / "unfolded.csv")
    return _unfold_report(bands, wanted, output)


def _unfold_report(bands: UnfoldedBands, wanted: int, output: Path) -> Report:
    sharp = float(np.mean([np.nanmax(w) for w in bands.weights]))
    figures = {
        "kpoints": len(bands.path.kpoints),
        "states": wanted,
        "primitive_cells": bands.sites.n_cells,
        "missing_sites": bands.sites.n_missing,
        "mean_largest_weight": sharp,
        "files": {"png": str(output / "unfolded.png"), "csv": str(output / "unfolded.csv")},
    }
    lines = (
        f"largest weight at a k-point, in the mean {sharp:.3f} (1 in an exact supercell without degeneracy)",
        f"written: {output / 'unfolded.png'}, {output / 'unfolded.csv'}",
    )
    return Report(lines, figures)


def _mesh(
    calculation: Calculation, size: tuple[int, int, int] | None, whole: bool = False
) -> tuple[FloatArray, FloatArray]:
    """k-points and weights; one of k and -k where their energies are equal, unless the whole mesh is asked for."""
    if calculation.hamiltonian is None:
        raise PhysicsError("this calculation has no Hamiltonian (overlap only): states need H and S")
    reversal = has_time_reversal(calculation.hamiltonian) and not whole
    if size is None:
        return fermi_mesh(calculation.structure, reversal)[:2]
    return divided_mesh(size, reversal)


def _write_dos(dos: DensityOfStates, path: Path) -> None:
    spins = ("up", "down") if len(dos.density) == 2 else ("all",)
    header = ["energy_eV", *(f"{kind}_{spin}" for spin in spins for kind in ("density", "integrated", "error"))]
    errors = np.zeros_like(dos.density) if dos.error is None else dos.error
    columns = [dos.energies, *(a[s] for s in range(len(spins)) for a in (dos.density, dos.integrated, errors))]
    if dos.spin_density is not None and dos.spin_integrated is not None:
        header += [f"{kind}_s_{a}" for a in AXES for kind in ("density", "integrated")]
        columns += [row for pair in zip(dos.spin_density, dos.spin_integrated, strict=True) for row in pair]
    _write_table(path, header, np.stack(columns, axis=1).tolist())


def _write_unfolded(bands: UnfoldedBands, path: Path) -> None:
    rows = []
    for k, (energies, weights) in enumerate(zip(bands.energies, bands.weights, strict=True)):
        place = [k, float(bands.path.distances[k]), *bands.path.kpoints[k].tolist()]
        for s, n in zip(*np.nonzero(np.isfinite(energies)), strict=True):
            rows.append([*place, int(s), float(energies[s, n]), float(weights[s, n])])
    header = ["k_index", "distance_1_per_A", "k1", "k2", "k3", "spin", "energy_eV", "weight"]
    _write_table(path, header, rows)


def _write_table(path: Path, header: list[str], rows: list[list[float]]) -> None:
    with whole_file(path) as temporary, temporary.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(header)
        table.writerows([[f"{x:.9g}" for x in row] for row in rows])
