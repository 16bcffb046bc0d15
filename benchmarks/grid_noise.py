"""How much PySCF's integration grid changes H when a molecule is turned: python benchmarks/grid_noise.py."""

from __future__ import annotations

import json
from datetime import date

import numpy as np
from molecule_metrics import MOLECULES

from hamnet.core.rotation import rotate_blocks
from hamnet.core.structure import AtomicStructure
from hamnet_preprocess.pyscf_basis import basis_of
from hamnet_preprocess.pyscf_fock import FockBuilder, Method, dense_of

LEVELS = (2, 3, 4, 5)


def main() -> None:
    """One JSON line for each molecule and level."""
    from pyscf import dft, gto

    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    turn *= np.linalg.det(turn)
    for name, text in MOLECULES.items():
        mol = gto.M(atom=text, basis="def2-svp", verbose=0)
        basis, species = basis_of(mol)
        numbers, positions = mol.atom_charges().astype(np.int64), mol.atom_coords(unit="Ang")
        places = [AtomicStructure(numbers, species, x) for x in (positions, positions @ turn.T)]
        builders = [FockBuilder(place, basis, Method("pbe", 3)) for place in places]
        density = builders[0].minao_density()
        densities = [density, dense_of(rotate_blocks(builders[0].blocks(density), turn))]
        for level in LEVELS:
            potentials = []
            for builder, dm in zip(builders, densities, strict=True):
                grid = dft.gen_grid.Grids(builder.mf.mol)
                grid.level, grid.verbose = level, 0
                matrix = dft.numint.NumInt().nr_rks(builder.mf.mol, grid.build(), "pbe", builder.to_pyscf(dm))[2]
                potentials.append(builder.to_ours(matrix))
            turned = dense_of(rotate_blocks(builders[0].blocks(potentials[0]), turn))
            change = 1e6 * np.abs(turned - potentials[1])
            row = {"benchmark": "grid_noise", "date": date.today().isoformat(), "molecule": name, "level": level}
            print(json.dumps(row | {"mean_uEh": float(change.mean()), "largest_uEh": float(change.max())}), flush=True)


if __name__ == "__main__":
    main()
