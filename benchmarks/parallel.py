"""Two processes against one, a thread each, the same batches: python benchmarks/parallel.py STORE.h5 [--steps 12].

Prints one JSON row: seconds a step (median; start of the processes and evaluation not counted) by the wall clock and of
the first process's CPU, one process over two, and how far the two ways' weights are apart at the end. On a busy machine
(`load`) the wall clock says little; the CPU's ratio is what two free cores can give, less the waiting for each other.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import lightning.pytorch as pl
import torch

from hamnet.config import config_from_dict
from hamnet.train.run import train


class Clock(pl.Callback):
    """Times of each step from its batch to its update."""

    def __init__(self) -> None:
        self.started = (0.0, 0.0)
        self.wall: list[float] = []
        self.cpu: list[float] = []

    def on_train_batch_start(self, *_: Any) -> None:
        """The batch is there."""
        self.started = time.perf_counter(), time.process_time()

    def on_train_batch_end(self, *_: Any) -> None:
        """The weights are changed."""
        self.wall.append(time.perf_counter() - self.started[0])
        self.cpu.append(time.process_time() - self.started[1])

    @property
    def medians(self) -> tuple[float, float]:
        """(wall, CPU) seconds, the first few steps left out: they allocate."""
        skip = len(self.wall) // 3
        return statistics.median(self.wall[skip:]), statistics.median(self.cpu[skip:])


def measure(store: Path, folder: Path, devices: int, arguments: argparse.Namespace) -> tuple[Clock, dict[str, Any]]:
    """(times, weights at the end)."""
    training = {
        "output": str(folder / str(devices)),
        "epochs": arguments.steps,
        "batch_size": arguments.batch,
        "devices": devices,
        "threads": 1,
        "progress": False,
        "ema_decay": 0.0,
        "validate_every": arguments.steps,
    }
    data = {"store": str(store), "split": str(folder / "split.json")}
    network = {"layers": 1, "channels": arguments.channels}
    clock = Clock()
    result = train(config_from_dict({"data": data, "network": network, "training": training}), callbacks=[clock])
    return clock, torch.load(result.checkpoint, weights_only=True)["weights"]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", type=Path)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--batch", type=int, default=4, help="structures a step")
    parser.add_argument("--channels", type=int, default=32)
    arguments = parser.parse_args()
    from hamnet.data.store import Store

    with Store(arguments.store) as store:
        names = list(store.names[: arguments.batch])
        pairs = int(store.n_pairs[: arguments.batch].sum())
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "split.json").write_text(json.dumps({"train": names}))
        load = os.getloadavg()[0]
        one, first = measure(arguments.store, folder, 1, arguments)
        two, second = measure(arguments.store, folder, 2, arguments)
    apart = max(float((first[k] - second[k]).abs().max()) for k in first if first[k].numel())
    row = {
        "date": time.strftime("%Y-%m-%d"),
        "pairs_a_step": pairs,
        "wall_s": [round(clock.medians[0], 4) for clock in (one, two)],
        "cpu_s": [round(clock.medians[1], 4) for clock in (one, two)],
        "wall_ratio": round(one.medians[0] / two.medians[0], 3),
        "cpu_ratio": round(one.medians[1] / two.medians[1], 3),
        "largest_weight_difference": apart,
        "load": round(load, 1),
        "cores": len(os.sched_getaffinity(0)),
    }
    print(json.dumps(row))


if __name__ == "__main__":
    main()
