"""Accuracy on rattled graphene: train on train3x3, test on 3x3, 4x4, 6x6 and on the bands of the primitive cell.

    python benchmarks/graphene.py FOLDER -o OUT [--minutes 30] [--json]

FOLDER holds OpenMX folders train3x3, test3x3, test4x4, test6x6 and prim. Each step is the command that a user
would type; a step whose output is there is not run again. Minutes are processor time of one thread.
"""

import argparse
import datetime
import json
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

CONFIG = Path(__file__).parents[1] / "configs" / "graphene.yaml"
TESTS = ("test3x3", "test4x4", "test6x6", "prim")


def hamnet(*arguments: object) -> dict[str, Any]:
    """Run one verb with --json and return its figures."""
    command = [sys.executable, "-c", "from hamnet.cli import main; main()", *map(str, arguments), "--json"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return dict(json.loads(done.stdout))


def structure_of(folder: Path, target: Path) -> None:
    """Write the structure of a DFT folder as extxyz, as a user would have it before any DFT."""
    import numpy as np
    from ase import Atoms
    from ase.io import write

    from hamnet_preprocess.openmx import OpenMXReader

    found = OpenMXReader().read(folder).structure
    write(target, Atoms(found.atomic_numbers, np.array(found.positions), cell=found.cell, pbc=True))


def main() -> None:
    """Run what is missing and print one row for each test."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    out: Path = options.output
    out.mkdir(parents=True, exist_ok=True)
    model = out / "run" / "model.ckpt"
    if not model.exists():
        hamnet("preprocess", "openmx", options.folder / "train3x3", "-o", out / "train.h5")
        hamnet(
            "train", CONFIG, f"data.store={out / 'train.h5'}", f"training.output={out / 'run'}",
            f"training.max_minutes={options.minutes}", "training.clock=process", "training.threads=1",
        )  # fmt: skip
    rows = {}
    for name in TESTS:
        data = out / f"{name}.h5"
        hamnet("preprocess", "openmx", options.folder / name, "-o", data)
        row = hamnet("evaluate", model, data, "-o", out / f"evaluate_{name}")
        structure_of(options.folder / name, out / f"{name}.extxyz")
        row["predict"] = hamnet("predict", model, out / f"{name}.extxyz", "-o", out / f"{name}_predicted.h5")
        rows[name] = row
    band_file = next((options.folder / "prim").glob("*.Band"))
    rows["bands_prim"] = hamnet(
        "bands", out / "prim_predicted.h5", "--compare", band_file, "--window", "2", "-o", out / "bands"
    )
    rows["machine"] = {"date": datetime.date.today().isoformat(), "platform": platform.platform()}
    (out / "graphene.json").write_text(json.dumps(rows, indent=1))
    if options.json:
        print(json.dumps(rows))
        return
    for name in TESTS:
        row = rows[name]
        print(f"{name}: H MAE {row['hamiltonian_mae_meV']:.3f} meV, bands {row['band_rmse_meV']:.1f} meV")
    print(f"prim bands within 2 eV of E_F: {1000 * rows['bands_prim']['max_difference_aligned_eV']:.1f} meV at most")


if __name__ == "__main__":
    main()
