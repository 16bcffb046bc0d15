"""What survives a kill, a full disk, a changed source."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from store_cases import water

from hamnet.data import store_writer
from hamnet.data.store import Store, StoreWriter, write_store
from hamnet.errors import FormatError

CHILD = """
import sys, time
sys.path.insert(0, {here!r})
import numpy as np
from store_cases import water
from hamnet.data.store import StoreWriter
rng = np.random.default_rng(0)
with StoreWriter({path!r}, shard_size=4) as writer:
    for k in range(1000):
        calculation = water(rng)
        if f"w{{k}}" not in writer.names:
            writer.add(f"w{{k}}", calculation)
        if k == 10:
            print("ten", flush=True)
            time.sleep(60)
"""


def waters(n: int):
    rng = np.random.default_rng(0)
    return [(f"w{k}", water(rng)) for k in range(n)]


def check(path: Path, items) -> None:
    with Store(path) as store:
        assert sorted(store.names) == sorted(name for name, _ in items)
        for name, calculation in items:
            assert np.array_equal(store.read(name).hamiltonian.values, calculation.hamiltonian.values)


def test_a_kill_loses_the_open_shard_only(tmp_path):
    path = tmp_path / "s.h5"
    code = CHILD.format(here=str(Path(__file__).parent), path=str(path))
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    try:
        assert child.stdout.readline() == b"ten\n"
    finally:
        child.send_signal(signal.SIGKILL)
        child.communicate()
    (tmp_path / "s.h5.parts" / "000002.tmp").write_bytes(b"half a shard")
    assert not path.exists()
    items = waters(13)
    with StoreWriter(path, shard_size=4) as writer:
        assert writer.names == [f"w{k}" for k in range(8)]  # 11 were added: two shards of four are closed
        for name, calculation in items[8:]:
            writer.add(name, calculation)
    check(path, items)
    assert os.listdir(tmp_path) == ["s.h5"]


def test_a_kill_between_rename_and_clean_up(tmp_path):
    """The merged file is there and so are its shards: nothing is doubled."""
    path = tmp_path / "s.h5"
    items = waters(3)
    writer = StoreWriter(path)
    for name, calculation in items:
        writer.add(name, calculation)
    writer.flush()
    (shard,) = (tmp_path / "s.h5.parts").glob("*.h5")
    path.write_bytes(shard.read_bytes())
    with StoreWriter(path) as writer:
        assert len(writer.names) == 3
    check(path, items)
    assert os.listdir(tmp_path) == ["s.h5"]


def test_an_exception_keeps_what_was_added(tmp_path):
    items = waters(3)
    writer = StoreWriter(tmp_path / "s.h5")
    with pytest.raises(KeyboardInterrupt), writer:  # noqa: PT012 - the context is what is tested
        writer.add(*items[0])
        raise KeyboardInterrupt
    assert not (tmp_path / "s.h5").exists()
    with StoreWriter(tmp_path / "s.h5") as writer:
        assert writer.names == ["w0"]
        for item in items[1:]:
            writer.add(*item)
    check(tmp_path / "s.h5", items)


def test_a_store_grows(tmp_path):
    items = waters(5)
    for part in (items[:2], items[2:], []):
        with StoreWriter(tmp_path / "s.h5") as writer:
            for item in part:
                writer.add(*item)
    check(tmp_path / "s.h5", items)


def test_a_changed_source_takes_the_old_ones_place(tmp_path):
    items = waters(3)
    with StoreWriter(tmp_path / "s.h5") as writer:
        for name, calculation in items:
            writer.add(name, calculation, "before")
    newer = ("w1", water(np.random.default_rng(9)))
    with StoreWriter(tmp_path / "s.h5") as writer:
        writer.add(*newer, "after")
    check(tmp_path / "s.h5", [items[0], newer, items[2]])
    assert os.listdir(tmp_path) == ["s.h5"]


def test_a_name_twice_is_refused(tmp_path):
    (item,) = waters(1)
    with pytest.raises(FormatError, match="'w0' is already in"):
        write_store(tmp_path / "s.h5", [item, item])


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(FormatError, match=r"folder .*nowhere does not exist"):
        StoreWriter(tmp_path / "nowhere" / "s.h5")
    with pytest.raises(FormatError, match="is a folder"):
        StoreWriter(tmp_path)


def full_disk(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("place", ["shard", "merge"])
def test_a_full_disk_leaves_the_old_store_whole(tmp_path, monkeypatch, place):
    path = tmp_path / "s.h5"
    items = waters(4)
    write_store(path, items[:2])
    before = path.read_bytes()
    if place == "shard":
        monkeypatch.setattr(store_writer, "_sync", full_disk)
    else:
        monkeypatch.setattr(store_writer, "_merge", full_disk)
    writer = StoreWriter(path)
    message = r"could not write the store \(No space left.*nothing was left"
    with pytest.raises(OSError, match=message) as caught, writer:  # noqa: PT012 - either may raise
        for item in items[2:]:
            writer.add(*item)
    assert caught.value.errno == errno.ENOSPC
    assert path.read_bytes() == before
    assert not list((tmp_path / "s.h5.parts").glob("*.tmp"))
    monkeypatch.undo()
    with StoreWriter(path) as writer:
        for name, calculation in items:
            if name not in writer.names:
                writer.add(name, calculation)
    check(path, items)


def test_hdf5s_own_words_for_a_full_disk(tmp_path):
    error = store_writer.write_error(RuntimeError("errno = 28, error message = 'No space left on device'"), tmp_path)
    assert error.errno == errno.ENOSPC


def test_a_failed_calculation_leaves_the_shard_sound(tmp_path, monkeypatch):
    """A pair index too large for the file is found half way through the rows of a calculation."""
    items = waters(3)
    with StoreWriter(tmp_path / "s.h5") as writer:
        writer.add(*items[0])
        monkeypatch.setattr(np, "iinfo", lambda _: type("Limit", (), {"max": -1}))
        with pytest.raises(FormatError, match="too large"):
            writer.add(*items[1])
        monkeypatch.undo()
        writer.add(*items[2])
    check(tmp_path / "s.h5", [items[0], items[2]])


def test_shards_are_no_larger_than_256(tmp_path):
    started = time.perf_counter()
    with StoreWriter(tmp_path / "s.h5", shard_size=10**6) as writer:
        for item in waters(257):
            writer.add(*item)
        (shard,) = (tmp_path / "s.h5.parts").glob("*.h5")
        with h5py.File(shard) as file:
            assert len(file["names"]) == 256
    assert time.perf_counter() - started < 30
