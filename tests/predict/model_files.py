"""A small untrained model on graphene's basis, with a fitted overlap: enough for everything but accuracy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from golden_files import golden

from hamnet.config import config_from_dict
from hamnet.core.basis import OrbitalBasis, RadialFunction, Shell
from hamnet.core.calculation import Calculation
from hamnet.nn.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
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


def tabulated(shell: Shell, nodes: int = 0) -> Shell:
    """The shell with a made-up radial function: a cosine bump times r^l, with nodes if asked for."""
    assert shell.radius is not None
    r = np.linspace(0.0, shell.radius, 200)
    values = r**shell.l * np.cos(np.pi * r / shell.radius / 2) ** 4 * np.cos(nodes * np.pi * r / shell.radius)
    values /= np.sqrt(np.trapezoid((r * values) ** 2, r))
    return replace(shell, radial=RadialFunction(tuple(r), tuple(values), tuple(np.gradient(values, r))))


def with_radial_functions(folder: Path) -> Path:
    """Checkpoint as `untrained`, whose basis has radial functions, so that S is that of orbitals in space.

    Shells of one l get different numbers of nodes: with the same function twice S would be singular.
    """
    checkpoint = load_checkpoint(untrained(folder))
    (species,) = checkpoint.basis.species
    ls = [shell.l for shell in species.shells]
    shells = tuple(tabulated(shell, ls[:n].count(shell.l)) for n, shell in enumerate(species.shells))
    path = folder / "radial.ckpt"
    save_checkpoint(path, replace(checkpoint, basis=OrbitalBasis((replace(species, shells=shells),))))
    return path
