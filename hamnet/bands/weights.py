"""Mulliken projections of states: how much of each state sits on which species or kind of orbital."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hamnet.bands.eigen import Eigenstates
from hamnet.core.basis import SPECTROSCOPIC, OrbitalBasis
from hamnet.core.spin import Spin
from hamnet.errors import ConfigError

FloatArray = NDArray[np.float64]
PROJECTIONS = ("none", "species", "orbital")


def projection_groups(
    basis: OrbitalBasis, species: NDArray[np.int64], spin: Spin, kind: str
) -> tuple[tuple[str, ...], FloatArray]:
    """Names of the groups and (n_groups, n_rows) zeros and ones: which rows of H(k) belong to which.

    Args:
        basis: orbitals.
        species: (n_atoms,) species of each atom.
        spin: layout of H; spinors have twice the rows.
        kind: "species" (by species label) or "orbital" (by label and s, p, d, ...).

    Raises:
        ConfigError: another kind.
    """
    if kind not in PROJECTIONS[1:]:
        raise ConfigError(f"projection {kind!r} is unknown: give one of {', '.join(PROJECTIONS)}")
    names: list[str] = []
    for k in species:
        label, shells = basis.species[k].label, basis.species[k].shells
        element = _element(label)
        short = element if sum(_element(s.label) == element for s in basis.species) == 1 else label
        for shell in shells:
            name = short if kind == "species" else f"{short} {SPECTROSCOPIC[shell.l]}"
            names.extend([name] * shell.size)
    groups = tuple(dict.fromkeys(names))
    table = np.array([[float(name == group) for name in names] for group in groups])
    return groups, np.hstack((table, table)) if spin is Spin.SPINOR else table


def _element(label: str) -> str:
    return label.split("-")[0].rstrip("0123456789.") or label


def mulliken_weights(states: Eigenstates, groups: FloatArray) -> FloatArray:
    """(n_spin, n_bands, n_groups) w = sum over the group's rows of Re(c* (S c)); each state's weights add up to 1.

    Raises:
        ConfigError: the states carry no vectors.
    """
    if states.vectors is None or states.overlap is None:
        raise ConfigError("projections need eigenvectors: solve with vectors")
    return np.stack([populations(c, states.overlap @ c, groups) for c in states.vectors])


def populations(vectors: NDArray[Any], overlap_vectors: NDArray[Any], groups: FloatArray) -> FloatArray:
    """(n_bands, n_groups) w = sum over the group's rows of Re(c* (S c)).

    Args:
        vectors: (n_rows, n_bands) c; overlap_vectors: S c.
        groups: (n_groups, n_rows) zeros and ones.
    """
    return np.asarray((groups @ np.real(vectors.conj() * overlap_vectors)).T)
