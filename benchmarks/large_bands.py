"""Time and memory of bands of large cells: python benchmarks/large_bands.py FOLDER [--case NAME ...] [--json].

FOLDER: unpacked OpenMX output with graphene/prim (5 orbitals per atom), graphene/prim_dzp (13) and bismuthene_soc/prim
(26 with spin). The primitive cell is repeated; the k-point is a general one (complex numbers) unless the case says
Gamma (real). Each case runs in a process of its own; times are from H and S in memory to the states, the symbolic
analysis included. `need` rows are the solver's own forecast, not run. `rows()`: those of benchmarks/large.py.
`--plot FOLDER` draws the growth with atoms from the rows that large.py kept there.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from hamnet.bands.fermi_counts import fermi_by_counting
from hamnet.bands.solvers import make_eigensolver
from hamnet.core.supercell import supercell
from hamnet_preprocess.openmx import OpenMXReader

GENERAL, GAMMA = (0.13, 0.27, 0.0), (0.0, 0.0, 0.0)
SP, DZP, SOC = "graphene/prim", "graphene/prim_dzp", "bismuthene_soc/prim"
# name: (folder, repeats, what, k-point, certify, goal in seconds, engine)
CASES = {
    "bands-500x5": (SP, 16, "bands", GENERAL, False, None, "pardiso"),
    "bands-1000x5": (SP, 22, "bands", GENERAL, False, None, "pardiso"),
    "bands-2000x5": (SP, 32, "bands", GENERAL, False, None, "pardiso"),
    "bands-5000x5": (SP, 50, "bands", GENERAL, False, None, "pardiso"),
    "bands-10000x5": (SP, 71, "bands", GENERAL, False, 90, "pardiso"),
    "bands-2000x5-certified": (SP, 32, "bands", GENERAL, True, None, "pardiso"),
    "bands-10000x5-gamma-certified": (SP, 71, "bands", GAMMA, True, None, "pardiso"),
    "bands-500x13": (DZP, 16, "bands", GENERAL, False, None, "pardiso"),
    "bands-500x13-gamma": (DZP, 16, "bands", GAMMA, False, None, "pardiso"),
    "bands-1000x13-gamma": (DZP, 22, "bands", GAMMA, False, None, "pardiso"),
    "bands-2000x13": (DZP, 32, "bands", GENERAL, False, 180, "pardiso"),
    "bands-2000x13-gamma": (DZP, 32, "bands", GAMMA, False, 180, "pardiso"),
    "bands-2000x13-gamma-certified": (DZP, 32, "bands", GAMMA, True, 180, "pardiso"),
    "bands-5000x13-gamma": (DZP, 50, "bands", GAMMA, False, 900, "pardiso"),
    "bands-5000x13": (DZP, 50, "bands", GENERAL, False, 900, "pardiso"),
    "bands-10000x13-gamma": (DZP, 71, "bands", GAMMA, False, 1800, "pardiso"),
    "need-10000x13-gamma": (DZP, 71, "need", GAMMA, False, None, "pardiso"),
    "need-10000x13": (DZP, 71, "need", GENERAL, False, None, "pardiso"),
    "bands-soc-500x26": (SOC, 16, "bands", GENERAL, False, None, "pardiso"),
    "bands-soc-2000x26": (SOC, 32, "bands", GENERAL, False, None, "pardiso"),
    "fermi-500x5": (SP, 16, "fermi", GAMMA, True, None, "pardiso"),
    "fermi-500x13": (DZP, 16, "fermi", GAMMA, True, None, "pardiso"),
    "fermi-500x13-unknown": (DZP, 16, "fermi-unknown", GAMMA, True, None, "pardiso"),
    "fermi-2000x13": (DZP, 32, "fermi", GAMMA, True, None, "pardiso"),
    "fermi-2000x13-unknown": (DZP, 32, "fermi-unknown", GAMMA, True, None, "pardiso"),
    "slepc-against-pardiso-500x5": (SP, 16, "ratio", GENERAL, False, None, "pardiso"),
    "slepc-against-pardiso-2000x5": (SP, 32, "ratio", GENERAL, False, None, "pardiso"),
    "slepc-against-pardiso-2000x5-gamma": (SP, 32, "ratio", GAMMA, False, None, "pardiso"),
    "bands-2000x5-gamma": (SP, 32, "bands", GAMMA, False, None, "pardiso"),
}


def processor_seconds():
    """Of this process and of the children that have ended."""
    usages = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def measure(large, row, what, kpoint, certify, engine, threads):
    """States, a Fermi level or a forecast; what was found goes into the row."""
    solver = make_eigensolver(large, engine, threads)
    need = solver.need(kpoint, 40, certify)
    row |= {"orbitals": solver.n_rows // row["atoms"], "rows": solver.n_rows, "solver": need.text}
    row |= {"forecast_s": round(need.seconds, 1), "forecast_GB": round(need.memory / 1e9, 2)}
    if what == "bands":
        states = solver.window(kpoint, large.fermi_energy + 0.01, 40, certify=certify)[0]
        row |= {"bands": len(states.energies), "max_residual_eV": states.residual, "first_band": states.first}
    if what.startswith("fermi"):
        counts = []
        level = fermi_by_counting(
            large if what == "fermi" else replace(large, fermi_energy=None),
            solver,
            large.n_electrons,
            mesh=(kpoint[None], np.ones(1)),
            on_line=counts.append,
        )
        row |= {"fermi_eV": level.energy, "counts": counts}


def against_slepc(large, row, kpoint, certify, threads):
    """The same states by PARDISO and by SLEPc with MUMPS (`threads` of the one, processes of the other)."""
    found = []
    for engine in ("pardiso", "slepc"):
        start, cpu = time.perf_counter(), processor_seconds()
        solver = make_eigensolver(large, engine, threads)
        found.append(solver.window(kpoint, large.fermi_energy + 0.01, 40, certify=certify)[0])
        rows = solver.n_rows
        del solver  # ends the processes of SLEPc, so that their time is counted
        row[f"{engine}_seconds"] = round(time.perf_counter() - start, 1)
        row[f"{engine}_cpu_seconds"] = round(processor_seconds() - cpu, 1)
        row[f"{engine}_residual_eV"] = found[-1].residual
    n = min(len(states.energies) for states in found)
    near = [np.sort(s.energies[np.argsort(abs(s.energies - large.fermi_energy - 0.01))][: n - 8]) for s in found]
    row |= {"orbitals": rows // row["atoms"], "rows": rows, "max_residual_eV": max(s.residual for s in found)}
    row["largest_difference_eV"] = float(abs(near[0] - near[1]).max())
    row["ratio_cpu"] = round(row["slepc_cpu_seconds"] / row["pardiso_cpu_seconds"], 2)
    row["ratio_wall"] = round(row["slepc_seconds"] / row["pardiso_seconds"], 2)


def run(root, name, threads=1):
    folder, repeats, what, k, certify, goal, engine = CASES[name]
    small = OpenMXReader().read(Path(root) / folder, allow_unconverged=True)
    large = supercell(small, (repeats, repeats, 1))
    kpoint = np.array(k)
    row = {"case": name, "atoms": large.structure.n_atoms, "kpoint": list(k), "certified": certify, "threads": threads}
    start, cpu = time.perf_counter(), processor_seconds()
    if what == "ratio":
        against_slepc(large, row, kpoint, certify, threads)
    else:
        measure(large, row, what, kpoint, certify, engine, threads)
    seconds = time.perf_counter() - start
    row |= {"seconds": round(seconds, 1), "cpu_seconds": round(processor_seconds() - cpu, 1), "goal_s": goal}
    row["goal_met"] = None if goal is None else bool(seconds <= goal)
    peaks = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    row["peak_memory_GB"] = round(sum(peaks) * 1024 / 1e9, 2)
    return row


def rows():
    """(name, callable) for benchmarks/large.py."""
    from large import data_folder

    def one(name):
        return run(data_folder() / "openmx", name)

    return [(name, partial(one, name)) for name in CASES]


def growth(found):
    """{name: (atoms, CPU seconds, peak GB, exponents)} of the uncertified bands, by orbitals and kind of numbers."""
    series = {}
    for row in found:
        if not row["certified"]:
            name = f"{row['orbitals']}, {'complex' if any(row['kpoint']) else 'real'}"
            series.setdefault(name, []).append((row["atoms"], row["cpu_seconds"], row["peak_memory_GB"]))
    answer = {}
    for name, points in sorted(series.items()):
        if len(points) > 1:
            atoms, seconds, memory = np.array(sorted(points)).T
            slopes = [float(np.polyfit(np.log(atoms), np.log(y), 1)[0]) for y in (seconds, memory)]
            answer[name] = (atoms, seconds, memory, slopes)
    return answer


def plot(folder):
    """growth.png beside the rows; the exponents."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    found = [json.loads(path.read_text()) for path in sorted(Path(folder).glob("bands-*.json"))]
    figure, axes = plt.subplots(1, 2, figsize=(9, 4), constrained_layout=True)
    answer = {}
    for colour, (label, (atoms, seconds, memory, slopes)) in zip(
        ("C0", "C3", "C2", "C4"), growth(found).items(), strict=False
    ):
        for axis, y, slope in zip(axes, (seconds, memory), slopes, strict=True):
            fit = np.exp(np.polyval(np.polyfit(np.log(atoms), np.log(y), 1), np.log(atoms)))
            axis.loglog(atoms, y, "o", color=colour, label=f"{label}: atoms$^{{{slope:.2f}}}$")
            axis.loglog(atoms, fit, "-", color=colour, lw=1)
        answer[label] = {"atoms": atoms.tolist(), "seconds_exponent": slopes[0], "memory_exponent": slopes[1]}
    for axis, text in zip(axes, ("processor seconds, one k-point", "peak memory (GB)"), strict=True):
        axis.set_xlabel("atoms")
        axis.set_ylabel(text)
        axis.legend(title="orbitals per atom", frameon=False)
        axis.grid(which="both", alpha=0.2)
    figure.savefig(Path(folder) / "growth.png", dpi=150)
    return answer


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--case", nargs="*", default=list(CASES), choices=list(CASES))
    parser.add_argument("--threads", type=int, default=1, help="of the solver; MPI processes of SLEPc")
    parser.add_argument("--plot", action="store_true", help="FOLDER holds rows that large.py kept: draw the growth")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.plot:
        print(json.dumps(plot(options.folder)))
        return
    if len(options.case) == 1:
        print(json.dumps(run(options.folder, options.case[0], options.threads)), flush=True)
        return
    found = []
    for name in options.case:
        command = [sys.executable, __file__, str(options.folder), "--case", name, "--threads", str(options.threads)]
        done = subprocess.run(command, capture_output=True, text=True)
        found.append(json.loads(done.stdout) if done.returncode == 0 else {"case": name, "error": done.stderr[-300:]})
        if not options.json:
            print(json.dumps(found[-1]), flush=True)
    if options.json:
        print(json.dumps({"date": time.strftime("%Y-%m-%d"), "rows": found}))


if __name__ == "__main__":
    main()
