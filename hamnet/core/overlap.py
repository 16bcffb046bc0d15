"""S of any structure from the radial functions of its basis: two-centre integrals without any DFT code.

With F_a(k) = int r^2 R_a(r) j_l(kr) dr, the spherical Bessel transform of a shell's radial function,

    S_ab(d) = sum_L S_L(|d|) sum_M G(l_a m_a, l_b m_b, L M) Y_LM(d / |d|),
    S_L(d)  = 8 i^(l_a - l_b - L) int k^2 F_a(k) F_b(k) j_L(kd) dk,

d from a to b, G the real Gaunt coefficients, L = |l_a - l_b|, |l_a - l_b| + 2, ..., l_a + l_b. The integrand is even
in k and its Fourier transform vanishes beyond r_a + r_b + d, so a sum over equidistant k with a step below
2 pi / (r_a + r_b + d) is exact but for the end of the sum. S_L is tabulated and interpolated by quintic splines.
Lengths inside this file are bohr (those of the basis and of structures are Angstrom).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import BSpline, CubicHermiteSpline, make_interp_spline
from scipy.special import spherical_jn

from hamnet.core.basis import OrbitalBasis, RadialFunction, Shell, Species
from hamnet.core.blocks import BlockGroup, BlockMatrix
from hamnet.core.pairs import PairList, orbital_pairs
from hamnet.core.rotation import real_spherical_harmonics
from hamnet.core.structure import AtomicStructure
from hamnet.core.units import BOHR
from hamnet.errors import BasisError

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

WAVE_NUMBERS = (30.0, 60.0, 120.0, 240.0)
"""Ends of the sum over k (1 / bohr) to choose from."""
NORM_DEFICIT = 1e-9
"""The sum over k ends where it keeps the norms of all radial functions to this."""
ORTHONORMAL = 1e-9
"""Shells of one atom this close to orthonormal are taken to be so exactly: it is the accuracy of their tables."""
_PANEL_NODES = 16
_SPACING = 0.02
_MARGIN = 8
_CHUNK = 4_000
_DEGREE = 5


def two_centre_overlap(structure: AtomicStructure, basis: OrbitalBasis, pairs: PairList | None = None) -> BlockMatrix:
    """S from the radial functions of the basis; bitwise symmetric.

    Time and memory are linear in the number of pairs.

    Args:
        structure: the atoms, periodic or not.
        basis: orbitals with radial functions.
        pairs: blocks wanted; None: all pairs whose orbitals overlap.

    Raises:
        BasisError: a species that occurs has a shell without radial function.
    """
    tables = overlap_tables(_used(structure, basis))
    wanted = orbital_pairs(structure, basis) if pairs is None else pairs
    matrix = BlockMatrix.zeros(wanted, basis, structure.species)
    groups = {(group.species_i, group.species_j): group for group in matrix.groups()}
    for (a, b), group in groups.items():
        if a <= b:
            _fill(tables, structure, wanted, group, groups[b, a])
    return matrix


def has_radial_functions(structure: AtomicStructure, basis: OrbitalBasis) -> bool:
    """True when the radial function of every orbital of the structure is known."""
    return all(basis.species[k].has_radial_functions for k in np.unique(structure.species).tolist())


def _used(structure: AtomicStructure, basis: OrbitalBasis) -> tuple[Species | None, ...]:
    """Species of the basis, None for those that do not occur."""
    used = set(np.unique(structure.species).tolist())
    for k in sorted(used):
        if not basis.species[k].has_radial_functions:
            raise BasisError(
                f"species {basis.species[k].label!r} has shells without radial functions: read the DFT output again "
                "with `hamnet preprocess openmx ... --pao FOLDER`, or take the fitted overlap"
            )
    return tuple(s if k in used else None for k, s in enumerate(basis.species))


# ---------------------------------------------------------------- from pairs to blocks


def _fill(
    tables: OverlapTables, structure: AtomicStructure, pairs: PairList, group: BlockGroup, mirror: BlockGroup
) -> None:
    """Blocks of one couple of species; the reverse blocks are written, not computed, hence exactly symmetric."""
    index = np.arange(group.pairs.start, group.pairs.stop)
    index = index[index <= pairs.reverse[group.pairs]]
    couple = group.species_i, group.species_j
    for start in range(0, len(index), _CHUNK):
        part = index[start : start + _CHUNK]
        i, j = pairs.i[part], pairs.j[part]
        shift = pairs.cell_shift[part] @ structure.lattice
        blocks = tables.blocks(*couple, (structure.positions[j] - structure.positions[i] + shift) / BOHR)
        own = pairs.reverse[part] == part
        if own.any():
            blocks[own] = tables.on_site[couple[0]]
        group.blocks[part - group.pairs.start] = blocks
        mirror.blocks[pairs.reverse[part] - mirror.pairs.start] = blocks.swapaxes(1, 2)


@dataclass(frozen=True, eq=False)
class _Channel:
    """The functions of distance that belong to one (l_a, l_b, L), for all shells of these l."""

    gaunt: FloatArray
    l_total: int
    rows: tuple[slice, ...]
    columns: tuple[slice, ...]
    places: tuple[int, ...]
    """Columns of the couple's spline."""


