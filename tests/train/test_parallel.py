"""Two processes give what one gives, batch by batch; a process that fails ends the training in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from training_cases import small_config, small_store

from hamnet.errors import ConvergenceError
from hamnet.train import parallel
from hamnet.train.run import train


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_store(tmp_path_factory.mktemp("store") / "data.h5", n=7)


def run(store: Path, output: Path, **training: Any) -> dict[str, Any]:
    """Train in float64, so that what is left between one process and two is no rounding of the network."""
    settings = {"precision": "float64", "epochs": 2, "schedule": "plateau", "plateau_patience": 1} | training
    result = train(small_config(store, output, **settings))
    content = torch.load(result.checkpoint, weights_only=True)
    return {"weights": content["weights"], "mae": content["metadata"]["validation_mae_meV"], "steps": result.figures}


def test_two_processes_give_what_one_gives(store: Path, tmp_path: Path) -> None:
    # 4 structures to train on, 1 to validate: the last batch and the validation leave one process without work
    one = run(store, tmp_path / "one", batch_size=3)
    two = run(store, tmp_path / "two", batch_size=3, devices=2)
    assert two["steps"]["steps"] == one["steps"]["steps"] == 4
    for name, value in one["weights"].items():
        # sums in another order, float64, six steps of AdamW, whose steps amplify where gradients are small
        torch.testing.assert_close(two["weights"][name], value, rtol=1e-7, atol=1e-9, msg=name)
    assert two["mae"] == pytest.approx(one["mae"], rel=1e-9)
    left = {path.name for path in (tmp_path / "two").iterdir()}
    assert not [name for name in left if name.startswith(("process", ".start"))]


def test_a_process_that_fails_is_told(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = parallel.Partners._start

    def broken(self: Any, rank: int, job: str) -> Any:
        return before(self, rank, job.replace('"rank": 1', '"rank": "none"'))

    monkeypatch.setattr(parallel.Partners, "_start", broken)
    with pytest.raises(ConvergenceError, match=r"process 1 .*none"):
        train(small_config(store, tmp_path / "run", devices=2, batch_size=2))
