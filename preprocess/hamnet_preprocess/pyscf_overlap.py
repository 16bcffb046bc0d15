"""S of any structure from the Gaussians in its basis, through PySCF's integrals.

S_ij(R) = <phi_i,0 | phi_j,R> for exactly the contractions that the shells hold: no renormalisation.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hamnet.core.basis import OrbitalBasis, Species
from hamnet.core.blocks import BlockMatrix
from hamnet.core.conventions import PYSCF
from hamnet.core.pairs import PairList, neighbour_pairs
from hamnet.core.spin import Spin
from hamnet.core.structure import AtomicStructure
from hamnet.core.units import BOHR
from hamnet.errors import BasisError
from hamnet_preprocess.pyscf_basis import dense_pairs, gather_index, orbital_order

THRESHOLD = 1e-11
"""A pair of a periodic structure exists when an element of its block is larger: S(k) is right to some 1e-11."""
_TAIL = 34.5
"""-ln of the Gaussian product that the neighbour search still sees, 1e-15: powers of d leave some 1e-12 of d shells."""
LARGEST_DENSE = 10**7
"""Above this many numbers in all images of a cell, integrals are taken atom by atom: linear in the number of pairs."""
_BATCH = 64
_CUTOFF_STEP = 0.05
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
    wanted = _gaussian_pairs(structure, basis) if pairs is None else pairs
    images, cells = np.unique(wanted.cell_shift, axis=0, return_inverse=True)
    if len(images) * int(basis.n_orbitals[structure.species].sum()) ** 2 > LARGEST_DENSE:
        matrix = _row_overlaps(structure, basis, wanted)
    else:
        dense = _image_overlaps(structure, basis, images)
        order = orbital_order(basis, structure.species)
        index = gather_index(wanted, cells.reshape(-1), basis, structure.species, Spin.NONE, order)
        matrix = BlockMatrix.from_values(wanted, basis, structure.species, Spin.NONE, dense.reshape(-1)[index])
    matrix = matrix.symmetrised()
    return matrix if pairs is not None else _drop_small(matrix)


@lru_cache(maxsize=16)
def gaussian_cutoffs(species: tuple[Species, ...]) -> NDArray[np.float64]:
    """(n_species, n_species) Angstrom: atoms further apart have no number of S above `THRESHOLD`, in no direction.

    The norm of a block between two shells does not depend on the direction, and no number of it is larger. Species
    with shells that are no Gaussians have 0.
    """
    result = np.zeros((len(species), len(species)))
    basis = OrbitalBasis(species)
    usable = [k for k, kind in enumerate(species) if all(shell.exponents for shell in kind.shells)]
    for a in usable:
        for b in usable:
            if a <= b:
                result[a, b] = result[b, a] = _couple_cutoff(basis, a, b)
    result.setflags(write=False)
    return result


def _couple_cutoff(basis: OrbitalBasis, a: int, b: int) -> float:
    """The first distance of a grid from which on all blocks between shells are negligible."""
    radii = gaussian_radii(AtomicStructure(np.ones(2, dtype=np.int64), np.array([a, b]), np.eye(3)[:2]), basis)
    distance = np.arange(_CUTOFF_STEP, float(np.hypot(*radii)) + 2 * _CUTOFF_STEP, _CUTOFF_STEP)
    n = len(distance)
    places = np.zeros((n + 1, 3))
    places[1:, 2] = distance
    line = AtomicStructure(np.ones(n + 1, dtype=np.int64), np.array([a] + [b] * n), places)
    zero, ends, own = np.zeros(n, dtype=np.int64), np.arange(1, n + 1), np.zeros((2 * n, 3), dtype=np.int64)
    pairs = PairList.build(np.concatenate((zero, ends)), np.concatenate((ends, zero)), own, line.species)
    matrix = _row_overlaps(line, basis, pairs)
    largest = np.zeros(n + 1)
    for group in matrix.groups():
        rows, columns = basis.species[group.species_i].slices, basis.species[group.species_j].slices
        norms = [np.linalg.norm(group.blocks[:, r, c], axis=(1, 2)) for r in rows for c in columns]
        np.maximum.at(largest, np.maximum(pairs.i[group.pairs], pairs.j[group.pairs]), np.max(norms, axis=0))
    last = int(np.flatnonzero(largest > THRESHOLD).max(initial=0))
    return float(distance[min(last, n - 1)])


def gaussian_radii(structure: AtomicStructure, basis: OrbitalBasis) -> NDArray[np.float64]:
    """(n_atoms,) Angstrom: beyond (r_i^2 + r_j^2)^(1/2) the product of the widest Gaussians is below 1e-15."""
    widest = [min((min(s.exponents, default=np.inf) for s in kind.shells), default=np.inf) for kind in basis.species]
    radii: NDArray[np.float64] = np.sqrt(_TAIL / np.array(widest))[structure.species] * BOHR
    return radii


def _gaussian_pairs(structure: AtomicStructure, basis: OrbitalBasis) -> PairList:
    """Pairs with exp(-d^2 a b / (a + b)) > exp(-tail), a and b the widest Gaussians of the two atoms."""
    radii = gaussian_radii(structure, basis)
    found = neighbour_pairs(structure, radii)
    squared = (found.vectors(structure) ** 2).sum(axis=1)
    keep = squared < radii[found.i] ** 2 + radii[found.j] ** 2
    return PairList.build(found.i[keep], found.j[keep], found.cell_shift[keep], structure.species)


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


def _row_overlaps(structure: AtomicStructure, basis: OrbitalBasis, pairs: PairList) -> BlockMatrix:
    """S on the pairs, one call of libcint for each atom and each kind of neighbour."""
    matrix = BlockMatrix.zeros(pairs, basis, structure.species)
    shells, data = _species_table(basis)
    order = [PYSCF.species(kind)[0] for kind in basis.species]
    for group in matrix.groups():
        a, b = group.species_i, group.species_j
        index = np.arange(group.pairs.start, group.pairs.stop)
        # the list is sorted by species and then by atom i: each atom's neighbours of one kind stand together
        starts = np.flatnonzero(np.diff(pairs.i[index], prepend=-1))
        stops = np.append(starts[1:], len(index))
        widest = int((stops - starts).max())
        kinds = np.concatenate(([a], np.full(widest, b)))
        atm, bas, env = _environment(np.zeros((widest + 1, 3)), kinds, shells, data)
        place = atm[0, 1]
        sites = structure.positions[pairs.j[index]] + pairs.cell_shift[index] @ structure.lattice
        for start, stop in zip(starts.tolist(), stops.tolist(), strict=True):
            n = stop - start
            env[place : place + 3] = structure.positions[pairs.i[index[start]]] / BOHR
            env[place + 3 : place + 3 * (n + 1)] = sites[start:stop].reshape(-1) / BOHR
            n_shells = len(shells[a]) + n * len(shells[b])
            piece = _row(atm[: n + 1], bas[:n_shells], env, len(shells[a])).reshape(-1, n, basis.n_orbitals[b])
            group.blocks[start:stop] = piece[order[a][:, None], :, order[b][None, :]].transpose(2, 0, 1)
    return matrix


def _row(atm: NDArray[np.int32], bas: NDArray[np.int32], env: NDArray[np.float64], first: int) -> NDArray[np.float64]:
    """(n_i, n_rest) overlaps of the first shells with all others."""
    from pyscf.gto.moleintor import getints

    rest = (0, first, first, len(bas))
    result: NDArray[np.float64] = np.ascontiguousarray(getints("int1e_ovlp_sph", atm, bas, env, shls_slice=rest))
    return result


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
