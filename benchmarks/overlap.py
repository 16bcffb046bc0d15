"""S of graphene from radial functions: seconds and memory against the number of atoms, one JSON row for each.

    python benchmarks/overlap.py --pao DFT_DATA19/PAO --label C6.0-s2p2d1 --atoms 1000 10000 100000 >> rows.jsonl

Without --pao the radial functions are Gaussians of the same reach: the cost is the same. Each size runs in a process
of its own, so that its peak memory is its own.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np

from hamnet.core.basis import OrbitalBasis, RadialFunction, Shell, Species
from hamnet.core.overlap import overlap_tables, two_centre_overlap
from hamnet.core.pairs import orbital_pairs
from hamnet.core.structure import AtomicStructure
from hamnet_preprocess.openmx_deck import parse_pao
from hamnet_preprocess.openmx_pao import with_radial_functions

GOAL_SECONDS = {10_000: 30.0, 100_000: 600.0}


def gaussian(shell: Shell) -> Shell:
    """The shell with a Gaussian that is negligible at its radius."""
    radius = 1.0 if shell.radius is None else shell.radius
    r = np.linspace(0.0, radius, 500)
    exponent = 18.0 / radius**2
    values = r**shell.l * np.exp(-exponent * r**2)
    values /= np.sqrt(np.trapezoid((r * values) ** 2, r))
    table = RadialFunction(tuple(r.tolist()), tuple(values.tolist()), tuple(np.gradient(values, r).tolist()))
    return replace(shell, radial=table)


def basis_of(label: str, pao: Path | None) -> OrbitalBasis:
    """The basis of a PAO name."""
    species: Species = replace(parse_pao(label)[0], valence_electrons=4.0)
    if pao is not None:
        return with_radial_functions(OrbitalBasis((species,)), pao)
    return OrbitalBasis((replace(species, shells=tuple(gaussian(s) for s in species.shells)),))


def graphene(n_atoms: int) -> AtomicStructure:
    """A rattled sheet of about so many atoms."""
    n = round((n_atoms / 2) ** 0.5)
    cell = np.array([[2.46, 0, 0], [1.23, 2.1304224933, 0], [0, 0, 20.0]])
    grid = np.stack(np.meshgrid(np.arange(n), np.arange(n), [0], indexing="ij"), axis=-1).reshape(-1, 3) @ cell
    positions = np.concatenate((grid, grid + (cell[0] + cell[1]) / 3))
    positions += 0.02 * np.random.default_rng(0).normal(size=positions.shape)
    numbers = np.full(len(positions), 6)
    return AtomicStructure(numbers, 0 * numbers, positions, cell * np.array([[n], [n], [1]]), np.ones(3, dtype=bool))


def row(label: str, pao: Path | None, n_atoms: int) -> dict[str, object]:
    """Figures of one size."""
    basis, structure = basis_of(label, pao), graphene(n_atoms)
    orbital_pairs(graphene(8), basis)  # the first search imports a library, which is no part of the cost
    clock = [time.perf_counter()]
    overlap_tables(basis.species)
    clock.append(time.perf_counter())
    pairs = orbital_pairs(structure, basis)
    clock.append(time.perf_counter())
    overlap = two_centre_overlap(structure, basis, pairs)
    clock.append(time.perf_counter())
    seconds = clock[-1] - clock[0]
    goal = GOAL_SECONDS.get(n_atoms)
    return {
        "date": date.today().isoformat(),
        "what": "overlap",
        "label": label,
        "pao": pao is not None,
        "atoms": structure.n_atoms,
        "orbitals": overlap.n_orbitals // structure.n_atoms,
        "pairs": pairs.n_pairs,
        "seconds": round(seconds, 2),
        "seconds_tables_pairs_blocks": [round(b - a, 2) for a, b in zip(clock, clock[1:], strict=False)],
        "cpu_seconds": round(time.process_time(), 2),
        "values_GB": round(overlap.values.nbytes / 1e9, 3),
        "peak_memory_GB": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, 3),
        "goal_seconds": goal,
        "goal_met": None if goal is None else seconds <= goal,
    }


def rows() -> list[tuple[str, Callable[[], dict[str, object]]]]:
    """Rows of benchmarks/large.py."""
    from large import data_folder

    def call(n_atoms: int) -> Callable[[], dict[str, object]]:
        return lambda: row("C6.0-s2p2d1", data_folder() / "pao", n_atoms)

    return [("overlap-10000x13", call(10_000)), ("overlap-100000x13", call(100_000))]


def main() -> None:
    """Parse, measure each size in its own process, print rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pao", type=Path)
    parser.add_argument("--label", default="C6.0-s2p2d1")
    parser.add_argument("--atoms", type=int, nargs="+", default=[1000, 10_000])
    arguments = parser.parse_args()
    if len(arguments.atoms) == 1:
        sys.stdout.write(json.dumps(row(arguments.label, arguments.pao, arguments.atoms[0])) + "\n")
        return
    for n_atoms in arguments.atoms:
        again = [sys.executable, __file__, "--label", arguments.label, "--atoms", str(n_atoms)]
        subprocess.run(again + ([] if arguments.pao is None else ["--pao", str(arguments.pao)]), check=True)


if __name__ == "__main__":
    main()
