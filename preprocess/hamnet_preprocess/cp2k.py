"""Reader for CP2K: a folder with input, output and the .csr files of KS and S becomes a Calculation."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from ase.data import chemical_symbols
from numpy.typing import NDArray

from hamnet.core.basis import OrbitalBasis, Species
from hamnet.core.blocks import BlockMatrix
from hamnet.core.calculation import Calculation, Provenance
from hamnet.core.reference import ReferenceBands
from hamnet.core.structure import AtomicStructure
from hamnet.core.units import BOHR, HARTREE
from hamnet.errors import BasisError, ConvergenceError, FormatError, PhysicsError
from hamnet_preprocess.cp2k_basis import basis_files, basis_shells
from hamnet_preprocess.cp2k_blocks import blocks_of, pairs_of, whole
from hamnet_preprocess.cp2k_bs import is_bs, read_bs
from hamnet_preprocess.cp2k_checks import check_bands, check_overlap
from hamnet_preprocess.cp2k_csr import Images, csr_files, is_csr_name, read_matrix
from hamnet_preprocess.cp2k_deck import basis_names_of, geometry_of, is_deck, read_deck
from hamnet_preprocess.cp2k_out import OutFile, is_out, read_out
from hamnet_preprocess.cp2k_wraps import wraps_of

ASYMMETRY = 1e-6
"""Largest |M - M^dagger| (eV for H, 1 for S) taken for rounding; CP2K's own is about 1e-12."""
RUN_TYPES = ("ENERGY", "ENERGY_FORCE", "WFN_OPT", "WAVEFUNCTION_OPTIMIZATION")
GAMMA_ONLY = (
    "a run without k-points: CP2K then adds up all periodic images of H and S in one matrix (folded), and H(R) cannot "
    "be had back from it. Repeat it with a &KPOINTS section; even SCHEME GAMMA makes CP2K keep the images apart"
)
NO_IMAGES = "no list of periodic images: ask for &KS_CSR_WRITE and &S_CSR_WRITE with REAL_SPACE T in &DFT &PRINT"


class CP2KReader:
    """Reads single-point Quickstep runs with k-points (or molecules without period): KS and S in real space.

    A source is a folder with one run, or its output file.
    """

    name = "cp2k"

    def find(self, root: Path) -> list[Path]:
        """Folders at or below root with .csr files of KS or S, or CP2K's input or output; a file is its own source.

        Hidden folders (unfinished runs of `hamnet label`) are left out.
        """
        if root.is_file():
            return [root]
        folders = {path.parent for path in root.rglob("*.csr") if is_csr_name(path.name)}
        for pattern, belongs in (("*.out", is_out), ("*.log", is_out), ("*.inp", is_deck)):
            folders |= {path.parent for path in root.rglob(pattern) if path.parent not in folders and belongs(path)}
        return sorted(f for f in folders if not any(part.startswith(".") for part in f.relative_to(root).parts))

    def read(self, source: Path, *, allow_unconverged: bool = False) -> Calculation:
        """One calculation from the folder of a run, or from its output file.

        Raises:
            FormatError: a part is missing, cut short or not understood; or a run without k-points (folded matrices).
            BasisError: the basis set is not found or does not fit the matrices.
            PhysicsError: H or S is not hermitian, S is not that of these orbitals, or H disagrees with the .bs.
            ConvergenceError: the SCF did not converge and `allow_unconverged` is False.
        """
        out = read_out(_out_of(Path(source)))
        folder = out.path.parent
        _check_run(out)
        if out.converged is False and not allow_unconverged:
            raise ConvergenceError(
                f"{out.path}: the SCF did not converge: {out.convergence}; repeat it with more cycles (MAX_SCF), other "
                "mixing or smearing, or read it all the same with allow_unconverged"
            )
        structure, basis = _structure(out)
        overlap, hamiltonian = _matrices(out, structure, basis)
        check_overlap(overlap, structure, basis, out.path)
        bands = _bands_beside(folder)
        check_bands(bands, overlap, hamiltonian)
        return Calculation(
            structure,
            basis,
            overlap,
            hamiltonian,
            energy=None if out.energy is None else out.energy * HARTREE,
            forces=None if out.forces is None else out.forces * HARTREE / BOHR,
            kpoints=None if bands is None else bands.kpoints,
            eigenvalues=None if bands is None else bands.energies,
            fermi_energy=None if out.fermi_energy is None else out.fermi_energy * HARTREE,
            n_electrons=out.n_electrons,
            kmesh=out.kmesh,
            electronic_temperature=out.temperature,
            converged=out.converged is not False,
            provenance=_provenance(out, basis),
        )


