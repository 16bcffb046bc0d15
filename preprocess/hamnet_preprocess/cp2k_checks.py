"""What the reader checks before it believes a CP2K run: S against its basis, H against CP2K's own bands."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, eigh

from hamnet.core.basis import OrbitalBasis
from hamnet.core.bloch import BlochSum
from hamnet.core.blocks import BlockMatrix
from hamnet.core.pairs import PairList
from hamnet.core.reference import ReferenceBands
from hamnet.core.structure import AtomicStructure
from hamnet.errors import FormatError, PhysicsError
from hamnet_preprocess.pyscf_overlap import overlap_from_basis

OVERLAP_TOLERANCE = 1e-5
"""Largest difference of S from S rebuilt; CP2K's own cut at sqrt(EPS_DEFAULT) stays below 1e-6."""
BANDS_TOLERANCE = 1e-4
"""Largest difference (eV) of eigenvalues from those of the folder's .bs."""
CHECKED_KPOINTS = 2
CHECKED_ORBITALS = 1000
"""Cells with more orbitals are not diagonalised while they are read."""
CHECKED_NUMBERS = 100_000_000
"""S is rebuilt on as many images as keep the dense matrices below this many numbers."""


def check_overlap(overlap: BlockMatrix, structure: AtomicStructure, basis: OrbitalBasis, path: Path) -> None:
    """Compare S with integrals, on all images or the nearest ones: geometry, basis, order and images at once.

    Raises:
        PhysicsError: they differ by more than `OVERLAP_TOLERANCE`.
    """
    allowed = max(CHECKED_NUMBERS // overlap.n_orbitals**2, 1)
    shifts = np.unique(overlap.pairs.cell_shift, axis=0)
    reach = np.sort(np.linalg.norm(shifts @ structure.lattice, axis=1))[min(allowed, len(shifts)) - 1]
    near = np.linalg.norm(overlap.pairs.cell_shift @ structure.lattice, axis=1) <= reach + 1e-9
    part = _part(overlap, near)
    rebuilt = overlap_from_basis(structure, basis, part.pairs)
    difference = np.abs(part.values - rebuilt.values)
    at = int(difference.argmax())
    if difference[at] > OVERLAP_TOLERANCE:
        pair = part.describe_pair(int(np.searchsorted(part.offsets, at, side="right")) - 1)
        raise PhysicsError(
            f"{path}: S of pair {pair} differs by {difference[at]:.3g} from the integrals of the basis, expected at "
            f"most {OVERLAP_TOLERANCE:g}: the input, the basis-set file or the .csr files belong to another run"
        )


def _part(matrix: BlockMatrix, keep: NDArray[np.bool_]) -> BlockMatrix:
    """Only some pairs, each with its reverse."""
    old = matrix.pairs
    pairs = PairList.build(old.i[keep], old.j[keep], old.cell_shift[keep], matrix.species)
    values = matrix.values[np.repeat(keep, np.diff(matrix.offsets))]
    return BlockMatrix.from_values(pairs, matrix.basis, matrix.species, matrix.spin, values)


def check_bands(bands: ReferenceBands | None, overlap: BlockMatrix, hamiltonian: BlockMatrix) -> None:
    """Compare bands at some k-points of the .bs, which lie off the k-mesh of the SCF.

    Raises:
        FormatError: the .bs has other spins, or more bands than there are orbitals.
        PhysicsError: the bands differ by more than `BANDS_TOLERANCE`.
    """
    if bands is None or overlap.n_orbitals > CHECKED_ORBITALS:
        return
    chosen = np.unique(np.linspace(0, len(bands.kpoints) - 1, CHECKED_KPOINTS + 1).astype(int))[-CHECKED_KPOINTS:]
    ours = np.stack([_eigenvalues(hamiltonian, overlap, k) for k in bands.kpoints[chosen]], axis=1)
    theirs = bands.energies[:, chosen]
    n = theirs.shape[2]
    if ours.shape[0] != theirs.shape[0] or n > ours.shape[2]:
        raise FormatError(
            f"{bands.source}: {theirs.shape[0]} spin(s) and {n} bands, the matrices have {ours.shape[0]} and "
            f"{ours.shape[2]}: it is of another run"
        )
    deviation = float(np.abs(ours[..., :n] - theirs).max())
    if deviation > BANDS_TOLERANCE:
        raise PhysicsError(
            f"{bands.source}: bands of H and S differ by {deviation:.3g} eV from those CP2K printed, expected at most "
            f"{BANDS_TOLERANCE:g}: the .bs is of another run, or THRESHOLD of &KS_CSR_WRITE is above 1.0E-12"
        )


def _eigenvalues(hamiltonian: BlockMatrix, overlap: BlockMatrix, kpoint: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n_spin, n) eV."""
    s, h = BlochSum(overlap).dense(kpoint), BlochSum(hamiltonian).dense(kpoint)
    try:
        return np.stack([eigh(part, s, eigvals_only=True) for part in (h if h.ndim == 3 else h[None])])
    except LinAlgError as error:
        raise PhysicsError(
            f"S(k) at k = {kpoint.tolist()} is not positive definite: the basis is nearly dependent, or THRESHOLD of "
            "&S_CSR_WRITE is too large"
        ) from error
