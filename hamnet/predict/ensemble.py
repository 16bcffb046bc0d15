"""Several models of one training set as one: the mean of their H, and their spread block by block."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hamnet.core.blocks import BlockMatrix
from hamnet.core.files import whole_file
from hamnet.core.pairs import PairList
from hamnet.core.structure import AtomicStructure
from hamnet.errors import ConfigError, FormatError
from hamnet.nn.checkpoint import Checkpoint, load_checkpoint
from hamnet.nn.dataset import overlap_like
from hamnet.predict.predictor import Prediction, Predictor

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
MODEL_SUFFIX = ".ckpt"


@dataclass(frozen=True, eq=False)
class EnsemblePrediction(Prediction):
    """A mean prediction and how far the members are apart.

    Args:
        spread: (n_pairs,) eV, `block_spread` on the pairs of H.
    """

    spread: FloatArray


class Ensemble(Predictor):
    """Models of the same orbitals, predicting together: H is the mean of theirs.

    Args:
        checkpoints: two or more.
        device: cpu, cuda or cuda:N.

    Raises:
        ConfigError: the models have other orbitals or another spin layout than the first.
    """

    def __init__(self, checkpoints: Sequence[Checkpoint], device: str = "cpu") -> None:
        super().__init__(checkpoints[0], device)
        first = checkpoints[0]
        for number, other in enumerate(checkpoints[1:], start=2):
            if other.basis.hash != first.basis.hash or other.spin is not first.spin:
                raise ConfigError(
                    f"model {number} of the ensemble has other orbitals or another spin layout than the first "
                    f"({', '.join(s.label for s in other.basis.species)}; {other.spin.value}): "
                    "give models of one `hamnet train --ensemble`"
                )
        self.members = [Predictor(checkpoint, device) for checkpoint in checkpoints]

    @property
    def parts(self) -> Sequence[Predictor]:
        """The members."""
        return self.members

    @property
    def reach(self) -> FloatArray:
        """(n_species, n_species) Angstrom, where the last of the members' H ends."""
        return np.asarray(np.max([member.reach for member in self.members], axis=0))

    def predict(self, atoms: Any) -> BlockMatrix:
        """Mean H in eV; hermitian to the last bit."""
        matrices = [member.predict(atoms) for member in self.members]
        return mean_matrix(matrices)

    def run(
        self,
        atoms: Any,
        overlap: BlockMatrix | Path | str | None = None,
        reference: BlockMatrix | Path | str | None = None,
    ) -> EnsemblePrediction:
        """Mean H, S and the spread of H; S and H0 are made once."""
        first = self.members[0].run(atoms, overlap, reference)
        same = first.calculation
        known = same.reference_hamiltonian if same.reference_hamiltonian is not None else reference
        predictions = [first, *(member.run(atoms, same.overlap, known) for member in self.members[1:])]
        matrices = [p.calculation.hamiltonian for p in predictions if p.calculation.hamiltonian is not None]
        mean = mean_matrix(matrices)
        provenance = replace(same.provenance, source=f"mean of {len(matrices)} models")
        calculation = replace(same, hamiltonian=mean, provenance=provenance)
        spread = block_spread(matrices, same.overlap if zero_is_free(self, same.structure) else None)
        remark = spread_remark(len(matrices), same.overlap.pairs.i, same.overlap.pairs.j, spread)
        seconds = sum(p.seconds for p in predictions)
        return EnsemblePrediction(
            calculation, seconds, first.least_overlap_eigenvalue, (*first.remarks, remark), spread
        )


def mean_matrix(matrices: Sequence[BlockMatrix]) -> BlockMatrix:
    """Mean of matrices on the same pairs."""
    return matrices[0].with_values(np.mean([matrix.values for matrix in matrices], axis=0))


def zero_is_free(predictor: Predictor, structure: AtomicStructure) -> bool:
    """Whether H of a structure is known only up to mu S, as the model was trained."""
    rule = predictor.checkpoint.config.training.energy_zero
    return bool(structure.pbc.all()) if rule == "auto" else rule == "remove"


