"""Speed of the network: CPU seconds of one thread, the least of several repetitions, one JSON row for each line.

    python benchmarks/step.py [--json] [--data unpacked/openmx] [--only kernel,water,...]

Rows: both kernels on 10,000 edges; a training step on water (batch 10), ethanol (5) and uracil (5) in def2-SVP;
prediction and a training step of graphene 6x6 (72 atoms); the graph of one structure; prediction of larger cells;
`--only spin`: a training step in every spin layout.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import torch
from ase.build import molecule

from hamnet.config import NetworkConfig
from hamnet.core.blocks import BlockMatrix
from hamnet.core.calculation import Calculation
from hamnet.core.rotation import rotate_spins
from hamnet.core.spin import Spin
from hamnet.core.supercell import supercell
from hamnet.nn.features import FeatureLayout
from hamnet.nn.frames import EdgeFrames
from hamnet.nn.graph import GraphBatch, build_graph, collate
from hamnet.nn.model import HamiltonianModel
from hamnet.nn.so2 import SO2Convolution
from hamnet.nn.statistics import fit_statistics
from hamnet.nn.tensor_product import TensorProductConvolution

URACIL = (
    "NCNCCCOOHHHH",
    [[1.21, 0.33, 0], [0.02, 1.03, 0], [-1.19, 0.37, 0], [-1.27, -1.00, 0], [-0.07, -1.65, 0], [1.24, -1.03, 0],
     [0.02, 2.25, 0], [2.32, -1.61, 0], [2.07, 0.87, 0], [-2.03, 0.92, 0], [-2.24, -1.47, 0], [-0.05, -2.73, 0]],
)  # fmt: skip
"""Rough planar geometry: only sizes matter for the time."""
NETWORK = NetworkConfig(layers=1, channels=32)


def least(action: Callable[[], object], repetitions: int = 5) -> float:
    """CPU seconds of the process, the least of several runs after one to warm up."""
    action()
    times = []
    for _ in range(repetitions):
        start = time.process_time()
        action()
        times.append(time.process_time() - start)
    return min(times)


def kernel_row(n_edges: int, channels: int, lmax: int, unnatural: int) -> dict[str, object]:
    """Forward and backward of both kernels on equal features; frames are made anew each time."""
    layout = FeatureLayout(lmax, channels, unnatural)
    source = torch.randn(n_edges, layout.rows, layout.channels, requires_grad=True)
    vectors = torch.randn(n_edges, 3)
    row: dict[str, object] = {"edges": n_edges, "lmax": lmax, "channels": f"{channels} + {unnatural}"}
    for name, kernel, count in (
        ("so2", SO2Convolution(layout, layout), 3),
        ("e3nn", TensorProductConvolution(layout, layout, lmax), 1),
    ):
        weights = torch.randn(n_edges, kernel.n_weights, requires_grad=True)

        def forward(kernel: torch.nn.Module = kernel, weights: torch.Tensor = weights) -> torch.Tensor:
            """One application, frames included."""
            result: torch.Tensor = kernel(source, EdgeFrames(vectors, torch.float32), weights)
            return result

        with torch.no_grad():
            row[f"{name}_forward_s"] = least(forward, count)
        row[f"{name}_forward_backward_s"] = least(lambda f=forward: f().sum().backward(), count)
    row["ratio_forward_backward"] = row["e3nn_forward_backward_s"] / row["so2_forward_backward_s"]
    return row


def molecule_calculations(numbers: list[int], positions: np.ndarray, count: int) -> list[Calculation]:
    """Jittered copies of a molecule in def2-SVP; S stands for H, since the time does not depend on the numbers."""
    from pyscf import gto

    from hamnet_preprocess.pyscf_basis import basis_of, molecule_calculation

    rng, result = np.random.default_rng(0), []
    for _ in range(count):
        moved = positions + rng.normal(scale=0.05, size=positions.shape)
        mol = gto.M(atom=list(zip(numbers, moved.tolist(), strict=True)), basis="def2-svp", verbose=0)
        overlap = mol.intor("int1e_ovlp")
        result.append(molecule_calculation(np.array(numbers), moved, basis_of(mol)[0], overlap, overlap))
    return result


def model_and_batch(calculations: list[Calculation], copies: int) -> tuple[HamiltonianModel, GraphBatch]:
    """An untrained model and one batch."""
    basis, spin = calculations[0].basis, calculations[0].spin
    statistics = fit_statistics(calculations, basis, spin, NETWORK)
    model = HamiltonianModel(NETWORK, basis, spin, statistics)
    return model, batch_of((calculations * copies)[:copies], statistics.message_cutoff)


def batch_of(calculations: list[Calculation], reach: float) -> GraphBatch:
    """Graphs of calculations as one batch."""
    return collate([build_graph(c.structure, c.overlap.pairs, c.basis, reach) for c in calculations])


def training_step(model: HamiltonianModel, batch: GraphBatch) -> Callable[[], None]:
    """A step with the optimiser."""
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4, fused=True)

    def step() -> None:
        """Forward, backward, update."""
        optimizer.zero_grad()
        model(batch).abs().mean().backward()
        optimizer.step()

    return step


def molecule_row(name: str, batch_size: int) -> dict[str, object]:
    """A training step of a molecule in def2-SVP."""
    if name == "uracil":
        numbers = [{"H": 1, "C": 6, "N": 7, "O": 8}[s] for s in URACIL[0]]
        positions = np.array(URACIL[1])
    else:
        atoms = molecule({"water": "H2O", "ethanol": "CH3CH2OH"}[name])
        numbers, positions = atoms.numbers.tolist(), atoms.positions
    model, batch = model_and_batch(molecule_calculations(numbers, positions, 3), batch_size)
    return {"batch": batch_size, "pairs": batch.n_pairs, "step_s": least(training_step(model, batch))}


def graphene_rows(data: Path) -> list[dict[str, object]]:
    """Prediction and step of graphene 6x6, its graph, and prediction of larger cells."""
    from hamnet_preprocess.openmx import OpenMXReader

    calculation = OpenMXReader().read(data / "graphene" / "test6x6")
    model, batch = model_and_batch([calculation], 1)
    reach = model.statistics.message_cutoff

    def graph() -> GraphBatch:
        """Neighbours, masks, index tables."""
        return batch_of([calculation], reach)

    def predict() -> torch.Tensor:
        """Forward without gradients."""
        with torch.no_grad():
            values: torch.Tensor = model(batch)
            return values

    first: dict[str, object] = {
        "row": "graphene 6x6",
        "atoms": 72,
        "pairs": batch.n_pairs,
        "predict_s": least(predict),
        "graph_s": least(graph),
        "step_s": least(training_step(model, batch)),
        "peak_GB": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e9,
    }
    rows = [first]
    for repeats in (2, 4):
        large = supercell(calculation, (repeats, repeats, 1))
        batch = batch_of([large], reach)
        rows.append({"row": "prediction", "atoms": large.structure.n_atoms, "predict_s": least(predict, 2)})
    return rows


def spin_rows(data: Path) -> list[dict[str, object]]:
    """Hydrogen on graphene (19 atoms) in every layout; spinors are the collinear H, all spins turned."""
    from hamnet_preprocess.openmx import OpenMXReader

    collinear = OpenMXReader().read(data / "hgraphene_spin")
    parts = []
    for group in collinear.hamiltonian.groups():
        up, down = np.moveaxis(group.blocks, 1, 0)
        parts.append(np.block([[up, 0 * up], [0 * up, down]]).astype(complex).ravel())
    like = collinear.hamiltonian
    matrix = BlockMatrix.from_values(like.pairs, like.basis, like.species, Spin.SPINOR, np.concatenate(parts))
    quarter = np.array([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]])
    structure = replace(collinear.structure, moments=collinear.structure.moments @ quarter.T)
    spinor = Calculation(structure, collinear.basis, collinear.overlap, rotate_spins(matrix, quarter))
    rows: list[dict[str, object]] = []
    for name, calculation, spin, magnetic, spin_orbit in (
        ("without moments", collinear, Spin.COLLINEAR, False, True),
        ("collinear", collinear, Spin.COLLINEAR, True, True),
        ("spinor without coupling", spinor, Spin.SPINOR, True, False),
        ("spinor", spinor, Spin.SPINOR, True, True),
    ):
        statistics = fit_statistics([calculation], calculation.basis, spin, NETWORK, magnetic, spin_orbit)
        model = HamiltonianModel(NETWORK, calculation.basis, spin, statistics)
        batch = batch_of([calculation], statistics.message_cutoff)
        count = sum(p.numel() for p in model.parameters())
        rows.append({"layout": name, "parameters": count, "step_s": least(training_step(model, batch))})
    return rows


def rows_of(name: str, data: Path) -> list[dict[str, object]]:
    """The rows of one name."""
    if name == "kernel":
        return [kernel_row(10_000, 32, 4, unnatural) for unnatural in (0, 8)]
    if name == "graphene":
        return graphene_rows(data)
    if name == "spin":
        return spin_rows(data)
    return [molecule_row(name, 10 if name == "water" else 5)]


def main() -> None:
    """Print the rows; each name runs in a process of its own, so that peak memory is its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("/tmp/hamdata/openmx"))
    parser.add_argument("--only", default="kernel,water,ethanol,uracil,graphene")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--here", action="store_true", help="run in this process")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name in options.only.split(","):
        if not options.here:
            subprocess.run(
                [sys.executable, __file__, "--here", "--only", name, "--data", str(options.data)]
                + ["--json"] * options.json,
                check=True,
            )
            continue
        for found in rows_of(name, options.data):
            row = {"row": name, **found, "date": date.today().isoformat()}
            print(json.dumps(row) if options.json else row, flush=True)


if __name__ == "__main__":
    main()