@dataclass(frozen=True, eq=False)
class OverlapTables:
    """Tables of S_L(d) for all couples of species of a basis.

    Args:
        on_site: species -> (n, n) block of an atom with itself.
        splines: couple of species -> spline of all its functions of distance (bohr).
        channels: couple of species -> what its functions stand for.
        reach: couple of species -> distance (bohr) from which on its functions are zero.
        deficit: largest norm that the sum over k lost: an estimate of the error of S.
    """

    on_site: dict[int, FloatArray]
    splines: dict[tuple[int, int], BSpline]
    channels: dict[tuple[int, int], tuple[_Channel, ...]]
    reach: dict[tuple[int, int], float]
    deficit: float

    def blocks(self, a: int, b: int, vectors: FloatArray) -> FloatArray:
        """(n, n_a, n_b) blocks of species a <= b at vectors (n, 3) in bohr from a to b."""
        distance = np.linalg.norm(vectors, axis=1)
        values = self.splines[a, b](np.minimum(distance, self.reach[a, b]))
        values[distance >= self.reach[a, b]] = 0.0
        n = len(self.on_site[a]), len(self.on_site[b])
        blocks = np.zeros((len(vectors), *n))
        harmonics: dict[int, FloatArray] = {}
        for channel in self.channels[a, b]:
            l = channel.l_total
            if l not in harmonics:
                harmonics[l] = real_spherical_harmonics(l, vectors)
            angular = (harmonics[l] @ channel.gaunt.reshape(-1, 2 * l + 1).T).reshape(-1, *channel.gaunt.shape[:2])
            for rows, columns, place in zip(channel.rows, channel.columns, channel.places, strict=True):
                blocks[:, rows, columns] += values[:, place, None, None] * angular
        return blocks


# ---------------------------------------------------------------- from radial functions to tables


@dataclass(frozen=True, eq=False)
class _Waves:
    """Equidistant wave numbers and each species' transforms on them."""

    k: FloatArray
    transforms: dict[int, FloatArray]
    """species -> (n_shells, n_k)."""
    deficit: float


@lru_cache(maxsize=8)
def overlap_tables(species: tuple[Species | None, ...]) -> OverlapTables:
    """Tables for the species of a basis; None stands for a species that does not occur.

    Takes a second or so; the last eight are kept.
    """
    present = {k: s for k, s in enumerate(species) if s is not None}
    reach = {k: max(_end(shell) for shell in s.shells) for k, s in present.items()}
    waves = _waves(present, 2 * np.pi / (4 * max(reach.values()) + 1.0))
    splines, channels = {}, {}
    for a in present:
        for b in present:
            if a <= b:
                channels[a, b] = _channels(present[a], present[b])
                splines[a, b] = _spline(waves, a, b, present, reach[a] + reach[b])
    on_site = {k: _on_site(s) for k, s in present.items()}
    return OverlapTables(on_site, splines, channels, {c: reach[c[0]] + reach[c[1]] for c in splines}, waves.deficit)


