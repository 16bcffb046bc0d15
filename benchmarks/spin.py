"""Spin-orbit coupling on bismuthene: errors of A_0 and A_a apart, bands, Kramers pairs.

    python benchmarks/spin.py FOLDER -o OUT [--minutes 5] [--set training.weight_decay=1e-3]

FOLDER holds OpenMX folders train2x2 (15 cells: 12 to train, 3 to test) and prim with its .Band. Minutes are processor
time of one thread; a training that is there is not run again. One JSON row for each figure.
"""

import argparse
import json
import subprocess
import sys
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch

import hamnet
from hamnet.bands.eigen import DenseSolver
from hamnet.bands.study import StudySettings, study_bands
from hamnet.config import NetworkConfig
from hamnet.core.bloch import BlochSum
from hamnet.core.blocks import BlockMatrix
from hamnet.core.calculation import Calculation
from hamnet.core.spin import Spin
from hamnet.data.store import Store
from hamnet.nn.dataset import overlap_like
from hamnet.nn.prior import matrix_channels
from hamnet.train.metrics import fitted_shift
from hamnet_preprocess.openmx import OpenMXReader
from hamnet_preprocess.openmx_band import read_band

MOMENTA = [np.array(n) / 2 for n in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (1, 1, 0))]
NETWORK = NetworkConfig(layers=1, channels=32, lmax=4, message_cutoff=6.5)
HIGH_SYMMETRY = {"G": np.zeros(3), "M": np.array([0.5, 0, 0]), "K": np.array([2 / 3, 1 / 3, 0])}
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
    """Bands against the printed ones within 2 eV of E_F: as they stand, Fermi levels aligned, one constant removed."""
    reference = read_band(band)
    study = study_bands(predicted, output, reference, StudySettings(window=(-2, 2)))
    found = study.comparison
    return {
        "kpoints": len(reference.kpoints),
        "as_they_stand_max_meV": MILLI * found.max_difference,
        "aligned_mean_meV": MILLI * (found.mean_difference_aligned or 0.0),
        "aligned_max_meV": MILLI * (found.max_difference_aligned or 0.0),
        "best_shift_meV": MILLI * found.shift,
        "shifted_mean_meV": MILLI * found.mean_difference_shifted,
        "shifted_max_meV": MILLI * found.max_difference_shifted,
        "predicted": band_edges(study.bands.energies[0], reference.kpoints, truth.n_electrons),
        "dft": band_edges(reference.energies[0], reference.kpoints, truth.n_electrons),
    }


def band_edges(energies: np.ndarray, kpoints: np.ndarray, n_electrons: float) -> dict[str, float]:
    """Edges, gaps and splittings in eV of (n_k, n_bands) spinor bands on the printed path.

    The valence edge lies off Gamma where coupling has inverted the bands. Splittings are between the pairs below and
    above: 6p levels that are one without coupling.
    """
    n = round(n_electrons)
    at = {name: int(np.abs(kpoints - k).sum(axis=1).argmin()) for name, k in HIGH_SYMMETRY.items()}
    top, bottom = int(energies[:, n - 1].argmax()), int(energies[:, n].argmin())
    figures = {
        "vbm_eV": float(energies[top, n - 1]),
        "cbm_eV": float(energies[bottom, n]),
        "gap_eV": float(energies[bottom, n] - energies[top, n - 1]),
    }
    for name, k in at.items():
        figures[f"gap_{name}_eV"] = float(energies[k, n] - energies[k, n - 1])
        figures[f"valence_splitting_{name}_eV"] = float(energies[k, n - 1] - energies[k, n - 3])
        figures[f"conduction_splitting_{name}_eV"] = float(energies[k, n + 2] - energies[k, n])
    return figures


def spinless(calculation: Calculation) -> Calculation:
    """The same calculation with A_0 alone."""
    h = calculation.hamiltonian
    values = np.ascontiguousarray(matrix_channels(h)[:, 0])
    matrix = BlockMatrix.from_values(h.pairs, h.basis, h.species, Spin.NONE, values)
    return replace(calculation, hamiltonian=matrix, kpoints=None, eigenvalues=None)


def main() -> None:
    """Run what is missing and print one row for each figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--set", nargs="*", default=[], help="more of hamnet train, as training.weight_decay=1e-3")
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
            "training.threads=1", "training.progress=false", *options.set,
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
        "machine": {"date": date.today().isoformat(), "minutes": options.minutes, "threads": 1},
    }
    (out / "spin.json").write_text(json.dumps(rows, indent=1))
    for name, row in rows.items():
        print(json.dumps({name: row}))


if __name__ == "__main__":
    main()
