"""Predictor: from a checkpoint and atoms to H and S."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hamnet.core.basis import OrbitalBasis
from hamnet.core.bloch import BlochSum
from hamnet.core.blocks import BlockMatrix
from hamnet.core.calculation import Calculation, Provenance
from hamnet.core.overlap import has_radial_functions
from hamnet.core.pairs import PairList
from hamnet.core.structure import AtomicStructure
from hamnet.errors import ConfigError
from hamnet.nn.checkpoint import Checkpoint, load_checkpoint
from hamnet.nn.moments import has_moments
from hamnet.predict.evaluate import evaluate
from hamnet.predict.overlap import (
    OverlapFit,
    has_exponents,
    overlap_from_file,
    overlap_of,
    overlap_origin,
    reference_from_file,
    structure_pairs,
)
from hamnet.predict.seen import Found, SeenLengths, refuse_unknown
from hamnet.predict.seen import remarks as seen_remarks
from hamnet.predict.structures import to_structure

LARGEST_CHECKED = 800
"""S is diagonalised at Gamma up to this many orbitals: a fraction of a second."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Prediction:
    """A predicted calculation and what is to be said about it.

    Args:
        calculation: H and S (eV; S without unit) of the structure.
        seconds: wall time from the structure to the matrices.
        least_overlap_eigenvalue: of S(Gamma); None when the structure is too large to look.
        remarks: one sentence for each thing that a user should know before trusting the numbers.
    """

    calculation: Calculation
    seconds: float
    least_overlap_eigenvalue: float | None
    remarks: tuple[str, ...]


