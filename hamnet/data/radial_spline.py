"""Smooth functions of distance that vanish at a cutoff: penalised quintic splines by linear least squares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import BSpline

from hamnet.errors import PhysicsError

FloatArray = NDArray[np.float64]

DEGREE = 5
VANISHING = 3
"""Last splines left out: value, slope and curvature are zero at the cutoff."""
KNOT_SPACINGS = (0.4, 0.25, 0.15)
"""Distances between knots (Angstrom) to choose from."""
PENALTIES = (1e-16, 1e-14, 1e-12, 1e-10, 1e-8, 1e-6)
"""Weights of the squared third derivative to choose from, relative to the mean square of the design matrix."""
SEEN_RESOLUTION = 0.02
"""Distances in the data are remembered to this resolution (Angstrom)."""
INNER_MARGIN = 0.2
"""The splines reach this far (Angstrom) below the least distance in the data; a straight line continues them."""


@dataclass(frozen=True, eq=False)
class RadialSpline:
    """Several functions of distance on the same knots.

    Args:
        knots: (n_knots,) in Angstrom, ascending; the last is the cutoff, beyond which everything is zero.
        coefficients: (n_knots - 6, n_functions).
        seen: ascending distances in the data, thinned.
    """

    knots: FloatArray
    coefficients: FloatArray
    seen: FloatArray

    @property
    def cutoff(self) -> float:
        """Distance (Angstrom) from which on every function is zero."""
        return float(self.knots[-1])

    def __call__(self, distance: FloatArray) -> FloatArray:
        """(n, n_functions) values at distances (n,); continued by a straight line below the first knot."""
        spline = BSpline(self.knots, self.coefficients, DEGREE)
        start = float(self.knots[0])
        inside = np.clip(distance, start, self.cutoff)
        values: FloatArray = spline(inside)
        below = distance < start
        if below.any():
            values[below] += (distance[below] - start)[:, None] * spline.derivative()(start)
        values[distance >= self.cutoff] = 0.0
        return values

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Plain arrays."""
        return {"knots": self.knots, "coefficients": self.coefficients, "seen": self.seen}

    @classmethod
    def from_arrays(cls, arrays: dict[str, NDArray[Any]]) -> RadialSpline:
        """Spline from the arrays of `to_arrays`."""
        return cls(*(np.asarray(arrays[key], dtype=np.float64) for key in ("knots", "coefficients", "seen")))


def fit_radial(distance: FloatArray, values: FloatArray, cutoff: float) -> RadialSpline:
    """Penalised least squares; knots and penalty are those of least error on held-out distances.

    Minimises sum_n |f(d_n) - v_n|^2 + penalty * integral |f'''|^2; whole intervals of distance are held out, so
    that what is chosen interpolates well where the data have gaps.

    Args:
        distance: (n,) Angstrom, all below the cutoff.
        values: (n, n_functions).
        cutoff: Angstrom.

    Raises:
        PhysicsError: there are no data.
    """
    if len(distance) == 0:
        raise PhysicsError(f"no distances below the cutoff of {cutoff:.3f} A to fit functions of distance to")
    seen: FloatArray = (
        np.unique(np.round(distance / SEEN_RESOLUTION).astype(np.int64)).astype(np.float64) * SEEN_RESOLUTION
    )
    interval = np.unique(np.round(distance / (2 * SEEN_RESOLUTION)).astype(np.int64), return_inverse=True)[1]
    held_out = interval % 5 == 2
    best: tuple[float, float, float] = (np.inf, KNOT_SPACINGS[0], PENALTIES[2])
    if held_out.any():
        for spacing in KNOT_SPACINGS:
            knots = spline_knots(float(distance.min()), cutoff, spacing)
            fits = _solve(knots, distance[~held_out], values[~held_out], PENALTIES)
            design = spline_design(knots, distance[held_out])
            for penalty, coefficients in zip(PENALTIES, fits, strict=True):
                error = float(np.sqrt(np.mean((design @ coefficients - values[held_out]) ** 2)))
                best = min(best, (error, spacing, penalty))
    knots = spline_knots(float(distance.min()), cutoff, best[1])
    (coefficients,) = _solve(knots, distance, values, (best[2],))
    padded = np.concatenate((coefficients, np.zeros((VANISHING, values.shape[1]))))
    return RadialSpline(knots, padded, seen)


def spline_knots(least: float, cutoff: float, spacing: float) -> FloatArray:
    """Knots of quintic splines from a little below `least` to the cutoff, about `spacing` apart (Angstrom)."""
    start = min(max(least - INNER_MARGIN, 0.0), cutoff - spacing)
    count = max(int(np.ceil((cutoff - start) / spacing)), 4)
    inner = np.linspace(start, cutoff, count + 1)
    return np.concatenate((np.full(DEGREE, start), inner, np.full(DEGREE, cutoff)))


def spline_design(knots: FloatArray, distance: FloatArray) -> FloatArray:
    """(n, n_splines) values of the splines that vanish with slope and curvature at the last knot; distances inside."""
    inside = np.clip(distance, knots[0], knots[-1])
    design: FloatArray = BSpline.design_matrix(inside, knots, DEGREE).toarray()[:, :-VANISHING]
    return design


def _solve(
    knots: FloatArray, distance: FloatArray, values: FloatArray, penalties: tuple[float, ...]
) -> list[FloatArray]:
    """Coefficients for each penalty; one QR of the data, then small least-squares problems."""
    q, r = np.linalg.qr(spline_design(knots, distance))
    target = q.T @ values
    size = r.shape[1]
    grid = np.linspace(knots[0], knots[-1], 4 * size)
    third = BSpline(knots, np.eye(size + VANISHING), DEGREE).derivative(3)(grid)[:, :size]
    third *= np.linalg.norm(r) / np.sqrt(len(grid) * size)
    zeros = np.zeros((len(grid), values.shape[1]))
    right = np.concatenate((target, zeros))
    return [
        np.linalg.lstsq(np.concatenate((r, np.sqrt(penalty) * third)), right, rcond=1e-15)[0] for penalty in penalties
    ]
