"""What learning spin-orbit coupling as a difference saves: few SOC cells with and without a spinless start.

    python benchmarks/spin_difference.py STORE.h5 SPLIT.json -o OUT [--plain-minutes 2] [--minutes 1] [--only start]

STORE holds cells with spin-orbit coupling, SPLIT (of a training) says which train and which test. The spinless data are
A_0 of all training cells (the scalar part of the same calculations: nothing about spin is in it). Then 1, 2, 4 and all
training cells with coupling are learnt, from nothing and from the spinless model, each for the same processor time of
one thread. A training that is there is not run again. One JSON row a model: MAE of A_0 and A_a on the test cells.
"""

import argparse
import json
from pathlib import Path

import torch
from spin import component_errors, spinless, verb

import hamnet
from hamnet.data.store import Store, write_store

NETWORK = ("network.layers=1", "network.channels=32", "network.lmax=4", "network.message_cutoff=6.5")
STARTS = {"scratch": (None, 1e-2), "start": ("plain", 3e-3), "start, rate 1e-2": ("plain", 1e-2)}
"""Name -> the model to start from, learning rate."""


def train(store: Path, run: Path, minutes: float, rate: float, source: Path | None) -> None:
    """One training of all cells of a store, unless it is there."""
    if (run / "model.ckpt").exists():
        return
    verb(
        "train", store, f"training.output={run}", "data.train_fraction=1", "data.validation_fraction=0",
        "data.test_fraction=0", f"training.max_minutes={minutes}", "training.clock=process", "training.threads=1",
        "training.progress=false", "training.epochs=100000", f"training.learning_rate={rate}", *NETWORK,
        *(() if source is None else ("--from", source)),
    )  # fmt: skip


def main() -> None:
    """Train what is missing and print one row for each model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path)
    parser.add_argument("split", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--plain-minutes", type=float, default=2)
    parser.add_argument("--minutes", type=float, default=1)
    parser.add_argument("--counts", type=int, nargs="+", default=[1, 2, 4, 12])
    parser.add_argument("--only", choices=list(STARTS), nargs="+", default=list(STARTS))
    options = parser.parse_args()
    out: Path = options.output
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    split = json.loads(options.split.read_text())
    with Store(options.store) as opened:
        cells = [(name, opened.read(name)) for name in split["train"]]
        tests = [opened.read(name) for name in split["test"]]
    for name in options.only:
        start, rate = STARTS[name]
        source = None
        if start is not None:
            source = out / start / "model.ckpt"
            write_store(out / "plain.h5", [(n, spinless(c)) for n, c in cells])
            train(out / "plain.h5", out / start, options.plain_minutes, 1e-2, None)
        for count in options.counts:
            run = out / f"{name.split(',')[0]}_{rate:g}_{count}"
            store = run.with_suffix(".h5")
            write_store(store, cells[:count])
            train(store, run, options.minutes, rate, source)
            errors = component_errors(hamnet.load(run / "model.ckpt"), tests)
            row = {"start": name, "soc_cells": count, "minutes": options.minutes, **errors}
            (run / "errors.json").write_text(json.dumps(row, indent=1))
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
