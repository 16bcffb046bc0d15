"""Writes a calculation as ABACUS would (the documented text format), for tests of its reader."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from ase.data import chemical_symbols

from hamnet.core.blocks import BlockMatrix
from hamnet.core.calculation import Calculation
from hamnet.core.conventions import ABACUS
from hamnet.core.spin import Spin
from hamnet.core.units import BOHR, RYDBERG
from hamnet_preprocess.code_blocks import elements_of, shell_text

THRESHOLD = 1e-10
"""ABACUS leaves out elements below this unless told otherwise (sparse threshold)."""


def write_abacus(calculation: Calculation, folder: Path, threshold: float = 0.0) -> None:
    """STRU above, OUT.ABACUS with matrices and log; atoms must stand grouped by species."""
    out = folder / "OUT.ABACUS"
    out.mkdir(parents=True)
    (folder / "STRU").write_text(_stru(calculation))
    doubled = calculation.spin is Spin.SPINOR
    (out / "data-SR-sparse_SPIN0.csr").write_text(_csr(calculation.overlap, "S", 1.0, threshold, doubled=doubled))
    h = calculation.hamiltonian
    for channel in range(0 if h is None else 2 if h.spin is Spin.COLLINEAR else 1):
        text = _csr(h, "H", RYDBERG, threshold, channel=channel, doubled=doubled)
        (out / f"data-HR-sparse_SPIN{channel}.csr").write_text(text)
    log = f" charge density convergence is achieved\n EFERMI = {calculation.fermi_energy:.12f} eV\n"
    (out / "running_scf.log").write_text(log)


def _stru(calculation: Calculation) -> str:
    structure, basis = calculation.structure, calculation.basis
    used = list(dict.fromkeys(structure.species.tolist()))
    symbols = [chemical_symbols[basis.species[k].atomic_number] for k in used]
    lines = ["ATOMIC_SPECIES", *(f"{s} 1.0 {s}.upf" for s in symbols), "", "NUMERICAL_ORBITAL"]
    for k, symbol in zip(used, symbols, strict=True):
        text = shell_text(basis.species[k].shell_ls)
        shells = "".join(text[i + 1] + text[i] for i in range(0, len(text), 2))
        lines.append(f"{symbol}_gga_7au_100Ry_{shells}.orb  # of our own making")
    lines += ["", "LATTICE_CONSTANT", f"{1 / BOHR:.17g}", "", "LATTICE_VECTORS"]
    lines += [" ".join(f"{x:.17g}" for x in row) for row in structure.lattice]
    lines += ["", "ATOMIC_POSITIONS", "Direct"]
    fractional = structure.positions @ np.linalg.inv(structure.lattice)
    for k, symbol in zip(used, symbols, strict=True):
        rows = fractional[structure.species == k]
        lines += ["", symbol, "0.0", str(len(rows)), *(" ".join(f"{x:.17g}" for x in row) + " 1 1 1" for row in rows)]
    return "\n".join(lines) + "\n"


def _csr(
    matrix: BlockMatrix, letter: str, unit: float, threshold: float, channel: int = 0, doubled: bool = False
) -> str:
    e = elements_of(matrix, ABACUS)
    row, column, value, shift = e.row, e.column, e.value / unit, e.shift
    if doubled and matrix.spin is Spin.NONE:
        row, column = np.concatenate((2 * row, 2 * row + 1)), np.concatenate((2 * column, 2 * column + 1))
        value, shift = np.concatenate((value, value)).astype(complex), np.concatenate((shift, shift))
    elif doubled:
        row, column = 2 * row + e.component // 2, 2 * column + e.component % 2
    elif matrix.spin is Spin.COLLINEAR:
        mine = e.component == channel
        row, column, value, shift = row[mine], column[mine], value[mine], shift[mine]
    keep = np.abs(value) > threshold
    row, column, value, shift = row[keep], column[keep], value[keep], shift[keep]
    size = matrix.n_orbitals * (2 if doubled else 1)
    images = np.unique(e.shift, axis=0)
    lines = ["STEP: 0", f"Matrix Dimension of {letter}(R): {size}", f"Matrix number of {letter}(R): {len(images)}"]
    for image in images:
        at = np.flatnonzero((shift == image).all(axis=1))
        at = at[np.lexsort((column[at], row[at]))]
        lines.append(f"{image[0]} {image[1]} {image[2]} {len(at)}")
        if len(at):
            starts = np.concatenate(([0], np.cumsum(np.bincount(row[at], minlength=size))))
            lines += [" ".join(map(_text, value[at])), " ".join(map(str, column[at])), " ".join(map(str, starts))]
    return "\n".join(lines) + "\n"


def _text(value: complex) -> str:
    return f"({value.real:.16e},{value.imag:.16e})" if isinstance(value, complex) else f"{value:.16e}"
