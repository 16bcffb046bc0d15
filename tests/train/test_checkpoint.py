"""The checkpoint: what goes in comes out, and what is no checkpoint is refused in words."""

from pathlib import Path

import pytest
import torch
from training_cases import small_config, small_store

from hamnet.errors import FormatError
from hamnet.nn.checkpoint import load_checkpoint, read_content, write_torch
from hamnet.train.run import train


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    train(small_config(small_store(folder / "data.h5"), folder / "run", epochs=1))
    return folder / "run"


def test_loads_twice_alike_and_without_code(run: Path) -> None:
    torch.load(run / "model.ckpt", weights_only=True)
    first, second = (load_checkpoint(run / "model.ckpt").model.state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_resume_file_holds_no_code(run: Path) -> None:
    assert torch.load(run / "last.ckpt", weights_only=True)["state_dict"]


def test_missing_garbage_and_truncated(run: Path, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="no checkpoint"):
        load_checkpoint(tmp_path / "absent.ckpt")
    garbage = tmp_path / "garbage.ckpt"
    garbage.write_text("not a checkpoint")
    with pytest.raises(FormatError, match="not a readable checkpoint"):
        load_checkpoint(garbage)
    cut = tmp_path / "cut.ckpt"
    cut.write_bytes((run / "model.ckpt").read_bytes()[:3000])
    with pytest.raises(FormatError, match="not a readable checkpoint"):
        load_checkpoint(cut)


def test_another_version_is_named(run: Path, tmp_path: Path) -> None:
    content = read_content(run / "model.ckpt")
    write_torch(tmp_path / "new.ckpt", content | {"format": 999})
    with pytest.raises(FormatError, match="999"):
        load_checkpoint(tmp_path / "new.ckpt")
