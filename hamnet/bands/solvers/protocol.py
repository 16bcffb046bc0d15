"""Eigensolver: the states of H(k) c = E S(k) c about an energy, and how many lie below one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
RESIDUAL_TOLERANCE = 1e-7
"""Largest norm of H c - E S c in eV, for c with c^dagger S c = 1, that is accepted as a solution."""


@dataclass(frozen=True, eq=False)
class ChannelStates:
    """States of one spin channel at one k-point, nearest to an energy.

    Args:
        energies: (n,) eV, ascending, without a hole.
        first: absolute index of the first, counted from the lowest state of the cell; None when not counted.
        vectors: (n_rows, n), c^dagger S c = 1; None when not asked for.
        overlap_vectors: (n_rows, n) S c; None when not asked for.
        residual: largest norm of H c - E S c, eV.
        certified: counts at both ends of the window equal the number of states found.
    """

    energies: FloatArray
    first: int | None
    vectors: NDArray[Any] | None
    overlap_vectors: NDArray[Any] | None
    residual: float
    certified: bool


@dataclass(frozen=True)
class Need:
    """What the states at one k-point will take, said before they are computed.

    Args:
        seconds: at each k-point, of one processor; an estimate good to a factor of two.
        memory: bytes at the peak of one process.
        text: solver and sizes for people.
    """

    seconds: float
    memory: int
    text: str


class Eigensolver(Protocol):
    """States of one calculation; what does not depend on k is worked out once."""

    @property
    def n_rows(self) -> int:
        """Rows of H(k): states in each channel."""

    @property
    def n_channels(self) -> int:
        """2 for collinear spins, else 1."""

    def need(self, kpoint: FloatArray, n_bands: int, certify: bool) -> Need:
        """Time and memory that `window` will take at this kind of k-point."""

    def window(
        self, kpoint: FloatArray, centre: float, n_bands: int, *, vectors: bool = False, certify: bool = True
    ) -> list[ChannelStates]:
        """At least `n_bands` states nearest to an energy, for each channel.

        Args:
            kpoint: (3,) fractional.
            centre: eV.
            n_bands: states wanted in each channel.
            vectors: keep them.
            certify: prove by counting that none is missed, and find the absolute index.

        Raises:
            ConvergenceError: not converged, a residual too large, or states missed.
            PhysicsError: S(k) is not positive definite, or memory does not suffice.
        """

    def count(self, kpoint: FloatArray, energy: float) -> IntArray:
        """(n_channels,) states below an energy, exact.

        Raises:
            PhysicsError: S(k) is not positive definite, so that counts would mean nothing.
        """
