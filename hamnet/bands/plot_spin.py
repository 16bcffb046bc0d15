"""Bands coloured by the spin of each state."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from hamnet.bands.band_structure import BandStructure

FloatArray = NDArray[np.float64]
COLOURS = "coolwarm"
"""Blue for -1, red for +1, pale where states have no spin of their own."""


def draw_spins(axes: Any, bands: BandStructure, x: FloatArray, zero: float) -> None:
    """One spot for each state, coloured by its <s> along the chosen axis, with a colour bar.

    Args:
        axes: of matplotlib.
        bands: with spins.
        x: (n_k,) places of the k-points, or two ends for a single one.
        zero: eV, where the plot has its zero.
    """
    if bands.spins is None or bands.spin_axis is None:
        return
    values = bands.spins[..., bands.spin_axis]
    at = np.array([0.5]) if len(bands.path.kpoints) == 1 else x
    places = np.broadcast_to(at[None, :, None], values.shape)
    # strong spins last, so that they are not hidden under pale ones
    order = np.argsort(np.abs(values), axis=None, kind="stable")
    spots, energies, colours = (a.reshape(-1)[order] for a in (places, bands.energies - zero, values))
    drawn = axes.scatter(
        spots, energies, c=colours, cmap=COLOURS, vmin=-1, vmax=1, s=7, lw=0, zorder=3, rasterized=True
    )
    name = "xyz"[bands.spin_axis]
    axes.figure.colorbar(drawn, ax=axes, label=rf"$\langle s_{name} \rangle$", shrink=0.8, pad=0.02)
