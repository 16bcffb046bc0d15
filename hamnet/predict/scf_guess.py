"""Where PySCF starts from: the density of a predicted H, or PySCF's own guess where that is nearer to the end.

The prediction costs one Fock build to judge, F[D], and PySCF needs that build anyway: it is handed over. Judged is the
commutator |FDS - SDF|, and where that leaves a doubt, the distance to the density that F gives. Builds beyond those of
plain PySCF: none when the prediction is clearly good, one when the guess of superposed atoms (minao) has to be built
too, for comparison or because the model learnt H - F[D_minao]. Two at most when such a model is used with another
functional than its own: F[D_minao] is then built with both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hamnet.core.blocks import BlockMatrix
from hamnet.core.spin import Spin
from hamnet.core.structure import AtomicStructure
from hamnet.core.units import HARTREE
from hamnet.errors import BasisError, PhysicsError
from hamnet.predict.fock_check import method_of
from hamnet.predict.handover import hand_over
from hamnet.predict.predictor import Predictor
from hamnet_preprocess.pyscf_basis import basis_of, dense_to_blocks, orbital_order, structure_of
from hamnet_preprocess.pyscf_fock import Method, commutator, dense_of, density_of, refuse_dependent
from hamnet_preprocess.pyscf_molecule import same_orbitals
from hamnet_preprocess.pyscf_reference import reference_blocks
from hamnet_preprocess.pyscf_state import functional_text

FloatArray = NDArray[np.float64]
CLOSER = 0.15
"""The prediction is taken when it is so many times nearer than plain PySCF is after its first cycle to the density that
its own Fock matrix gives. With random noise on H (the worst case: it breaks every symmetry) on water, methanol and LiF
0.15 still saved a cycle, 0.3 to 0.5 cost one."""
SURE = 0.3
"""eV per square root of an electron: a commutator below it needs no comparison (minao's is 5 to 29 of these units)."""


@dataclass(frozen=True, eq=False)
class Guess:
    """A first density for `mf.kernel(dm0)`, and what was found on the way.

    Args:
        density: (n, n), PySCF's orbital order.
        origin: "prediction" or "minao".
        commutator: eV, of the prediction.
        minao_commutator: eV; None where minao's Fock matrix was not needed.
        builds: Fock builds made; one of them is `potential`.
        potential: PySCF's get_veff of `density`.
        hamiltonian: (n, n) eV, the prediction, in hamnet's orbital order.
    """

    density: FloatArray
    origin: str
    commutator: float
    minao_commutator: float | None
    builds: int
    potential: Any
    hamiltonian: FloatArray

    def hand_over(self, mf: Any) -> None:
        """Let `mf` use the Fock build of this density that is there already; see `hamnet.predict.handover`."""
        hand_over(mf, self.density, self.potential)


class _Start:
    """The densities that a PySCF object may start from, each with its Fock matrix (Hartree, PySCF's order)."""

    def __init__(self, mf: Any) -> None:
        self.mf = mf
        self.core = mf.get_hcore()
        self.overlap = mf.get_ovlp()
        self.builds = 0
        refuse_dependent(np.asarray(self.overlap))

    def build(self, density: FloatArray) -> tuple[Any, FloatArray, float]:
        """get_veff, F and the commutator in eV."""
        potential = self.mf.get_veff(dm=density)
        self.builds += 1
        fock = np.asarray(self.core + np.asarray(potential), dtype=np.float64)
        return potential, fock, commutator(fock, density, self.overlap) * HARTREE

    def is_nearer(self, predicted: FloatArray, fock: FloatArray, minao_fock: FloatArray) -> bool:
        """Whether the prediction is nearer to the end than plain PySCF after one cycle; the end is taken as D[F]."""
        n = int(self.mf.mol.nelectron)
        end, plain = density_of(fock, self.overlap, n), density_of(minao_fock, self.overlap, n)
        return bool(self._distance(predicted, end) < CLOSER * self._distance(plain, end))

    def _distance(self, one: FloatArray, other: FloatArray) -> float:
        """|S^(1/2) (D - D') S^(1/2)|, by Tr X S X S of the difference X."""
        product = (one - other) @ self.overlap
        return float(np.sqrt(max(np.vdot(product.T, product), 0.0)))


def scf_guess(mf: Any, model: Predictor) -> Guess:
    """First density for a molecule from the model, or from minao where the prediction is no good.

    Args:
        mf: PySCF's RHF or RKS object (density fitting allowed) of a molecule in the model's basis, not run.
        model: loaded with `hamnet.load`.

    Raises:
        BasisError: another basis than the model's, or an element that it does not know.
        PhysicsError: unpaired electrons, an unrestricted or periodic object, a charge that the model has not seen, or
            two atoms on one place.
    """
    structure = structure_for(mf, model)
    order = orbital_order(model.basis, structure.species)
    start = _Start(mf)
    minao = None
    if model.needs_reference and same_functional(mf, method_of(model.checkpoint)):
        density = np.asarray(mf.get_init_guess(key="minao"), dtype=np.float64)
        minao = (density, *start.build(density))
    elif model.needs_reference:
        start.builds += 1  # H0 of the model's own functional is made inside the prediction
    hamiltonian = _predicted(model, structure, start, None if minao is None else minao[2])
    back = np.argsort(order)
    predicted = density_of(hamiltonian[np.ix_(back, back)], start.overlap, int(mf.mol.nelectron))
    potential, fock, found = start.build(predicted)
    if minao is None and not found < SURE * np.sqrt(mf.mol.nelectron):
        density = np.asarray(mf.get_init_guess(key="minao"), dtype=np.float64)
        minao = (density, *start.build(density))
    other = None if minao is None else minao[3]
    if minao is None or (found < minao[3] and start.is_nearer(predicted, fock, minao[2])):
        return Guess(predicted, "prediction", found, other, start.builds, potential, hamiltonian)
    return Guess(minao[0], "minao", found, other, start.builds, minao[1], hamiltonian)


def _predicted(model: Predictor, structure: AtomicStructure, start: _Start, fock: FloatArray | None) -> FloatArray:
    """(n, n) eV in hamnet's order; `fock` is F[D_minao] in Hartree where it is there already."""
    overlap = dense_to_blocks(start.overlap, model.basis, structure.species)
    reference: BlockMatrix | None = None
    if fock is not None:
        reference = reference_blocks(fock, model.basis, structure.species, Spin.NONE)
    hamiltonian = model.run(structure, overlap, reference).calculation.hamiltonian
    if hamiltonian is None:
        raise PhysicsError("the model gave no Hamiltonian")
    return dense_of(hamiltonian)


def structure_for(mf: Any, model: Predictor) -> AtomicStructure:
    """The molecule of a PySCF object with the model's species.

    Raises:
        BasisError, PhysicsError: as `scf_guess`.
    """
    kinds = {c.__name__ for c in type(mf).__mro__}
    mol = mf.mol
    if hasattr(mol, "lattice_vectors"):
        raise PhysicsError(f"{type(mf).__name__} is periodic: SCF from a prediction is for molecules")
    if mol.spin or kinds & {"UHF", "GHF", "ROHF"} or "RHF" not in kinds:
        raise PhysicsError(
            f"{type(mf).__name__} with {mol.spin} unpaired electrons: SCF from a prediction is for closed shells, "
            "RHF or RKS; the model has not seen others"
        )
    method_of(model.checkpoint, "hf", int(mol.charge))
    found, own = basis_of(mol)
    structure = structure_of(mol, own, found)
    species = model.structure(_atoms(structure)).species
    for atom, (a, b) in enumerate(zip(own.tolist(), species.tolist(), strict=True)):
        if not same_orbitals(found.species[a], model.basis.species[b]):
            raise BasisError(
                f"atom {atom} has the basis {found.species[a].label!r} in PySCF, the model was trained with "
                f"{model.basis.species[b].label!r}: build the molecule with the model's basis"
            )
    return structure.with_species(species)


def _atoms(structure: AtomicStructure) -> Any:
    from ase import Atoms

    return Atoms(numbers=structure.atomic_numbers, positions=structure.positions)


def same_functional(mf: Any, method: Method) -> bool:
    """Whether a PySCF object has the functional of a method; "pbe" and "pbe,pbe" are the same."""
    own = Method.from_provenance(functional_text(mf), "").xc
    if "hf" in (own, method.xc):
        return own == method.xc
    from pyscf.dft import libxc

    return bool(libxc.parse_xc(own) == libxc.parse_xc(method.xc))
