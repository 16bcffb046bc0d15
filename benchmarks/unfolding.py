"""Effective band structures of graphene: python benchmarks/unfolding.py OPENMX_FOLDER -o OUT [--bands N].

Three supercells on the wave vectors of the primitive cell (graphene/prim): the exact 6x6 one, the rattled one of
graphene/test6x6 (0.02 to 0.05 A, 72 atoms, its own DFT), and the exact 6x6 one without one atom (71 atoms; the rows
of one atom are left out, nothing relaxes). OUT/NAME/unfolded.png and .csv each, one line of JSON each.
"""

import argparse
import json
import time
from pathlib import Path

from hamnet.bands.large import LargeSettings
from hamnet.bands.large_studies import study_unfold
from hamnet.core.supercell import supercell, without_atoms
from hamnet_preprocess.openmx import OpenMXReader

PATH, POINTS, WINDOW = "G,M,K,G", 60, (-10.0, 6.0)


def cells(folder):
    """Name -> cell."""
    primitive = OpenMXReader().read(folder / "graphene/prim")
    yield "exact6x6", primitive, supercell(primitive, (6, 6, 1))
    yield "rattled6x6", primitive, OpenMXReader().read(folder / "graphene/test6x6")
    yield "vacancy6x6", primitive, without_atoms(supercell(primitive, (6, 6, 1)), [31])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path("unfolding"))
    parser.add_argument("--only", nargs="*", help="exact6x6, rattled6x6, vacancy6x6")
    parser.add_argument("--bands", type=int, help="states about the Fermi level by a sparse factor; all by LAPACK")
    options = parser.parse_args()
    for name, primitive, cell in cells(options.folder):
        if options.only and name not in options.only:
            continue
        start, cpu = time.perf_counter(), time.process_time()
        large = LargeSettings(options.bands, engine="dense" if options.bands is None else "auto")
        report = study_unfold(cell, primitive.structure, options.output / name, PATH, POINTS, large, WINDOW)
        row = {"cell": name, "atoms": cell.structure.n_atoms, "rows": cell.hamiltonian.n_orbitals}
        row |= {"seconds": round(time.perf_counter() - start, 1), "cpu_seconds": round(time.process_time() - cpu, 1)}
        print(json.dumps(row | report.figures), flush=True)


if __name__ == "__main__":
    main()
