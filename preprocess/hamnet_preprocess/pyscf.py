"""PySCF: live mean-field objects and chkfiles, molecules and periodic cells on a k-mesh."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hamnet.core.basis import OrbitalBasis
from hamnet.core.blocks import BlockMatrix
from hamnet.core.calculation import Calculation, Provenance
from hamnet.core.structure import AtomicStructure
from hamnet.core.units import BOLTZMANN, HARTREE
from hamnet.errors import FormatError, PhysicsError
from hamnet_preprocess.pyscf_basis import basis_of, dense_to_blocks, structure_of
from hamnet_preprocess.pyscf_chkfile import is_chkfile, state_from_file
from hamnet_preprocess.pyscf_moments import mulliken_moments, refuse_fixed_axis
from hamnet_preprocess.pyscf_overlap import overlap_from_basis
from hamnet_preprocess.pyscf_periodic import (
    OFF_MESH_TOLERANCE,
    Mesh,
    blocks_from_mesh,
    mesh_needed,
    mesh_of,
    off_mesh_deviation,
    off_mesh_point,
    outermost_norm,
)
from hamnet_preprocess.pyscf_reference import reference_blocks
from hamnet_preprocess.pyscf_state import ScfState, by_spin, state_of

RIM_TOLERANCE = 1e-3
"""Where no eigenvalues off the mesh are stored: largest |H(R)| (eV) at the rim of the mesh's supercell."""


def from_mean_field(
    mf: Any,
    *,
    allow_unconverged: bool = False,
    off_mesh_tolerance: float = OFF_MESH_TOLERANCE,
    source: str = "",
) -> Calculation:
    """Calculation of a live, converged RHF/RKS/UHF/UKS/GHF/GKS or KRHF/KRKS/KUHF/KUKS object.

    H is the Fock matrix of the final density. The Fermi energy is the middle between the highest occupied and the
    lowest empty orbital. Periodic objects are checked at a k-point off the mesh (one more Fock build).

    Args:
        mf: PySCF's object after `mf.kernel()`.
        allow_unconverged: take an SCF that did not converge.
        off_mesh_tolerance: eV; infinity leaves the check out.
        source: name kept in the provenance.

    Raises:
        ConvergenceError: the SCF did not converge.
        BasisError: Cartesian orbitals, ROHF, j-basis or four-component objects.
        PhysicsError: the k-mesh is shifted, reduced or too small (then it names the mesh needed); or moments are tilted
            and the functional sees one axis alone.
    """
    state = state_of(mf, allow_unconverged=allow_unconverged)
    if state.kpoints is not None and np.isfinite(off_mesh_tolerance):
        state = replace(state, off_mesh=off_mesh_bands(mf, state))
    calculation = calculation_of(state, source=source, off_mesh_tolerance=off_mesh_tolerance)
    refuse_fixed_axis(mf, calculation.structure.moments)
    return calculation


def off_mesh_bands(mf: Any, state: ScfState) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A k-point (1, 3) off the mesh, and PySCF's eigenvalues (n_spin, 1, n_mo) there in Hartree."""
    cell = mf.mol
    point = off_mesh_point(mesh_of(np.asarray(state.kpoints)), np.arange(3) < cell.dimension)
    energies = mf.get_bands(cell.get_abs_kpts(point))[0]
    return point, by_spin(np.array(energies), state.spin, 1)


def calculation_of(
    state: ScfState, *, source: str = "", sha256: str = "", off_mesh_tolerance: float = OFF_MESH_TOLERANCE
) -> Calculation:
    """Calculation in hamnet's units and orbital order."""
    basis, species = basis_of(state.mol)
    structure = replace(structure_of(state.mol, species, basis), moments=mulliken_moments(state))
    fermi = _fermi(state) * HARTREE
    if state.kpoints is None:
        overlap = dense_to_blocks(state.overlap[0], basis, species).symmetrised()
        bare = dense_to_blocks(state.fock[0], basis, species, state.spin).symmetrised()
        hamiltonian, mesh = bare.with_values(bare.values * HARTREE), None
    else:
        overlap, hamiltonian, mesh = _periodic(state, structure, basis)
        _check_mesh(state, structure, overlap, hamiltonian, fermi, off_mesh_tolerance)
    reference = None if state.reference is None else reference_blocks(state.reference, basis, species, state.spin)
    kpoints = np.zeros((1, 3)) if state.kpoints is None else state.kpoints
    return Calculation(
        structure,
        basis,
        overlap,
        hamiltonian,
        reference,
        energy=None if state.energy is None else state.energy * HARTREE,
        kpoints=kpoints,
        eigenvalues=state.mo_energy * HARTREE,
        fermi_energy=fermi,
        n_electrons=float(state.mo_occ.sum() / len(kpoints)),
        kmesh=mesh,
        electronic_temperature=None if state.sigma is None else state.sigma * HARTREE / BOLTZMANN,
        converged=state.converged is not False,
        provenance=_provenance(state, basis, source, sha256),
    )


