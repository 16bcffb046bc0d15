"""Twisted bilayers of a hexagonal sheet in commensurate cells, and the shifted bilayers that a model learns from.

Every place of a moire cell of small twist looks like two untwisted layers at some shift, so a training set is
shifted bilayers (`stacked_bilayer`), rattled by `perturb`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hamnet.errors import ConfigError, PhysicsError

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

LATTICE_TOLERANCE = 1e-3
"""The sheet's vectors may differ by this part of their length from a hexagonal lattice."""


@dataclass(frozen=True)
class Twist:
    """A commensurate twist: m a1 + (m + r) a2 of one layer is the same vector as (m + r) a1 + m a2 of the other.

    a1 and a2 are 60 degrees apart. Cells with r = 1 hold one moire period.
    (Lopes dos Santos, Peres, Castro Neto, PRB 86, 155449, 2012.)

    Args:
        m, r: positive integers without a common divisor.

    Raises:
        ConfigError: they are not.
    """

    m: int
    r: int = 1

    def __post_init__(self) -> None:
        if self.m < 1 or self.r < 1 or math.gcd(self.m, self.r) != 1:
            raise ConfigError(
                f"twist m = {self.m}, r = {self.r}: expected positive integers without a common divisor, as 1, 1 "
                "(21.79 degrees) or 31, 1 (1.05 degrees)"
            )

    @classmethod
    def nearest(cls, angle: float) -> Twist:
        """The twist with r = 1 whose angle is nearest to `angle` (degrees, above 0, at most 30).

        Raises:
            ConfigError: the angle is out of range.
        """
        if not 0.05 <= angle <= 30:
            raise ConfigError(f"angle is {angle} degrees, expected 0.05 to 30; 60 - angle is the other stacking of it")
        guess = (1 / (math.sqrt(3) * math.tan(math.radians(angle) / 2)) - 1) / 2
        return min((cls(max(1, math.floor(guess) + k)) for k in (0, 1)), key=lambda twist: abs(twist.angle - angle))

    @property
    def angle(self) -> float:
        """Degrees: tan(angle / 2) = r / (sqrt(3) (2 m + r))."""
        return math.degrees(2 * math.atan2(self.r, math.sqrt(3) * (2 * self.m + self.r)))

    @property
    def cells(self) -> int:
        """Primitive cells of each layer in the common cell."""
        return round(abs(float(np.linalg.det(self.lower))))

    @property
    def lower(self) -> IntArray:
        """(2, 2) rows: the common cell in the vectors a1, a2 of the lower layer; its rows are 120 degrees apart."""
        return self._rows(self.m, self.m + self.r)

    @property
    def upper(self) -> IntArray:
        """(2, 2) rows: the same cell in the vectors of the upper layer, which is turned by +angle."""
        return self._rows(self.m + self.r, self.m)

    def _rows(self, x: int, y: int) -> IntArray:
        if self.r % 3 == 0:
            # the sum of two vectors 60 degrees apart is a lattice vector three times: the cell is a third
            x, y = (x - y) // 3, (x + 2 * y) // 3
        return np.array([[x, y], [-x - y, x]])


def twisted_bilayer(
    sheet: Any, twist: Twist, distance: float = 3.35, vacuum: float = 15.0, centre: tuple[float, float] = (0.0, 0.0)
) -> Any:
    """Two copies of a hexagonal sheet, the upper turned by the angle of `twist`, in their common cell.

    Rigid: nothing is relaxed. The first lattice vector is along x, the second 120 degrees from it; tags are 1 for
    the lower and 2 for the upper layer.

    Args:
        sheet: `ase.Atoms` of one layer in its primitive cell, in the xy plane.
        twist: which commensurate cell.
        distance: Angstrom between the mean heights of the layers.
        vacuum: Angstrom of empty space above them.
        centre: axis of the turn, in fractions of the sheet's cell; layers lie exactly above each other there.

    Returns:
        `ase.Atoms`, 2 * len(sheet) * twist.cells of them, periodic along all three vectors.

    Raises:
        PhysicsError: the sheet is not hexagonal, or too thick for the distance.
    """
    vectors = _hexagonal(sheet)
    middle = np.asarray(centre) @ np.asarray(sheet.cell.array)[:2, :2]
    basis = np.asarray(sheet.positions) - np.append(middle, np.mean(sheet.positions[:, 2]))
    layers = []
    for rows in (twist.lower, twist.upper):
        places = _points(rows) @ vectors
        flat = (places[:, None] + basis[None, :, :2]).reshape(-1, 2) @ _turn_to_x(rows[0] @ vectors)
        layers.append(np.column_stack((flat, np.tile(basis[:, 2], len(places)))))
    length = float(np.linalg.norm(twist.lower[0] @ vectors))
    plane = length * np.array([[1.0, 0.0], [-0.5, math.sqrt(0.75)]])
    return _pile(sheet, layers, plane, distance, vacuum)


