"""Energy and forces of a predicted H from one Fock build.

With D = 2 P the projector on the occupied orbitals of the prediction and F = F[D] the one build,

    E[D] = E_scf + O(error^2), never below E_scf (D is allowed in the variation)
    D_1 = 2 P of the occupied orbitals of F
    gain = Tr F (D - D_1) >= 0, because D_1 minimises Tr F D
    E[D] - gain                          Harris and Foulkes: E linear in D about the D that was built

E[D] - gain is what the next cycle would reach if its change of D left F as it is; screening makes F push back, and the
SCF energy lies between the two (J. Harris, Phys. Rev. B 31, 1770 (1985); W. M. C. Foulkes and R. Haydock, Phys. Rev. B
39, 12520 (1989)). So the best estimate is E[D] - x gain, and the best orbitals are those of (1 - x) H + x F. x = 0.7
leaves a tenth of E[D]'s error and 0.6 of the prediction's force error (measured on water, trained PBE models: 0.6 to
0.9 for the energy, 0.5 to 0.7 for the forces; random noise, which nothing screens, has 0.95). Forces stay of first
order in the error, because E is not stationary there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hamnet_preprocess.pyscf_fock import FockBuilder, commutator, density_of

FloatArray = NDArray[np.float64]
STEP = 0.7
"""x: part of the way from the prediction to its own Fock matrix."""


@dataclass(frozen=True, eq=False)
class OneBuild:
    """What one Fock build of a prediction says; energies in eV.

    Args:
        energy: E[D] - x gain, the best estimate.
        upper_bound: E[D].
        lower_estimate: E[D] - gain.
        commutator: Frobenius norm (eV) of FDS - SDF in orthonormal orbitals.
        forces: (n_atoms, 3) eV / A; None where not asked for.
    """

    energy: float
    upper_bound: float
    lower_estimate: float
    commutator: float
    forces: FloatArray | None = None

    @property
    def energy_error(self) -> float:
        """eV: distance of `energy` from the farther end of its bracket, x gain; usual errors are a fifth of it."""
        return self.upper_bound - self.energy


def one_build(builder: FockBuilder, hamiltonian: FloatArray, with_forces: bool = True) -> OneBuild:
    """Energy, its error estimate and forces of a predicted H, from one Fock build.

    Args:
        builder: of the molecule.
        hamiltonian: (n, n) eV, hamnet's orbital order.
        with_forces: one gradient evaluation more.
    """
    density = density_of(hamiltonian, builder.overlap, builder.n_electrons)
    result = builder.build(density)
    better = density_of(result.fock, builder.overlap, builder.n_electrons)
    gain = float(np.vdot(result.fock, density - better))
    forces = builder.forces((1 - STEP) * hamiltonian + STEP * result.fock) if with_forces else None
    norm = commutator(result.fock, density, builder.overlap)
    return OneBuild(result.energy - STEP * gain, result.energy, result.energy - gain, norm, forces)
