"""A molecule of a database as a Calculation: def2-SVP of neutral closed shells, conventions found out and not believed.

Files of the molecular benchmarks hold dense matrices and do not say their orbital order. S is rebuilt from geometry and
basis with PySCF's integrals; where the file has an S, the two must agree (order, sign and unit each leave their own
fingerprint in S). Where it has none, the blocks of H between atoms must follow S: H_ij is about
k S_ij (H_ii + H_jj) / 2 (Wolfsberg and Helmholz), whose signs and order are those of S.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hamnet.core.basis import OrbitalBasis, Species
from hamnet.core.blocks import BlockMatrix, block_offsets
from hamnet.core.calculation import Calculation, Provenance
from hamnet.core.conventions import CONVENTIONS, OrbitalConvention, dense_to_ours
from hamnet.core.pairs import PairList
from hamnet.core.spin import Spin
from hamnet.core.structure import AtomicStructure
from hamnet.core.units import BOHR, HARTREE
from hamnet.errors import BasisError, ConvergenceError, FormatError, PhysicsError
from hamnet_preprocess.pyscf_basis import basis_of, dense_pairs, gather_index
from hamnet_preprocess.pyscf_overlap import overlap_from_basis

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BASIS = "def2-svp"
LARGEST_ELEMENT = 36
"""def2-SVP has all electrons up to krypton, core potentials beyond."""
OVERLAP_TOLERANCE = 1e-5
"""S of the file against S rebuilt: ORCA prints S and positions with six decimals, Psi4's are kept in float32."""
RECOGNISED = 1e-3
"""A wrong order or unit deviates by 0.1 and more."""
UNITS = {
    1.0: "positions as they are",
    BOHR: "positions that are in bohr, not in Angstrom",
    1 / BOHR: "positions that are in Angstrom, not in bohr",
}
"""Factor on the positions -> what would have been wrong."""
LIKENESS = 0.4
"""Least cosine between H and k S (H_ii + H_jj) / 2 between atoms: 0.66 to 0.78 in the right order, 0.1 in others."""
SINGLE = 4 * float(np.finfo(np.float32).eps)
"""Relative asymmetry of a matrix that is kept in float32."""
PRINTED = 2e-6
"""Hartree; asymmetry of a matrix that was read from six printed decimals."""


@dataclass(frozen=True)
class MoleculeRow:
    """What a row holds, in the file's orbital order.

    Args:
        where: file and row, for messages.
        numbers: (n_atoms,) atomic numbers.
        positions: (n_atoms, 3) Angstrom.
        fock: (n, n) Hartree, of the type in the file.
        overlap: (n, n); None where the file has none.
        provenance: of the calculation.
        energy: Hartree.
        forces: (n_atoms, 3) Hartree / Angstrom.
        converged: the SCF converged; None where the file does not say.
    """

    where: str
    numbers: IntArray
    positions: FloatArray
    fock: NDArray[Any]
    overlap: NDArray[Any] | None
    provenance: Provenance
    energy: float | None = None
    forces: FloatArray | None = None
    converged: bool | None = None


def n_orbitals_of(numbers: IntArray, where: str) -> int:
    """Orbitals of a molecule in def2-SVP.

    Args:
        numbers: (n_atoms,) atomic numbers.
        where: file and row, for messages.

    Raises:
        FormatError: a number that is no element with all electrons.
    """
    wrong = [int(z) for z in numbers if not 1 <= z <= LARGEST_ELEMENT]
    if wrong or not len(numbers):
        raise FormatError(f"{where}: atomic numbers {wrong or 'are missing'}: expected 1 to {LARGEST_ELEMENT}")
    basis = _basis(_elements(numbers))
    return int(basis.n_orbitals[basis.species_of_elements(numbers)].sum())


