"""Spin-orbit coupling on bismuthene: errors of A_0 and A_a apart, bands, Kramers pairs, cost against spinless.

    python benchmarks/spin.py FOLDER -o OUT [--minutes 5]

FOLDER holds OpenMX folders train2x2 (15 cells: 12 to train, 3 to test) and prim with its .Band. Minutes are processor
time of one thread; a training that is there is not run again. One JSON row for each figure.
"""

import argparse
import json
import subprocess
import sys
import time
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch

import hamnet
from hamnet.bands import path_from_points
from hamnet.bands.eigen import DenseSolver
from hamnet.bands.study import StudySettings, study_bands
from hamnet.config import NetworkConfig
from hamnet.core.bloch import BlochSum
from hamnet.core.blocks import BlockMatrix
from hamnet.core.calculation import Calculation
from hamnet.core.spin import Spin
from hamnet.data.store import Store
from hamnet.nn.dataset import overlap_like
from hamnet.nn.graph import build_graph, collate
from hamnet.nn.model import HamiltonianModel
from hamnet.nn.prior import matrix_channels
from hamnet.nn.statistics import fit_statistics
from hamnet.train.metrics import fitted_shift
from hamnet_preprocess.openmx import OpenMXReader
from hamnet_preprocess.openmx_band import read_band

MOMENTA = [np.array(n) / 2 for n in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (1, 1, 0))]
NETWORK = NetworkConfig(layers=1, channels=32, lmax=4, message_cutoff=6.5)
MILLI = 1000.0


