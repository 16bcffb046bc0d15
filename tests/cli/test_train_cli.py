"""`hamnet train` and `hamnet evaluate` as scripts call them."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "train"))  # made-up stores of the training tests

from training_cases import NETWORK, small_store
from typer.testing import CliRunner

from hamnet.cli import app
from hamnet.errors import ConfigError


def test_train_then_evaluate_print_one_object_each(tmp_path: Path) -> None:
    store = small_store(tmp_path / "data.h5")
    config = tmp_path / "c.yaml"
    network = "\n".join(f"  {key}: {value}" for key, value in NETWORK.items())
    config.write_text(
        f"data:\n  store: {store}\n  train_fraction: 0.6\n  validation_fraction: 0.2\n  test_fraction: 0.2\n"
        f"network:\n{network}\ntraining:\n  output: {tmp_path / 'run'}\n  epochs: 9\n  progress: false\n"
    )
    trained = CliRunner().invoke(app, ["train", str(config), "training.epochs=1", "--json"])
    assert trained.exit_code == 0, trained.output
    json.loads(trained.stdout)
    assert set(json.loads((tmp_path / "run" / "split.json").read_text())) == {"train", "validation", "test"}
    model, out = str(tmp_path / "run" / "model.ckpt"), str(tmp_path / "evaluation")
    done = CliRunner().invoke(app, ["evaluate", model, str(store), "-o", out, "--json"])
    assert done.exit_code == 0, done.output
    figures = json.loads(done.stdout)
    assert figures["structures"] == 5
    # removing the best mu minimises the square, not the mean of absolute values: they differ but stay of one size
    assert 0.5 < figures["hamiltonian_mae_meV"] / figures["hamiltonian_mae_meV_raw"] < 1.5
    assert figures["band_rmse_meV"] > 0


def test_unknown_key_is_refused(tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text("data:\n  store: x.h5\nnetwork:\n  chanels: 3\n")
    result = CliRunner().invoke(app, ["train", str(config), "--json"])
    assert isinstance(result.exception, ConfigError)
    with pytest.raises(ConfigError, match="channels"):
        raise result.exception