def molecule(row: MoleculeRow, convention: OrbitalConvention, allow_unconverged: bool) -> Calculation:
    """Calculation of a row.

    S is the rebuilt one, right to 1e-13: that of some files has six digits.

    Args:
        row: what the file holds.
        convention: orbital order of the code that wrote it.
        allow_unconverged: keep an SCF that did not converge, marked.

    Raises:
        ConvergenceError: the SCF did not converge and that is not allowed.
        PhysicsError: H is not symmetric, S or H do not fit geometry, order or unit, or the electrons are odd.
        BasisError: matrices of another size.
    """
    if row.converged is False and not allow_unconverged:
        raise ConvergenceError(f"{row.where}: the SCF did not converge; --allow-unconverged keeps it, marked")
    if int(row.numbers.sum()) % 2:
        raise PhysicsError(f"{row.where}: {int(row.numbers.sum())} electrons: an open shell, expected closed ones")
    structure, basis = _structure(row)
    _check_size(row, int(basis.n_orbitals[structure.species].sum()))
    kinds = [basis.species[k] for k in structure.species]
    overlap = overlap_from_basis(structure, basis)
    fock = _symmetric(row)
    ours = dense_to_ours(fock, convention, kinds)
    layout = _layout(_elements(row.numbers), structure.species.tobytes())
    if row.overlap is not None:
        stored = dense_to_ours(np.asarray(row.overlap, dtype=np.float64), convention, kinds).reshape(-1)[layout.index]
        deviation = float(np.abs(stored - overlap.values).max())
        if deviation > OVERLAP_TOLERANCE:
            raise PhysicsError(_overlap_advice(row, structure, basis, deviation))
    else:
        _check_likeness(row, ours, _dense(overlap, layout), kinds, convention)
    values = ours.reshape(-1)[layout.index] * HARTREE
    hamiltonian = BlockMatrix(layout.pairs, basis, structure.species, Spin.NONE, values, layout.offsets)
    return Calculation(
        structure,
        basis,
        overlap,
        hamiltonian,
        energy=None if row.energy is None else row.energy * HARTREE,
        forces=None if row.forces is None else row.forces * HARTREE,
        n_electrons=float(row.numbers.sum()),
        converged=row.converged is not False,
        provenance=row.provenance,
    )


def _structure(row: MoleculeRow) -> tuple[AtomicStructure, OrbitalBasis]:
    if not np.isfinite(row.positions).all():
        raise FormatError(f"{row.where}: a position is not a finite number")
    basis = _basis(_elements(row.numbers))
    return AtomicStructure(row.numbers, basis.species_of_elements(row.numbers), row.positions), basis


def _check_size(row: MoleculeRow, n: int) -> None:
    for name, matrix in (("H", row.fock), ("S", row.overlap)):
        if matrix is not None and matrix.shape != (n, n):
            raise BasisError(f"{row.where}: {name} is {matrix.shape}, {BASIS} of these atoms gives ({n}, {n})")
        if matrix is not None and not np.isfinite(matrix).all():
            raise FormatError(f"{row.where}: {name} holds a number that is not finite")


def _symmetric(row: MoleculeRow) -> FloatArray:
    """(F + F^T) / 2 after a check: bitwise symmetric."""
    fock = np.asarray(row.fock, dtype=np.float64)
    asymmetry = float(np.abs(fock - fock.T).max())
    allowed = PRINTED + (SINGLE * float(np.abs(fock).max()) if row.fock.dtype == np.float32 else 0.0)
    if asymmetry > allowed:
        raise PhysicsError(
            f"{row.where}: H differs from its transpose by {asymmetry:.3g} Hartree, allowed {allowed:.2g}: "
            "the row is damaged"
        )
    symmetric: FloatArray = (fock + fock.T) / 2
    return symmetric


@dataclass(frozen=True, eq=False)
class _Layout:
    """Where each value of the blocks stands in the flattened dense matrix, both in our orbital order."""

    pairs: PairList
    offsets: IntArray
    index: IntArray


@lru_cache(maxsize=256)
def _layout(elements: tuple[int, ...], species_bytes: bytes) -> _Layout:
    basis = _basis(elements)
    species = np.frombuffer(species_bytes, dtype=np.int64)
    pairs = dense_pairs(species)
    order = np.arange(int(basis.n_orbitals[species].sum()))
    index = gather_index(pairs, np.zeros(pairs.n_pairs, dtype=np.int64), basis, species, Spin.NONE, order)
    return _Layout(pairs, block_offsets(pairs, basis, species, Spin.NONE), index)


