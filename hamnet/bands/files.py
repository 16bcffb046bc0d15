"""Bands on disk: bands.csv for people and spreadsheets, bands.h5 for programs."""

from __future__ import annotations

import csv
from pathlib import Path

import h5py
import numpy as np

from hamnet.bands.band_structure import BandStructure, rows
from hamnet.core.files import whole_file


def write_csv(bands: BandStructure, path: Path) -> None:
    """One line for each state: spin, k index, distance, k, band, energy, energy from the Fermi level, weights."""
    header = ["spin", "k_index", "distance_1_per_A", "k1", "k2", "k3", "band", "energy_eV", "energy_minus_fermi_eV"]
    header += [] if bands.spins is None else ["s_x", "s_y", "s_z"]
    header += [f"weight_{name.replace(' ', '_')}" for name in bands.groups]

    with whole_file(path) as temporary, temporary.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(header)
        for s, k, n, energy in rows(bands):
            place = [f"{bands.path.distances[k]:.8f}", *(f"{x:.10f}" for x in bands.path.kpoints[k])]
            relative = "" if bands.fermi_energy is None else f"{energy - bands.fermi_energy:.9f}"
            weights = [] if bands.weights is None else [f"{w:.6f}" for w in bands.weights[s, k, n]]
            spins = [] if bands.spins is None else [f"{x:.6f}" for x in bands.spins[s, k, n]]
            table.writerow([s, k, *place, bands.first_band + n, f"{energy:.9f}", relative, *spins, *weights])


def write_h5(bands: BandStructure, path: Path) -> None:
    """Arrays with their units as attributes; `read` them with any HDF5 program."""
    with whole_file(path) as temporary, h5py.File(temporary, "w") as file:
        _fill(file, bands)


def _fill(file: h5py.File, bands: BandStructure) -> None:
    def put(name: str, values: object, unit: str, meaning: str) -> None:
        """One data set with its unit and meaning."""
        file[name] = values
        file[name].attrs["unit"] = unit
        file[name].attrs["meaning"] = meaning

    file.attrs["format"] = "hamnet bands"
    file.attrs["format_version"] = 1
    file.attrs["spin"] = bands.spin.value
    file.attrs["fermi_method"] = bands.fermi_method
    put("energies", bands.energies, "eV", "(n_spin, n_k, n_bands), absolute")
    put("first_band", bands.first_band, "", "index of the first band, from the lowest of the cell")
    put("kpoints", bands.path.kpoints, "fractional", "(n_k, 3), of the reciprocal rows of the cell")
    put("distances", bands.path.distances, "1/Angstrom", "(n_k,) along the path, 2 pi included")
    put("breaks", np.array(bands.path.breaks), "", "first k-point of each piece of the path")
    put("label_index", np.array([index for index, _ in bands.path.labels], dtype=np.int64), "", "labelled k-points")
    put("label_name", np.array([name for _, name in bands.path.labels], dtype=h5py.string_dtype()), "", "their names")
    put("positions", bands.structure.positions, "Angstrom", "(n_atoms, 3)")
    put("atomic_numbers", bands.structure.atomic_numbers, "", "(n_atoms,)")
    if bands.structure.cell is not None:
        put("cell", bands.structure.cell, "Angstrom", "(3, 3), rows are lattice vectors")
    if bands.fermi_energy is not None:
        put("fermi_energy", bands.fermi_energy, "eV", bands.fermi_method)
    if bands.n_electrons is not None:
        put("n_electrons", bands.n_electrons, "", "electrons in the cell")
    if bands.n_projected is not None:
        put("n_projected", bands.n_projected, "", "(n_k,) modes of S projected out")
    if bands.spins is not None:
        put("spins", bands.spins, "", "(n_spin, n_k, n_bands, 3), <s_x>, <s_y>, <s_z> from -1 to 1")
    if bands.weights is not None:
        put("weights", bands.weights, "", "(n_spin, n_k, n_bands, n_groups), Mulliken, sum 1")
        put("weight_groups", np.array(bands.groups, dtype=h5py.string_dtype()), "", "names of the groups")