def _periodic(
    state: ScfState, structure: AtomicStructure, basis: OrbitalBasis
) -> tuple[BlockMatrix, BlockMatrix, Mesh]:
    overlap = overlap_from_basis(structure, basis)
    kpoints = np.asarray(state.kpoints)
    fock = state.fock * HARTREE
    hamiltonian = blocks_from_mesh(fock, kpoints, structure, basis, state.spin, overlap.pairs)
    return overlap, hamiltonian, mesh_of(kpoints)


def _check_mesh(
    state: ScfState,
    structure: AtomicStructure,
    overlap: BlockMatrix,
    hamiltonian: BlockMatrix,
    fermi: float,
    tolerance: float,
) -> None:
    if not np.isfinite(tolerance):
        return
    mesh = mesh_of(np.asarray(state.kpoints))
    if state.off_mesh is not None:
        deviation = off_mesh_deviation(hamiltonian, overlap, state.off_mesh, fermi)
        limit, what = tolerance, f"eigenvalues at k = {state.off_mesh[0][0].tolist()}, off the mesh, deviate by"
    else:
        deviation, limit = outermost_norm(hamiltonian, mesh), RIM_TOLERANCE
        what = "no eigenvalues off the mesh are stored, and H(R) at the rim of the mesh's supercell is as large as"
    if deviation > limit:
        needed = "x".join(str(m) for m in mesh_needed(hamiltonian, structure, mesh, limit))
        raise PhysicsError(
            f"the k-mesh {'x'.join(str(m) for m in mesh)} is too small for H in real space: {what} {deviation:.3g} eV, "
            f"more than {limit:g}; it needs about {needed}"
        )


def _fermi(state: ScfState) -> float:
    """Middle between the highest occupied and the lowest empty orbital; the highest one when all are occupied."""
    full = float(state.mo_occ.max(initial=0.0))
    occupied = state.mo_occ > full / 2
    highest = float(state.mo_energy[occupied].max(initial=-np.inf))
    lowest = float(state.mo_energy[~occupied].min(initial=np.inf))
    if not np.isfinite(highest):
        return lowest
    return highest if not np.isfinite(lowest) else (highest + lowest) / 2


def _provenance(state: ScfState, basis: OrbitalBasis, source: str, sha256: str) -> Provenance:
    labels = " ".join(species.label for species in basis.species)
    return Provenance(
        "pyscf", state.code_version, state.functional, labels, state.grid, state.convergence, source, sha256
    )


class PySCFReader:
    """Reads chkfiles of RHF/RKS/UHF/UKS/GHF/GKS and KRHF/KRKS/KUHF/KUKS.

    A plain chkfile has no Fock matrix: it is rebuilt as S C e C^dagger S, exact for canonical orbitals of full rank.
    It does not say either whether the SCF converged: provenance then says "not stated". Files of `hamnet label`
    hold the Fock matrix, the verdict and, for cells, eigenvalues off the mesh.
    """

    name = "pyscf"

    def find(self, root: Path) -> list[Path]:
        """Chkfiles at or below a folder, sorted; a file is its own source.

        Files named .chk or .chkfile are returned whatever they hold, so that `read` can say what is wrong.
        """
        if root.is_file():
            return [root]
        files = sorted(path for path in root.rglob("*") if path.is_file() and not path.name.startswith("."))
        return [path for path in files if path.suffix in (".chk", ".chkfile") or is_chkfile(path)]

    def read(self, source: Path, *, allow_unconverged: bool = False) -> Calculation:
        """Calculation of one chkfile.

        Raises:
            FormatError: no complete chkfile.
            ConvergenceError: the SCF did not converge and `allow_unconverged` is False.
            BasisError, PhysicsError: as `from_mean_field`.
        """
        source = Path(source)
        if not source.is_file():
            raise FormatError(f"{source}: no such file, expected a PySCF chkfile")
        state = state_from_file(source, allow_unconverged=allow_unconverged)
        digest = hashlib.sha256(source.read_bytes()).hexdigest()
        return calculation_of(state, source=source.name, sha256=digest)
