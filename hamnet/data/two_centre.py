"""TwoCentreFit: a two-centre matrix as smooth functions of distance (Slater-Koster without tables).

A matrix element of two-centre kind between shells (l_1, on the first atom) and (l_2, on the second) depends on the
pair vector r alone and commutes with rotations, so its block is

    M_{m1 m2}(r) = sum_L f_L(|r|) G^L_{m1 m2}(r / |r|),   L = |l_1 - l_2|, |l_1 - l_2| + 2, ..., l_1 + l_2,
    G^L_{m1 m2} = sqrt(4 pi / (2L + 1)) sum_M C^{l_1 l_2 L}_{m1 m2 M} Y_LM,

C the orthonormal real Clebsch-Gordan coefficients; the G are orthonormal as matrices, so each sample of a block gives
a sample of every f_L by a projection. The f_L are splines (`hamnet.data.radial_spline`).
On-site blocks of a rotation-invariant matrix are constants c_pq times the identity between shells of equal l.
The overlap is exactly of this kind; a Hamiltonian is roughly, which makes this a prior for it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hamnet.core.basis import OrbitalBasis, Species
from hamnet.core.blocks import BlockMatrix
from hamnet.core.pairs import PairList
from hamnet.core.rotation import real_spherical_harmonics
from hamnet.core.spin import Spin
from hamnet.core.structure import AtomicStructure
from hamnet.data.irrep_blocks import real_clebsch_gordan
from hamnet.data.radial_spline import RadialSpline, fit_radial
from hamnet.errors import BasisError, FormatError, PhysicsError

FloatArray = NDArray[np.float64]
Couple = tuple[int, int]
Sample = tuple[AtomicStructure, BlockMatrix]

FORMAT = 1
REACH_WITHOUT_RADIUS = 1.0
"""Shells without a radius: functions are taken to vanish this far (Angstrom) beyond the largest distance seen."""
MAXIMUM_SAMPLES = 100_000
"""Pairs of one couple that enter a fit at most: more of them do not sharpen some tens of spline coefficients."""


@dataclass(frozen=True)
class Channel:
    """One function f_L of one pair of shells."""

    rows: slice
    columns: slice
    l_row: int
    l_column: int
    l_total: int


def channels(row: Species, column: Species) -> list[Channel]:
    """All functions of distance of an ordered couple of species."""
    return [
        Channel(rows, columns, a.l, b.l, total)
        for a, rows in zip(row.shells, row.slices, strict=True)
        for b, columns in zip(column.shells, column.slices, strict=True)
        for total in range(abs(a.l - b.l), a.l + b.l + 1, 2)
    ]


class Directions:
    """Unit vectors with their harmonics, each degree worked out once.

    Args:
        vectors: (n, 3), not zero.
    """

    def __init__(self, vectors: FloatArray) -> None:
        self.unit: FloatArray = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        self._harmonics: dict[int, FloatArray] = {}

    def harmonics(self, l: int) -> FloatArray:
        """(n, 2l + 1) sqrt(4 pi / (2l + 1)) Y_lm: of norm one for every direction."""
        if l not in self._harmonics:
            self._harmonics[l] = np.sqrt(4 * np.pi / (2 * l + 1)) * real_spherical_harmonics(l, self.unit)
        return self._harmonics[l]

    def blocks(self, channel: Channel) -> FloatArray:
        """(n, 2 l_1 + 1, 2 l_2 + 1) orthonormal matrices G^L."""
        coupling = real_clebsch_gordan(channel.l_row, channel.l_column, channel.l_total)
        size = coupling.shape[-1]
        flat = self.harmonics(channel.l_total) @ coupling.reshape(-1, size).T
        return flat.reshape(-1, *coupling.shape[:2])


def project(row: Species, column: Species, vectors: FloatArray, blocks: FloatArray) -> FloatArray:
    """(n, n_channels) samples of every f_L from blocks (n, n_i, n_j) at pair vectors (n, 3)."""
    directions = Directions(vectors)
    columns = [
        np.einsum("nab,nab->n", directions.blocks(c), blocks[:, c.rows, c.columns]) for c in channels(row, column)
    ]
    return np.stack(columns, axis=1)


def expand(row: Species, column: Species, vectors: FloatArray, values: FloatArray) -> FloatArray:
    """(n, n_i, n_j) blocks from the functions' values (n, n_channels): the inverse of `project`."""
    directions = Directions(vectors)
    blocks = np.zeros((len(vectors), row.n_orbitals, column.n_orbitals))
    for k, c in enumerate(channels(row, column)):
        blocks[:, c.rows, c.columns] += values[:, k, None, None] * directions.blocks(c)
    return blocks


