"""Golden OpenMX calculations as test cases for the formats of other programs."""

from __future__ import annotations

from functools import cache

import numpy as np
from golden_files import golden

from hamnet.core.calculation import Calculation
from hamnet.testing import eigenvalues_at
from hamnet_preprocess.openmx import OpenMXReader

KPOINTS = np.array([[0.0, 0.0, 0.0], [0.13, -0.29, 0.0], [0.5, 0.0, 0.0]])


@cache
def openmx_case(name: str) -> Calculation:
    """A golden OpenMX calculation: graphene, hbn, bismuthene_soc, o2_spin, o2_noncollinear_soc, water."""
    return OpenMXReader().read(golden(f"openmx/{name}"), allow_unconverged=True)


def band_difference(first: Calculation, second: Calculation) -> float:
    """Largest difference (eV) of the eigenvalues of two calculations, each relative to its own Fermi energy."""
    found = [np.stack([eigenvalues_at(c, k) for k in KPOINTS]) - (c.fermi_energy or 0.0) for c in (first, second)]
    return float(np.abs(found[0] - found[1]).max())
