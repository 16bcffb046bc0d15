"""Orbital order and sign of every code as named signed permutations: the only place that permutes orbitals.

hamnet's own order inside a shell is m = -l..l of the standard real harmonics without Condon-Shortley sign
(p: y, z, x; d: xy, yz, z2, xz, x2-y2). A convention says where each of ours stands in the code's order:
ours[m] = sign[m] * code[order[m]].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hamnet.core.basis import Species
from hamnet.errors import BasisError


@dataclass(frozen=True)
class OrbitalConvention:
    """Order and signs of one code's real orbitals.

    Args:
        name: the code.
        orders: l -> index into the code's orbitals for each of ours; an absent l means the identity.
        signs: l -> sign of each of ours; an absent l means +.
        maximum_l: largest l for which the convention is known.
    """

    name: str
    orders: dict[int, tuple[int, ...]] = field(default_factory=dict)
    signs: dict[int, tuple[int, ...]] = field(default_factory=dict)
    maximum_l: int = 6

    def shell(self, l: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Order and sign, both (2l+1,), of one shell.

        Raises:
            BasisError: the convention is not known for this l.
        """
        if l > self.maximum_l:
            raise BasisError(f"the orbital order of {self.name} is known up to l = {self.maximum_l}, found l = {l}")
        size = 2 * l + 1
        order = np.array(self.orders.get(l, tuple(range(size))), dtype=np.int64)
        sign = np.array(self.signs.get(l, (1,) * size), dtype=np.float64)
        return order, sign

    def species(self, species: Species) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Order and sign, both (n_orbitals,), for all shells of a species, shells staying in place."""
        parts = [self.shell(shell.l) for shell in species.shells]
        starts = [part.start for part in species.slices]
        order = np.concatenate([start + o for start, (o, _) in zip(starts, parts, strict=True)])
        return order, np.concatenate([s for _, s in parts])


def to_ours(blocks: NDArray[Any], convention: OrbitalConvention, row: Species, column: Species) -> NDArray[Any]:
    """Blocks (..., n_i, n_j) from the code's orbital order into ours."""
    (row_order, row_sign), (column_order, column_sign) = convention.species(row), convention.species(column)
    permuted = blocks[..., row_order[:, None], column_order[None, :]]
    result: NDArray[Any] = permuted * row_sign[:, None] * column_sign[None, :]
    return result


def from_ours(blocks: NDArray[Any], convention: OrbitalConvention, row: Species, column: Species) -> NDArray[Any]:
    """Blocks (..., n_i, n_j) from our orbital order into the code's: the inverse of `to_ours`."""
    (row_order, row_sign), (column_order, column_sign) = convention.species(row), convention.species(column)
    signed = blocks * row_sign[:, None] * column_sign[None, :]
    result: NDArray[Any] = signed[..., np.argsort(row_order)[:, None], np.argsort(column_order)[None, :]]
    return result


def dense_to_ours(dense: NDArray[Any], convention: OrbitalConvention, atoms: Sequence[Species]) -> NDArray[Any]:
    """Dense matrix (n, n) of a molecule from the code's orbital order into ours, atoms staying in place.

    Args:
        dense: any matrix between all orbitals.
        convention: of the code.
        atoms: species of each atom.

    Raises:
        BasisError: the convention is not known for a shell.
    """
    known = {id(species): convention.species(species) for species in {id(s): s for s in atoms}.values()}
    parts = [known[id(species)] for species in atoms]
    starts = np.cumsum([0, *(species.n_orbitals for species in atoms)])
    order = np.concatenate([part + start for start, (part, _) in zip(starts, parts, strict=False)])
    sign = np.concatenate([signs for _, signs in parts])
    result: NDArray[Any] = dense[order[:, None], order[None, :]] * sign[:, None] * sign[None, :]
    return result


HAMNET = OrbitalConvention("hamnet")
OPENMX = OrbitalConvention("openmx", {1: (1, 2, 0), 2: (2, 4, 0, 3, 1), 3: (6, 4, 2, 0, 1, 3, 5)}, maximum_l=3)
PYSCF = OrbitalConvention("pyscf", {1: (1, 2, 0)})
ABACUS = OrbitalConvention(
    "abacus",
    {1: (2, 0, 1), 2: (4, 2, 0, 1, 3), 3: (6, 4, 2, 0, 1, 3, 5)},
    {1: (-1, 1, -1), 2: (1, -1, 1, -1, 1), 3: (-1, 1, -1, 1, -1, 1, -1)},
    maximum_l=3,
)
"""m = 0, 1, -1, 2, -2, ..., sign (-1)^m; p and d checked on ABACUS's own S of silicon, f as DeepH-pack converts it."""
SIESTA = OrbitalConvention("siesta", signs={l: tuple((-1) ** abs(m) for m in range(-l, l + 1)) for l in range(1, 7)})
"""m = -l..l, odd m flipped."""
CP2K = OrbitalConvention("cp2k")
"""m = -l..l, no signs."""
PSI4 = OrbitalConvention("psi4", ABACUS.orders, maximum_l=3)
"""m = 0, 1, -1, 2, -2, ..., no signs; as nablaDFT's own code converts it."""
ORCA = OrbitalConvention("orca", ABACUS.orders, maximum_l=2)
"""m = 0, 1, -1, 2, -2; from |m| = 3 on ORCA flips signs, which nobody has checked here: so up to d."""
CONVENTIONS = {c.name: c for c in (HAMNET, OPENMX, PYSCF, ABACUS, SIESTA, CP2K, PSI4, ORCA)}
