"""Three training sets from nothing with CP2K: h-BN (two elements, 2D), silicon (3D semiconductor), aluminium (metal).

    python benchmarks/crystals.py [NAME ...] [-o /tmp/w/crystals] [--basis BASIS] [--n 24] [--jobs 1] [--json]

For each crystal: its CIF; `hamnet perturb` to rattled and strained cells; `hamnet label cp2k`; `hamnet preprocess
cp2k`. Beside the training cells `large`, two larger cells to test on, and `prim`, the perfect primitive cell with
CP2K's own bands. Run again, it goes on where it was cut off. Costs are in docs/benchmarks.md.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ase
from ase.build import bulk
from ase.io import write


@dataclass(frozen=True)
class Crystal:
    """Cells and settings of one set: repeats of `cell` and k-meshes for training, larger and primitive cells."""

    cell: ase.Atoms
    primitive: ase.Atoms
    supercells: dict[str, str]
    meshes: dict[str, str]
    options: tuple[str, ...]


def _hbn() -> ase.Atoms:
    a, c = 2.504, 12.0
    cell = [[a, 0, 0], [-a / 2, a * 3**0.5 / 2, 0], [0, 0, c]]
    return ase.Atoms("BN", scaled_positions=[[1 / 3, 2 / 3, 0.5], [2 / 3, 1 / 3, 0.5]], cell=cell, pbc=True)


CRYSTALS = {
    "hbn": Crystal(
        _hbn(), _hbn(), {"train": "2 2 1", "large": "3 3 1"}, {"train": "2 2 1", "large": "2 2 1", "prim": "6 6 1"},
        ("--cutoff", "400", "--rel-cutoff", "40"),
    ),
    "si": Crystal(
        bulk("Si", cubic=True, a=5.43), bulk("Si", a=5.43), {"train": "1 1 1", "large": "2 1 1"},
        {"train": "2 2 2", "large": "1 2 2", "prim": "4 4 4"},
        ("--cutoff", "120", "--rel-cutoff", "40"),
    ),
    "al": Crystal(
        bulk("Al", cubic=True, a=4.05), bulk("Al", a=4.05), {"train": "1 1 1", "large": "2 1 1"},
        {"train": "4 4 4", "large": "2 4 4", "prim": "7 7 7"},
        ("--cutoff", "120", "--rel-cutoff", "40", "--smearing", "1000"),
    ),
}  # fmt: skip


def hamnet(*arguments: object) -> dict[str, Any]:
    """Run one verb with --json and return its figures; labels that failed are told and left out."""
    command = [sys.executable, "-c", "from hamnet.cli import main; main()", *map(str, arguments), "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if not done.stdout:
        raise SystemExit(done.returncode)
    return dict(json.loads(done.stdout))


def label(part: str, crystal: Crystal, out: Path, basis: str, jobs: int) -> dict[str, Any]:
    """Label one part and record its wall and CPU seconds where something was run."""
    bands = ("--bands", "auto") if part == "prim" else ()
    started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = hamnet(
        "label", "cp2k", out / f"{part}.extxyz", "-o", out / part, "--basis", basis,
        "--kmesh", *crystal.meshes[part].split(), *crystal.options, *bands, "--jobs", jobs,
    )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cost = {
        "wall_s": time.perf_counter() - started,
        "cpu_s": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
    }
    if done["written"]:
        with (out / "cost.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"part": part, **cost, **done}) + "\n")
    return done


def make(name: str, out: Path, basis: str, n: int, jobs: int) -> dict[str, Any]:
    """One crystal: structures, labels, stores."""
    crystal, rows = CRYSTALS[name], {}
    out.mkdir(parents=True, exist_ok=True)
    write(out / f"{name}.cif", crystal.cell)
    write(out / "prim.extxyz", crystal.primitive)
    for seed, (part, repeats) in enumerate(crystal.supercells.items()):
        structures = out / f"{part}.extxyz"
        if not structures.exists():
            count = n if part == "train" else 2
            hamnet(
                "perturb", out / f"{name}.cif", "--n", count, "--supercell", *repeats.split(), "--rattle", "0.05",
                "--strain", "0.02", "--seed", seed, "-o", structures,
            )  # fmt: skip
    parts = ("prim", "train", "large")
    for part in parts:
        rows[part] = label(part, crystal, out, basis, jobs)
    for part in parts:
        rows[f"{part}.h5"] = hamnet("preprocess", "cp2k", out / part, "-o", out / f"{part}.h5")
    return rows


def main() -> None:
    """Make the sets asked for, all three by default."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(CRYSTALS), metavar="NAME", help=", ".join(CRYSTALS))
    parser.add_argument("-o", "--output", type=Path, default=Path("/tmp/w/crystals"))
    parser.add_argument("--basis", default="SZV-MOLOPT-SR-GTH")
    parser.add_argument("--n", type=int, default=24)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = {name: make(name, options.output / name, options.basis, options.n, options.jobs) for name in options.names}
    if options.json:
        print(json.dumps(rows))
        return
    for name, row in rows.items():
        for part, figures in row.items():
            print(f"{name} {part}: {figures}")


if __name__ == "__main__":
    main()
