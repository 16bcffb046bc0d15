"""Pictures of a training: the learning curve and the error by shell pair."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from hamnet.core.basis import SPECTROSCOPIC, OrbitalBasis
from hamnet.core.files import whole_file
from hamnet.train.metrics import ShellPairError

NARROW = 10.0
"""A logarithmic axis over less than this factor has even ticks: 1, 2, 5 would leave one or none."""
CURVES = ("train_mae_meV", "validation_mae_meV")


def read_log(path: Path) -> dict[str, list[tuple[float, float]]]:
    """(step, value) of each column of Lightning's metrics.csv; empty cells are left out."""
    columns: dict[str, list[tuple[float, float]]] = {}
    with path.open(newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            for name, cell in row.items():
                if cell and name != "step":
                    columns.setdefault(name, []).append((float(row["step"]), float(cell)))
    return columns


def draw_learning_curve(log: Path, path: Path) -> None:
    """Training and validation error over steps, logarithmic."""
    columns = read_log(log)
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for name in CURVES:
        if name in columns:
            points = np.array(columns[name])
            axes.plot(points[:, 0], points[:, 1], marker="." if len(points) < 50 else "", label=name.split("_")[0])
    axes.set_yscale("log")
    _plain_decades(axes.yaxis)
    axes.set_xlabel("step")
    axes.set_ylabel("H mean absolute error (meV)")
    axes.grid(alpha=0.3, which="both")
    if axes.lines:
        axes.legend()
    _save(figure, path)


def _plain_decades(axis: Axis) -> None:
    """Ticks as plain numbers (0.5, 1, 2, 5, 10), and no others with text: "6 x 10^1" is hard to read."""
    low, high = axis.get_view_interval()
    wide = high > NARROW * low
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)) if wide else MaxNLocator(5, steps=[1, 2, 5, 10]))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def draw_error_map(errors: Sequence[ShellPairError], basis: OrbitalBasis, path: Path) -> None:
    """Mean absolute error of each shell pair (rows: shell of i, columns: shell of j), on-site and off-site."""
    shells = [
        (s.label, k, f"{s.label} {_shell_name(s.shell_ls, k)}") for s in basis.species for k in range(len(s.shells))
    ]
    place = {(label, k): at for at, (label, k, _) in enumerate(shells)}
    width = max(4.0, 0.45 * len(shells) + 2.0)
    figure = Figure(figsize=(2 * width, width), layout="constrained")
    for axes, on_site in zip(figure.subplots(1, 2), (True, False), strict=True):
        table = np.full((len(shells), len(shells)), np.nan)
        for entry in errors:
            if entry.on_site is on_site:
                table[place[entry.species_i, entry.shell_i], place[entry.species_j, entry.shell_j]] = entry.mae
        image = axes.imshow(table, cmap="viridis")
        axes.set_title("on-site" if on_site else "off-site")
        names = [name for _, _, name in shells]
        axes.set_xticks(range(len(shells)), names, rotation=90)
        axes.set_yticks(range(len(shells)), names)
        if len(shells) <= 12:
            for (a, b), value in np.ndenumerate(table):
                if np.isfinite(value):
                    # viridis ends in yellow, where white cannot be read
                    ink = "black" if value > 0.7 * np.nanmax(table) else "white"
                    axes.text(b, a, f"{value:.2g}", ha="center", va="center", color=ink, fontsize=8)
        figure.colorbar(image, ax=axes, label="mean absolute error (meV)", shrink=0.8)
    _save(figure, path)


def _shell_name(ls: Sequence[int], k: int) -> str:
    """ "2p" for the second p shell of a species."""
    return f"{1 + sum(l == ls[k] for l in ls[:k])}{SPECTROSCOPIC[ls[k]]}"


def _save(figure: Figure, path: Path) -> None:
    FigureCanvasAgg(figure)
    with whole_file(path) as temporary:
        figure.savefig(temporary, dpi=130)
