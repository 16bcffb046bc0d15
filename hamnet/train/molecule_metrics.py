"""Errors that the molecular field publishes, for closed shells, many molecules of one size at a time.

With H C = S C e of the true H and of the predicted H', both with the true S, and the lowest N/2 orbitals occupied:

    occupied levels   mean over occupied k of |e'_k - e_k|
    HOMO, LUMO, gap   |error| of e_(N/2), e_(N/2 + 1) and their difference
    similarity        mean over occupied k of |c'_k . c_k| / (|c'_k| |c_k|), plain dot products of coefficients, as
                      QHNet and QH9 publish it; near-degenerate orbitals mix at no cost and spoil it
    subspace          ||P' - P||_F = sqrt(2) ||C'_virtual^T S C_occupied||_F with P = S^(1/2) C_occ C_occ^T S^(1/2):
                      sqrt(2 sum sin^2) of the angles between the occupied spaces; it does not see their rotations

Means are over molecules, each of which counts once, as published.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hamnet.bands.band_structure import electrons
from hamnet.core.blocks import BlockMatrix
from hamnet.core.calculation import Calculation
from hamnet.core.spin import Spin
from hamnet.core.units import HARTREE
from hamnet.errors import PhysicsError
from hamnet_preprocess.pyscf_fock import dense_of

FloatArray = NDArray[np.float64]
MICROHARTREE = 1e6 / HARTREE
"""uEh in an eV."""
STACK = 128
"""Molecules of one size that are solved at once."""
STACK_BYTES = 2**26
"""The same for large ones: bytes of the three matrices of all."""
KEYS = (
    "hamiltonian_mae_uEh",
    "on_site_mae_uEh",
    "off_site_mae_uEh",
    "occupied_mae_uEh",
    "homo_mae_uEh",
    "lumo_mae_uEh",
    "gap_mae_uEh",
    "coefficient_similarity",
    "subspace_distance",
)
"""Figures of each molecule, and their means."""


def is_closed_shell(calculation: Calculation) -> bool:
    """True for a molecule without spin whose electrons pair, fewer than its orbitals hold."""
    count = electrons(calculation)
    hamiltonian = calculation.hamiltonian
    if calculation.structure.is_periodic or hamiltonian is None or hamiltonian.spin is not Spin.NONE or not count:
        return False
    return abs(count / 2 - round(count / 2)) < 1e-6 and 0 < round(count / 2) <= hamiltonian.n_orbitals


@dataclass
class _Stack:
    names: list[str] = field(default_factory=list)
    matrices: list[tuple[FloatArray, FloatArray, FloatArray]] = field(default_factory=list)


class MoleculeErrors:
    """Collects predictions for closed-shell molecules and solves them in stacks of one size.

    Attributes:
        rows: name -> figures (KEYS), of all molecules once `finish` was called.
        notes: name -> why a molecule has no eigenvalues.
    """

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, Any]] = {}
        self.notes: dict[str, str] = {}
        self._weights: dict[str, int] = {}
        self._stacks: dict[tuple[int, int], _Stack] = {}

    def add(self, name: str, calculation: Calculation, prediction: BlockMatrix) -> None:
        """Take in one molecule (see `is_closed_shell`).

        Args:
            name: of the calculation.
            calculation: truth.
            prediction: H on the pairs of the true one, eV.
        """
        truth = calculation.hamiltonian
        if truth is None:
            raise PhysicsError(f"{name} has no Hamiltonian to compare with")
        n_occupied = round((electrons(calculation) or 0) / 2)
        self.rows[name] = matrix_errors(prediction, truth)
        self._weights[name] = n_occupied
        key = (truth.n_orbitals, n_occupied)
        stack = self._stacks.setdefault(key, _Stack())
        stack.names.append(name)
        stack.matrices.append((dense_of(calculation.overlap), dense_of(truth), dense_of(prediction)))
        if len(stack.names) >= min(STACK, max(1, STACK_BYTES // (24 * key[0] ** 2))):
            self._solve(key)

    def finish(self) -> None:
        """Solve what is left."""
        for key in list(self._stacks):
            self._solve(key)

    def _solve(self, key: tuple[int, int]) -> None:
        stack = self._stacks.pop(key)
        overlap, truth, prediction = (np.stack(matrices) for matrices in zip(*stack.matrices, strict=True))
        try:
            found = spectral_errors(overlap, truth, prediction, key[1])
        except np.linalg.LinAlgError:
            self._solve_singly(stack, key[1])
            return
        for k, name in enumerate(stack.names):
            self._note(name, found, k)

    def _note(self, name: str, found: dict[str, FloatArray], k: int) -> None:
        """Figures of molecule k of a stack; None for those that it does not have."""
        self.rows[name] |= {figure: float(v[k]) if np.isfinite(v[k]) else None for figure, v in found.items()}

    def _solve_singly(self, stack: _Stack, n_occupied: int) -> None:
        """One molecule of the stack cannot be solved: the others can."""
        for name, (overlap, truth, prediction) in zip(stack.names, stack.matrices, strict=True):
            try:
                found = spectral_errors(overlap[None], truth[None], prediction[None], n_occupied)
            except np.linalg.LinAlgError as failure:
                self.notes[name] = f"eigenvalues of {name} failed: {failure}"
                self.rows[name] |= dict.fromkeys(KEYS[3:])
                continue
            self._note(name, found, 0)

    def figures(self) -> dict[str, Any]:
        """Means over all molecules; without molecules, nothing."""
        if not self.rows:
            return {}
        self.finish()
        return {key: _mean([row[key] for row in self.rows.values()]) for key in KEYS}

    def occupied_mae(self) -> float | None:
        """Mean over all occupied levels of all molecules in eV; None when there is none."""
        self.finish()
        sums = [(row["occupied_mae_uEh"], self._weights[name]) for name, row in self.rows.items()]
        known = [(value * weight, weight) for value, weight in sums if value is not None]
        return sum(v for v, _ in known) / sum(w for _, w in known) / MICROHARTREE if known else None


def molecule_parts(figures: dict[str, Any]) -> list[str]:
    """The figures for a person, raw errors first; empty where there are no molecules."""
    if figures.get("hamiltonian_mae_uEh") is None:
        return []
    mean = figures["hamiltonian_mae_uEh"]
    parts = [f"H MAE {micro(mean)} uEh ({1e3 * mean / MICROHARTREE:.3g} meV, raw, mean over the molecules)"]
    names = {"occupied": "occupied levels", "homo": "HOMO", "lumo": "LUMO", "gap": "gap"}
    found = {text: figures[f"{key}_mae_uEh"] for key, text in names.items()}
    levels = [f"{text} {micro(value)}" for text, value in found.items() if value is not None]
    if levels:
        parts.append(", ".join(levels) + " uEh")
        parts.append(f"coefficient similarity {100 * figures['coefficient_similarity']:.3f} %")
        parts.append(f"occupied subspace ||P' - P|| {figures['subspace_distance']:.2g}")
    return parts


def micro(value: float) -> str:
    """A figure in uEh with three digits and without powers of ten."""
    return f"{value:.0f}" if value >= 1000 else f"{value:.3g}"


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def matrix_errors(prediction: BlockMatrix, truth: BlockMatrix) -> dict[str, Any]:
    """Mean absolute errors (uEh) of all blocks, of those on atoms (the field's "diagonal"), of those between atoms."""
    error = MICROHARTREE * np.abs(prediction.values - truth.values)
    own = np.repeat(truth.pairs.on_site, np.diff(truth.offsets))
    return {
        "hamiltonian_mae_uEh": float(error.mean()),
        "on_site_mae_uEh": float(error[own].mean()),
        "off_site_mae_uEh": None if own.all() else float(error[~own].mean()),
    }


def spectral_errors(
    overlap: FloatArray, truth: FloatArray, prediction: FloatArray, n_occupied: int
) -> dict[str, FloatArray]:
    """Errors of levels and orbitals, each (n_molecules,), under the names of `KEYS`.

    Args:
        overlap: (n_molecules, n, n).
        truth, prediction: (n_molecules, n, n) eV.
        n_occupied: doubly occupied orbitals of each molecule.

    Raises:
        LinAlgError: an S is not positive definite.
    """
    inverse: FloatArray = np.linalg.inv(np.linalg.cholesky(overlap))
    energies, orbitals = _solve_orthogonal(truth, inverse)
    predicted, guesses = _solve_orthogonal(prediction, inverse)
    error = MICROHARTREE * (predicted - energies)
    found = {
        "occupied_mae_uEh": np.abs(error[:, :n_occupied]).mean(axis=1),
        "homo_mae_uEh": np.abs(error[:, n_occupied - 1]),
    }
    if n_occupied < overlap.shape[-1]:
        found["lumo_mae_uEh"] = np.abs(error[:, n_occupied])
        found["gap_mae_uEh"] = np.abs(error[:, n_occupied] - error[:, n_occupied - 1])
    else:
        found["lumo_mae_uEh"] = found["gap_mae_uEh"] = np.full(len(error), np.nan)
    back = inverse.swapaxes(-1, -2)
    a, b = back @ orbitals[..., :n_occupied], back @ guesses[..., :n_occupied]
    cosine = np.abs((a * b).sum(axis=1)) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
    found["coefficient_similarity"] = cosine.mean(axis=1)
    mixed = guesses[..., n_occupied:].swapaxes(-1, -2) @ orbitals[..., :n_occupied]
    found["subspace_distance"] = np.sqrt(2 * np.square(mixed).sum(axis=(1, 2)))
    return found


def _solve_orthogonal(hamiltonian: FloatArray, inverse: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Energies and orbitals (columns) in the orthonormal basis L^-1 phi, S = L L^T."""
    energies, orbitals = np.linalg.eigh(inverse @ hamiltonian @ inverse.swapaxes(-1, -2))
    return energies, orbitals
