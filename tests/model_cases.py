"""Tiny models, built once for all tests: two species with s, p and d, one layer or two, a few channels."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch

from hamnet.config import NetworkConfig
from hamnet.core.basis import OrbitalBasis, Shell, Species
from hamnet.core.blocks import BlockMatrix, species_groups
from hamnet.core.calculation import Calculation
from hamnet.core.pairs import orbital_pairs
from hamnet.core.spin import Spin, time_reversed
from hamnet.core.structure import AtomicStructure
from hamnet.data.irrep_blocks import channels_to_values
from hamnet.nn.graph import build_graph, collate
from hamnet.nn.model import HamiltonianModel
from hamnet.nn.statistics import Statistics, fit_statistics
from hamnet.testing import Predict

RADII = (1.6, 1.4)
"""Angstrom, of the two species; pairs of both reach 3.0, messages 3.2."""
PAIR_CUTOFF = sum(RADII)
MESSAGE_CUTOFF = 2 * max(RADII)


def basis_of(spin: Spin) -> OrbitalBasis:
    """s2p1d1 and s1p1; spinors without the d shell, whose blocks are four times as large."""
    d = () if spin is Spin.SPINOR else (Shell(2, RADII[0]),)
    first = Species("A", 14, 4.0, (Shell(0, RADII[0]), Shell(0, RADII[0]), Shell(1, RADII[0]), *d))
    return OrbitalBasis((first, Species("B", 7, 5.0, (Shell(0, RADII[1]), Shell(1, RADII[1])))))


def crystal(seed: int = 0, n_atoms: int = 4) -> AtomicStructure:
    """Both species in turn, on a jittered grid inside a sheared cell: pairs of every kind, images too."""
    rng = np.random.default_rng(seed)
    cell = np.diag([3.7, 3.9, 4.1]) + rng.uniform(-0.4, 0.4, (3, 3))
    sites = np.array([[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]])[:n_atoms]
    fractional = sites + 0.2 + rng.uniform(-0.06, 0.06, sites.shape)
    species = np.arange(n_atoms) % 2
    return AtomicStructure(np.array([14, 7])[species], species, fractional @ cell, cell, np.ones(3, dtype=bool))


def random_calculation(seed: int, spin: Spin) -> Calculation:
    """A hermitian, time-reversal-even Hamiltonian of random numbers."""
    structure, basis = crystal(seed), basis_of(spin)
    pairs = orbital_pairs(structure, basis)
    rng = np.random.default_rng(seed)
    matrix = BlockMatrix.zeros(pairs, basis, structure.species, spin)
    values = rng.normal(size=len(matrix.values)).astype(spin.dtype)
    if spin is Spin.SPINOR:
        matrix = matrix.with_values(values + 1j * rng.normal(size=len(values)))
        values = np.concatenate([((g.blocks + time_reversed(g.blocks)) / 2).ravel() for g in matrix.groups()])
    overlap = BlockMatrix.zeros(pairs, basis, structure.species)
    return Calculation(structure, basis, overlap, matrix.with_values(values).symmetrised())


@lru_cache
def statistics_of(spin: Spin, layers: int = 1) -> Statistics:
    """Of two random calculations."""
    settings = NetworkConfig(channels=4, layers=layers)
    return fit_statistics([random_calculation(seed, spin) for seed in (0, 1)], basis_of(spin), spin, settings)


def model_of(spin: Spin, layers: int = 1, double: bool = True) -> HamiltonianModel:
    """Untrained, with weights from a fixed seed."""
    return _build_model(spin, layers, double)


@lru_cache
def _build_model(spin: Spin, layers: int, double: bool) -> HamiltonianModel:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        settings = NetworkConfig(channels=4, layers=layers, radial_hidden=16, radial_functions=8)
        dtype = torch.float64 if double else torch.float32
        return HamiltonianModel(settings, basis_of(spin), spin, statistics_of(spin, layers), dtype)


def blocks_of(channels: torch.Tensor, structure: AtomicStructure, basis: OrbitalBasis, spin: Spin) -> BlockMatrix:
    """Real channels of one structure as a BlockMatrix."""
    pairs, n = orbital_pairs(structure, basis), basis.n_orbitals
    groups = species_groups(pairs, structure.species, len(basis.species))
    shapes = [(part.stop - part.start, int(n[a]), int(n[b])) for a, b, part in groups]
    values = channels_to_values(channels.detach().numpy(), spin, shapes)
    return BlockMatrix.from_values(pairs, basis, structure.species, spin, values)


def predict_all(model: HamiltonianModel, structures: list[AtomicStructure]) -> list[BlockMatrix]:
    """All structures in one batch."""
    reach = model.statistics.message_cutoff
    graphs = [build_graph(s, orbital_pairs(s, model.basis), model.basis, reach) for s in structures]
    batch = collate(graphs)
    with torch.no_grad():
        parts = batch.unflatten(model(batch))
    return [blocks_of(part, s, model.basis, model.spin) for part, s in zip(parts, structures, strict=True)]


def predictor(model: HamiltonianModel) -> Predict:
    """The model as `hamnet.testing` sees it."""
    return lambda structure: predict_all(model, [structure])[0]
