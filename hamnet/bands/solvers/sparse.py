"""SparseEigensolver: shift-invert Lanczos on a sparse LDL^H, with counts that prove that no state is missed."""

from __future__ import annotations

import time
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, diags
from threadpoolctl import threadpool_limits

from hamnet.bands.eigen import MINIMUM_RECIPROCAL_CONDITION
from hamnet.bands.solvers.factor import Factor, Kind, NotPositiveDefinite, check_factor_memory, make_factor
from hamnet.bands.solvers.lanczos import BLOCK, nearest_states
from hamnet.bands.solvers.protocol import RESIDUAL_TOLERANCE, ChannelStates, Need
from hamnet.core.bloch_sparse import SparseBloch, SparsePattern
from hamnet.core.calculation import Calculation
from hamnet.errors import ConvergenceError, PhysicsError

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
NUDGE = 1e-5
"""eV: how far a shift or a count that meets an eigenvalue is moved."""
ASYMMETRY = 1e-6
"""eV: H further than this from hermitian is refused; only its upper triangle is read."""
OVERLAP_ADVICE = (
    "The basis is linearly dependent or S is wrong (cut off, other basis): mend S; for cells that fit dense "
    "matrices small modes can be projected out with --project-overlap 1e-6"
)


class SparseEigensolver:
    """States of a large cell about an energy.

    Args:
        calculation: with a Hamiltonian.
        engine: "auto", "pardiso" or "superlu".
        threads: of BLAS and of the factorisation; pinned, since more of them hinder each other.

    Raises:
        PhysicsError: there is no Hamiltonian, or H or S is not hermitian.
    """

    def __init__(self, calculation: Calculation, engine: str = "auto", threads: int = 1) -> None:
        if calculation.hamiltonian is None:
            raise PhysicsError("this calculation has no Hamiltonian (overlap only): states need H and S")
        for name, matrix in (("H", calculation.hamiltonian), ("S", calculation.overlap)):
            worst, pair = matrix.hermitian_residual()
            if worst > ASYMMETRY:
                raise PhysicsError(
                    f"{name} is not hermitian: {worst:.1e} at pair {matrix.describe_pair(pair)}, "
                    f"at most {ASYMMETRY:g} is accepted; symmetrise it (`BlockMatrix.symmetrised`)"
                )
        spin = calculation.hamiltonian.spin
        self.pattern = SparsePattern.of([calculation.hamiltonian, calculation.overlap], spin, upper=True)
        self._h = SparseBloch(calculation.hamiltonian, self.pattern)
        self._s = SparseBloch(calculation.overlap, self.pattern)
        self._engine, self._threads = engine, threads
        self._factors: dict[Kind, Factor] = {}
        self._proved: tuple[bytes, float] | None = None

    @property
    def n_rows(self) -> int:
        """Rows of H(k)."""
        return self.pattern.size

    @property
    def n_channels(self) -> int:
        """2 for collinear spins, else 1."""
        return self._h.n_channels

    def is_real(self, kpoint: FloatArray) -> bool:
        """True at time-reversal points without spin-orbit coupling: half the memory, a quarter of the work."""
        return self._h.is_real(kpoint) and self._s.is_real(kpoint)

    def need(self, kpoint: FloatArray, n_bands: int, certify: bool) -> Need:
        """Time and memory of `window`, from the symbolic analysis (done here, once) and the speed of this machine."""
        real = self.is_real(kpoint)
        cost = self._factor(Kind.REAL if real else Kind.HERMITIAN).cost
        item = 8 if real else 16
        vectors = 2 * item * self.n_rows * 6 * n_bands
        matrices = self.pattern.n_entries * (6 * item + 12)
        counting = 1 if real or not certify else 2
        memory = counting * cost.memory + vectors + matrices
        # S, the shift and both ends of the window; at complex k a count costs twice a factor.
        factors = 1 if not certify else 4 if real else 6
        entries = cost.entries or 20 * self.pattern.n_entries
        flops = cost.flops if cost.flops else 30.0 * entries * (1 if real else 4)
        blocks = 6 * n_bands / BLOCK
        seconds = self.n_channels * (factors * flops + blocks * BLOCK * 16 * entries) / machine_rate()
        numbers = "real" if real else "complex"
        text = f"sparse LDL^H ({numbers}, {self.n_rows} rows, {entries / 1e6:.1f} million entries in L)"
        return Need(seconds, memory, text)

    def window(
        self, kpoint: FloatArray, centre: float, n_bands: int, *, vectors: bool = False, certify: bool = True
    ) -> list[ChannelStates]:
        """At least `n_bands` states nearest to an energy, for each channel; see `Eigensolver`."""
        with threadpool_limits(limits=self._threads, user_api="blas"):
            if certify:
                self.prove_overlap(kpoint)
            return [
                self._channel(kpoint, channel, centre, n_bands, vectors, certify) for channel in range(self.n_channels)
            ]

    def count(self, kpoint: FloatArray, energy: float) -> IntArray:
        """(n_channels,) states below an energy by Sylvester's law of inertia; S > 0 is proved first."""
        with threadpool_limits(limits=self._threads, user_api="blas"):
            self.prove_overlap(kpoint)
            real = self.is_real(kpoint)
            s = self._s.data(kpoint, 0, real)
            channels = range(self.n_channels)
            return np.array([self._count(self._h.data(kpoint, c, real), s, energy, real) for c in channels])

    def prove_overlap(self, kpoint: FloatArray) -> float:
        """Least eigenvalue of S(k) (an upper bound close to it), once its factor has proved S(k) > 0.

        Raises:
            PhysicsError: S(k) is not positive definite, or its condition leaves no digit.
        """
        key = np.asarray(kpoint, dtype=np.float64).tobytes()
        if self._proved is not None and self._proved[0] == key:
            return self._proved[1]
        data = self._s.data(kpoint, 0, self.is_real(kpoint))
        where = f"S(k) at k = {np.round(kpoint, 6).tolist()}"
        try:
            least = self._least_of_overlap(data, where)
        except NotPositiveDefinite as error:
            raise PhysicsError(
                f"{where} is not positive definite, so counts and bands mean nothing. {OVERLAP_ADVICE}"
            ) from error
        greatest = float(abs(self.full(data)).sum(axis=1).max())
        if least < MINIMUM_RECIPROCAL_CONDITION * greatest:
            raise PhysicsError(
                f"{where}: least eigenvalue {least:.1e}, greatest about {greatest:.1f}. {OVERLAP_ADVICE}"
            )
        self._proved = (key, least)
        return least

    def _least_of_overlap(self, data: NDArray[Any], where: str) -> float:
        """Least eigenvalue of S(k) from its Cholesky factor; NotPositiveDefinite where it has none."""
        factor = self._factor(Kind.HERMITIAN_POSITIVE if np.iscomplexobj(data) else Kind.REAL_POSITIVE)
        check_factor_memory(factor.cost, f"the Cholesky factor of S(k), {self.n_rows} rows,")
        factor.factorise(data)
        least = self._least_mode(factor, data)
        factor.free()
        return least

    def full(self, data: NDArray[Any]) -> csr_matrix:
        """Both triangles as CSR."""
        upper = self.pattern.matrix(data)
        return csr_matrix(upper + upper.conj().T - diags(upper.diagonal()))

    def matrices(self, kpoint: FloatArray, channel: int = 0) -> tuple[csr_matrix, csr_matrix]:
        """H(k) and S(k), both triangles; real where they are."""
        real = self.is_real(kpoint)
        return self.full(self._h.data(kpoint, channel, real)), self.full(self._s.data(kpoint, 0, real))

    def overlap_factor(self, kpoint: FloatArray) -> Factor:
        """Cholesky factor of S(k), ready to solve.

        Raises:
            PhysicsError: as `prove_overlap`.
        """
        self.prove_overlap(kpoint)
        real = self.is_real(kpoint)
        factor = self._factor(Kind.REAL_POSITIVE if real else Kind.HERMITIAN_POSITIVE)
        factor.factorise(self._s.data(kpoint, 0, real))
        return factor

    def _factor(self, kind: Kind) -> Factor:
        if kind not in self._factors:
            self._factors[kind] = make_factor(self.pattern, kind, self._engine, self._threads)
        return self._factors[kind]

    def _least_mode(self, factor: Factor, data: NDArray[Any]) -> float:
        vector = np.random.default_rng(0).normal(size=(self.n_rows, 2)).astype(data.dtype)
        for _ in range(12):  # inverse iteration: an upper bound within a few per cent is enough here
            vector = np.linalg.qr(factor.solve(vector))[0]
        small = vector.conj().T @ (self.full(data) @ vector)
        return float(np.linalg.eigvalsh(small)[0])

    def _channel(
        self, kpoint: FloatArray, channel: int, centre: float, n_bands: int, vectors: bool, certify: bool
    ) -> ChannelStates:
        real = self.is_real(kpoint)
        h, s = self._h.data(kpoint, channel, real), self._s.data(kpoint, 0, real)
        for more, block in ((1.1, 1), (1.3, 3), (1.8, 6)):  # a miss is an eigenvalue more degenerate than the block
            wanted = round(more * n_bands) + 4
            energies, states, mapped, residual = self._near(h, s, centre, wanted, block * BLOCK)
            low, high, keep = window_ends(energies, centre, n_bands)
            first = self._count(h, s, low, real) if certify else None
            if first is None or self._count(h, s, high, real) - first == int(keep.sum()):
                kept = states[:, keep] if vectors else None
                with_overlap = mapped[:, keep] if vectors else None
                return ChannelStates(energies[keep], first, kept, with_overlap, residual, certify)
        raise ConvergenceError(
            f"between {low:.6f} and {high:.6f} eV at k = {np.round(kpoint, 6).tolist()} counting finds another number "
            f"of states than the {int(keep.sum())} computed: some were missed; ask for fewer bands or move the energy"
        )

    def _near(
        self, h: NDArray[Any], s: NDArray[Any], centre: float, wanted: int, block: int
    ) -> tuple[FloatArray, NDArray[Any], NDArray[Any], float]:
        factor = self._factor(Kind.HERMITIAN if np.iscomplexobj(h) else Kind.REAL)
        check_factor_memory(factor.cost, f"the LDL^H factor of H - E S, {self.n_rows} rows,")
        hamiltonian, overlap = self.full(h), self.full(s)
        residual, failure = np.inf, ""
        for attempt in range(3):  # a shift on an eigenvalue shows in the residual, and a little aside it does not
            shift = centre + 137 * attempt * NUDGE
            try:
                factor.factorise(h - shift * s)
            except ConvergenceError as error:
                failure = f" ({error})"
                continue
            theta, states, mapped = nearest_states(
                factor.solve, overlap.__matmul__, self.n_rows, min(wanted, self.n_rows), h.dtype, block
            )
            factor.free()
            order = np.argsort(shift + 1 / theta)
            energies, states, mapped = (shift + 1 / theta)[order], states[:, order], mapped[:, order]
            residual = float(np.linalg.norm(hamiltonian @ states - mapped * energies, axis=0).max())
            if residual <= RESIDUAL_TOLERANCE:
                return energies, states, mapped, residual
        raise ConvergenceError(
            f"states about {centre:.6f} eV: residual {residual:.1e} eV, at most {RESIDUAL_TOLERANCE:.0e} is accepted: "
            f"S or H - E S is badly conditioned there; move the energy{failure}"
        )

    def _count(self, h: NDArray[Any], s: NDArray[Any], energy: float, real: bool) -> int:
        factor = self._factor(Kind.REAL if real else Kind.EMBEDDED)
        check_factor_memory(factor.cost, f"the factor that counts states of {self.n_rows} rows")
        failure: ConvergenceError | None = None
        for aside in (0, 1, -1, 3):
            try:
                factor.factorise(h - (energy + aside * NUDGE) * s)
                return factor.negative
            except ConvergenceError as error:
                failure = error
            finally:
                factor.free()
        raise ConvergenceError(f"states below {energy:.6f} eV cannot be counted: {failure}") from failure


def window_ends(energies: FloatArray, centre: float, n_bands: int) -> tuple[float, float, NDArray[np.bool_]]:
    """Ends of a window about the centre that lie between states, and which states are inside.

    Args:
        energies: (n,) states found, more than `n_bands`.
        centre: eV.
        n_bands: states that the window must hold at least.
    """
    distance = np.sort(np.abs(energies - centre))
    last = min(n_bands, len(distance)) - 1
    if last + 1 >= len(distance):
        radius = distance[-1] + NUDGE
    else:
        at = last + int(np.argmax(np.diff(distance[last:])))
        radius = (distance[at] + distance[at + 1]) / 2
    return centre - radius, centre + radius, np.abs(energies - centre) < radius


@cache
def machine_rate() -> float:
    """Floating-point operations that one thread does in a second of its own time, by a small matrix product."""
    a = np.random.default_rng(0).normal(size=(400, 400))
    with threadpool_limits(limits=1, user_api="blas"):
        a @ a
        start = time.process_time()
        for _ in range(4):
            a @ a
    return 0.5 * 4 * 2 * 400**3 / (time.process_time() - start)  # sparse factors reach half the rate of dense products
