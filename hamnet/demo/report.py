"""report.md of `hamnet demo`: figures, plots and the commands that made them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hamnet.core.files import whole_file

if TYPE_CHECKING:
    from hamnet.demo.script import DemoResult

WANTED = (
    ("evaluate", "hamiltonian_mae_meV", "H, mean absolute error on a rattled 3x3 cell not trained on", "meV"),
    ("evaluate", "band_rmse_meV", "its bands within 2 eV of the Fermi level, RMS error", "meV"),
    ("bands", "mean_difference_aligned_eV", "primitive cell, bands from -10 to 3 eV, mean error", "eV"),
    ("bands", "max_difference_aligned_eV", "the same, largest error", "eV"),
    ("train", "seconds", "training", "s"),
    ("predict", "seconds", "prediction of H and S of the primitive cell", "s"),
    ("", "seconds", "all steps together", "s"),
)
PLOTS = (
    ("bands.png", "Bands of graphene: predicted (lines) and OpenMX (dashes)"),
    ("run/learning_curve.png", "Error of H while training"),
    ("evaluation/error_map.png", "Error of H by pair of shells, on the 3x3 cell not trained on"),
)


def write_report(result: DemoResult, quick: bool) -> Path:
    """Write report.md into the demo's folder and give its path."""
    warning = ["Made with `--quick`: trained for seconds only, the figures mean nothing.", ""] if quick else []
    plots = [f"![{text}]({name})\n\n*{text}.*\n" for name, text in PLOTS if (result.output / name).is_file()]
    lines = [
        "# hamnet demo: graphene",
        "",
        *warning,
        f"From {result.figures.get('read_train', 0)} OpenMX Hamiltonians of rattled 3x3 graphene cells a network "
        "learned to predict H. It never saw the primitive cell, whose bands are below.",
        "",
        *_table(result.figures),
        "",
        *_levels(result.figures.get("bands", {}).get("levels", [])),
        "",
        *plots,
        "OpenMX's own real-space grid leaves about 0.06 meV in H that no equivariant model can learn. "
        "More structures and more minutes bring the error down: see docs/training.md.",
        "",
        "## Commands",
        "",
        "```sh",
        *result.commands,
        "```",
        "",
    ]
    target = result.output / "report.md"
    with whole_file(target) as temporary:
        temporary.write_text("\n".join(lines), encoding="utf-8")
    return target


def _table(figures: Mapping[str, Any]) -> list[str]:
    rows = []
    for step, key, text, unit in WANTED:
        value = (figures.get(step, {}) if step else figures).get(key)
        if value is not None:
            rows.append(f"| {text} | {_number(value)} | {unit} |")
    return ["| figure | value | unit |", "|---|---:|---|", *rows]


def _levels(levels: Sequence[Mapping[str, Any]]) -> list[str]:
    rows = [
        f"| {row['k']} | {row['level']} | {row['dft_eV']:.2f} | {row['predicted_eV']:.2f} | "
        f"{row['predicted_eV'] - row['dft_eV']:+.2f} |"
        for row in levels
    ]
    head = ["| k | level (eV from the Fermi level) | OpenMX | predicted | error |", "|---|---|---:|---:|---:|"]
    return [*head, *rows] if rows else []


def _number(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, (int, float)) else str(value)
