"""Calculation: what a reader returns and the store holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from hamnet.core.basis import OrbitalBasis
from hamnet.core.blocks import BlockMatrix
from hamnet.core.spin import Spin
from hamnet.core.structure import AtomicStructure
from hamnet.errors import PhysicsError

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Provenance:
    """Where numbers come from; empty text means that the source does not say."""

    code: str
    version: str = ""
    functional: str = ""
    basis: str = ""
    grid: str = ""
    convergence: str = ""
    source: str = ""
    sha256: str = ""


@dataclass(frozen=True, eq=False)
class Calculation:
    """One DFT calculation in hamnet's units (eV, Angstrom) and orbital order.

    Args:
        structure: the atoms; `structure.species` indexes `basis`.
        basis: orbitals.
        overlap: S, always spinless.
        hamiltonian: H, None for an overlap-only calculation.
        reference_hamiltonian: H0 from outside, None where there is none.
        density: density matrix, None where not read.
        energy: total energy (eV).
        forces: (n_atoms, 3) eV / Angstrom.
        kpoints: (n_k, 3) fractional; eigenvalues: (n_spin, n_k, n_bands) eV, the code's own.
        fermi_energy: eV, on the same zero as `hamiltonian`.
        n_electrons: electrons in the cell.
        kmesh: three integers of the code's k mesh.
        electronic_temperature: kelvin.
        converged: the SCF reached its threshold.
        provenance: code, version, settings, source.

    Raises:
        PhysicsError: parts belong to different atoms or bases, or S has spin.
    """

    structure: AtomicStructure
    basis: OrbitalBasis
    overlap: BlockMatrix
    hamiltonian: BlockMatrix | None = None
    reference_hamiltonian: BlockMatrix | None = None
    density: BlockMatrix | None = None
    energy: float | None = None
    forces: FloatArray | None = None
    kpoints: FloatArray | None = None
    eigenvalues: FloatArray | None = None
    fermi_energy: float | None = None
    n_electrons: float | None = None
    kmesh: tuple[int, int, int] | None = None
    electronic_temperature: float | None = None
    converged: bool = True
    provenance: Provenance = field(default_factory=lambda: Provenance("unknown"))

    def __post_init__(self) -> None:
        if self.overlap.spin is not Spin.NONE:
            raise PhysicsError(f"the overlap has spin layout {self.overlap.spin.value}: S is always spinless")
        for name in ("overlap", "hamiltonian", "reference_hamiltonian", "density"):
            matrix = getattr(self, name)
            if matrix is None:
                continue
            if matrix.basis.hash != self.basis.hash or not np.array_equal(matrix.species, self.structure.species):
                raise PhysicsError(f"{name} was made for another basis or other atoms than the structure's")

    @property
    def spin(self) -> Spin:
        """Layout of the Hamiltonian; none when there is none."""
        return Spin.NONE if self.hamiltonian is None else self.hamiltonian.spin

    def transferred(self, structure: AtomicStructure, change: Callable[[BlockMatrix], BlockMatrix]) -> Calculation:
        """Every matrix on other atoms; numbers that belong to the old cell are left out.

        These are energy, forces, electrons, Fermi level, eigenvalues and k mesh.

        Args:
            structure: the other atoms.
            change: a matrix on the old atoms -> on the new ones.
        """

        def changed(matrix: BlockMatrix | None) -> BlockMatrix | None:
            """The matrix on the new atoms, where there is one."""
            return None if matrix is None else change(matrix)

        return Calculation(
            structure,
            self.basis,
            change(self.overlap),
            changed(self.hamiltonian),
            changed(self.reference_hamiltonian),
            changed(self.density),
            electronic_temperature=self.electronic_temperature,
            converged=self.converged,
            provenance=self.provenance,
        )
