"""Blocks and sparse elements in a code's orbital order, both ways; and what every reader of such files checks.

Files of other programs hold either dense blocks (i, j, R), as DeepH's, or sparse elements (orbital, orbital of image
R), as SIESTA's and ABACUS's. Pairs that a file left out because they are small are completed by zeros, so that every
pair has its reverse; an asymmetry above the stated tolerance is an error, never repaired in silence.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hamnet.core.basis import SPECTROSCOPIC, OrbitalBasis
from hamnet.core.blocks import BlockMatrix
from hamnet.core.conventions import OrbitalConvention, from_ours, to_ours
from hamnet.core.pairs import PairList
from hamnet.core.spin import Spin
from hamnet.core.structure import AtomicStructure
from hamnet.errors import BasisError, PhysicsError

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]
ASYMMETRY = 1e-6
"""Largest |M - M^dagger| (eV for H, 1 for S) taken for rounding of the file."""


@dataclass(frozen=True, eq=False)
class Elements:
    """A sparse matrix: <row, 0| M |column, R> for each stored element.

    Args:
        row, column: (n,) orbitals of the cell, in the code's order within each atom.
        shift: (n, 3) image R of the column orbital.
        component: (n,) 0 for none; spin for collinear; 2 s + t for the spinor component (s, t).
        value: (n,) float64, or complex128 for spinors.
    """

    row: IntArray
    column: IntArray
    shift: IntArray
    component: IntArray
    value: NDArray[Any]


def shell_text(ls: tuple[int, ...]) -> str:
    """Shells as "s2p2d1"."""
    return "".join(f"{SPECTROSCOPIC[l]}{ls.count(l)}" for l in sorted(set(ls)))


def matrix_from_blocks(
    i: IntArray,
    j: IntArray,
    shift: IntArray,
    values: NDArray[Any],
    structure: AtomicStructure,
    basis: OrbitalBasis,
    spin: Spin,
    convention: OrbitalConvention,
    where: str,
) -> BlockMatrix:
    """Matrix of dense blocks, given one after the other in the code's orbital order.

    Args:
        i, j, shift: (n,), (n,), (n, 3) pairs in the order of the file.
        values: all blocks, flat, row-major, spinors spin-major.
        structure, basis, spin: what the blocks are of.
        convention: orbital order of the code.
        where: file, for messages.

    Raises:
        PhysicsError: the number of values does not fit, a pair repeats, or the matrix is not hermitian.
    """
    n = basis.n_orbitals[structure.species]
    sizes = n[i] * n[j] * spin.factor
    if sizes.sum() != len(values):
        raise PhysicsError(f"{where}: {len(values)} numbers, expected {sizes.sum()} for these pairs and this basis")
    extra = _missing(i, j, shift, structure.n_atoms)
    filler = np.zeros(int((n[extra[:, 0]] * n[extra[:, 1]]).sum()) * spin.factor)
    i, j = np.concatenate((i, extra[:, 0])), np.concatenate((j, extra[:, 1]))
    shift = np.concatenate((shift, extra[:, 2:]))
    values = np.concatenate((values, filler)).astype(spin.dtype)
    pairs, order = _build(i, j, shift, structure, where)
    sizes = n[i] * n[j] * spin.factor
    starts = (np.cumsum(sizes) - sizes)[order]
    ends = np.cumsum(sizes[order])
    at = np.repeat(starts - (ends - sizes[order]), sizes[order]) + np.arange(len(values))
    matrix = BlockMatrix.from_values(pairs, basis, structure.species, spin, values[at])
    return hermitian(reordered(matrix, convention, to_code=False), where)


def reordered(matrix: BlockMatrix, convention: OrbitalConvention, to_code: bool) -> BlockMatrix:
    """The same blocks with orbitals in the code's order (`to_code`) or, from it, in ours; pairs stay."""
    result = matrix.with_values(matrix.values.copy())
    change = from_ours if to_code else to_ours
    for group in result.groups():
        row, column = matrix.basis.species[group.species_i], matrix.basis.species[group.species_j]
        blocks = group.blocks
        if matrix.spin is Spin.SPINOR:
            # (n, s, a, t, b) -> (n, s, t, a, b): a view, so that writing into it writes the matrix
            parts = blocks.reshape(-1, 2, row.n_orbitals, 2, column.n_orbitals).swapaxes(2, 3)
            parts[...] = change(parts, convention, row, column)
        else:
            blocks[...] = change(blocks, convention, row, column)
    return result


