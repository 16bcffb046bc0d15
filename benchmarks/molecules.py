"""Accuracy on a molecule at 500 K: H, levels, energy, forces and SCF cycles of a model, from labels to one dated row.

    python benchmarks/trajectory.py H2O -n 1200 -o water.extxyz
    hamnet label pyscf water.extxyz --reference minao --conv-tol 1e-11 -o labels
    python benchmarks/molecules.py labels -o OUT [--train 500] [--validation 500] [--minutes 40] [--json]

The first frames train, the next validate, the rest test (the trajectory's file is in random order). The target is
F - F0, F0 from the minao guess. One thread; minutes are processor time. A step whose output is there is not run again.
"""

import argparse
import datetime
import json
import platform
from pathlib import Path

from water import CONFIG, hamnet

from hamnet.core.units import HARTREE
from hamnet.data.store import Store


def make_store(labels: Path, out: Path, train: int, validation: int) -> None:
    """Store and split from a folder of labels."""
    hamnet("preprocess", "pyscf", labels, "-o", out / "data.h5")
    names = sorted(Store(out / "data.h5").names)
    parts = {
        "train": names[:train],
        "validation": names[train : train + validation],
        "test": names[train + validation :],
    }
    (out / "split.json").write_text(json.dumps(parts))


def main() -> None:
    """Train, evaluate, print one row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("labels", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--train", type=int, default=500)
    parser.add_argument("--validation", type=int, default=500)
    parser.add_argument("--minutes", type=float, default=40)
    parser.add_argument("--scf", type=int, default=20, help="test molecules that are taken to self-consistency")
    parser.add_argument("--set", action="append", default=[], help="more settings, as network.channels=64")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    out: Path = options.output
    out.mkdir(parents=True, exist_ok=True)
    if not (out / "split.json").exists():
        make_store(options.labels, out, options.train, options.validation)
    run = out / "_".join((f"run_{options.minutes:g}", *(s.replace("=", "_") for s in options.set)))
    if not (run / "model.ckpt").exists():
        hamnet(
            "train", CONFIG, f"data.store={out / 'data.h5'}", f"data.split={out / 'split.json'}",
            f"training.output={run}", f"training.max_minutes={options.minutes}", "training.threads=1",
            "training.clock=process", "network.baseline=reference", *options.set,
        )  # fmt: skip
    row = hamnet(
        "evaluate", run / "model.ckpt", out / "data.h5", "--split", out / "split.json", "-o", run / "test",
        "--scf", options.scf,
    )  # fmt: skip
    figures = {
        "date": datetime.date.today().isoformat(),
        "machine": platform.platform(),
        "minutes": options.minutes,
        "settings": options.set,
        "hamiltonian_mae_uEh": 1e3 * float(str(row["hamiltonian_mae_meV_raw"])) / HARTREE,
        "occupied_mae_uEh": 1e3 * float(str(row["occupied_mae_meV"])) / HARTREE,
        **row,
    }
    print(json.dumps(figures) if options.json else figures)


if __name__ == "__main__":
    main()
