"""Energy descent of a Hamiltonian itself, without a network: how far the energy alone carries, in Fock builds.

The energy E[D(H)] depends on H through its occupied orbitals only, so the variables are the occupied-virtual numbers y
of H in the orbitals of the start, H(y) = S C [diag(e) + y + y^T] C^T S, scaled so that the energy's curvature without
the response of F is one: y = sqrt(e_v - e_o) z / 2. Limited-memory BFGS then takes about as many builds as an SCF.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from hamnet.errors import ConvergenceError, PhysicsError
from hamnet.train.projector import LEAST_GAP, Energy, fock_energy, occupied_projector, orbitals

MEMORY = 12
"""Steps that the quasi-Newton matrix remembers."""
SHRINK = 0.3
"""A step that raises the energy is cut to this part of its length."""


@dataclass(frozen=True, eq=False)
class FreeDescent:
    """What an energy descent gives.

    Args:
        hamiltonian: (n, n) eV, H(y); only its occupied subspace is determined by the energy.
        fock: (n, n) eV, F of the last density: right in all orbitals.
        energies: (n_builds,) eV, one for each Fock build, in the order of the builds.
    """

    hamiltonian: Tensor
    fock: Tensor
    energies: tuple[float, ...]


def descend(
    hamiltonian: Tensor, overlap: Tensor, occupied: int, build: Energy, tolerance: float = 1e-7, most: int = 50
) -> FreeDescent:
    """Minimise E[2 P(H)] over H, starting from a given one.

    Args:
        hamiltonian: (n, n) float64, eV, symmetric.
        overlap: (n, n).
        occupied: doubly occupied orbitals.
        build: Fock builder.
        tolerance: eV; done when the quasi-Newton matrix promises less than this from another step.
        most: Fock builds at most.

    Raises:
        ConvergenceError: not done after so many builds.
    """
    chart = _Chart(hamiltonian, overlap, occupied)
    z = chart.origin()
    state = _evaluate(chart, z, build)
    energies = [state.energy]
    memory: list[tuple[Tensor, Tensor]] = []
    scale = 1.0
    while True:
        step = -_inverse_hessian(state.gradient, memory)
        promise = -0.5 * float(torch.vdot(state.gradient, step))
        if promise < tolerance:
            return FreeDescent(state.hamiltonian, state.fock, tuple(energies))
        if len(energies) >= most:
            raise ConvergenceError(f"{most} Fock builds left {promise:.1e} eV to gain, expected {tolerance:g}")
        moved = _evaluate(chart, z + scale * step, build)
        energies.append(moved.energy)
        if moved.energy > state.energy + tolerance:
            scale *= SHRINK
            continue
        change, bend = scale * step, moved.gradient - state.gradient
        if float(torch.vdot(change, bend)) > 0:
            memory = [*memory, (change, bend)][-MEMORY:]
        z, state, scale = z + change, moved, 1.0


@dataclass(frozen=True, eq=False)
class _Point:
    energy: float
    gradient: Tensor
    hamiltonian: Tensor
    fock: Tensor


class _Chart:
    """z (flat) <-> H."""

    def __init__(self, hamiltonian: Tensor, overlap: Tensor, occupied: int) -> None:
        energies, states = orbitals(hamiltonian, overlap)
        if not 0 < occupied < len(energies):
            raise PhysicsError(f"{occupied} occupied orbitals of {len(energies)}: the energy leaves nothing to vary")
        self.overlap, self.occupied = overlap, occupied
        gaps = energies[occupied:][None, :] - energies[:occupied][:, None]
        self.scale = gaps.clamp(min=LEAST_GAP).sqrt() / 2
        self.start = (hamiltonian + hamiltonian.mT) / 2
        self.left = overlap @ states[:, :occupied]
        self.right = overlap @ states[:, occupied:]

    def origin(self) -> Tensor:
        """z of the start."""
        return torch.zeros(self.scale.numel(), dtype=self.scale.dtype)

    def hamiltonian(self, z: Tensor) -> Tensor:
        """H(y(z))."""
        half = self.left @ (self.scale * z.reshape(self.scale.shape)) @ self.right.mT
        return self.start + half + half.mT


def _evaluate(chart: _Chart, z: Tensor, build: Energy) -> _Point:
    variable = z.detach().requires_grad_()
    hamiltonian = chart.hamiltonian(variable)
    density = 2 * occupied_projector(hamiltonian, chart.overlap, chart.occupied)
    energy, fock = fock_energy(density, build)
    if not math.isfinite(float(energy.detach())):
        raise PhysicsError("the Fock build gave an energy that is not finite: look at the geometry")
    (gradient,) = torch.autograd.grad(energy, variable)
    return _Point(float(energy.detach()), gradient, hamiltonian.detach(), fock)


def _inverse_hessian(gradient: Tensor, memory: list[tuple[Tensor, Tensor]]) -> Tensor:
    """The two loops of limited-memory BFGS, started from the unit matrix: the chart's scale makes that right."""
    q = gradient.clone()
    weights = []
    for change, bend in reversed(memory):
        weight = torch.vdot(change, q) / torch.vdot(change, bend)
        weights.append(weight)
        q = q - weight * bend
    for (change, bend), weight in zip(memory, reversed(weights), strict=True):
        q = q + (weight - torch.vdot(bend, q) / torch.vdot(change, bend)) * change
    return q
