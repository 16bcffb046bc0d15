"""`python -m hamnet.train.partner`: a further process of a training, started by the first one with a job on its input.

The first has read the data, fitted statistics and taken weights over: it hands all that on in start.ckpt, so that every
process starts from the very same numbers.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import lightning.pytorch as pl

from hamnet.config import Config
from hamnet.data.splits import read_split
from hamnet.nn.checkpoint import load_checkpoint
from hamnet.nn.dataset import StoreCollection
from hamnet.train.fitting import Fit, set_threads
from hamnet.train.parallel import READY, Team

START_FILE = "start.ckpt"
"""The starting point: a resumed run and the other processes take it as it was."""


def run_partner(job: dict[str, Any]) -> None:
    """Take part in a fit from its beginning to its end.

    Args:
        job: config (JSON text), resume, rank, port.
    """
    config = Config.model_validate_json(job["config"])
    output: Path = config.training.output
    set_threads(config)
    pl.seed_everything(config.training.seed, verbose=False)
    stores = StoreCollection(config.data.store)
    try:
        team = Team(int(job["rank"]), config.training.devices, int(job["port"]))
        split = read_split(output / "split.json", stores.names)
        fit = Fit(config, stores, split, load_checkpoint(output / START_FILE), team)
        loaders = fit.loaders()
        module = fit.module(loaders)
        sys.stdout.write(READY + "\n")
        sys.stdout.flush()
        fit.run(module, loaders, output / "last.ckpt" if job["resume"] else None)
    finally:
        stores.close()


if __name__ == "__main__":
    run_partner(json.load(sys.stdin))
