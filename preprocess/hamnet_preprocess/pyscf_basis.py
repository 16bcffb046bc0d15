"""PySCF's orbitals and dense matrices in hamnet's nouns.

PySCF orders orbitals by atom, then by shell as `mol._bas` lists them (a shell with several contractions gives
one hamnet shell per contraction), then x, y, z for p and m = -l..l for the rest. GHF and GKS matrices hold all up
orbitals first, then all down. Shell coefficients are those of normalised primitives, `mol.bas_ctr_coeff`,
so that phi = sum_p c_p N_p(l, a_p) r^l exp(-a_p r^2) Y_lm.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hamnet.core.basis import OrbitalBasis, Shell, Species
from hamnet.core.blocks import BlockMatrix, block_offsets, species_groups
from hamnet.core.calculation import Calculation
from hamnet.core.conventions import PYSCF
from hamnet.core.pairs import PairList
from hamnet.core.spin import Spin
from hamnet.core.structure import AtomicStructure
from hamnet.core.units import BOHR, HARTREE
from hamnet.errors import BasisError, PhysicsError

IntArray = NDArray[np.int64]


def basis_of(mol: Any) -> tuple[OrbitalBasis, IntArray]:
    """Orbitals of a PySCF `Mole` or `Cell`, and the species (n_atoms,) of each atom.

    Raises:
        BasisError: Cartesian orbitals, or an atom without orbitals.
    """
    if mol.cart:
        raise BasisError(
            "the molecule uses Cartesian Gaussians (mol.cart = True), hamnet needs real spherical harmonics: "
            "run PySCF with cart = False"
        )
    shells: list[list[Shell]] = [[] for _ in range(mol.natm)]
    for b in range(mol.nbas):
        exponents = tuple(float(x) for x in mol.bas_exp(b))
        for column in np.asarray(mol.bas_ctr_coeff(b)).T:
            shell = Shell(int(mol.bas_angular(b)), None, exponents, tuple(float(x) for x in column))
            shells[int(mol.bas_atom(b))].append(shell)
    found: dict[Species, int] = {}
    species = [found.setdefault(_species(mol, a, tuple(shells[a])), len(found)) for a in range(mol.natm)]
    return OrbitalBasis(tuple(found)), np.array(species, dtype=np.int64)


def _species(mol: Any, atom: int, shells: tuple[Shell, ...]) -> Species:
    from pyscf import gto

    symbol = str(mol.atom_pure_symbol(atom))
    if not shells:
        raise BasisError(f"atom {atom} ({symbol}) has no orbitals in PySCF's basis: give it a basis or remove it")
    number = max(int(gto.charge(symbol)), 0)
    full = str(mol.atom_symbol(atom))
    name = _setting(mol.basis, full, symbol) or "custom-" + _digest(shells)
    core = _setting(getattr(mol, "pseudo", None), full, symbol) or _setting(mol.ecp, full, symbol)
    valence = float(mol.atom_charge(atom))
    if not core and number and valence != number:
        core = f"ecp{number - valence:g}"
    suffix = f"/{core}" if core and number and valence != number else ""
    return Species(f"{symbol}:{name}{suffix}", number, valence, shells)


def _setting(value: Any, full: str, symbol: str) -> str:
    """Name of the basis or pseudopotential given for one atom; empty when it was given as numbers."""
    if isinstance(value, Mapping):
        keys = (full, symbol, "default")
        value = next((value[key] for key in keys if key in value), None)
    named = isinstance(value, str) and "\n" not in value and len(value) < 60
    return "".join(str(value).lower().split()) if named else ""


def _digest(shells: tuple[Shell, ...]) -> str:
    return hashlib.sha256(repr(shells).encode()).hexdigest()[:8]


def structure_of(mol: Any, species: IntArray, basis: OrbitalBasis) -> AtomicStructure:
    """Atoms of a PySCF `Mole` or `Cell`; a ghost atom has atomic number 0."""
    numbers = np.array([basis.species[k].atomic_number for k in species], dtype=np.int64)
    positions = np.asarray(mol.atom_coords()) * BOHR
    if not hasattr(mol, "lattice_vectors"):
        return AtomicStructure(numbers, species, positions)
    pbc = np.arange(3) < mol.dimension
    return AtomicStructure(numbers, species, positions, np.asarray(mol.lattice_vectors()) * BOHR, pbc)


def orbital_order(basis: OrbitalBasis, species: IntArray) -> IntArray:
    """(n_orbitals,) PySCF's index of each of hamnet's orbitals of the whole molecule or cell.

    Raises:
        PhysicsError: the convention has a sign, which a permutation alone cannot express.
    """
    parts = [PYSCF.species(s) for s in basis.species]
    if any((sign != 1).any() for _, sign in parts):
        raise PhysicsError("PySCF's orbital convention has a sign: it must be applied beside the permutation")
    starts = np.concatenate(([0], np.cumsum(basis.n_orbitals[species])))
    return np.concatenate([parts[k][0] + start for k, start in zip(species, starts, strict=False)])


def dense_pairs(species: IntArray) -> PairList:
    """All n_atoms^2 pairs of a molecule: every block of its Fock matrix is nonzero."""
    return _dense_pairs(np.ascontiguousarray(species, dtype=np.int64).tobytes())


@lru_cache(maxsize=256)
def _dense_pairs(species: bytes) -> PairList:
    kinds = np.frombuffer(species, dtype=np.int64)
    i, j = np.divmod(np.arange(len(kinds) ** 2, dtype=np.int64), len(kinds))
    return PairList.build(i, j, np.zeros((len(i), 3), dtype=np.int64), kinds)


def gather_index(
    pairs: PairList, cells: IntArray, basis: OrbitalBasis, species: IntArray, spin: Spin, order: IntArray
) -> IntArray:
    """(n_values,) where each block value stands in dense matrices in PySCF's order, flattened.

    Args:
        pairs: blocks wanted.
        cells: (n_pairs,) which dense matrix each pair takes its block from.
        basis, species: orbitals.
        spin: dense matrices are (n_cells, n, n), (n_cells, 2, n, n) or (n_cells, 2n, 2n).
        order: (n,) PySCF's index of each of hamnet's orbitals.
    """
    n, parts = len(order), []
    starts = np.concatenate(([0], np.cumsum(basis.n_orbitals[species])))
    for a, b, part in species_groups(pairs, species, len(basis.species)):
        rows = order[starts[pairs.i[part], None] + np.arange(basis.n_orbitals[a])]
        columns = order[starts[pairs.j[part], None] + np.arange(basis.n_orbitals[b])]
        cell = cells[part, None, None]
        if spin is Spin.SPINOR:
            rows, columns = np.hstack((rows, rows + n)), np.hstack((columns, columns + n))
            index = (cell * 2 * n + rows[:, :, None]) * 2 * n + columns[:, None, :]
        elif spin is Spin.COLLINEAR:
            layers = cell[:, None] * 2 + np.arange(2)[None, :, None, None]
            index = (layers * n + rows[:, None, :, None]) * n + columns[:, None, None, :]
        else:
            index = (cell * n + rows[:, :, None]) * n + columns[:, None, :]
        parts.append(index.reshape(-1))
    return np.concatenate(parts)


class _Layout:
    """Pairs, offsets and gather index of one kind of molecule: made once for a whole set of geometries."""

    def __init__(self, basis: OrbitalBasis, species: IntArray, spin: Spin) -> None:
        self.pairs = dense_pairs(species)
        self.offsets = block_offsets(self.pairs, basis, species, spin)
        zeros = np.zeros(self.pairs.n_pairs, dtype=np.int64)
        self.index = gather_index(self.pairs, zeros, basis, species, spin, orbital_order(basis, species))


_LAYOUTS: OrderedDict[tuple[str, bytes, Spin], _Layout] = OrderedDict()
_MAXIMUM_LAYOUTS = 64


def _layout(basis: OrbitalBasis, species: IntArray, spin: Spin) -> _Layout:
    # Keyed by the basis' hash, which is computed once: hashing the basis itself visits every exponent.
    key = (basis.hash, species.tobytes(), spin)
    if key not in _LAYOUTS:
        _LAYOUTS[key] = _Layout(basis, species, spin)
        if len(_LAYOUTS) > _MAXIMUM_LAYOUTS:
            _LAYOUTS.popitem(last=False)
    return _LAYOUTS[key]


def dense_to_blocks(dense: NDArray[Any], basis: OrbitalBasis, species: IntArray, spin: Spin = Spin.NONE) -> BlockMatrix:
    """Blocks of a molecule's dense matrix in PySCF's orbital order, in the units it has.

    Args:
        dense: (n, n), (2, n, n) for collinear, (2n, 2n) for spinor: all up orbitals first.
        basis, species: orbitals.
        spin: layout.

    Raises:
        PhysicsError: the shape does not fit, or a real layout is given complex numbers.
    """
    n = int(basis.n_orbitals[species].sum())
    expected = spin.shape(n, n)
    if dense.shape != expected:
        raise PhysicsError(f"found a {spin.value} matrix of shape {dense.shape}, expected {expected}")
    layout = _layout(basis, species, spin)
    values = as_layout(dense, spin).reshape(-1)[layout.index]
    return BlockMatrix(layout.pairs, basis, species, spin, values, layout.offsets)


def as_layout(dense: NDArray[Any], spin: Spin) -> NDArray[Any]:
    """The numbers in the type of the layout.

    Raises:
        PhysicsError: an imaginary part above 1e-7 where the layout is real.
    """
    if np.iscomplexobj(dense) and spin is not Spin.SPINOR:
        imaginary = float(np.abs(dense.imag).max(initial=0.0))
        if imaginary > 1e-7:
            raise PhysicsError(
                f"the {spin.value} matrix has imaginary parts up to {imaginary:.3g}, expected real numbers: "
                "use GHF/GKS for complex orbitals, and no magnetic field or shifted k-mesh"
            )
        dense = dense.real
    return np.ascontiguousarray(dense, dtype=spin.dtype)


def molecule_calculation(
    numbers: NDArray[np.int64],
    positions: NDArray[np.float64],
    basis: OrbitalBasis,
    fock: NDArray[Any],
    overlap: NDArray[np.float64],
    *,
    spin: Spin = Spin.NONE,
    species: IntArray | None = None,
    energy: float | None = None,
    **fields: Any,
) -> Calculation:
    """Calculation of a molecule from ready arrays in PySCF's order; about 0.2 ms for water.

    Args:
        numbers: (n_atoms,) atomic numbers.
        positions: (n_atoms, 3) Angstrom.
        basis: orbitals, as `basis_of` gives them.
        fock: Hartree; (n, n), (2, n, n) or (2n, 2n) by `spin`.
        overlap: (n, n).
        spin: layout of `fock`.
        species: (n_atoms,) where one element has several species, else found by element.
        energy: Hartree.
        fields: further fields of `Calculation`, in its units.
    """
    if species is None:
        species = basis.species_of_elements(np.asarray(numbers, dtype=np.int64))
    structure = AtomicStructure(numbers, species, positions)
    overlap_blocks = dense_to_blocks(overlap, basis, structure.species)
    blocks = dense_to_blocks(fock, basis, structure.species, spin)
    hamiltonian = blocks.with_values(blocks.values * HARTREE)
    total = None if energy is None else energy * HARTREE
    return Calculation(structure, basis, overlap_blocks, hamiltonian, energy=total, **fields)
