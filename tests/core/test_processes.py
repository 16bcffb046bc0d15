"""Pools of processes: nothing is left behind when the work is broken off or the main process is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hamnet.core.processes import worker_pool

SOON = 20.0
"""Seconds that a process may take to start or to go on a loaded machine; sleepers would stay for 600."""
_known: list[int] = []


def keep(number: int) -> None:
    _known.append(number)


def kept(factor: int) -> int:
    return factor * _known[0]


def sleeper(folder: Path) -> None:
    """A task that starts a program, as a label engine does, and waits for it."""
    program = subprocess.Popen(["sleep", "600"])
    text = f"{os.getpid()} {program.pid}"
    part = folder / "part"
    part.write_text(text)
    part.rename(folder / "pids")
    program.wait()


def pids(folder: Path) -> list[int]:
    """Of the worker and its program, once both run."""
    end = time.monotonic() + SOON
    while not (folder / "pids").exists():
        if time.monotonic() > end:
            raise TimeoutError("the worker did not start")
        time.sleep(0.05)
    return [int(word) for word in (folder / "pids").read_text().split()]


def runs(pid: int) -> bool:
    """A process that is there and no zombie: its new parent may take its time to ask for it."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def all_gone(numbers: list[int]) -> bool:
    end = time.monotonic() + SOON
    while any(runs(pid) for pid in numbers):
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def test_tasks_find_what_the_initializer_left() -> None:
    with worker_pool(2, keep, (7,)) as pool:
        assert [future.result() for future in [pool.submit(kept, k) for k in range(4)]] == [0, 7, 14, 21]


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks processes up in /proc")
def test_an_exception_ends_the_tasks_and_their_programs(tmp_path: Path) -> None:
    found: list[int] = []

    def broken_off() -> None:
        with worker_pool(1) as pool:
            pool.submit(sleeper, tmp_path)
            pool.submit(sleeper, tmp_path)
            found.extend(pids(tmp_path))
            assert all(runs(pid) for pid in found)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        broken_off()
    assert all_gone(found)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks processes up in /proc")
def test_processes_go_when_the_main_one_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "main.py"
    script.write_text(
        f"import sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from pathlib import Path\nfrom test_processes import sleeper\nfrom hamnet.core.processes import worker_pool\n"
        f"if __name__ == '__main__':\n    with worker_pool(1) as pool:\n"
        f"        pool.submit(sleeper, Path({str(tmp_path)!r})).result()\n"
    )
    main = subprocess.Popen([sys.executable, str(script)])
    found = pids(tmp_path)
    main.send_signal(signal.SIGKILL)
    main.wait()
    assert all_gone(found)
