"""Twisted bilayer graphene from a model of small cells: python benchmarks/twisted.py DATA PAO -o OUT [--rows NAME ...].

DATA: unpacked OpenMX output with bilayer/train2x2, graphene/train3x3 and graphene/prim; PAO: OpenMX's folder of .pao
files. Rows: `model` trains on processor time of one thread and scores held-out bilayers, within and between layers;
`stackings` compares AA, AB and one layer with continuum models; `m1`, `m2`, `m6`, `m10`, `m14`, `m20`, `m31` build,
predict and draw twisted cells of 28 to 11,908 atoms; `folding` doubles the smallest; `dft` labels shifted bilayers and
the 28-atom cell with CP2K, trains, and compares bands. Each is a command that a user would type. A step whose output is
there is not run again; OUT/twisted.jsonl gets one dated line for each row that was run.
"""

import argparse
import datetime
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from ase.build import graphene
from ase.io import write
from twisted_bands import large_bands

LATTICE = 2.46
DISTANCE = 3.35
CONFIG = Path(__file__).parents[1] / "configs" / "crystal.yaml"
POINTS = {1: 60, 2: 60, 6: 16, 10: 7, 14: 5, 20: 7, 31: 6}
"""k-points along G, M, K, G for the small cells, along K, G, M for the others."""
LARGE = 6
"""From this m on states are not certified at each k-point; counts at Gamma and M number the bands."""
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
            h = true.hamiltonian
            guess = predictor.predict(true.structure)
            # one species: blocks are of one size, and pairs that DFT cut off are left out
            off = guess.values.reshape(guess.pairs.n_pairs, -1)[guess.pairs.find(h.pairs)].ravel() - h.values
            s = true.overlap.on_pairs(h.pairs).values
            off -= s * (off @ s) / (s @ s)
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
            centre = json.loads((bench.out / "steps" / "m2_fermi.json").read_text())["fermi_eV"]
            found |= large_bands(centre, POINTS[m], bench.jobs, predicted, place)
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
