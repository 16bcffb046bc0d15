"""ScfState: what one PySCF calculation says, from a live object or from its chkfile, in PySCF's units and order."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hamnet.core.spin import Spin
from hamnet.errors import BasisError, ConvergenceError, PhysicsError

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class ScfState:
    """One SCF, Hartree and bohr; a molecule has n_k = 1 and no k-points.

    Args:
        mol: PySCF `Mole` or `Cell`.
        spin: layout.
        fock: (n_k, n, n), (n_k, 2, n, n) or (n_k, 2n, 2n).
        overlap: (n_k, n, n).
        mo_energy, mo_occ: (n_spin, n_k, n_mo).
        energy: total energy.
        kpoints: (n_k, 3) fractional, None for a molecule.
        converged: None where the source does not say.
        off_mesh: k-points (n, 3) fractional off the mesh and PySCF's own eigenvalues (n_spin, n, n_mo) there.
        functional, grid, convergence, code_version: provenance.
        sigma: smearing width (Hartree).
        reference: (n, n) spinless H0 of a molecule; None where there is none.
    """

    mol: Any
    spin: Spin
    fock: Array
    overlap: Array
    mo_energy: Array
    mo_occ: Array
    energy: float | None
    kpoints: Array | None = None
    converged: bool | None = None
    off_mesh: tuple[Array, Array] | None = None
    functional: str = ""
    grid: str = ""
    convergence: str = ""
    code_version: str = ""
    sigma: float | None = None
    reference: Array | None = None


def state_of(mf: Any, *, allow_unconverged: bool = False) -> ScfState:
    """State of a live mean-field object; the Fock matrix is the one of its final density.

    Eigenvalues are PySCF's own solution (`mf.eig`) of that matrix: `mf.mo_energy` belongs to the Fock matrix of the
    cycle before, and differs by the square root of conv_tol or so.

    Raises:
        ConvergenceError: it did not converge and that is not allowed, or it was not run.
        BasisError: an open-shell restricted, four-component or j-basis object.
        PhysicsError: spin-orbit coupling was asked for but the ECP has none.
    """
    spin = spin_of(mf)
    refuse_silent_soc(mf)
    if mf.mo_coeff is None:
        raise ConvergenceError("this mean-field object has no orbitals yet: call mf.kernel() first")
    if not mf.converged and not allow_unconverged:
        raise ConvergenceError(
            f"PySCF's SCF did not converge (conv_tol {mf.conv_tol:g}, max_cycle {mf.max_cycle}): "
            "converge it (mf.newton(), damping) or allow unconverged data explicitly"
        )
    kpoints = kpoints_of(mf)
    n_k = 1 if kpoints is None else len(kpoints)
    n = mf.mol.nao_nr()
    fock, overlap = mf.get_fock(), mf.get_ovlp()
    return ScfState(
        mf.mol,
        spin,
        by_kpoint(fock, spin, n_k, n),
        spatial_overlap(overlap, spin, n_k, n),
        by_spin(mf.eig(fock, overlap)[0], spin, n_k),
        by_spin(mf.mo_occ, spin, n_k),
        float(mf.e_tot),
        kpoints,
        bool(mf.converged),
        functional=functional_text(mf),
        grid=grid_text(mf),
        convergence=f"conv_tol {mf.conv_tol:g} Ha",
        code_version=version("pyscf"),
        sigma=getattr(mf, "sigma", None) or None,
    )


def spin_of(mf: Any) -> Spin:
    """Layout from the kind of object.

    Raises:
        BasisError: a kind that hamnet does not read.
    """
    kinds = {c.__name__ for c in type(mf).__mro__}
    # PySCF's j-basis classes are called UHF and UKS too: only their module tells them apart.
    modules = {f"{c.__module__}.{c.__name__}" for c in type(mf).__mro__}
    if "DHF" in kinds or modules & {f"pyscf.x2c.x2c.{name}" for name in ("SCF", "X2C_SCF", "RHF", "UHF")}:
        raise BasisError(
            f"{type(mf).__name__} works in a two-component j-basis (or four components), hamnet needs orbitals times "
            "up and down: run GHF/GKS with .x2c1e() instead"
        )
    if kinds & {"ROHF", "KROHF"}:
        raise BasisError(
            f"{type(mf).__name__} has an effective Fock matrix that depends on a convention: run UHF/UKS instead"
        )
    if "KGHF" in kinds or ("GHF" in kinds and hasattr(mf.mol, "lattice_vectors")):
        # Turned densities must give turned Fock matrices. On an H2 chain PySCF 2.14 is 0.37 Hartree off in KGHF, whose
        # get_jk takes the other off-diagonal block of the density than the molecular one, and 0.06 in KGKS (LDA, ncol).
        raise BasisError(
            f"{type(mf).__name__}: periodic spinor calculations of PySCF are not read, since its Fock "
            "matrices do not turn with the spins; use KRKS or KUKS"
        )
    if "GHF" in kinds:
        return Spin.SPINOR
    return Spin.COLLINEAR if kinds & {"UHF", "KUHF"} else Spin.NONE


def refuse_silent_soc(mf: Any) -> None:
    """Refuse `with_soc` where PySCF would leave the spin-orbit part out without a word.

    Raises:
        PhysicsError: no ECP of the molecule has a spin-orbit part.
    """
    if getattr(mf, "with_soc", None) and not mf.mol.has_ecp_soc():
        raise PhysicsError(
            "with_soc is set but no ECP of this molecule has a spin-orbit part, so PySCF leaves spin-orbit coupling "
            f"out silently (ecp = {mf.mol.ecp!r}): choose an ECP with one, or X2C in GHF form, or unset with_soc"
        )


def kpoints_of(mf: Any) -> Array | None:
    """(n_k, 3) fractional k-points of a periodic object; None for a molecule.

    Raises:
        PhysicsError: k-points reduced by symmetry.
    """
    if not hasattr(mf.mol, "lattice_vectors"):
        return None
    kpts = getattr(mf, "kpts", None)
    if kpts is None:
        kpts = np.reshape(mf.kpt, (1, 3))
    if not isinstance(kpts, np.ndarray):
        raise PhysicsError(
            "the k-points are reduced by symmetry, hamnet needs H(k) on the whole mesh: "
            "use cell.make_kpts(mesh) without space_group_symmetry and time_reversal_symmetry"
        )
    return np.asarray(mf.mol.get_scaled_kpts(kpts)).reshape(-1, 3)


def by_kpoint(matrix: Any, spin: Spin, n_k: int, n: int) -> Array:
    """PySCF's Fock matrices, (n_k, ...) or (2, n_k, ...), as (n_k, ...) of the layout."""
    array = np.asarray(matrix)
    if spin is Spin.COLLINEAR:
        return np.ascontiguousarray(array.reshape(2, n_k, n, n).swapaxes(0, 1))
    return array.reshape(n_k, *spin.shape(n, n))


