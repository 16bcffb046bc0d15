"""The checkpoint file: tensors and JSON text in one torch file that loads with `weights_only=True`.

It stands here, below `hamnet.train`, because a prediction reads it too.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hamnet.config import Config, config_from_dict
from hamnet.core.basis import OrbitalBasis
from hamnet.core.spin import Spin
from hamnet.errors import FormatError
from hamnet.nn.model import HamiltonianModel
from hamnet.nn.statistics import Statistics
from hamnet.predict.overlap import OverlapFit

FORMAT = "hamnet checkpoint"
VERSION = 1


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """What a checkpoint holds.

    Args:
        model: the network with its weights, in evaluation mode.
        config: configuration it was trained with.
        basis: orbitals it knows.
        spin: layout of its blocks.
        statistics: normalisation of the training set (also inside the model's state).
        overlap_fit: two-centre overlap from the training set; None where S comes from Gaussians.
        metadata: free JSON data: figures, training set, versions.
        sha256: of the file that it was read from; empty before it is written.
    """

    model: HamiltonianModel
    config: Config
    basis: OrbitalBasis
    spin: Spin
    statistics: Statistics
    overlap_fit: OverlapFit | None
    metadata: dict[str, Any] = field(default_factory=dict)
    sha256: str = ""


def save_checkpoint(path: Path, checkpoint: Checkpoint, state: Mapping[str, Tensor] | None = None) -> None:
    """Write a checkpoint under a temporary name, then rename.

    Args:
        path: file to write.
        checkpoint: what to write.
        state: weights to write instead of the model's own (an average of them).
    """
    state = checkpoint.model.state_dict() if state is None else state
    fit = checkpoint.overlap_fit
    content = {
        "format": FORMAT,
        "version": VERSION,
        "config": checkpoint.config.model_dump_json(),
        "basis": checkpoint.basis.to_json(),
        "spin": checkpoint.spin.value,
        "metadata": json.dumps(checkpoint.metadata),
        "state": {name: tensor.detach().cpu() for name, tensor in state.items()},
        "overlap": None if fit is None else {name: torch.as_tensor(array) for name, array in fit.to_arrays().items()},
    }
    write_torch(path, content)


def write_torch(path: Path, content: Mapping[str, Any]) -> None:
    """torch.save under a temporary name in the same folder, then rename: the file is whole or absent."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        torch.save(dict(content), temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def load_checkpoint(path: Path | str, device: torch.device | str = "cpu") -> Checkpoint:
    """Checkpoint from a file; nothing in the file is executed.

    Raises:
        FormatError: the file is not a checkpoint, is cut short, or has another version.
    """
    content = _read(Path(path), device)
    try:
        config = config_from_dict(json.loads(content["config"]), source=str(path))
        basis = OrbitalBasis.from_json(content["basis"])
        spin = Spin(content["spin"])
        overlap = content["overlap"]
        metadata = json.loads(content["metadata"])
        model = empty_model(config, basis, spin, content["state"])
    except (KeyError, ValueError, TypeError, RuntimeError) as error:
        raise FormatError(
            f"{path} is a damaged {FORMAT}: {_one_line(error)}; write it again with hamnet train"
        ) from error
    fit = None if overlap is None else OverlapFit.from_arrays({name: t.cpu().numpy() for name, t in overlap.items()})
    digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    return Checkpoint(model.to(device).eval(), config, basis, spin, model.statistics, fit, metadata, digest)


def empty_model(config: Config, basis: OrbitalBasis, spin: Spin, state: Mapping[str, Tensor]) -> HamiltonianModel:
    """Model of this configuration with the weights and statistics of `state`."""
    model = HamiltonianModel(config.network, basis, spin, Statistics.empty(basis, spin))
    model.load_state_dict(dict(state))
    return model


def _read(path: Path, device: torch.device | str) -> dict[str, Any]:
    try:
        content = torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError:
        raise FormatError(f"there is no checkpoint {path}: give the model.ckpt that hamnet train wrote") from None
    except (RuntimeError, pickle.UnpicklingError, EOFError, KeyError, ValueError, OSError) as error:
        raise FormatError(f"{path} is not a {FORMAT} or is cut short: {_one_line(error)}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        hint = " (last.ckpt only resumes training)" if isinstance(content, dict) and "state_dict" in content else ""
        raise FormatError(f"{path} is a torch file but not a {FORMAT}{hint}: give the model.ckpt of hamnet train")
    if content.get("version") != VERSION:
        raise FormatError(
            f"{path} has format version {content.get('version')}, this hamnet reads {VERSION}: "
            "use the hamnet that wrote it or train again"
        )
    return content


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 160 else text[:157] + "..."
