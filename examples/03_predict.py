"""H of a structure that no DFT code has seen, its bands, and the labels of its orbitals.

Run: python examples/03_predict.py CHECKPOINT STRUCTURE
"""

import sys

from ase.io import read

import hamnet

model = hamnet.load(sys.argv[1])
atoms = read(sys.argv[2])

hamiltonian = model.predict(atoms)
print(f"{len(hamiltonian.pairs.i)} blocks; the first, {hamiltonian.describe_pair(0)}, in eV:")
print(hamiltonian.block(0).round(3))

# Bands need S too; the model brings it: integrals of the Gaussians, or a fit of the overlaps it was trained with.
calculation = model.calculation(atoms)
at_gamma = hamnet.compute_bands(calculation, hamnet.bands.band_path(calculation.structure, "auto", 20))
print("lowest levels at the first k-point (eV):", at_gamma.energies[0, 0, :6].round(3))
