"""Tiny models, built once for all tests: two species with s, p and d, one layer or two, a few channels."""

from __future__ import annotations

from dataclasses import replace
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


def crystal(seed: int = 0, n_atoms: int = 4, magnetic: Spin = Spin.NONE) -> AtomicStructure:
    """Both species in turn, on a jittered grid inside a sheared cell: pairs of every kind, images too.

    Args:
        seed: of places and moments.
        n_atoms: up to 4.
        magnetic: layout that moments are made for: along z, or tilted; none without.
    """
    rng = np.random.default_rng(seed)
    cell = np.diag([3.7, 3.9, 4.1]) + rng.uniform(-0.4, 0.4, (3, 3))
    sites = np.array([[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]])[:n_atoms]
    fractional = sites + 0.2 + rng.uniform(-0.06, 0.06, sites.shape)
    species = np.arange(n_atoms) % 2
    moments = None
    if magnetic is not Spin.NONE:
        moments = rng.normal(size=(n_atoms, 3)) * (1.0 if magnetic is Spin.SPINOR else np.array([0.0, 0.0, 1.0]))
    numbers = np.array([14, 7])[species]
    return AtomicStructure(numbers, species, fractional @ cell, cell, np.ones(3, dtype=bool), moments)


def with_moments(structure: AtomicStructure, moments: np.ndarray | None) -> AtomicStructure:
    """The same atoms with other moments."""
    return replace(structure, moments=moments)


def random_calculation(seed: int, spin: Spin, magnetic: bool = False) -> Calculation:
    """A hermitian Hamiltonian of random numbers; even under time reversal, or with random moments."""
    structure, basis = crystal(seed, magnetic=spin if magnetic else Spin.NONE), basis_of(spin)
    pairs = orbital_pairs(structure, basis)
    rng = np.random.default_rng(seed)
    matrix = BlockMatrix.zeros(pairs, basis, structure.species, spin)
    values = rng.normal(size=len(matrix.values)).astype(spin.dtype)
    if spin is Spin.SPINOR:
        values = values + 1j * rng.normal(size=len(values))
    if not magnetic:
        groups = matrix.with_values(values).groups()
        values = np.concatenate([((g.blocks + reversed_in_time(g.blocks, spin)) / 2).ravel() for g in groups])
    overlap = BlockMatrix.zeros(pairs, basis, structure.species)
    return Calculation(structure, basis, overlap, matrix.with_values(values).symmetrised())


def reversed_in_time(blocks: np.ndarray, spin: Spin) -> np.ndarray:
    """T M T^-1: up and down change places in collinear blocks."""
    if spin is Spin.SPINOR:
        return time_reversed(blocks)
    return blocks[:, ::-1] if spin is Spin.COLLINEAR else blocks


@lru_cache
def statistics_of(spin: Spin, layers: int = 1, magnetic: bool = False) -> Statistics:
    """Of two random calculations."""
    settings = NetworkConfig(channels=4, layers=layers)
    calculations = [random_calculation(seed, spin, magnetic) for seed in (0, 1)]
    return fit_statistics(calculations, basis_of(spin), spin, settings, magnetic)


def model_of(spin: Spin, layers: int = 1, double: bool = True, magnetic: bool = False) -> HamiltonianModel:
    """Untrained, with weights from a fixed seed."""
    return _build_model(spin, layers, double, magnetic)


@lru_cache
def _build_model(spin: Spin, layers: int, double: bool, magnetic: bool) -> HamiltonianModel:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        settings = NetworkConfig(channels=4, layers=layers, radial_hidden=16, radial_functions=8)
        dtype = torch.float64 if double else torch.float32
        return HamiltonianModel(settings, basis_of(spin), spin, statistics_of(spin, layers, magnetic), dtype)


def uncoupled_model(layers: int = 1, magnetic: bool = True) -> HamiltonianModel:
    """Spinors without spin-orbit coupling: the collinear model's scales, and weights from a fixed seed."""
    return _build_uncoupled(layers, magnetic)


@lru_cache
def _build_uncoupled(layers: int, magnetic: bool) -> HamiltonianModel:
    old = model_of(Spin.COLLINEAR, layers, magnetic=magnetic)
    statistics = replace(old.statistics, spin_orbit=False)
    model = HamiltonianModel(old.settings, old.basis, Spin.SPINOR, statistics, torch.float64)
    model.load_state_dict(old.state_dict())
    return model


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
