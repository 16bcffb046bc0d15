"""A prediction held against one Fock build from its own density: an error bar that needs no label."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hamnet.core.basis import OrbitalBasis
from hamnet.core.blocks import BlockMatrix
from hamnet.core.calculation import Calculation
from hamnet.core.spin import Spin
from hamnet.core.structure import AtomicStructure
from hamnet.errors import ConfigError, PhysicsError
from hamnet.nn.checkpoint import Checkpoint
from hamnet.predict.coulomb_relaxation import relax_coulomb
from hamnet.predict.predictor import Predictor
from hamnet_preprocess.pyscf_fock import (
    FockBuilder,
    FockResult,
    Method,
    commutator,
    dense_of,
    orbitals_of,
    try_functional,
)

FloatArray = NDArray[np.float64]
LEAST_GAP = 0.01
"""eV; a prediction without a gap between occupied and empty orbitals has no density of its own."""
ADVICE = "give xc (hamnet scf --xc pbe, say), or train on data that name one that PySCF has"


class Builder(Protocol):
    """What is asked of a Fock builder; `hamnet_preprocess.pyscf_fock.FockBuilder` is one."""

    overlap: FloatArray
    builds: int
    coulomb_builds: int

    @property
    def n_electrons(self) -> int:
        """Electrons of the molecule."""

    def build(self, density: FloatArray) -> FockResult:
        """F[D] and E[D], eV."""

    def coulomb(self, density: FloatArray) -> FloatArray:
        """J[D], eV."""

    def minao_density(self) -> FloatArray:
        """D of superposed atoms."""

    def blocks(self, matrix: FloatArray) -> BlockMatrix:
        """Blocks of a dense matrix in hamnet's orbital order."""


MakeBuilder = Callable[[AtomicStructure, OrbitalBasis, Method], Builder]


@dataclass(frozen=True, eq=False)
class FockCheck:
    """A predicted molecule and what one Fock build says of it.

    Args:
        calculation: predicted H, with S and, where the model needs it, H0.
        fock: F[D(H)] in eV, on the pairs of H.
        energy: eV, E[D(H)].
        commutator: eV, |F D S - S D F| in orthonormal orbitals, divided by the root of the number of electrons, so
            that molecules of different sizes can be compared.
        energy_error: eV, sum over occupied-virtual |F_ov|^2 2 / (e_v - e_o): estimate, to second order and without
            the response of F, of how far E lies above the SCF energy.
        fock_distance: eV, mean |F - H| over all numbers of H.
        builds: Fock builds that this took, that of H0 included.
        relaxed: eV, as `fock`: F after its Coulomb part has become self-consistent (`relax_coulomb`); None where that
            was not asked for.
        coulomb_builds: Coulomb matrices that this took.
    """

    calculation: Calculation
    fock: BlockMatrix
    energy: float
    commutator: float
    energy_error: float
    fock_distance: float
    builds: int
    relaxed: BlockMatrix | None = None
    coulomb_builds: int = 0


def method_of(checkpoint: Checkpoint, xc: str | None = None, charge: int | None = None) -> Method:
    """The DFT method that a model has learnt, as its checkpoint says it.

    Args:
        checkpoint: of a model trained on molecules.
        xc: functional, where the checkpoint does not know it or another one is wanted.
        charge: of the molecule; None: that of the training data.

    Raises:
        ConfigError: the functional is neither known nor given, or none of PySCF's.
        PhysicsError: a charge that the model has not seen; a model with spin; relativistic labels.
    """
    if checkpoint.spin is not Spin.NONE:
        raise PhysicsError(f"Fock builds are for closed shells, the model's H has spin layout {checkpoint.spin.value}")
    known = checkpoint.metadata
    seen = round(float(known.get("charge", 0.0)))
    if charge is not None and charge != seen:
        raise PhysicsError(
            f"the molecule has charge {charge}, the model has only seen charge {seen}: train on such ions"
        )
    functional = xc or str(known.get("functional", ""))
    if not functional:
        raise ConfigError(f"the checkpoint does not say which functional its data were made with: {ADVICE}")
    method = Method.from_provenance(functional, str(known.get("grid", "")), seen)
    try:
        try_functional(method.xc)
    except ConfigError as error:
        raise ConfigError(f"{error}; {ADVICE}") from error
    return method


def fock_check(
    predictor: Predictor,
    atoms: Any,
    method: Method,
    reference: BlockMatrix | None = None,
    make_builder: MakeBuilder = FockBuilder,
    relax: bool = False,
) -> FockCheck:
    """Predict H, and make one Fock build from its density.

    Args:
        predictor: the model.
        atoms: a molecule: ASE, pymatgen or hamnet atoms.
        method: functional, grid, charge.
        reference: H0 where it is known already; else a model that learnt H - H0 costs a second Fock build.
        make_builder: Fock builder of a structure, a basis and a method.
        relax: relax the Coulomb part of F, too.

    Raises:
        BasisError: an element that the model does not know, orbitals that are no Gaussians, or repeat.
        PhysicsError: a periodic structure, open shells, no gap, or numbers that are not finite.
    """
    structure = predictor.structure(atoms)
    builder = make_builder(structure, predictor.basis, method)
    known = predictor.checkpoint.baseline
    if reference is None and known is not None and known.kind == "reference":
        reference = builder.blocks(builder.build(builder.minao_density()).fock)
    calculation = predictor.run(structure, overlap=builder.blocks(builder.overlap), reference=reference).calculation
    hamiltonian = calculation.hamiltonian
    if hamiltonian is None:
        raise PhysicsError("the model predicted no Hamiltonian: its checkpoint is damaged")
    h, n = dense_of(hamiltonian), builder.n_electrons // 2
    density, orbitals = _density(h, builder.overlap, n)
    result = builder.build(density)
    if not np.isfinite(result.energy):
        raise PhysicsError("the Fock build gave an energy that is not finite: look at the geometry")
    relaxed = builder.blocks(relax_coulomb(builder, result.fock, density)) if relax else None
    return FockCheck(
        calculation,
        builder.blocks(result.fock),
        result.energy,
        commutator(result.fock, density, builder.overlap) / float(np.sqrt(2 * n)),
        _energy_error(result.fock, orbitals, n),
        float(np.abs(h - result.fock).mean()),
        builder.builds,
        relaxed,
        builder.coulomb_builds,
    )


def _density(hamiltonian: FloatArray, overlap: FloatArray, occupied: int) -> tuple[FloatArray, FloatArray]:
    """D = 2 P and the orbitals of a predicted H that has a gap."""
    energies, orbitals = orbitals_of(hamiltonian, overlap)
    if occupied >= len(energies):
        raise PhysicsError(f"{2 * occupied} electrons fill all {len(energies)} orbitals: nothing is left to vary")
    gap = float(energies[occupied] - energies[occupied - 1])
    if gap < LEAST_GAP:
        raise PhysicsError(
            f"the predicted H has a gap of {gap:.4f} eV, expected {LEAST_GAP:g}: its density is arbitrary"
        )
    filled = orbitals[:, :occupied]
    return np.asarray(2.0 * filled @ filled.T), orbitals


def _energy_error(fock: FloatArray, orbitals: FloatArray, occupied: int) -> float:
    """sum_ov 2 |F_ov|^2 / (F_vv - F_oo), the gaps of F's own diagonal."""
    f = orbitals.T @ fock @ orbitals
    diagonal = np.diag(f)
    gaps = np.maximum(diagonal[occupied:][None, :] - diagonal[:occupied][:, None], LEAST_GAP)
    return float((2.0 * np.square(f[:occupied, occupied:]) / gaps).sum())
