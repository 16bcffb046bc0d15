"""Magnetic moments as input: axial vectors, odd under time reversal, and what of a calculation they must explain."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from hamnet.core.calculation import Calculation
from hamnet.core.spin import Spin
from hamnet.core.structure import AtomicStructure
from hamnet.core.time_reversal import EVEN, odd_part
from hamnet.errors import PhysicsError
from hamnet.nn.features import FeatureLayout

MOMENT_SCALES = (0.1, 0.5, 2.0)
"""Bohr magnetons at which the functions of |m| saturate: ligands, weak and strong magnets."""
ODD_PART = 2
"""Half as many channels odd under time reversal as even ones."""
OFF_AXIS = 1e-6
"""Moments of collinear calculations lie along z to this many Bohr magnetons."""


def has_moments(structure: AtomicStructure) -> bool:
    """Whether any atom has a moment that is not zero."""
    return structure.moments is not None and bool(np.any(structure.moments))


def is_tilted(structure: AtomicStructure) -> bool:
    """Whether a moment has a component across z, which collinear blocks cannot hold."""
    return structure.moments is not None and across(structure.moments) > OFF_AXIS


def across(moments: NDArray[np.float64]) -> float:
    """Largest component across z of (n, 3) moments."""
    return float(np.abs(moments[:, :2]).max(initial=0.0))


def is_magnetic(calculation: Calculation) -> bool:
    """Whether a calculation asks for a model with moments: atoms have them, and H is odd under time reversal.

    Populations alone do not tell: OpenMX prints thousandths of a Bohr magneton where H is even to 1e-7 eV.
    """
    matrix = calculation.hamiltonian
    return matrix is not None and has_moments(calculation.structure) and odd_part(matrix) > EVEN


def check_axis(structure: AtomicStructure, spin: Spin) -> None:
    """Collinear layouts know up and down alone: moments lie along z.

    Raises:
        PhysicsError: a moment of a collinear calculation has a component across z.
    """
    if spin is Spin.COLLINEAR and structure.moments is not None and is_tilted(structure):
        atom = int(np.abs(structure.moments[:, :2]).max(axis=1).argmax())
        raise PhysicsError(
            f"the moment of atom {atom} is {structure.moments[atom].tolist()}, and collinear blocks know up and "
            "down along z alone: turn all moments along z, or use spinor data for tilted ones"
        )


def check_moments(name: str, calculation: Calculation) -> None:
    """What is odd under time reversal in H must come from moments.

    Raises:
        PhysicsError: H is magnetic and no atom has a moment, or a collinear calculation has moments across z.
    """
    matrix = calculation.hamiltonian
    if matrix is None or matrix.spin is Spin.NONE:
        return
    check_axis(calculation.structure, matrix.spin)
    if has_moments(calculation.structure):
        return
    odd = odd_part(matrix)
    if odd > EVEN:
        raise PhysicsError(
            f"{name}: H is magnetic (it is odd under time reversal by {odd:.3g} eV) but no atom has a moment, so "
            "that nothing tells up from down: read it again with the file that holds the moments (OpenMX: .out; "
            "CP2K: output with Mulliken charges), or set structure.moments"
        )


def odd_channels(even: int) -> int:
    """Channels odd under time reversal beside so many even ones."""
    return max(2, even // ODD_PART) if even else 0


class MomentEmbedding(torch.nn.Module):
    """Moments -> features, with weights for each species: zero where the moment is, smooth and bounded in it.

    odd: v_k = m / sqrt(s_k^2 + m^2). With spin-orbit coupling its components are an l = 1 of space. Without it spin
    has nothing to do with space: they are scalars of space, three for spinors, or m_z alone for collinear layouts.
    Even: f_k = m^2 / (s_k^2 + m^2), added to the scalars. s_k: `MOMENT_SCALES`.

    Args:
        n_species: number of species.
        channels: natural channels.
        spin: spinor or collinear.
        spin_orbit: whether spinors couple spin to space.
    """

    scales: torch.Tensor

    def __init__(self, n_species: int, channels: int, spin: Spin, spin_orbit: bool = True) -> None:
        super().__init__()
        count = odd_channels(channels)
        self.vector = spin is Spin.SPINOR and spin_orbit
        axes = 3 if spin is Spin.SPINOR and not spin_orbit else 1
        self.layout = (
            FeatureLayout(1, channels, 0, 0, count) if self.vector else FeatureLayout(0, channels, 0, count, axes=axes)
        )
        self.collinear = spin is Spin.COLLINEAR
        n = len(MOMENT_SCALES)
        self.even = torch.nn.Parameter(torch.randn(n_species, n, channels) / n**0.5)
        self.odd = torch.nn.Parameter(torch.randn(n_species, n, count) / n**0.5)
        self.register_buffer("scales", torch.tensor(MOMENT_SCALES), persistent=False)

    def forward(self, scalars: torch.Tensor, species: torch.Tensor, moments: torch.Tensor) -> torch.Tensor:
        """(n, channels), (n,), (n, 3) Bohr magnetons -> (n, rows, channels of `layout`)."""
        moments = moments.to(scalars.dtype)
        if self.collinear:
            moments = moments[:, 2:]
        square = moments.square().sum(dim=1, keepdim=True)
        total = self.scales.square() + square
        even = scalars + torch.einsum("nk,nkc->nc", square / total, self.even.index_select(0, species))
        # an l = 1 irrep runs y, z, x
        rows = moments[:, [1, 2, 0]] if self.vector else moments
        functions = rows.unsqueeze(2) * total.rsqrt().unsqueeze(1)
        odd = torch.einsum("nak,nkc->nac", functions, self.odd.index_select(0, species))
        if not self.vector:
            return torch.cat((even, odd.flatten(1)), dim=-1).unsqueeze(1)
        pad = torch.nn.functional.pad
        # scalars stand in the first row of their channels, vectors in the other three of theirs
        return torch.cat((pad(even.unsqueeze(1), (0, 0, 0, 3)), pad(odd, (0, 0, 1, 0))), dim=-1)
