"""report.md of `hamnet demo`: figures, plots and the commands that made them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hamnet.demo.script import DemoResult

WANTED = (
    ("evaluate", "hamiltonian_mae_meV", "H, mean absolute error on a 3x3 cell not trained on (meV)"),
    ("evaluate", "hamiltonian_mae_meV_raw", "the same, energy zero not removed (meV)"),
    ("evaluate", "band_rmse_meV", "bands within 2 eV of the Fermi level, RMS error (meV)"),
    ("bands", "max_difference_aligned_eV", "primitive cell, bands against OpenMX, largest difference (eV)"),
    ("bands", "mean_difference_aligned_eV", "primitive cell, bands against OpenMX, mean difference (eV)"),
    ("predict", "seconds", "prediction of the primitive cell (s)"),
)


def write_report(result: DemoResult, quick: bool) -> Path:
    """Write report.md into the demo's folder and give its path."""
    rows = [
        f"| {text} | {_number(result.figures.get(step, {}).get(key))} |"
        for step, key, text in WANTED
        if result.figures.get(step, {}).get(key) is not None
    ]
    warning = ["Made with `--quick`: trained for seconds only, the figures mean nothing.", ""] if quick else []
    lines = [
        "# hamnet demo: graphene",
        "",
        *warning,
        f"A network learned {result.figures.get('read_train', 0)} OpenMX Hamiltonians of rattled 3x3 graphene cells, "
        "then predicted the primitive cell, which it had not seen. "
        f"All steps took {result.figures['seconds']:.0f} s.",
        "",
        "| figure | value |",
        "|---|---|",
        *rows,
        "",
        "OpenMX's own real-space grid leaves about 0.06 meV that no equivariant model can learn.",
        "",
        "![bands: predicted and OpenMX](bands.png)",
        "",
        "## Commands",
        "",
        "```sh",
        *result.commands,
        "```",
        "",
    ]
    target = result.output / "report.md"
    temporary = target.with_name(".report.md.part")
    temporary.write_text("\n".join(lines), encoding="utf-8")
    os.replace(temporary, target)
    return target


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, (int, float)) else str(value)
