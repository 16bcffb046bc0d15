"""Small stores and configurations: a training takes a second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from factories import lawful_calculation

from hamnet.config import Config, config_from_dict
from hamnet.core.spin import Spin
from hamnet.data.store_writer import write_store
from hamnet.nn.dataset import Batch, StoreCollection, collate, make_sample
from hamnet.nn.model import HamiltonianModel
from hamnet.nn.statistics import fit_statistics
from hamnet.train.run import TrainResult, train

NETWORK = {"layers": 1, "channels": 4, "lmax": 1, "radial_functions": 4, "radial_hidden": 4}


def small_store(path: Path, spin: Spin = Spin.NONE, n: int = 5, first: int = 0) -> Path:
    """Store of made-up calculations, two of three or four with both species."""
    write_store(path, [(f"s{k}", lawful_calculation(k, spin)) for k in range(first, first + n)])
    return path


def small_config(store: Path, output: Path, **training: Any) -> Config:
    """Tiny network, a few epochs, no bar."""
    data = {"store": str(store), "train_fraction": 0.6, "validation_fraction": 0.2, "test_fraction": 0.2}
    settings = {"output": str(output), "epochs": 3, "progress": False, "threads": 1} | training
    return config_from_dict({"data": data, "network": NETWORK, "training": settings})


def small_train(folder: Path, **training: Any) -> TrainResult:
    """Train on a new store in a folder."""
    store = folder / "data.h5"
    if not store.is_file():
        small_store(store)
    return train(small_config(store, folder / "run", **training))


def model_and_batch(store: Path, n: int = 2) -> tuple[HamiltonianModel, Batch]:
    """An untrained model and a batch of its training set."""
    stores = StoreCollection([store])
    calculations = [stores.read(name) for name in stores.names[:n]]
    settings = small_config(store, store.parent).network
    statistics = fit_statistics(calculations, stores.basis, stores.spin, settings)
    torch.manual_seed(0)
    model = HamiltonianModel(settings, stores.basis, stores.spin, statistics)
    batch = collate(
        [make_sample(f"s{k}", c, stores.basis, statistics.message_cutoff) for k, c in enumerate(calculations)]
    )
    stores.close()
    return model, batch
