"""Twisted bilayer graphene from a model of small cells: python benchmarks/twisted.py DATA PAO -o OUT [--rows NAME ...].

DATA: unpacked OpenMX output with bilayer/train2x2, graphene/train3x3 and graphene/prim; PAO: OpenMX's folder of .pao
files. Rows: `model` trains on processor time of one thread and scores held-out bilayers, within and between layers;
`stackings` compares AA, AB and one layer with continuum models; `m1`, `m2`, `m20`, `m31` build, predict, count and draw
twisted cells of 28, 76, 5,044 and 11,908 atoms; `folding` doubles the smallest; `dft` labels shifted bilayers and the
28-atom cell with CP2K, trains, and compares bands. Each is a command that a user would type. A step whose output is
there is not run again; OUT/twisted.jsonl gets one dated line for each row that was run.
"""

import argparse
import datetime
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from ase.build import graphene
from ase.io import write

LATTICE = 2.46
DISTANCE = 3.35
CONFIG = Path(__file__).parents[1] / "configs" / "crystal.yaml"
POINTS = {1: 60, 2: 60, 6: 16, 10: 7, 14: 5, 20: 3, 31: 3}
"""k-points along G, M, K, G for the small cells, along K, G, M for the others."""
LARGE = 6
"""From this m on states are not certified at each k-point; counts at Gamma and M number the bands."""
STATES = 28
"""States about neutrality at each k-point of the large cells."""
NEAR = 0.02
"""Of the way from K to Gamma: where the slope at K is taken."""
MAGIC = 0.586
"""w / (v k_theta) of the first magic angle (Bistritzer, MacDonald, PNAS 108, 12233, 2011)."""
CP2K = ("--basis", "SZV-MOLOPT-SR-GTH", "--cutoff", 200, "--rel-cutoff", 40, "--eps-default", 1e-9, "--eps-scf", 1e-6,
        "--smearing", 500)  # fmt: skip
CELLS = 14


def hamnet(*arguments: object) -> dict[str, Any]:
    """Run one verb with --json; its figures, and under `cost` its wall and CPU seconds and peak memory."""
    command = [sys.executable, "-c", "from hamnet.cli import main; main()", *map(str, arguments), "--json"]
    start = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    said = child.stdout.read() if child.stdout else ""
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} ended with {os.waitstatus_to_exitcode(status)}")
    cost = {
        "wall_s": round(time.perf_counter() - start, 1),
        "cpu_s": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_GB": round(usage.ru_maxrss * 1024 / 1e9, 2),
    }
    return {**json.loads(said), "cost": cost}


