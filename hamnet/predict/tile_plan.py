"""The plan of a prediction in tiles: measured on small tiles, kept in a folder, taken up after a kill."""

from __future__ import annotations

import hashlib
import math
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hamnet.core.calculation import Calculation, Provenance
from hamnet.core.files import whole_file
from hamnet.core.structure import AtomicStructure
from hamnet.data.store_in_place import PairLayout, make_store, no_overlap, store_size
from hamnet.errors import ConfigError
from hamnet.predict.memory import peak_memory, reset_peak, resident_memory
from hamnet.predict.predictor import Predictor
from hamnet.predict.seen import Found, from_text
from hamnet.predict.tile import TileEvaluator
from hamnet.predict.tile_spread import SpreadFile

IntArray = NDArray[np.int64]
OnEvent = Callable[[str], None]

SAMPLES = (100, 400)
"""Atoms of the tiles that are measured before the plan is made."""
LARGEST_TILE = 1000
"""Atoms: beyond this the halo's share falls less than arrays too large for the caches cost."""
LARGEST_NUMBERS = 1_500_000
"""Float64 numbers of a tile's H: with more of them tiles of 400 atoms are cheaper for each atom than larger ones."""
USABLE = 0.8
"""Part of the stated memory that the plan fills: allocators keep some back."""
GIGA = 1e9


@dataclass(frozen=True)
class Measured:
    """What two tiles took: seconds for each atom, bytes of a tile and what each further atom adds.

    Args:
        seconds: for each atom of a tile of the larger size.
        memory: bytes at the peak with such a tile; by_atom: for each atom more.
        atoms: of that tile.
        numbers: float64 numbers of H for each atom.
    """

    seconds: float
    memory: float
    by_atom: float
    atoms: int
    numbers: float

    @property
    def largest(self) -> int:
        """Atoms of the largest tile that pays."""
        return int(min(LARGEST_TILE, max(SAMPLES[-1], LARGEST_NUMBERS / max(self.numbers, 1.0))))

    def at(self, atoms: int) -> float:
        """Bytes at the peak with tiles of so many atoms; the halo's share falls, so this is rather too much."""
        return self.memory + self.by_atom * max(atoms - self.atoms, 0)


@dataclass(frozen=True, eq=False)
class TilePlan:
    """How a structure is cut, and where everything stands.

    Args:
        tile: (n_atoms,) number of the tile of each atom.
        layout: of the pairs.
        memory: bytes that a process needs; 0: not measured.
    """

    tile: IntArray
    layout: PairLayout
    memory: float

    @property
    def n_tiles(self) -> int:
        """Number of tiles."""
        return int(self.tile.max()) + 1

    def atoms(self, tile: int) -> IntArray:
        """Atoms of a tile, sorted."""
        return np.flatnonzero(self.tile == tile)


