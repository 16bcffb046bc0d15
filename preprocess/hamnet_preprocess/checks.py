"""The physics doctor: does a calculation obey the laws that hold for every DFT code?

Each check says what it measured, against which tolerance and, when it fails, at which atom pair.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError

from hamnet.core.blocks import BlockMatrix
from hamnet.core.calculation import Calculation
from hamnet.core.overlap import has_radial_functions, two_centre_overlap
from hamnet.core.spin import Spin, time_reversed
from hamnet.errors import HamnetError
from hamnet_preprocess.check_spectra import (
    LARGEST_DENSE,
    count_electrons,
    eigenvalues_at,
    overlap_spectrum,
    probe_kpoints,
    weakest_pair,
)

HERMITIAN_TOLERANCE = 1e-6
"""eV: readers symmetrise, and OpenMX's own asymmetry is about 1e-8 eV."""
OVERLAP_TOLERANCE = 1e-8
"""Asymmetry of S, and its least eigenvalue must be above this: the generalised eigenproblem breaks down below."""
EIGENVALUE_TOLERANCE = 5e-4
"""eV: k-points are printed with five decimals, and where these cannot be undone (an OpenMX mesh without its deck's
Kgrid) the dispersion makes 1.2e-4 eV of them; at known k-points the agreement is 1e-7 eV."""
EIGENVALUE_WINDOW = 5.0
"""eV above the Fermi level up to which eigenvalues are judged: the highest states of a nearly dependent basis disperse
most, so that five decimals of k make 2e-3 eV there (1e-4 below)."""
REBUILT_TOLERANCE = 1e-7
"""S from the basis against S of the code: the threshold at which codes drop integrals."""
TABLE_TOLERANCE = 1e-6
"""The same where both come from tabulated radial functions: OpenMX's own grids leave 1e-7."""
TIME_REVERSAL_TOLERANCE = 1e-4
"""eV: OpenMX leaves 5e-9 Hartree without magnetism; a sign error or a moment gives 1e-2 and more."""
NOTICEABLE_MOMENT = 1e-2
"""mu_B: smaller moments are what an SCF leaves of none."""
ELECTRON_TOLERANCE = 0.05
"""Electrons per atom: the mesh is ours, so a metal's count is not exact; a wrong valence gives 0.5 and more."""
REACH_TOLERANCE = 1e-4
"""Angstrom: radii are converted from bohr with another constant in some files."""


@dataclass(frozen=True)
class Finding:
    """What one check found in one calculation.

    Args:
        source: name of the calculation.
        check: name of the check.
        passed: whether the residual is within the tolerance.
        pair: atom pair "(i, j, [n1, n2, n3])" where the residual is; None when it belongs to no pair.
        residual: the largest deviation, in the unit that the message says; None when not measured.
        tolerance: what was allowed; None when the check has no number.
        message: what was found and what to do.
    """

    source: str
    check: str
    passed: bool
    pair: str | None
    residual: float | None
    tolerance: float | None
    message: str

    def as_dict(self) -> dict[str, Any]:
        """The same as plain values for JSON."""
        return asdict(self)


def check_file(path: Path) -> list[Finding]:
    """All findings of a store, a prediction, a .scfout, a chkfile or a DFT folder.

    A calculation that cannot be read is a finding too.

    Raises:
        FormatError: the file is none of these.
    """
    from hamnet_preprocess.sources import open_source

    return [finding for name, load in open_source(path) for finding in _check_loaded(name, load)]


def _check_loaded(name: str, load: Callable[[], Calculation]) -> list[Finding]:
    try:
        calculation = load()
    except HamnetError as error:
        return [Finding(name, "read", False, None, None, None, f"{type(error).__name__}: {error}")]
    return check_calculation(name, calculation)


def check_calculation(name: str, calculation: Calculation) -> list[Finding]:
    """All findings of one calculation, in a fixed order; checks that do not apply are left out.

    Args:
        name: what to call it in the findings.
        calculation: as a reader or a store gives it.
    """
    findings = [Finding(name, "converged", *_converged(calculation))]
    closed = True
    for label, matrix in _matrices(calculation):
        finding = Finding(name, f"key closure of {label}", *_key_closure(matrix))
        findings.append(finding)
        closed = closed and finding.passed
    if not closed:  # nothing below means anything when blocks lack their partners
        return findings
    for check in (_hermiticity, _pairs_of_overlap, _reach, _positive, _eigenvalues, _rebuilt, _reversal, _electrons):
        findings += [Finding(name, *outcome) for outcome in check(calculation)]
    return findings


