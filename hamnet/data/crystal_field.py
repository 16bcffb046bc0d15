"""CrystalField: on-site blocks as sums over neighbours of two-centre functions, fitted in closed form.

The block of an atom i between its shells (l_1) and (l_2) is

    M_ii = c + sum_L C^{l_1 l_2 L} . sum_{j != i} f_L(|r_ij|) sqrt(4 pi / (2L + 1)) Y_L(r_ij),   L + l_1 + l_2 even,

one f_L for each species of the neighbour j. With f_L = sum_k x_k B_k (splines that end smoothly at the cutoff) this is
linear in x and c: least squares with a ridge and a penalty on the third derivative, chosen on held-out samples.
Rotations, permutations and the transposition M_ii = M_ii^T are exact.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import BSpline

from hamnet.core.basis import OrbitalBasis, Species
from hamnet.core.blocks import BlockMatrix
from hamnet.core.pairs import neighbour_pairs
from hamnet.core.structure import AtomicStructure
from hamnet.data.irrep_blocks import real_clebsch_gordan
from hamnet.data.radial_spline import DEGREE, VANISHING, spline_design, spline_knots
from hamnet.data.two_centre import Directions

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Sample = tuple[AtomicStructure, BlockMatrix]

KNOT_SPACING = 0.4
"""Distance between knots (Angstrom)."""
LEAST_DISTANCE = 0.5
"""First knot (Angstrom); closer atoms are out of every training set."""
PENALTIES = (1e-12, 1e-10, 1e-8, 1e-6, 1e-4, 1e-2)
"""Weights of ridge and roughness to choose from, relative to the mean square of a column of the design matrix."""
LEAST_DESIGN = 1e-2
"""Root mean square of a row of the design matrix that the penalty counts with at least. Where all atoms of the training
set stand on symmetric sites, rows of some degree are zero but for rounding, and so are the targets: without this the
quotient of both would be taken for the field of an atom that is moved."""
CHUNK = 50_000
"""Neighbours that are expanded at a time: bounds memory."""


def shell_pairs(species: Species, l: int) -> list[tuple[int, int]]:
    """Shell pairs (p, q), p <= q, whose block holds a natural part of degree l."""
    ls = species.shell_ls
    return [
        (p, q)
        for p in range(len(ls))
        for q in range(p, len(ls))
        if abs(ls[p] - ls[q]) <= l <= ls[p] + ls[q] and (ls[p] + ls[q] + l) % 2 == 0
    ]


@dataclass(frozen=True, eq=False)
class CrystalField:
    """On-site blocks of the species of a basis.

    Args:
        basis: the species.
        cutoffs: (n_species, n_species) Angstrom, where the functions vanish; 0 for couples without data.
        constants: species -> (n_shell_pairs,) part of degree 0 of a free atom, in the order of `shell_pairs`.
        coefficients: (species, neighbour species, l) -> (n_splines, n_shell_pairs).
    """

    basis: OrbitalBasis
    cutoffs: FloatArray
    constants: dict[int, FloatArray]
    coefficients: dict[tuple[int, int, int], FloatArray]

    @classmethod
    def fit(cls, samples: Iterable[Sample], basis: OrbitalBasis, cutoffs: FloatArray) -> CrystalField:
        """Least squares over the on-site blocks of the samples (structure, spinless matrix), in one pass.

        Args:
            samples: structures whose species index `basis`.
            basis: the species.
            cutoffs: (n_species, n_species) Angstrom; 0: no functions for this couple.
        """
        layouts = {a: _Layout(basis.species[a], cutoffs[a]) for a in range(len(basis.species))}
        rows: dict[tuple[int, int], list[tuple[FloatArray, FloatArray]]] = {}
        for structure, matrix in samples:
            for a, atoms, blocks in _own_blocks(matrix):
                for l, design in layouts[a].designs(structure, atoms).items():
                    target = _coefficients(basis.species[a], l, blocks)
                    rows.setdefault((a, l), []).append((design, target))
        field = cls(basis, cutoffs, {}, {})
        for (a, l), parts in rows.items():
            field._store(layouts[a], a, l, _solve(parts, layouts[a].penalty(l)))
        return field

    def _store(self, layout: _Layout, a: int, l: int, solution: FloatArray) -> None:
        for b, columns in layout.columns.items():
            self.coefficients[a, b, l] = solution[columns]
        if l == 0:
            self.constants[a] = solution[-1]

    def add_to(self, matrix: BlockMatrix, structure: AtomicStructure) -> None:
        """Add the field to the on-site blocks of a spinless matrix whose species index this basis; in place."""
        on_site = matrix.pairs.on_site
        for group in matrix.groups():
            own = on_site[group.pairs]
            if own.any():
                group.blocks[own] += self.blocks(structure, group.species_i, matrix.pairs.i[group.pairs][own])

    def blocks(self, structure: AtomicStructure, a: int, atoms: IntArray) -> FloatArray:
        """(n, n_a, n_a) eV of the given atoms, which are of species `a`; bitwise symmetric."""
        species = self.basis.species[a]
        layout = _Layout(species, self.cutoffs[a])
        total = np.zeros((len(atoms), species.n_orbitals, species.n_orbitals))
        for l, design in layout.designs(structure, atoms).items():
            values = design @ self._solution(layout, a, l)
            for k, (p, q) in enumerate(shell_pairs(species, l)):
                coupling = real_clebsch_gordan(species.shells[p].l, species.shells[q].l, l)
                part = np.einsum("abm,nm->nab", coupling, values[:, :, k])
                total[:, species.slices[p], species.slices[q]] += part
                if p != q:
                    total[:, species.slices[q], species.slices[p]] += part.swapaxes(1, 2)
        return (total + total.swapaxes(1, 2)) / 2

    def _solution(self, layout: _Layout, a: int, l: int) -> FloatArray:
        """All coefficients of one degree in one array; zeros for neighbours without data."""
        result = np.zeros((layout.width + (l == 0), len(shell_pairs(self.basis.species[a], l))))
        for b, columns in layout.columns.items():
            result[columns] = self.coefficients.get((a, b, l), 0.0)
        if l == 0:
            result[-1] = self.constants.get(a, 0.0)
        return result

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Plain arrays for a checkpoint; the basis is kept by who keeps the field."""
        arrays: dict[str, NDArray[Any]] = {"cutoffs": self.cutoffs}
        arrays |= {f"constants/{a}": value for a, value in self.constants.items()}
        return arrays | {f"splines/{a}/{b}/{l}": value for (a, b, l), value in self.coefficients.items()}

    @classmethod
    def from_arrays(cls, arrays: dict[str, NDArray[Any]], basis: OrbitalBasis) -> CrystalField:
        """Inverse of `to_arrays`."""
        field = cls(basis, np.asarray(arrays["cutoffs"], dtype=np.float64), {}, {})
        for name, value in arrays.items():
            kind, *where = name.split("/")
            if kind == "constants":
                field.constants[int(where[0])] = np.asarray(value, dtype=np.float64)
            elif kind == "splines":
                a, b, l = map(int, where)
                field.coefficients[a, b, l] = np.asarray(value, dtype=np.float64)
        return field


