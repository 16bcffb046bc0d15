"""Bands that a DFT code itself has printed: what computed bands are compared with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class ReferenceBands:
    """Eigenvalues on a list of k-points, as a DFT code printed them.

    Args:
        kpoints: (n_k, 3) fractional.
        energies: (n_spin, n_k, n_bands) eV; n_spin is 1 (none, spinor) or 2 (collinear).
        fermi_energy: eV, on the same zero; None where the file has none.
        labels: (k index, label) of the ends of path segments.
        source: name of the file.
    """

    kpoints: NDArray[np.float64]
    energies: NDArray[np.float64]
    fermi_energy: float | None
    labels: tuple[tuple[int, str], ...] = ()
    source: str = ""
