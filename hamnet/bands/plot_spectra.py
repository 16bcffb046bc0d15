"""Figures of densities of states and of unfolded bands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hamnet.bands.dos import DensityOfStates
from hamnet.bands.plot import ABOVE, BELOW, SPIN_COLOURS, STYLE, k_ticks
from hamnet.bands.unfold import UnfoldedBands
from hamnet.core.files import whole_file

FloatArray = NDArray[np.float64]
GRID = 400
"""Energies in the picture of unfolded bands."""


def plot_dos(dos: DensityOfStates, path: Path, title: str = "", axis: int | None = None) -> None:
    """Write a PNG: the density with its statistical error as a band (two standard deviations), E_F at zero.

    Two spins: up above the line, down mirrored below it.

    Args:
        dos: what to draw.
        path: file to write, put in place whole.
        title: heading.
        axis: 0, 1, 2: spinors as spin up and down along x, y, z; None: both in one.

    Raises:
        PhysicsError: an axis, and the spins of the states were not computed.
    """
    dos = dos if axis is None else dos.along(axis)
    zero = dos.fermi_energy or 0.0
    figure, axes = _figure((6.2, 4.2))
    along = "" if axis is None else f" along {'xyz'[axis]}"
    names = (f"spin up{along}", f"spin down{along}") if len(dos.density) == 2 else ("",)
    for s, name in enumerate(names):
        sign = -1 if s else 1
        axes.plot(dos.energies - zero, sign * dos.density[s], color=SPIN_COLOURS[s], lw=1.2, label=name or None)
        if dos.error is not None:
            low, high = (sign * (dos.density[s] + t * dos.error[s]) for t in (-2, 2))
            label = "two standard deviations" if s == 0 else None
            axes.fill_between(dos.energies - zero, low, high, color=SPIN_COLOURS[s], alpha=0.3, lw=0, label=label)
    if dos.fermi_energy is not None:
        axes.axvline(0.0, color="#555555", lw=0.8, ls=(0, (4, 3)), zorder=1)
    axes.set_xlabel(r"$E - E_F$ (eV)" if dos.fermi_energy is not None else "E (eV)")
    axes.set_ylabel("states / eV in the cell")
    axes.set_xlim(float(dos.energies[0] - zero), float(dos.energies[-1] - zero))
    if len(names) == 1:
        axes.set_ylim(bottom=0)
    else:  # both spins to one scale; what is drawn below the line is no negative density
        top = 1.05 * max(float(np.abs(dos.density).max()), 1e-12)
        axes.set_ylim(-top, top)
        axes.axhline(0.0, color="#333333", lw=0.8)
        axes.yaxis.set_major_formatter(lambda value, _: f"{abs(value):g}")
    _finish(figure, axes, path, title)


def plot_unfolded(
    unfolded: UnfoldedBands,
    path: Path,
    window: tuple[float | None, float | None] = (None, None),
    broadening: float | None = None,
    title: str = "",
) -> None:
    """Write a PNG of A(k, E) = sum_n W_n(k) g(E - E_n), E_F at zero.

    Args:
        unfolded: states and weights.
        path: file to write, put in place whole.
        window: (low, high) eV about the Fermi level; None for an end of what was computed at every k-point, core-like
            and high states left out.
        broadening: standard deviation of each Gaussian in eV; None: a part in 150 of the window, wider where k-points
            are so few that steep bands would fall into beads.
        title: heading.
    """
    zero = unfolded.fermi_energy or 0.0
    low = max(float(np.nanmin(e)) for e in unfolded.energies) - zero if window[0] is None else window[0]
    high = min(float(np.nanmax(e)) for e in unfolded.energies) - zero if window[1] is None else window[1]
    low, high = (max(low, -BELOW) if window[0] is None else low), (min(high, ABOVE) if window[1] is None else high)
    parts = min(150.0, 1.25 * len(unfolded.path.kpoints))
    grid, width = np.linspace(low, high, GRID), broadening or (high - low) / parts
    image = np.array(
        [_spectrum(e, w, grid + zero, width) for e, w in zip(unfolded.energies, unfolded.weights, strict=True)]
    )
    figure, axes = _figure((6.2, 4.8))
    x = unfolded.path.distances
    breaks = [*unfolded.path.breaks, len(x)]
    top = float(np.quantile(image, 0.995))
    for a, b in zip(breaks[:-1], breaks[1:], strict=True):
        shades = axes.pcolormesh(x[a:b], grid, image[a:b].T, cmap="Blues", vmin=0, vmax=top, shading="gouraud")
    figure.colorbar(shades, ax=axes, label="spectral weight (1 / eV)", pad=0.02)
    if unfolded.fermi_energy is not None:
        axes.axhline(0.0, color="#d1495b", lw=0.8, ls=(0, (4, 3)))
    places, names = k_ticks(unfolded.path, x)
    axes.set_xticks(places, names)
    for place in places:
        axes.axvline(place, color="#9aa3ad", lw=0.6)
    axes.set_ylim(low, high)
    axes.set_ylabel(r"$E - E_F$ (eV)" if unfolded.fermi_energy is not None else "E (eV)")
    _finish(figure, axes, path, title)


def _spectrum(energies: FloatArray, weights: FloatArray, grid: FloatArray, broadening: float) -> FloatArray:
    e, w = energies.reshape(-1), np.clip(np.nan_to_num(weights.reshape(-1)), 0, None)
    near = np.exp(-0.5 * ((grid[:, None] - np.nan_to_num(e, nan=np.inf)) / broadening) ** 2)
    return np.asarray(near @ w / (broadening * np.sqrt(2 * np.pi)))


def _figure(size: tuple[float, float]) -> tuple[Any, Any]:
    from matplotlib import rc_context  # imported here: drawing needs it, computing does not
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)
        return figure, figure.add_subplot()


def _finish(figure: Any, axes: Any, path: Path, title: str) -> None:
    axes.tick_params(direction="in")
    if title:
        axes.set_title(title, fontsize=11.5, pad=9)
    if axes.get_legend_handles_labels()[1]:
        axes.legend(frameon=False, fontsize=9.5)
    with whole_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=200)