def _terms(row: Species, column: Species) -> list[tuple[int, int, int]]:
    """(shell of a, shell of b, L) of every function of distance, in the order of the spline's columns."""
    return [
        (p, q, total)
        for p, a in enumerate(row.shells)
        for q, b in enumerate(column.shells)
        for total in range(abs(a.l - b.l), a.l + b.l + 1, 2)
    ]


def _channels(row: Species, column: Species) -> tuple[_Channel, ...]:
    found: dict[tuple[int, int, int], list[tuple[slice, slice, int]]] = {}
    for place, (p, q, total) in enumerate(_terms(row, column)):
        key = row.shells[p].l, column.shells[q].l, total
        found.setdefault(key, []).append((row.slices[p], column.slices[q], place))
    return tuple(
        _Channel(real_gaunt(*key), key[2], *(tuple(part) for part in zip(*entries, strict=True)))
        for key, entries in found.items()
    )


def _spline(waves: _Waves, a: int, b: int, species: dict[int, Species], reach: float) -> BSpline:
    """Quintic splines of S_L(d) on -margin .. reach + margin; S_L(-d) = (-1)^L S_L(d)."""
    n = int(np.ceil(reach / _SPACING)) + _MARGIN
    d = np.arange(n + 1) * _SPACING
    step = waves.k[1] - waves.k[0]
    terms = _terms(species[a], species[b])
    bessel = spherical_bessels(max(total for _, _, total in terms), np.outer(d, waves.k))
    columns = []
    for p, q, total in terms:
        phase = (-1) ** ((species[a].shells[p].l - species[b].shells[q].l - total) // 2)
        product = waves.k**2 * waves.transforms[a][p] * waves.transforms[b][q]
        half = bessel[total] @ (8 * phase * step * product)
        columns.append(np.concatenate(((-1) ** total * half[_MARGIN:0:-1], half)))
    grid = np.concatenate((-d[_MARGIN:0:-1], d))
    return make_interp_spline(grid, np.stack(columns, axis=1), k=_DEGREE)


def _waves(species: dict[int, Species], step: float) -> _Waves:
    """Transforms up to a wave number where the norms are complete."""
    for end in WAVE_NUMBERS:
        k = step * np.arange(1.0, int(end / step) + 1)  # k = 0 has no weight
        transforms = {a: _transforms(s, k) for a, s in species.items()}
        deficit = 0.0
        for a, s in species.items():
            norms = np.array([_radial_product(shell, shell) for shell in s.shells])
            kept = 2 / np.pi * step * (k**2 * transforms[a] ** 2).sum(axis=1)
            deficit = max(deficit, float(np.abs(norms - kept).max()))
        if deficit < NORM_DEFICIT:
            break
    return _Waves(k, transforms, deficit)


def _transforms(species: Species, k: FloatArray) -> FloatArray:
    """(n_shells, n_k) F(k) = int r^2 R(r) j_l(kr) dr of each shell in bohr^(3/2)."""
    r, weights = _nodes(tuple(sorted({_end(shell) for shell in species.shells})), float(k[-1]))
    bessel = spherical_bessels(max(species.shell_ls), np.outer(k, r))
    return np.stack([bessel[s.l] @ (weights * r**2 * _radial_values(s, r)) for s in species.shells])


def _radial_product(one: Shell, other: Shell) -> float:
    """int r^2 R_1 R_2 dr."""
    r, weights = _nodes((min(_end(one), _end(other)),), WAVE_NUMBERS[-1])
    return float(np.sum(weights * r**2 * _radial_values(one, r) * _radial_values(other, r)))


def _on_site(species: Species) -> FloatArray:
    """(n, n) overlap of an atom's orbitals; exactly orthonormal where the tables are, to their accuracy."""
    block = np.zeros((species.n_orbitals, species.n_orbitals))
    for p, (one, rows) in enumerate(zip(species.shells, species.slices, strict=True)):
        for q, (other, columns) in enumerate(zip(species.shells, species.slices, strict=True)):
            if one.l == other.l and p <= q:
                exact = float(p == q)
                value = _radial_product(one, other)
                block[rows, columns] = (exact if abs(value - exact) < ORTHONORMAL else value) * np.eye(one.size)
                block[columns, rows] = block[rows, columns]
    return block


def spherical_bessels(maximum: int, x: FloatArray) -> list[FloatArray]:
    """j_0(x) .. j_maximum(x) of x >= 0: the upward recurrence where it is stable, else SciPy's (ten times slower)."""
    safe = np.maximum(x, 0.5)
    sine = np.sin(safe) / safe
    result = [sine, (sine - np.cos(safe)) / safe]
    for l in range(2, maximum + 1):
        result.append((2 * l - 1) / safe * result[-1] - result[-2])
    for l in range(maximum + 1):
        small = x < l + 1
        result[l][small] = spherical_jn(l, x[small])
    return result[: maximum + 1]


@lru_cache(maxsize=16)
def _nodes(ends: tuple[float, ...], k: float) -> tuple[FloatArray, FloatArray]:
    """Gauss-Legendre points and weights from 0 to the last end of a function, fine enough for waves up to k."""
    panels = int(np.ceil(ends[-1] * k / 12.0)) + 8  # 12 radians for 16 points: accurate to rounding
    x, w = np.polynomial.legendre.leggauss(_PANEL_NODES)
    edges = np.unique(np.concatenate((np.linspace(0.0, ends[-1], panels + 1), ends)))
    half = np.diff(edges)[:, None] / 2
    nodes = (edges[:-1, None] + half * (x + 1)).ravel()
    return nodes, (half * w).ravel()


def _function(shell: Shell) -> RadialFunction:
    if shell.radial is None:
        raise BasisError(f"a shell with l = {shell.l} has no radial function")
    return shell.radial


def _end(shell: Shell) -> float:
    """Distance (bohr) beyond which the radial function is zero."""
    return _function(shell).r[-1] / BOHR


@lru_cache(maxsize=64)
def _cubic(function: RadialFunction) -> CubicHermiteSpline:
    r, values, slopes = (np.array(numbers) for numbers in (function.r, function.values, function.slopes))
    return CubicHermiteSpline(r / BOHR, values * BOHR**1.5, slopes * BOHR**2.5)


def _radial_values(shell: Shell, r: FloatArray) -> FloatArray:
    """R(r) in bohr^(-3/2); towards the nucleus as r^l from the first point."""
    function = _function(shell)
    first = function.r[0] / BOHR
    values: FloatArray = _cubic(function)(np.maximum(r, first))
    if first > 0:
        values = values * np.minimum(r / first, 1.0) ** shell.l
    values = np.where(r <= _end(shell), values, 0.0)
    return values


@lru_cache(maxsize=64)
def real_gaunt(l1: int, l2: int, l: int) -> FloatArray:
    """(2 l1+1, 2 l2+1, 2l+1) integrals of three real harmonics over the sphere, by an exact product quadrature."""
    n = l1 + l2 + l + 1
    z, weights = np.polynomial.legendre.leggauss(n // 2 + 1)
    phi = 2 * np.pi * np.arange(n) / n
    rho = np.sqrt(1 - z**2)
    points = np.stack(
        (np.outer(rho, np.cos(phi)), np.outer(rho, np.sin(phi)), np.outer(z, np.ones(n))), axis=-1
    ).reshape(-1, 3)
    w = np.repeat(weights, n) * 2 * np.pi / n
    one, two, three = (real_spherical_harmonics(x, points) for x in (l1, l2, l))
    result: FloatArray = np.einsum("n,na,nb,nm->abm", w, one, two, three)
    result[np.abs(result) < 1e-14] = 0.0
    result.setflags(write=False)
    return result
