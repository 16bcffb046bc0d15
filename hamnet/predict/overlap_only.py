"""S of structures from a basis alone: an overlap-only calculation, without a network and without a DFT code."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hamnet.core.basis import OrbitalBasis
from hamnet.core.calculation import Calculation, Provenance
from hamnet.data.store import Store, is_store, write_store
from hamnet.errors import HamnetError
from hamnet.predict.batch import named_frames, peak_memory_gb
from hamnet.predict.overlap import OverlapFit, overlap_of, overlap_origin
from hamnet.predict.structures import to_structure


@dataclass(frozen=True, eq=False)
class BasisSource:
    """What a file knows about the overlap.

    Args:
        basis: orbitals, with their radial functions where they are known.
        fit: of the overlap to training data; None where there is none.
        metadata: figures of the fit.
    """

    basis: OrbitalBasis
    fit: OverlapFit | None
    metadata: dict[str, Any]


@dataclass
class OverlapSummary:
    """Figures of one run."""

    structures: int = 0
    atoms: int = 0
    orbitals: int = 0
    pairs: int = 0
    seconds: float = 0.0
    peak_memory_gb: float = 0.0
    origin: str = ""


def basis_source(path: Path | str) -> BasisSource:
    """Basis of a store or of a checkpoint.

    Raises:
        FormatError: the file is neither, or is damaged.
    """
    path = Path(path)
    if is_store(path):
        with Store(path) as store:
            return BasisSource(store.basis, None, {})
    from hamnet.nn.checkpoint import read_content

    content = read_content(path)
    fitted = content["overlap"]
    fit = None if fitted is None else OverlapFit.from_arrays({k: v.numpy() for k, v in fitted.items()})
    return BasisSource(OrbitalBasis.from_json(content["basis"]), fit, content["metadata"])


def overlap_files(
    structures: Sequence[Path],
    basis_from: Path,
    output: Path,
    on_event: Callable[[str], None] = lambda line: None,
) -> OverlapSummary:
    """Write a store with S of every structure of the files.

    Args:
        structures: POSCAR, cif, xyz, extxyz.
        basis_from: store or checkpoint with the basis.
        output: store to write.
        on_event: called with one line for each structure.

    Raises:
        FormatError: a file cannot be read.
        BasisError, PhysicsError: S of a structure cannot be had; the message starts with its name.
    """
    frames = named_frames(structures)
    source = basis_source(basis_from)
    summary = OverlapSummary()
    write_store(output, _calculations(frames, source, str(basis_from), summary, on_event))
    summary.peak_memory_gb = peak_memory_gb()
    return summary


def _calculations(
    frames: list[tuple[str, Any]],
    source: BasisSource,
    origin: str,
    summary: OverlapSummary,
    on_event: Callable[[str], None],
) -> Iterator[tuple[str, Calculation]]:
    for name, atoms in frames:
        start = time.perf_counter()
        try:
            structure = to_structure(atoms, source.basis)
            overlap = overlap_of(structure, source.basis, source.fit)
        except HamnetError as error:
            raise type(error)(f"{name}: {error}") from error
        seconds = time.perf_counter() - start
        summary.structures += 1
        summary.atoms += structure.n_atoms
        summary.orbitals += overlap.n_orbitals
        summary.pairs += overlap.pairs.n_pairs
        summary.seconds += seconds
        summary.origin = overlap_origin(structure, source.basis, source.metadata)
        on_event(
            f"{name}: {structure.n_atoms} atoms, {overlap.n_orbitals} orbitals, {overlap.pairs.n_pairs} pairs, "
            f"{seconds:.2f} s; S {summary.origin}"
        )
        yield (
            name,
            Calculation(
                structure,
                source.basis,
                overlap,
                None,
                n_electrons=source.basis.n_electrons(structure.species),
                provenance=Provenance("hamnet", basis=", ".join(s.label for s in source.basis.species), source=origin),
            ),
        )