class Bench:
    """Paths, settings, and steps that are run once."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.data, self.pao, self.out = options.data, options.pao, options.output
        self.minutes, self.jobs = options.minutes, options.jobs
        self.out.mkdir(parents=True, exist_ok=True)
        self.model = self.out / "run" / "model.ckpt"

    def once(self, name: str, target: Path, *arguments: object) -> dict[str, Any]:
        """Figures of a verb, from OUT/steps where its target was made before."""
        kept = self.out / "steps" / f"{name}.json"
        if not (kept.exists() and target.exists()):
            figures = hamnet(*arguments)
            kept.parent.mkdir(exist_ok=True)
            kept.write_text(json.dumps(figures))
        return dict(json.loads(kept.read_text()))

    def train(self, name: str, store: Path, split: dict[str, list[str]]) -> dict[str, Any]:
        """Train on a store; a run that was cut off goes on."""
        run = self.out / name
        (self.out / f"{name}_split.json").write_text(json.dumps(split))
        resume = ["--resume"] if (run / "last.ckpt").exists() else []
        return self.once(
            name, run / "model.ckpt", "train", CONFIG, f"data.store={store}",
            f"data.split={self.out / name}_split.json", f"training.output={run}",
            f"training.max_minutes={self.minutes}", "training.clock=process", "training.threads=1",
            "training.validate_every=5", "training.epochs=5000", "training.progress=false", *resume,
        )  # fmt: skip


def model(bench: Bench) -> dict[str, Any]:
    """Train on shifted bilayers and single layers; errors on the bilayers held out."""
    from hamnet.data.store import Store

    store = bench.out / "data.h5"
    sets = [bench.data / "bilayer/train2x2", bench.data / "graphene/train3x3"]
    bench.once("data", store, "preprocess", "openmx", *sets, "-o", store, "--pao", bench.pao)
    with Store(store) as opened:
        names = opened.names
        double = [name for name, count in zip(names, opened.n_atoms, strict=True) if count == 16]
    single = [name for name in names if name not in double]
    test, validation = double[7::8], double[3::8][:3] + single[5::25]
    used = set(test) | set(validation)
    split = {"train": [n for n in names if n not in used], "validation": validation, "test": test}
    trained = bench.train("run", store, split)
    found = hamnet(
        "evaluate", bench.model, store, "--split", bench.out / "run_split.json", "-o", bench.out / "evaluation"
    )
    return {
        "minutes": bench.minutes,
        "train": trained["cost"],
        **found,
        "layers": layer_errors(bench.model, store, test),
    }


def layer_errors(checkpoint: Path, store: Path, names: list[str]) -> dict[str, float]:
    """Mean and largest errors of H in meV within one layer and between layers, one mu S taken out of each cell."""
    from hamnet.data.store import Store
    from hamnet.predict.predictor import Predictor

    predictor, errors = Predictor.load(checkpoint), {"within": [], "between": []}
    with Store(store) as opened:
        for name in names:
            true = opened.read(name)
            heights = true.structure.positions[:, 2]
            layer = heights > heights.mean()
            guess, h, s = predictor.predict(true.structure), true.hamiltonian, true.overlap
            off = guess.values - h.values
            off -= s.values * (off @ s.values) / (s.values @ s.values)
            other = np.repeat(layer[h.pairs.i] != layer[h.pairs.j], np.diff(h.offsets))
            errors["between"].append(np.column_stack((off, h.values))[other])
            errors["within"].append(np.column_stack((off, h.values))[~other])
    rows = {}
    for name, parts in errors.items():
        off, size = 1000 * np.abs(np.concatenate(parts)).T
        rows |= {f"{name}_mae_meV": off.mean(), f"{name}_max_meV": off.max(), f"{name}_mean_H_meV": size.mean()}
    return {key: round(float(value), 3) for key, value in rows.items()}


def stackings(bench: Bench) -> dict[str, Any]:
    """Velocity of one layer, couplings of AA and AB at K, and the magic angle that they stand for."""
    from hamnet.predict.predictor import Predictor
    from hamnet_preprocess.openmx import OpenMXReader
    from hamnet_preprocess.twist import stacked_bilayer

    predictor = Predictor.load(bench.model)
    sheet = graphene(a=LATTICE, vacuum=8.0)
    dft = OpenMXReader().read(bench.data / "graphene/prim")
    velocity = {"predicted": velocity_of(predictor.calculation(sheet)), "OpenMX": velocity_of(dft)}
    near = {}
    for name, shift in (("AA", (0.0, 0.0)), ("AB", (1 / 3, 2 / 3))):
        near[name] = at_k(predictor.calculation(stacked_bilayer(sheet, shift, DISTANCE)), 4)
    # couplings of the continuum model: at K, AA splits into pairs 6 w apart, AB into levels at 0, 0 and +-3 w
    w_aa = (near["AA"][2:].mean() - near["AA"][:2].mean()) / 6
    w_ab = (near["AB"][3] - near["AB"][0]) / 6
    k_dirac, hbar_v = 4 * np.pi / (3 * LATTICE), velocity["predicted"]
    magic = np.degrees(2 * np.arcsin((w_aa + w_ab) / 2 / (MAGIC * hbar_v * 2 * k_dirac)))
    return {
        "hbar_v_eV_A": velocity, "w_AA_meV": 1000 * w_aa, "w_AB_meV": 1000 * w_ab, "gamma1_meV": 3000 * w_ab,
        "AA_at_K_eV": near["AA"].tolist(), "AB_at_K_eV": near["AB"].tolist(), "first_magic_angle_degrees": magic,
    }  # fmt: skip


def levels(calculation: Any, kpoint: np.ndarray) -> np.ndarray:
    """All energies at one k-point, eV."""
    from scipy.linalg import eigh

    from hamnet.core.bloch import BlochSum

    return eigh(*(BlochSum(m).dense(kpoint) for m in (calculation.hamiltonian, calculation.overlap)), eigvals_only=True)


def corner(calculation: Any) -> np.ndarray:
    """K of a hexagonal cell, fractional, whatever the angle between its vectors."""
    cell = calculation.structure.cell
    return np.array([1 / 3, 1 / 3, 0.0] if cell[0] @ cell[1] < 0 else [2 / 3, 1 / 3, 0.0])


def at_k(calculation: Any, count: int) -> np.ndarray:
    """The middle states at K, half of them occupied in neutral carbon."""
    middle = 2 * calculation.structure.n_atoms
    return levels(calculation, corner(calculation))[middle - count // 2 : middle + count // 2]


def velocity_of(calculation: Any, step: float = 0.01) -> float:
    """Slope of the cone at K in eV A: half the splitting over the way, at `step` 1/A from K towards Gamma."""
    k, middle = corner(calculation), 2 * calculation.structure.n_atoms
    length = np.linalg.norm(2 * np.pi * np.linalg.inv(calculation.structure.cell).T.T @ k)
    found = levels(calculation, k * (1 - step / length))
    return float(found[middle] - found[middle - 1]) / (2 * step)


def twisted(m: int) -> Callable[[Bench], dict[str, Any]]:
    """Row of the cell (m, m + 1)."""

    def row(bench: Bench) -> dict[str, Any]:
        """Structure, H and S, Fermi level and bands, each with its cost."""
        place = bench.out / f"m{m}"
        place.mkdir(exist_ok=True)
        sheet, atoms, predicted = bench.out / "graphene.extxyz", place / "twisted.extxyz", place / "predicted.h5"
        write(sheet, graphene(a=LATTICE, vacuum=8.0))
        cell = bench.once(f"m{m}_twist", atoms, "twist", sheet, "--m", m, "--distance", DISTANCE, "-o", atoms)
        found = {"atoms": cell["atoms"], "degrees": cell["angle"], "twist": cell["cost"]}
        verb = ("predict", bench.model, atoms, "-o", predicted, *(("--memory", "4GB") if m > 2 else ()))
        found["predict"] = bench.once(f"m{m}_predict", predicted, *verb)["cost"]
        store = place / "overlap.h5"
        found["overlap"] = bench.once(
            f"m{m}_overlap", store, "overlap", atoms, "--basis-from", bench.model, "-o", store
        )["cost"]
        if m < LARGE:
            found |= small_bands(bench, m, predicted, place / "bands")
        else:
            found |= large_bands(bench, m, predicted, place)
        return found

    return row


def small_bands(bench: Bench, m: int, predicted: Path, folder: Path) -> dict[str, Any]:
    """Fermi level and 40 certified bands, as commands."""
    level = bench.once(f"m{m}_fermi", predicted, "fermi", predicted, "--mesh", "6,6,1")
    done = bench.once(
        f"m{m}_bands", folder / "bands.h5", "bands", predicted, "--bands", 40, "--around", level["fermi_eV"],
        "--path", "G,M,K,G", "--points", POINTS[m], "--emin", -2, "--emax", 2, "-o", folder,
    )  # fmt: skip
    return {"fermi_eV": level["fermi_eV"], "fermi": level["cost"], "bands": {**done["cost"], "kpoints": POINTS[m]}}


def large_bands(bench: Bench, m: int, predicted: Path, folder: Path) -> dict[str, Any]:
    """States about the Fermi level of the 76-atom cell; k-points are kept, so that a run that was cut off goes on."""
    from hamnet.bands.kpath import band_path
    from hamnet.bands.kpoint_runs import fingerprint, run_kpoints
    from hamnet.bands.solvers import SparseEigensolver
    from hamnet.data.store import Store

    centre = json.loads((bench.out / "steps" / "m2_fermi.json").read_text())["fermi_eV"]
    calculation = Store(predicted).read(0)
    solver = SparseEigensolver(calculation)
    path = band_path(calculation.structure, "K,G,M", POINTS[m])
    near = [] if m > 20 else [path.kpoints[0] * (1 - NEAR)]
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
    found = run_kpoints(task, len(kpoints), folder / "kpoints", key, bench.jobs, print_progress)
    results = [found[order.index(n)] for n in range(len(kpoints))]
    below = [int(r["below"]) for r in results]
    every = joined([r["energies"] for r in results], below, centre, 2 * calculation.structure.n_atoms)
    bands = every[len(near) :]
    np.savez(folder / "bands.npz", bands=bands, distances=path.distances, kpoints=path.kpoints, centre=centre)
    draw(folder / "bands.png", bands, path, calculation.structure.n_atoms)
    cost = np.array([r["cost"] for r in results])
    return {
        "kpoints": len(results), "states": STATES, "jobs": bench.jobs, "rows": solver.n_rows,
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


def folding(bench: Bench) -> dict[str, Any]:
    """Largest difference between energies of the doubled 28-atom cell and the folded ones, of the trained model."""
    from hamnet.predict.predictor import Predictor
    from hamnet_preprocess.twist import Twist, twisted_bilayer

    atoms = twisted_bilayer(graphene(a=LATTICE), Twist(1), DISTANCE)
    one, two = (Predictor.load(bench.model).calculation(cell) for cell in (atoms, atoms * (2, 1, 1)))
    folded = np.sort(np.concatenate([levels(one, np.array([x, 0.3, 0.0])) for x in (0.1, 0.6)]))
    off = np.abs(levels(two, np.array([0.2, 0.3, 0.0])) - folded)
    middle = slice(2 * len(atoms) * 2 - 40, 2 * len(atoms) * 2 + 40)
    return {"atoms": [28, 56], "max_difference_eV": off.max(), "max_difference_of_middle_80_eV": off[middle].max()}


def dft(bench: Bench) -> dict[str, Any]:
    """CP2K as the teacher: shifted bilayers to train on, its own bands of the 28-atom cell to compare with."""
    from hamnet.data.store import Store
    from hamnet_preprocess.perturb import PerturbSettings, perturb, write_structures
    from hamnet_preprocess.twist import Twist, stacked_bilayer, twisted_bilayer

    place, sheet, rng = bench.out / "cp2k", graphene(a=LATTICE, vacuum=5.0), np.random.default_rng(0)
    train, twist = place / "train.extxyz", place / "twist28.extxyz"
    cells = []
    for k in range(CELLS):
        bilayer = stacked_bilayer(sheet, tuple(rng.random(2)), rng.uniform(3.2, 3.6) if k else DISTANCE, vacuum=10.0)
        shape = PerturbSettings((0.02, 0.05)[k % 2], 0.02, (2, 2, 1), seed=k)
        cells += perturb(bilayer, 1, shape)
    if not train.exists():
        write_structures(train, cells)
        write_structures(twist, [twisted_bilayer(sheet, Twist(1), DISTANCE, vacuum=10.0)])
    path = "G 0 0 0, M 1/2 0 0, K 1/3 1/3 0, G 0 0 0"
    labelled = {
        "twist28": bench.once("cp2k_twist28", place / "dft28/twist28/label.json", "label", "cp2k", twist, *CP2K,
                              "--kmesh", 2, 2, 1, "--bands", path, "-o", place / "dft28"),
        "train": bench.once("cp2k_train", place / "train", "label", "cp2k", train, *CP2K, "--kmesh", 3, 3, 1,
                            "-o", place / "train", "--jobs", bench.jobs),
    }  # fmt: skip
    store, large = place / "train.h5", place / "twist28.h5"
    bench.once("cp2k_data", store, "preprocess", "cp2k", place / "train", "-o", store)
    bench.once("cp2k_data28", large, "preprocess", "cp2k", place / "dft28", "-o", large)
    with Store(store) as opened:
        names = opened.names
    bench.train("run_cp2k", store, {"train": names[:-2], "validation": names[-2:], "test": []})
    checkpoint, predicted = bench.out / "run_cp2k" / "model.ckpt", place / "predicted28.h5"
    bench.once("cp2k_predict", predicted, "predict", checkpoint, twist, "-o", predicted)
    compared = hamnet(
        "bands", predicted, "--compare", place / "dft28/twist28/cp2k.bs", "--window", 2, "-o", place / "bands28"
    )
    errors = {"validation": hamnet("evaluate", checkpoint, store, "--split", bench.out / "run_cp2k_split.json",
                                   "--part", "validation", "-o", place / "e_validation"),
              "twist28": hamnet("evaluate", checkpoint, large, "-o", place / "e_28")}  # fmt: skip
    rotated = {
        "twist28": layer_errors(checkpoint, large, ["twist28"]),
        "cells": layer_errors(checkpoint, store, names[-2:]),
    }
    return {"labels": labelled, "errors": errors, "layers": rotated, "bands_within_2_eV": compared}


ROWS: dict[str, Callable[[Bench], dict[str, Any]]] = {
    "model": model, "stackings": stackings, "m1": twisted(1), "m2": twisted(2), "folding": folding,
    "dft": dft, "m6": twisted(6), "m10": twisted(10), "m14": twisted(14), "m20": twisted(20), "m31": twisted(31),
}  # fmt: skip


def main() -> None:
    """Run the rows asked for, all by default."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("pao", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--rows", nargs="*", default=list(ROWS), choices=list(ROWS))
    parser.add_argument("--minutes", type=float, default=14)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="one JSON line a row, as in OUT/twisted.jsonl")
    options = parser.parse_args()
    bench = Bench(options)
    for name in options.rows:
        row = {"row": name, "date": datetime.date.today().isoformat(), **ROWS[name](bench)}
        line = json.dumps(row)
        with (bench.out / "twisted.jsonl").open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        print(line if options.json else json.dumps(row, indent=1), flush=True)


if __name__ == "__main__":
    main()
