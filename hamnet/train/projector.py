"""Gradients of physics without labels: through the occupied projector, and through the energy of one Fock build.

PyTorch's eigh divides by differences of all eigenvalues, so that degenerate orbitals give NaN. What is needed here, the
projector onto all occupied orbitals, depends on occupied-virtual gaps alone, and its derivative is written with them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from hamnet.errors import PhysicsError

LEAST_GAP = 1e-3
"""eV; smaller occupied-virtual gaps count as this in the derivative, which has no limit where a gap closes."""
Energy = Callable[[Tensor], tuple[float, Tensor]]
"""Energy (eV) and (n, n) Fock matrix (eV) of a density: one Fock build."""


class _Projector(torch.autograd.Function):
    """H -> P; see `occupied_projector`."""

    @staticmethod
    def forward(ctx: Any, hamiltonian: Tensor, overlap: Tensor, occupied: int) -> Tensor:
        """P = C_o C_o^T with H C = S C e and C^T S C = 1."""
        energies, states = orbitals(hamiltonian, overlap)
        ctx.occupied = occupied
        ctx.save_for_backward(energies, states)
        filled = states[..., :occupied]
        return filled @ filled.mT

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        """dL/dH = C_o X C_v^T + transposed, X = (C_o^T G C_v) / (e_o - e_v), G the symmetric part of dL/dP."""
        energies, states = ctx.saved_tensors
        k = ctx.occupied
        filled, empty = states[..., :k], states[..., k:]
        gaps = energies[..., :k, None] - energies[..., None, k:]
        x = filled.mT @ ((gradient + gradient.mT) / 2) @ empty / gaps.clamp(max=-LEAST_GAP)
        half = filled @ x @ empty.mT
        return half + half.mT, None, None


def orbitals(hamiltonian: Tensor, overlap: Tensor) -> tuple[Tensor, Tensor]:
    """(..., n) energies, ascending, and (..., n, n) states of H C = S C e with C^T S C = 1; carries no gradient.

    Raises:
        PhysicsError: S is not positive definite, or a number is not finite.
    """
    with torch.no_grad():
        lower, failed = torch.linalg.cholesky_ex(overlap)
        if bool(failed.any()) or not bool(torch.isfinite(hamiltonian).all()):
            raise PhysicsError(
                "orbitals need a finite H and a positive definite S; found "
                f"{'an S that is not' if bool(failed.any()) else 'an H that is not'}: look at the geometry"
            )
        symmetric = (hamiltonian + hamiltonian.mT) / 2
        left = torch.linalg.solve_triangular(lower, symmetric, upper=False)
        standard = torch.linalg.solve_triangular(lower, left.mT, upper=False)
        energies, vectors = torch.linalg.eigh((standard + standard.mT) / 2)
        return energies, torch.linalg.solve_triangular(lower.mT, vectors, upper=True)


def occupied_projector(hamiltonian: Tensor, overlap: Tensor, occupied: int) -> Tensor:
    """(..., n, n) P = C_o C_o^T onto the lowest orbitals; differentiable in H, also where orbitals are degenerate.

        dL/dH = C_o X C_v^T + transposed,  X = (C_o^T G C_v) / (e_o - e_v),  G = dL/dP

    P, and with it every gradient, is the same for H and H + mu S. The closed-shell density is 2 P.

    Args:
        hamiltonian: (..., n, n), eV; its symmetric part counts.
        overlap: (..., n, n), a constant.
        occupied: number of occupied orbitals.

    Raises:
        PhysicsError: S is not positive definite, H is not finite, or there are more electrons than orbitals.
    """
    if not 0 < occupied <= hamiltonian.shape[-1]:
        raise PhysicsError(
            f"{occupied} occupied orbitals of {hamiltonian.shape[-1]}: expected at least one, and no more"
        )
    result: Tensor = _Projector.apply(hamiltonian, overlap, occupied)  # type: ignore[no-untyped-call]
    return result


class _FockEnergy(torch.autograd.Function):
    """D -> E and F; see `fock_energy`."""

    @staticmethod
    def forward(ctx: Any, density: Tensor, build: Energy) -> tuple[Tensor, Tensor]:
        """One Fock build."""
        energy, fock = build(density.detach())
        fock = fock.to(density)
        ctx.save_for_backward(fock)
        ctx.mark_non_differentiable(fock)
        return density.new_tensor(energy), fock

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor, None]:
        """dE/dD = F."""
        (fock,) = ctx.saved_tensors
        return gradient * fock, None


def fock_energy(density: Tensor, build: Energy) -> tuple[Tensor, Tensor]:
    """Energy (eV) of a density and its Fock matrix, by one Fock build; dE/dD = F, so that no second one is needed.

    Args:
        density: (n, n), both spins together.
        build: the Fock builder.

    Returns:
        E, differentiable in D, and F, which carries no gradient.
    """
    energy, fock = _FockEnergy.apply(density, build)  # type: ignore[no-untyped-call]
    return energy, fock


def commutator(fock: Tensor, density: Tensor, overlap: Tensor) -> Tensor:
    """(..., n, n) F D S - S D F: zero where F and D are self-consistent. Differentiable in all three."""
    product = fock @ density @ overlap
    return product - product.mT
