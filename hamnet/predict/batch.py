"""Predictions for files of structures, written as a store."""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hamnet.core.calculation import Calculation
from hamnet.core.pairs import PairList
from hamnet.core.spin import Spin
from hamnet.data.store import write_store
from hamnet.errors import HamnetError
from hamnet.nn.checkpoint import as_spinor
from hamnet.nn.moments import OFF_AXIS, across
from hamnet.predict.ensemble import Ensemble, EnsemblePrediction, load_models, spread_path, write_spread
from hamnet.predict.predictor import Predictor
from hamnet.predict.structures import moments_of, read_structures

OF_COLLINEAR = "the model is of collinear data: H is given as spinors, moments of any direction, no spin-orbit coupling"
"""What is said of such predictions."""


@dataclass
class Summary:
    """Figures of a run: wall time of the predictions themselves, pairs of all structures, memory of the process."""

    seconds: float = 0.0
    pairs: int = 0
    structures: int = 0
    peak_memory_gb: float = 0.0
    least_overlap_eigenvalue: float | None = None
    remarks: tuple[str, ...] = ()
    spreads: dict[str, tuple[PairList, NDArray[np.float64]]] = field(default_factory=dict)
    """Of an ensemble: pairs and spread (eV) of each structure."""

    def figures(self) -> dict[str, Any]:
        """JSON-ready, without the spreads, which have a file of their own."""
        return {
            "seconds": self.seconds,
            "peak_memory_GB": self.peak_memory_gb,
            "pairs": self.pairs,
            "structures": self.structures,
            "remarks": self.remarks,
            "least_overlap_eigenvalue": self.least_overlap_eigenvalue,
        }


def predict_files(
    model: Path | Sequence[Path],
    structures: Sequence[Path],
    output: Path,
    *,
    overlap: Path | None = None,
    reference: Path | None = None,
    device: str = "cpu",
    spinor: bool = False,
    on_event: Callable[[str], None] = lambda line: None,
) -> Summary:
    """Predict every structure of the files and write one store; nothing is written when any of them fails.

    Args:
        model: checkpoint; or several, or the folder of an ensemble: then H is their mean, and their spread block by
            block is written beside the store (`hamnet.predict.ensemble.write_spread`).
        structures: POSCAR, cif, xyz, extxyz.
        output: store to write.
        overlap: store with S of the same atoms; None: from integrals or the model's fit.
        reference: store with H0 of the same atoms, for a model that learnt H - H0; None: computed where it can be.
        device: cpu, cuda or cuda:N.
        spinor: H of a collinear model as spinors; it is so without asking where a moment is tilted against z, for all
            structures of the run then, since a store has one layout.
        on_event: called with one line for each structure and each remark.

    Raises:
        FormatError: a file cannot be read.
        BasisError, PhysicsError: a structure cannot be predicted; the message starts with its name.
    """
    frames = named_frames(structures)
    predictor = load_models([model] if isinstance(model, Path) else model, device)
    summary = Summary()
    if predictor.checkpoint.spin is not Spin.SPINOR and (spinor or asks_for_spinors(predictor, frames)):
        predictor = as_spinors(predictor)
        summary.remarks = (OF_COLLINEAR,)
        on_event(f"note: {OF_COLLINEAR}")
    write_store(output, _calculations(predictor, frames, (overlap, reference), summary, on_event))
    if summary.spreads:
        write_spread(spread_path(output), summary.spreads)
    summary.peak_memory_gb = peak_memory_gb()
    return summary


def asks_for_spinors(predictor: Predictor, frames: list[tuple[str, Any]]) -> bool:
    """Whether a collinear model with moments meets a moment across z."""
    if predictor.checkpoint.spin is not Spin.COLLINEAR or not predictor.model.magnetic:
        return False
    found = (moments_of(atoms) for _, atoms in frames)
    return any(across(moments) > OFF_AXIS for moments in found if moments is not None)


def as_spinors(predictor: Predictor) -> Predictor:
    """A model or an ensemble of collinear data that gives spinors.

    Raises:
        PhysicsError: a model was trained without spin.
    """
    checkpoints = [as_spinor(p.checkpoint) for p in getattr(predictor, "members", [predictor])]
    device = str(predictor.device)
    return Predictor(checkpoints[0], device) if len(checkpoints) == 1 else Ensemble(checkpoints, device)


def _calculations(
    predictor: Predictor,
    frames: list[tuple[str, Any]],
    given: tuple[Path | None, Path | None],
    summary: Summary,
    on_event: Callable[[str], None],
) -> Iterator[tuple[str, Calculation]]:
    for name, atoms in frames:
        try:
            prediction = predictor.run(atoms, *given)
        except HamnetError as error:
            raise type(error)(f"{name}: {error}") from error
        n_pairs = prediction.calculation.overlap.pairs.n_pairs
        on_event(f"{name}: {len(atoms)} atoms, {n_pairs} pairs, {prediction.seconds:.2f} s")
        if given[0] is None:
            on_event(f"  overlap {predictor.overlap_origin(prediction.calculation.structure)}")
        for remark in prediction.remarks:
            on_event(f"  note: {remark}")
        summary.seconds += prediction.seconds
        summary.pairs += n_pairs
        summary.structures += 1
        summary.remarks += tuple(f"{name}: {remark}" for remark in prediction.remarks)
        known = (summary.least_overlap_eigenvalue, prediction.least_overlap_eigenvalue)
        summary.least_overlap_eigenvalue = min((value for value in known if value is not None), default=None)
        if isinstance(prediction, EnsemblePrediction):
            summary.spreads[name] = prediction.calculation.overlap.pairs, prediction.spread
        yield name, prediction.calculation


def named_frames(paths: Sequence[Path]) -> list[tuple[str, Any]]:
    """Structures of several files; where names collide (many POSCARs) the folder's name comes first."""
    frames = [(path, name, atoms) for path in paths for name, atoms in read_structures(path)]
    names = [name for _, name, _ in frames]
    result: list[tuple[str, Any]] = []
    used: set[str] = set()
    for path, name, atoms in frames:
        base = name if names.count(name) == 1 else f"{path.resolve().parent.name}/{name}"
        unique, n = base, 1
        while unique in used:
            unique, n = f"{base}-{n}", n + 1
        used.add(unique)
        result.append((unique, atoms))
    return result


def peak_memory_gb() -> float:
    """Largest resident memory of this process so far, in 10^9 bytes."""
    unit = 1 if sys.platform == "darwin" else 1024  # kilobytes except on macOS
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