@dataclass(frozen=True, eq=False)
class TwoCentreFit:
    """A two-centre, rotation-invariant, real symmetric matrix as functions of distance.

    Args:
        basis: the species that the fit knows.
        radial: unordered couple (a <= b) of species -> its functions; the reverse blocks are their transposes.
        on_site: species -> (n_shells, n_shells) constants c_pq; the block is c_pq times the identity where l_p = l_q.
    """

    basis: OrbitalBasis
    radial: dict[Couple, RadialSpline]
    on_site: dict[int, FloatArray]

    def __repr__(self) -> str:
        return f"TwoCentreFit({[s.label for s in self.basis.species]}, {len(self.radial)} couples)"

    @classmethod
    def fit(cls, samples: Iterable[Sample]) -> TwoCentreFit:
        """Least squares over all blocks of the samples (structure, spinless matrix).

        Raises:
            PhysicsError: there is no sample, or a matrix has spin.
            BasisError: one species label stands for different orbitals in two samples.
        """
        data = _Samples()
        for structure, matrix in samples:
            data.add(structure, matrix)
        if data.basis is None:
            raise PhysicsError("no matrix was given to fit: at least one calculation is needed")
        radial = {}
        for (a, b), (vectors, values) in data.off_site():
            cutoff = _cutoff(data.basis.species[a], data.basis.species[b], vectors)
            distance = np.linalg.norm(vectors, axis=1)
            keep = distance < cutoff
            if keep.any():
                radial[a, b] = fit_radial(distance[keep], values[keep], cutoff)
        return cls(data.basis, radial, data.on_site())

    def predict(self, structure: AtomicStructure, basis: OrbitalBasis, pairs: PairList) -> BlockMatrix:
        """The matrix of a structure on the given pairs; bitwise symmetric.

        `structure.species` indexes `basis`, whose species must be among the fit's. Blocks beyond the cutoff are zero.

        Raises:
            BasisError: a species, or a couple of species within reach, was absent from the fitted data.
        """
        known = self._translate(structure, basis)
        matrix = BlockMatrix.zeros(pairs, basis, structure.species)
        vectors, on_site = pairs.vectors(structure), pairs.on_site
        for group in matrix.groups():
            part = np.arange(group.pairs.start, group.pairs.stop)
            a, b = known[group.species_i], known[group.species_j]
            own = on_site[part]
            if own.any():
                group.blocks[own] = _scalar_block(self.basis.species[a], self.on_site[a])
            if not own.all():
                group.blocks[~own] = self._off_site(a, b, vectors[part[~own]])
        # The reverse block is written, not computed, so that the matrix is symmetric to the last bit.
        mirrored = np.repeat(np.arange(pairs.n_pairs) > pairs.reverse, np.diff(matrix.offsets))
        return matrix.with_values(np.where(mirrored, matrix.adjoint().values, matrix.values))

    @property
    def coverage(self) -> dict[tuple[str, str], tuple[float, float]]:
        """Least and largest distance (Angstrom) of the fitted data for each couple of species labels."""
        return {
            (self.basis.species[a].label, self.basis.species[b].label): (float(s.seen[0]), float(s.seen[-1]))
            for (a, b), s in self.radial.items()
        }

    def error(self, samples: Iterable[Sample]) -> tuple[float, float]:
        """Root mean square and largest absolute difference to the samples, over all their blocks, in their unit."""
        squares, count, worst = 0.0, 0, 0.0
        for structure, matrix in samples:
            difference = self.predict(structure, matrix.basis, matrix.pairs).values - matrix.values
            squares += float(difference @ difference)
            count += len(difference)
            worst = max(worst, float(np.abs(difference).max(initial=0.0)))
        return float(np.sqrt(squares / max(count, 1))), worst

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Plain arrays (and one JSON text as bytes) for a checkpoint."""
        arrays: dict[str, NDArray[Any]] = {}
        for (a, b), spline in self.radial.items():
            arrays |= {f"radial/{a}/{b}/{key}": value for key, value in spline.to_arrays().items()}
        arrays |= {f"on_site/{a}": value for a, value in self.on_site.items()}
        header = json.dumps({"format": FORMAT, "basis": self.basis.to_json()})
        arrays["header"] = np.frombuffer(header.encode(), dtype=np.uint8).copy()
        return arrays

    @classmethod
    def from_arrays(cls, arrays: dict[str, NDArray[Any]]) -> TwoCentreFit:
        """Fit from the arrays of `to_arrays`.

        Raises:
            FormatError: the arrays are of another format version or incomplete.
        """
        if "header" not in arrays:
            raise FormatError(f"the stored two-centre fit has no header; found {sorted(arrays)[:5]}")
        header = json.loads(np.asarray(arrays["header"], dtype=np.uint8).tobytes().decode())
        if header["format"] != FORMAT:
            raise FormatError(f"the stored two-centre fit has format {header['format']}, expected {FORMAT}")
        radial: dict[Couple, dict[str, NDArray[Any]]] = {}
        on_site = {}
        for name, value in arrays.items():
            kind, *rest = name.split("/")
            if kind == "radial":
                radial.setdefault((int(rest[0]), int(rest[1])), {})[rest[2]] = np.asarray(value)
            elif kind == "on_site":
                on_site[int(rest[0])] = np.asarray(value, dtype=np.float64)
        splines = {couple: RadialSpline.from_arrays(parts) for couple, parts in radial.items()}
        return cls(OrbitalBasis.from_json(header["basis"]), splines, on_site)

    def _translate(self, structure: AtomicStructure, basis: OrbitalBasis) -> NDArray[np.int64]:
        """(n_species of `basis`,) index of each species in the fit's basis; -1 for species that do not occur."""
        known = np.full(len(basis.species), -1, dtype=np.int64)
        for k in np.unique(structure.species).tolist():
            species = basis.species[k]
            known[k] = self.basis.index(species.label)
            mine = self.basis.species[known[k]].without_radial_functions()
            if mine != species.without_radial_functions() or known[k] not in self.on_site:
                raise BasisError(f"species {species.label!r} does not have the orbitals that the fit was made with")
        return known

    def _off_site(self, a: int, b: int, vectors: FloatArray) -> FloatArray:
        row, column = self.basis.species[a], self.basis.species[b]
        if a > b:
            return self._off_site(b, a, -vectors).swapaxes(1, 2)
        spline = self.radial.get((a, b))
        if spline is None:
            distance = np.linalg.norm(vectors, axis=1)
            if row.radius is not None and column.radius is not None and distance.min() >= row.radius + column.radius:
                return np.zeros((len(vectors), row.n_orbitals, column.n_orbitals))
            raise BasisError(
                f"no pair {row.label!r} - {column.label!r} was in the fitted data, and the structure has "
                f"{len(vectors)}: train on structures that have such neighbours, or (S alone) give it from a file"
            )
        return expand(row, column, vectors, spline(np.linalg.norm(vectors, axis=1)))


