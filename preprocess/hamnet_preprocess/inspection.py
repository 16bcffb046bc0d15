"""inspect_source: what is in a store, a DFT folder, a .scfout or a chkfile, as figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from hamnet.core.basis import OrbitalBasis
from hamnet.core.blocks import BlockMatrix
from hamnet.core.calculation import Calculation
from hamnet.data.store import Store
from hamnet.errors import HamnetError
from hamnet_preprocess.sources import kind_of, open_source

SAMPLE = 200
"""Calculations that are read at most; evenly chosen from larger stores."""

Figures = dict[str, Any]


def inspect_source(path: str | Path) -> Figures:
    """Figures of a store, DFT folder, .scfout or chkfile.

    Lengths in Angstrom, energies in eV. Calculations that cannot be read are listed under "unreadable"; of more
    than 200 calculations an even sample is read and "inspected" says how many.

    Raises:
        FormatError: nothing that hamnet understands, or no calculation in it can be read.
    """
    path = Path(path)
    opened = open_source(path)
    chosen = np.unique(np.linspace(0, len(opened) - 1, min(len(opened), SAMPLE)).astype(int))
    each, unreadable, failure = [], [], None
    bases: dict[str, OrbitalBasis] = {}
    for k in chosen.tolist():
        name, read = opened[k]
        try:
            calculation = read()
        except HamnetError as error:
            failure = error
            unreadable.append({"name": name, "reason": f"{type(error).__name__}: {error}"})
            continue
        bases.setdefault(calculation.basis.hash, calculation.basis)
        each.append({"name": name, **calculation_figures(calculation)})
    if failure is not None and not each:
        raise failure
    figures: Figures = {
        "file": str(path),
        "kind": kind_of(path),
        "calculations": len(opened),
        "inspected": len(each),
        "unreadable": unreadable,
        **_summary(each),
        "basis": _basis_figures(bases.values()),
    }
    if figures["kind"] == "store":
        with Store(path) as store:
            figures["metadata"] = store.metadata
    figures["details"] = each
    return figures


def calculation_figures(calculation: Calculation) -> Figures:
    """Figures of one calculation."""
    structure, h = calculation.structure, calculation.hamiltonian
    symbols = Counter(_element(int(z)) for z in structure.atomic_numbers)
    return {
        "formula": "".join(f"{s}{n if n > 1 else ''}" for s, n in sorted(symbols.items())),
        "elements": sorted(symbols),
        "atoms": structure.n_atoms,
        "orbitals": calculation.overlap.n_orbitals,
        "periodic": structure.pbc.tolist(),
        "spin": calculation.spin.value,
        "overlap_pairs": calculation.overlap.pairs.n_pairs,
        "hamiltonian_pairs": None if h is None else h.pairs.n_pairs,
        "overlap_range": _range(calculation.overlap, calculation),
        "hamiltonian_range": None if h is None else _range(h, calculation),
        "diagonal_window": None if h is None else _diagonal_window(h),
        "eigenvalue_window": _window(calculation.eigenvalues),
        "fermi_energy": calculation.fermi_energy,
        "energy": calculation.energy,
        "n_electrons": calculation.n_electrons,
        "kmesh": calculation.kmesh,
        "electronic_temperature": calculation.electronic_temperature,
        "converged": calculation.converged,
        "forces": calculation.forces is not None,
        "reference_hamiltonian": calculation.reference_hamiltonian is not None,
        "provenance": asdict(calculation.provenance),
    }


def figures_text(figures: Figures) -> list[str]:
    """Lines for a person."""
    lines = [f"{figures['file']}: {figures['kind']}, {figures['calculations']} calculations"]
    if figures["inspected"] < figures["calculations"]:
        lines.append(f"  figures are of {figures['inspected']} of them")
    lines += [f"  cannot be read: {u['name']}: {u['reason']}" for u in figures["unreadable"]]
    lines.append(f"  elements          {' '.join(figures['elements'])}")
    lines += [f"  basis             {text}" for text in figures["basis"]]
    lines += [
        f"  atoms             {_span(figures['atoms'])}",
        f"  orbitals          {_span(figures['orbitals'])}",
        f"  pairs             {_span(figures['pairs'])} (overlap), {_span(figures['hamiltonian_pairs'])} (Hamiltonian)",
        f"  range             {_span(figures['overlap_range'], ' A')} (overlap), "
        f"{_span(figures['hamiltonian_range'], ' A')} (Hamiltonian)",
        f"  spin              {', '.join(figures['spin'])}",
        f"  diagonal of H     {_span(figures['diagonal_window'], ' eV')}",
        f"  eigenvalues       {_span(figures['eigenvalue_window'], ' eV')}",
        f"  Fermi energy      {_span(figures['fermi_energy'], ' eV')}",
        f"  not converged     {figures['unconverged']}",
    ]
    lines += [f"  made by           {text}" for text in figures["made_by"]]
    return lines


def _summary(each: list[Figures]) -> Figures:
    def span(*keys: str) -> list[float] | None:
        """Smallest and largest of a figure."""
        values = [entry[key] for entry in each for key in keys if entry[key] is not None]
        flat = np.concatenate([np.atleast_1d(np.asarray(v)) for v in values]) if values else np.zeros(0)
        return [flat.min().item(), flat.max().item()] if flat.size else None

    made_by = Counter(
        " ".join(filter(None, (p["code"], p["version"], p["functional"]))) for p in (e["provenance"] for e in each)
    )
    return {
        "elements": sorted({s for entry in each for s in entry["elements"]}),
        "atoms": span("atoms"),
        "orbitals": span("orbitals"),
        "pairs": span("overlap_pairs"),
        "hamiltonian_pairs": span("hamiltonian_pairs"),
        "overlap_range": span("overlap_range"),
        "hamiltonian_range": span("hamiltonian_range"),
        "spin": sorted({entry["spin"] for entry in each}),
        "diagonal_window": span("diagonal_window"),
        "eigenvalue_window": span("eigenvalue_window"),
        "fermi_energy": span("fermi_energy"),
        "unconverged": sum(not entry["converged"] for entry in each),
        "made_by": [f"{text} ({count})" for text, count in made_by.most_common()],
    }


def _basis_figures(bases: Iterable[OrbitalBasis]) -> list[str]:
    texts = {species.label: species for basis in bases for species in basis.species}
    return [
        species.describe() + ("" if species.radius is None else f", radius {species.radius:.3f} A")
        for species in texts.values()
    ]


def _range(matrix: BlockMatrix, calculation: Calculation) -> float:
    """Longest pair vector of a matrix in Angstrom."""
    return float(np.linalg.norm(matrix.pairs.vectors(calculation.structure), axis=1).max(initial=0.0))


def _diagonal_window(h: BlockMatrix) -> list[float] | None:
    """Least and largest diagonal element of the on-site blocks."""
    found = []
    for group in h.groups():
        blocks = group.blocks[h.pairs.on_site[group.pairs]]
        if blocks.size:
            diagonal = np.diagonal(blocks, axis1=-2, axis2=-1)
            found += [float(diagonal.real.min()), float(diagonal.real.max())]
    return [min(found), max(found)] if found else None


def _window(energies: Any) -> list[float] | None:
    if energies is None or not np.isfinite(energies).any():
        return None
    return [float(np.nanmin(energies)), float(np.nanmax(energies))]


def _element(number: int) -> str:
    from ase.data import chemical_symbols

    return "ghost" if number == 0 else str(chemical_symbols[number])


def _span(ends: list[float] | None, unit: str = "") -> str:
    if ends is None:
        return "none"
    low, high = (f"{x:.4f}" if isinstance(x, float) else str(x) for x in ends)
    return f"{low}{unit}" if low == high else f"{low} to {high}{unit}"
