"""Torch data set over stores: reads lazily, keeps graphs, collates structures into one batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from hamnet.core.basis import OrbitalBasis
from hamnet.core.blocks import BlockMatrix
from hamnet.core.calculation import Calculation
from hamnet.core.pairs import PairList
from hamnet.core.spin import Spin, pauli_to_spinor
from hamnet.data.store import Store
from hamnet.errors import BasisError, PhysicsError
from hamnet.nn.graph import Graph, GraphBatch, build_graph
from hamnet.nn.graph import collate as collate_graphs
from hamnet.nn.kspace import KSpaceStates, kspace_states
from hamnet.nn.moments import check_moments
from hamnet.nn.prior import Baseline, matrix_channels

CACHE_BYTES = 2**31
"""Samples of one part are kept in memory until they take this much."""
SAMPLE_ARRAYS = 4
"""A sample takes about as much as this many arrays of its target: target, baseline, S, and the graph's own tensors."""
ELECTRON_TOLERANCE = 1e-6
"""Files write numbers of electrons with so many digits at least."""
MATRICES = ("overlap", "hamiltonian", "reference_hamiltonian", "density")


@dataclass(frozen=True, eq=False)
class Sample:
    """One structure ready for the network; H and S as real channels, flat, on the pairs of H.

    Args:
        name: name in the store.
        graph: input of the network.
        target: (n_values, n_channels) float64, eV: H - baseline, what the network is to give, in the real channels of
            `hamnet.data.irrep_blocks.spin_channels`.
        overlap: (n_values, n_channels) float64, S in the spin layout of H.
        baseline: (n_values, n_channels) float64, eV: what is added to the network's output to make H.
        states: eigenstates for the k-space loss; None where it is not used.
        occupied: doubly occupied orbitals of a closed-shell molecule; 0 for everything else.
    """

    name: str
    graph: Graph
    target: Tensor
    overlap: Tensor
    baseline: Tensor
    states: KSpaceStates | None = None
    occupied: int = 0


@dataclass(frozen=True, eq=False)
class Batch:
    """Several samples as one: flat values follow the batch's own pair order.

    Args:
        graphs: input of the network.
        target, overlap, baseline: (n_values, n_channels) float64; see `Sample`.
        names: names in the store.
        states: eigenstates of each structure for the k-space loss; None where it is not used.
        occupied: doubly occupied orbitals of each structure; see `Sample`.
    """

    graphs: GraphBatch
    target: Tensor
    overlap: Tensor
    baseline: Tensor
    names: tuple[str, ...]
    states: tuple[KSpaceStates | None, ...] = ()
    occupied: tuple[int, ...] = ()

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        return Batch(
            self.graphs.to(device),
            self.target.to(device),
            self.overlap.to(device),
            self.baseline.to(device),
            self.names,
            tuple(None if states is None else states.to(device) for states in self.states),
            self.occupied,
        )


def collate(samples: Sequence[Sample]) -> Batch:
    """One batch from several samples."""
    graphs = collate_graphs([sample.graph for sample in samples])
    return Batch(
        graphs,
        graphs.flatten([sample.target for sample in samples]),
        graphs.flatten([sample.overlap for sample in samples]),
        graphs.flatten([sample.baseline for sample in samples]),
        tuple(sample.name for sample in samples),
        tuple(sample.states for sample in samples),
        tuple(sample.occupied for sample in samples),
    )


def overlap_like(overlap: BlockMatrix, matrix: BlockMatrix) -> BlockMatrix:
    """S on the pairs and in the spin layout of another matrix: S; (S, S); or S x 1.

    Raises:
        PhysicsError: S has pairs that the other matrix lacks.
    """
    if overlap.pairs is not matrix.pairs:
        overlap = overlap.on_pairs(matrix.pairs)
    result = BlockMatrix.zeros(matrix.pairs, matrix.basis, matrix.species, matrix.spin)
    for source, target in zip(overlap.groups(), result.groups(), strict=True):
        if matrix.spin is Spin.SPINOR:
            components = np.zeros((len(source.blocks), 4, *source.blocks.shape[1:]), dtype=np.complex128)
            components[:, 0] = source.blocks
            target.blocks[...] = pauli_to_spinor(components)
        elif matrix.spin is Spin.COLLINEAR:
            target.blocks[...] = source.blocks[:, None]
        else:
            target.blocks[...] = source.blocks
    return result


def to_basis(calculation: Calculation, basis: OrbitalBasis) -> Calculation:
    """The same calculation with species counted as in `basis`, which must hold all of them.

    Raises:
        BasisError: a species is absent from `basis` or has other orbitals there.
    """
    if calculation.basis.hash == basis.hash:
        return calculation
    table = np.zeros(len(calculation.basis.species), dtype=np.int64)
    for k in np.unique(calculation.structure.species).tolist():
        table[k] = basis.index(calculation.basis.species[k].label)
        if basis.species[table[k]] != calculation.basis.species[k]:
            raise BasisError(
                f"species {basis.species[table[k]].label!r} has other orbitals in the model than in the data"
            )
    species = table[calculation.structure.species]
    changed: dict[str, Any] = {"structure": calculation.structure.with_species(species), "basis": basis}
    for name in MATRICES:
        matrix = getattr(calculation, name)
        changed[name] = None if matrix is None else _reindexed(matrix, basis, species)
    kept = {key: value for key, value in vars(calculation).items() if key not in changed}
    return Calculation(**changed, **kept)


