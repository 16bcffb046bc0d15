"""Accuracy on the shared water set (PBE/def2-SVP, 300 / 50 / 150): H MAE in micro-Hartree against minutes of training.

    python benchmarks/water.py water_pbe_def2svp.npz -o OUT [--minutes 5] [--baseline reference] [--json]

The target is F less the baseline; reference: F0 of the minao guess. One thread; minutes are processor time.
A step whose output is there is not run
again; one dated JSON row.
"""

import argparse
import datetime
import json
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
from pyscf import gto

from hamnet.core.calculation import Calculation, Provenance
from hamnet.core.spin import Spin
from hamnet.core.units import HARTREE
from hamnet.data.store import write_store
from hamnet_preprocess.pyscf_basis import basis_of, molecule_calculation
from hamnet_preprocess.pyscf_reference import reference_blocks

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
    basis, species = basis_of(gto.M(atom=atoms, basis="def2-svp", verbose=0))
    provenance = Provenance("pyscf", functional="pbe,pbe", grid="level 4", source=source.name)

    def calculation(k: int) -> Calculation:
        """One geometry with F, F0 and S."""
        reference = reference_blocks(data["fock0_minao"][k], basis, species, Spin.NONE)
        return molecule_calculation(
            numbers, data["pos"][k], basis, data["fock"][k], data["overlap"][k],
            reference_hamiltonian=reference, n_electrons=10.0, provenance=provenance,
        )  # fmt: skip

    write_store(out / "water.h5", [(f"w{k:03d}", calculation(k)) for k in range(len(data["pos"]))])
    parts = {"train": "train", "validation": "val", "test": "test"}
    split = {part: [f"w{k:03d}" for k in data[key]] for part, key in parts.items()}
    (out / "split.json").write_text(json.dumps(split))


def main() -> None:
    """Train, evaluate, print one row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--baseline", choices=("none", "two_centre", "reference"), default="two_centre")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    out: Path = options.output
    out.mkdir(parents=True, exist_ok=True)
    if not (out / "water.h5").exists():
        make_store(options.source, out)
    run = out / f"run_{options.baseline}_{options.minutes:g}"
    if not (run / "model.ckpt").exists():
        hamnet(
            "train", CONFIG, f"data.store={out / 'water.h5'}", f"data.split={out / 'split.json'}",
            f"training.output={run}", f"training.max_minutes={options.minutes}", "training.threads=1",
            "training.clock=process",
            f"network.baseline={options.baseline}",
        )  # fmt: skip
    row = hamnet("evaluate", run / "model.ckpt", out / "water.h5", "--split", out / "split.json", "-o", run / "test")
    figures = {
        "date": datetime.date.today().isoformat(),
        "machine": platform.platform(),
        "baseline": options.baseline,
        "minutes": options.minutes,
        "hamiltonian_mae_uEh": 1e3 * float(str(row["hamiltonian_mae_meV_raw"])) / HARTREE,
        "occupied_mae_uEh": 1e3 * float(str(row["occupied_mae_meV"])) / HARTREE,
    }
    print(json.dumps(figures) if options.json else figures)


if __name__ == "__main__":
    main()
