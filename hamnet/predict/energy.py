"""Energy and forces of molecules from a model: the prediction and one Fock build."""

from __future__ import annotations

from typing import Any

from hamnet.core.spin import Spin
from hamnet.core.structure import AtomicStructure
from hamnet.errors import PhysicsError
from hamnet.predict.predictor import Predictor
from hamnet_preprocess.pyscf_basis import dense_to_blocks
from hamnet_preprocess.pyscf_energy import OneBuild, one_build
from hamnet_preprocess.pyscf_fock import FloatArray, FockBuilder, Method, dense_of


def predicted_hamiltonian(model: Predictor, builder: FockBuilder) -> FloatArray:
    """(n, n) eV in hamnet's order; one Fock build where the model learnt H - H0, none else."""
    structure = builder.structure
    overlap = dense_to_blocks(builder.to_pyscf(builder.overlap), model.basis, structure.species)
    reference = builder.blocks(builder.build(builder.minao_density()).fock) if model.needs_reference else None
    hamiltonian = model.run(structure, overlap, reference).calculation.hamiltonian
    if hamiltonian is None or hamiltonian.spin is not Spin.NONE:
        raise PhysicsError("energies from one Fock build are for closed shells: the model's H has spin")
    return dense_of(hamiltonian)


def molecule_energy(model: Predictor, atoms: Any, method: Method, with_forces: bool = True) -> OneBuild:
    """Energy (eV), its error estimate and forces (eV / A) of a molecule.

    Args:
        model: trained on molecules.
        atoms: ASE, pymatgen or hamnet atoms.
        method: of the training data; see `hamnet.predict.fock_check.method_of`.
        with_forces: about as long again as the Fock build.

    Raises:
        BasisError: an element that the model does not know.
        PhysicsError: a periodic structure or unpaired electrons.
    """
    structure: AtomicStructure = model.structure(atoms)
    builder = FockBuilder(structure, model.basis, method)
    return one_build(builder, predicted_hamiltonian(model, builder), with_forces)