Verdict = tuple[bool, str | None, float | None, float | None, str]
Outcome = tuple[str, bool, str | None, float | None, float | None, str]


def _matrices(calculation: Calculation) -> Iterator[tuple[str, BlockMatrix]]:
    yield "S", calculation.overlap
    if calculation.hamiltonian is not None:
        yield "H", calculation.hamiltonian


def _converged(calculation: Calculation) -> Verdict:
    if calculation.converged:
        return True, None, None, None, "the SCF reached its threshold"
    return False, None, None, None, "the SCF did not converge: H belongs to no density; rerun it with more iterations"


def _key_closure(matrix: BlockMatrix) -> Verdict:
    pairs = matrix.pairs
    back = pairs.reverse
    good = (pairs.i[back] == pairs.j) & (pairs.j[back] == pairs.i)
    good &= (pairs.cell_shift[back] == -pairs.cell_shift).all(axis=1)
    good &= back[back] == np.arange(pairs.n_pairs)
    if good.all():
        return True, None, 0.0, 0.0, f"each of {pairs.n_pairs} pairs has its reverse"
    where = matrix.describe_pair(int(np.flatnonzero(~good)[0]))
    bad = float((~good).sum())
    return False, where, bad, 0.0, f"{bad:.0f} pairs lack their reverse (j, i, -R): the file lost blocks"


def _hermiticity(calculation: Calculation) -> Iterator[Outcome]:
    for label, matrix in _matrices(calculation):
        residual, p = matrix.hermitian_residual()
        tolerance = OVERLAP_TOLERANCE if label == "S" else HERMITIAN_TOLERANCE
        unit = "" if label == "S" else " eV"
        text = f"largest |{label} - {label}^dagger| is {residual:.2e}{unit}"
        where = matrix.describe_pair(p) if residual else None
        yield f"hermiticity of {label}", residual <= tolerance, where, residual, tolerance, text


def _pairs_of_overlap(calculation: Calculation) -> Iterator[Outcome]:
    if calculation.hamiltonian is None:
        return
    at = calculation.hamiltonian.pairs.find(calculation.overlap.pairs)
    missing = np.flatnonzero(at < 0)
    where = calculation.overlap.describe_pair(int(missing[0])) if missing.size else None
    text = f"{missing.size} pairs of S are absent from H" + (": H was cut shorter than S" if missing.size else "")
    yield "pairs of S inside H", not missing.size, where, float(missing.size), 0.0, text


def _reach(calculation: Calculation) -> Iterator[Outcome]:
    species = calculation.structure.species
    radii = [calculation.basis.species[k].radius for k in species]
    if calculation.hamiltonian is None or any(r is None for r in radii):
        return
    reach = np.array(radii, dtype=np.float64)
    pairs = calculation.hamiltonian.pairs
    excess = np.linalg.norm(pairs.vectors(calculation.structure), axis=1) - reach[pairs.i] - reach[pairs.j]
    p = int(excess.argmax())
    residual = max(float(excess[p]), 0.0)
    passed = residual <= REACH_TOLERANCE
    where = None if passed else calculation.hamiltonian.describe_pair(p)
    text = f"pairs of H reach {residual:.2e} A beyond the orbitals' radii"
    yield "pairs of H inside the graph's", passed, where, residual, REACH_TOLERANCE, text


def _positive(calculation: Calculation) -> Iterator[Outcome]:
    overlap = calculation.overlap
    if overlap.n_orbitals > LARGEST_DENSE:
        return
    least, largest, k = overlap_spectrum(overlap, probe_kpoints(calculation.structure.pbc))
    passed = least > OVERLAP_TOLERANCE
    where = None if passed else weakest_pair(overlap, k)
    condition = f"condition {largest / least:.1e}" if passed else "the basis is linearly dependent or S is damaged"
    text = f"least eigenvalue of S is {least:.2e} at k = {np.round(k, 3).tolist()}; {condition}"
    yield "S positive definite", passed, where, float(least), OVERLAP_TOLERANCE, text