def spread_remark(n_models: int, i: IntArray, j: IntArray, spread: FloatArray) -> str:
    """One sentence about how far models are apart.

    Args:
        n_models: models.
        i, j: (n_pairs,) atoms of each block.
        spread: (n_pairs,) eV.
    """
    root, worst = float(np.sqrt(np.mean(np.square(spread)))), int(np.argmax(spread))
    return (
        f"{n_models} models differ by {1000 * root:.2f} meV (rms over blocks), most in the block of atoms {i[worst]} "
        f"and {j[worst]}: {1000 * spread[worst]:.2f} meV"
    )


def block_spread(matrices: Sequence[BlockMatrix], overlap: BlockMatrix | None) -> FloatArray:
    """(n_pairs,) eV: root of the mean, over the numbers of a block, of the members' variance (n - 1 in the divisor).

    Args:
        matrices: H of two or more members on the same pairs.
        overlap: S; then mu_k S, with mu_k = <H_k - mean, S> / <S, S>, is taken out first, because the energy zero is
            free. None: it is physical.
    """
    deviations = np.stack([matrix.values for matrix in matrices]) - mean_matrix(matrices).values
    if overlap is not None:
        s = overlap_like(overlap, matrices[0]).values
        shifts = (deviations @ s.conj()).real / np.vdot(s, s).real
        deviations = deviations - shifts[:, None] * s
    variance = np.square(np.abs(deviations)).sum(axis=0) / (len(matrices) - 1)
    offsets = matrices[0].offsets
    return np.asarray(np.sqrt(np.add.reduceat(variance, offsets[:-1]) / np.diff(offsets)))


def model_files(path: Path) -> list[Path]:
    """Checkpoints meant by a path: the file itself, or model.ckpt of a run or of every member of an ensemble's folder.

    Raises:
        FormatError: a folder without any.
    """
    if not path.is_dir():
        return [path]
    own = path / "model.ckpt"
    members = sorted(path.glob("*/model.ckpt"), key=lambda p: (len(p.parent.name), p.parent.name))
    found = [own] if own.is_file() else members
    if not found:
        raise FormatError(f"no model.ckpt in {path} or in a folder below it: give the output folder of `hamnet train`")
    return found


def model_file(path: Path) -> Path:
    """The one checkpoint meant by a path: a file, or the folder of the training that wrote it.

    Raises:
        ConfigError: a folder of several models.
        FormatError: a folder of none.
    """
    found = model_files(path)
    if len(found) > 1:
        raise ConfigError(f"{path} holds {len(found)} models and one is wanted here: name one, as {found[0]}")
    return found[0]


def models_and_structures(paths: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """The first path and all further checkpoints; the others.

    Raises:
        ConfigError: nothing is left to predict.
    """
    models = [path for k, path in enumerate(paths) if k == 0 or path.suffix == MODEL_SUFFIX]
    structures = [path for path in paths[1:] if path.suffix != MODEL_SUFFIX]
    if not structures:
        raise ConfigError("only models were given: name at least one file of structures after them")
    return models, structures


def load_models(paths: Sequence[Path], device: str = "cpu") -> Predictor:
    """Predictor of one model, Ensemble of several.

    Raises:
        FormatError: a file is missing or no checkpoint.
        ConfigError: the models do not belong together, or the device does not exist.
    """
    checkpoints = [load_checkpoint(file) for path in paths for file in model_files(path)]
    return Predictor(checkpoints[0], device) if len(checkpoints) == 1 else Ensemble(checkpoints, device)


def write_spread(path: Path, spreads: Mapping[str, tuple[PairList | IntArray, FloatArray]]) -> None:
    """NumPy archive beside a store: `names`; for structure k `k/pairs` (n, 5: i, j, R) and `k/spread` (n,) in eV.

    Args:
        path: file to write.
        spreads: name -> pairs, as a list or as the table that is written, and spread.
    """
    arrays: dict[str, Any] = {"names": np.array(list(spreads))}
    for k, (pairs, spread) in enumerate(spreads.values()):
        table = np.column_stack((pairs.i, pairs.j, pairs.cell_shift)) if isinstance(pairs, PairList) else pairs
        arrays[f"{k}/pairs"], arrays[f"{k}/spread"] = table, spread
    with whole_file(path) as temporary:
        np.savez(temporary, **arrays)


def spread_path(store: Path) -> Path:
    """Where the spread of the predictions in a store is written: H.h5 -> H.spread.npz."""
    return store.with_suffix(".spread.npz")