class _Samples:
    """Collects projected blocks by couple and on-site scalars by species."""

    def __init__(self) -> None:
        self.basis: OrbitalBasis | None = None
        self._vectors: dict[Couple, list[FloatArray]] = {}
        self._values: dict[Couple, list[FloatArray]] = {}
        self._own: dict[int, list[FloatArray]] = {}

    def add(self, structure: AtomicStructure, matrix: BlockMatrix) -> None:
        """Take in one structure and its matrix."""
        if matrix.spin is not Spin.NONE:
            raise PhysicsError(f"a two-centre fit needs a spinless matrix, found {matrix.spin.value}")
        self.basis = matrix.basis if self.basis is None else self.basis.merged(matrix.basis)
        vectors, on_site = matrix.pairs.vectors(structure), matrix.pairs.on_site
        for group in matrix.groups():
            row, column = matrix.basis.species[group.species_i], matrix.basis.species[group.species_j]
            a, b = self.basis.index(row.label), self.basis.index(column.label)
            own = on_site[group.pairs]
            if own.any():
                self._own.setdefault(a, []).append(_scalars(row, group.blocks[own]))
            if a <= b and not own.all():
                r = vectors[group.pairs][~own]
                self._vectors.setdefault((a, b), []).append(r)
                self._values.setdefault((a, b), []).append(project(row, column, r, group.blocks[~own]))

    def off_site(self) -> Iterator[tuple[Couple, tuple[FloatArray, FloatArray]]]:
        """Pair vectors and samples of every f_L, couple by couple."""
        for couple, parts in self._vectors.items():
            vectors, values = np.concatenate(parts), np.concatenate(self._values[couple])
            if len(vectors) > MAXIMUM_SAMPLES:
                chosen = np.random.default_rng(0).choice(len(vectors), MAXIMUM_SAMPLES, replace=False)
                vectors, values = vectors[chosen], values[chosen]
            yield couple, (vectors, values)

    def on_site(self) -> dict[int, FloatArray]:
        """Mean on-site constants of each species."""
        return {a: np.concatenate(parts).mean(axis=0) for a, parts in self._own.items()}


def _scalars(species: Species, blocks: FloatArray) -> FloatArray:
    """(n, n_shells, n_shells) mean diagonal between shells of equal l, symmetrised; zero elsewhere."""
    size = len(species.shells)
    result = np.zeros((len(blocks), size, size))
    for p, rows in enumerate(species.slices):
        for q, columns in enumerate(species.slices):
            if species.shells[p].l == species.shells[q].l:
                trace = np.einsum("nmm->n", blocks[:, rows, columns])
                result[:, p, q] = trace / species.shells[p].size
    return (result + result.swapaxes(1, 2)) / 2


def _scalar_block(species: Species, constants: FloatArray) -> FloatArray:
    block = np.zeros((species.n_orbitals, species.n_orbitals))
    for p, rows in enumerate(species.slices):
        for q, columns in enumerate(species.slices):
            if species.shells[p].l == species.shells[q].l:
                block[rows, columns] = constants[p, q] * np.eye(species.shells[p].size)
    return block


def _cutoff(row: Species, column: Species, vectors: FloatArray) -> float:
    if row.radius is not None and column.radius is not None:
        return row.radius + column.radius
    return float(np.linalg.norm(vectors, axis=1).max()) + REACH_WITHOUT_RADIUS
