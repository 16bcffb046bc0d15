"""What a long training must stand: little memory, workers, several files, kills, stalls; and the precisions."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from factories import lawful_calculation
from test_resume import assert_same, weights
from training_cases import small_config, small_store

from hamnet.config import Config, config_from_dict
from hamnet.data.store_writer import StoreWriter
from hamnet.errors import ConfigError
from hamnet.nn.checkpoint import load_checkpoint
from hamnet.nn.dataset import StoreCollection
from hamnet.train import callbacks, fitting
from hamnet.train.ensemble import train_ensemble
from hamnet.train.module import HamiltonianModule
from hamnet.train.run import make_split, train


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than training here."""
    monkeypatch.setattr("hamnet.train.run.draw_learning_curve", lambda *_: None)
    monkeypatch.setattr("hamnet.train.evaluation.draw_error_map", lambda *_: None)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_store(tmp_path_factory.mktemp("store") / "data.h5")


@pytest.fixture(scope="module")
def plain(store: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """Weights of an ordinary run."""
    return weights(train(small_config(store, tmp_path_factory.mktemp("plain") / "run", epochs=2)).checkpoint)


def test_data_larger_than_memory_gives_the_same(
    store: Path, plain: dict[str, torch.Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitting, "CACHE_BYTES", 60_000)  # one sample or two
    result = train(small_config(store, tmp_path / "run", epochs=2))
    assert_same(weights(result.checkpoint), plain)


def test_workers_give_the_same_and_resume_with_the_right_batches(
    store: Path, plain: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    train(small_config(store, tmp_path / "run", epochs=1, workers=1, schedule="constant"))
    resumed = train(small_config(store, tmp_path / "run", epochs=2, workers=1, schedule="constant"), resume=True)
    whole = train(small_config(store, tmp_path / "whole", epochs=2, workers=0, schedule="constant"))
    assert_same(weights(resumed.checkpoint), weights(whole.checkpoint))


def test_several_stores_one_of_them_still_in_shards(plain: dict[str, torch.Tensor], tmp_path: Path) -> None:
    with StoreWriter(tmp_path / "a.h5") as writer:
        for k in range(3):
            writer.add(f"s{k}", lawful_calculation(k))
            writer.flush()  # each becomes a shard of its own
    small_store(tmp_path / "b.h5", n=2, first=3)
    config = small_config(tmp_path / "a.h5", tmp_path / "run", epochs=2)
    both = config.model_copy(
        update={"data": config.data.model_copy(update={"store": (tmp_path / "a.h5", tmp_path / "b.h5")})}
    )
    assert_same(weights(train(both).checkpoint), plain)


def by_pairs(store: Path, output: Path) -> Config:
    """Everything that has a state: batches by pairs, running average, plateau."""
    return small_config(
        store, output, epochs=4, batch_pairs=150, schedule="plateau", plateau_patience=1, learning_rate=0.05
    )


def test_a_kill_in_the_middle_of_an_epoch_costs_nothing_but_time(store: Path, tmp_path: Path) -> None:
    script = (
        "import os, signal, sys; sys.path[:0] = sys.argv[1:3]\n"
        "from pathlib import Path; from test_engine import by_pairs; from hamnet.train.run import train\n"
        "import lightning.pytorch as pl\n"
        "class Kill(pl.Callback):\n"
        "    def on_train_batch_end(self, trainer, *rest):\n"
        "        if trainer.current_epoch == 2: os.kill(os.getpid(), signal.SIGKILL)\n"
        "train(by_pairs(Path(sys.argv[3]), Path(sys.argv[4])), callbacks=[Kill()])\n"
    )
    here = Path(__file__).parent
    killed = subprocess.run(
        [sys.executable, "-c", script, str(here), str(here.parent), str(store), str(tmp_path / "run")],
        capture_output=True,
        check=False,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()[-2000:]
    resumed = train(by_pairs(store, tmp_path / "run"), resume=True)
    whole = train(by_pairs(store, tmp_path / "whole"))
    assert_same(weights(resumed.checkpoint), weights(whole.checkpoint))


def test_plateau_halves_the_rate_and_early_stop_ends(store: Path, tmp_path: Path) -> None:
    seen: list[float] = []

    class Watch(fitting.pl.Callback):  # type: ignore[misc]
        """Notes the learning rate of each epoch, and makes validation stall."""

        def on_validation_epoch_end(self, trainer: Any, module: Any) -> None:
            seen.append(trainer.optimizers[0].param_groups[0]["lr"])

    config = small_config(
        store,
        tmp_path / "run",
        epochs=30,
        schedule="plateau",
        plateau_patience=2,
        early_stop_patience=5,
        warmup_fraction=0.0,
        learning_rate=1e-30,
    )
    result = train(config, callbacks=[Watch()])
    # the first validation is the best for ever: five more end it, two stalls halve the rate
    assert result.figures["epochs"] == 6
    assert seen[0] == 1e-30
    assert seen[-1] == pytest.approx(2.5e-31)


def test_plateau_without_validation_follows_the_training_error(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(callbacks, "LARGEST_SHARE", math.inf)  # every epoch is saved, however slow the disk is
    config = small_config(store, tmp_path / "run", epochs=4, schedule="plateau", plateau_patience=1)
    alone = config.model_copy(update={"data": config.data.model_copy(update={"validation_fraction": 0.0})})
    result = train(alone)
    last = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)
    assert result.figures["epochs"] == 4
    assert last["hamnet"]["plateau"][1] < float("inf")


def test_float64_is_kept_in_the_file_and_not_mixed_up(store: Path, tmp_path: Path) -> None:
    config = small_config(store, tmp_path / "run", epochs=1, precision="float64")
    checkpoint = load_checkpoint(train(config).checkpoint)
    assert checkpoint.model.dtype == torch.float64
    with pytest.raises(ConfigError, match="precision"):
        train(small_config(store, tmp_path / "run", epochs=2), resume=True)


def test_bf16_changes_products_but_not_the_type_of_h(store: Path, tmp_path: Path) -> None:
    from training_cases import model_and_batch

    model, batch = model_and_batch(store)
    training = config_from_dict({"data": {"store": "x"}, "training": {"precision": "bf16", "device": "cuda"}}).training
    plan = fitting.BatchPlan([1])
    mixed = HamiltonianModule(model, training, plan).predict_values(model, batch.graphs)
    exact = HamiltonianModule(model, training.model_copy(update={"precision": "float32"}), plan).predict_values(
        model, batch.graphs
    )
    assert mixed.dtype == exact.dtype == torch.float64
    difference = (mixed - exact).abs().max() / exact.abs().max()
    # bfloat16 has 8 bits: something must have been rounded, and no more than some per cent
    assert 1e-6 < float(difference.detach()) < 0.1


def test_ensemble_members_differ_share_the_split_and_go_on(store: Path, tmp_path: Path) -> None:
    config = small_config(store, tmp_path / "run", epochs=1)
    first = train_ensemble(config, 2)
    one, two = (weights(result.checkpoint) for result in first)
    assert any(not torch.equal(one[name], two[name]) for name in one)
    splits = [(tmp_path / "run" / str(k) / "split.json").read_text() for k in range(2)]
    assert splits[0] == splits[1]
    lines: list[str] = []
    more = train_ensemble(config, 3, resume=True, on_line=lines.append)
    assert sum("finished before" in line for line in lines) == 2
    assert len(more) == 3
    assert more[2].checkpoint.is_file()
    with pytest.raises(ConfigError, match="2 members"):
        train_ensemble(config, 1)


def test_a_log_gets_lines_and_no_bar(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(callbacks, "LINE_SECONDS", 0.0)
    said: list[str] = []
    train(small_config(store, tmp_path / "run", epochs=2, progress=True), on_line=said.append)
    told = [line for line in said if line.startswith("  epoch")]
    assert [line.split(",")[0] for line in told] == ["  epoch 0", "  epoch 1"]
    assert "100 % of 2 epochs" in told[-1]
    assert "validation" in told[-1]
    assert "it/s" not in capfd.readouterr().err


@pytest.mark.parametrize(("train_fraction", "used"), [(0.5, 5), (0.4, 4)])
def test_fractions_of_one_together_use_every_calculation(
    store: Path, tmp_path: Path, train_fraction: float, used: int
) -> None:
    config = small_config(store, tmp_path / "run")
    parts = {"train_fraction": train_fraction, "validation_fraction": 0.25, "test_fraction": 0.25}
    config = config.model_copy(update={"data": config.data.model_copy(update=parts)})
    stores = StoreCollection([store])
    split = make_split(config, stores, None)
    stores.close()
    assert len(split.train) + len(split.validation) + len(split.test) == used
