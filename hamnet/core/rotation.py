"""Real Wigner D and SU(2), and the rotation of a BlockMatrix: the reference for every equivariance test.

An orthogonal map O = P^s R takes orbitals by U = direct sum over shells of D^l(O), where Y_l(O x) = D^l(O) Y_l(x),
so that D^l(-1) = (-1)^l comes by itself; spinors take D^{1/2}(R) x U, and inversion leaves spin alone.
"""

from __future__ import annotations

from functools import lru_cache
from math import factorial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import block_diag, expm

from hamnet.core.basis import Species
from hamnet.core.blocks import BlockMatrix
from hamnet.core.spin import Spin
from hamnet.core.structure import AtomicStructure
from hamnet.errors import PhysicsError

FloatArray = NDArray[np.float64]

PAULI = np.array([[[0, 1], [1, 0]], [[0, -1j], [1j, 0]], [[1, 0], [0, -1]]], dtype=np.complex128)
"""Pauli matrices s_x, s_y, s_z."""


def real_spherical_harmonics(l: int, vectors: FloatArray) -> FloatArray:
    """(..., 3) -> (..., 2l+1) real harmonics, m = -l..l, z polar, no Condon-Shortley sign, unit norm on the sphere.

    With Q_lm(z) = P_l^m(z) / (1 - z^2)^(m/2), polynomials in z, and (x + iy)^m: no angle is needed.
    The length of the vectors does not matter; at the zero vector the value at +z is returned.
    """
    given = np.asarray(vectors, dtype=np.float64)
    length = np.sqrt(np.einsum("...a,...a->...", given, given))
    scale = 1.0 / np.where(length > 0.0, length, 1.0)
    x, y, z = (given[..., axis] * scale for axis in range(3))
    z = np.where(length > 0.0, z, 1.0)
    result = np.empty((*length.shape, 2 * l + 1))
    cosine, sine = np.ones_like(z), np.zeros_like(z)
    for m in range(l + 1):
        norm = np.sqrt((2 * l + 1) / (4 * np.pi) * factorial(l - m) / factorial(l + m) * (1 if m == 0 else 2))
        polar = norm * _polar_part(l, m, z)
        result[..., l + m] = polar * cosine
        if m > 0:
            result[..., l - m] = polar * sine
        cosine, sine = x * cosine - y * sine, x * sine + y * cosine
    return result


def _polar_part(l: int, m: int, z: FloatArray) -> FloatArray:
    """P_l^m(z) / (1 - z^2)^(m/2) without Condon-Shortley sign, by the recurrence in l."""
    before, now = np.zeros_like(z), np.full_like(z, float(np.prod(np.arange(2 * m - 1, 1, -2))))
    for k in range(m + 1, l + 1):
        before, now = now, ((2 * k - 1) * z * now - (k + m - 1) * before) / (k - m)
    return now


@lru_cache(maxsize=16)
def _sample_points(l: int) -> FloatArray:
    points = np.random.default_rng(7).normal(size=(8 * l + 8, 3))
    return np.asarray(points / np.linalg.norm(points, axis=1, keepdims=True), dtype=np.float64)


def wigner_d(l: int, rotation: FloatArray) -> FloatArray:
    """(2l+1, 2l+1) matrix D with Y_l(O x) = D Y_l(x), for proper and improper O.

    Raises:
        PhysicsError: the matrix is not orthogonal.
    """
    rotation = _orthogonal(rotation)
    points = _sample_points(l)
    solution = np.linalg.lstsq(real_spherical_harmonics(l, points), real_spherical_harmonics(l, points @ rotation.T))
    return np.ascontiguousarray(solution[0].T)


def spin_rotation(rotation: FloatArray) -> NDArray[np.complex128]:
    """(2, 2) SU(2) matrix exp(-i theta n.sigma / 2) of the proper part of O (one of the two signs)."""
    rotation = _orthogonal(rotation)
    proper = rotation * np.sign(np.linalg.det(rotation))
    from scipy.spatial.transform import Rotation

    vector = Rotation.from_matrix(proper).as_rotvec()
    return np.asarray(expm(-0.5j * np.einsum("a,aij->ij", vector, PAULI)), dtype=np.complex128)


def orbital_rotation(species: Species, rotation: FloatArray) -> FloatArray:
    """(n_orbitals, n_orbitals) U of one species: block diagonal over its shells."""
    matrices = {l: wigner_d(l, rotation) for l in set(species.shell_ls)}
    return np.asarray(block_diag(*(matrices[shell.l] for shell in species.shells)), dtype=np.float64)


def rotate_blocks(matrix: BlockMatrix, rotation: FloatArray) -> BlockMatrix:
    """H'_ij = U_i H_ij U_j^dagger on the same pairs and cell shifts (the cell rotates too)."""
    spin = spin_rotation(rotation) if matrix.spin is Spin.SPINOR else None
    return _transformed(matrix, [orbital_rotation(species, rotation) for species in matrix.basis.species], spin)


def rotate_orbitals(matrix: BlockMatrix, rotation: FloatArray) -> BlockMatrix:
    """As `rotate_blocks`, and spin stays where it is: what a turn of the lattice does without spin-orbit coupling."""
    spin = np.eye(2, dtype=np.complex128) if matrix.spin is Spin.SPINOR else None
    return _transformed(matrix, [orbital_rotation(species, rotation) for species in matrix.basis.species], spin)


def rotate_spins(matrix: BlockMatrix, rotation: FloatArray) -> BlockMatrix:
    """H' = U H U^dagger with U = D^{1/2}(R) x 1_orbital: what a turn of the moments does without spin-orbit coupling.

    Raises:
        PhysicsError: the blocks are no spinors.
    """
    if matrix.spin is not Spin.SPINOR:
        raise PhysicsError(f"spins turn in spinor blocks alone, these are {matrix.spin.value}")
    return _transformed(
        matrix, [np.eye(species.n_orbitals) for species in matrix.basis.species], spin_rotation(rotation)
    )


def _transformed(matrix: BlockMatrix, orbitals: list[FloatArray], spin: NDArray[np.complex128] | None) -> BlockMatrix:
    """U_i H_ij U_j^dagger with U = orbitals of each species, times a rotation of spin in spinor blocks."""
    unitary: list[NDArray[Any]] = orbitals if spin is None else [np.kron(spin, u) for u in orbitals]
    values = np.empty_like(matrix.values)
    for group in matrix.groups():
        left, right = unitary[group.species_i], unitary[group.species_j].conj().T
        part = slice(matrix.offsets[group.pairs.start], matrix.offsets[group.pairs.stop])
        values[part] = (left @ group.blocks @ right).ravel()
    return matrix.with_values(values)


def rotate_structure(structure: AtomicStructure, rotation: FloatArray) -> AtomicStructure:
    """Positions, cell and moments under O; moments are axial."""
    rotation = _orthogonal(rotation)
    cell = None if structure.cell is None else structure.cell @ rotation.T
    sign = np.sign(np.linalg.det(rotation))
    moments = None if structure.moments is None else sign * structure.moments @ rotation.T
    return AtomicStructure(
        structure.atomic_numbers, structure.species, structure.positions @ rotation.T, cell, structure.pbc, moments
    )


def _orthogonal(rotation: FloatArray) -> FloatArray:
    rotation = np.asarray(rotation, dtype=np.float64)
    if rotation.shape != (3, 3) or not np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-10):
        raise PhysicsError(f"expected an orthogonal 3 x 3 matrix, found {rotation.tolist()}")
    return rotation