def stacked_bilayer(
    sheet: Any, shift: tuple[float, float] = (0.0, 0.0), distance: float = 3.35, vacuum: float = 15.0
) -> Any:
    """Two copies of a sheet without a twist, the upper shifted by fractions of the sheet's cell.

    For graphene (0, 0) is AA, (1/3, 1/3) with vectors 60 degrees apart is AB.

    Args:
        sheet: `ase.Atoms` of one layer, in the xy plane.
        shift: of the upper layer, in fractions of the first two lattice vectors.
        distance: Angstrom between the mean heights of the layers.
        vacuum: Angstrom of empty space above them.

    Returns:
        `ase.Atoms`, twice as many as in the sheet, periodic along all three vectors; tags as in `twisted_bilayer`.

    Raises:
        PhysicsError: the sheet is not flat in xy, or too thick for the distance.
    """
    plane = _flat(sheet)
    lower = np.asarray(sheet.positions) - [0.0, 0.0, np.mean(sheet.positions[:, 2])]
    upper = lower + np.append(np.asarray(shift) @ plane, 0.0)
    return _pile(sheet, [lower, upper], plane, distance, vacuum)


def _pile(sheet: Any, layers: list[FloatArray], plane: FloatArray, distance: float, vacuum: float) -> Any:
    from ase import Atoms

    thickness = float(np.ptp(sheet.positions[:, 2]))
    if not thickness < distance:
        raise PhysicsError(
            f"the sheet is {thickness:.2f} A thick and the layers are to be {distance:.2f} A apart (mean heights): "
            "they would go through each other; give a larger distance, or a sheet that is not cut by its cell"
        )
    copies = len(layers[0]) // len(sheet)
    height = distance + thickness + vacuum
    middle = (height - distance) / 2
    positions = np.concatenate([layers[0], layers[1] + [0.0, 0.0, distance]]) + [0.0, 0.0, middle]
    cell = np.zeros((3, 3))
    cell[:2, :2], cell[2, 2] = plane, height
    numbers = np.tile(sheet.numbers, 2 * copies)
    return Atoms(numbers, positions, cell=cell, pbc=True, tags=np.repeat([1, 2], len(layers[0])))


def _flat(sheet: Any) -> FloatArray:
    """(2, 2) in-plane vectors of a sheet, refused when they leave the xy plane."""
    cell = np.asarray(sheet.cell.array)
    if np.abs(cell[:2, 2]).max() > LATTICE_TOLERANCE or abs(np.linalg.det(cell[:2, :2])) < LATTICE_TOLERANCE:
        raise PhysicsError(f"the sheet's first two vectors are {cell[:2].tolist()}, expected two in the xy plane")
    return cell[:2, :2].copy()


def _hexagonal(sheet: Any) -> FloatArray:
    """(2, 2) vectors a1, a2 of a hexagonal sheet, a2 turned by +60 degrees from a1."""
    first, second = _flat(sheet)
    if first[0] * second[1] < first[1] * second[0]:
        first, second = second, first
    if first @ second < 0:
        second = first + second
    expected = first @ np.array([[0.5, math.sqrt(0.75)], [-math.sqrt(0.75), 0.5]])
    if np.linalg.norm(second - expected) > LATTICE_TOLERANCE * np.linalg.norm(first):
        lengths = np.linalg.norm(np.asarray(sheet.cell.array)[:2], axis=1)
        raise PhysicsError(
            f"the sheet's vectors are {lengths[0]:.4f} and {lengths[1]:.4f} A long and not hexagonal: expected equal "
            "lengths and 60 or 120 degrees; other lattices have no commensurate cells of this kind"
        )
    return np.array([first, expected])


def _turn_to_x(vector: FloatArray) -> FloatArray:
    """(2, 2) matrix T: rows times T are turned so that `vector` is along x."""
    x, y = vector / np.linalg.norm(vector)
    return np.array([[x, -y], [y, x]])


def _points(rows: IntArray) -> IntArray:
    """(cells, 2) integer points inside the cell whose rows are given, counted exactly."""
    (a, b), (c, d) = rows.tolist()
    cells = a * d - b * c
    corners = np.array([[0, 0], [a, b], [c, d], [a + c, b + d]])
    low, high = corners.min(axis=0), corners.max(axis=0)
    grid = np.stack(np.meshgrid(*(np.arange(low[k], high[k] + 1) for k in (0, 1)), indexing="ij"), axis=-1)
    points: IntArray = grid.reshape(-1, 2)
    fractions = points @ np.array([[d, -b], [-c, a]])
    return points[np.all((fractions >= 0) & (fractions < cells), axis=1)]