def _out_of(source: Path) -> Path:
    """The one output of a folder, or the file itself."""
    if source.is_file():
        if is_out(source):
            return source
        raise FormatError(f"{source}: no output of CP2K; name the folder of the run, or its output file")
    if not source.is_dir():
        raise FormatError(f"{source}: no such file or folder")
    skipped = (".csr", ".xz", ".inp", ".wfn", ".kp", ".cube")
    files = sorted(p for p in source.iterdir() if p.is_file() and p.suffix not in skipped)
    found = [path for path in files if is_out(path)]
    if not found:
        raise FormatError(
            f"{source}: no output of CP2K here: run CP2K as 'cp2k.psmp -i x.inp -o x.out'; the list of periodic images "
            "stands in the output"
        )
    if len(found) > 1:
        raise FormatError(f"{source}: {len(found)} outputs, expected one: {[p.name for p in found]}; name the one")
    return found[0]


def _check_run(out: OutFile) -> None:
    run_type = out.settings.get("GLOBAL| Run type", "ENERGY")
    if run_type not in RUN_TYPES:
        raise FormatError(
            f"{out.path}: RUN_TYPE {run_type}: its matrices belong to other positions than the input's; "
            "run ENERGY at the last geometry"
        )


def _deck_of(out: OutFile) -> Path:
    folder = out.path.parent
    named = folder / Path(out.settings.get("CP2K| Input file name", "")).name
    if named.is_file() and is_deck(named):
        return named
    patterns = ("*.inp", "*.in", "*.restart", "*.txt")
    found = sorted({path for pattern in patterns for path in folder.glob(pattern) if is_deck(path)})
    if len(found) != 1:
        raise FormatError(
            f"{folder}: {len(found)} inputs ({', '.join(p.name for p in found) or 'none'}) and none called "
            f"{named.name!r}, which the output names: only the input has all digits of the cell"
        )
    return found[0]


def _structure(out: OutFile) -> tuple[AtomicStructure, OrbitalBasis]:
    path = _deck_of(out)
    deck = read_deck(path)
    cell, _, positions = geometry_of(deck, path)
    _check_geometry(path, cell, positions, out)
    letters = out.settings.get("CELL| Periodicity", "XYZ")
    pbc = np.array([axis in letters and letters != "NONE" for axis in "XYZ"])
    species, index = _species(out, basis_names_of(deck) or out.basis_files)
    numbers = np.array([species[k].atomic_number for k in index], dtype=np.int64)
    moments = None if out.moments is None else np.outer(out.moments, [0.0, 0.0, 1.0])
    try:
        structure = AtomicStructure(numbers, index, positions, cell, pbc, moments)
    except PhysicsError as error:
        raise PhysicsError(f"{path}: {error}") from error
    return structure, OrbitalBasis(tuple(species))


def _check_geometry(path: Path, cell: NDArray[np.float64], positions: NDArray[np.float64], out: OutFile) -> None:
    if len(positions) != len(out.positions):
        raise FormatError(f"{path}: {len(positions)} atoms, the output {out.path.name} has {len(out.positions)}")
    shift = positions - out.positions
    off = np.abs(shift - shift.mean(axis=0)).max()
    if off > 3e-6:  # the output has six decimals; a common shift is CENTER_COORDINATES
        raise FormatError(
            f"{path}: an atom is {off:.2g} A away from where the output {out.path.name} has it: "
            "the input was changed after the run"
        )
    positions -= shift.mean(axis=0) if np.abs(shift.mean(axis=0)).max() > 3e-6 else 0.0
    for name, row in zip("abc", cell, strict=True):
        printed = out.settings.get(f"CELL| Vector {name} [angstrom]", "").split("|")[-1].strip(" =")
        if printed and abs(float(printed) - np.linalg.norm(row)) > 3e-6:
            raise FormatError(
                f"{path}: cell vector {name} is {np.linalg.norm(row):.6f} A long, the output has {printed}: "
                "the input was changed after the run"
            )