def verb(*arguments: object) -> None:
    """Run one verb of hamnet."""
    command = [sys.executable, "-c", "from hamnet.cli import main; main()", *map(str, arguments)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def component_errors(predictor: Any, calculations: list[Calculation]) -> dict[str, float]:
    """Mean |dH| in meV of the real channels: A_0 (mu S taken out) and A_a apart, with their mean sizes."""
    errors, sizes = [], []
    for calculation in calculations:
        predicted = predictor.calculation(calculation.structure, calculation.overlap).hamiltonian
        true = calculation.hamiltonian
        predicted = predicted.on_pairs(true.pairs)
        layout = overlap_like(calculation.overlap, true)
        difference = true.with_values(predicted.values - true.values)
        shift = fitted_shift(difference, layout)
        channels = matrix_channels(difference.with_values(difference.values - shift * layout.values))
        errors.append(np.abs(channels))
        sizes.append(np.abs(matrix_channels(true)))
    error, size = MILLI * np.concatenate(errors), MILLI * np.concatenate(sizes)
    return {
        "A0_mae_meV": float(error[:, 0].mean()),
        "A0_mean_size_meV": float(size[:, 0].mean()),
        "Aa_mae_meV": float(error[:, 1:].mean()),
        "Aa_mean_size_meV": float(size[:, 1:].mean()),
    }


def kramers(calculation: Calculation) -> float:
    """Largest splitting (eV) of pairs at the time-reversal points of the plane."""
    sums = BlochSum(calculation.hamiltonian), BlochSum(calculation.overlap)
    largest = 0.0
    for k in MOMENTA:
        energies = DenseSolver().solve(*sums, k, False).energies[0]
        largest = max(largest, float(np.abs(energies[0::2] - energies[1::2]).max()))
    return largest


def band_figures(predicted: Calculation, truth: Calculation, band: Path, output: Path) -> dict[str, Any]:
    """Bands against the printed ones within 2 eV of E_F, and what spin-orbit coupling does at the band edge."""
    reference = read_band(band)
    study = study_bands(predicted, output, reference, StudySettings(window=(-2, 2)))
    path = path_from_points(reference.kpoints, truth.structure, reference.labels)
    own = study_bands(truth, output / "from_H", None, StudySettings("auto", 60))
    mine = study_bands(predicted, output / "predicted", None, StudySettings("auto", 60))
    return {
        "kpoints": len(path.kpoints),
        "max_aligned_meV": MILLI * (study.comparison.max_difference_aligned or 0.0),
        "mean_aligned_meV": MILLI * (study.comparison.mean_difference_aligned or 0.0),
        "gap_eV": mine.bands.gap,
        "gap_dft_eV": own.bands.gap,
    }


def spinless(calculation: Calculation) -> Calculation:
    """The same calculation with A_0 alone."""
    h = calculation.hamiltonian
    values = np.ascontiguousarray(matrix_channels(h)[:, 0])
    return replace(calculation, hamiltonian=BlockMatrix.from_values(h.pairs, h.basis, h.species, Spin.NONE, values))


def step_row(calculations: list[Calculation], magnetic: bool) -> dict[str, float]:
    """CPU seconds of one training step on one cell (least of 5), and the peak memory of this process."""
    import resource

    first = calculations[0]
    statistics = fit_statistics(calculations, first.basis, first.spin, NETWORK, magnetic)
    model = HamiltonianModel(NETWORK, first.basis, first.spin, statistics)
    graph = build_graph(first.structure, first.hamiltonian.pairs, first.basis, statistics.message_cutoff)
    batch = collate([graph])
    optimizer = torch.optim.AdamW(model.parameters())
    times = []
    for _ in range(6):
        start = time.process_time()
        optimizer.zero_grad()
        model(batch).square().mean().backward()
        optimizer.step()
        times.append(time.process_time() - start)
    return {
        "step_cpu_s": min(times[1:]),
        "peak_memory_MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "weights": sum(w.numel() for w in model.parameters()),
        "channels": model.n_channels,
    }


def step_calculations(store: Path, kind: str) -> tuple[list[Calculation], bool]:
    """The first two cells: A_0 alone, as they are, or with moments of one Bohr magneton."""
    with Store(store) as opened:
        read = [opened.read(name) for name in opened.names[:2]]
    if kind == "spinless":
        return [spinless(c) for c in read], False
    if kind == "spinor":
        return read, False
    moments = np.tile([0.0, 0.6, 0.8], (read[0].structure.n_atoms, 1))
    return [replace(c, structure=replace(c.structure, moments=moments)) for c in read], True


def step_rows(store: Path) -> dict[str, Any]:
    """Spinless, spinor and magnetic spinor, each in a process of its own so that memory is told apart."""
    rows: dict[str, Any] = {}
    for kind in ("spinless", "spinor", "spinor_magnetic"):
        done = subprocess.run([sys.executable, __file__, "--step", kind, str(store)], check=True, capture_output=True)
        rows[kind] = json.loads(done.stdout)
    for kind in ("spinor", "spinor_magnetic"):
        for name in ("step_cpu_s", "peak_memory_MB"):
            rows[kind][f"{name}_ratio"] = rows[kind][name] / rows["spinless"][name]
    return rows


def main() -> None:
    """Run what is missing and print one row for each figure."""
    if sys.argv[1:2] == ["--step"]:
        torch.set_num_threads(1)
        print(json.dumps(step_row(*step_calculations(Path(sys.argv[3]), sys.argv[2]))))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=5)
    options = parser.parse_args()
    out: Path = options.output
    out.mkdir(parents=True, exist_ok=True)
    store, run = out / "train.h5", out / "run"
    if not store.exists():
        verb("preprocess", "openmx", options.folder / "train2x2", "-o", store)
    if not (run / "model.ckpt").exists():
        verb(
            "train", store, f"training.output={run}", "data.train_fraction=0.8", "data.validation_fraction=0",
            "data.test_fraction=0.2", f"training.max_minutes={options.minutes}", "training.clock=process",
            "training.threads=1", "training.progress=false",
        )  # fmt: skip
    torch.set_num_threads(1)
    predictor = hamnet.load(run / "model.ckpt")
    names = json.loads((run / "split.json").read_text())["test"]
    with Store(store) as opened:
        tests = [opened.read(name) for name in names]
    prim = options.folder / "prim"
    truth = OpenMXReader().read(prim)
    predicted = replace(
        predictor.calculation(truth.structure, truth.overlap), kmesh=truth.kmesh, n_electrons=truth.n_electrons
    )
    rows = {
        "test": {"cells": len(tests), **component_errors(predictor, tests)},
        "prim": component_errors(predictor, [truth]),
        "bands_prim": band_figures(predicted, truth, next(prim.glob("*.Band")), out / "bands"),
        "kramers_eV": {"predicted": kramers(predicted), "openmx": kramers(truth)},
        "step": step_rows(store),
        "machine": {"date": date.today().isoformat(), "minutes": options.minutes, "threads": 1},
    }
    (out / "spin.json").write_text(json.dumps(rows, indent=1))
    for name, row in rows.items():
        print(json.dumps({name: row}))


if __name__ == "__main__":
    main()
