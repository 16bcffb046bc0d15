"""Figures of bands: plain, by spin, fat, and with a reference laid over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hamnet.bands.band_structure import BandStructure
from hamnet.bands.kpath import KPath
from hamnet.bands.plot_spin import draw_spins
from hamnet.core.files import whole_file
from hamnet.core.reference import ReferenceBands

FloatArray = NDArray[np.float64]
SPIN_COLOURS = ("#1f4e8c", "#e07a1f")
GROUP_COLOURS = ("#1f4e8c", "#e07a1f", "#2a9d6f", "#b5358f", "#8c6d1f", "#3fa7d6", "#d1495b", "#6a4c93")
REFERENCE_COLOUR = "#d1495b"
BELOW, ABOVE = 20.0, 10.0
"""eV about the Fermi level that a plot shows at most when nothing else is asked: core-like and high states left out."""
STYLE: Any = {
    "font.size": 11,
    "axes.linewidth": 0.8,
    "axes.edgecolor": "#333333",
    "mathtext.default": "regular",
    "legend.frameon": False,
    "legend.fontsize": 9.5,
    "savefig.dpi": 200,
}


def plot_bands(
    bands: BandStructure,
    path: Path,
    reference: ReferenceBands | None = None,
    window: tuple[float | None, float | None] = (None, None),
    title: str = "",
    reference_name: str = "reference",
    name: str = "",
) -> None:
    """Write a PNG of the bands, the Fermi level at zero.

    Args:
        bands: what to draw; fat bands when it has weights, levels when it has one k-point.
        path: file to write, put in place whole.
        reference: drawn dashed on top, on the same k-points, its own Fermi level at zero.
        window: (low, high) eV about the Fermi level; a None end shows what matters about it.
        title: heading.
        reference_name: for the legend.
        name: of the bands themselves, for the legend; empty: they need none.
    """
    from matplotlib import rc_context  # imported here: drawing needs it, computing does not
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        single = len(bands.path.kpoints) == 1
        figure = Figure(figsize=(3.4, 4.8) if single else (6.2, 4.8), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        x = np.array([0.0, 1.0]) if single else bands.path.distances
        zero = bands.fermi_energy or 0.0
        shown = _shown(bands, zero, window)
        _draw(axes, bands, x, zero, name)
        if reference is not None:
            _draw_reference(axes, bands, reference, x, reference_name)
        _decorate(axes, bands, x, shown, single)
        if title:
            axes.set_title(title, fontsize=11.5, pad=9)
        if axes.get_legend_handles_labels()[1]:
            figure.legend(loc="outside lower center", ncols=4)
        with whole_file(path) as temporary:
            figure.savefig(temporary, format="png")


def _shown(bands: BandStructure, zero: float, window: tuple[float | None, float | None]) -> tuple[float, float]:
    relative = bands.energies - zero
    low, high = float(np.nanmin(relative)), float(np.nanmax(relative))
    known = bands.fermi_energy is not None
    automatic = (max(low, -BELOW) - 0.5, min(high, ABOVE) + 0.5) if known else (low - 0.5, high + 0.5)
    return automatic[0] if window[0] is None else window[0], automatic[1] if window[1] is None else window[1]


def _pieces(bands: BandStructure) -> list[slice]:
    breaks = [*bands.path.breaks, len(bands.path.kpoints)]
    return [slice(a, b) for a, b in zip(breaks[:-1], breaks[1:], strict=True)]


def _draw(axes: Any, bands: BandStructure, x: FloatArray, zero: float, label: str = "") -> None:
    names = ("spin up", "spin down") if bands.energies.shape[0] == 2 else ("",)
    coloured = bands.spin_axis is not None and bands.spins is not None
    fat = bands.weights is not None or coloured
    for s, name in enumerate(names):
        colour = "#9aa3ad" if fat else SPIN_COLOURS[s]
        for piece in _pieces(bands):
            y = bands.energies[s, piece] - zero
            xs, y = (x, np.repeat(y, 2, axis=0)) if len(y) == 1 else (x[piece], y)
            style = {"lw": 0.6 if fat else 1.4, "color": colour, "ls": "-" if s == 0 else (0, (5, 1.2)), "zorder": 2}
            lines = axes.plot(xs, y, **style)
            if piece.start == 0 and not fat and (text := ", ".join(filter(None, (label, name)))):
                lines[0].set_label(text)
    if coloured:
        draw_spins(axes, bands, x, zero)
    elif fat:
        _draw_weights(axes, bands, x, zero)


def _draw_weights(axes: Any, bands: BandStructure, x: FloatArray, zero: float) -> None:
    weights = np.zeros(0) if bands.weights is None else bands.weights
    at = np.array([0.5]) if len(bands.path.kpoints) == 1 else x
    order = np.argsort(-weights.sum(axis=(0, 1, 2)))
    for rank, g in enumerate(order):
        colour = GROUP_COLOURS[int(g) % len(GROUP_COLOURS)]
        w = np.clip(np.nan_to_num(weights[..., g]), 0, 1)
        spots = np.broadcast_to(at[None, :, None], w.shape)
        # Area in proportion to the weight; the lightest group lies on top so that none is hidden.
        axes.scatter(
            spots, bands.energies - zero, s=26 * w, color=colour, alpha=0.55, lw=0, zorder=3 + rank, rasterized=True
        )
        axes.scatter([], [], s=26, color=colour, lw=0, label=bands.groups[int(g)])


def _draw_reference(
    axes: Any, bands: BandStructure, reference: ReferenceBands, x: FloatArray, reference_name: str
) -> None:
    zero = reference.fermi_energy if reference.fermi_energy is not None else (bands.fermi_energy or 0.0)
    colour = "#111111" if len(reference.energies) == 2 else REFERENCE_COLOUR
    label: str | None = reference_name
    for channel in reference.energies:
        for piece in _pieces(bands):
            y = channel[piece] - zero
            xs, y = (x, np.repeat(y, 2, axis=0)) if len(y) == 1 else (x[piece], y)
            lines = axes.plot(xs, y, color=colour, lw=1.3, ls=(0, (1.2, 2.2)), dash_capstyle="round", zorder=6)
            lines[0].set_label(label)
            label = None


def _decorate(axes: Any, bands: BandStructure, x: FloatArray, shown: tuple[float, float], single: bool) -> None:
    axes.set_ylim(*shown)
    axes.set_xlim(float(x[0]), float(x[-1]))
    axes.set_ylabel(r"$E - E_F$ (eV)" if bands.fermi_energy is not None else "E (eV)")
    axes.tick_params(axis="x", length=0)
    axes.tick_params(axis="y", direction="in", right=True)
    axes.minorticks_off()
    if bands.fermi_energy is not None:
        axes.axhline(0.0, color="#555555", lw=0.8, ls=(0, (4, 3)), zorder=1)
    if single:
        axes.set_xticks([0.5], [_pretty(bands.path.labels[0][1]) if bands.path.labels else "k"])
        return
    places, names = k_ticks(bands.path, x)
    axes.set_xticks(places, names)
    for place in places:
        axes.axvline(place, color="#c9ced4", lw=0.8, zorder=0)


def k_ticks(path: KPath, x: FloatArray) -> tuple[list[float], list[str]]:
    """Places and names of the labelled k-points; two at one place share it as "M|K"."""
    places: list[float] = []
    names: list[str] = []
    for index, name in path.labels:
        if places and abs(places[-1] - x[index]) < 1e-9:
            if names[-1] != _pretty(name):
                names[-1] = f"{names[-1]}|{_pretty(name)}"
            continue
        places.append(float(x[index]))
        names.append(_pretty(name))
    return places, names


def _pretty(name: str) -> str:
    """Label as people write it: Gamma as a Greek letter, H_2 with a subscript."""
    if name in {"G", "g", "Gamma", "GAMMA"}:
        return "Γ"
    head, _, tail = name.partition("_")
    return f"${head}_{{{tail}}}$" if tail else name
