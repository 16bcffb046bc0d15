"""Bands of large twisted cells for twisted.py: states about neutrality at a few k-points, numbered, drawn."""

import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

STATES = 28
"""States about neutrality at each k-point of the large cells."""
NEAR = 0.02
"""Of the way from K to Gamma: where the slope at K is taken."""


def large_bands(centre: float, points: int, jobs: int, predicted: Path, folder: Path) -> dict[str, Any]:
    """States about an energy near neutrality; k-points are kept, so that a run that was cut off goes on.

    With three k-points or fewer there is none close to K for the slope.
    """
    from hamnet.bands.kpath import band_path
    from hamnet.bands.kpoint_runs import fingerprint, run_kpoints
    from hamnet.bands.solvers import SparseEigensolver
    from hamnet.data.store import Store

    calculation = Store(predicted).read(0)
    solver = SparseEigensolver(calculation)
    path = band_path(calculation.structure, "K,G,M", points)
    near = [] if points <= 3 else [path.kpoints[0] * (1 - NEAR)]
    kpoints = np.array([*near, *path.kpoints])

    # Gamma and M first: they are real, and take half the time
    order = sorted(range(len(kpoints)), key=lambda n: not is_real(kpoints[n]))

    def task(n: int) -> dict[str, np.ndarray]:
        """Energies at one k-point, with what they took; where k = -k the states below the centre are counted too."""
        kpoint, start, cpu = kpoints[order[n]], time.perf_counter(), time.process_time()
        states = solver.window(kpoint, centre, STATES, certify=False)[0]
        spent = np.array([time.perf_counter() - start, time.process_time() - cpu])
        below = solver.count(kpoint, centre)[0] if is_real(kpoint) else -1
        cost = np.append(spent, time.process_time() - cpu - spent[1])
        return {"energies": states.energies, "residual": np.array(states.residual), "below": np.array(below),
                "cost": cost, "peak": np.array(peak_memory())}  # fmt: skip

    key = fingerprint(calculation, kpoints.tobytes(), centre, STATES)
    found = run_kpoints(task, len(kpoints), folder / "kpoints", key, jobs, print_progress)
    results = [found[order.index(n)] for n in range(len(kpoints))]
    below = [int(r["below"]) for r in results]
    every = joined([r["energies"] for r in results], below, centre, 2 * calculation.structure.n_atoms)
    bands = every[len(near) :]
    np.savez(folder / "bands.npz", bands=bands, distances=path.distances, kpoints=path.kpoints, centre=centre)
    draw(folder / "bands.png", bands, path, calculation.structure.n_atoms)
    cost = np.array([r["cost"] for r in results])
    return {
        "kpoints": len(results), "states": STATES, "jobs": jobs, "rows": solver.n_rows,
        "complex_cpu_s_per_k": cost[[b < 0 for b in below], 1].round(1).tolist(),
        "real_cpu_s_per_k": cost[[b >= 0 for b in below], 1].round(1).tolist(),
        "count_cpu_s": cost[[b >= 0 for b in below], 2].round(1).tolist(),
        "wall_s_per_k": cost[:, 0].round(1).tolist(), "peak_GB": max(float(r["peak"]) for r in results),
        "max_residual_eV": max(float(r["residual"].max()) for r in results),
    } | flat_bands(bands) | (velocity_at_k(every[0], kpoints, calculation.structure.cell) if near else {})  # fmt: skip


def velocity_at_k(energies: np.ndarray, kpoints: np.ndarray, cell: np.ndarray) -> dict[str, float]:
    """Slope of the cones in eV A, from the energies at the first k-point, which is close to K, the second."""
    step = np.linalg.norm((kpoints[0] - kpoints[1]) @ (2 * np.pi * np.linalg.inv(cell).T))
    middle = len(energies) // 2
    upper, lower = energies[middle : middle + 2].mean(), energies[middle - 2 : middle].mean()
    return {"hbar_v_eV_A": float(upper - lower) / (2 * step)}


def is_real(kpoint: np.ndarray) -> bool:
    """Whether k = -k up to a reciprocal vector."""
    return np.allclose(2 * kpoint, np.round(2 * kpoint), atol=1e-9)


def print_progress(line: str) -> None:
    """To standard error: standard output is for rows."""
    print(line, file=sys.stderr, flush=True)


def peak_memory() -> float:
    """GB of this process at its peak."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, 2)


def joined(energies: list[np.ndarray], below: list[int], centre: float, occupied: int) -> np.ndarray:
    """(n_k, n_bands) of whole bands, columns half below and half above neutrality.

    States of neighbouring k-points are numbered alike where their energies differ least; counts, where they were made,
    give the number of the first and must agree with each other.
    """
    first = [0]
    for before, here in zip(energies[:-1], energies[1:], strict=True):

        def change(shift: int, a: np.ndarray = before, b: np.ndarray = here) -> float:
            """Mean change of a band if state `shift` of the one is state 0 of the other."""
            a, b = a[max(shift, 0) :], b[max(-shift, 0) :]
            n = min(len(a), len(b))
            return float(np.abs(a[:n] - b[:n]).mean())

        first.append(first[-1] + min(range(-12, 13), key=change))
    known = [(n, count - int((energies[n] < centre).sum())) for n, count in enumerate(below) if count >= 0]
    offsets = {number - first[n] for n, number in known}
    if len(offsets) != 1:
        raise SystemExit(f"counts at Gamma and M number the bands differently: {known}, by continuity {first}")
    offset = offsets.pop() - occupied
    start = [offset + f for f in first]
    half = min(min(-s for s in start), min(s + len(e) for s, e in zip(start, energies, strict=True)))
    return np.array([e[-half - s : half - s] for s, e in zip(start, energies, strict=True)])


def flat_bands(bands: np.ndarray) -> dict[str, Any]:
    """Width of the four bands about neutrality at the points that were computed, and the gaps to the others, in meV."""
    middle = bands.shape[1] // 2
    four = bands[:, middle - 2 : middle + 2]
    return {
        "bands": bands.shape[1],
        "neutrality_at_K_eV": float(four[0].mean()),
        "four_at_K_spread_meV": 1000 * float(np.ptp(four[0])),
        "four_bands_width_meV": 1000 * float(np.ptp(four)),
        "gap_below_meV": 1000 * float(four.min() - bands[:, middle - 3].max()),
        "gap_above_meV": 1000 * float(bands[:, middle + 2].min() - four.max()),
    }


def draw(target: Path, bands: np.ndarray, path: Any, atoms: int) -> None:
    """Bands against the way from K over Gamma to M, zero at the Dirac point, the four in the middle in colour."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2, 4.4), layout="constrained")
    axes, middle = figure.subplots(), bands.shape[1] // 2
    shown = 1000 * (bands - bands[0, middle - 2 : middle + 2].mean())
    for n in range(bands.shape[1]):
        flat = middle - 2 <= n < middle + 2
        axes.plot(path.distances, shown[:, n], ".-", color="#c23b22" if flat else "#1f4e8c", lw=0.9, ms=4)
    for index, _ in path.labels:
        axes.axvline(path.distances[index], color="#9aa3ad", lw=0.6, zorder=0)
    names = ["K", r"$\Gamma$", "M"][: len(path.labels)]
    axes.set_xticks([path.distances[index] for index, _ in path.labels], names)
    axes.set_xlim(path.distances[0], path.distances[-1])
    axes.set_ylabel("energy from the Dirac point (meV)")
    axes.set_title(f"{atoms} atoms", fontsize=10)
    figure.savefig(target, dpi=130)
