"""How far two sets of bands are apart on the same k-points."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hamnet.bands.band_structure import BandStructure
from hamnet.core.reference import ReferenceBands
from hamnet.errors import PhysicsError

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class BandComparison:
    """Differences of bands matched by k-point, spin and index.

    Args:
        max_difference: eV, as the numbers stand; the energy zero of both must be the same.
        max_difference_aligned: eV, after both Fermi levels were put at zero; None where one is unknown.
        mean_difference_aligned: eV, mean of the absolute aligned difference.
        shift: eV, mean signed difference: the constant between both energy zeros that fits best. In a gap the Fermi
            level is free, so that two codes differ by it where their bands do not.
        max_difference_shifted, mean_difference_shifted: eV, largest and mean absolute difference less that constant.
        n_compared: eigenvalues compared.
        window: (low, high) eV about the Fermi level; None for all.
        note: what people must know: bands left out.
    """

    max_difference: float
    max_difference_aligned: float | None
    mean_difference_aligned: float | None
    shift: float
    max_difference_shifted: float
    mean_difference_shifted: float
    n_compared: int
    window: tuple[float, float] | None
    note: str = ""


def compare(
    bands: BandStructure, reference: ReferenceBands, window: tuple[float, float] | None = None
) -> BandComparison:
    """Largest differences between bands and a reference on the reference's own k-points.

    Args:
        bands: computed on `reference.kpoints`.
        reference: what to compare with.
        window: (low, high) eV about the reference's Fermi level (the bands' own where it has none).

    Raises:
        PhysicsError: k-points or spins differ, the reference has more bands, or nothing lies in the window.
    """
    _check_same_points(bands, reference)
    n, wanted = reference.energies.shape[2], bands.energies.shape[2]
    projected = 0 if bands.n_projected is None else int(bands.n_projected.max(initial=0))
    if n > wanted + projected:
        raise PhysicsError(
            f"the reference has {n} bands, the calculation {wanted}: it is of another basis or another cell "
            f"({reference.source})"
        )
    note = ""
    if n != wanted:
        n = min(n, wanted)
        note = f"{wanted} bands against {reference.energies.shape[2]} in the reference: the lowest {n} were compared"
    mine, theirs = bands.energies[..., :n], reference.energies[..., :n]
    keep = np.isfinite(mine) & np.isfinite(theirs)
    if window is not None:
        fermi = reference.fermi_energy if reference.fermi_energy is not None else bands.fermi_energy
        if fermi is None:
            raise PhysicsError("a window is about the Fermi level, which neither the reference nor the bands have")
        relative = theirs - fermi
        keep &= (relative >= window[0]) & (relative <= window[1])
    if not keep.any():
        raise PhysicsError(f"no eigenvalue of the reference lies in the window {window} eV about its Fermi level")
    difference = (mine - theirs)[keep]
    aligned, mean = None, None
    if bands.fermi_energy is not None and reference.fermi_energy is not None:
        shifted = difference - (bands.fermi_energy - reference.fermi_energy)
        aligned, mean = float(np.abs(shifted).max()), float(np.abs(shifted).mean())
    shift = float(difference.mean())
    rest = np.abs(difference - shift)
    figures = float(np.abs(difference).max()), aligned, mean, shift, float(rest.max()), float(rest.mean())
    return BandComparison(*figures, int(keep.sum()), window, note)


def _check_same_points(bands: BandStructure, reference: ReferenceBands) -> None:
    mine, theirs = bands.energies.shape, reference.energies.shape
    if mine[0] != theirs[0]:
        raise PhysicsError(f"the bands have {mine[0]} spin channel(s), the reference {theirs[0]}: other spin settings")
    if mine[1] != theirs[1]:
        raise PhysicsError(
            f"the bands have {mine[1]} k-points, the reference {theirs[1]}: compute the bands on the reference's points"
        )
    off = np.abs(bands.path.kpoints - reference.kpoints).max(axis=1)
    if off.max() > 1e-6:
        at = int(off.argmax())
        raise PhysicsError(
            f"k-point {at} is {bands.path.kpoints[at]} here and {reference.kpoints[at]} in the reference: "
            "compute the bands on the reference's points"
        )
