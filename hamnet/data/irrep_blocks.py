"""Orbital blocks as irreps of O(3) and back: Clebsch-Gordan coefficients in NumPy.

Shells l1, l2 give L = |l1-l2|..l1+l2, all of parity (-1)^(l1+l2). For spinors H = A_0 s_0 + sum_a A_a s_a with
A_0 real and A_a = i B_a imaginary where nothing is magnetic: A_0 holds l1 x l2, B the axial product (l1 x l2) x 1e.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from math import factorial, sqrt

import numpy as np
from numpy.typing import NDArray

from hamnet.core.basis import Species
from hamnet.core.spin import Spin

FloatArray = NDArray[np.float64]
MAGNETIC_CHANNELS = 8
"""Real channels of spinor blocks with magnetism."""


def _complex_coefficient(j1: int, m1: int, j2: int, m2: int, j: int, m: int) -> float:
    """<j1 m1 j2 m2 | j m> by Racah's formula, Condon-Shortley phases."""
    if m1 + m2 != m or not abs(j1 - j2) <= j <= j1 + j2:
        return 0.0
    f = factorial
    front = sqrt((2 * j + 1) * f(j + j1 - j2) * f(j - j1 + j2) * f(j1 + j2 - j) / f(j1 + j2 + j + 1))
    front *= sqrt(f(j + m) * f(j - m) * f(j1 - m1) * f(j1 + m1) * f(j2 - m2) * f(j2 + m2))
    total = 0.0
    for k in range(max(0, j2 - j - m1, j1 - j + m2), min(j1 + j2 - j, j1 - m1, j2 + m2) + 1):
        down = f(k) * f(j1 + j2 - j - k) * f(j1 - m1 - k) * f(j2 + m2 - k) * f(j - j2 + m1 + k) * f(j - j1 - m2 + k)
        total += (-1) ** k / down
    return front * total


def _real_from_complex(l: int) -> NDArray[np.complex128]:
    """(2l+1, 2l+1) unitary A: real harmonic r = sum_m A[r, m] Y_l^m, both ordered -l..l."""
    matrix = np.zeros((2 * l + 1, 2 * l + 1), dtype=np.complex128)
    matrix[l, l] = 1.0
    for m in range(1, l + 1):
        sign = (-1) ** m
        matrix[l + m, l + m], matrix[l + m, l - m] = sign / sqrt(2), 1 / sqrt(2)
        matrix[l - m, l + m], matrix[l - m, l - m] = -1j * sign / sqrt(2), 1j / sqrt(2)
    return matrix


@cache
def real_clebsch_gordan(l1: int, l2: int, l: int) -> FloatArray:
    """(2 l1+1, 2 l2+1, 2l+1) real coupling C with D_l1 x D_l2 C = C D_l, columns orthonormal over (m1, m2).

    Source: Racah's formula (Edmonds, Angular Momentum in Quantum Mechanics, eq. 3.6.11) carried to real harmonics;
    where l1 + l2 + l is odd the carried tensor is purely imaginary and its imaginary part is taken.
    """
    table = np.zeros((2 * l1 + 1, 2 * l2 + 1, 2 * l + 1))
    for m1 in range(-l1, l1 + 1):
        for m2 in range(-l2, l2 + 1):
            if abs(m1 + m2) <= l:
                table[m1 + l1, m2 + l2, m1 + m2 + l] = _complex_coefficient(l1, m1, l2, m2, l, m1 + m2)
    a1, a2, a = (_real_from_complex(x) for x in (l1, l2, l))
    carried = np.einsum("RM,abM,ra,sb->rsR", a, table, a1.conj(), a2.conj())
    result = carried.real if (l1 + l2 + l) % 2 == 0 else carried.imag
    result = np.ascontiguousarray(result)
    result.setflags(write=False)
    return result


@dataclass(frozen=True)
class Channel:
    """One real number for each pair of orbitals.

    Args:
        component: Pauli component 0 (A_0), 1, 2, 3 (A_x, A_y, A_z); collinear blocks have A_0 and A_z alone.
        imaginary: the channel is the imaginary part of the component.
        transposition: sign of the channel in the hermitian partner: M_ij(R) = sign * M_ji(-R)^T.
        grade: +1 even, -1 odd under time reversal.
    """

    component: int
    imaginary: bool
    transposition: int
    grade: int


