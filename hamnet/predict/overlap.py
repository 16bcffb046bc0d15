"""The overlap S of a structure that no DFT code has seen.

From the radial functions of its basis, from its Gaussians, from a fit, or from the user's file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hamnet.core.basis import OrbitalBasis
from hamnet.core.blocks import BlockMatrix
from hamnet.core.calculation import Calculation
from hamnet.core.overlap import has_radial_functions, two_centre_overlap
from hamnet.core.pairs import PairList, neighbour_pairs, orbital_pairs
from hamnet.core.structure import AtomicStructure
from hamnet.data.two_centre import TwoCentreFit
from hamnet.errors import BasisError, PhysicsError

FloatArray = NDArray[np.float64]

SAME_PLACE = 1e-3
"""Atoms of a given overlap must stand this close (Angstrom) to those of the structure."""


@dataclass(frozen=True, eq=False)
class OverlapFit:
    """Overlap as smooth two-centre functions of distance, fitted to the overlaps of DFT calculations.

    Args:
        two_centre: the fitted functions.
    """

    two_centre: TwoCentreFit

    def predict(self, structure: AtomicStructure, basis: OrbitalBasis, pairs: PairList) -> BlockMatrix:
        """S on the given pairs; bitwise symmetric, zero at the cutoff.

        Raises:
            BasisError: a species or a couple of species was absent from the fitted data.
        """
        return self.two_centre.predict(structure, basis, pairs)

    def error(self, calculations: Iterable[Calculation]) -> tuple[float, float]:
        """Root mean square and largest absolute error against the calculations' overlaps (no unit)."""
        return self.two_centre.error((c.structure, c.overlap) for c in calculations)

    @property
    def coverage(self) -> dict[tuple[str, str], tuple[float, float]]:
        """Least and largest distance (Angstrom) of the fitted data for each couple of species labels."""
        return self.two_centre.coverage

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Plain arrays for a checkpoint."""
        return self.two_centre.to_arrays()

    @classmethod
    def from_arrays(cls, arrays: dict[str, NDArray[Any]]) -> OverlapFit:
        """Fit from the arrays of `to_arrays`.

        Raises:
            FormatError: the arrays are of another format version or incomplete.
        """
        return cls(TwoCentreFit.from_arrays(arrays))


def fit_overlap(calculations: Iterable[Calculation]) -> OverlapFit:
    """Fit the overlaps of calculations; for 40 structures of some hundred pairs it takes a second or two.

    Every structure is read, so pass a part (a few hundred) of a very large training set.

    Raises:
        PhysicsError: there is no calculation.
    """
    return OverlapFit(TwoCentreFit.fit((c.structure, c.overlap) for c in calculations))


def has_exponents(structure: AtomicStructure, basis: OrbitalBasis) -> bool:
    """True when every orbital of the structure is a contracted Gaussian, so that S is an analytic integral."""
    used = np.unique(structure.species).tolist()
    return all(shell.exponents for k in used for shell in basis.species[k].shells)


def pair_cutoffs(structure: AtomicStructure, basis: OrbitalBasis, reach: FloatArray | None = None) -> FloatArray | None:
    """(n_species, n_species) Angstrom: pairs shorter than this have a block. None: nothing says so.

    From the radii of the orbitals; of Gaussians, where their overlap is not negligible or H reaches (a projector
    couples two orbitals that do not overlap). Zero for species that do not occur.

    Args:
        structure, basis: the atoms and their orbitals.
        reach: (n_species, n_species) Angstrom, how far H goes for each couple of species, as the model's
            `pair_cutoffs`; None: S alone decides.
    """
    used = np.unique(structure.species).tolist()
    if all(basis.species[k].radius is not None for k in used):
        radii = [(basis.species[k].radius or 0.0) if k in used else 0.0 for k in range(len(basis.species))]
        return np.asarray(np.add.outer(np.array(radii), np.array(radii)))
    if not has_exponents(structure, basis):
        return None
    from hamnet_preprocess.pyscf_overlap import gaussian_cutoffs

    cutoffs = gaussian_cutoffs(basis.species)
    both = cutoffs if reach is None else np.maximum(cutoffs, reach)
    occurs = np.isin(np.arange(len(basis.species)), used)
    return np.asarray(np.where(occurs[:, None] & occurs[None, :], both, 0.0))


def structure_pairs(structure: AtomicStructure, basis: OrbitalBasis, reach: FloatArray | None = None) -> PairList:
    """Pairs of a structure by `pair_cutoffs`; all pairs of a molecule whose orbitals have no radius.

    Raises:
        BasisError: a periodic structure whose orbitals have no radius and are no Gaussians.
    """
    used = np.unique(structure.species).tolist()
    without = [basis.species[k].label for k in used if basis.species[k].radius is None]
    if not without:
        return orbital_pairs(structure, basis)
    if not structure.is_periodic:
        return neighbour_pairs(structure, float(np.linalg.norm(np.ptp(structure.positions, axis=0))) + 1.0)
    cutoffs = pair_cutoffs(structure, basis, reach)
    if cutoffs is None:
        raise BasisError(
            f"species {without} have orbitals without a radius, so a periodic structure has no pair list of its own: "
            "give its overlap from a file"
        )
    return pairs_within(structure, cutoffs)


def pairs_within(structure: AtomicStructure, cutoffs: FloatArray) -> PairList:
    """All pairs shorter than the cutoff (n_species, n_species; Angstrom) of their species, and the on-site ones."""
    species = structure.species
    near = neighbour_pairs(structure, float(cutoffs.max()))
    inside = np.linalg.norm(near.vectors(structure), axis=1) < cutoffs[species[near.i], species[near.j]]
    keep = inside | near.on_site
    return PairList.build(near.i[keep], near.j[keep], near.cell_shift[keep], species)


def overlap_of(
    structure: AtomicStructure, basis: OrbitalBasis, fit: OverlapFit | None, pairs: PairList | None = None
) -> BlockMatrix:
    """S of a structure: from its radial functions, else PySCF's integrals when its shells are Gaussians, else the fit.

    Args:
        structure: the atoms.
        basis: orbitals of the species.
        fit: functions from the training set; None where there are none.
        pairs: the blocks wanted; None: `structure_pairs`.

    Raises:
        BasisError: neither integrals nor a fit are possible.
    """
    wanted = structure_pairs(structure, basis) if pairs is None else pairs
    if has_radial_functions(structure, basis):
        return two_centre_overlap(structure, basis, wanted)
    if has_exponents(structure, basis):
        from hamnet_preprocess.pyscf_overlap import overlap_from_basis

        return overlap_from_basis(structure, basis, wanted)
    if fit is None:
        raise BasisError(
            "the basis has no radial functions (`hamnet preprocess openmx ... --pao FOLDER` attaches them), the "
            "orbitals are not Gaussians and the model has no fitted overlap: give the overlap from a file"
        )
    return fit.predict(structure, basis, wanted)


def overlap_origin(structure: AtomicStructure, basis: OrbitalBasis, metadata: Mapping[str, Any]) -> str:
    """Where `overlap_of` takes S from and how far to trust it, in words.

    Args:
        structure: the atoms.
        basis: orbitals of the species.
        metadata: of the checkpoint: `overlap_rms` and `overlap_max` are the error of its fit.
    """
    if has_radial_functions(structure, basis):
        return "from the radial functions of the basis (as the DFT code's own S to about 1e-7)"
    if has_exponents(structure, basis):
        return "analytic integrals of the Gaussians (exact)"
    if "overlap_rms" not in metadata:
        return "from the fit to the training set (its error is not recorded)"
    root, largest = metadata["overlap_rms"], metadata["overlap_max"]
    return f"from the fit to the training set (error {root:.2g} rms, {largest:.2g} largest, on calculations held out)"


def overlap_from_file(path: Path, structure: AtomicStructure, basis: OrbitalBasis) -> BlockMatrix:
    """S that the user gives: the calculation of a store with the same atoms in the same places.

    Raises:
        PhysicsError: no calculation of the store has these atoms.
        BasisError: its orbitals are not the model's.
    """
    return _in_basis(calculation_from_file(path, structure, basis).overlap, basis, structure)


def reference_from_file(path: Path, structure: AtomicStructure, basis: OrbitalBasis) -> BlockMatrix:
    """H0 that the user gives, as `overlap_from_file`.

    Raises:
        PhysicsError: no calculation of the store has these atoms, or it has no H0.
        BasisError: its orbitals are not the model's.
    """
    reference = calculation_from_file(path, structure, basis).reference_hamiltonian
    if reference is None:
        raise PhysicsError(f"{path}: the calculation of these atoms has no H0 (reference_hamiltonian)")
    return _in_basis(reference, basis, structure)


def calculation_from_file(path: Path, structure: AtomicStructure, basis: OrbitalBasis) -> Calculation:
    """The calculation of a store with the same atoms in the same places; species may be counted otherwise.

    Raises:
        PhysicsError: no calculation of the store has these atoms.
    """
    from hamnet.data.store import Store

    differences = []
    with Store(path) as store:
        for name in store.names:
            calculation = store.read(name)
            difference = _difference(calculation, structure, basis)
            if difference is None:
                return calculation
            differences.append(f"{name}: {difference}")
    raise PhysicsError(
        f"{path}: no overlap or H0 for this structure; it must have the same atoms in order within {SAME_PLACE} A. "
        + "; ".join(differences[:3])
    )


def _difference(calculation: Calculation, structure: AtomicStructure, basis: OrbitalBasis) -> str | None:
    other = calculation.structure
    if not np.array_equal(other.atomic_numbers, structure.atomic_numbers):
        return f"atoms {other.atomic_numbers.tolist()[:8]} against {structure.atomic_numbers.tolist()[:8]}"
    if not np.array_equal(other.pbc, structure.pbc) or np.abs(other.lattice - structure.lattice).max() > SAME_PLACE:
        return "another cell"
    distance = float(np.linalg.norm(other.positions - structure.positions, axis=1).max())
    if distance > SAME_PLACE:
        return f"an atom is {distance:.4g} A away"
    labels = [calculation.basis.species[k].label for k in other.species]
    wanted = [basis.species[k].label for k in structure.species]
    return None if labels == wanted else f"species {sorted(set(labels))} against the model's {sorted(set(wanted))}"


def _in_basis(matrix: BlockMatrix, basis: OrbitalBasis, structure: AtomicStructure) -> BlockMatrix:
    """The same blocks with the species numbered as in another basis."""
    theirs = {s.label: s for s in matrix.basis.species}
    for k in np.unique(structure.species).tolist():
        mine = basis.species[k]
        if theirs[mine.label].shell_ls != mine.shell_ls:
            raise BasisError(f"species {mine.label!r} of the given matrix has other shells than the model's")
    old = matrix.pairs
    pairs, order = PairList.build_with_order(old.i, old.j, old.cell_shift, structure.species)
    parts = [matrix.values[matrix.offsets[p] : matrix.offsets[p + 1]] for p in order]
    return BlockMatrix.from_values(pairs, basis, structure.species, matrix.spin, np.concatenate(parts))
