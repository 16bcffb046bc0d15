"""The checkpoint: one file with everything that a prediction needs.

A dictionary of tensors, numbers and text, so that `torch.load(weights_only=True)` reads it: no code runs on loading.
The fitted overlap is kept as plain arrays, because the fit itself belongs to a layer above.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hamnet.config import Config
from hamnet.core.basis import OrbitalBasis
from hamnet.core.spin import Spin
from hamnet.errors import FormatError
from hamnet.nn.model import HamiltonianModel, spinor_twin
from hamnet.nn.prior import Baseline
from hamnet.nn.statistics import Statistics

KIND = "hamnet checkpoint"
FORMAT = 1
ArrayDict = dict[str, NDArray[Any]]


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """What a checkpoint file holds.

    Args:
        model: the network with its weights, in evaluation mode, on the CPU.
        config: configuration of the training.
        basis: orbitals of the species that the model knows.
        spin: layout of the blocks.
        statistics: normalisation from the training set.
        overlap_arrays: fitted overlap as plain arrays; None where the orbitals are Gaussians.
        metadata: text and numbers: figures of the training, versions.
        sha256: of the file; empty when it was not read from one.
        baseline: what is added to the network's output to make H; None: nothing.
    """

    model: HamiltonianModel
    config: Config
    basis: OrbitalBasis
    spin: Spin
    statistics: Statistics
    overlap_arrays: ArrayDict | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    sha256: str = ""
    baseline: Baseline | None = None


def as_spinor(checkpoint: Checkpoint) -> Checkpoint:
    """A collinear model as one of spinors without spin-orbit coupling (`spinor_twin`); spinors come back unchanged.

    Raises:
        PhysicsError: the model was trained without spin.
    """
    if checkpoint.spin is Spin.SPINOR:
        return checkpoint
    model = spinor_twin(checkpoint.model)
    baseline = None if checkpoint.baseline is None else replace(checkpoint.baseline, spin=Spin.SPINOR)
    return replace(checkpoint, model=model, spin=Spin.SPINOR, statistics=model.statistics, baseline=baseline)


def save_checkpoint(path: Path | str, checkpoint: Checkpoint, state: Mapping[str, torch.Tensor] | None = None) -> None:
    """Write a checkpoint: to a temporary name beside it, then renamed, so that a kill leaves the old file whole.

    Args:
        path: file to write.
        checkpoint: what to write.
        state: weights to write instead of the model's own (an average of them).
    """
    weights = checkpoint.model.state_dict() if state is None else state
    baseline = None if checkpoint.baseline is None else checkpoint.baseline.to_arrays()
    content = {
        "kind": KIND,
        "format": FORMAT,
        "config": checkpoint.config.model_dump_json(),
        "basis": checkpoint.basis.to_json(),
        "spin": checkpoint.spin.value,
        "statistics": _tensors(checkpoint.statistics.to_arrays()),
        "weights": {name: value.detach().cpu() for name, value in weights.items()},
        "dtype": str(checkpoint.model.dtype).removeprefix("torch."),
        "overlap": None if checkpoint.overlap_arrays is None else _tensors(checkpoint.overlap_arrays),
        "baseline": None if baseline is None else _tensors(baseline),
        "metadata": checkpoint.metadata,
    }
    write_torch(Path(path), content)


def write_torch(path: Path, content: Mapping[str, Any]) -> None:
    """torch.save under a temporary name in the same folder, then rename: the file is whole or absent.

    Raises:
        FormatError: the disk is full or the folder cannot be written; a file of that name is left as it was.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        torch.save(dict(content), temporary)
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:  # torch tells a full disk by a RuntimeError
        raise unwritable(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def unwritable(path: Path, error: Exception) -> FormatError:
    """What to tell when a checkpoint cannot be written."""
    reason = getattr(error, "strerror", None) or (str(error).splitlines() or [type(error).__name__])[0][:120]
    kept = "the one from before is whole" if path.is_file() else "nothing is left there"
    return FormatError(f"cannot write {path}: {reason}; {kept}; make room or choose another folder, then go on")


def load_checkpoint(path: Path | str) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        FormatError: the file is missing, is no checkpoint of hamnet, is damaged or of another format version.
    """
    path = Path(path)
    content = read_content(path)
    basis = OrbitalBasis.from_json(content["basis"])
    config = Config.model_validate_json(content["config"])
    spin = Spin(content["spin"])
    statistics = Statistics.from_arrays(_arrays(content["statistics"]))
    try:
        model = HamiltonianModel(config.network, basis, spin, statistics, dtype=getattr(torch, content["dtype"]))
        model.load_state_dict(content["weights"])
    except (RuntimeError, ValueError) as error:
        # ValueError: scales of another number of channels
        hint = "; collinear models written before moments were an input are to be trained anew"
        raise FormatError(
            f"{path}: the weights do not fit the network that the file describes"
            f"{hint if spin is Spin.COLLINEAR else ''}: {error}"
        ) from error
    overlap = None if content["overlap"] is None else _arrays(content["overlap"])
    stored = content.get("baseline")  # absent from files of the first versions
    baseline = None if stored is None else Baseline.from_arrays(_arrays(stored), spin)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Checkpoint(model.eval(), config, basis, spin, statistics, overlap, content["metadata"], digest, baseline)


def read_content(path: Path | str) -> dict[str, Any]:
    """The checked raw dictionary of a checkpoint, without building the network.

    Raises:
        FormatError: the file is missing, is no checkpoint of hamnet, is damaged or of another format version.
    """
    path = Path(path)
    if not path.is_file():
        raise FormatError(f"no checkpoint at {path}: give the path of a file that `hamnet train` wrote")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged or foreign file
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise FormatError(f"{path} is not a readable checkpoint of hamnet: {reason}") from error
    if not isinstance(content, dict) or content.get("kind") != KIND:
        hint = " (last.ckpt only resumes training)" if isinstance(content, dict) and "state_dict" in content else ""
        raise FormatError(f"{path} is a torch file but no {KIND}{hint}: give the model.ckpt of `hamnet train`")
    if content["format"] != FORMAT:
        raise FormatError(f"{path} has checkpoint format {content['format']}, this hamnet reads {FORMAT}")
    return content


def _tensors(arrays: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    return {key: torch.from_numpy(np.array(value)) for key, value in arrays.items()}


def _arrays(tensors: Mapping[str, torch.Tensor]) -> ArrayDict:
    return {key: value.numpy() for key, value in tensors.items()}
