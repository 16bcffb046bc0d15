"""What a prediction is worth to PySCF: SCF cycles and wall time against minao, and an NVE run on its forces.

    python benchmarks/scf.py MODEL --frames inside.xyz outside.xyz [--nve water.xyz --steps 150] [-o OUT.json]

Cycles, Fock builds and seconds are sums over the frames of a file; seconds include loading nothing but the prediction
and its Fock builds. The NVE run is Verlet at 0.5 fs from the first frame, velocities of 600 K; its drift is the slope
of the total energy, beside the largest excursion and the model's own error bar. Energies and forces on a store, and
cycles on a sample of it: `hamnet evaluate --scf 20`. One dated JSON row.
"""

import argparse
import datetime
import json
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
from ase import units
from ase.md.velocitydistribution import Stationary, ZeroRotation
from ase.md.verlet import VelocityVerlet

import hamnet
from hamnet.integrations.ase import HamnetCalculator
from hamnet.predict.predictor import Predictor
from hamnet.predict.scf_run import ScfRun, run_frames
from hamnet.predict.structures import read_structures

STEP_FS = 0.5
START_KELVIN = 600.0


def cycles(model: Predictor, path: Path) -> dict[str, Any]:
    """Cycles, builds and seconds of all frames of a file, beside plain PySCF's."""
    runs: list[ScfRun] = run_frames(model, read_structures(path), None, compare=True)
    plain = [run.plain for run in runs if run.plain is not None]
    return {
        "frames": len(runs),
        "atoms": [run.n_atoms for run in runs],
        "from_minao": sum(run.origin == "minao" for run in runs),
        "commutator_eV": [round(run.commutator, 4) for run in runs],
        "cycles": [[run.cycles, other.cycles] for run, other in zip(runs, plain, strict=True)],
        "builds": [[run.builds, other.builds] for run, other in zip(runs, plain, strict=True)],
        "seconds": [round(sum(run.seconds for run in runs), 2), round(sum(other.seconds for other in plain), 2)],
        "prediction_seconds": round(sum(run.guess_seconds for run in runs), 2),
        "energy_difference_eV": max(abs(run.energy - other.energy) for run, other in zip(runs, plain, strict=True)),
    }


def dynamics(model: Predictor, path: Path, steps: int) -> dict[str, Any]:
    """Drift of the total energy of an NVE run."""
    atoms = read_structures(path)[0][1]
    atoms.calc = HamnetCalculator(model)
    spread = np.sqrt(atoms.get_masses()[:, None] * START_KELVIN * units.kB)
    atoms.set_momenta(spread * np.random.default_rng(0).normal(size=(len(atoms), 3)))
    Stationary(atoms)
    ZeroRotation(atoms)
    energies, errors, temperatures = [], [], []

    def observe() -> None:
        """Note one step."""
        energies.append(atoms.get_total_energy())
        errors.append(atoms.calc.results["energy_error"])
        temperatures.append(atoms.get_temperature())

    run = VelocityVerlet(atoms, STEP_FS * units.fs)
    run.attach(observe)
    start = time.process_time()
    run.run(steps)
    picoseconds = STEP_FS * 1e-3 * np.arange(len(energies))
    total = 1e3 * np.array(energies)
    slope = float(np.polyfit(picoseconds, total, 1)[0])
    return {
        "steps": steps,
        "femtoseconds": STEP_FS * steps,
        "drift_meV_per_atom_ps": slope / len(atoms),
        "largest_excursion_meV": float(np.abs(total - total[0]).max()),
        "standard_deviation_meV": float(total.std()),
        "mean_error_bar_meV": 1e3 * float(np.mean(errors)),
        "temperature_K": float(np.mean(temperatures)),
        "cpu_seconds_per_step": (time.process_time() - start) / steps,
    }


def main() -> None:
    """Measure, print one row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--frames", type=Path, nargs="*", default=[])
    parser.add_argument("--nve", type=Path)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    model = hamnet.load(options.model)
    row: dict[str, Any] = {"date": datetime.date.today().isoformat(), "machine": platform.platform()}
    for path in options.frames:
        row[path.stem] = cycles(model, path)
    if options.nve:
        row["nve"] = dynamics(model, options.nve, options.steps)
    text = json.dumps(row)
    if options.output:
        options.output.write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
