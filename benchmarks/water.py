"""Accuracy on the shared water set (PBE/def2-SVP, 300 / 50 / 150): H MAE in micro-Hartree against minutes of training.

    python benchmarks/water.py water_pbe_def2svp.npz -o OUT [--minutes 5] [--json]

Target is F itself. One thread. A step whose output is there is not run again.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from pyscf import gto

from hamnet.core.units import HARTREE
from hamnet.data.store import write_store
from hamnet_preprocess.pyscf_basis import basis_of, molecule_calculation

CONFIG = Path(__file__).parents[1] / "configs" / "molecule.yaml"


def hamnet(*arguments: object) -> dict[str, object]:
    """Run one verb with --json and return its figures."""
    command = [sys.executable, "-c", "from hamnet.cli import main; main()", *map(str, arguments), "--json"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return dict(json.loads(done.stdout))


def make_store(source: Path, out: Path) -> None:
    """Store and split file from the arrays."""
    data = np.load(source)
    numbers = data["Z"]
    atoms = [(int(z), x) for z, x in zip(numbers, data["pos"][0], strict=True)]
    basis = basis_of(gto.M(atom=atoms, basis="def2-svp", verbose=0))
    items = [
        (f"w{k:03d}", molecule_calculation(numbers, data["pos"][k], basis, data["fock"][k], data["overlap"][k]))
        for k in range(len(data["pos"]))
    ]
    write_store(out / "water.h5", items)
    parts = {"train": "train", "validation": "val", "test": "test"}
    split = {part: [f"w{k:03d}" for k in data[key]] for part, key in parts.items()}
    (out / "split.json").write_text(json.dumps(split))


def main() -> None:
    """Train, evaluate, print one row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    out: Path = options.output
    out.mkdir(parents=True, exist_ok=True)
    if not (out / "water.h5").exists():
        make_store(options.source, out)
    if not (out / "run" / "model.ckpt").exists():
        hamnet(
            "train", CONFIG, f"data.store={out / 'water.h5'}", f"data.split={out / 'split.json'}",
            f"training.output={out / 'run'}", f"training.max_minutes={options.minutes}", "training.threads=1",
        )  # fmt: skip
    row = hamnet(
        "evaluate", out / "run" / "model.ckpt", out / "water.h5", "--split", out / "split.json", "-o", out / "test"
    )
    figures = {
        "minutes": options.minutes,
        "hamiltonian_mae_uEh": 1e3 * float(str(row["hamiltonian_mae_meV_raw"])) / HARTREE,
        "occupied_mae_uEh": 1e3 * float(str(row["occupied_mae_meV"])) / HARTREE,
    }
    print(json.dumps(figures) if options.json else figures)


if __name__ == "__main__":
    main()
