"""From one OpenMX output to its band structure, next to the bands that OpenMX itself printed.

Run: python examples/01_scfout_to_bands.py FOLDER
FOLDER holds openmx.scfout, written with `HS.fileout on`.
"""

import sys
from pathlib import Path

import hamnet
from hamnet.bands import band_path, plot_bands

folder = Path(sys.argv[1])
name, read = hamnet.open_source(folder)[0]
calculation = read()
print(f"{name}: {calculation.structure.n_atoms} atoms, {calculation.overlap.n_orbitals} orbitals")

# H and S are sums of blocks over lattice vectors: H(k) = sum_R exp(2 pi i k.n) H(R).
path = band_path(calculation.structure, "auto", 120)
bands = hamnet.compute_bands(calculation, path)
print(f"Fermi level {bands.fermi_energy:.3f} eV ({bands.fermi_method})")
print("metal or touching bands" if bands.is_metal else f"gap {bands.gap:.3f} eV, direct: {bands.is_direct}")

plot_bands(bands, Path("bands.png"), title=name)
print("written: bands.png")
