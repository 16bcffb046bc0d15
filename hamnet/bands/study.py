"""All that `hamnet bands` says about one calculation: bands, masses, a comparison, files, lines and figures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from hamnet.bands.band_structure import BandEdge, BandStructure, compute_bands
from hamnet.bands.compare import BandComparison, compare
from hamnet.bands.effective_mass import EffectiveMass, effective_masses
from hamnet.bands.eigen import DenseSolver
from hamnet.bands.files import write_csv, write_h5
from hamnet.bands.kpath import KPath, band_path, path_from_points
from hamnet.bands.large import LargeSettings, window_bands
from hamnet.bands.plot import plot_bands
from hamnet.core.calculation import Calculation
from hamnet.core.reference import ReferenceBands
from hamnet.errors import PhysicsError

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class StudySettings:
    """What to compute and to draw.

    Args:
        path: "auto", "G,M,K,G" or fractional points; None: auto, or the reference's own k-points.
        points: k-points along the whole path.
        window: (low, high) eV about the Fermi level that the comparison looks at; None: all.
        project_by: "none", "orbital" or "species".
        project_overlap: modes of S(k) below this are projected out; None: none are.
        shown: (low, high) eV of the plot; None for an end chosen from the bands.
        title: heading of the plot.
        reference_name: what the legend calls the reference; empty: its file name.
        name: what the legend calls these bands; empty: "predicted", or that they were computed from a code's H and S.
        large: means for large cells; None: all bands by LAPACK.
        spin_axis: 0, 1 or 2: <s> of each state goes into the files, and this component colours the plot.
    """

    path: str | None = None
    points: int = 200
    window: tuple[float, float] | None = None
    project_by: str = "none"
    project_overlap: float | None = None
    shown: tuple[float | None, float | None] = (None, None)
    title: str = ""
    reference_name: str = ""
    name: str = ""
    large: LargeSettings | None = None
    spin_axis: int | None = None


@dataclass(frozen=True, eq=False)
class BandStudy:
    """Bands of one calculation and what follows from them.

    Args:
        bands: the bands.
        masses: effective masses at the edges of the gap.
        comparison: with the reference, if one was given.
        files: written files by kind: png, csv, h5.
    """

    bands: BandStructure
    masses: tuple[EffectiveMass, ...] = ()
    comparison: BandComparison | None = None
    files: dict[str, str] = field(default_factory=dict)

    def figures(self) -> dict[str, Any]:
        """Everything in numbers, for `--json`."""
        bands, comparison = self.bands, self.comparison
        low, high = bands.valence_edge, bands.conduction_edge
        return {
            "max_difference_eV": comparison and comparison.max_difference,
            "max_difference_aligned_eV": comparison and comparison.max_difference_aligned,
            "mean_difference_aligned_eV": comparison and comparison.mean_difference_aligned,
            "shift_eV": comparison and comparison.shift,
            "max_difference_shifted_eV": comparison and comparison.max_difference_shifted,
            "mean_difference_shifted_eV": comparison and comparison.mean_difference_shifted,
            "window_eV": comparison and comparison.window,
            "kpoints": len(bands.path.kpoints),
            "bands": bands.energies.shape[2],
            "first_band": bands.first_band,
            "gap_eV": bands.gap,
            "vbm_eV": low and low.energy,
            "vbm": low and low.label,
            "cbm_eV": high and high.energy,
            "cbm": high and high.label,
            "is_direct": bands.is_direct,
            "is_metal": bands.is_metal,
            "fermi_eV": bands.fermi_energy,
            "fermi_method": bands.fermi_method,
            "effective_masses": [
                {"edge": m.edge, "direction": m.direction, "mass": m.mass, "fit": m.fit, "kpoint": m.kpoint}
                for m in self.masses
            ],
            "modes_projected": self._projected(),
            "path": bands.path.note,
            "files": self.files,
        }

    def lines(self) -> list[str]:
        """The same for a person."""
        bands = self.bands
        if bands.fermi_energy is not None:
            lines = [f"Fermi level {bands.fermi_energy:.4f} eV ({bands.fermi_method})"]
        else:
            lines = [f"Fermi level {bands.fermi_method}: energies are absolute and no gap is given"]
        low, high = bands.valence_edge, bands.conduction_edge
        if low is not None and high is not None:
            kind = "direct" if bands.is_direct else "indirect"
            lines.append(f"gap {bands.gap:.4f} eV, {kind}, on this path: {_edge('VBM', low)}, {_edge('CBM', high)}")
        elif bands.is_metal:
            lines.append("no gap on this path: a metal, or bands that touch")
        lines += [_mass(mass) for mass in self.masses]
        if n := self._projected():
            lines.append(f"up to {n} small mode(s) of S(k) were projected out at a k-point: as many bands fewer")
        if self.comparison is not None:
            lines += _comparison_lines(self.comparison)
        return [*lines, "written: " + ", ".join(self.files.values())]

    def _projected(self) -> int:
        return 0 if self.bands.n_projected is None else int(self.bands.n_projected.max(initial=0))


def study_bands(
    calculation: Calculation,
    output: Path,
    reference: ReferenceBands | Calculation | None = None,
    settings: StudySettings | None = None,
    on_line: Callable[[str], None] = lambda _: None,
    progress: Progress | None = None,
) -> BandStudy:
    """Compute bands and masses, compare them, and write bands.png, bands.csv and bands.h5.

    Args:
        calculation: H and S.
        output: folder to write, made if need be.
        reference: printed bands (their k-points are the path) or another calculation (computed on the same path).
        settings: what to compute and draw.
        on_line: told what starts and what to beware of.
        progress: called with (k-points done, all).

    Raises:
        PhysicsError: bands and reference do not match.
    """
    settings = settings or StudySettings()
    path = _choose_path(calculation, settings, reference)
    orbitals = (calculation.hamiltonian or calculation.overlap).n_orbitals
    on_line(f"{orbitals} orbitals, {path.note}")
    if not calculation.converged:
        on_line("warning: the SCF behind this Hamiltonian did not converge; its bands are not a result")
    solver = DenseSolver(settings.project_overlap)
    masses: tuple[EffectiveMass, ...] = ()
    if settings.large is None:
        axis = settings.spin_axis
        bands = compute_bands(calculation, path, settings.project_by, None, progress, solver, axis)
        masses = effective_masses(calculation, bands, solver)
    else:
        bands = _window(calculation, path, settings, settings.large, output, on_line)
    if isinstance(reference, Calculation):
        reference = _as_reference(compute_bands(reference, path, solver=solver), settings.reference_name)
    if reference is not None and bands.first_band:
        reference = _cut(reference, bands)
    comparison = None if reference is None else compare(bands, reference, settings.window)
    if not settings.name:
        predicted = calculation.provenance.code == "hamnet"
        settings = replace(
            settings, name="predicted" if predicted else f"from H and S of {calculation.provenance.code}"
        )
    return BandStudy(bands, masses, comparison, _write(bands, output, reference, settings))


def _choose_path(
    calculation: Calculation, settings: StudySettings, reference: ReferenceBands | Calculation | None
) -> KPath:
    if isinstance(reference, ReferenceBands):
        path = path_from_points(reference.kpoints, calculation.structure, reference.labels)
        unused = "" if settings.path is None else f"; the path {settings.path} is not used"
        return replace(path, note=path.note + unused)
    return band_path(calculation.structure, settings.path or "auto", settings.points)


def _window(
    calculation: Calculation,
    path: KPath,
    settings: StudySettings,
    large: LargeSettings,
    output: Path,
    on_line: Callable[[str], None],
) -> BandStructure:
    """Some bands of a large cell; what each k-point gave stays in the folder `kpoints` for a run that resumes."""
    folder = output / "kpoints"
    return window_bands(calculation, path, large, folder, settings.project_by, settings.project_overlap, on_line)


def _cut(reference: ReferenceBands, bands: BandStructure) -> ReferenceBands:
    """The reference's bands with the same absolute indices."""
    last = bands.first_band + bands.energies.shape[2]
    if bands.first_band < 0 or reference.energies.shape[2] < last:
        raise PhysicsError(
            f"bands {bands.first_band} to {last - 1} of this cell are not in the reference, which has "
            f"{reference.energies.shape[2]}: compare with all bands of the same cell, with --certify"
        )
    return replace(reference, energies=reference.energies[..., bands.first_band : last])


def _as_reference(other: BandStructure, source: str) -> ReferenceBands:
    return ReferenceBands(other.path.kpoints, other.energies, other.fermi_energy, other.path.labels, source)


def _write(
    bands: BandStructure, output: Path, reference: ReferenceBands | None, settings: StudySettings
) -> dict[str, str]:
    output.mkdir(parents=True, exist_ok=True)
    files = {kind: output / f"bands.{kind}" for kind in ("png", "csv", "h5")}
    name = settings.reference_name or ("" if reference is None else Path(reference.source).name)
    label = "" if reference is None else settings.name
    plot_bands(bands, files["png"], reference, settings.shown, settings.title, name or "reference", label)
    write_csv(bands, files["csv"])
    write_h5(bands, files["h5"])
    return {kind: str(path) for kind, path in files.items()}


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
    lines.append(
        f"with a constant of {comparison.shift:+.3e} eV removed: largest {comparison.max_difference_shifted:.3e} eV, "
        f"mean {comparison.mean_difference_shifted:.3e} eV"
    )
    return [*lines, *([comparison.note] if comparison.note else [])]
