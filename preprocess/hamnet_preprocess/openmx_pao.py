"""OpenMX's .pao files: the radial functions of a basis.

A section `<pseudo.atomic.orbitals.L=l ... >` has one line for each point: ln r, r (bohr), then one column for each
radial function R_p(r). A basis s2p1 takes the first two columns of L=0 and the first of L=1. OpenMX interpolates the
columns by cubics whose slope at a point is that of the parabola through it and its two neighbours; near the cutoff,
where the points are sparse, this choice shows in S at 1e-5, so the radial functions kept here are these cubics.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicHermiteSpline

from hamnet.core.basis import SPECTROSCOPIC, OrbitalBasis, RadialFunction, Species
from hamnet.core.calculation import Calculation
from hamnet.core.overlap import two_centre_overlap
from hamnet.core.units import BOHR
from hamnet.errors import BasisError, FormatError, PhysicsError
from hamnet_preprocess.openmx_deck import Deck

FloatArray = NDArray[np.float64]

OPENING = "<pseudo.atomic.orbitals.L="
CLOSING = "pseudo.atomic.orbitals.L="
NORM_ERROR = 0.05
"""Largest |norm - 1|; OpenMX's tables with 500 points reach 0.015 (Mo), where the last points are sparse."""
NEGLIGIBLE = 1e-10
"""Values below this times the largest are the zeros beyond the cutoff radius."""
OVERLAP_ERROR = 1e-5
"""Largest difference to the S of the DFT calculation; OpenMX's own grids leave up to 1e-7."""


@dataclass(frozen=True, eq=False)
class PaoFile:
    """The tables of one .pao file.

    Args:
        path: the file.
        r: l -> (n_points,) distances in bohr.
        columns: l -> (n_points, n_functions) radial functions in bohr^(-3/2).
    """

    path: Path
    r: dict[int, FloatArray]
    columns: dict[int, FloatArray]

    def radial(self, l: int, which: int) -> RadialFunction:
        """The radial function number `which` (from 0) with angular momentum l.

        Raises:
            BasisError: the file has no such function.
            FormatError: the function is not normalised.
        """
        if l not in self.columns or which >= self.columns[l].shape[1]:
            have = {SPECTROSCOPIC[k]: table.shape[1] for k, table in sorted(self.columns.items())}
            raise BasisError(f"{self.path} has {have} radial functions: no {SPECTROSCOPIC[l]} number {which + 1}")
        r, values = self.r[l], self.columns[l][:, which]
        slopes = _parabola_slopes(r, values)
        large = np.flatnonzero(np.abs(values) > NEGLIGIBLE * np.abs(values).max())
        # the slope at the first zero after the last value is not zero yet: one more interval
        stop = int(large[-1]) + 3 if large.size else len(r)
        r, values, slopes = r[:stop], values[:stop], slopes[:stop]
        norm = _norm(r, values, slopes)
        if not abs(norm - 1) < NORM_ERROR:
            raise FormatError(
                f"{self.path}: {SPECTROSCOPIC[l]} number {which + 1} has the norm {norm:.6g}, expected 1: "
                "the table is cut short or damaged; take the file from OpenMX's DFT_DATA anew"
            )
        return RadialFunction(
            tuple((r * BOHR).tolist()), tuple((values / BOHR**1.5).tolist()), tuple((slopes / BOHR**2.5).tolist())
        )


