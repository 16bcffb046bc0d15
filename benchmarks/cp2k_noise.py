"""What CP2K's accuracy settings cost and how much noise they leave: H of a crystal against H of it moved rigidly.

    python benchmarks/cp2k_noise.py si|hbn|al BASIS [-o /tmp/cp2k_noise] [CUTOFF,REL_CUTOFF,EPS_DEFAULT,EPS_SCF ...]

The crystal is a small cell rattled by 0.05 A; the move, (0.031, 0.047, 0.019) A, is against the grid. One mu S is
taken out. Printed: mean on the blocks of one atom with itself, mean over elements above 1 meV, largest; all in meV.
"""

import argparse
import resource
from dataclasses import replace
from pathlib import Path
from typing import Any

import ase
import numpy as np
from ase.build import bulk

from hamnet_preprocess.label import label_all
from hamnet_preprocess.label_cp2k import CP2KSettings
from hamnet_preprocess.reader import reader

MOVE = (0.031, 0.047, 0.019)
HEXAGONAL = [[2.504, 0, 0], [-1.252, 1.252 * 3**0.5, 0], [0, 0, 12]]
CRYSTALS = {
    "si": (bulk("Si", a=5.43), (3, 3, 3), None),
    "hbn": (
        ase.Atoms("BN", scaled_positions=[[1 / 3, 2 / 3, 0.5], [2 / 3, 1 / 3, 0.5]], cell=HEXAGONAL, pbc=True),
        (4, 4, 1),
        None,
    ),
    "al": (bulk("Al", cubic=True, a=4.05), (3, 3, 3), 1000.0),
}


def compare(folder: Path) -> dict[str, float]:
    """Figures of one pair of runs."""
    still, moved = (reader("cp2k").read(folder / name) for name in ("still", "moved"))
    a, b, s = still.hamiltonian, moved.hamiltonian, still.overlap
    if a is None or b is None or not np.array_equal(a.pairs.cell_shift, b.pairs.cell_shift):
        raise SystemExit(f"{folder}: the two runs have different pairs; tighten EPS_DEFAULT")
    change = 1e3 * (a.values - b.values)
    change = np.abs(change - change @ s.values / (s.values @ s.values) * s.values)
    own = np.repeat((a.pairs.i == a.pairs.j) & ~a.pairs.cell_shift.any(axis=1), np.diff(a.offsets))
    large = np.abs(a.values) > 1e-3
    return {
        "onsite_meV": float(change[own].mean()),
        "above_1meV_meV": float(change[large].mean()),
        "largest_meV": float(change.max()),
    }


def measure(name: str, settings: CP2KSettings, folder: Path) -> dict[str, Any]:
    """Run one pair where it is not there yet."""
    atoms, kmesh, smearing = CRYSTALS[name]
    still = atoms.copy()
    still.positions += 0.3 + np.random.default_rng(0).normal(0, 0.05, still.positions.shape)
    moved = still.copy()
    moved.positions += MOVE
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    chosen = replace(settings, kmesh=kmesh, smearing=smearing)
    done = label_all("cp2k", [("still", still), ("moved", moved)], folder, chosen)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.failed:
        raise SystemExit(done.failed[0][1])
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"cpu_s": seconds / 2 if len(done.written) == 2 else None, **compare(folder)}


def main() -> None:
    """Print one row for each setting."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("crystal", choices=list(CRYSTALS))
    parser.add_argument("basis")
    parser.add_argument("settings", nargs="*", default=["400,60,1e-12,1e-7"])
    parser.add_argument("-o", "--output", type=Path, default=Path("/tmp/cp2k_noise"))
    options = parser.parse_args()
    for text in options.settings:
        cutoff, rel_cutoff, eps_default, eps_scf = map(float, text.split(","))
        settings = CP2KSettings(options.basis, "PBE", (1, 1, 1), cutoff, rel_cutoff, eps_default, eps_scf)
        folder = options.output / f"{options.crystal}_{options.basis}_{text.replace(',', '_')}"
        print(options.crystal, options.basis, text, measure(options.crystal, settings, folder), flush=True)


if __name__ == "__main__":
    main()
