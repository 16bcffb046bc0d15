"""A run that is interrupted and resumed gives the very same weights as one that is not."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from training_cases import small_config, small_store

from hamnet.errors import ConfigError, FormatError
from hamnet.train.run import train

EPOCHS = 4


class Interrupt(pl.Callback):
    """Ctrl-C at some place of some epoch."""

    def __init__(self, hook: str, epoch: int, batch: int = 0) -> None:
        self.epoch, self.batch = epoch, batch
        setattr(self, hook, self._strike)

    def _strike(self, trainer: pl.Trainer, module: Any, *arguments: Any) -> None:
        at = arguments[-1] if arguments else self.batch
        if trainer.current_epoch == self.epoch and at == self.batch:
            raise KeyboardInterrupt


def weights(path: Path) -> dict[str, torch.Tensor]:
    """Weights of a model file."""
    content = torch.load(path, weights_only=True)
    return dict(content["weights"])


def assert_same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> None:
    assert set(one) == set(two)
    for name in one:
        # the same operations in the same order on one thread: no tolerance
        assert torch.equal(one[name], two[name]), name


@pytest.fixture(autouse=True, scope="module")
def no_pictures() -> Iterator[None]:
    """Drawing takes longer than training here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hamnet.train.run.draw_learning_curve", lambda *_: None)
        patch.setattr("hamnet.train.evaluation.draw_error_map", lambda *_: None)
        yield


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_store(tmp_path_factory.mktemp("store") / "data.h5")


@pytest.fixture(scope="module")
def whole(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("whole") / "run"
    train(small_config(store, output, epochs=EPOCHS))
    return output


@pytest.mark.parametrize(
    ("hook", "epoch", "batch"),
    [
        ("on_train_batch_end", 0, 0),
        ("on_train_batch_end", 2, 1),
        ("on_train_epoch_end", 1, 0),
    ],
)
def test_resumed_weights_are_bitwise_those_of_a_whole_run(
    store: Path, whole: Path, tmp_path: Path, hook: str, epoch: int, batch: int
) -> None:
    config = small_config(store, tmp_path / "run", epochs=EPOCHS)
    lines: list[str] = []
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train(config, callbacks=[Interrupt(hook, epoch, batch)], on_line=lines.append)
    assert signal.getsignal(signal.SIGINT) is before
    assert "--resume" in lines[-1]
    assert "last.ckpt" in lines[-1]
    assert not (tmp_path / "run" / "model.ckpt").exists()
    resumed = train(config, resume=True)
    assert_same(weights(resumed.checkpoint), weights(whole / "model.ckpt"))
    one, two = (torch.load(run / "last.ckpt", weights_only=True) for run in (tmp_path / "run", whole))
    if one["global_step"] == two["global_step"]:  # short epochs are not all kept
        assert_same(one["state_dict"], two["state_dict"])


def test_another_seed_gives_other_weights(store: Path, whole: Path, tmp_path: Path) -> None:
    other = train(small_config(store, tmp_path / "other", epochs=EPOCHS, seed=1))
    one, two = weights(other.checkpoint), weights(whole / "model.ckpt")
    assert any(not torch.equal(one[name], two[name]) for name in one)


def test_last_checkpoint_holds_plain_things_only(whole: Path) -> None:
    content = torch.load(whole / "last.ckpt", weights_only=True)
    assert content["hamnet"]["seconds_spent"] > 0

    def plain(value: Any) -> bool:
        if isinstance(value, dict):
            return all(isinstance(key, (str, int)) and plain(entry) for key, entry in value.items())
        if isinstance(value, (list, tuple)):
            return all(plain(entry) for entry in value)
        return value is None or isinstance(value, (str, int, float, bool, torch.Tensor))

    assert plain(content)


def test_a_finished_run_goes_on_when_given_more_epochs(store: Path, whole: Path, tmp_path: Path) -> None:
    config = small_config(store, tmp_path / "run", epochs=2, schedule="constant")
    train(config)
    more = small_config(store, tmp_path / "run", epochs=EPOCHS, schedule="constant")
    result = train(more, resume=True)
    at_once = train(small_config(store, tmp_path / "other", epochs=EPOCHS, schedule="constant"))
    assert result.figures["epochs"] == EPOCHS
    assert_same(weights(result.checkpoint), weights(at_once.checkpoint))


def test_resume_needs_a_run_and_a_run_needs_an_own_folder(store: Path, whole: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing to resume"):
        train(small_config(store, tmp_path / "none"), resume=True)
    assert not (tmp_path / "none").exists()
    with pytest.raises(ConfigError, match="holds a training already"):
        train(small_config(store, whole))


@pytest.mark.parametrize("damage", [b"no checkpoint at all", b""])
def test_a_damaged_last_checkpoint_is_an_error_of_ours(store: Path, tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "last.ckpt").write_bytes(damage)
    with pytest.raises(FormatError, match=r"last\.ckpt"):
        train(small_config(store, tmp_path / "run"), resume=True)


def test_another_network_cannot_resume(store: Path, tmp_path: Path) -> None:
    config = small_config(store, tmp_path / "run", epochs=1)
    train(config)
    wider = config.model_copy(update={"network": config.network.model_copy(update={"channels": 5})})
    with pytest.raises(ConfigError, match="network"):
        train(wider, resume=True)
