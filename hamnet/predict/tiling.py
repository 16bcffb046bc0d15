"""`hamnet predict --memory`: structures of any size, tile after tile, into one store, in bounded memory.

The plan (which atom belongs to which tile, how many pairs each atom has) and the store of full size are made first, in
`OUTPUT.tiles/`; then every tile writes its numbers at their places and is noted as done. A run that was killed goes on
with the tiles that are left. The store takes its name when the last tile is in.
"""

from __future__ import annotations

import hashlib
import math
import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hamnet.core.calculation import Calculation
from hamnet.core.files import whole_file
from hamnet.core.structure import AtomicStructure
from hamnet.data.store_in_place import PairLayout, make_store, no_overlap
from hamnet.errors import ConfigError, HamnetError
from hamnet.predict.batch import named_frames
from hamnet.predict.ensemble import model_files
from hamnet.predict.memory import peak_memory, reset_peak, resident_memory
from hamnet.predict.predictor import Predictor
from hamnet.predict.tile import TileEvaluator
from hamnet.predict.tile_runs import TileReport, run_tiles

IntArray = NDArray[np.int64]
OnEvent = Callable[[str], None]

SAMPLES = (100, 400)
"""Atoms of the tiles that are measured before the plan is made."""
LARGEST_TILE = 1000
"""Atoms: beyond this the halo's share falls less than arrays too large for the caches cost."""
USABLE = 0.8
"""Part of the stated memory that the plan fills: allocators keep some back."""
GIGA = 1e9


@dataclass(frozen=True)
class TiledSummary:
    """Figures of a run.

    Args:
        seconds: wall time of everything but loading the model.
        atoms, pairs, tiles: of the structure.
        tiles_done_before: tiles that an earlier run had finished.
        forecast_seconds, forecast_memory_gb: said at the start; NaN where nothing was measured (a resumed run).
        peak_memory_gb: of this process and those that it started, together.
        remarks: what a user should know before trusting the numbers.
    """

    seconds: float
    atoms: int
    pairs: int
    tiles: int
    tiles_done_before: int
    forecast_seconds: float
    forecast_memory_gb: float
    peak_memory_gb: float
    remarks: tuple[str, ...]


@dataclass(frozen=True)
class Measured:
    """What two tiles took: seconds for each atom, bytes of a tile and what each further atom adds.

    Args:
        seconds: for each atom of a tile of the larger size.
        memory: bytes at the peak with such a tile; by_atom: for each atom more.
        atoms: of that tile.
    """

    seconds: float
    memory: float
    by_atom: float
    atoms: int

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


def predict_in_tiles(
    model: Path,
    name: str,
    atoms: Any,
    output: Path,
    memory: int,
    *,
    jobs: int = 1,
    device: str = "cpu",
    tile_atoms: int | None = None,
    on_event: OnEvent = lambda line: None,
) -> TiledSummary:
    """Predict H and S of one structure of any size and write its store.

    Args:
        model: checkpoint.
        name: of the structure in the store.
        atoms: ASE, pymatgen or hamnet atoms.
        output: store to write; what is there is replaced when all is done.
        memory: bytes that all processes together may take.
        jobs: processes.
        device: cpu, cuda or cuda:N.
        tile_atoms: atoms of a tile; None: as the memory allows.
        on_event: called with one line for each thing that a person should see.

    Raises:
        ConfigError: the memory is too small for the smallest tile, or the model cannot predict in tiles.
        BasisError, PhysicsError: the structure cannot be predicted.
        OSError: the store cannot be written.
    """
    predictor = Predictor.load(model, device)
    start = time.perf_counter()
    structure = predictor.structure(atoms)
    evaluator = TileEvaluator(predictor, structure)
    folder = output.with_name(output.name + ".tiles")
    key = _fingerprint(predictor, structure, name)
    plan, measured = _taken_up(folder, key, evaluator, memory / jobs, tile_atoms), None
    peak = 0
    if plan is None:
        measured = _measure(evaluator)
        n_tiles = _n_tiles(measured, structure.n_atoms, memory, jobs, tile_atoms)
        _say(evaluator, measured, n_tiles, jobs, on_event)
        plan = _new_plan(evaluator, n_tiles, measured, on_event)
        _store_plan(folder, key, name, plan, evaluator)
        peak = peak_memory()
    left, before = _left(folder, plan.n_tiles)
    if before:
        on_event(f"{before} of {plan.n_tiles} tiles are taken from {folder}")
    reset_peak()
    reports = run_tiles(evaluator, model, plan.tile, plan.layout, folder, left, jobs, on_event)
    os.replace(folder / "store.h5", output)
    shutil.rmtree(folder, ignore_errors=True)
    peak = max(peak, _peak(reports))
    return _summary(evaluator, plan, before, measured, reports, time.perf_counter() - start, jobs, peak)


