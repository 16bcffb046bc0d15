"""`hamnet bands`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from hamnet.cli.common import JsonOption, Reporter
from hamnet.errors import ConfigError

if TYPE_CHECKING:
    from hamnet.bands.band_structure import BandEdge, BandStructure
    from hamnet.bands.compare import BandComparison
    from hamnet.bands.effective_mass import EffectiveMass
    from hamnet.bands.kpath import KPath
    from hamnet.core.calculation import Calculation
    from hamnet.core.reference import ReferenceBands

HELP = """Bands, gap and effective masses of any H and S: a store, a prediction, a DFT output.

Example: hamnet bands graphene/openmx.scfout --path G,M,K,G -o graphene_bands

With --compare X.Band the bands are computed on that file's own k-points and the largest differences reported.
"""


def register(app: typer.Typer) -> None:
    """Add the verb to the command."""
    app.command("bands", help=HELP)(bands)


def bands(
    file: Annotated[Path, typer.Argument(help="Store or prediction (.h5), .scfout, or a DFT folder.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for bands.png, .csv and .h5.")] = Path("bands"),
    path: Annotated[str | None, typer.Option(help='"auto", "G,M,K,G", "|" for a break, or "0 0 0, 0.5 0 0".')] = None,
    points: Annotated[int, typer.Option(help="k-points along the whole path.", min=2)] = 200,
    compare: Annotated[Path | None, typer.Option(help="A .Band file, or another calculation as FILE.")] = None,
    window: Annotated[str | None, typer.Option(help='Compare only in eV about E_F: "-10,5", or "5" for both.')] = None,
    project: Annotated[bool, typer.Option("--project", help="Draw fat bands: weights of species or orbitals.")] = False,
    project_by: Annotated[str, typer.Option(help="What --project draws: orbital or species.")] = "orbital",
    project_overlap: Annotated[float | None, typer.Option(help="Project out modes of S(k) below this.")] = None,
    name: Annotated[str | None, typer.Option(help="Which calculation of a store.")] = None,
    index: Annotated[int | None, typer.Option(help="Which calculation of a store, from 0.")] = None,
    emin: Annotated[float | None, typer.Option(help="Lower end of the plot, eV from E_F.")] = None,
    emax: Annotated[float | None, typer.Option(help="Upper end of the plot, eV from E_F.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Bands of one calculation, with files, figures and a comparison."""
    from hamnet.bands.band_structure import compute_bands
    from hamnet.bands.effective_mass import effective_masses
    from hamnet.bands.eigen import DenseSolver

    reporter = Reporter(as_json)
    limits = parse_window(window)
    calculation, label = _load(file, name, index)
    solver = DenseSolver(project_overlap)
    printed, other = (None, None) if compare is None else _load_reference(compare, label)
    kpath = _choose_path(calculation, path, points, printed)
    reporter.line(f"{label}: {calculation.hamiltonian and calculation.hamiltonian.n_orbitals} orbitals, {kpath.note}")
    if not calculation.converged:
        reporter.line("warning: the SCF behind this Hamiltonian did not converge; its bands are not a result")
    result = compute_bands(
        calculation, kpath, project_by if project else "none", solver=solver, progress=_progress(reporter)
    )
    if other is not None:
        printed = _as_reference(compute_bands(other, kpath, solver=solver), str(compare))
    masses = effective_masses(calculation, result, solver)
    comparison = None if printed is None else _compare(result, printed, limits)
    files = _write(result, output, printed, (emin, emax), label)
    _report(reporter, result, masses, comparison, files)


def parse_window(text: str | None) -> tuple[float, float] | None:
    """(low, high) from "-10,5", "-10 5", "-10:5" or "5" (which is -5 to 5).

    Raises:
        ConfigError: not one or two numbers, or low is not below high.
    """
    if text is None:
        return None
    try:
        numbers = [float(word) for word in text.replace(",", " ").replace(":", " ").split()]
    except ValueError:
        numbers = []
    if len(numbers) == 1:
        numbers = [-abs(numbers[0]), abs(numbers[0])]
    if len(numbers) != 2 or not numbers[0] < numbers[1]:
        raise ConfigError(
            f'--window {text!r}: expected "low,high" in eV about the Fermi level as "-10,5", or one number'
        )
    return numbers[0], numbers[1]


def _load(path: Path, name: str | None, index: int | None) -> tuple[Calculation, str]:
    from hamnet_preprocess.sources import open_source

    items = open_source(path)
    names = [entry for entry, _ in items]
    if not items:
        raise ConfigError(f"{path} holds no calculation")
    if name is not None:
        if name not in names:
            raise ConfigError(f"{path} has no calculation {name!r}; it has {_some(names)}")
        index = names.index(name)
    if index is None:
        if len(items) > 1:
            raise ConfigError(f"{path} holds {len(items)} calculations: give --name or --index; it has {_some(names)}")
        index = 0
    if not -len(items) <= index < len(items):
        raise ConfigError(f"--index {index}: {path} holds {len(items)} calculations, 0 to {len(items) - 1}")
    return items[index][1](), names[index]


def _some(names: list[str]) -> str:
    return ", ".join(names[:8]) + (f", ... ({len(names)} in all)" if len(names) > 8 else "")


def _load_reference(path: Path, label: str) -> tuple[ReferenceBands | None, Calculation | None]:
    if path.suffix == ".Band":
        from hamnet_preprocess.openmx_band import read_band

        return read_band(path), None
    from hamnet_preprocess.sources import open_source

    names = [entry for entry, _ in open_source(path)]
    return None, _load(path, label if label in names else None, None)[0]


