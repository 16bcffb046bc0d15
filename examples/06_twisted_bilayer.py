"""Bands of a twisted bilayer of graphene, of thousands of atoms, from a model that learnt small shifted bilayers.

Run: python examples/06_twisted_bilayer.py CHECKPOINT [M] [POINTS]
The cell has 4 (3 M^2 + 3 M + 1) atoms: 28 with M = 1 (21.8 degrees), 5,044 with 20 (1.61), 11,908 with 31 (1.05).
The basis in the checkpoint needs radial functions (hamnet preprocess openmx ... --pao). As commands: docs/large.md.
"""

import sys
from pathlib import Path

from ase.build import graphene

from hamnet.bands.kpath import band_path
from hamnet.bands.large import LargeSettings, window_bands
from hamnet.bands.plot import plot_bands
from hamnet.data.store import Store
from hamnet.predict.tiling import TileSettings, predict_in_tiles
from hamnet_preprocess.twist import Twist, twisted_bilayer

if __name__ == "__main__":
    checkpoint = Path(sys.argv[1])
    twist = Twist(int(sys.argv[2]) if len(sys.argv) > 2 else 1)
    points = int(sys.argv[3]) if len(sys.argv) > 3 else 20

    atoms = twisted_bilayer(graphene(a=2.46), twist, distance=3.35)
    print(f"{len(atoms)} atoms, {twist.angle:.3f} degrees, moire cell of {atoms.cell.lengths()[0]:.1f} A")

    # Tile by tile: memory stays below 4 GB whatever the number of atoms, and a run that was cut off goes on.
    store = Path(f"twisted_{twist.m}.h5")
    if not store.exists():
        predict_in_tiles(checkpoint, "twisted", atoms, store, TileSettings(4 * 10**9), on_event=print)
    calculation = Store(store).read(0)

    # The Fermi level by counting states, and 40 bands about it. Counting also numbers the bands: `first_band`.
    path = band_path(calculation.structure, "G,M,K,G", points)
    settings = LargeSettings(n_bands=40)
    bands = window_bands(calculation, path, settings, Path(f"twisted_{twist.m}_kpoints"), on_line=print)
    plot_bands(bands, Path(f"twisted_{twist.m}.png"), title=f"{twist.angle:.2f} degrees, {len(atoms)} atoms")

    # Two occupied and two empty bands touch at K, one of each for each layer (and as many again for the other spin).
    middle = 2 * len(atoms) - bands.first_band
    four = bands.energies[0, :, middle - 2 : middle + 2]
    print(f"the four bands about the Fermi level are {1000 * (four.max() - four.min()):.1f} meV wide")
