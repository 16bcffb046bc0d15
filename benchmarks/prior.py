"""What the prior leaves of H: mean |H - prior| on structures that it was fitted to and on others, in meV.

    python benchmarks/prior.py DATA -o OUT [--json]

DATA holds folders of OpenMX outputs (graphene/train3x3, graphene/test3x3, ..., silicon/prim, diamond/rattle222,
bilayer/train2x2). One dated JSON row for each case is appended to OUT/prior.jsonl; a case that has one is not
run again.
"""

import argparse
import datetime
import json
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np

from hamnet.core.calculation import Calculation
from hamnet.nn.dataset import to_basis
from hamnet.nn.prior import Baseline
from hamnet_preprocess.openmx import OpenMXReader

CASES: dict[str, tuple[list[str], list[str]]] = {
    "graphene": (
        ["graphene/train3x3"], ["graphene/test3x3", "graphene/test4x4", "graphene/test6x6", "graphene/prim"]
    ),
    "bilayer": (["bilayer/train2x2::24"], ["bilayer/train2x2:24:"]),
    "graphene + bilayer": (["graphene/train3x3", "bilayer/train2x2::24"], ["graphene/test6x6", "bilayer/train2x2:24:"]),
    "diamond": (["diamond/prim", "diamond/rattle222::1"], ["diamond/rattle222:1:"]),
    "silicon s1p1d1": (["silicon/rattle222"], ["silicon/rattle222"]),
    "silicon s2p2d1": (["silicon/prim"], ["silicon/prim"]),
    "bismuthene SOC": (["bismuthene_soc/train2x2::12"], ["bismuthene_soc/train2x2:12:"]),
}  # fmt: skip
"""Name -> what is fitted, what is tested; `folder:start:stop` takes a part of the calculations in a folder."""


def load(folder: Path, name: str) -> list[Calculation]:
    """Calculations of one folder, or a part of them."""
    path, *bounds = name.split(":")
    reader = OpenMXReader()
    found = [reader.read(source) for source in reader.find(folder / path)]
    limits = [int(bound) if bound else None for bound in bounds]
    return found[slice(*limits)] if limits else found


def mean_block(train: list[Calculation], tests: list[Calculation]) -> float:
    """Mean |H - mean block| (meV): a pair (i, j, R) gets its mean over the training cells that have it, else zero."""
    total, count = 0.0, 0
    for test in (test.hamiltonian for test in tests):
        sizes = np.diff(test.offsets)
        within = np.arange(len(test.values)) - np.repeat(test.offsets[:-1], sizes)
        values, seen = np.zeros(len(test.values)), np.zeros(len(test.values))
        for other in (calculation.hamiltonian for calculation in train):
            if not np.array_equal(other.species, test.species):
                return float("nan")
            at = other.pairs.find(test.pairs)
            there = np.repeat(at >= 0, sizes)
            values[there] += other.values[(np.repeat(other.offsets[at], sizes) + within)[there]].real
            seen[there] += 1
        total += float(np.abs(test.values - values / np.maximum(seen, 1)).sum())
        count += len(test.values)
    return 1e3 * total / count


def errors(baseline: Baseline, calculations: list[Calculation]) -> dict[str, Any]:
    """Mean absolute values in meV, on-site and off-site apart, and seconds of the prior for each structure."""
    sums = {True: np.zeros(2), False: np.zeros(2)}
    started = time.process_time()
    rest = [baseline.remainder(calculation).hamiltonian for calculation in calculations]
    seconds = (time.process_time() - started) / len(calculations)
    for matrix in rest:
        on_site = np.repeat(matrix.pairs.on_site, np.diff(matrix.offsets))
        for site in (True, False):
            part = np.abs(matrix.values[on_site == site])
            sums[site] += (part.sum(), part.size)
    total = sums[True] + sums[False]
    return {
        "mae_meV": 1e3 * total[0] / total[1],
        "on_site_meV": 1e3 * sums[True][0] / sums[True][1],
        "off_site_meV": 1e3 * sums[False][0] / sums[False][1],
        "cpu_seconds_each": seconds,
        "structures": len(calculations),
    }


def run(folder: Path, case: str) -> dict[str, Any]:
    """One row."""
    fitted, tested = CASES[case]
    train = [calculation for name in fitted for calculation in load(folder, name)]
    basis = train[0].basis
    for calculation in train:
        basis = basis.merged(calculation.basis)
    train = [to_basis(calculation, basis) for calculation in train]
    spin = train[0].spin
    started = time.process_time()
    baseline = Baseline.fit("two_centre", train, spin)
    row: dict[str, Any] = {
        "case": case,
        "date": datetime.date.today().isoformat(),
        "machine": platform.platform(),
        "fit_cpu_seconds": time.process_time() - started,
        "fitted": errors(baseline, train) | {"H_meV": errors(Baseline("none", spin), train)["mae_meV"]},
    }
    for name in tested:
        tests = [to_basis(calculation, basis) for calculation in load(folder, name)]
        row[name] = errors(baseline, tests)
        if len(fitted) == 1:
            row[name]["mean_block_meV"] = mean_block(train, tests)
    return row


def main() -> None:
    """Run what is missing and print the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    target = options.output / "prior.jsonl"
    rows = [json.loads(line) for line in target.read_text().splitlines()] if target.is_file() else []
    for case in CASES:
        if case not in [row["case"] for row in rows]:
            rows.append(run(options.folder, case))
            with target.open("a") as file:
                file.write(json.dumps(rows[-1]) + "\n")
    for row in rows:
        if options.json:
            print(json.dumps(row))
            continue
        print(f"{row['case']}: mean |H| {row['fitted']['H_meV']:.0f} meV, fit {row['fit_cpu_seconds']:.1f} CPU s")
        for name, part in row.items():
            if isinstance(part, dict):
                print(
                    f"  {name}: {part['mae_meV']:.2f} meV (on-site {part['on_site_meV']:.2f}, off-site "
                    f"{part['off_site_meV']:.2f}; mean block {part.get('mean_block_meV', float('nan')):.2f}), "
                    f"{1e3 * part['cpu_seconds_each']:.0f} ms each"
                )


if __name__ == "__main__":
    main()
