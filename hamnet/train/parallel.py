"""Several processes that train one model: each takes a part of every batch, all see one loss and one gradient.

The loss L = f(m_1, m_2, ...) is a function of means over all numbers of a batch. Process p holds the sums s_kp and the
counts n_kp of its part; m_k = sum_p s_kp / sum_p n_kp is formed over all processes, and the gradient of L is the sum of
the processes' gradients of L with the others' sums held fixed. It is thus that of one process with the whole batch,
to rounding.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lightning.fabric.plugins.environments import ClusterEnvironment
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from hamnet.config import Config
from hamnet.errors import ConvergenceError

HOST = "127.0.0.1"
TIMEOUT = timedelta(minutes=10)
"""A process that is silent for so long is taken for dead."""
FAREWELL = 60.0
"""Seconds that the others get to end by themselves after the first has; then `Partners.end` ends them."""
POLL = 0.05
"""Seconds between two looks at the other processes."""
READY = "ready to train"
"""What a process writes when it has read all that it needs."""
ENVIRONMENT = ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "LOCAL_RANK", "WORLD_SIZE", "RANK")


@dataclass(frozen=True)
class Team:
    """The processes of a training, seen from one of them.

    Args:
        rank: number of this process; 0 writes files and talks.
        world: number of processes.
        port: where they meet on this machine.
    """

    rank: int = 0
    world: int = 1
    port: int = 0

    @property
    def leads(self) -> bool:
        """Whether this process writes files and talks to the user."""
        return self.rank == 0

    def mean(self, values: Tensor, counted: bool = True) -> Tensor:
        """Mean over the numbers of all processes, for a loss: differentiable in this process's own.

        Args:
            values: numbers of this process, any shape.
            counted: False: they count nowhere, but every process must call.
        """
        if self.world == 1:
            return values.mean()
        own = values.sum() * float(counted)
        sums = torch.stack((own.detach().double(), own.new_tensor(values.numel() * counted, dtype=torch.float64)))
        dist.all_reduce(sums)
        others = sums[0].to(own.dtype) - own.detach()
        return (own + others) / sums[1].to(own.dtype)

    def from_first(self, value: float, device: torch.device | str = "cpu") -> float:
        """The first process's value, in all of them: clocks differ, decisions must not."""
        if self.world == 1:
            return value
        shared = torch.tensor([value], dtype=torch.float64, device=device)
        dist.broadcast(shared, 0)
        return float(shared)

    def strategy(self, device: str) -> Any:
        """Lightning's strategy for this process."""
        if self.world == 1:
            return "auto"
        backend = "nccl" if device == "cuda" else "gloo"
        return _Unwrapped(cluster_environment=_Meeting(self), process_group_backend=backend, timeout=TIMEOUT)

    def sum_gradients(self, weights: Iterable[Tensor]) -> None:
        """Add up the processes' gradients; a weight that no process used keeps none, so that AdamW leaves it alone.

        Args:
            weights: those that learn, in the same order everywhere.
        """
        if self.world == 1:
            return
        learning = list(weights)
        used = torch.tensor([weight.grad is not None for weight in learning], device=learning[0].device).int()
        dist.all_reduce(used)
        learning = [weight for weight, count in zip(learning, used.tolist(), strict=True) if count]
        for weight in learning:
            if weight.grad is None:
                weight.grad = torch.zeros_like(weight)
        flat = torch.cat([weight.grad.reshape(-1) for weight in learning if weight.grad is not None])
        dist.all_reduce(flat)
        parts = torch.split(flat, [weight.numel() for weight in learning])
        for weight, part in zip(learning, parts, strict=True):
            weight.grad = part.view_as(weight)


class _Unwrapped(DDPStrategy):  # type: ignore[misc]  # Lightning is untyped to mypy
    """Lightning's processes without torch's wrapper, which takes one and the same graph in every step for granted.

    Here a step may use other species than the last, or others in each process; `Team.sum_gradients` does the work.
    """

    def configure_ddp(self) -> None:
        """The module stays as it is."""


