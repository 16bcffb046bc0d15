"""Real-space blocks from Bloch matrices on a Gamma-centred k-mesh.

H(R) = (1/N_k) sum_k exp(-2 pi i k.n) H(k), R known modulo the mesh's supercell: a block goes to the image of
least |r_j + R - r_i|; images of equal length share it equally, so that H_ij(R) = H_ji(-R)^dagger.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh

from hamnet.core.basis import OrbitalBasis
from hamnet.core.blocks import BlockMatrix, block_offsets
from hamnet.core.pairs import PairList
from hamnet.core.spin import Spin
from hamnet.core.structure import AtomicStructure
from hamnet.core.units import HARTREE
from hamnet.errors import PhysicsError
from hamnet_preprocess.pyscf_basis import as_layout, gather_index, orbital_order

Mesh = tuple[int, int, int]
TIE = 1e-5
"""Images whose lengths differ by less than this (Angstrom) share a block."""
OFF_MESH_TOLERANCE = 1e-4
"""Largest deviation (eV) of eigenvalues at a k-point off the mesh."""
OFF_MESH_WINDOW = 5.0
"""Eigenvalues up to this far (eV) above the Fermi level are compared off the mesh."""


def mesh_of(kpoints: NDArray[np.float64]) -> Mesh:
    """The Gamma-centred mesh that fractional k-points form.

    Raises:
        PhysicsError: they are no complete Gamma-centred mesh.
    """
    wrapped = np.round(kpoints % 1.0, 8) % 1.0
    counts = [len(np.unique(wrapped[:, axis])) for axis in range(3)]
    steps = wrapped * counts
    on_grid = np.abs(steps - np.round(steps)).max() < 1e-5
    if not on_grid or np.prod(counts) != len(kpoints) or len(np.unique(np.round(steps), axis=0)) != len(kpoints):
        raise PhysicsError(
            f"{len(kpoints)} k-points with {counts} different components, first {wrapped[0].tolist()}: expected a "
            "complete Gamma-centred mesh without shift, as cell.make_kpts([n1, n2, n3]) makes it"
        )
    return counts[0], counts[1], counts[2]


def lattice_blocks(matrices: NDArray[Any], kpoints: NDArray[np.float64], mesh: Mesh) -> NDArray[np.complex128]:
    """(n_cells, ...) matrices M(R) for R in 0..mesh-1 in lexical order, from (n_k, ...) matrices M(k)."""
    cells = np.array(list(product(*(range(m) for m in mesh))))
    phases = np.exp(-2j * np.pi * cells @ kpoints.T) / len(kpoints)
    result: NDArray[np.complex128] = np.tensordot(phases, matrices, axes=(1, 0))
    return result


def blocks_from_mesh(
    matrices: NDArray[Any],
    kpoints: NDArray[np.float64],
    structure: AtomicStructure,
    basis: OrbitalBasis,
    spin: Spin,
    more: PairList,
) -> BlockMatrix:
    """M(R) as blocks, hermitian bitwise, in the units of `matrices`.

    Args:
        matrices: (n_k, n, n) or (n_k, 2, n, n), PySCF's orbital order.
        kpoints: (n_k, 3) fractional, a Gamma-centred mesh.
        structure, basis, spin: where and what.
        more: pairs that must be in the list too (those of S); blocks that the mesh does not assign are zero.
    """
    mesh = mesh_of(kpoints)
    real = as_layout(lattice_blocks(matrices, kpoints, mesh), spin)
    i, j, shifts, weights = _images(structure, mesh)
    pairs, order = PairList.build_with_order(i, j, shifts, structure.species)
    cells = np.ravel_multi_index(tuple((pairs.cell_shift % mesh).T), mesh)
    index = gather_index(pairs, cells, basis, structure.species, spin, orbital_order(basis, structure.species))
    sizes = np.diff(block_offsets(pairs, basis, structure.species, spin))
    values = real.reshape(-1)[index] * np.repeat(weights[order], sizes)
    matrix = BlockMatrix.from_values(pairs, basis, structure.species, spin, values)
    return matrix.symmetrised().on_pairs(_union(pairs, more, structure))


def _images(
    structure: AtomicStructure, mesh: Mesh
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """i, j, cell shift and weight of the nearest images of every (i, j, R modulo mesh)."""
    lattice, size = structure.lattice, np.array(mesh)
    cells = np.array(list(product(*(range(m) for m in mesh))))
    steps = np.array(list(product(*((-2, -1, 0, 1, 2) if p else (0,) for p in structure.pbc))))
    fractional = structure.positions @ np.linalg.inv(lattice)
    parts = []
    for a, b in product(range(structure.n_atoms), repeat=2):
        bare = fractional[b] - fractional[a]
        centre = -np.round((bare + cells) / size).astype(np.int64) * structure.pbc
        shifts = cells[:, None] + (centre[:, None] + steps) * size
        length = np.linalg.norm((bare + shifts) @ lattice, axis=-1)
        near = length < length.min(axis=1, keepdims=True) + TIE
        weight = np.broadcast_to(1.0 / near.sum(axis=1, keepdims=True), near.shape)
        parts.append((np.full(near.sum(), a), np.full(near.sum(), b), shifts[near], weight[near]))
    i, j, shift, weights = (np.concatenate(column) for column in zip(*parts, strict=True))
    return i, j, shift, weights


def _union(pairs: PairList, more: PairList, structure: AtomicStructure) -> PairList:
    new = pairs.find(more) < 0
    return PairList.build(
        np.concatenate((pairs.i, more.i[new])),
        np.concatenate((pairs.j, more.j[new])),
        np.concatenate((pairs.cell_shift, more.cell_shift[new])),
        structure.species,
    )


def off_mesh_point(mesh: Mesh, pbc: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(1, 3) fractional k-point half a step off the mesh along every periodic direction that has a mesh.

    A direction with one k-point is taken as vacuum, unless all have one (Gamma only): then all are tested.
    """
    sampled = np.array(mesh) > 1
    along = pbc & sampled if sampled.any() else pbc
    return np.where(along, 0.5 / np.array(mesh), 0.0)[None]