def _summary(
    evaluator: TileEvaluator,
    plan: TilePlan,
    before: int,
    measured: Measured | None,
    reports: list[TileReport],
    seconds: float,
    jobs: int,
    peak: int,
) -> TiledSummary:
    structure = evaluator.structure
    unseen = max((report.unseen for report in reports), default=0.0)
    largest = -(-structure.n_atoms // plan.n_tiles)
    return TiledSummary(
        seconds,
        structure.n_atoms,
        plan.layout.n_pairs,
        plan.n_tiles,
        before,
        math.nan if measured is None else measured.seconds * structure.n_atoms / jobs,
        math.nan if measured is None else _need(measured, largest, jobs) / GIGA,
        peak / GIGA,
        tuple(evaluator.predictor.unseen_remarks(structure, unseen)),
    )


def _peak(reports: list[TileReport]) -> int:
    """Bytes of this process and those that it started, each at its peak."""
    peaks = {os.getpid(): peak_memory()}
    for report in reports:
        peaks[report.process] = max(peaks.get(report.process, 0), report.peak_memory)
    return sum(peaks.values())


# ---------------------------------------------------------------- the plan


def _measure(evaluator: TileEvaluator) -> Measured:
    """Two tiles from the middle of the structure, evaluated and thrown away."""
    n = evaluator.structure.n_atoms
    nothing = np.zeros((n, len(evaluator.n_orbitals)), dtype=np.int64)
    layout = PairLayout(evaluator.structure.species, evaluator.n_orbitals, nothing, nothing)
    found: list[tuple[int, float, float]] = []
    for size in sorted({min(size, n) for size in SAMPLES}):
        tiles = evaluator.tiling.cut(-(-n // size))
        core = tiles[len(tiles) // 2]
        reset_peak()
        start = time.perf_counter()
        evaluator.evaluate(core, layout)
        found.append((len(core), time.perf_counter() - start, float(peak_memory())))
    atoms, seconds, memory = found[-1]
    small = found[0] if len(found) > 1 else (0, 0.0, float(resident_memory()))
    by_atom = max(memory - small[2], 0.0) / max(atoms - small[0], 1)
    return Measured(seconds / atoms, memory, by_atom, atoms)


def _n_tiles(measured: Measured, n_atoms: int, memory: int, jobs: int, tile_atoms: int | None) -> int:
    """Tiles as large as the memory allows; a whole number for each process.

    Raises:
        ConfigError: the memory does not hold the tile that was measured.
    """
    allowed = (USABLE * memory - _overhead(jobs)) / jobs
    if tile_atoms is None and allowed < measured.memory:
        raise ConfigError(
            f"--memory {memory / GIGA:.2f}GB with {jobs} process(es) does not hold a tile of {measured.atoms} atoms, "
            f"which takes {measured.memory / GIGA:.2f} GB in each: allow "
            f"{math.ceil(10 * _need(measured, measured.atoms, jobs) / USABLE / GIGA) / 10}GB or fewer --jobs"
        )
    most = LARGEST_TILE if measured.by_atom == 0 else measured.atoms + (allowed - measured.memory) / measured.by_atom
    size = max(1, int(min(most, LARGEST_TILE))) if tile_atoms is None else tile_atoms
    n_tiles = -(-n_atoms // size)
    return min(n_atoms, -(-n_tiles // jobs) * jobs)


def _overhead(jobs: int) -> float:
    """Bytes of the process that only waits for others."""
    return float(resident_memory()) if jobs > 1 else 0.0


def _need(measured: Measured, atoms: int, jobs: int) -> float:
    """Bytes of all processes together with tiles of so many atoms."""
    return _overhead(jobs) + jobs * measured.at(atoms)


def _say(evaluator: TileEvaluator, measured: Measured, n_tiles: int, jobs: int, on_event: OnEvent) -> None:
    n = evaluator.structure.n_atoms
    size = -(-n // n_tiles)
    seconds, memory = measured.seconds * n / jobs, _need(measured, size, jobs) / GIGA
    on_event(
        f"{n} atoms in {n_tiles} tiles of {size}, halo {evaluator.halo:.1f} A; expected: about {seconds:.0f} s and "
        f"{memory:.2f} GB with {jobs} process(es)"
    )
    on_event(f"overlap {evaluator.predictor.overlap_origin(evaluator.structure)}")


def _new_plan(evaluator: TileEvaluator, n_tiles: int, measured: Measured, on_event: OnEvent) -> TilePlan:
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


def _store_plan(folder: Path, key: str, name: str, plan: TilePlan, evaluator: TileEvaluator) -> None:
    """The store of full size first, then the plan: a plan that is there is complete."""
    shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.mkdir()
    except OSError as error:
        raise ConfigError(f"cannot make the folder {folder}: {error.strerror}: choose another --output") from error
    predictor, structure = evaluator.predictor, evaluator.structure
    calculation = Calculation(
        structure,
        predictor.basis,
        no_overlap(predictor.basis, structure.species),
        n_electrons=predictor.basis.n_electrons(structure.species),
        provenance=predictor.provenance(),
    )
    make_store(folder / "store.h5", name, calculation, predictor.model.spin, plan.layout)
    layout = plan.layout
    arrays: dict[str, Any] = {"key": np.array(key), "tile": plan.tile, "pairs": layout.pairs, "kept": layout.kept}
    with whole_file(folder / "plan.npz") as temporary:
        np.savez(temporary, **arrays, memory=np.array(plan.memory))


def _fingerprint(predictor: Predictor, structure: AtomicStructure, name: str) -> str:
    """Text that changes with the model, the atoms or their name."""
    digest = hashlib.blake2b(f"{name} {predictor.checkpoint.sha256}".encode(), digest_size=16)
    moments = np.zeros(0) if structure.moments is None else structure.moments
    for part in (structure.species, structure.positions, structure.lattice, structure.pbc, moments):
        digest.update(np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()


def _taken_up(
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


def _left(folder: Path, n_tiles: int) -> tuple[list[int], int]:
    """Tiles to do, and how many are done."""
    journal = folder / "done"
    text = journal.read_text() if journal.exists() else ""
    whole = text[: text.rfind("\n") + 1]
    if whole != text:  # a line without its end was cut short by a kill
        journal.write_text(whole)
    done = {int(line) for line in whole.split()}
    return [k for k in range(n_tiles) if k not in done], len(done)


def predict_file_in_tiles(
    models: Sequence[Path],
    structures: Sequence[Path],
    output: Path,
    memory: int,
    *,
    jobs: int = 1,
    device: str = "cpu",
    on_event: OnEvent = lambda line: None,
) -> TiledSummary:
    """`predict_in_tiles` of the one structure in a file.

    Args:
        models: one checkpoint, or the folder of a run.
        structures: one file with one structure.
        output, memory, jobs, device, on_event: as `predict_in_tiles`.

    Raises:
        ConfigError: several models or structures; and what `predict_in_tiles` raises.
        FormatError: a file cannot be read.
    """
    files = [file for path in models for file in model_files(path)]
    frames = named_frames(structures)
    if len(files) != 1 or len(frames) != 1:
        raise ConfigError(
            f"--memory predicts one structure by one model, found {len(frames)} structure(s) and {len(files)} "
            "model(s): give one of each, or leave --memory out"
        )
    name, atoms = frames[0]
    try:
        return predict_in_tiles(files[0], name, atoms, output, memory, jobs=jobs, device=device, on_event=on_event)
    except HamnetError as error:
        raise type(error)(f"{name}: {error}") from error