class _Meeting(ClusterEnvironment):  # type: ignore[misc]  # Lightning is untyped to mypy
    """Tells Lightning of processes that stand already."""

    def __init__(self, team: Team) -> None:
        super().__init__()
        self.team = team

    @property
    def creates_processes_externally(self) -> bool:
        """Lightning starts none."""
        return True

    @property
    def main_address(self) -> str:
        """This machine."""
        return HOST

    @property
    def main_port(self) -> int:
        """Port of the first process."""
        return self.team.port

    @staticmethod
    def detect() -> bool:
        """Never guessed from the environment."""
        return False

    def world_size(self) -> int:
        """Number of processes."""
        return self.team.world

    def set_world_size(self, size: int) -> None:
        """The team's size stands."""

    def global_rank(self) -> int:
        """Number of this process."""
        return self.team.rank

    def set_global_rank(self, rank: int) -> None:
        """Lightning's own note of who is first."""
        rank_zero_only.rank = self.team.rank

    def local_rank(self) -> int:
        """All are on one machine."""
        return self.team.rank

    def node_rank(self) -> int:
        """All are on one machine."""
        return 0


@contextmanager
def meeting(team: Team) -> Iterator[None]:
    """Leave no process group and no variable of the environment behind."""
    before = {name: os.environ.get(name) for name in ENVIRONMENT}
    try:
        yield
    finally:
        if team.world > 1 and dist.is_initialized():
            dist.destroy_process_group()
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


class Partners:
    """The other processes of a training: `python -m hamnet.train.partner`, one for each rank but the first.

    Args:
        config: of the training; `training.devices` processes in all.
        resume: go on from last.ckpt.
        port: where they meet.
    """

    def __init__(self, config: Config, resume: bool, port: int) -> None:
        self.output = config.training.output
        self.processes: list[subprocess.Popen[str]] = []
        quiet = config.model_copy(update={"training": config.training.model_copy(update={"progress": False})})
        for rank in range(1, config.training.devices):
            job = {"config": quiet.model_dump_json(), "resume": resume, "port": port, "rank": rank}
            self.processes.append(self._start(rank, json.dumps(job)))

    def _start(self, rank: int, job: str) -> subprocess.Popen[str]:
        with self._log(rank).open("w", encoding="utf-8") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "hamnet.train.partner"],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                text=True,
                start_new_session=True,  # Ctrl-C goes to the first, which ends the others
            )
        if process.stdin is not None:
            process.stdin.write(job)
            process.stdin.close()
        return process

    def _log(self, rank: int) -> Path:
        return self.output / f"process_{rank}.log"

    def failure(self, wait: float = 0.0) -> str | None:
        """What to tell when one of them has failed; None while all is well.

        Args:
            wait: seconds to wait for one to end.
        """
        deadline = time.monotonic() + wait
        while True:
            for rank, process in enumerate(self.processes, start=1):
                if process.poll() not in (None, 0):
                    lines = self._log(rank).read_text(encoding="utf-8", errors="replace").strip().splitlines()
                    return (
                        f"process {rank} of the training ended with code {process.returncode}: "
                        f"{' | '.join(lines[-3:]) or 'it said nothing'}; its log is {self._log(rank)}"
                    )
            if time.monotonic() >= deadline:
                return None
            time.sleep(POLL)

    def await_ready(self) -> None:
        """Wait until all stand at the meeting point: torch would wait there for a dead one, too.

        Raises:
            ConvergenceError: one of them failed before.
        """
        deadline = time.monotonic() + TIMEOUT.total_seconds()
        waiting = set(range(1, len(self.processes) + 1))
        while waiting:
            waiting = {rank for rank in waiting if READY not in self._log(rank).read_text(errors="replace")}
            problem = self.failure()
            if problem is None and time.monotonic() > deadline:
                problem = f"process {min(waiting)} of the training does not begin; its log is {self._log(min(waiting))}"
            if problem is not None:
                raise ConvergenceError(problem)
            time.sleep(POLL)

    def join(self) -> None:
        """Wait until all have ended well; one that is slow to leave is no failure, since the last step is done.

        Raises:
            ConvergenceError: one of them failed.
        """
        deadline = time.monotonic() + FAREWELL
        for process in self.processes:
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))
        problem = self.failure()
        if problem is not None:
            raise ConvergenceError(problem)
        for rank in range(1, len(self.processes) + 1):
            self._log(rank).unlink(missing_ok=True)

    def end(self) -> None:
        """Kill those that still run: they hold nothing that is not in last.ckpt."""
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait()


@contextmanager
def partners(config: Config, resume: bool, port: int) -> Iterator[Sequence[object]]:
    """The other processes, if any, while the first one trains; they end with it, whatever happens.

    Raises:
        ConvergenceError: one of them failed, and with it the training.
    """
    others = Partners(config, resume, port)
    try:
        others.await_ready()
        yield others.processes
        others.join()
    except RuntimeError as error:  # what torch raises when the other end is gone
        problem = others.failure(wait=5.0)
        if problem is None:
            raise
        raise ConvergenceError(f"{problem}; the same command with --resume goes on") from error
    finally:
        others.end()
