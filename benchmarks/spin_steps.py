"""What spin costs: one training step and its memory, spinless / collinear / spinor, without and with moments.

    python benchmarks/spin_steps.py STORE.h5 [--rounds 12]

STORE holds spinor calculations; the other layouts are made of their first cell: A_0 alone, up and down from A_0 and
A_z, moments of one Bohr magneton. Steps of all kinds take turns in one process, so that load on the machine meets all
alike; processor time of one thread, median over rounds of each step against the spinless one beside it. Peak memory:
each kind in a process of its own. One JSON row for each kind.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from spin import NETWORK, spinless

from hamnet.core.blocks import BlockMatrix
from hamnet.core.calculation import Calculation
from hamnet.core.spin import Spin
from hamnet.data.store import Store
from hamnet.nn.graph import build_graph, collate
from hamnet.nn.model import HamiltonianModel
from hamnet.nn.statistics import fit_statistics

KINDS = ("spinless", "collinear", "collinear_magnetic", "spinor", "spinor_magnetic")
SHIFT = 0.3
"""eV, times S: what is added to A_z of the magnetic kinds, whose real numbers do not matter to the time."""


def collinear(calculation: Calculation, shift: float) -> Calculation:
    """Up and down as A_0 + shift * S and A_0 - shift * S."""
    plain = spinless(calculation)
    h = plain.hamiltonian
    result = BlockMatrix.zeros(h.pairs, h.basis, h.species, Spin.COLLINEAR)
    for group, source, s in zip(result.groups(), h.groups(), calculation.overlap.groups(), strict=True):
        group.blocks[:, 0], group.blocks[:, 1] = source.blocks + shift * s.blocks, source.blocks - shift * s.blocks
    return replace(plain, hamiltonian=result)


def of_kind(calculation: Calculation, kind: str) -> Calculation:
    """The calculation in another layout, with or without moments."""
    layout, *magnetic = kind.split("_")
    if layout == "collinear":
        changed = collinear(calculation, SHIFT if magnetic else 0.0)
    else:
        changed = spinless(calculation) if layout == "spinless" else calculation
    direction = [0.0, 0.6, 0.8] if layout == "spinor" else [0.0, 0.0, 1.0]
    moments = np.tile(direction, (changed.structure.n_atoms, 1)) if magnetic else None
    return replace(changed, structure=replace(changed.structure, moments=moments))


def stepper(calculations: list[Calculation], magnetic: bool) -> tuple[Callable[[], float], HamiltonianModel]:
    """A training step on the first cell that returns its processor seconds."""
    first = calculations[0]
    statistics = fit_statistics(calculations, first.basis, first.spin, NETWORK, magnetic)
    model = HamiltonianModel(NETWORK, first.basis, first.spin, statistics)
    graph = build_graph(first.structure, first.hamiltonian.pairs, first.basis, statistics.message_cutoff)
    batch = collate([graph])
    optimizer = torch.optim.AdamW(model.parameters())

    def step() -> float:
        """Forward, backward, update."""
        start = time.process_time()
        optimizer.zero_grad()
        model(batch).square().mean().backward()
        optimizer.step()
        return time.process_time() - start

    return step, model


def read(store: Path) -> list[Calculation]:
    """The first two cells."""
    with Store(store) as opened:
        return [opened.read(name) for name in opened.names[:2]]


def memory_row(store: Path, kind: str) -> dict[str, float]:
    """Memory of this process before, and its peak in three steps, MB."""
    calculations = [of_kind(c, kind) for c in read(store)]
    step, _ = stepper(calculations, kind.endswith("magnetic"))
    before = status("VmRSS")
    for _ in range(3):
        step()
    return {"memory_before_MB": before, "peak_memory_MB": status("VmHWM")}


def status(name: str) -> float:
    """One figure of /proc/self/status in MB; the peak that getrusage tells is that of the process that forked this."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return float(line.split()[1]) / 1024


def main() -> None:
    """Print one row for each kind."""
    torch.set_num_threads(1)
    if sys.argv[1:2] == ["--memory"]:
        print(json.dumps(memory_row(Path(sys.argv[3]), sys.argv[2])))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path)
    parser.add_argument("--rounds", type=int, default=12)
    options = parser.parse_args()
    cells = read(options.store)
    steps, models = {}, {}
    for kind in KINDS:
        steps[kind], models[kind] = stepper([of_kind(c, kind) for c in cells], kind.endswith("magnetic"))
        steps[kind]()
    times = np.array([[steps[kind]() for kind in KINDS] for _ in range(options.rounds)])
    for column, kind in enumerate(KINDS):
        done = subprocess.run(
            [sys.executable, __file__, "--memory", kind, str(options.store)], check=True, capture_output=True
        )
        row = {
            "kind": kind,
            "channels": models[kind].n_channels,
            "weights": sum(w.numel() for w in models[kind].parameters()),
            "step_cpu_s_median": float(np.median(times[:, column])),
            "step_cpu_s_least": float(times[:, column].min()),
            "ratio_median": float(np.median(times[:, column] / times[:, 0])),
            "ratio_of_least": float(times[:, column].min() / times[:, 0].min()),
            **json.loads(done.stdout),
        }
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
