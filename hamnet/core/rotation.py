"""Real Wigner D and SU(2), and the rotation of a BlockMatrix: the reference for every equivariance test.

An orthogonal map O = P^s R takes orbitals by U = direct sum over shells of D^l(O), where Y_l(O x) = D^l(O) Y_l(x),
so that D^l(-1) = (-1)^l comes by itself; spinors take D^{1/2}(R) x U, and inversion leaves spin alone.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import block_diag, expm
from scipy.special import sph_harm_y

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

    The length of the vectors does not matter; at the zero vector the value at +z is returned.
    """
    x, y, z = np.moveaxis(np.asarray(vectors, dtype=np.float64), -1, 0)
    theta, phi = np.arctan2(np.hypot(x, y), z), np.arctan2(y, x)
    columns: list[FloatArray] = [np.empty(0)] * (2 * l + 1)
    for m in range(l + 1):
        value = sph_harm_y(l, m, theta, phi)
        if m == 0:
            columns[l] = value.real
        else:
            # (-1)^m takes the Condon-Shortley sign away
            columns[l + m] = np.sqrt(2) * (-1) ** m * value.real
            columns[l - m] = np.sqrt(2) * (-1) ** m * value.imag
    return np.stack(columns, axis=-1)


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
    unitary: list[NDArray[Any]] = [orbital_rotation(species, rotation) for species in matrix.basis.species]
    if matrix.spin is Spin.SPINOR:
        spin = spin_rotation(rotation)
        unitary = [np.kron(spin, u) for u in unitary]
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
