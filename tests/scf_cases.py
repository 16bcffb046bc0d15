"""A model of small molecules that knows the answer, and how wrong to be: exact H plus noise, Hartree-Fock/STO-3G."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from numpy.typing import NDArray
from pyscf import gto, scf

from hamnet.config import config_from_dict
from hamnet.core.blocks import BlockMatrix
from hamnet.core.calculation import Calculation
from hamnet.core.structure import AtomicStructure
from hamnet.core.units import HARTREE
from hamnet.nn.checkpoint import Checkpoint, save_checkpoint
from hamnet.nn.model import HamiltonianModel
from hamnet.nn.prior import Baseline
from hamnet.nn.statistics import fit_statistics
from hamnet.predict.predictor import Prediction, Predictor
from hamnet_preprocess.pyscf import calculation_of
from hamnet_preprocess.pyscf_fock import FockBuilder, Method, dense_of
from hamnet_preprocess.pyscf_reference import minao_fock, reference_blocks
from hamnet_preprocess.pyscf_state import state_of

WATER = Atoms("OHH", [[0.0, 0.0, 0.0], [0.0, 0.1, 0.97], [0.9, 0.0, -0.2]])
METADATA = {"functional": "HF", "grid": "", "charge": 0.0, "code": "pyscf"}


def mole(atoms: Any, basis: str = "sto-3g", **options: Any) -> Any:
    """PySCF's `Mole`."""
    return gto.M(atom=list(zip(atoms.symbols, atoms.positions, strict=True)), basis=basis, verbose=0, **options)


@lru_cache
def water() -> Calculation:
    """Converged water with H0."""
    mf = scf.RHF(mole(WATER)).run(conv_tol=1e-12)
    found = calculation_of(state_of(mf))
    reference = reference_blocks(minao_fock(mf.mol, "hf", 3), found.basis, found.structure.species, found.spin)
    return replace(found, reference_hamiltonian=reference)


def checkpoint(kind: str = "none") -> Checkpoint:
    """An untrained model on water's basis; kind is that of its baseline."""
    calculation = water()
    sizes = {"layers": 1, "channels": 4, "radial_functions": 6, "radial_hidden": 8, "baseline": kind}
    config = config_from_dict({"data": {"store": "unused.h5"}, "network": sizes})
    baseline = Baseline(kind, calculation.spin) if kind == "reference" else None
    remainder = calculation if baseline is None else baseline.remainder(calculation)
    statistics = fit_statistics([remainder], calculation.basis, calculation.spin, config.network)
    torch.manual_seed(0)
    model = HamiltonianModel(config.network, calculation.basis, calculation.spin, statistics, dtype=torch.float64)
    return Checkpoint(
        model, config, calculation.basis, calculation.spin, statistics, None, dict(METADATA), baseline=baseline
    )


def untrained(folder: Path, kind: str = "none") -> Path:
    """The same in a file."""
    path = folder / f"{kind}.ckpt"
    save_checkpoint(path, checkpoint(kind))
    return path


class Oracle(Predictor):
    """H is that of the converged calculation plus `scale` eV of noise; `given` keeps the H0 that it was handed."""

    def __init__(self, scale: float = 0.0, kind: str = "none", seed: int = 0) -> None:
        super().__init__(checkpoint(kind))
        self.scale, self.seed = scale, seed
        self.given: BlockMatrix | None = None

    def run(self, atoms: Any, overlap: Any = None, reference: Any = None) -> Prediction:
        """As `Predictor.run`."""
        structure = self.structure(atoms)
        self.given = reference
        builder = FockBuilder(structure, self.basis, Method("hf"))
        fock = converged_fock(builder)
        size = len(fock)
        error = np.random.default_rng(self.seed).normal(size=(size, size))
        matrix = builder.blocks(fock + self.scale * (error + error.T) / 2)
        same = builder.blocks(builder.overlap)
        return Prediction(Calculation(structure, self.basis, same, matrix), 0.0, None, ())


def converged_fock(builder: FockBuilder) -> NDArray[np.float64]:
    """(n, n) eV in hamnet's order, of PySCF's SCF."""
    mf = scf.RHF(builder.mf.mol)
    mf.verbose, mf.conv_tol = 0, 1e-12
    mf.kernel(builder.to_pyscf(builder.minao_density()))
    return builder.to_ours(mf.get_fock()) * HARTREE


def stored_fock() -> NDArray[np.float64]:
    """(n, n) eV of `water`."""
    hamiltonian = water().hamiltonian
    assert hamiltonian is not None
    return dense_of(hamiltonian)


def moved(structure: AtomicStructure, positions: NDArray[np.float64]) -> AtomicStructure:
    """The same atoms elsewhere."""
    return AtomicStructure(structure.atomic_numbers, structure.species, positions)
