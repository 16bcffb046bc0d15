"""Time of the molecular metrics: 1,000 waters and 1,000 ethanols with noise on a made-up H (no SCF, no network).

Usage: python benchmarks/molecule_metrics.py [COUNT]
"""

from __future__ import annotations

import json
import resource
import sys
import time
from datetime import date

import numpy as np

from hamnet.core.calculation import Calculation
from hamnet.core.structure import AtomicStructure
from hamnet.train.molecule_metrics import MoleculeErrors
from hamnet_preprocess.pyscf_basis import basis_of
from hamnet_preprocess.pyscf_overlap import overlap_from_basis

MOLECULES = {
    "water": "O 0 0 0.1; H 0.76 0.1 0.5; H -0.7 0.2 0.6",
    "ethanol": "C -0.888 0.17 -0.05; C 0.46 -0.51 -0.04; O 1.44 0.32 0.05; H -1.08 0.76 0.85; H -1.68 -0.57 -0.12; "
    "H -0.96 0.85 -0.9; H 0.55 -1.17 0.83; H 0.54 -1.11 -0.95; H 2.3 -0.11 0.06",
}
DIFFERENT = 100
"""Geometries made; the rest repeat them, which changes no time."""


def main(count: int) -> None:
    """One JSON line for each molecule."""
    from pyscf import gto

    rng = np.random.default_rng(0)
    for name, text in MOLECULES.items():
        mol = gto.M(atom=text, basis="def2-svp", verbose=0)
        basis, species = basis_of(mol)
        cases = []
        for _ in range(DIFFERENT):
            positions = mol.atom_coords(unit="Ang") + 0.03 * rng.normal(size=(mol.natm, 3))
            structure = AtomicStructure(mol.atom_charges().astype(np.int64), species, positions)
            overlap = overlap_from_basis(structure, basis)
            noise = rng.normal(size=(2, len(overlap.values)))
            truth = overlap.with_values(-10 * overlap.values - 0.1 * noise[0]).symmetrised()
            prediction = truth.with_values(truth.values + 1e-3 * noise[1]).symmetrised()
            n_electrons = float(mol.nelectron)
            cases.append((Calculation(structure, basis, overlap, truth, n_electrons=n_electrons), prediction))
        wall, processor = time.perf_counter(), time.process_time()
        errors = MoleculeErrors()
        for k in range(count):
            errors.add(str(k), *cases[k % DIFFERENT])
        errors.figures()
        row = {
            "benchmark": "molecule_metrics",
            "date": date.today().isoformat(),
            "molecule": name,
            "orbitals": mol.nao_nr(),
            "molecules": count,
            "processor_s": round(time.process_time() - processor, 2),
            "wall_s": round(time.perf_counter() - wall, 2),
            "peak_memory_GB": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        }
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