def matrix_from_elements(
    elements: Elements,
    structure: AtomicStructure,
    basis: OrbitalBasis,
    spin: Spin,
    convention: OrbitalConvention,
    where: str,
    tolerance: float = ASYMMETRY,
) -> BlockMatrix:
    """Matrix of sparse elements in the code's orbital order.

    Raises:
        PhysicsError: the matrix is not hermitian within the tolerance.
    """
    n = basis.n_orbitals[structure.species]
    offsets = np.concatenate(([0], np.cumsum(n)))
    own, sign = _own_orbital(structure, basis, convention)
    i = np.searchsorted(offsets, elements.row, side="right") - 1
    j = np.searchsorted(offsets, elements.column, side="right") - 1
    stored = np.unique(np.column_stack((i, j, elements.shift)), axis=0)
    table = np.concatenate((stored, _missing(stored[:, 0], stored[:, 1], stored[:, 2:], structure.n_atoms)))
    pairs, _ = _build(table[:, 0], table[:, 1], table[:, 2:], structure, where)
    matrix = BlockMatrix.zeros(pairs, basis, structure.species, spin)
    p = pairs.find(PairList(i, j, elements.shift, np.zeros_like(i)))
    a, b = own[elements.row], own[elements.column]
    component = elements.component
    if spin is Spin.SPINOR:
        within = (component // 2 * n[i] + a) * 2 * n[j] + component % 2 * n[j] + b
    else:
        within = (component * n[i] + a) * n[j] + b
    np.add.at(matrix.values, matrix.offsets[p] + within, elements.value * sign[elements.row] * sign[elements.column])
    return hermitian(matrix, where, tolerance)


def elements_of(matrix: BlockMatrix, convention: OrbitalConvention) -> Elements:
    """Every element of a matrix, zeros too, in the code's orbital order: the inverse of `matrix_from_elements`."""
    coded = reordered(matrix, convention, to_code=True)
    parts = []
    for group in coded.groups():
        shape = group.blocks.shape
        n_i, n_j = (int(matrix.basis.n_orbitals[k]) for k in (group.species_i, group.species_j))
        blocks = group.blocks.reshape(shape[0], -1, n_i, n_j)
        if matrix.spin is Spin.SPINOR:
            blocks = group.blocks.reshape(-1, 2, n_i, 2, n_j).swapaxes(2, 3).reshape(shape[0], 4, n_i, n_j)
        p, component, a, b = (x.ravel() for x in np.indices(blocks.shape))
        p = p + group.pairs.start
        row = matrix.orbital_offsets[matrix.pairs.i[p]] + a
        column = matrix.orbital_offsets[matrix.pairs.j[p]] + b
        parts.append((row, column, matrix.pairs.cell_shift[p], component, blocks.ravel()))
    return Elements(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def hermitian(matrix: BlockMatrix, where: str, tolerance: float = ASYMMETRY) -> BlockMatrix:
    """(M + M^dagger) / 2 after a check.

    Raises:
        PhysicsError: |M - M^dagger| is above the tolerance; the message names the pair.
    """
    residual, pair = matrix.hermitian_residual()
    if residual > tolerance:
        raise PhysicsError(
            f"{where}: the matrix is not hermitian: the block of pair {matrix.describe_pair(pair)} differs from its "
            f"reverse by {residual:.3g}, expected at most {tolerance:g} (eV, or 1 for S): a block is missing or the "
            "file is corrupt"
        )
    return matrix.symmetrised()


def with_pairs_of(hamiltonian: BlockMatrix, overlap: BlockMatrix) -> BlockMatrix:
    """H on its own pairs and those of S: a block of H that is zero may be left out of a file, a pair of S not."""
    at = hamiltonian.pairs.find(overlap.pairs)
    if (at >= 0).all():
        return hamiltonian
    mine, more = hamiltonian.pairs, np.flatnonzero(at < 0)
    other = overlap.pairs
    pairs = PairList.build(
        np.concatenate((mine.i, other.i[more])),
        np.concatenate((mine.j, other.j[more])),
        np.concatenate((mine.cell_shift, other.cell_shift[more])),
        hamiltonian.species,
    )
    return hamiltonian.on_pairs(pairs)


def one_species_per_element(structure: AtomicStructure, basis: OrbitalBasis, what: str) -> None:
    """Check that the format, which knows elements only, can say this basis.

    Raises:
        BasisError: two species of one element, or a ghost atom.
    """
    used = [basis.species[k] for k in np.unique(structure.species)]
    numbers = [species.atomic_number for species in used]
    if 0 in numbers:
        raise BasisError(f"{what} has no ghost atoms, found {used[numbers.index(0)].label!r}")
    for z in set(numbers):
        labels = [species.label for species in used if species.atomic_number == z]
        if len(labels) > 1:
            raise BasisError(f"{what} gives each element one basis; atomic number {z} has {labels}")


def _missing(i: IntArray, j: IntArray, shift: IntArray, n_atoms: int) -> IntArray:
    """(m, 5) pairs (i, j, R) that are needed as reverse or on-site pair and are not there."""
    own = np.arange(n_atoms)
    there = np.column_stack((i, j, shift))
    needed = np.concatenate((np.column_stack((j, i, -shift)), np.column_stack((own, own, np.zeros((n_atoms, 3), int)))))
    rows, inverse = np.unique(np.concatenate((there, needed)), axis=0, return_inverse=True)
    found = np.bincount(inverse.ravel()[: len(there)], minlength=len(rows)) > 0
    result: IntArray = rows[~found].astype(np.int64)
    return result


def _build(
    i: IntArray, j: IntArray, shift: IntArray, structure: AtomicStructure, where: str
) -> tuple[PairList, IntArray]:
    bad = np.flatnonzero((i < 0) | (i >= structure.n_atoms) | (j < 0) | (j >= structure.n_atoms))
    if bad.size:
        raise PhysicsError(f"{where}: pair ({i[bad[0]]}, {j[bad[0]]}) names an atom beyond the {structure.n_atoms}")
    try:
        return PairList.build_with_order(i, j, shift, structure.species)
    except PhysicsError as error:
        raise PhysicsError(f"{where}: {error}") from error


def _own_orbital(
    structure: AtomicStructure, basis: OrbitalBasis, convention: OrbitalConvention
) -> tuple[IntArray, FloatArray]:
    """For each orbital of the cell in the code's order: our index inside its atom, and its sign."""
    index, signs = [], []
    for k in structure.species:
        order, sign = convention.species(basis.species[k])
        inverse = np.argsort(order)
        index.append(inverse)
        signs.append(sign[inverse])
    return np.concatenate(index), np.concatenate(signs)