def read_pao(path: Path | str) -> PaoFile:
    """The tables of a .pao file.

    Raises:
        FormatError: no such file, or it is not one, is cut short or damaged; the message names the line.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise FormatError(f"{path}: cannot be read: {error.strerror}") from error
    r, columns = {}, {}
    at = 0
    while at < len(lines):
        text = lines[at].strip()
        at += 1
        if not text.startswith(OPENING):
            continue
        l = _angular_momentum(path, at, text)
        stop = _closing(path, lines, at, l)
        table = _table(path, lines[at:stop], at)
        r[l], columns[l] = table[:, 1], table[:, 2:]
        at = stop + 1
    if not columns:
        raise FormatError(f"{path}: no section {OPENING}0: expected a .pao file of OpenMX's DFT_DATA (folder PAO)")
    return PaoFile(path, r, columns)


def _angular_momentum(path: Path, line: int, text: str) -> int:
    number = text.removeprefix(OPENING).split()[0] if text != OPENING else ""
    if not number.isdigit() or int(number) >= len(SPECTROSCOPIC):
        raise FormatError(f"{path}, line {line}: found {text!r}, expected {OPENING} and a number 0 to 6")
    return int(number)


def _closing(path: Path, lines: Sequence[str], start: int, l: int) -> int:
    for at in range(start, len(lines)):
        if lines[at].strip().startswith(f"{CLOSING}{l}>"):
            return at
        if lines[at].strip().startswith("<"):
            break
    raise FormatError(
        f"{path}, line {start}: the section {OPENING}{l} is not closed before line {min(at + 1, len(lines))}: "
        f"expected {CLOSING}{l}>; the file is cut short"
    )


def _table(path: Path, rows: Sequence[str], start: int) -> FloatArray:
    """(n_points, 2 + n_functions) numbers of a section that begins after line `start`."""
    numbers: list[list[float]] = []
    for line, row in enumerate(rows, start=start + 1):
        try:
            numbers.append([float(word) for word in row.split()])
        except ValueError as error:
            raise FormatError(f"{path}, line {line}: found {row.strip()[:60]!r}, expected numbers") from error
        if len(numbers[-1]) < 3 or len(numbers[-1]) != len(numbers[0]):
            raise FormatError(
                f"{path}, line {line}: found {len(numbers[-1])} numbers, expected {max(len(numbers[0]), 3)} "
                "(ln r, r, radial functions)"
            )
        if not np.isfinite(numbers[-1]).all():
            raise FormatError(f"{path}, line {line}: found a number that is not finite")
        if abs(np.exp(numbers[-1][0]) - numbers[-1][1]) > 1e-6 * numbers[-1][1]:
            raise FormatError(f"{path}, line {line}: r = {numbers[-1][1]} is not exp({numbers[-1][0]})")
        if len(numbers) > 1 and numbers[-1][1] <= numbers[-2][1]:
            raise FormatError(f"{path}, line {line}: r = {numbers[-1][1]} does not increase")
    if len(numbers) < 4:
        raise FormatError(f"{path}, line {start}: a section with {len(numbers)} points, expected some hundred")
    return np.array(numbers)


def _parabola_slopes(r: FloatArray, values: FloatArray) -> FloatArray:
    """Slope at each point of the parabola through it and its neighbours; at the ends, that of the last piece."""
    h = np.diff(r)
    secant = np.diff(values) / h
    inner = (secant[1:] * h[:-1] + secant[:-1] * h[1:]) / (h[:-1] + h[1:])
    return np.concatenate((secant[:1], inner, secant[-1:]))


def _norm(r: FloatArray, values: FloatArray, slopes: FloatArray) -> float:
    x, w = np.polynomial.legendre.leggauss(5)
    half = np.diff(r) / 2
    points = r[:-1, None] + half[:, None] * (x + 1)
    return float(np.sum(half[:, None] * w * (points * CubicHermiteSpline(r, values, slopes)(points)) ** 2))


# ---------------------------------------------------------------- files for a basis


def pao_folder(deck: Deck) -> Path | None:
    """The folder PAO under the deck's DATA.PATH (relative to the deck's folder); None where it does not exist."""
    path = deck.keys.get("data.path", "../DFT_DATA19")
    folder = (deck.path.parent / path).expanduser() / "PAO"
    return folder if folder.is_dir() else None


def with_radial_functions(basis: OrbitalBasis, folder: Path | str) -> OrbitalBasis:
    """The basis with the radial functions of a folder of .pao files; species labels are PAO names.

    Raises:
        BasisError: the folder lacks a file, or a file lacks a radial function; the message names it.
        FormatError: a file is damaged.
    """
    return OrbitalBasis(tuple(_with_radial_functions(species, Path(folder)) for species in basis.species))


@lru_cache(maxsize=64)
def _with_radial_functions(species: Species, folder: Path) -> Species:
    stem = species.label.removeprefix("ghost:").rsplit("-", 1)[0]
    path = folder / f"{stem}.pao"
    if not path.is_file():
        near = sorted(p.name for p in folder.glob(f"{stem[:1]}*.pao"))[:8] if folder.is_dir() else "no such folder"
        raise BasisError(
            f"species {species.label!r} needs {path}, which does not exist (there: {near}): "
            "give --pao the folder PAO of the DFT_DATA that OpenMX ran with"
        )
    file = read_pao(path)
    seen: dict[int, int] = {}
    shells = []
    for shell in species.shells:
        which = seen.get(shell.l, 0)
        seen[shell.l] = which + 1
        shells.append(replace(shell, radial=file.radial(shell.l, which)))
    return replace(species, shells=tuple(shells))


def attach(calculation: Calculation, folder: Path | str) -> Calculation:
    """The calculation with radial functions in its basis, once they have given its S again.

    Raises:
        BasisError, FormatError: as `with_radial_functions`.
        PhysicsError: S from the radial functions is not the calculation's: other .pao files, or optimised orbitals.
    """
    basis = with_radial_functions(calculation.basis, folder)
    overlap = calculation.overlap
    rebuilt = two_centre_overlap(calculation.structure, basis, overlap.pairs)
    difference = np.abs(rebuilt.values - overlap.values)
    at = int(difference.argmax())
    if difference[at] > OVERLAP_ERROR:
        p = int(np.searchsorted(overlap.offsets, at, side="right")) - 1
        i, j = int(overlap.pairs.i[p]), int(overlap.pairs.j[p])
        labels = [basis.species[calculation.structure.species[k]].label for k in (i, j)]
        raise PhysicsError(
            f"S from the .pao files in {folder} differs from that of {calculation.provenance.source} by "
            f"{difference[at]:.3g} at pair {overlap.describe_pair(p)} ({labels[0]}, {labels[1]}), expected at most "
            f"{OVERLAP_ERROR:g}: these are not the files that OpenMX ran with"
        )
    matrices = {
        name: replace(matrix, basis=basis)
        for name in ("overlap", "hamiltonian", "reference_hamiltonian", "density")
        if (matrix := getattr(calculation, name)) is not None
    }
    return replace(calculation, basis=basis, **matrices)
