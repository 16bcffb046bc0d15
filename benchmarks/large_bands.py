"""Time and memory of bands of large cells: python benchmarks/large_bands.py FOLDER [--case NAME ...] [--json].

FOLDER: unpacked OpenMX output with graphene/prim (5 orbitals per atom), graphene/prim_dzp (13) and bismuthene_soc/prim
(26 with spin). The primitive cell is repeated; the k-point is a general one (complex numbers) unless the case says
Gamma (real). Each case runs in a process of its own, one thread. `plan` rows are the solver's own forecast, not run.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from hamnet.bands.fermi_counts import fermi_by_counting
from hamnet.bands.solvers import SparseEigensolver
from hamnet.core.supercell import supercell
from hamnet_preprocess.openmx import OpenMXReader

GENERAL, GAMMA = (0.13, 0.27, 0.0), (0.0, 0.0, 0.0)
# name: (folder, repeats, what, k-point, certify, goal in seconds)
CASES = {
    "500x5": ("graphene/prim", 16, "bands", GENERAL, False, None),
    "2000x5": ("graphene/prim", 32, "bands", GENERAL, False, None),
    "5000x5": ("graphene/prim", 50, "bands", GENERAL, False, None),
    "10000x5": ("graphene/prim", 71, "bands", GENERAL, False, 90),
    "2000x5-certified": ("graphene/prim", 32, "bands", GENERAL, True, None),
    "10000x5-gamma-certified": ("graphene/prim", 71, "bands", GAMMA, True, None),
    "500x13": ("graphene/prim_dzp", 16, "bands", GENERAL, False, None),
    "2000x13": ("graphene/prim_dzp", 32, "bands", GENERAL, False, 180),
    "2000x13-gamma-certified": ("graphene/prim_dzp", 32, "bands", GAMMA, True, 180),
    "fermi-500x5": ("graphene/prim", 16, "fermi", GAMMA, True, None),
    "fermi-2000x13": ("graphene/prim_dzp", 32, "fermi", GAMMA, True, None),
    "plan-5000x13": ("graphene/prim_dzp", 50, "plan", GENERAL, False, None),
    "plan-soc-2000x26": ("bismuthene_soc/prim", 32, "plan", GENERAL, False, None),
}


def run(root: Path, name: str) -> dict[str, object]:
    folder, repeats, what, k, certify, goal = CASES[name]
    small = OpenMXReader().read(root / folder, allow_unconverged=True)
    large = supercell(small, (repeats, repeats, 1))
    kpoint, atoms = np.array(k), large.structure.n_atoms
    start, cpu = time.perf_counter(), time.process_time()
    solver = SparseEigensolver(large)
    need = solver.need(kpoint, 40, certify)
    row: dict[str, object] = {"case": name, "atoms": atoms, "orbitals": solver.n_rows // atoms, "rows": solver.n_rows}
    row |= {"kpoint": list(k), "certified": certify, "forecast_s": round(need.seconds, 1)}
    row |= {"forecast_GB": round(need.memory / 1e9, 2), "solver": need.text}
    if what == "bands":
        states = solver.window(kpoint, small.fermi_energy + 0.01, 40, certify=certify)[0]
        row |= {"bands": len(states.energies), "max_residual_eV": states.residual, "first_band": states.first}
    if what == "fermi":
        counts: list[str] = []
        mesh = (kpoint[None], np.ones(1))
        level = fermi_by_counting(large, solver, large.n_electrons, mesh=mesh, on_line=counts.append)
        row |= {"fermi_eV": level.energy, "counts": len(counts)}
    seconds = time.perf_counter() - start
    if what != "plan":
        row |= {"seconds": round(seconds, 1), "cpu_seconds": round(time.process_time() - cpu, 1)}
        row |= {"goal_s": goal, "goal_met": None if goal is None else seconds <= goal}
    row["peak_memory_GB"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, 2)
    return row


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--case", nargs="*", default=list(CASES), choices=list(CASES))
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if len(options.case) == 1:
        print(json.dumps(run(options.folder, options.case[0])), flush=True)
        return
    rows = []
    for name in options.case:
        command = [sys.executable, __file__, str(options.folder), "--case", name]
        done = subprocess.run(command, capture_output=True, text=True)
        rows.append(json.loads(done.stdout) if done.returncode == 0 else {"case": name, "error": done.stderr[-300:]})
        if not options.json:
            print(json.dumps(rows[-1]), flush=True)
    if options.json:
        print(json.dumps({"date": time.strftime("%Y-%m-%d"), "rows": rows}))


if __name__ == "__main__":
    main()
