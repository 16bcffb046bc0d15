"""S of any structure from the Gaussians in its basis, through PySCF's integrals.

S_ij(R) = <phi_i,0 | phi_j,R> for exactly the contractions that the shells hold: no renormalisation.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hamnet.core.basis import OrbitalBasis
from hamnet.core.blocks import BlockMatrix
from hamnet.core.pairs import PairList, neighbour_pairs
from hamnet.core.spin import Spin
from hamnet.core.structure import AtomicStructure
from hamnet.core.units import BOHR
from hamnet.errors import BasisError
from hamnet_preprocess.pyscf_basis import dense_pairs, gather_index, orbital_order

THRESHOLD = 1e-10
"""A pair of a periodic structure exists when an element of its overlap block is larger than this."""
_TAIL = 27.6
"""-ln of the Gaussian product that the neighbour search still sees, 1e-12."""
_BATCH = 64
_ENV_START = 20


def overlap_from_basis(structure: AtomicStructure, basis: OrbitalBasis, pairs: PairList | None = None) -> BlockMatrix:
    """S from the shells' exponents and coefficients, bitwise symmetric.

    Args:
        structure: molecule, or periodic in any direction (blocks are then lattice images, each exact).
        basis: orbitals with exponents (1 / bohr^2) and coefficients of normalised primitives.
        pairs: blocks wanted; None: all pairs of a molecule, or every pair above `THRESHOLD` of a periodic structure.

    Raises:
        BasisError: a species that is used has a shell without exponents.
    """
    _check_gaussian(structure, basis)
    if pairs is None and not structure.is_periodic:
        pairs = dense_pairs(structure.species)
    wanted = neighbour_pairs(structure, gaussian_radii(structure, basis)) if pairs is None else pairs
    images, cells = np.unique(wanted.cell_shift, axis=0, return_inverse=True)
    dense = _image_overlaps(structure, basis, images)
    order = orbital_order(basis, structure.species)
    index = gather_index(wanted, cells.reshape(-1), basis, structure.species, Spin.NONE, order)
    matrix = BlockMatrix.from_values(wanted, basis, structure.species, Spin.NONE, dense.reshape(-1)[index])
    matrix = matrix.symmetrised()
    return matrix if pairs is not None else _drop_small(matrix)


def gaussian_radii(structure: AtomicStructure, basis: OrbitalBasis) -> NDArray[np.float64]:
    """(n_atoms,) Angstrom: beyond r_i + r_j the product of the widest Gaussians is below 1e-12."""
    widest = [min((min(s.exponents, default=np.inf) for s in kind.shells), default=np.inf) for kind in basis.species]
    radii: NDArray[np.float64] = np.sqrt(_TAIL / np.array(widest))[structure.species] * BOHR
    return radii


def _check_gaussian(structure: AtomicStructure, basis: OrbitalBasis) -> None:
    for k in np.unique(structure.species):
        if any(not shell.exponents for shell in basis.species[k].shells):
            raise BasisError(
                f"species {basis.species[k].label!r} has shells without Gaussian exponents: "
                "PySCF's integrals need them; use the fitted overlap or give S"
            )


def _drop_small(matrix: BlockMatrix) -> BlockMatrix:
    """Without the pairs whose block is below the threshold; S is symmetric, so reverse pairs go together."""
    largest = np.maximum.reduceat(np.abs(matrix.values), matrix.offsets[:-1])
    keep = (largest > THRESHOLD) | matrix.pairs.on_site
    old = matrix.pairs
    pairs = PairList.build(old.i[keep], old.j[keep], old.cell_shift[keep], matrix.species)
    values = matrix.values[np.repeat(keep, np.diff(matrix.offsets))]
    return BlockMatrix.from_values(pairs, matrix.basis, matrix.species, Spin.NONE, values)


def _image_overlaps(structure: AtomicStructure, basis: OrbitalBasis, images: NDArray[Any]) -> NDArray[np.float64]:
    """(n_images, n, n) overlap of the home cell with each image, in PySCF's order."""
    from pyscf.gto.moleintor import getints

    shells, data = _species_table(basis)
    home, shifts = structure.positions, images @ structure.lattice
    result = []
    for start in range(0, len(shifts), _BATCH):
        shift = shifts[start : start + _BATCH]
        positions = np.concatenate([home, *(home + s for s in shift)]) / BOHR
        atm, bas, env = _environment(positions, np.tile(structure.species, len(shift) + 1), shells, data)
        n_shells = len(bas) // (len(shift) + 1)
        piece = getints("int1e_ovlp_sph", atm, bas, env, shls_slice=(0, n_shells, n_shells, len(bas)))
        n = piece.shape[0]
        result.append(piece.reshape(n, len(shift), n).transpose(1, 0, 2))
    return np.ascontiguousarray(np.concatenate(result))


def _species_table(basis: OrbitalBasis) -> tuple[list[NDArray[np.int32]], NDArray[np.float64]]:
    """libcint shell rows of each species (atom 0) and the exponents and coefficients that they point to."""
    from pyscf.gto import gto_norm

    data: list[float] = []
    tables = []
    for kind in basis.species:
        rows = []
        for shell in kind.shells:
            exponents = np.array(shell.exponents)
            at, size = _ENV_START + len(data), len(exponents)
            data.extend(exponents)
            data.extend(np.array(shell.coefficients) * gto_norm(shell.l, exponents))
            rows.append([0, shell.l, size, 1, 0, at, at + size, 0])
        tables.append(np.array(rows, dtype=np.int32))
    return tables, np.array(data)


def _environment(
    positions: NDArray[np.float64],
    species: NDArray[np.int64],
    shells: list[NDArray[np.int32]],
    data: NDArray[np.float64],
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float64]]:
    """libcint's atom table, shell table and numbers; positions in bohr."""
    n_atoms, first = len(positions), _ENV_START + len(data)
    env = np.concatenate((np.zeros(_ENV_START), data, positions.reshape(-1), [0.0]))
    atm = np.zeros((n_atoms, 6), dtype=np.int32)
    atm[:, 1] = first + 3 * np.arange(n_atoms)
    atm[:, 2], atm[:, 3] = 1, len(env) - 1
    bas = np.concatenate([shells[k] for k in species])
    bas[:, 0] = np.repeat(np.arange(n_atoms), [len(shells[k]) for k in species])
    return atm, bas, env
