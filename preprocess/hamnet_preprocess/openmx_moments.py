"""Magnetic moments of an OpenMX run where its .out does not print them: from the density matrix, or from the deck.

The .scfout holds the density matrix D beside S: m_i = sum over pairs (i, j, R) of D_ij(R) S_ij(R), Mulliken's moments
as the .out prints them. Files that were slimmed hold zeros there. A deck states moments before the SCF: up - down
electrons of each atom (columns 6, 7) along the angles theta, phi (columns 8, 9, degrees); the SCF keeps them only where
scf.Constraint.NC.Spin is on2 (direction and size) and the atom's flag (column 12) is 1. With `on` it keeps the
direction. Source of the columns and keywords: OpenMX's manual, versions 3.8 and 3.9.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hamnet.errors import FormatError, PhysicsError
from hamnet_preprocess.openmx_deck import Deck
from hamnet_preprocess.openmx_out import NO_MOMENT
from hamnet_preprocess.openmx_scfout import ScfoutHeader

FloatArray = NDArray[np.float64]

PLAIN_COLUMNS = 8
"""Words of a line of Atoms.SpeciesAndCoordinates without angles: seven, or eight with the +U switch."""
COLLINEAR, NON_COLLINEAR = 1, 3
"""SpinP of the file."""


@dataclass(frozen=True, eq=False)
class DeckMoments:
    """What a deck says of moments.

    Args:
        moments: (n_atoms, 3) Bohr magnetons, those that the SCF starts from.
        constraint: "off", "on" (direction) or "on2" (direction and size).
        flagged: (n_atoms,) the constraint applies.
    """

    moments: FloatArray
    constraint: str
    flagged: NDArray[np.bool_]

    @property
    def is_kept(self) -> bool:
        """The SCF holds every atom near its moment of the deck."""
        return self.constraint == "on2" and bool(self.flagged.all())


def deck_moments(deck: Deck, spin: int) -> DeckMoments:
    """Initial moments and constraints of a deck; zero without spin.

    Args:
        deck: the input.
        spin: SpinP: 0 none, 1 collinear (along z, no angles), 3 non-collinear.

    Raises:
        FormatError: a number of electrons or an angle is not one.
    """
    rows = deck.block("Atoms.SpeciesAndCoordinates")
    moments, flagged = np.zeros((len(rows), 3)), np.zeros(len(rows), dtype=np.bool_)
    for atom, row in enumerate(rows):
        with_angles = spin == NON_COLLINEAR and len(row) > PLAIN_COLUMNS
        try:
            up, down, theta, phi = map(float, row[5:9] if with_angles else (*row[5:7], "0", "0"))
        except ValueError as error:
            raise FormatError(
                f"{deck.path}: line {' '.join(row)!r} of atom {atom + 1} in the input deck: expected up and down "
                "electrons and, when non-collinear, two angles in degrees"
            ) from error
        theta, phi = np.radians((theta, phi))
        direction = np.array([np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi), np.cos(theta)])
        moments[atom] = (up - down) * direction if spin else 0.0
        flagged[atom] = with_angles and len(row) > 11 and row[11] == "1"
    text = deck.keys.get("scf.constraint.nc.spin", "off").lower() if spin == NON_COLLINEAR else "off"
    return DeckMoments(moments, text if text in ("on", "on2") else "off", flagged)


def density_moments(header: ScfoutHeader) -> FloatArray | None:
    """(n_atoms, 3) Mulliken moments from the file's density matrix, Bohr magnetons; None where it is zero, or no spin.

    OpenMX keeps D_ud with the other sign of its imaginary part: m_y = + 2 sum D_3 S.
    """
    if header.spin not in (COLLINEAR, NON_COLLINEAR):
        return None
    overlap = header.read_matrix("S")

    def trace(name: str) -> FloatArray:
        """(n_atoms,) sum of D S over each atom's pairs."""
        of_pairs = np.add.reduceat(header.read_matrix(name) * overlap, header.starts[:-1])
        return np.asarray(np.bincount(header.i, of_pairs, len(header.n_orbitals)), dtype=np.float64)

    up = trace("DM0")
    if not up.any():
        return None
    moments = np.zeros((len(header.n_orbitals), 3))
    moments[:, 2] = up - trace("DM1")
    if header.spin == NON_COLLINEAR:
        moments[:, 0], moments[:, 1] = 2 * trace("DM2"), 2 * trace("DM3")
    return moments


def moments_without_out(header: ScfoutHeader, deck: Deck) -> tuple[FloatArray | None, str]:
    """Moments of the state that H belongs to where no .out prints them, and where they are from or why there are none.

    Returns:
        (n_atoms, 3) Bohr magnetons, None below 1e-4 everywhere or where unknown; text for people.

    Raises:
        FormatError: the file or the deck cannot be read.
    """
    found = density_moments(header)
    if found is not None:
        return _some(found), "from the density matrix in the .scfout"
    said = deck_moments(deck, header.spin)
    if said.is_kept:
        return _some(said.moments), "as the deck constrains them (scf.Constraint.NC.Spin on2)"
    why = {
        "off": "the SCF was free to change those of the deck",
        "on": "the deck constrains their direction, not their size",
        "on2": f"the deck constrains {int(said.flagged.sum())} of {len(said.flagged)} atoms only",
    }[said.constraint]
    return None, f"no .out prints them, the density matrix in the .scfout is zero, and {why}"


def refuse_spiral(deck: Deck) -> None:
    """Refuse a spin spiral: its H belongs to a frame that turns from cell to cell.

    Raises:
        PhysicsError: scf.Generalized.Bloch is on.
    """
    if deck.keys.get("scf.generalized.bloch", "off").lower() == "on":
        raise PhysicsError(
            f"{deck.path}: a spin spiral (scf.Generalized.Bloch on): H is that of spins in a frame that turns from "
            "cell to cell, which hamnet does not know; use a supercell that holds the whole turn"
        )


def field_remark(deck: Deck) -> str | None:
    """What to beware of when H holds an applied magnetic field; None without one."""
    on = [
        key for key in ("scf.NC.Zeeman.Spin", "scf.NC.Zeeman.Orbital") if deck.keys.get(key.lower(), "").lower() == "on"
    ]
    if not on:
        return None
    return (
        f"{' and '.join(on)} on: H holds an applied field that is not among the network's inputs; do not mix this run "
        "with others"
    )


def _some(moments: FloatArray) -> FloatArray | None:
    return moments if np.abs(moments).max() > NO_MOMENT else None
