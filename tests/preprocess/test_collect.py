"""collect with a made-up reader: names, resuming, changed sources, failures of every kind."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "data"))

from store_cases import water

from hamnet.data.store import Store
from hamnet.errors import ConfigError, ConvergenceError
from hamnet_preprocess import collect as module
from hamnet_preprocess.collect import collect


class FakeReader:
    """Each .fake file holds a seed, or a word that says how it fails."""

    name = "fake"

    def find(self, root: Path) -> list[Path]:
        return sorted(root.rglob("*.fake"))

    def read(self, source: Path, *, allow_unconverged: bool = False):
        text = source.read_text()
        if text == "interrupt":
            raise KeyboardInterrupt
        if text == "odd":
            raise ZeroDivisionError("by zero")
        if text == "unconverged" and not allow_unconverged:
            raise ConvergenceError("not converged")
        return water(np.random.default_rng(int(text) if text.isdigit() else 0))


@pytest.fixture(autouse=True)
def _fake(monkeypatch):
    monkeypatch.setattr(module, "reader", lambda name: FakeReader())


def put(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_failures_are_reported_and_the_rest_is_kept(tmp_path):
    for name, text in (("a", "1"), ("b", "odd"), ("c", "unconverged")):
        put(tmp_path / "r" / f"{name}.fake", text)
    events = []
    result = collect("fake", [tmp_path / "r"], tmp_path / "s.h5", on_event=events.append)
    assert (result.read, result.failed) == (1, 2)
    assert [reason for _, reason in result.failures] == [
        "unexpected ZeroDivisionError: by zero",
        "ConvergenceError: not converged",
    ]
    assert [(e.kind, e.done, e.total) for e in events] == [("read", 1, 3), ("failed", 2, 3), ("failed", 3, 3)]
    result = collect("fake", [tmp_path / "r"], tmp_path / "s.h5", allow_unconverged=True)
    assert (result.read, result.skipped, result.failed) == (1, 1, 1)


def test_names_from_several_roots_differ(tmp_path):
    for root in "pq":
        put(tmp_path / root / "x.fake", "1" if root == "p" else "22")
    collect("fake", [tmp_path / "p"], tmp_path / "s.h5")
    collect("fake", [tmp_path / "q", tmp_path / "p"], tmp_path / "s.h5")
    names = Store(tmp_path / "s.h5").names
    assert names[0] == "x.fake"
    assert len(set(names)) == 2


def test_a_changed_source_is_read_again(tmp_path):
    source = put(tmp_path / "r" / "x.fake", "1")
    collect("fake", [tmp_path / "r"], tmp_path / "s.h5")
    before = Store(tmp_path / "s.h5").read(0).hamiltonian.values
    put(source, "234")
    result = collect("fake", [tmp_path / "r"], tmp_path / "s.h5")
    assert (result.read, result.skipped) == (1, 0)
    store = Store(tmp_path / "s.h5")
    assert len(store) == 1
    assert not np.array_equal(store.read(0).hamiltonian.values, before)


def test_an_interrupt_keeps_what_was_read(tmp_path):
    put(tmp_path / "r" / "a.fake", "1")
    stop = put(tmp_path / "r" / "b.fake", "interrupt")
    with pytest.raises(KeyboardInterrupt):
        collect("fake", [tmp_path / "r"], tmp_path / "s.h5")
    assert not (tmp_path / "s.h5").exists()
    put(stop, "2")
    result = collect("fake", [tmp_path / "r"], tmp_path / "s.h5")
    assert (result.read, result.skipped) == (1, 1)


def test_nothing_readable_leaves_nothing(tmp_path):
    put(tmp_path / "r" / "a.fake", "odd")
    result = collect("fake", [tmp_path / "r"], tmp_path / "s.h5")
    assert (result.read, result.failed) == (0, 1)
    assert "by zero" in result.failures[0][1]
    assert os.listdir(tmp_path) == ["r"]
    with pytest.raises(ConfigError, match="jobs = 0"):
        collect("fake", [tmp_path / "r"], tmp_path / "s.h5", jobs=0)
