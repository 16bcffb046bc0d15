"""DenseEigensolver: all states by LAPACK behind the protocol of large cells; exact counts by counting."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from hamnet.bands.eigen import DenseSolver, Eigenstates, check_memory, dense_memory
from hamnet.bands.solvers.protocol import ChannelStates, Need
from hamnet.bands.solvers.sparse import machine_rate, window_ends
from hamnet.core.bloch import BlochSum
from hamnet.core.calculation import Calculation
from hamnet.core.spin import Spin
from hamnet.errors import PhysicsError

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
LAPACK_FLOPS = 100.0
"""Real operations per cubed row of a complex generalised eigenproblem with vectors."""


class DenseEigensolver:
    """States of a small cell; all of them are computed, whatever is asked for.

    Args:
        calculation: with a Hamiltonian.
        project_overlap: modes of S(k) below this are projected out; None refuses a bad S(k).
        threads: of BLAS.

    Raises:
        PhysicsError: there is no Hamiltonian, or memory does not suffice.
    """

    def __init__(self, calculation: Calculation, project_overlap: float | None = None, threads: int = 1) -> None:
        if calculation.hamiltonian is None:
            raise PhysicsError("this calculation has no Hamiltonian (overlap only): states need H and S")
        self._hamiltonian, self._overlap = BlochSum(calculation.hamiltonian), BlochSum(calculation.overlap)
        self._solver = DenseSolver(project_overlap)
        self._threads = threads
        self._kept: dict[bytes, Eigenstates] = {}
        check_memory(self._hamiltonian, False)

    @property
    def n_rows(self) -> int:
        """Rows of H(k)."""
        return self._hamiltonian.size

    @property
    def n_channels(self) -> int:
        """2 for collinear spins, else 1."""
        return 2 if self._hamiltonian.spin is Spin.COLLINEAR else 1

    def need(self, kpoint: FloatArray, n_bands: int, certify: bool) -> Need:
        """Time and memory of LAPACK."""
        seconds = self.n_channels * LAPACK_FLOPS * self.n_rows**3 / machine_rate()
        return Need(seconds, dense_memory(self._hamiltonian, True), f"LAPACK, all states of {self.n_rows} rows")

    def window(
        self, kpoint: FloatArray, centre: float, n_bands: int, *, vectors: bool = False, certify: bool = True
    ) -> list[ChannelStates]:
        """At least `n_bands` states nearest to an energy, for each channel; see `Eigensolver`."""
        states = self._states(kpoint, vectors)
        result = []
        for channel, all_energies in enumerate(states.energies):
            energies = all_energies[np.isfinite(all_energies)]
            keep = window_ends(energies, centre, n_bands)[2]
            kept, mapped = None, None
            if vectors and states.vectors is not None and states.overlap is not None:
                kept = states.vectors[channel][:, : len(energies)][:, keep]
                mapped = states.overlap @ kept
            result.append(ChannelStates(energies[keep], int(np.argmax(keep)), kept, mapped, 0.0, True))
        return result

    def count(self, kpoint: FloatArray, energy: float) -> IntArray:
        """(n_channels,) states below an energy."""
        return np.asarray((self._states(kpoint, False).energies < energy).sum(axis=1))

    def all_energies(self, kpoint: FloatArray) -> FloatArray:
        """(n_channels, n_rows) all energies in eV; NaN at the top where modes of S were projected out."""
        return self._states(kpoint, False).energies

    def all_states(self, kpoint: FloatArray) -> Eigenstates:
        """All states with their vectors."""
        return self._states(kpoint, True)

    def _states(self, kpoint: FloatArray, vectors: bool) -> Eigenstates:
        key = np.asarray(kpoint, dtype=np.float64).tobytes()
        kept = self._kept.get(key)
        if kept is not None and not vectors:
            return kept
        with threadpool_limits(limits=self._threads, user_api="blas"):
            states = self._solver.solve(self._hamiltonian, self._overlap, kpoint, vectors)
        # Energies alone are kept: a bisection asks for each k-point many times.
        self._kept[key] = Eigenstates(states.energies, None, None, states.n_projected)
        return states