class Predictor:
    """A trained model ready to predict.

    Example:
        >>> model = hamnet.load("model.ckpt")  # doctest: +SKIP
        >>> hamiltonian = model.predict(atoms)  # doctest: +SKIP
    """

    def __init__(self, checkpoint: Checkpoint, device: str = "cpu") -> None:
        self.checkpoint = checkpoint
        self.device = _device(device)
        self._model = checkpoint.model.to(self.device).eval()
        # float64: a pair at the very end must be there, its block is zero
        self._reach = self._model.pair_cutoffs.cpu().numpy().astype(np.float64)
        arrays = checkpoint.overlap_arrays
        self.overlap_fit = None if arrays is None else OverlapFit.from_arrays(arrays)
        self._seen = SeenLengths.of_checkpoint(checkpoint)

    @classmethod
    def load(cls, path: Path | str, device: str = "cpu") -> Predictor:
        """Predictor from a checkpoint file.

        Raises:
            FormatError: the file is missing or no checkpoint.
            ConfigError: the device does not exist.
        """
        return cls(load_checkpoint(path), device)

    @property
    def model(self) -> Any:
        """The network, on its device."""
        return self._model

    @property
    def parts(self) -> Sequence[Predictor]:
        """The models that predict: this one alone, or the members of an ensemble."""
        return (self,)

    @property
    def reach(self) -> NDArray[np.float64]:
        """(n_species, n_species) Angstrom, where H ends."""
        return self._reach

    @property
    def basis(self) -> OrbitalBasis:
        """Orbitals of the species that the model knows."""
        return self.checkpoint.basis

    def structure(self, atoms: Any) -> AtomicStructure:
        """The atoms with the model's species.

        Raises:
            BasisError: an element that the model does not know; the message names those it knows.
        """
        return to_structure(atoms, self.basis)

    def predict(self, atoms: Any) -> BlockMatrix:
        """H in eV of ASE, pymatgen or hamnet atoms; hermitian to the last bit.

        Raises:
            BasisError: an element that the model does not know.
            PhysicsError: the structure is impossible (two atoms on one place, a singular cell).
        """
        structure = self.structure(atoms)
        pairs = structure_pairs(structure, self.basis, self._reach)
        return evaluate(self._model, structure, pairs, self.device, self.baseline(structure, pairs))

    def baseline(
        self, structure: AtomicStructure, pairs: PairList, reference: BlockMatrix | Path | str | None = None
    ) -> BlockMatrix | None:
        """What is added to the network's output, on the given pairs; None where the model has no baseline.

        Args:
            structure: with the model's species.
            pairs: blocks wanted.
            reference: H0, or a store that holds it for these atoms; None: computed where it can be (PySCF molecules).

        Raises:
            PhysicsError, BasisError: the model needs an H0 that is not given and cannot be computed.
        """
        known = self.checkpoint.baseline
        if known is None or not self.needs_reference:
            return None if known is None else known.predict(structure, self.basis, pairs)
        if reference is None:
            from hamnet_preprocess.pyscf_reference import reference_from_basis

            metadata = self.checkpoint.metadata
            functional, grid = str(metadata.get("functional", "")), str(metadata.get("grid", ""))
            matrix = reference_from_basis(structure, self.basis, known.spin, functional, grid)
        elif isinstance(reference, BlockMatrix):
            matrix = reference
        else:
            matrix = reference_from_file(Path(reference), structure, self.basis)
        return matrix.on_pairs(pairs)

    def calculation(
        self,
        atoms: Any,
        overlap: BlockMatrix | Path | str | None = None,
        reference: BlockMatrix | Path | str | None = None,
    ) -> Calculation:
        """H and S with the number of electrons, as a DFT code would have given them (Fermi energy: not known).

        Remarks on the trustworthiness go to the log `hamnet.predict.predictor`.

        Args:
            atoms: ASE, pymatgen or hamnet atoms.
            overlap: S, or a store that holds it for these atoms; None: from integrals or from the fit.
            reference: H0 for a model that learnt H - H0, or a store that holds it; None: computed where it can be.

        Raises:
            BasisError, PhysicsError: as `predict`; or the overlap is of other atoms.
        """
        prediction = self.run(atoms, overlap, reference)
        for remark in prediction.remarks:
            _log.warning(remark)
        return prediction.calculation

    def run(
        self,
        atoms: Any,
        overlap: BlockMatrix | Path | str | None = None,
        reference: BlockMatrix | Path | str | None = None,
    ) -> Prediction:
        """As `calculation`, with the time and the remarks beside it."""
        start = time.perf_counter()
        structure = self.structure(atoms)
        matrix = self._overlap(structure, overlap)
        remarks = self.seen_remarks(structure, self.found(structure, matrix.pairs))
        baseline = self.baseline(structure, matrix.pairs, reference)
        hamiltonian = evaluate(self._model, structure, matrix.pairs, self.device, baseline)
        seconds = time.perf_counter() - start
        calculation = Calculation(
            structure,
            self.basis,
            matrix,
            hamiltonian,
            baseline if self.needs_reference else None,
            n_electrons=self.n_electrons(structure),
            provenance=self.provenance(),
        )
        least = least_overlap_eigenvalue(matrix)
        if least is not None and least <= 0:
            remarks.append(
                f"the overlap is not positive definite at Gamma (least eigenvalue {least:.2e}), so bands will fail: "
                "atoms may be too close, or their distances outside the training set; give S with --overlap"
            )
        return Prediction(calculation, seconds, least, tuple(remarks))

    def n_electrons(self, structure: AtomicStructure) -> float:
        """Electrons of a structure: of a molecule with the charge of the training data; of a crystal, neutral."""
        charge = 0.0 if structure.is_periodic else float(self.checkpoint.metadata.get("charge", 0.0))
        return self.basis.n_electrons(structure.species) - charge

    def _overlap(self, structure: AtomicStructure, given: BlockMatrix | Path | str | None) -> BlockMatrix:
        """S as it is given, or made from the basis on the pairs that the structure has."""
        if isinstance(given, BlockMatrix):
            return given
        if given is not None:
            return overlap_from_file(Path(given), structure, self.basis)
        pairs = structure_pairs(structure, self.basis, self._reach)
        return overlap_of(structure, self.basis, self.overlap_fit, pairs)

    def overlap_origin(self, structure: AtomicStructure) -> str:
        """Where S of a structure comes from and how far to trust it, in words."""
        return overlap_origin(structure, self.basis, self.checkpoint.metadata)

    @property
    def needs_reference(self) -> bool:
        """Whether the model learnt H - H0, so that a prediction needs H0."""
        known = self.checkpoint.baseline
        return known is not None and known.kind == "reference"

    def found(self, structure: AtomicStructure, pairs: PairList) -> Found:
        """Lengths of the pairs against those of the training set; empty where the model does not remember them.

        Raises:
            BasisError: pairs of species that the training set did not have.
        """
        result = {} if self._seen is None else self._seen.compare(structure, self.basis, pairs, self._reach)
        refuse_unknown(result)
        return result

    def seen_remarks(self, structure: AtomicStructure, found: Found) -> list[str]:
        """What a user should know about lengths of pairs that the training set did not have, and of absent moments."""
        own = has_radial_functions(structure, self.basis) or has_exponents(structure, self.basis)
        lines = seen_remarks(found, "the model" if own else "the overlap (and the model)")
        if self._model.magnetic and not has_moments(structure):
            lines.append(
                "the model takes magnetic moments and no atom has one, so that H is that without magnetism: "
                "set ASE's initial_magmoms, pymatgen's magmom or AtomicStructure.moments"
            )
        return lines

    def provenance(self) -> Provenance:
        """What a prediction says about where it comes from."""
        try:
            number = version("hamnet")
        except PackageNotFoundError:
            number = "unknown"
        metadata = self.checkpoint.metadata
        return Provenance(
            "hamnet",
            number,
            functional=str(metadata.get("functional", "")),
            basis=", ".join(s.label for s in self.basis.species),
            source=str(metadata.get("source", "checkpoint")),
            sha256=self.checkpoint.sha256,
        )


def least_overlap_eigenvalue(overlap: BlockMatrix) -> float | None:
    """Least eigenvalue of S(Gamma); None above `LARGEST_CHECKED` orbitals."""
    if overlap.n_orbitals > LARGEST_CHECKED:
        return None
    dense = BlochSum(overlap).dense(np.zeros(3))
    return float(np.linalg.eigvalsh(dense)[0])


def _device(name: str) -> Any:
    import torch

    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"no device {name!r}: expected cpu, cuda or cuda:N") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device {name!r} was asked for, but torch finds no CUDA device: use cpu")
    return device


def load(path: Path | str | Sequence[Path | str], device: str = "cpu") -> Predictor:
    """Predictor from a checkpoint that `hamnet train` wrote: `hamnet.load("model.ckpt").predict(atoms)`.

    Several paths, or the folder of an ensemble, predict together: the mean of their H.

    Raises:
        FormatError: a file is missing or no checkpoint.
        ConfigError: the device does not exist, or the models do not belong together.
    """
    from hamnet.predict.ensemble import load_models  # which is made of predictors

    return load_models([Path(path)] if isinstance(path, (str, Path)) else [Path(p) for p in path], device)