def spatial_overlap(matrix: Any, spin: Spin, n_k: int, n: int) -> Array:
    """(n_k, n, n): GHF's overlap is kron(eye(2), S)."""
    overlap = np.asarray(matrix)
    return overlap[:n, :n][None] if spin is Spin.SPINOR else overlap.reshape(n_k, n, n)


def by_spin(values: Any, spin: Spin, n_k: int) -> Array:
    """(n_spin, n_k, n_mo).

    Raises:
        PhysicsError: k-points with different numbers of orbitals.
    """
    n_spin = 2 if spin is Spin.COLLINEAR else 1
    flat = [values] if n_k == 1 and n_spin == 1 else list(values)
    lengths = {len(np.ravel(v)) for v in flat}
    if len(lengths) > 1 and n_k > 1:
        raise PhysicsError(f"k-points have different numbers of orbitals {sorted(lengths)}: S is linearly dependent")
    return np.array(values, dtype=np.float64).reshape(n_spin, n_k, -1)


def functional_text(mf: Any) -> str:
    """The functional, with libxc's version."""
    xc = getattr(mf, "xc", None)
    if xc is None:
        return "HF"
    from pyscf.dft import libxc

    return f"{xc} (libxc {libxc.__version__})"


def grid_text(mf: Any) -> str:
    """Integration grid, density fitting, relativistic treatment."""
    parts = []
    fitting = getattr(mf, "with_df", None)
    if hasattr(mf.mol, "lattice_vectors"):
        parts.append(f"{type(fitting).__name__} mesh {'x'.join(str(int(m)) for m in mf.mol.mesh)}")
        parts.append(f"exxdiv {mf.exxdiv}" if getattr(mf, "exxdiv", None) else "")
    else:
        parts.append(f"level {mf.grids.level}" if hasattr(mf, "grids") else "")
        parts.append(f"density fit {getattr(fitting, 'auxbasis', None) or 'default'}" if fitting else "")
    parts.append("x2c" if getattr(mf, "with_x2c", None) else "")
    parts.append("soc ecp" if getattr(mf, "with_soc", None) else "")
    return ", ".join(part for part in parts if part)
