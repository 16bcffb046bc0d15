"""Labels from PySCF: one chkfile per structure, with the Fock matrix, S, settings and eigenvalues off the mesh."""

from __future__ import annotations

import os
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from hamnet.core.units import BOHR
from hamnet.errors import ConfigError
from hamnet_preprocess.label import LabelSettings
from hamnet_preprocess.pyscf import calculation_of, off_mesh_bands
from hamnet_preprocess.pyscf_chkfile import add_state, stored_settings
from hamnet_preprocess.pyscf_moments import refuse_fixed_axis
from hamnet_preprocess.pyscf_reference import minao_fock
from hamnet_preprocess.pyscf_state import refuse_silent_soc, state_of

_MAXIMUM_CYCLES = 200


class PySCFLabelEngine:
    """RKS/UKS/GKS (or HF) of molecules, KRKS/KUKS of cells on a Gamma-centred mesh.

    A structure with any periodic direction is taken as a three-dimensional cell (a slab needs its vacuum).
    """

    name = "pyscf"
    suffix = ".chk"

    def settings_of(self, target: Path) -> str | None:
        """Settings text of a finished chkfile."""
        return stored_settings(target)

    def label(self, atoms: Any, target: Path, settings: LabelSettings) -> None:
        """Run PySCF; the chkfile is checked (convergence, k-mesh) before it gets its name.

        Raises:
            ConvergenceError: the SCF did not converge.
            PhysicsError: the k-mesh is too small for H in real space; no spin-orbit part in the ECP; or moments are
                tilted and the functional sees one axis alone.
            ConfigError: the settings do not fit the structure.
        """
        temporary = target.with_name(f".{target.name}.part")
        temporary.unlink(missing_ok=True)
        try:
            mf = mean_field(atoms, settings)
            write_to(mf, temporary)
            mf.kernel()
            state = state_of(mf)
            if state.kpoints is not None:
                state = replace(state, off_mesh=off_mesh_bands(mf, state))
            if settings.reference is not None:
                reference = minao_fock(mf.mol, settings.xc, settings.grid_level, settings.density_fit)
                state = replace(state, reference=reference)
            refuse_fixed_axis(mf, calculation_of(state).structure.moments)
            add_state(temporary, state, settings.text(atoms))
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)


def write_to(mf: Any, path: Path) -> None:
    """Let a PySCF object write to this chkfile, and close the nameless one that it has opened."""
    nameless = getattr(mf, "_chkfile", None)
    mf.chkfile, mf._chkfile = str(path), None
    if nameless is not None:
        nameless.close()


def mean_field(atoms: Any, settings: LabelSettings) -> Any:
    """PySCF's mean-field object for a structure, not yet run.

    Raises:
        ConfigError, PhysicsError: the settings do not fit the structure.
    """
    if settings.reference is not None and np.any(atoms.pbc):
        raise ConfigError(
            f"the reference {settings.reference!r} is for molecules: leave it out for periodic structures"
        )
    mf = _periodic(atoms, settings) if np.any(atoms.pbc) else _molecular(atoms, settings)
    if settings.density_fit:
        mf = mf.density_fit()
    mf.conv_tol, mf.max_cycle, mf.verbose = settings.conv_tol, _MAXIMUM_CYCLES, 0
    return mf


def _atoms(atoms: Any) -> list[tuple[str, list[float]]]:
    symbols = [symbol.replace("X", "GHOST") if symbol == "X" else symbol for symbol in atoms.symbols]
    positions = np.asarray(atoms.positions) / BOHR
    return [(symbol, position.tolist()) for symbol, position in zip(symbols, positions, strict=True)]


def _molecular(atoms: Any, settings: LabelSettings) -> Any:
    from pyscf import dft, gto, scf

    if settings.pseudo:
        raise ConfigError("pseudo is for periodic structures, this one is a molecule: give ecp, or set its pbc")
    mol = gto.M(
        atom=_atoms(atoms),
        unit="Bohr",
        basis=settings.basis,
        ecp=settings.ecp or {},
        charge=settings.charge,
        spin=settings.spin,
        verbose=0,
    )
    kind = "G" if settings.soc else ("U" if settings.spin else "R")
    if settings.xc.lower() == "hf":
        mf = getattr(scf, f"{kind}HF")(mol)
    else:
        mf = getattr(dft, f"{kind}KS")(mol)
        mf.xc, mf.grids.level = settings.xc, settings.grid_level
    if settings.soc:
        mf.with_soc = True
        refuse_silent_soc(mf)
        if hasattr(mf, "collinear"):
            mf.collinear = _spin_axes(settings.xc)
    return mf


def _spin_axes(xc: str) -> str:
    """How GKS treats the direction of the spin density: all directions alike wherever PySCF can.

    "mcol" needs the package mcfun, "ncol" an LDA; "col" sees s_z alone, and then tilted moments are refused.
    """
    from pyscf.dft import libxc

    if find_spec("mcfun") is not None:
        return "mcol"
    return "ncol" if libxc.xc_type(xc) == "LDA" else "col"


def _periodic(atoms: Any, settings: LabelSettings) -> Any:
    from pyscf.pbc import dft, gto, scf

    if settings.soc:
        raise ConfigError("spin-orbit coupling of periodic PySCF calculations is not supported: label without it")
    if not settings.pseudo and not settings.density_fit:
        raise ConfigError(
            "a periodic structure needs a pseudopotential (pseudo gth-pbe with basis gth-dzvp-molopt-sr, say), "
            "or density_fit for all electrons"
        )
    if np.linalg.matrix_rank(atoms.cell.array) < 3:
        raise ConfigError(
            f"the cell {atoms.cell.array.tolist()} has no volume: add vacuum along directions without one"
        )
    cell = gto.M(
        atom=_atoms(atoms),
        unit="Bohr",
        a=np.asarray(atoms.cell.array) / BOHR,
        basis=settings.basis,
        pseudo=settings.pseudo,
        charge=settings.charge,
        spin=settings.spin,
        verbose=0,
    )
    kpts = cell.make_kpts(settings.kmesh)
    kind = "U" if settings.spin else "R"
    if settings.xc.lower() == "hf":
        return getattr(scf, f"K{kind}HF")(cell, kpts)
    mf = getattr(dft, f"K{kind}KS")(cell, kpts)
    mf.xc = settings.xc
    return mf