class _Layout:
    """Splines of one species: knots and columns for each species of neighbour.

    Args:
        species: the species whose block is expanded.
        cutoffs: (n_species,) Angstrom for each species of neighbour; 0: none.
    """

    def __init__(self, species: Species, cutoffs: FloatArray) -> None:
        self.degrees = [l for l in range(2 * max(species.shell_ls) + 1) if shell_pairs(species, l)]
        self.knots: dict[int, FloatArray] = {}
        self.columns: dict[int, slice] = {}
        self.width = 0
        for b, cutoff in enumerate(cutoffs.tolist()):
            if cutoff > LEAST_DISTANCE + KNOT_SPACING:
                self.knots[b] = spline_knots(LEAST_DISTANCE, cutoff, KNOT_SPACING)
                size = len(self.knots[b]) - DEGREE - 1 - VANISHING
                self.columns[b] = slice(self.width, self.width + size)
                self.width += size

    def designs(self, structure: AtomicStructure, atoms: IntArray) -> dict[int, FloatArray]:
        """l -> (n, 2l + 1, n_columns) of the given atoms: sum over neighbours of B_k(d) sqrt(4 pi / (2l + 1)) Y_lm.

        The last column of l = 0 is one: the constant.
        """
        designs = {l: np.zeros((len(atoms), 2 * l + 1, self.width + (l == 0))) for l in self.degrees}
        if self.knots:
            row = np.full(structure.n_atoms, -1, dtype=np.int64)
            row[atoms] = np.arange(len(atoms))
            pairs = neighbour_pairs(structure, max(float(knots[-1]) for knots in self.knots.values()))
            chosen = np.flatnonzero(~pairs.on_site & (row[pairs.i] >= 0))
            vectors = pairs.vectors(structure)
            for b, knots in self.knots.items():
                mine = chosen[structure.species[pairs.j[chosen]] == b]
                for start in range(0, len(mine), CHUNK):
                    some = mine[start : start + CHUNK]
                    _add_neighbours(designs, self.columns[b], knots, row[pairs.i[some]], vectors[some])
        if 0 in designs:
            designs[0][:, :, -1] = 1.0
        return designs

    def penalty(self, l: int) -> FloatArray:
        """(n_rows, n_columns) whose squared norm is what size and roughness cost; the constant costs nothing."""
        parts = [np.zeros((0, self.width + (l == 0)))]
        for b, knots in self.knots.items():
            size = self.columns[b].stop - self.columns[b].start
            grid = np.linspace(knots[0], knots[-1], 4 * size)
            third = BSpline(knots, np.eye(size + VANISHING), DEGREE).derivative(3)(grid)[:, :size]
            block = np.zeros((len(grid) + size, parts[0].shape[1]))
            block[:, self.columns[b]] = np.concatenate((third * KNOT_SPACING**3 / 2, np.eye(size)))
            parts.append(block)
        return np.concatenate(parts)