def _dense(matrix: BlockMatrix, layout: _Layout) -> FloatArray:
    """(n, n) dense matrix of a molecule's blocks, our orbital order."""
    n = matrix.n_orbitals
    flat = np.zeros(n * n)
    flat[layout.index] = matrix.values
    return flat.reshape(n, n)


def _elements(numbers: IntArray) -> tuple[int, ...]:
    return tuple(sorted({int(z) for z in numbers}))


@lru_cache(maxsize=256)
def _basis(elements: tuple[int, ...]) -> OrbitalBasis:
    """def2-SVP of some elements as PySCF has it; the labels are those of `hamnet label`."""
    from pyscf import gto

    # far apart, and with as many electrons as the spin needs: only the orbitals matter
    atoms = [(z, (0.0, 0.0, 10.0 * k)) for k, z in enumerate(elements)]
    mol = gto.M(atom=atoms, basis=BASIS, spin=sum(elements) % 2, verbose=0)
    return basis_of(mol)[0]


def _overlap_advice(row: MoleculeRow, structure: AtomicStructure, basis: OrbitalBasis, deviation: float) -> str:
    """What is wrong with the S of a file: the orbital order and the unit that would fit best."""
    kinds = [basis.species[k] for k in structure.species]
    layout = _layout(_elements(row.numbers), structure.species.tobytes())
    stored = np.asarray(row.overlap, dtype=np.float64)
    found = []
    for factor, unit in UNITS.items():
        scaled = AtomicStructure(structure.atomic_numbers, structure.species, structure.positions * factor)
        rebuilt = overlap_from_basis(scaled, basis).values
        for name, convention in CONVENTIONS.items():
            ours = dense_to_ours(stored, convention, kinds).reshape(-1)[layout.index]
            found.append((float(np.abs(ours - rebuilt).max()), name, unit))
    best, name, unit = min(found)
    fits = f"the order of {name!r} with {unit} fits to {best:.1e}"
    if best > RECOGNISED:
        fits = f"no known orbital order and unit fits (the best: {name!r}, {unit}, {best:.1e}): another basis"
    return f"{row.where}: S rebuilt from geometry and {BASIS} differs from the file's by {deviation:.2g}; {fits}"


def _check_likeness(
    row: MoleculeRow, ours: FloatArray, overlap: FloatArray, kinds: Sequence[Species], convention: OrbitalConvention
) -> None:
    """Refuse an H whose blocks between atoms do not follow S in the stated order."""
    between = _between(kinds)
    if not between.any():
        return
    if likeness(ours, overlap, between) >= LIKENESS:
        return
    fock = np.asarray(row.fock, dtype=np.float64)
    found = {n: likeness(dense_to_ours(fock, c, kinds), overlap, between) for n, c in CONVENTIONS.items()}
    best = max(found, key=lambda name: found[name])
    advice = f"the best order is {best!r} with {found[best]:.2f}"
    if found[best] < LIKENESS:
        advice = "no other order fits: the positions have another unit, or the row is damaged"
    raise PhysicsError(
        f"{row.where}: H does not follow S in the orbital order of {convention.name!r}: cosine "
        f"{found[convention.name]:.2f}, expected {LIKENESS} or more; {advice}"
    )


def likeness(hamiltonian: FloatArray, overlap: FloatArray, between: NDArray[np.bool_]) -> float:
    """Cosine between H_ij and S_ij (H_ii + H_jj) / 2 over some elements, our orbital order."""
    diagonal = np.diag(hamiltonian)
    a, b = hamiltonian[between], (overlap * (diagonal[:, None] + diagonal) / 2)[between]
    norm = float(np.linalg.norm(a)) * float(np.linalg.norm(b))
    return float(a @ b) / norm if norm else 0.0


def _between(kinds: Sequence[Species]) -> NDArray[np.bool_]:
    """Elements between two atoms where an orbital is not s: those that an order or a sign changes."""
    atom = np.repeat(np.arange(len(kinds)), [kind.n_orbitals for kind in kinds])
    l = np.concatenate([np.repeat(kind.shell_ls, [2 * x + 1 for x in kind.shell_ls]) for kind in kinds])
    result: NDArray[np.bool_] = (atom[:, None] != atom) & ((l[:, None] > 0) | (l > 0))
    return result