def _eigenvalues(calculation: Calculation) -> Iterator[Outcome]:
    stored = calculation.eigenvalues
    if calculation.hamiltonian is None or stored is None or calculation.overlap.n_orbitals > LARGEST_DENSE:
        return
    kpoints = np.zeros((1, 3)) if calculation.kpoints is None else calculation.kpoints
    chosen = np.unique(np.linspace(0, len(kpoints) - 1, 8).astype(int))
    try:
        ours = eigenvalues_at(calculation, kpoints[chosen])
    except LinAlgError as error:
        yield "eigenvalues", False, None, None, EIGENVALUE_TOLERANCE, f"H c = e S c cannot be solved: {error}"
        return
    n = min(ours.shape[-1], stored.shape[-1])
    difference = np.abs(ours[..., :n] - stored[:, chosen, :n])
    ceiling = np.inf if calculation.fermi_energy is None else calculation.fermi_energy + EIGENVALUE_WINDOW
    judged = np.isfinite(difference) & (ours[..., :n] <= ceiling)
    difference = np.where(judged, difference, 0.0)
    s, k, band = np.unravel_index(int(difference.argmax()), difference.shape)
    residual = float(difference[s, k, band])
    text = (
        f"largest deviation from the code's own eigenvalues is {residual:.2e} eV "
        f"(band {band}, k = {np.round(kpoints[chosen][k], 4).tolist()})"
    )
    passed = residual <= EIGENVALUE_TOLERANCE
    yield "eigenvalues", passed, None, residual, EIGENVALUE_TOLERANCE, text


def _rebuilt(calculation: Calculation) -> Iterator[Outcome]:
    used = [calculation.basis.species[k] for k in np.unique(calculation.structure.species)]
    overlap, tolerance = calculation.overlap, REBUILT_TOLERANCE
    if has_radial_functions(calculation.structure, calculation.basis):
        rebuilt = two_centre_overlap(calculation.structure, calculation.basis, overlap.pairs)
        tolerance = TABLE_TOLERANCE
    elif all(shell.exponents for species in used for shell in species.shells):
        from hamnet_preprocess.pyscf_overlap import overlap_from_basis

        rebuilt = overlap_from_basis(calculation.structure, calculation.basis, overlap.pairs)
    else:
        return
    residual, p = _largest(overlap, np.abs(rebuilt.values - overlap.values))
    passed = residual <= tolerance
    where = None if passed else overlap.describe_pair(p)
    text = f"S rebuilt from the basis differs by {residual:.2e}"
    advice = "" if passed else ": look at the orbital order, signs, units or the basis"
    yield "S rebuilt from the basis", passed, where, residual, tolerance, text + advice


def _reversal(calculation: Calculation) -> Iterator[Outcome]:
    hamiltonian, moments = calculation.hamiltonian, calculation.structure.moments
    magnetic = moments is not None and bool(np.abs(moments).max() > NOTICEABLE_MOMENT)
    if hamiltonian is None or hamiltonian.spin is not Spin.SPINOR or magnetic:
        return
    difference = np.zeros(len(hamiltonian.values))
    for group in hamiltonian.groups():
        part = slice(hamiltonian.offsets[group.pairs.start], hamiltonian.offsets[group.pairs.stop])
        difference[part] = np.abs(group.blocks - time_reversed(group.blocks)).reshape(-1)
    residual, p = _largest(hamiltonian, difference)
    passed = residual <= TIME_REVERSAL_TOLERANCE
    where = None if passed else hamiltonian.describe_pair(p)
    text = f"largest |H - T H T^-1| is {residual:.2e} eV"
    advice = "" if passed else ": the state is magnetic though no moments are given, or a spin block has a wrong sign"
    yield "time reversal", passed, where, residual, TIME_REVERSAL_TOLERANCE, text + advice


def _electrons(calculation: Calculation) -> Iterator[Outcome]:
    count = count_electrons(calculation)
    if count is None or calculation.n_electrons is None:
        return
    residual = abs(count - calculation.n_electrons) / calculation.structure.n_atoms
    text = f"{count:.3f} electrons below the Fermi level, expected {calculation.n_electrons:g} (deviation per atom)"
    yield "electron count", residual <= ELECTRON_TOLERANCE, None, residual, ELECTRON_TOLERANCE, text


def _largest(matrix: BlockMatrix, difference: NDArray[np.float64]) -> tuple[float, int]:
    at = int(difference.argmax())
    return float(difference[at]), int(np.searchsorted(matrix.offsets, at, side="right")) - 1
