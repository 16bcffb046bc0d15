"""One Fock build made to go further: its Coulomb part is brought to self-consistency, exchange and correlation stay.

With F0 = F[D0] from one Fock build, the F that solves

    F = F0 + J[D(F) - D0]

misses only the response of exchange and correlation. What makes plain SCF steps overshoot, charge flowing to and fro,
is the response of J; and J alone costs a small part of a Fock build: no integration grid, no exchange.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hamnet_preprocess.pyscf_fock import density_of

FloatArray = NDArray[np.float64]
MEMORY = 8
"""Earlier steps that Pulay's mixing (DIIS) combines."""
REDUCTION = 0.01
"""Done when the commutator has fallen to this part of its first value: the neglected response leaves more."""
LARGEST_COUNT = 40
"""Steps after which the best F so far is taken."""


class CoulombBuilder(Protocol):
    """What the relaxation asks of a Fock builder."""

    overlap: FloatArray

    @property
    def n_electrons(self) -> int:
        """Electrons of the molecule."""

    def coulomb(self, density: FloatArray) -> FloatArray:
        """J[D], eV."""


def relax_coulomb(builder: CoulombBuilder, fock: FloatArray, density: FloatArray) -> FloatArray:
    """(n, n) eV, F with F = F0 + J[D(F) - D0], by Pulay's mixing; the best of all steps where that does not converge.

    Args:
        builder: of the molecule.
        fock: (n, n) eV, F0 = F[D0].
        density: (n, n), D0, both spins together.
    """
    s = builder.overlap
    values, vectors = np.linalg.eigh(s)
    root = (vectors / np.sqrt(values)) @ vectors.T
    current, matrix, d = fock, fock, density
    focks: list[FloatArray] = []
    residuals: list[FloatArray] = []
    best, least, first = fock, np.inf, 0.0
    for step in range(LARGEST_COUNT):
        product = root @ current @ d @ s @ root
        residuals = [*residuals, product - product.T][-MEMORY:]
        focks = [*focks, current][-MEMORY:]
        norm = float(np.linalg.norm(residuals[-1]))
        first = norm if step == 0 else first
        if norm < least:
            best, least = current, norm
        if norm <= REDUCTION * first:
            break
        matrix = pulay(focks, residuals)
        d = density_of(matrix, s, builder.n_electrons)
        current = fock + builder.coulomb(d - density)
    return best


def pulay(matrices: list[FloatArray], residuals: list[FloatArray]) -> FloatArray:
    """sum_k c_k M_k with sum_k c_k = 1 and the least |sum_k c_k R_k|.

    P. Pulay, Chem. Phys. Lett. 73, 393 (1980).
    """
    n = len(matrices)
    system = np.zeros((n + 1, n + 1))
    overlaps = np.array([[np.vdot(a, b) for b in residuals] for a in residuals])
    # in units of the smallest residual, so that the constraint does not drown near convergence
    system[:n, :n] = overlaps / max(float(overlaps.diagonal().min()), np.finfo(float).tiny)
    system[n, :n] = system[:n, n] = 1.0
    weights = np.linalg.lstsq(system, np.append(np.zeros(n), 1.0), rcond=None)[0][:n]
    return np.asarray(sum(w * matrix for w, matrix in zip(weights, matrices, strict=True)))