def spin_channels(spin: Spin, magnetic: bool = False) -> tuple[Channel, ...]:
    """Real channels of a layout: those that time reversal allows, 1, 1 or 4; with magnetism 1, 2 or 8.

    Collinear blocks are A_0 = (up + down) / 2 and, with magnetism, A_z = (up - down) / 2.
    """
    if spin is not Spin.SPINOR:
        odd_part = (Channel(3, False, 1, -1),) if spin is Spin.COLLINEAR and magnetic else ()
        return (Channel(0, False, 1, 1), *odd_part)
    even = (Channel(0, False, 1, 1), *(Channel(a, True, -1, 1) for a in (1, 2, 3)))
    odd = (Channel(0, True, -1, -1), *(Channel(a, False, 1, -1) for a in (1, 2, 3)))
    return even + odd if magnetic else even


@dataclass(frozen=True)
class IrrepTerm:
    """One irrep inside a block: which shells it couples and where its coefficients stand."""

    shell_i: int
    shell_j: int
    l: int
    parity: int
    grade: int
    start: int

    @property
    def columns(self) -> slice:
        """Coefficients of this term."""
        return slice(self.start, self.start + 2 * self.l + 1)


@dataclass(frozen=True, eq=False)
class BlockIrreps:
    """Orthogonal change of basis between the real numbers of a block and irreps.

    Args:
        terms: irreps sorted by (grade even first, l, parity), as an e3nn feature holds them.
        matrix: (n_i * n_j * n_channels, n_coefficients) orthogonal Q: block values (row-major, channel last) = Q c.
    """

    terms: tuple[IrrepTerm, ...]
    matrix: FloatArray

    def irreps(self, grade: int = 1) -> tuple[tuple[int, int, int], ...]:
        """(multiplicity, l, parity) of the even (+1) or odd (-1) terms, in order: e3nn's '3x0e+2x1o'."""
        result: list[tuple[int, int, int]] = []
        for term in self.terms:
            if term.grade != grade:
                continue
            if result and result[-1][1:] == (term.l, term.parity):
                result[-1] = (result[-1][0] + 1, term.l, term.parity)
            else:
                result.append((1, term.l, term.parity))
        return tuple(result)


def block_irreps(species_i: Species, species_j: Species, spin: Spin, magnetic: bool = False) -> BlockIrreps:
    """Irreps of the blocks between two species; for spinors with the axial spin part coupled in.

    Collinear blocks have a spin axis of their own, apart from space: A_z is l1 x l2, odd under time reversal.
    """
    n_i, n_j = species_i.n_orbitals, species_j.n_orbitals
    n_channels = len(spin_channels(spin, magnetic))
    found: list[tuple[IrrepTerm, FloatArray]] = []
    for a, (shell_i, rows) in enumerate(zip(species_i.shells, species_i.slices, strict=True)):
        for b, (shell_j, columns) in enumerate(zip(species_j.shells, species_j.slices, strict=True)):
            parity = (-1) ** (shell_i.l + shell_j.l)
            for l, grade, tensor in _couplings(shell_i.l, shell_j.l, spin, magnetic):
                full = np.zeros((n_i, n_j, n_channels, 2 * l + 1))
                full[rows, columns] = tensor
                found.append((IrrepTerm(a, b, l, parity, grade, 0), full.reshape(-1, 2 * l + 1)))
    found.sort(key=lambda entry: (-entry[0].grade, entry[0].l, entry[0].parity))
    starts = np.cumsum([0] + [2 * term.l + 1 for term, _ in found]).tolist()
    terms = tuple(
        IrrepTerm(t.shell_i, t.shell_j, t.l, t.parity, t.grade, start)
        for (t, _), start in zip(found, starts, strict=False)
    )
    return BlockIrreps(terms, np.concatenate([matrix for _, matrix in found], axis=1))


