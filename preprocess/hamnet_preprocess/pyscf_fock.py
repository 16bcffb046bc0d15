"""Fock builds of closed-shell molecules with PySCF: dense arrays in hamnet's orbital order, eV, and counted.

    F[D] = h + J[D] + v_xc[D],  E[D] = Tr(h D) + E_J[D] + E_xc[D] + E_nuc,  D = 2 C_occ C_occ^T

D has no unit: Tr(D S) is the number of electrons. The method (functional, grid) is that of the training data, as
their provenance says it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh

from hamnet.core.basis import OrbitalBasis
from hamnet.core.blocks import BlockMatrix
from hamnet.core.calculation import Calculation
from hamnet.core.spin import Spin
from hamnet.core.structure import AtomicStructure
from hamnet.core.units import BOHR, HARTREE
from hamnet.errors import BasisError, ConfigError, PhysicsError
from hamnet_preprocess.pyscf_basis import dense_to_blocks, orbital_order
from hamnet_preprocess.pyscf_molecule import molecule, refuse_unknown_fit

FloatArray = NDArray[np.float64]
DEFAULT_GRID_LEVEL = 4
"""Grid of a method whose provenance does not name one; that of `reference_from_basis` too."""
LEAST_OVERLAP = 1e-7
"""Least eigenvalue of S: below, orbitals repeat and the Fock build is nonsense."""


@dataclass(frozen=True)
class Method:
    """How a molecule is calculated: everything but its atoms and orbitals.

    Args:
        xc: functional by PySCF's name; "hf" for Hartree-Fock.
        grid_level: of the integration grid.
        density_fit: "" for exact Coulomb integrals, "default" or the name of an auxiliary basis.
        charge: of the molecule.
        spin: unpaired electrons; only 0 can be built.

    Raises:
        ConfigError: no functional is named.
    """

    xc: str
    grid_level: int = DEFAULT_GRID_LEVEL
    density_fit: str = ""
    charge: int = 0
    spin: int = 0

    def __post_init__(self) -> None:
        if not self.xc.strip():
            raise ConfigError("the functional is not known: the training data do not name it; give it (xc, as pbe)")

    @property
    def text(self) -> str:
        """One line that `from_text` reads: "pbe, level 4, density fit default, charge 0, spin 0"."""
        fit = f", density fit {self.density_fit}" if self.density_fit else ""
        return f"{self.xc}, level {self.grid_level}{fit}, charge {self.charge}, spin {self.spin}"

    @classmethod
    def from_text(cls, text: str) -> Method:
        """The method that `text` describes.

        Raises:
            ConfigError: the text has another form.
        """
        form = r"(.+?), level (\d)(?:, density fit ([^,]+))?, charge ([+-]?\d+), spin (\d+)"
        match = re.fullmatch(form, text.strip())
        if match is None:
            raise ConfigError(f"found the method {text!r}, expected as 'pbe, level 4, charge 0, spin 0'")
        xc, level, fit, charge, spin = match.groups()
        return cls(xc, int(level), fit or "", int(charge), int(spin))

    @classmethod
    def from_provenance(cls, functional: str, grid: str, charge: int = 0, spin: int = 0) -> Method:
        """The method as the provenance of PySCF's data says it ("pbe (libxc 7.0.0)", "level 4, density fit default").

        Raises:
            ConfigError: no functional is named.
            PhysicsError: relativistic labels (X2C, spin-orbit), which are not rebuilt.
        """
        if "x2c" in grid or "soc" in grid:
            raise PhysicsError(f"the labels were made with {grid!r}: Fock matrices are rebuilt without relativity only")
        level, fit = re.search(r"level (\d)", grid), re.search(r"density fit ([^,]+)", grid)
        name = functional.split(" (libxc")[0].strip().lower()
        return cls(name, int(level[1]) if level else DEFAULT_GRID_LEVEL, fit[1].strip() if fit else "", charge, spin)

    @classmethod
    def of(cls, calculation: Calculation) -> Method:
        """The method of a stored calculation; its charge from the numbers of electrons.

        Raises:
            ConfigError: its provenance names no functional.
            PhysicsError: a spin-polarised calculation, or relativistic labels.
        """
        if calculation.spin is not Spin.NONE:
            raise PhysicsError(f"Fock builds are for closed shells, found H with spin layout {calculation.spin.value}")
        neutral = calculation.basis.n_electrons(calculation.structure.species)
        charge = 0 if calculation.n_electrons is None else round(neutral - calculation.n_electrons)
        return cls.from_provenance(calculation.provenance.functional, calculation.provenance.grid, charge)


def mean_field(mol: Any, method: Method) -> Any:
    """PySCF's RHF or RKS object of a `Mole`, silent, not run.

    Raises:
        PhysicsError: unpaired electrons, or a density fit that is not known.
    """
    from pyscf import dft, scf

    if method.spin or mol.nelectron % 2:
        raise PhysicsError(
            f"{mol.nelectron} electrons, {method.spin} unpaired (charge {mol.charge}): only closed shells are handled"
        )
    if method.xc.lower() == "hf":
        mf = scf.hf.RHF(mol)
    else:
        mf = dft.rks.RKS(mol)
        mf.xc, mf.grids.level = method.xc, method.grid_level
    if method.density_fit:
        if method.density_fit == "default":
            refuse_unknown_fit(mol)
        mf = mf.density_fit(auxbasis=None if method.density_fit == "default" else method.density_fit)
    mf.verbose = 0
    nameless = getattr(mf, "_chkfile", None)
    if nameless is not None:  # opened by every object of PySCF, and left open
        nameless.close()
        mf.chkfile = mf._chkfile = None
    return mf


@cache
def try_functional(xc: str) -> None:
    """One Fock build and energy of a helium atom: its name alone does not tell whether PySCF can do a functional.

    Args:
        xc: PySCF's name.

    Raises:
        ConfigError: PySCF does not know it, cannot do it, or lacks a package for it (dispersion).
    """
    from pyscf import gto

    mf = mean_field(gto.M(atom="He", basis="sto-3g", verbose=0), Method(xc, 0))
    try:
        density = mf.get_init_guess(key="1e")
        mf.energy_tot(density, vhf=mf.get_veff(dm=density))
    except (KeyError, ValueError, NotImplementedError, RuntimeError, ImportError) as error:
        reason = error.args[0] if error.args else type(error).__name__
        raise ConfigError(f"PySCF cannot calculate with the functional {xc!r} ({reason})") from error


@dataclass(frozen=True, eq=False)
class FockResult:
    """One Fock build.

    Args:
        fock: (n, n) eV, F[D].
        energy: eV, E[D]: an upper bound of the SCF energy for every D = 2 P, second order in the error of D.
    """

    fock: FloatArray
    energy: float


class FockBuilder:
    """Fock matrices of one molecule with hamnet's orbitals.

    Args:
        structure: a molecule; species index `basis`.
        basis: contracted Gaussians.
        method: functional, grid, charge.

    Raises:
        PhysicsError: a periodic structure, unpaired electrons, or two atoms on one place.
        BasisError: a core potential, or orbitals that are no Gaussians.
    """

    def __init__(self, structure: AtomicStructure, basis: OrbitalBasis, method: Method) -> None:
        if structure.is_periodic:
            raise PhysicsError("Fock builds are for molecules, this structure is periodic")
        mol = molecule(structure, basis, method.charge)
        self.structure, self.basis, self.method = structure, basis, method
        self.mf = mean_field(mol, method)
        self.builds = 0
        """Fock builds so far."""
        self.gradient_builds = 0
        """Force evaluations so far; each takes about as long as a few Fock builds."""
        self.coulomb_builds = 0
        """Coulomb matrices alone so far: no exchange, no integration grid."""
        self._order = orbital_order(basis, structure.species)
        self._back = np.argsort(self._order)
        self._core = self.mf.get_hcore()
        self.overlap: FloatArray = self.to_ours(self.mf.get_ovlp())
        """(n, n), no unit."""
        refuse_dependent(self.overlap)

    @property
    def n_electrons(self) -> int:
        """Electrons of the molecule."""
        return int(self.mf.mol.nelectron)

    def to_ours(self, matrix: Any) -> FloatArray:
        """(n, n) from PySCF's orbital order."""
        return np.ascontiguousarray(np.asarray(matrix)[np.ix_(self._order, self._order)], dtype=np.float64)

    def to_pyscf(self, matrix: FloatArray) -> FloatArray:
        """(n, n) into PySCF's orbital order."""
        return np.ascontiguousarray(matrix[np.ix_(self._back, self._back)])

    def minao_density(self) -> FloatArray:
        """(n, n) D of superposed atoms, PySCF's usual first guess; it is no projector."""
        return self.to_ours(self.mf.get_init_guess(key="minao"))

    def build(self, density: FloatArray) -> FockResult:
        """F[D] and E[D] of a density (n, n) in hamnet's order.

        Raises:
            PhysicsError: the density has another shape or numbers that are not finite.
        """
        if density.shape != self.overlap.shape or not np.isfinite(density).all():
            raise PhysicsError(f"found a density of shape {density.shape}, expected {self.overlap.shape}, all finite")
        dm = self.to_pyscf(density)
        potential = self.mf.get_veff(dm=dm)
        self.builds += 1
        energy = float(self.mf.energy_tot(dm, self._core, potential))
        return FockResult(self.to_ours(self._core + np.asarray(potential)) * HARTREE, energy * HARTREE)

    def coulomb(self, density: FloatArray) -> FloatArray:
        """(n, n) eV, J[D]: linear in D, which may be a difference of densities."""
        self.coulomb_builds += 1
        return self.to_ours(self.mf.get_j(dm=self.to_pyscf(density))) * HARTREE

    def forces(self, hamiltonian: FloatArray) -> FloatArray:
        """(n_atoms, 3) eV / A: PySCF's analytic gradient with the orbitals and energies of `hamiltonian` (n, n) eV.

        -dE/dR at fixed occupied orbitals, Pulay's term with W = C_occ e_occ C_occ^T. They are the SCF forces when
        `hamiltonian` is the converged F; else their error is of first order in its error, because the energy is not
        stationary. The derivative of the integration grid is left out, as PySCF does by default.
        """
        energies, orbitals = orbitals_of(hamiltonian, self.overlap)
        occupations = np.zeros(len(energies))
        occupations[: self.n_electrons // 2] = 2.0
        gradient = self.mf.nuc_grad_method()
        gradient.verbose = 0
        values = gradient.kernel(energies / HARTREE, orbitals[self._back], occupations)
        self.gradient_builds += 1
        return -np.asarray(values, dtype=np.float64) * (HARTREE / BOHR)

    def blocks(self, matrix: FloatArray) -> BlockMatrix:
        """Blocks on all pairs of atoms of a dense matrix in hamnet's order, bitwise hermitian."""
        return dense_to_blocks(self.to_pyscf(matrix), self.basis, self.structure.species).symmetrised()


def refuse_dependent(overlap: FloatArray) -> None:
    """Refuse an S that is singular, or nearly so.

    Raises:
        PhysicsError: its least eigenvalue is below `LEAST_OVERLAP`, or it has numbers that are not finite.
    """
    least = float(np.linalg.eigvalsh(overlap)[0]) if np.isfinite(overlap).all() else np.nan
    if not least >= LEAST_OVERLAP:
        raise PhysicsError(
            f"the least eigenvalue of S is {least:.1e}, expected {LEAST_OVERLAP:g} or more: atoms are too close (two "
            "on one place?), or the basis has orbitals that repeat"
        )


def dense_of(matrix: BlockMatrix) -> FloatArray:
    """(n, n) of a molecule's spinless blocks, in hamnet's orbital order.

    Raises:
        PhysicsError: the blocks have spin, or couple to other cells.
    """
    if matrix.spin is not Spin.NONE or matrix.pairs.cell_shift.any():
        raise PhysicsError(f"expected the spinless matrix of a molecule, found layout {matrix.spin.value}")
    dense = np.zeros((matrix.n_orbitals, matrix.n_orbitals))
    starts, sizes = matrix.orbital_offsets, matrix.basis.n_orbitals
    for group in matrix.groups():
        rows = starts[matrix.pairs.i[group.pairs]][:, None] + np.arange(sizes[group.species_i])
        columns = starts[matrix.pairs.j[group.pairs]][:, None] + np.arange(sizes[group.species_j])
        dense[rows[:, :, None], columns[:, None, :]] = group.blocks
    return dense


def orbitals_of(hamiltonian: FloatArray, overlap: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Energies (n,) and orbitals (n, n; columns) of H C = S C e, with C^T S C = 1.

    Raises:
        BasisError: S is not positive definite.
    """
    try:
        energies, orbitals = eigh(hamiltonian, overlap)
    except np.linalg.LinAlgError as error:
        raise BasisError("the overlap is not positive definite: two atoms are too close, or orbitals repeat") from error
    return energies, orbitals


def density_of(hamiltonian: FloatArray, overlap: FloatArray, n_electrons: int) -> FloatArray:
    """(n, n) D = 2 C_occ C_occ^T of the lowest n_electrons / 2 orbitals of H.

    Raises:
        PhysicsError: an odd number of electrons, or more than the orbitals hold.
    """
    if n_electrons % 2 or not 0 < n_electrons <= 2 * len(overlap):
        raise PhysicsError(f"{n_electrons} electrons in {len(overlap)} orbitals: expected an even number that fits")
    occupied = orbitals_of(hamiltonian, overlap)[1][:, : n_electrons // 2]
    return np.asarray(2.0 * occupied @ occupied.T, dtype=np.float64)


def commutator(fock: FloatArray, density: FloatArray, overlap: FloatArray) -> float:
    """Frobenius norm (eV) of S^(-1/2) (F D S - S D F) S^(-1/2): how far F and D are from self-consistency.

    In Loewdin's orthonormal orbitals this is |[F, D]|; for D = 2 P it equals 2 sqrt(2) |F_ov|, F_ov the
    occupied-virtual block of F. It grows as the square root of the number of atoms, and is 0 at convergence.
    """
    values, vectors = np.linalg.eigh(overlap)
    root = (vectors / np.sqrt(values)) @ vectors.T
    product = root @ fock @ density @ overlap @ root
    return float(np.linalg.norm(product - product.T))
