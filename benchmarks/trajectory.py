"""Geometries of a molecule from molecular dynamics at constant temperature, and a histogram of its bond lengths.

    pip install tblite
    python benchmarks/trajectory.py H2O -n 1200 -o water.extxyz [--temperature 500] [--spacing 20] [--seed 1]

Langevin dynamics (0.5 fs, friction 0.01 / fs) with GFN1-xTB forces, which cost milliseconds; labels come from
`hamnet label`. 2 ps pass before the first frame. Frames are written in an order drawn from the seed, so that any
prefix of the file is a random sample: the first 500 can be the training set while the rest is still being labelled.
"""

import argparse
from pathlib import Path

import ase.io
import matplotlib
import numpy as np
from ase import Atoms, units
from ase.build import molecule
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import thermalize_momenta
from tblite.ase import TBLite

matplotlib.use("Agg")
import matplotlib.pyplot as plt

STEP_FS = 0.5
EQUILIBRATION_FS = 2000.0
BONDED = 1.25
"""Two atoms are bonded when closer in equilibrium than this times the sum of their covalent radii."""


def trajectory(atoms: Atoms, count: int, temperature: float, spacing: float, seed: int) -> list[Atoms]:
    """`count` frames, `spacing` femtoseconds apart, in random order."""
    atoms = atoms.copy()
    atoms.calc = TBLite(method="GFN1-xTB", verbosity=0)
    rng = np.random.default_rng(seed)
    thermalize_momenta(atoms, temperature_K=temperature, rng=rng)
    # the centre of mass is left free, which samples exactly, and taken out of the frames
    dynamics = Langevin(
        atoms, STEP_FS * units.fs, temperature_K=temperature, friction=0.01 / units.fs, rng=rng, fixcm=False
    )
    dynamics.run(round(EQUILIBRATION_FS / STEP_FS))
    frames = []
    for _ in range(count):
        dynamics.run(round(spacing / STEP_FS))
        frame = Atoms(atoms.numbers, atoms.positions - atoms.get_center_of_mass())
        frames.append(frame)
    return [frames[k] for k in rng.permutation(count)]


def bonds(atoms: Atoms) -> list[tuple[int, int]]:
    """Pairs of bonded atoms, by covalent radii."""
    from ase.data import covalent_radii

    radii = covalent_radii[atoms.numbers]
    near = atoms.get_all_distances() < BONDED * (radii[:, None] + radii)
    return [(int(i), int(j)) for i, j in zip(*np.nonzero(np.triu(near, 1)), strict=True)]


def draw(frames: list[Atoms], pairs: list[tuple[int, int]], path: Path) -> dict[str, tuple[float, float]]:
    """Histogram of bond lengths by elements; returns mean and standard deviation of each (Angstrom)."""
    lengths: dict[str, list[float]] = {}
    symbols = frames[0].get_chemical_symbols()
    for i, j in pairs:
        name = "-".join(sorted((symbols[i], symbols[j])))
        lengths.setdefault(name, []).extend(float(frame.get_distance(i, j)) for frame in frames)
    figure, axes = plt.subplots(figsize=(5, 3), layout="constrained")
    for name, values in lengths.items():
        axes.hist(values, bins=40, histtype="step", density=True, label=f"{name} ({len(values)})")
    axes.set_xlabel("bond length (Angstrom)")
    axes.set_ylabel("density (1 / Angstrom)")
    axes.legend(frameon=False)
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return {name: (float(np.mean(values)), float(np.std(values))) for name, values in lengths.items()}


def main() -> None:
    """Run the dynamics, write frames and histogram."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("molecule", help="name that ase.build.molecule knows (H2O, CH3CH2OH), or a file")
    parser.add_argument("-n", "--count", type=int, default=1200)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--temperature", type=float, default=500.0, help="kelvin")
    parser.add_argument("--spacing", type=float, default=20.0, help="femtoseconds between frames")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    start = ase.io.read(options.molecule) if Path(options.molecule).suffix else molecule(options.molecule)
    frames = trajectory(start, options.count, options.temperature, options.spacing, options.seed)
    ase.io.write(options.output, frames, format="extxyz")
    for name, (mean, deviation) in draw(frames, bonds(start), options.output.with_suffix(".png")).items():
        print(f"{name}: {mean:.4f} +- {deviation:.4f} Angstrom")


if __name__ == "__main__":
    main()