def measure(evaluator: TileEvaluator) -> Measured:
    """Two tiles from the middle of the structure, evaluated and thrown away."""
    n = evaluator.structure.n_atoms
    nothing = np.zeros((n, len(evaluator.n_orbitals)), dtype=np.int64)
    layout = PairLayout(evaluator.structure.species, evaluator.n_orbitals, nothing, nothing)
    found: list[tuple[int, float, float]] = []
    numbers = 0.0
    for size in sorted({min(size, n) for size in SAMPLES}):
        tiles = evaluator.tiling.cut(-(-n // size))
        core = tiles[len(tiles) // 2]
        reset_peak()
        start = time.perf_counter()
        numbers = evaluator.evaluate(core, layout).hamiltonian.size / len(core)
        found.append((len(core), time.perf_counter() - start, float(peak_memory())))
    atoms, seconds, memory = found[-1]
    small = found[0] if len(found) > 1 else (0, 0.0, float(resident_memory()))
    by_atom = max(memory - small[2], 0.0) / max(atoms - small[0], 1)
    return Measured(seconds / atoms, memory, by_atom, atoms, numbers)


def tile_count(measured: Measured, n_atoms: int, memory: int, jobs: int, tile_atoms: int | None) -> int:
    """Tiles as large as the memory allows; a whole number for each process.

    Raises:
        ConfigError: the memory does not hold the tile that was measured.
    """
    allowed = (USABLE * memory - _overhead(jobs)) / jobs
    if tile_atoms is None and allowed < measured.memory:
        raise ConfigError(
            f"--memory {memory / GIGA:.2f}GB with {jobs} process(es) does not hold a tile of {measured.atoms} atoms, "
            f"which takes {measured.memory / GIGA:.2f} GB in each: allow "
            f"{math.ceil(10 * needed_memory(measured, measured.atoms, jobs) / USABLE / GIGA) / 10}GB or fewer --jobs"
        )
    most = math.inf if measured.by_atom == 0 else measured.atoms + (allowed - measured.memory) / measured.by_atom
    size = max(1, int(min(most, measured.largest))) if tile_atoms is None else tile_atoms
    n_tiles = -(-n_atoms // size)
    return min(n_atoms, -(-n_tiles // jobs) * jobs)


def _overhead(jobs: int) -> float:
    """Bytes of the process that only waits for others."""
    return float(resident_memory()) if jobs > 1 else 0.0


def needed_memory(measured: Measured, atoms: int, jobs: int) -> float:
    """Bytes of all processes together with tiles of so many atoms."""
    return _overhead(jobs) + jobs * measured.at(atoms)


def say_forecast(evaluator: TileEvaluator, measured: Measured, n_tiles: int, jobs: int, on_event: OnEvent) -> None:
    """Say what time and memory are expected, and where S comes from."""
    n = evaluator.structure.n_atoms
    size = -(-n // n_tiles)
    seconds, memory = measured.seconds * n / jobs, needed_memory(measured, size, jobs) / GIGA
    on_event(
        f"{n} atoms in {n_tiles} tiles of {size}, halo {evaluator.halo:.1f} A; expected: about {seconds:.0f} s and "
        f"{memory:.2f} GB with {jobs} process(es)"
    )
    given = evaluator.given
    origin = evaluator.predictor.overlap_origin(evaluator.structure) if given is None else f"from {given.path}"
    on_event(f"overlap {origin}")


def new_plan(evaluator: TileEvaluator, n_tiles: int, measured: Measured, on_event: OnEvent) -> TilePlan:
    """Cut the structure and count its pairs.

    Raises:
        PhysicsError: two atoms are on one place.
    """
    n = evaluator.structure.n_atoms
    shape = n, len(evaluator.n_orbitals)
    every, kept = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    tile = np.zeros(n, dtype=np.int64)
    start = time.perf_counter()
    for k, core in enumerate(evaluator.tiling.cut(n_tiles)):
        tile[core] = k
        every[core], kept[core] = evaluator.counts(core)
    layout = PairLayout(evaluator.structure.species, evaluator.n_orbitals, every, kept)
    on_event(f"{layout.n_pairs} pairs counted in {time.perf_counter() - start:.1f} s")
    return TilePlan(tile, layout, measured.at(-(-n // n_tiles)))


def _check_disk(folder: Path, size: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < size:
        raise ConfigError(
            f"the store takes {size / GIGA:.2f} GB and {folder} has {free / GIGA:.2f} GB left: make room or choose "
            "another --output"
        )


def spread_file(folder: Path, plan: TilePlan, evaluator: TileEvaluator) -> SpreadFile | None:
    """Where tiles keep how far the models of an ensemble are apart; None: one model."""
    n = len(evaluator.predictor.parts)
    return SpreadFile(folder / "spread", plan.layout.n_pairs, n) if n > 1 else None


def store_plan(folder: Path, key: str, name: str, plan: TilePlan, evaluator: TileEvaluator) -> None:
    """The store of full size first, then the plan: a plan that is there is complete."""
    shutil.rmtree(folder, ignore_errors=True)
    spread = spread_file(folder, plan, evaluator)
    size = store_size(plan.layout, evaluator.predictor.model.spin)
    _check_disk(folder.parent, size + (0 if spread is None else spread.n_bytes))
    try:
        folder.mkdir()
    except OSError as error:
        raise ConfigError(f"cannot make the folder {folder}: {error.strerror}: choose another --output") from error
    predictor, structure = evaluator.predictor, evaluator.structure
    calculation = Calculation(
        structure,
        predictor.basis,
        no_overlap(predictor.basis, structure.species),
        n_electrons=predictor.n_electrons(structure),
        provenance=tile_provenance(predictor),
    )
    make_store(folder / "store.h5", name, calculation, predictor.model.spin, plan.layout, key)
    if spread is not None:
        spread.make()
    layout = plan.layout
    arrays: dict[str, Any] = {"key": np.array(key), "tile": plan.tile, "pairs": layout.pairs, "kept": layout.kept}
    with whole_file(folder / "plan.npz") as temporary:
        np.savez(temporary, **arrays, memory=np.array(plan.memory))


def tile_provenance(predictor: Predictor) -> Provenance:
    """What a prediction says about where it comes from: of several models, that it is their mean."""
    n = len(predictor.parts)
    return predictor.provenance() if n == 1 else replace(predictor.provenance(), source=f"mean of {n} models")


def fingerprint(predictor: Predictor, structure: AtomicStructure, name: str, overlap: Path | None = None) -> str:
    """Text that changes with the models, the atoms or their name, and the file of the given S."""
    models = " ".join(part.checkpoint.sha256 for part in predictor.parts)
    digest = hashlib.blake2b(f"{name} {models} {predictor.model.spin.value}".encode(), digest_size=16)
    if overlap is not None:
        facts = overlap.stat()
        digest.update(f"{overlap.resolve()} {facts.st_size} {facts.st_mtime_ns}".encode())
    moments = np.zeros(0) if structure.moments is None else structure.moments
    for part in (structure.species, structure.positions, structure.lattice, structure.pbc, moments):
        digest.update(np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()


def earlier_plan(
    folder: Path, key: str, evaluator: TileEvaluator, memory: float, tile_atoms: int | None
) -> TilePlan | None:
    """The plan of an earlier run of the same task; None where there is none, or its tiles are too large."""
    if not (folder / "plan.npz").exists() or not (folder / "store.h5").exists():
        return None
    with np.load(folder / "plan.npz", allow_pickle=False) as file:
        if str(file["key"]) != key:
            return None
        layout = PairLayout(evaluator.structure.species, evaluator.n_orbitals, file["pairs"], file["kept"])
        plan = TilePlan(file["tile"], layout, float(file["memory"]))
    return plan if tile_atoms is not None or plan.memory <= memory else None


def tiles_left(folder: Path, n_tiles: int) -> tuple[list[int], list[Found]]:
    """Tiles to do, and what those that are done found of lengths of pairs; a line of the journal is both."""
    journal = folder / "done"
    text = journal.read_text() if journal.exists() else ""
    whole = text[: text.rfind("\n") + 1]
    if whole != text:  # a line without its end was cut short by a kill
        journal.write_text(whole)
    done = {int(number): from_text(found) for number, _, found in (line.partition(" ") for line in whole.splitlines())}
    return [k for k in range(n_tiles) if k not in done], list(done.values())
