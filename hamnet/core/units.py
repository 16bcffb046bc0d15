"""Units: inside hamnet every energy is in eV and every length in Angstrom (CODATA 2018).

Older converters use Bohr = 0.529177249 and Hartree = 27.2113845, which differ in the sixth digit:
compare at 1e-5 eV only with the same table.
"""

BOHR: float = 0.529177210903
"""Bohr radius in Angstrom."""

HARTREE: float = 27.211386245988
"""Hartree in eV."""

RYDBERG: float = HARTREE / 2
"""Rydberg in eV."""

BOLTZMANN: float = 8.617333262e-5
"""Boltzmann constant in eV / K."""

HBAR_SQUARED_OVER_ELECTRON_MASS: float = HARTREE * BOHR**2
"""hbar^2 / m_e in eV Angstrom^2: the effective mass is this over the band's curvature."""