def bloch_eigenvalues(
    hamiltonian: BlockMatrix, overlap: BlockMatrix, kpoints: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(n_spin, n_k, n) eigenvalues in eV from M(k) = sum_R exp(2 pi i k.n) M(R)."""
    result = []
    for k in kpoints:
        s_k = _bloch(overlap, k)[0]
        result.append([eigh(h_k, s_k, eigvals_only=True) for h_k in _bloch(hamiltonian, k)])
    return np.array(result).swapaxes(0, 1)


def _bloch(matrix: BlockMatrix, kpoint: NDArray[np.float64]) -> NDArray[np.complex128]:
    n = matrix.n_orbitals
    layers = 2 if matrix.spin is Spin.COLLINEAR else 1
    dense = np.zeros((layers, n, n), dtype=np.complex128)
    start = matrix.orbital_offsets
    phases = np.exp(2j * np.pi * matrix.pairs.cell_shift @ kpoint)
    for p, (i, j) in enumerate(zip(matrix.pairs.i.tolist(), matrix.pairs.j.tolist(), strict=True)):
        dense[:, start[i] : start[i + 1], start[j] : start[j + 1]] += phases[p] * matrix.block(p)
    return dense


def off_mesh_deviation(
    hamiltonian: BlockMatrix,
    overlap: BlockMatrix,
    off_mesh: tuple[NDArray[Any], NDArray[Any]],
    fermi_energy: float,
) -> float:
    """Largest |difference| (eV) of eigenvalues off the mesh, up to `OFF_MESH_WINDOW` above the Fermi level."""
    kpoints, expected = off_mesh[0], off_mesh[1] * HARTREE
    found = bloch_eigenvalues(hamiltonian, overlap, kpoints)
    if found.shape != expected.shape:
        raise PhysicsError(f"eigenvalues off the mesh have shape {found.shape}, PySCF's have {expected.shape}")
    inside = expected < fermi_energy + OFF_MESH_WINDOW
    return float(np.abs(found - expected)[inside].max(initial=0.0))


def outermost_norm(hamiltonian: BlockMatrix, mesh: Mesh) -> float:
    """Largest |H(R)| (eV) among the blocks at the rim of the mesh's supercell, along directions with a mesh."""
    shifts, size = np.abs(hamiltonian.pairs.cell_shift), np.array(mesh)
    rim = ((shifts >= np.maximum(size // 2, 1)) & (size > 1)).any(axis=1)
    largest = np.maximum.reduceat(np.abs(hamiltonian.values), hamiltonian.offsets[:-1])
    return float(largest[rim].max(initial=0.0))


def mesh_needed(hamiltonian: BlockMatrix, structure: AtomicStructure, mesh: Mesh, tolerance: float) -> Mesh:
    """Estimate of the mesh whose rim blocks fall below the tolerance, from an exponential fit of |H(R)|.

    Fitted through the largest block in each shell of |r| (1 Angstrom wide); with too few shells or no decay,
    twice the mesh. Odd numbers, at least two more than now along every direction that has a mesh.
    """
    length = np.linalg.norm(hamiltonian.pairs.vectors(structure), axis=1)
    largest = np.maximum.reduceat(np.abs(hamiltonian.values), hamiltonian.offsets[:-1])
    shells = np.round(length).astype(np.int64)
    known = [(r, largest[shells == r].max()) for r in np.unique(shells[largest > 1e-8])]
    table = np.array([(r, np.log(v)) for r, v in known if r > 0])
    reach = 0.0
    if len(table) >= 3:
        slope, height = np.polyfit(table[:, 0], table[:, 1], 1)
        reach = (np.log(tolerance) - height) / slope if slope < 0 else 0.0
    spacing = 1.0 / np.linalg.norm(np.linalg.inv(structure.lattice), axis=0)
    wanted = np.ceil(2 * min(reach, 60.0) / spacing).astype(int)
    everywhere = max(mesh) == 1
    needed = [
        int(max(w, m + 2, 2 * m if not reach else 0)) | 1 if m > 1 or (everywhere and p) else 1
        for w, m, p in zip(wanted, mesh, structure.pbc, strict=True)
    ]
    return needed[0], needed[1], needed[2]
