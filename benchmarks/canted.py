"""What collinear data teach of canted spins: stretched H3 by LDA, without spin-orbit coupling; one JSON row.

    python benchmarks/canted.py FOLDER [--minutes 0.75] [--structures 40]

Trained on unrestricted H3, all spins parallel or the middle one opposite; tested on others of the kind and on triangles
whose spins stand at 120 degrees (PySCF, collinear = "ncol"), which no turn of all spins makes collinear.
"""

import argparse
import json
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from pyscf import dft, gto

from hamnet.config import config_from_dict
from hamnet.core.calculation import Calculation
from hamnet.core.spin import Spin, spinor_to_pauli
from hamnet.data.store import write_store
from hamnet.nn.spin_space import spin_coupling
from hamnet.predict.batch import as_spinors
from hamnet.predict.predictor import Predictor
from hamnet.train.run import train
from hamnet_preprocess.pyscf import from_mean_field

NETWORK = {"layers": 2, "channels": 16, "radial_hidden": 16, "radial_functions": 8, "lmax": 2}


def hydrogens(bonds: Sequence[float], degrees: float, spin: int) -> Any:
    """Three hydrogen atoms, the second between the others."""
    (first, second), angle = bonds, np.radians(degrees)
    places = [(0, 0, first), (0, 0, 0), (second * np.sin(angle), 0, second * np.cos(angle))]
    return gto.M(atom=[("H", place) for place in places], basis="6-31g", spin=spin, verbose=0)


def collinear_case(rng: np.random.Generator, parallel: bool) -> Calculation:
    """All spins up, or the one between the others down."""
    spin, least = (3, 55) if parallel else (1, 75)
    mf = dft.UKS(hydrogens(rng.uniform(1.7, 1.9, 2), rng.uniform(least, 100), spin))
    mf.xc, mf.grids.level = "lda,vwn", 1
    density = sum(mf.get_init_guess()) / 2
    lean = np.diag(np.repeat([0.1, 0.1 if parallel else -0.1, 0.1], mf.mol.nao // 3))
    mf.kernel(dm0=np.array([density + lean, density - lean]))
    return from_mean_field(mf)


def canted_case(bond: float) -> Calculation:
    """Spins at 120 degrees in a triangle of equal sides."""
    mol = hydrogens((bond, bond), 60.0, 1)
    mf = dft.GKS(mol)
    mf.xc, mf.collinear, mf.grids.level, mf.max_cycle = "lda,vwn", "ncol", 1, 200
    angles = np.repeat(np.arange(3) * 2 * np.pi / 3, mol.nao // 3)
    density = sum(dft.UKS(mol).get_init_guess()) / 2
    x, z = (0.2 * np.diag(f(angles)) for f in (np.sin, np.cos))
    mf.kernel(dm0=np.block([[density + z, x], [x, density - z]]).astype(complex))
    return from_mean_field(mf)


def components(calculation: Calculation) -> np.ndarray:
    """(n, 4) A_0, A_x, A_y, A_z of H, eV."""
    matrix: Any = calculation.hamiltonian
    if matrix.spin is Spin.COLLINEAR:
        up, down = (np.concatenate([g.blocks[:, k].ravel() for g in matrix.groups()]) for k in (0, 1))
        return np.stack(((up + down) / 2, 0 * up, 0 * up, (up - down) / 2), axis=1)
    parts = [np.moveaxis(spinor_to_pauli(g.blocks), 1, -1).reshape(-1, 4) for g in matrix.groups()]
    return np.concatenate(parts).real


def errors(model: Predictor, calculations: list[Calculation]) -> dict[str, float]:
    """Mean and largest error of A_0 and of the vector A, and the mean sizes of both, meV."""
    found = np.concatenate([components(as_spinors(model).calculation(c.structure)) for c in calculations])
    truth = np.concatenate([components(c) for c in calculations])
    scalar, vector = np.abs(found - truth)[:, 0], np.linalg.norm((found - truth)[:, 1:], axis=1)
    sizes = np.linalg.norm(truth[:, 1:], axis=1)
    figures = {"A0_mae": scalar.mean(), "A_mae": vector.mean(), "A_max": vector.max(), "A_mean": sizes.mean()}
    return {name: round(1000 * float(value), 3) for name, value in figures.items()}


def main() -> None:
    """Make data, train on the collinear ones, print the row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=0.75)
    parser.add_argument("--structures", type=int, default=40)
    options = parser.parse_args()
    options.folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    collinear = [collinear_case(rng, bool(k % 2)) for k in range(options.structures + 8)]
    canted = [canted_case(bond) for bond in np.linspace(1.72, 1.88, 8)]
    store = options.folder / "collinear.h5"
    write_store(store, ((f"c{k}", c) for k, c in enumerate(collinear[8:])))
    data = {"store": store, "validation_fraction": 0.2, "test_fraction": 0.0}
    training = {"output": options.folder / "run", "clock": "process", "threads": 1, "progress": False, "batch_size": 4}
    training |= {"epochs": 100_000, "max_minutes": options.minutes}
    result = train(config_from_dict({"data": data, "network": NETWORK, "training": training}))
    model = Predictor.load(result.checkpoint)
    row = {"row": "canted H3", "structures": options.structures, "minutes": options.minutes}
    row |= {"imaginary_eV": max(spin_coupling(c).imaginary for c in canted)}
    row |= {"collinear_meV": errors(model, collinear[:8]), "canted_meV": errors(model, canted)}
    print(json.dumps(row | {"date": date.today().isoformat()}))


if __name__ == "__main__":
    main()