def _species(out: OutFile, names: tuple[str, ...]) -> tuple[list[Species], NDArray[np.int64]]:
    """Species, and the index of each atom's; kinds with the same orbitals and potential are one species."""
    folder = out.path.parent
    files = basis_files(names, folder, out.settings.get("CP2K| Data directory path", ""))
    found: dict[Species, int] = {}
    of_kind = {}
    for number, kind in out.kinds.items():
        atom = int(np.flatnonzero(out.kind_of_atom == number)[0])
        valence, atomic_number = float(out.valence[atom]), int(out.atomic_numbers[atom])
        symbol = chemical_symbols[atomic_number]
        shells = basis_shells(symbol, kind.basis, files)
        core = f"/{kind.potential.lower()}" if kind.potential else ""
        species = Species(f"{symbol}:{kind.basis.lower()}{core}", atomic_number if valence else 0, valence, shells)
        if species.n_orbitals != kind.n_orbitals:
            raise BasisError(
                f"{folder}: basis {kind.basis} of {kind.label} has {species.n_orbitals} orbitals in "
                f"{', '.join(p.name for p in files)}, CP2K's output says {kind.n_orbitals}: another file was used"
            )
        of_kind[number] = found.setdefault(species, len(found))
    return list(found), np.array([of_kind[int(k)] for k in out.kind_of_atom], dtype=np.int64)


def _matrices(out: OutFile, structure: AtomicStructure, basis: OrbitalBasis) -> tuple[BlockMatrix, BlockMatrix]:
    folder = out.path.parent
    images = _images(out, structure)
    raw_s = whole(read_matrix(folder, "S", 1, images, out.n_orbitals))
    raw_h = [
        whole(read_matrix(folder, "KS", s, images, out.n_orbitals)) for s in ((1, 2) if out.is_polarised else (1,))
    ]
    wraps = wraps_of(raw_s, structure, basis)
    all_pairs = pairs_of([raw_s, *raw_h], structure, basis, wraps)
    overlap = blocks_of([raw_s], pairs_of([raw_s], structure, basis, wraps), structure, basis, wraps, 1.0)
    hamiltonian = blocks_of(raw_h, all_pairs, structure, basis, wraps, HARTREE)
    for name, matrix in (("S", overlap), ("KS", hamiltonian)):
        residual, pair = matrix.hermitian_residual()
        if residual > ASYMMETRY:
            raise PhysicsError(
                f"{folder}: matrix {name} is not hermitian: block {matrix.describe_pair(pair)} differs from "
                f"its reverse by {residual:.3g}, expected at most {ASYMMETRY:g}: a file is corrupt or of another run"
            )
    return overlap.symmetrised(), hamiltonian.symmetrised()


def _images(out: OutFile, structure: AtomicStructure) -> Images:
    """Images of both matrices; one without a number for a molecule."""
    ours, theirs = out.images["KS"], out.images["S"]
    if not ours and not theirs:
        if structure.is_periodic:
            folded = not any(key.startswith("BRILLOUIN|") for key in out.settings)
            raise FormatError(f"{out.path}: {GAMMA_ONLY if folded else NO_IMAGES}")
        return {0: (0, 0, 0)}
    if ours != theirs:
        missing = "KS" if not ours else "S" if not theirs else ""
        raise FormatError(
            f"{out.path}: no list of periodic images of {missing}: ask for &{missing}_CSR_WRITE with REAL_SPACE T too"
            if missing
            else f"{out.path}: KS has {len(ours)} periodic images, S {len(theirs)}, or others: they must be the same; "
            "the output is damaged or of several runs"
        )
    return ours


def _bands_beside(folder: Path) -> ReferenceBands | None:
    """The bands of the folder's only .bs; None where there is none or several."""
    found = [path for path in sorted(folder.glob("*.bs")) if is_bs(path)]
    return read_bs(found[0]) if len(found) == 1 else None


def _provenance(out: OutFile, basis: OrbitalBasis) -> Provenance:
    digest = hashlib.sha256()
    files = [file.path for file in csr_files(out.path.parent)]
    for path in [out.path, *files]:
        digest.update(path.read_bytes())
    density = out.settings.get("QS| Density cutoff [a.u.]", "")
    eps = out.settings.get("QS| Interaction thresholds: eps_pgf_orb", "")
    return Provenance(
        code="CP2K",
        version=out.version,
        functional=out.functional,
        basis=" ".join(species.label for species in basis.species),
        grid=f"{2 * float(density):g} Ry, eps_pgf_orb {eps}" if density else "",
        convergence=out.convergence if out.converged is not None else f"unknown: {out.convergence}",
        source=str(out.path.parent),
        sha256=digest.hexdigest(),
    )