def _choose_path(calculation: Calculation, path: str | None, points: int, printed: ReferenceBands | None) -> KPath:
    from hamnet.bands.kpath import band_path, path_from_points

    if printed is not None:
        if path is not None:
            raise ConfigError("--path and --compare with printed bands exclude each other: its k-points are the path")
        return path_from_points(printed.kpoints, calculation.structure, printed.labels)
    return band_path(calculation.structure, path or "auto", points)


def _progress(reporter: Reporter) -> Any:
    from time import monotonic

    last = monotonic()

    def say(done: int, total: int) -> None:
        nonlocal last
        if monotonic() - last > 5:  # seconds: small cells stay silent
            last = monotonic()
            reporter.line(f"  {done} of {total} k-points")

    return say


def _as_reference(other: BandStructure, source: str) -> ReferenceBands:
    from hamnet.core.reference import ReferenceBands

    return ReferenceBands(other.path.kpoints, other.energies, other.fermi_energy, other.path.labels, source)


def _compare(result: BandStructure, printed: ReferenceBands, limits: tuple[float, float] | None) -> BandComparison:
    from hamnet.bands.compare import compare

    return compare(result, printed, limits)


def _write(
    result: BandStructure,
    output: Path,
    printed: ReferenceBands | None,
    limits: tuple[float | None, float | None],
    label: str,
) -> dict[str, str]:
    from hamnet.bands.files import write_csv, write_h5
    from hamnet.bands.plot import plot_bands

    output.mkdir(parents=True, exist_ok=True)
    files = {kind: output / f"bands.{kind}" for kind in ("png", "csv", "h5")}
    source = "" if printed is None else Path(printed.source).name
    plot_bands(result, files["png"], printed, limits, "/".join(Path(label).parts[-2:]), source or "reference")
    write_csv(result, files["csv"])
    write_h5(result, files["h5"])
    return {kind: str(path) for kind, path in files.items()}


def _report(
    reporter: Reporter,
    result: BandStructure,
    masses: tuple[EffectiveMass, ...],
    comparison: BandComparison | None,
    files: dict[str, str],
) -> None:
    n_projected = 0 if result.n_projected is None else int(result.n_projected.max(initial=0))
    for line in _lines(result, masses, comparison, n_projected):
        reporter.line(line)
    reporter.line("written: " + ", ".join(files.values()))
    low, high = result.valence_edge, result.conduction_edge
    reporter.result(
        {
            "max_difference_eV": comparison and comparison.max_difference,
            "max_difference_aligned_eV": comparison and comparison.max_difference_aligned,
            "mean_difference_aligned_eV": comparison and comparison.mean_difference_aligned,
            "window_eV": comparison and comparison.window,
            "kpoints": len(result.path.kpoints),
            "gap_eV": result.gap,
            "vbm_eV": low and low.energy,
            "vbm": low and low.label,
            "cbm_eV": high and high.energy,
            "cbm": high and high.label,
            "is_direct": result.is_direct,
            "is_metal": result.is_metal,
            "fermi_eV": result.fermi_energy,
            "fermi_method": result.fermi_method,
            "effective_masses": [
                {"edge": m.edge, "direction": m.direction, "mass": m.mass, "fit": m.fit, "kpoint": m.kpoint}
                for m in masses
            ],
            "modes_projected": n_projected,
            "path": result.path.note,
            "files": files,
        }
    )


def _lines(
    result: BandStructure, masses: tuple[EffectiveMass, ...], comparison: BandComparison | None, n_projected: int
) -> list[str]:
    lines = []
    if result.fermi_energy is not None:
        lines.append(f"Fermi level {result.fermi_energy:.4f} eV ({result.fermi_method})")
    else:
        lines.append(f"Fermi level {result.fermi_method}: energies are absolute and no gap is given")
    low, high = result.valence_edge, result.conduction_edge
    if low is not None and high is not None:
        kind = "direct" if result.is_direct else "indirect"
        lines.append(f"gap {result.gap:.4f} eV, {kind}, on this path: {_edge('VBM', low)}, {_edge('CBM', high)}")
    elif result.is_metal:
        lines.append("no gap on this path: a metal, or bands that touch")
    lines += [_mass(mass) for mass in masses]
    if n_projected:
        lines.append(f"up to {n_projected} small mode(s) of S(k) were projected out at a k-point: as many bands fewer")
    if comparison is not None:
        lines.extend(_comparison_lines(comparison))
    return lines


def _edge(name: str, edge: BandEdge) -> str:
    return f"{name} {edge.energy:.4f} eV at {edge.label}"


def _mass(mass: EffectiveMass) -> str:
    if not np.isfinite(mass.mass):
        return f"mass {mass.edge} {mass.direction}: none, the band is flat"
    return f"mass {mass.edge} {mass.direction}: {mass.mass:.3f} m_e (parabola R^2 {mass.fit:.4f})"


def _comparison_lines(comparison: BandComparison) -> list[str]:
    where = "" if comparison.window is None else f" from {comparison.window[0]:g} to {comparison.window[1]:g} eV"
    lines = [f"largest difference {comparison.max_difference:.3e} eV over {comparison.n_compared} states{where}"]
    if comparison.max_difference_aligned is not None:
        lines.append(
            f"with Fermi levels aligned: largest {comparison.max_difference_aligned:.3e} eV, "
            f"mean {comparison.mean_difference_aligned:.3e} eV"
        )
    return [*lines, *([comparison.note] if comparison.note else [])]
