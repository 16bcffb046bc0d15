"""Water in a minimal basis by Hartree-Fock: no integration grid, so that a Fock build takes milliseconds."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from pyscf import gto, scf
from training_cases import NETWORK

from hamnet.config import config_from_dict
from hamnet.core.calculation import Calculation, Provenance
from hamnet.core.spin import Spin
from hamnet.data.store_writer import write_store
from hamnet.train.run import train
from hamnet_preprocess.pyscf_basis import basis_of, molecule_calculation
from hamnet_preprocess.pyscf_reference import minao_fock, reference_blocks

WATER = np.array([[0.0, 0.0, 0.0], [0.76, 0.59, 0.0], [-0.76, 0.59, 0.0]])
SYMBOLS = "OHH"


def waters(count: int, seed: int = 0, stretch: float = 0.05) -> list[tuple[str, Atoms]]:
    """Water molecules with atoms moved at random (Angstrom)."""
    rng = np.random.default_rng(seed)
    return [(f"m{seed}/{k}", Atoms(SYMBOLS, WATER + rng.normal(scale=stretch, size=(3, 3)))) for k in range(count)]


@lru_cache(maxsize=64)
def _solved(key: bytes) -> Any:
    positions = np.frombuffer(key).reshape(3, 3)
    mol = gto.M(atom=list(zip(SYMBOLS, positions.tolist(), strict=True)), basis="sto-3g", verbose=0)
    mf = scf.RHF(mol)
    mf.conv_tol = 1e-12
    mf.kernel()
    return mf


def labelled(atoms: Atoms) -> Calculation:
    """The SCF's answer."""
    mf = _solved(atoms.positions.tobytes())
    basis, _ = basis_of(mf.mol)
    provenance = Provenance("pyscf", functional="hf")
    calculation = molecule_calculation(
        atoms.numbers, atoms.positions, basis, mf.get_fock(), mf.get_ovlp(),
        n_electrons=10.0, energy=mf.e_tot, provenance=provenance,
    )  # fmt: skip
    reference = reference_blocks(minao_fock(mf.mol, "hf", 4), basis, calculation.structure.species, Spin.NONE)
    return replace(calculation, reference_hamiltonian=reference)


def labelled_store(path: Path, count: int = 4, seed: int = 0) -> Path:
    """Store of labelled waters."""
    write_store(path, [(name, labelled(atoms)) for name, atoms in waters(count, seed)])
    return path


def water_model(folder: Path, baseline: str = "none", epochs: int = 8, **training: Any) -> Path:
    """Checkpoint of a tiny model trained on four waters for a moment."""
    store = folder / "water.h5"
    if not store.is_file():
        labelled_store(store)
    settings = {"output": str(folder / f"run_{baseline}"), "epochs": epochs, "progress": False, "threads": 1}
    parts = {"store": str(store), "train_fraction": 0.5, "validation_fraction": 0.25, "test_fraction": 0.25}
    network = NETWORK | {"baseline": baseline, "message_cutoff": 5.0}
    config = config_from_dict({"data": parts, "network": network, "training": settings | training})
    return train(config).checkpoint
