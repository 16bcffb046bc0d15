"""How well labels themselves are known: the floor below which an error of H says nothing."""

from __future__ import annotations

import re
from collections.abc import Iterable

from hamnet.core.calculation import Provenance

GRID_NOISE = {2: (0.07, 0.34), 3: (0.017, 0.33), 4: (0.005, 0.012), 5: (0.0014, 0.003)}
"""Level of PySCF's grid -> uEh by which H of water and of ethanol (PBE/def2-SVP) change in the mean when the molecule
is turned: no equivariant model can follow that. One geometry each; another ethanol had 0.6 at level 3."""
SMALL = 4
"""Atoms up to which water's figure is taken."""
SCF_NOISE = (1e-9, 0.014)
"""conv_tol and uEh of ethanol's H (PBE/def2-SVP); 1e-7 leaves 1.6: in proportion."""
FITTING_SHIFT = 7.0
"""uEh by which density fitting shifts ethanol's H: all alike, so it is no noise, but labels with and without differ."""
PRINTED_NOISE = 0.25
"""uEh: six printed decimals, mean rounding."""
SINGLE_NOISE = 0.02
"""uEh: float32, mean rounding of water's H; 1 at the core levels."""


GRID_FLOOR = (
    "labels from OpenMX carry its real-space grid's noise, 0.02 to 0.08 meV in the mean: "
    "no equivariant model can go below that"
)


def label_noise(provenances: Iterable[Provenance], n_atoms: int) -> tuple[float | None, str]:
    """The largest known noise of the labels (uEh), and a sentence that says where it comes from.

    Args:
        provenances: of the calculations.
        n_atoms: of the largest molecule.

    Returns:
        floor: None where nothing is known.
        text: empty where nothing is known.
    """
    parts: dict[str, float] = {}
    fitted = set()
    for origin in provenances:
        if "openmx" in origin.code.lower():
            return None, GRID_FLOOR
        fitted.add("density fit" in origin.grid)
        parts |= _parts(origin, n_atoms > SMALL)
    if not parts:
        return None, ""
    name = max(parts, key=lambda key: parts[key])
    text = f"labels are known to about {parts[name]:.2g} uEh ({name}): an error below that says nothing"
    if fitted == {True, False}:
        text += f"; some labels are density-fitted and some not, which differ by {FITTING_SHIFT:g} uEh"
    return parts[name], text


def _parts(origin: Provenance, large: bool) -> dict[str, float]:
    parts: dict[str, float] = {}
    level, tolerance = re.search(r"level (\d)", origin.grid), re.search(r"conv_tol ([0-9.eE+-]+)", origin.convergence)
    if level:
        known = min(max(int(level[1]), min(GRID_NOISE)), max(GRID_NOISE))  # a coarser grid than was measured: at least
        parts[f"grid level {level[1]} turned against the molecule"] = GRID_NOISE[known][large]
    if tolerance:
        parts[f"SCF threshold {tolerance[1]}"] = SCF_NOISE[1] * float(tolerance[1]) / SCF_NOISE[0]
    if "six decimals" in origin.convergence:
        parts["printed with six decimals"] = PRINTED_NOISE
    if "float32" in origin.convergence:
        parts["kept in float32"] = SINGLE_NOISE
    return parts
