"""From any H and S to bands, gaps, Fermi levels and effective masses; no torch."""

from hamnet.bands.band_structure import BandStructure, compute_bands
from hamnet.bands.compare import BandComparison, compare
from hamnet.bands.effective_mass import EffectiveMass, effective_masses
from hamnet.bands.kpath import KPath, band_path, path_from_points
from hamnet.bands.plot import plot_bands

__all__ = [
    "BandComparison",
    "BandStructure",
    "EffectiveMass",
    "KPath",
    "band_path",
    "compare",
    "compute_bands",
    "effective_masses",
    "path_from_points",
    "plot_bands",
]