def _couplings(l1: int, l2: int, spin: Spin, magnetic: bool) -> list[tuple[int, int, FloatArray]]:
    """(l, grade, (2 l1+1, 2 l2+1, n_channels, 2l+1)) of every irrep of one pair of shells."""
    n_channels = len(spin_channels(spin, magnetic))
    result = []

    def scalar_part(channel: int, grade: int) -> None:
        """Couplings l1 x l2 of one channel."""
        for l in range(abs(l1 - l2), l1 + l2 + 1):
            tensor = np.zeros((2 * l1 + 1, 2 * l2 + 1, n_channels, 2 * l + 1))
            tensor[:, :, channel] = real_clebsch_gordan(l1, l2, l)
            result.append((l, grade, tensor))

    def axial_part(first: int, grade: int) -> None:
        # channels run x, y, z while an l = 1 irrep runs y, z, x
        """Couplings (l1 x l2) x 1e of three channels, x first."""
        channels = [first + 1, first + 2, first]
        for inner in range(abs(l1 - l2), l1 + l2 + 1):
            for l in range(abs(inner - 1), inner + 2):
                tensor = np.zeros((2 * l1 + 1, 2 * l2 + 1, n_channels, 2 * l + 1))
                coupled = np.einsum(
                    "abK,KcM->abcM", real_clebsch_gordan(l1, l2, inner), real_clebsch_gordan(inner, 1, l)
                )
                tensor[:, :, channels] = coupled
                result.append((l, grade, tensor))

    scalar_part(0, 1)
    if spin is Spin.COLLINEAR and magnetic:
        scalar_part(1, -1)
    if spin is Spin.SPINOR:
        axial_part(1, 1)
        if magnetic:
            scalar_part(4, -1)
            axial_part(5, -1)
    return result


def values_to_channels(
    values: NDArray[np.generic], spin: Spin, shapes: list[tuple[int, int, int]], magnetic: bool = False
) -> FloatArray:
    """Flat values of a BlockMatrix -> (n_spinless_values, n_channels) real.

    Args:
        values: flat values, blocks in pair order.
        spin: their layout.
        shapes: (number of pairs, n_i, n_j) of each run of equal block shapes.
        magnetic: with the channels that are odd under time reversal; else these are left out.
    """
    from hamnet.core.spin import spinor_to_pauli

    parts, start = [], 0
    for count, n_i, n_j in shapes:
        stop = start + count * n_i * n_j * spin.factor
        blocks = values[start:stop].reshape((count, *spin.shape(n_i, n_j)))
        if spin is Spin.NONE:
            parts.append(np.asarray(blocks, dtype=np.float64).reshape(-1, 1))
        elif spin is Spin.COLLINEAR:
            up, down = np.moveaxis(np.asarray(blocks, dtype=np.float64), 1, 0)
            both = [(up + down) / 2, (up - down) / 2]
            parts.append(np.stack(both if magnetic else both[:1], axis=-1).reshape(-1, 2 if magnetic else 1))
        else:
            pauli = spinor_to_pauli(np.asarray(blocks, dtype=np.complex128))
            table = [(pauli[:, c.component], c.imaginary) for c in spin_channels(spin, magnetic)]
            real = np.stack([part.imag if imaginary else part.real for part, imaginary in table], axis=-1)
            parts.append(real.reshape(-1, len(table)))
        start = stop
    return np.concatenate(parts) if parts else np.zeros((0, len(spin_channels(spin, magnetic))))


def channels_to_values(channels: FloatArray, spin: Spin, shapes: list[tuple[int, int, int]]) -> NDArray[np.generic]:
    """Inverse of `values_to_channels`: real channels, with or without odd ones -> flat values of a BlockMatrix."""
    from hamnet.core.spin import pauli_to_spinor

    parts: list[NDArray[np.generic]] = []
    start = 0
    for count, n_i, n_j in shapes:
        stop = start + count * n_i * n_j
        block = channels[start:stop].reshape(count, n_i, n_j, -1)
        if spin is Spin.SPINOR:
            pauli = np.zeros((count, 4, n_i, n_j), dtype=np.complex128)
            for c, channel in enumerate(spin_channels(spin, block.shape[-1] == MAGNETIC_CHANNELS)):
                part = pauli[:, channel.component]
                (part.imag if channel.imaginary else part.real)[...] = block[..., c]
            parts.append(pauli_to_spinor(pauli).ravel())
        elif spin is Spin.COLLINEAR:
            a_0, a_z = block[..., 0], block[..., 1] if block.shape[-1] > 1 else 0.0
            parts.append(np.stack((a_0 + a_z, a_0 - a_z), axis=1).ravel())
        else:
            parts.append(np.moveaxis(block, -1, 1).astype(np.float64).ravel())
        start = stop
    return np.concatenate(parts) if parts else np.zeros(0, dtype=spin.dtype)
