"""Time and memory of predictions in tiles: python benchmarks/tiles.py MODEL [--repeats N ...] [--jobs N] [--json].

MODEL: checkpoint of a graphene model. A graphene sheet of 2 N^2 atoms, rattled by 0.03 A, is predicted (H and S) into a
store as `hamnet predict --memory` does; each size in a process of its own. The first row compares tiles with one piece.
--tiles K stops after K tiles: time is then extrapolated by the number of tiles (the row says so), memory is measured.
`rows()`: those of benchmarks/large.py, with a model of 13 orbitals per atom, trained for 1.5 processor minutes on the
primitive cell and supercells of it: its figures are those of speed and memory, not of accuracy.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from ase.build import graphene

from hamnet.core.supercell import supercell
from hamnet.data.store import Store, write_store
from hamnet.predict import tiling
from hamnet.predict.memory import parse_memory
from hamnet.predict.predictor import Predictor
from hamnet.predict.tiling import TileSettings, predict_in_tiles

COMPARED = 20
REPEATS = (71, 158, 224)
GOALS = {71: (60.0, 4.0), 224: (720.0, 8.0)}
"""Seconds and GB."""


def sheet(repeats):
    atoms = graphene(size=(repeats, repeats, 1), vacuum=10.0)
    atoms.pbc = True
    atoms.rattle(0.03, seed=1)
    return atoms


def compare(model):
    atoms = sheet(COMPARED)
    whole = Predictor.load(model).calculation(atoms)
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "big.h5"
        summary = predict_in_tiles(model, "graphene", atoms, output, TileSettings(10**12, tile_atoms=150))
        parts = Store(output).read(0)
    return {
        "case": "tiles against one piece",
        "atoms": len(atoms),
        "orbitals": int(whole.basis.n_orbitals.max()),
        "tiles": summary.tiles,
        "H_difference_eV": float(np.abs(parts.hamiltonian.values - whole.hamiltonian.values).max()),
        "S_difference": float(np.abs(parts.overlap.values - whole.overlap.values).max()),
        "hermitian_residual_eV": parts.hamiltonian.hermitian_residual()[0],
    }


def stop_after(n_tiles):
    """Let runs end after so many tiles; CPU seconds before them and in them are noted in what is returned."""
    noted, run_all = {}, tiling.run_tiles

    def run_some(evaluator, task, left, *rest):
        noted["before"], noted["tiles"] = cpu_seconds(), min(n_tiles or len(left), len(left))
        reports = run_all(evaluator, task, left[: noted["tiles"]], *rest)
        noted["all"] = noted["before"] + (cpu_seconds() - noted["before"]) * len(left) / noted["tiles"]
        return reports

    tiling.run_tiles = run_some
    return noted


def cpu_seconds():
    usages = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def run(model, repeats, memory, jobs, n_tiles):
    atoms, noted = sheet(repeats), stop_after(n_tiles)
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "big.h5"
        start, load = time.perf_counter(), os.getloadavg()[0]
        summary = predict_in_tiles(
            model,
            "graphene",
            atoms,
            output,
            TileSettings(parse_memory(memory), jobs=jobs),
            on_event=lambda x: print(x, file=sys.stderr),
        )
        wall, size = time.perf_counter() - start, output.stat().st_size
    complete = noted["tiles"] == summary.tiles
    goal = GOALS.get(repeats) if complete else None
    return {
        "case": "predict H and S",
        "atoms": summary.atoms,
        "orbitals": int(Predictor.load(model).basis.n_orbitals.max()),
        "max_residual_eV": None,
        "pairs": summary.pairs,
        "tiles": summary.tiles,
        "jobs": jobs,
        "memory": memory,
        "tiles_run": noted["tiles"],
        "seconds": round(wall, 1) if complete else None,
        "cpu_seconds": round(noted["all"], 1),
        "cpu_seconds_extrapolated": not complete,
        "cpu_ms_per_atom": round(1000 * noted["all"] / summary.atoms, 2),
        "forecast_s": round(summary.forecast_seconds, 1),
        "forecast_GB": round(summary.forecast_memory_gb, 2),
        "peak_memory_GB": round(summary.peak_memory_gb, 2),
        "store_GB": round(size / 1e9, 2),
        "load_at_start": round(load, 1),
        "goal_s": None if goal is None else goal[0],
        "goal_met": None if goal is None else wall <= goal[0] and summary.peak_memory_gb <= goal[1],
    }


def train(data, work):
    """A model of graphene with 13 orbitals per atom, trained unless it is there."""
    model, command = work / "run13" / "model.ckpt", [sys.executable, "-c", "from hamnet.cli import main; main()"]
    if model.exists():
        return model
    prim, store = work / "prim_dzp.h5", work / "train13.h5"
    folder, pao = str(data / "openmx" / "graphene" / "prim_dzp"), str(data / "pao")
    read = ["preprocess", "openmx", folder, "-o", str(prim), "--pao", pao, "--allow-unconverged"]
    subprocess.run(command + read, check=True, stdout=sys.stderr)
    cell = Store(prim).read(0)
    write_store(store, [(f"{n}x{m}", supercell(cell, (n, m, 1))) for n, m in ((1, 1), (2, 1), (1, 2), (2, 2))])
    settings = {
        "data": {"store": str(store), "train_fraction": 0.75, "validation_fraction": 0.25, "test_fraction": 0.0},
        "network": {"layers": 1, "channels": 32},
        "training": {"output": str(work / "run13"), "max_minutes": 1.5, "clock": "process", "threads": 1}
        | {"epochs": 2000, "batch_size": 1, "learning_rate": 1e-2},
    }
    (work / "train13.yaml").write_text(json.dumps(settings))
    subprocess.run([*command, "train", str(work / "train13.yaml")], check=True, stdout=sys.stderr)
    return model


def rows():
    """Rows of benchmarks/large.py."""
    from large import data_folder, work_folder

    def row(repeats, jobs=1, n_tiles=None):
        return lambda: run(train(data_folder(), work_folder()), repeats, "4GB", jobs, n_tiles)

    return [
        ("tiles-against-one-piece-13", lambda: compare(train(data_folder(), work_folder()))),
        ("predict-10000x13", row(71)),
        ("predict-10000x13-two-processes", row(71, jobs=2)),
        ("predict-50000x13-four-tiles", row(158, n_tiles=4)),
        ("predict-100000x13-four-tiles", row(224, n_tiles=4)),
        ("predict-100000x13", row(224)),
    ]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("--repeats", type=int, nargs="*", default=list(REPEATS), help="0: tiles against one piece")
    parser.add_argument("--memory", default="4GB")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--tiles", type=int, help="stop after so many tiles")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if len(options.repeats) == 1:
        (n,) = options.repeats
        row = run(options.model, n, options.memory, options.jobs, options.tiles) if n else compare(options.model)
        print(json.dumps(row), flush=True)
        return
    rows = []
    for n in [0, *options.repeats]:
        command = [sys.executable, __file__, str(options.model), "--repeats", str(n)]
        command += ["--memory", options.memory, "--jobs", str(options.jobs)]
        command += [] if options.tiles is None else ["--tiles", str(options.tiles)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        rows.append(
            json.loads(done.stdout) if done.returncode == 0 else {"atoms": 2 * n * n, "error": done.stderr[-400:]}
        )
        if not options.json:
            print(json.dumps(rows[-1]), flush=True)
    if options.json:
        print(json.dumps(rows))


if __name__ == "__main__":
    main()
