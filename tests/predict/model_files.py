"""A small untrained model on graphene's basis, with a fitted overlap: enough for everything but accuracy."""

from __future__ import annotations

from pathlib import Path

import torch
from golden_files import golden

from hamnet.config import config_from_dict
from hamnet.core.calculation import Calculation
from hamnet.nn.checkpoint import Checkpoint, save_checkpoint
from hamnet.nn.model import HamiltonianModel
from hamnet.nn.statistics import fit_statistics
from hamnet.predict.overlap import fit_overlap
from hamnet_preprocess.openmx import OpenMXReader


def graphene() -> Calculation:
    """The primitive cell of the golden files."""
    return OpenMXReader().read(golden("openmx/graphene"))


def untrained(folder: Path, name: str = "graphene", dtype: torch.dtype = torch.float64) -> Path:
    """Checkpoint of a model with random weights for the basis of a golden calculation."""
    calculation = OpenMXReader().read(golden(f"openmx/{name}"), allow_unconverged=True)
    sizes = {"layers": 1, "channels": 4, "radial_functions": 6, "radial_hidden": 8}
    config = config_from_dict({"data": {"store": "unused.h5"}, "network": sizes})
    basis, spin = calculation.basis, calculation.spin
    statistics = fit_statistics([calculation], basis, spin, config.network)
    torch.manual_seed(0)
    model = HamiltonianModel(config.network, basis, spin, statistics, dtype=dtype)
    arrays = fit_overlap([calculation]).to_arrays()
    path = folder / "model.ckpt"
    save_checkpoint(path, Checkpoint(model, config, basis, spin, statistics, arrays, {"functional": "PBE"}))
    return path