def _reindexed(matrix: BlockMatrix, basis: OrbitalBasis, species: NDArray[np.int64]) -> BlockMatrix:
    old = matrix.pairs
    pairs, order = PairList.build_with_order(old.i, old.j, old.cell_shift, species)
    sizes = np.diff(matrix.offsets)[order]
    ends = np.cumsum(sizes)
    within = np.arange(len(matrix.values)) - np.repeat(ends - sizes, sizes)
    values = matrix.values[np.repeat(matrix.offsets[:-1][order], sizes) + within]
    return BlockMatrix.from_values(pairs, basis, species, matrix.spin, values)


def make_sample(
    name: str,
    calculation: Calculation,
    basis: OrbitalBasis,
    message_cutoff: float,
    baseline: Baseline | None = None,
    kspace_points: int = 0,
    magnetic: bool = False,
) -> Sample:
    """Sample from a calculation that has a Hamiltonian.

    Args:
        name: name in the store.
        calculation: with species counted as in `basis`.
        basis: orbitals of the model.
        message_cutoff: Angstrom.
        baseline: what is subtracted from H; None: nothing.
        kspace_points: k-points with eigenstates for the k-space loss.
        magnetic: with the channels odd under time reversal.

    Raises:
        PhysicsError: the calculation has no Hamiltonian, it is magnetic and has no moments, or the baseline is a
            reference that it does not have.
    """
    if calculation.hamiltonian is None:
        raise PhysicsError(f"{name} has no Hamiltonian, so nothing can be learnt from it: leave it out of the split")
    check_moments(name, calculation)
    matrix = calculation.hamiltonian
    target = matrix_channels(matrix, magnetic).copy()
    known = None if baseline is None else baseline.of(calculation)
    subtracted = np.zeros_like(target) if known is None else matrix_channels(known, magnetic)
    return Sample(
        name,
        build_graph(calculation.structure, matrix.pairs, basis, message_cutoff),
        torch.from_numpy(target - subtracted),
        torch.from_numpy(matrix_channels(overlap_like(calculation.overlap, matrix), magnetic).copy()),
        torch.from_numpy(subtracted.copy()),
        kspace_states(name, calculation, kspace_points, magnetic) if kspace_points else None,
        occupied_orbitals(calculation),
    )


def occupied_orbitals(calculation: Calculation) -> int:
    """Doubly occupied orbitals of a closed-shell molecule; 0 where H has spin or a cell, or electrons do not pair."""
    if calculation.spin is not Spin.NONE or calculation.structure.is_periodic:
        return 0
    electrons = calculation.n_electrons
    if electrons is None:
        electrons = calculation.basis.n_electrons(calculation.structure.species)
    pairs = round(electrons / 2)
    fits = abs(electrons - 2 * pairs) < ELECTRON_TOLERANCE and pairs <= calculation.overlap.n_orbitals
    return pairs if fits else 0


class StoreCollection:
    """Several stores read as one: names must differ, spin layouts must agree, bases are merged.

    Raises:
        BasisError: spin layouts differ or two stores mean different orbitals by one label.
        PhysicsError: a name stands in two stores.
    """

    def __init__(self, paths: Sequence[Any]) -> None:
        self.stores = [Store(path) for path in paths]
        first = self.stores[0]
        self.basis: OrbitalBasis = first.basis
        self.spin: Spin = first.spin
        self._where: dict[str, int] = {}
        for k, store in enumerate(self.stores):
            if store.spin is not self.spin:
                raise BasisError(
                    f"{paths[k]} has spin layout {store.spin.value} but {paths[0]} has {self.spin.value}: "
                    "train on one layout at a time"
                )
            self.basis = self.basis.merged(store.basis)
            for name in store.names:
                if name in self._where:
                    raise PhysicsError(f"the name {name!r} stands in {paths[self._where[name]]} and in {paths[k]}")
                self._where[name] = k

    @property
    def names(self) -> list[str]:
        """Names of all calculations, in the order of the stores."""
        return list(self._where)

    @property
    def n_atoms(self) -> list[int]:
        """Atoms of each, in the order of `names`, without reading any calculation."""
        return [int(n) for store in self.stores for n in store.n_atoms]

    def read(self, name: str) -> Calculation:
        """The calculation of that name, in the merged basis."""
        return to_basis(self.stores[self._where[name]].read(name), self.basis)

    def close(self) -> None:
        """Close the files."""
        for store in self.stores:
            store.__exit__(None, None, None)


class HamiltonianDataset(Dataset[Sample]):
    """Samples of some names of a collection of stores.

    Args:
        stores: where to read.
        names: which calculations.
        basis: orbitals of the model; must hold the species of the data.
        message_cutoff: reach of the messages in Angstrom.
        cache_bytes: samples are kept in memory until they take this much; the rest is read again each time.
        baseline: what is subtracted from H; None: nothing.
        kspace_points: k-points of each structure with eigenstates for the k-space loss.
        magnetic: with the channels odd under time reversal.
    """

    def __init__(
        self,
        stores: StoreCollection,
        names: Sequence[str],
        basis: OrbitalBasis,
        message_cutoff: float,
        cache_bytes: int = CACHE_BYTES,
        baseline: Baseline | None = None,
        kspace_points: int = 0,
        magnetic: bool = False,
    ) -> None:
        self.stores = stores
        self.names = list(names)
        self.basis = basis
        self.message_cutoff = message_cutoff
        self.baseline = baseline
        self.kspace_points = kspace_points
        self.magnetic = magnetic
        self._room = cache_bytes
        self._kept: dict[int, Sample] = {}

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        if index in self._kept:
            return self._kept[index]
        name = self.names[index]
        calculation = to_basis(self.stores.read(name), self.basis)
        sample = make_sample(
            name, calculation, self.basis, self.message_cutoff, self.baseline, self.kspace_points, self.magnetic
        )
        size = SAMPLE_ARRAYS * sample.target.nbytes
        if size <= self._room:
            self._room -= size
            self._kept[index] = sample
        return sample
