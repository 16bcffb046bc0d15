"""Metrics in float64: errors of H by species pair and shell pair, and of what H is for: eigenvalues and bands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, eigh

from hamnet.bands.band_structure import electrons
from hamnet.bands.fermi import state_factor
from hamnet.core.basis import OrbitalBasis
from hamnet.core.bloch import BlochSum
from hamnet.core.blocks import BlockMatrix
from hamnet.core.calculation import Calculation
from hamnet.core.spin import Spin
from hamnet.errors import PhysicsError
from hamnet.nn.dataset import overlap_like

FloatArray = NDArray[np.float64]
MILLI = 1000.0
BAND_WINDOW = 2.0
"""Bands within this distance (eV) of the Fermi level are scored."""
LARGEST_EIGENPROBLEM = 2500
"""Orbitals above which the bands of a structure are not scored: a dense eigenproblem takes minutes there."""
MESH_LENGTH = 15.0
"""The k mesh has about this many Angstrom of supercell along each periodic direction."""


@dataclass(frozen=True)
class ShellPairError:
    """Errors of all blocks of one shell pair of one ordered species pair.

    Args:
        species_i, species_j: labels.
        shell_i, shell_j: index of the shell inside the species.
        on_site: blocks (i, i, 0), or all others.
        mae, maximum: meV.
        count: real or complex numbers that were compared.
    """

    species_i: str
    species_j: str
    shell_i: int
    shell_j: int
    on_site: bool
    mae: float
    maximum: float
    count: int


@dataclass
class _Sum:
    total: float = 0.0
    maximum: float = 0.0
    count: int = 0

    def add(self, error: FloatArray) -> None:
        """Take in absolute errors."""
        if error.size:
            self.total += float(error.sum())
            self.maximum = max(self.maximum, float(error.max()))
            self.count += error.size

    @property
    def mean(self) -> float:
        """Mean of all; nan when there are none."""
        return self.total / self.count if self.count else float("nan")


def fitted_shift(difference: BlockMatrix, overlap: BlockMatrix) -> float:
    """mu = <dH, S> / <S, S> in eV, S in the layout of dH (spinor: S x 1)."""
    denominator = float(np.vdot(overlap.values, overlap.values).real)
    return float(np.vdot(overlap.values, difference.values).real) / denominator


class HamiltonianErrors:
    """Collects errors of H over structures, with the energy-zero shift taken out and raw, side by side.

    Args:
        basis: orbitals of the compared matrices.
    """

    def __init__(self, basis: OrbitalBasis) -> None:
        self.basis = basis
        self.shifts: list[float] = []
        self._all = _Sum()
        self._raw = _Sum()
        self._sites = {True: _Sum(), False: _Sum()}
        self._shells: dict[tuple[int, int, int, int, bool], _Sum] = {}

    def add(self, prediction: BlockMatrix, target: BlockMatrix, overlap: BlockMatrix, remove_shift: bool) -> float:
        """Compare one structure; returns mu (eV), 0 where the zero is kept.

        Args:
            prediction, target: H on the same pairs.
            overlap: spinless S.
            remove_shift: take mu S out of the difference first.
        """
        difference = target.with_values(prediction.values - target.values)
        self._raw.add(np.abs(difference.values))
        shift = 0.0
        if remove_shift:
            layout = overlap_like(overlap, target)
            shift = fitted_shift(difference, layout)
            difference = difference.with_values(difference.values - shift * layout.values)
        self.shifts.append(shift)
        self._all.add(np.abs(difference.values))
        self._add_shells(difference)
        return shift

    def _add_shells(self, difference: BlockMatrix) -> None:
        for group in difference.groups():
            own = difference.pairs.on_site[group.pairs]
            errors = np.abs(group.blocks)
            for site in (True, False):
                part = errors[own == site]
                self._sites[site].add(part)
                if part.size:
                    self._add_blocks(part, group.species_i, group.species_j, site, difference.spin)

    def _add_blocks(self, errors: FloatArray, a: int, b: int, site: bool, spin: Spin) -> None:
        n_i, n_j = int(self.basis.n_orbitals[a]), int(self.basis.n_orbitals[b])
        if spin is Spin.SPINOR:
            blocks = errors.reshape(-1, 2, n_i, 2, n_j)
        else:
            blocks = errors.reshape(-1, 1, n_i, 1, n_j)
        for k, rows in enumerate(self.basis.species[a].slices):
            for m, columns in enumerate(self.basis.species[b].slices):
                self._shells.setdefault((a, b, k, m, site), _Sum()).add(blocks[:, :, rows, :, columns])

    def shell_pairs(self) -> list[ShellPairError]:
        """One row for each ordered species pair, shell pair, and on-site or off-site."""
        labels = [species.label for species in self.basis.species]
        return [
            ShellPairError(labels[a], labels[b], k, m, site, MILLI * s.mean, MILLI * s.maximum, s.count)
            for (a, b, k, m, site), s in sorted(self._shells.items())
        ]

    def figures(self) -> dict[str, Any]:
        """Figures in meV under the names that `hamnet evaluate --json` uses."""
        return {
            "hamiltonian_mae_meV": MILLI * self._all.mean,
            "hamiltonian_mae_meV_raw": MILLI * self._raw.mean,
            "hamiltonian_max_meV": MILLI * self._all.maximum,
            "hamiltonian_max_meV_raw": MILLI * self._raw.maximum,
            "on_site_mae_meV": MILLI * self._sites[True].mean,
            "off_site_mae_meV": MILLI * self._sites[False].mean,
            "mean_shift_meV": MILLI * float(np.mean(self.shifts)) if self.shifts else float("nan"),
            "largest_shift_meV": MILLI * float(np.max(np.abs(self.shifts))) if self.shifts else float("nan"),
        }


@dataclass(frozen=True)
class SpectrumErrors:
    """Errors of eigenvalues of one structure in meV; None where it has no such figure.

    Args:
        bands: squared errors (meV^2) of bands within the window about the Fermi level, on a k mesh.
        occupied: absolute errors (meV) of occupied eigenvalues of a molecule.
        note: why a figure is missing.
    """

    bands: FloatArray
    occupied: FloatArray
    note: str = ""


class Spectrum:
    """Eigenvalues of a calculation that predictions are compared with, solved once; all with the calculation's own S.

    Args:
        calculation: truth; with H.

    Raises:
        PhysicsError: the calculation has no Hamiltonian.
    """

    def __init__(self, calculation: Calculation) -> None:
        if calculation.hamiltonian is None:
            raise PhysicsError("the calculation has no Hamiltonian to compare with")
        self.calculation = calculation
        self.spin = calculation.hamiltonian.spin
        self.note = ""
        size = calculation.hamiltonian.n_orbitals * (2 if self.spin is Spin.SPINOR else 1)
        if size > LARGEST_EIGENPROBLEM:
            self.note = f"{size} orbitals: too many for a dense eigenproblem"
            return
        self._overlap = BlochSum(calculation.overlap)
        self._kpoints = k_mesh(calculation)
        try:
            self._true = self._eigenvalues(calculation.hamiltonian)
        except LinAlgError as failure:
            self.note = f"eigenvalues failed: {failure}"
            return
        self._scored = self._choose()

    def _choose(self) -> NDArray[np.bool_]:
        """Which eigenvalues count: bands about the Fermi level, or the occupied levels of a molecule."""
        calculation, true = self.calculation, self._true
        count = electrons(calculation)
        order = np.sort(true.ravel())
        filled = int(round((count or 0.0) * len(true) / state_factor(self.spin)))
        if not count and calculation.fermi_energy is not None:
            filled = int((true < calculation.fermi_energy).sum())  # sources that name no electrons
        filled = min(max(filled, 1), len(order))
        if not calculation.structure.is_periodic:
            result: NDArray[np.bool_] = true <= order[filled - 1]
            return result
        fermi = (order[filled - 1] + order[min(filled, len(order) - 1)]) / 2
        result = np.abs(true - fermi) <= BAND_WINDOW
        return result

    def errors(self, prediction: BlockMatrix, shift: float) -> SpectrumErrors:
        """Errors of a predicted H on the pairs of the true one.

        Args:
            prediction: H.
            shift: mu (eV) by which the predicted eigenvalues lie too high.
        """
        none = np.zeros(0)
        if self.note:
            return SpectrumErrors(none, none, self.note)
        try:
            predicted = self._eigenvalues(prediction)
        except LinAlgError as failure:
            return SpectrumErrors(none, none, f"eigenvalues failed: {failure}")
        error = MILLI * (predicted - shift - self._true)[self._scored]
        if self.calculation.structure.is_periodic:
            return SpectrumErrors(np.square(error), none)
        return SpectrumErrors(none, np.abs(error))

    def _eigenvalues(self, matrix: BlockMatrix) -> FloatArray:
        """(n_k, n) eigenvalues in eV; collinear spins joined, each sorted."""
        total = BlochSum(matrix)
        rows = []
        for k in self._kpoints:
            s: NDArray[Any] = self._overlap.dense(k)
            s = np.kron(np.eye(2), s) if self.spin is Spin.SPINOR else s
            dense = total.dense(k)
            parts = dense if dense.ndim == 3 else dense[None]
            rows.append(np.concatenate([eigh(part, s, eigvals_only=True) for part in parts]))
        return np.array(rows)


def spectrum_errors(calculation: Calculation, prediction: BlockMatrix, shift: float) -> SpectrumErrors:
    """Compare eigenvalues of predicted and true H, both with the calculation's own S.

    Args:
        calculation: truth; with H.
        prediction: H on the pairs of the true one.
        shift: mu (eV) by which the predicted eigenvalues lie too high.

    Raises:
        PhysicsError: the calculation has no Hamiltonian.
    """
    return Spectrum(calculation).errors(prediction, shift)


def k_mesh(calculation: Calculation) -> FloatArray:
    """(n_k, 3) fractional k-points: Gamma-centred, one point along directions that are not periodic."""
    structure = calculation.structure
    lengths = np.linalg.norm(structure.lattice, axis=1)
    counts = [
        max(1, int(np.ceil(MESH_LENGTH / length))) if periodic else 1
        for length, periodic in zip(lengths, structure.pbc, strict=True)
    ]
    axes = [np.arange(n) / n for n in counts]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)


def spectrum_figures(errors: list[SpectrumErrors]) -> dict[str, Any]:
    """Root mean square over all scored bands, mean over occupied molecular levels, meV; None where there are none."""
    bands = np.concatenate([e.bands for e in errors]) if errors else np.zeros(0)
    occupied = np.concatenate([e.occupied for e in errors]) if errors else np.zeros(0)
    return {
        "band_rmse_meV": float(np.sqrt(bands.mean())) if bands.size else None,
        "occupied_mae_meV": float(occupied.mean()) if occupied.size else None,
        "notes": sorted({e.note for e in errors if e.note}),
    }