def _add_neighbours(
    designs: dict[int, FloatArray], part: slice, knots: FloatArray, atom: IntArray, vectors: FloatArray
) -> None:
    distance = np.linalg.norm(vectors, axis=1)
    near = distance < knots[-1]
    if not near.any():
        return
    atom, vectors = atom[near], vectors[near]
    order = np.argsort(atom, kind="stable")
    atom, vectors = atom[order], vectors[order]
    radial = spline_design(knots, distance[near][order])
    directions = Directions(vectors)
    first = np.flatnonzero(np.diff(atom, prepend=-1))
    for l, design in designs.items():
        products = directions.harmonics(l)[:, :, None] * radial[:, None, :]
        design[atom[first], :, part] += np.add.reduceat(products, first, axis=0)


def _own_blocks(matrix: BlockMatrix) -> list[tuple[int, IntArray, FloatArray]]:
    """(species, atoms, their on-site blocks (n, n_a, n_a))."""
    on_site = matrix.pairs.on_site
    result = []
    for group in matrix.groups():
        own = on_site[group.pairs]
        if own.any():
            result.append((group.species_i, matrix.pairs.i[group.pairs][own], group.blocks[own]))
    return result


def _coefficients(species: Species, l: int, blocks: FloatArray) -> FloatArray:
    """(n_atoms, 2l + 1, n_shell_pairs) parts of degree l of on-site blocks, (p, q) and (q, p) averaged."""
    symmetric = (blocks + blocks.swapaxes(1, 2)) / 2
    parts = [
        np.einsum(
            "abm,nab->nm",
            real_clebsch_gordan(species.shells[p].l, species.shells[q].l, l),
            symmetric[:, species.slices[p], species.slices[q]],
        )
        for p, q in shell_pairs(species, l)
    ]
    return np.stack(parts, axis=-1)


def _solve(parts: list[tuple[FloatArray, FloatArray]], penalty: FloatArray) -> FloatArray:
    """Penalised least squares; the weight of the penalty is that of least error on every fifth sample."""
    weight = _held_out_weight(parts, penalty) if len(parts) >= 5 else PENALTIES[3]
    return _least_squares(parts, penalty, weight)


def _held_out_weight(parts: list[tuple[FloatArray, FloatArray]], penalty: FloatArray) -> float:
    kept = [part for k, part in enumerate(parts) if k % 5 != 2]
    held = [part for k, part in enumerate(parts) if k % 5 == 2]
    errors = []
    for weight in PENALTIES:
        solution = _least_squares(kept, penalty, weight)
        errors.append(sum(float(np.square(design @ solution - target).sum()) for design, target in held))
    return PENALTIES[int(np.argmin(errors))]


def _least_squares(parts: list[tuple[FloatArray, FloatArray]], penalty: FloatArray, weight: float) -> FloatArray:
    """argmin |D x - t|^2 + weight * |D|^2 / n_columns * |P x|^2 by orthogonal factors: conditioning is not squared.

    |D|^2 is at least n_rows * LEAST_DESIGN^2.
    """
    design = np.concatenate([d.reshape(-1, d.shape[-1]) for d, _ in parts])
    target = np.concatenate([t.reshape(-1, t.shape[-1]) for _, t in parts])
    size = max(float(np.square(design).sum()), len(design) * LEAST_DESIGN**2)
    scale = np.sqrt(weight * size / max(design.shape[1], 1))
    matrix = np.concatenate((design, scale * penalty))
    right = np.concatenate((target, np.zeros((len(penalty), target.shape[1]))))
    solution: FloatArray = np.linalg.lstsq(matrix, right, rcond=1e-13)[0]
    return solution
