"""One Fock build against a database: the exact check of functional, orbital order and unit.

A converged H is the Fock matrix of its own occupied orbitals, F[D(H)] = H, and so only with the functional, the order
and the lengths that it was made with. Done on the smallest molecules of a file, where it takes a second.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hamnet.core.basis import Species
from hamnet.core.calculation import Calculation
from hamnet.core.conventions import CONVENTIONS, ORCA, PSI4, PYSCF, OrbitalConvention, dense_to_ours
from hamnet.core.structure import AtomicStructure
from hamnet.core.units import BOHR, HARTREE
from hamnet.errors import HamnetError, PhysicsError
from hamnet_preprocess.pyscf_fock import FockBuilder, Method, dense_of, density_of
from hamnet_preprocess.reader import reader
from hamnet_preprocess.row_database import query, rows_of, sources_below, split_row

FloatArray = NDArray[np.float64]
TOLERANCES = {"qh9": 2e-4, "schnorb": 2e-3, "nabladft": 2e-3}
"""Hartree, largest |F[D(H)] - H|. QH9's own settings leave 1e-5 of the SCF's threshold; other codes have another grid,
and ORCA's print has six digits. Another functional makes 1e-2, another order 1e-1."""
FUNCTIONALS = ("b3lyp5", "b3lyp", "pbe", "pbe0", "hyb_gga_xc_wb97x_d", "hf")
"""Tried when the stated one does not fit."""
ORDERS = {"qh9": PYSCF, "schnorb": ORCA, "nabladft": PSI4}
SIZES = {"qh9": "z", "nabladft": "z", "schnorb": "numbers"}
"""The column whose length grows with the number of atoms."""
MOST_TRIED = 5
"""Rows tried for each one that is wanted: rows may be broken."""


@dataclass(frozen=True)
class FockCheck:
    """What one Fock build found.

    Args:
        source: the row.
        method: functional, grid and charge of the build.
        deviation: Hartree, largest |F[D(H)] - H|.
        mean: Hartree, mean.
    """

    source: str
    method: str
    deviation: float
    mean: float


def check_databases(roots: Sequence[Path], reader_name: str, count: int) -> Iterator[FockCheck]:
    """`check_database` of every database at or below some folders.

    Raises:
        PhysicsError: as `check_database`.
    """
    files: dict[Path, None] = {}
    for root in map(Path, roots):
        place = split_row(root)
        inside = [place[0]] if place else [source.parent for source in sources_below(root, reader_name)]
        files |= dict.fromkeys(inside)
    for path in files:
        yield from check_database(path, reader_name, count)


def check_database(path: Path, reader_name: str, count: int) -> list[FockCheck]:
    """Fock builds of the smallest molecules of a database, of those with d orbitals where there are any.

    Args:
        path: the file.
        reader_name: "qh9", "schnorb" or "nabladft".
        count: how many; rows that cannot be read are passed over, since reading reports them.

    Raises:
        PhysicsError: H is not the Fock matrix of its own orbitals; the message says with what it would be.
        FormatError: no such database.
    """
    chosen: list[tuple[Calculation, Path]] = []
    simple: list[tuple[Calculation, Path]] = []
    for source in _smallest(path, reader_name, MOST_TRIED * count):
        if len(chosen) == count:
            break
        try:
            calculation = reader(reader_name).read(source)
        except HamnetError:
            continue
        # s and p do not show in which order d is
        (chosen if calculation.basis.maximum_l > 1 else simple).append((calculation, source))
    return [_check(calculation, reader_name, source) for calculation, source in chosen or simple[:count]]


def _smallest(path: Path, reader_name: str, count: int) -> Iterator[Path]:
    rows = rows_of(path, reader_name)
    order = f"SELECT rowid FROM {rows.table} ORDER BY length({SIZES[reader_name]}), rowid LIMIT {count:d}"
    place = {rowid: index for index, rowid in enumerate(rows.rowids)}
    for (rowid,) in query(path, order):
        yield path / str(place[rowid])


def _check(calculation: Calculation, reader_name: str, source: Path) -> FockCheck:
    method = Method.of(calculation)
    difference = fock_difference(calculation, method)
    found = FockCheck(str(source), method.text, float(np.abs(difference).max()), float(np.abs(difference).mean()))
    if found.deviation > TOLERANCES[reader_name]:
        raise PhysicsError(
            f"{source}: H is not the Fock matrix of its own orbitals ({method.text}): largest deviation "
            f"{found.deviation:.2g} Hartree, allowed {TOLERANCES[reader_name]:g}; "
            f"{_advice(calculation, method, ORDERS[reader_name], TOLERANCES[reader_name])}"
        )
    return found


def fock_difference(calculation: Calculation, method: Method) -> FloatArray:
    """(n, n) F[D(H)] - H in Hartree, our orbital order."""
    if calculation.hamiltonian is None:
        raise PhysicsError("the calculation has no Hamiltonian")
    builder = FockBuilder(calculation.structure, calculation.basis, method)
    hamiltonian = dense_of(calculation.hamiltonian)
    return _difference(builder, hamiltonian)


def _difference(builder: FockBuilder, hamiltonian: FloatArray) -> FloatArray:
    density = density_of(hamiltonian, builder.overlap, builder.n_electrons)
    result: FloatArray = (builder.build(density).fock - hamiltonian) / HARTREE
    return result


def _advice(calculation: Calculation, method: Method, stated: OrbitalConvention, allowed: float) -> str:
    """The one change of order, unit or functional after which H fits, or fits best."""
    found: list[tuple[float, str]] = []
    for what, structure, how, hamiltonian in _changes(calculation, method, stated):
        try:
            difference = _difference(FockBuilder(structure, calculation.basis, how), hamiltonian)
        except (HamnetError, NotImplementedError):  # S is not positive, or PySCF lacks the functional
            continue
        found.append((float(np.abs(difference).max()), what))
        if found[-1][0] <= allowed:
            break
    best, what = min(found, default=(float("nan"), "nothing"))
    return f"of one change at a time, {what} fits best: {best:.2g} Hartree"


def _changes(
    calculation: Calculation, method: Method, stated: OrbitalConvention
) -> Iterator[tuple[str, AtomicStructure, Method, FloatArray]]:
    """(what, structure, method, H) of every single change that is tried."""
    structure, basis = calculation.structure, calculation.basis
    if calculation.hamiltonian is None:
        return
    ours = dense_of(calculation.hamiltonian)
    kinds = [basis.species[k] for k in structure.species]
    raw = _from_ours(ours, stated, kinds)
    for name, convention in CONVENTIONS.items():
        yield f"the order of {name!r}", structure, method, dense_to_ours(raw, convention, kinds)
    for factor in (BOHR, 1 / BOHR):
        scaled = replace(structure, positions=structure.positions * factor)
        yield f"positions times {factor:.4f} (bohr or Angstrom)", scaled, method, ours
    for name in FUNCTIONALS:
        yield f"the functional {name!r}", structure, replace(method, xc=name), ours


def _from_ours(ours: FloatArray, convention: OrbitalConvention, kinds: list[Species]) -> FloatArray:
    """The dense matrix in a code's order: the inverse of `dense_to_ours`."""
    n = len(ours)
    index = dense_to_ours(np.arange(n * n, dtype=np.float64).reshape(n, n), replace(convention, signs={}), kinds)
    sign = dense_to_ours(np.ones((n, n)), convention, kinds)
    result = np.empty(n * n)
    result[index.astype(np.int64).reshape(-1)] = (ours * sign).reshape(-1)
    return result.reshape(n, n)
