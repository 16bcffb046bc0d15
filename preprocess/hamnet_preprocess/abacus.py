"""Reader for ABACUS: STRU, data-HR-sparse_SPIN*.csr and data-SR-sparse_SPIN0.csr (INPUT: out_mat_hs2 1).

The .csr text: perhaps "STEP: n"; "Matrix Dimension of H(R): n"; "Matrix number of H(R): m"; then for each image a line
"R1 R2 R3 nnz" and, where nnz > 0, three lines: values, columns, row starts. H is in Rydberg; with nspin 4 values are
"(re,im)" and each orbital's up and down stand side by side; with nspin 2 there is one H file for each spin. Shells
come from the names of the orbital files in STRU ("C_gga_8au_100Ry_2s2p1d.orb"); orbitals are m = 0, 1, -1, 2, -2 with
sign (-1)^m. Sources: ABACUS docs, advanced/elec_properties/hs_matrix.md; DeepH-pack preprocess/abacus_get_data.py.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np
from numpy.typing import NDArray

from hamnet.core.basis import OrbitalBasis
from hamnet.core.blocks import BlockMatrix
from hamnet.core.calculation import Calculation, Provenance
from hamnet.core.conventions import ABACUS
from hamnet.core.spin import Spin
from hamnet.core.structure import AtomicStructure
from hamnet.core.units import RYDBERG
from hamnet.errors import ConvergenceError, FormatError, PhysicsError
from hamnet_preprocess.abacus_stru import read_stru
from hamnet_preprocess.code_blocks import Elements, matrix_from_elements, with_pairs_of

IntArray = NDArray[np.int64]
H_NAMES = ("data-HR-sparse_SPIN0.csr", "data-HR-sparse_SPIN1.csr")
S_NAMES = ("data-SR-sparse_SPIN0.csr", "SR.csr")
NEWER = ("hrs1_nao.csr", "srs1_nao.csr")
LOGS = ("running_scf.log", "running_nscf.log", "running_get_S.log")
TOLERANCE = 1e-5
"""eV (or 1 for S): values are printed with nine digits."""


@dataclass(frozen=True)
class _Log:
    """What a running_*.log says, None where it does not."""

    fermi: float | None = None
    electrons: float | None = None
    energy: float | None = None
    converged: bool | None = None


class AbacusReader:
    """Reads ABACUS 2.3 to 3.8 LCAO output; S without H is an overlap-only calculation (calculation get_S)."""

    name = "abacus"

    def find(self, root: Path) -> list[Path]:
        """Folders at or below root with S or H in .csr files; a file stands for its folder."""
        if root.is_file():
            return [root]
        return sorted({p.parent for name in (*S_NAMES, *H_NAMES, *NEWER) for p in root.rglob(name)})

    def read(self, source: Path, *, allow_unconverged: bool = False) -> Calculation:
        """One calculation from OUT.suffix; STRU is looked for there and in the folder above.

        Raises:
            FormatError: a file is missing, cut short, or of another version.
            BasisError: the shells of a species are not told by its orbital file.
            PhysicsError: H or S is not hermitian, or its images do not fit the structure.
            ConvergenceError: the log says that the SCF did not converge and `allow_unconverged` is False.
        """
        folder = source.parent if source.is_file() else source
        overlap_file = _overlap_file(folder)
        structure, basis, atoms_file = _structure(folder)
        log = _read_log(folder)
        if log.converged is False and not allow_unconverged:
            raise ConvergenceError(f"{folder}: the SCF did not converge; repeat it or give allow_unconverged")
        h_files = [folder / name for name in H_NAMES if (folder / name).is_file()]
        spin = _spin_of(h_files, overlap_file, basis, structure)
        overlap = _overlap(overlap_file, structure, basis)
        _check_images(overlap, structure, overlap_file)
        hamiltonian = _hamiltonian(h_files, structure, basis, spin) if h_files else None
        labels = " ".join(species.label for species in basis.species)
        digest = hashlib.sha256(b"".join(p.read_bytes() for p in (atoms_file, overlap_file, *h_files))).hexdigest()
        return Calculation(
            structure,
            basis,
            overlap,
            None if hamiltonian is None else with_pairs_of(hamiltonian, overlap),
            energy=log.energy,
            fermi_energy=log.fermi,
            n_electrons=log.electrons,
            converged=log.converged is not False,
            provenance=Provenance("ABACUS", basis=labels, source=str(source), sha256=digest),
        )


def _overlap_file(folder: Path) -> Path:
    for name in S_NAMES:
        if (folder / name).is_file():
            return folder / name
    newer = [name for name in NEWER if (folder / name).is_file()]
    if newer:
        raise FormatError(
            f"{folder}: {newer[0]} is the matrix format of ABACUS 3.9 and later, which hamnet does not read yet: "
            "use ABACUS 3.8 or older, or convert it to DeepH's format first"
        )
    raise FormatError(f"{folder}: no {S_NAMES[0]}: run ABACUS with basis_type lcao, gamma_only 0 and out_mat_hs2 1")


def _structure(folder: Path) -> tuple[AtomicStructure, OrbitalBasis, Path]:
    for path in (folder / "STRU", folder.parent / "STRU"):
        if path.is_file():
            structure, basis = read_stru(path)
            return structure, basis, path
    raise FormatError(f"{folder}: no STRU here nor in the folder above: copy the one of the run beside the matrices")


def _read_log(folder: Path) -> _Log:
    path = next((folder / name for name in LOGS if (folder / name).is_file()), None)
    if path is None:
        return _Log()
    text = path.read_text(errors="replace")
    failed = re.search(r"convergence has not been achieved|convergence has NOT been achieved", text)
    reached = re.search(r"charge density convergence is achieved|#SCF IS CONVERGED#", text)
    return _Log(
        _last(r"EFERMI\s*=\s*([-+\d.eE]+)\s*eV", text),
        _last(r"(?i)total electron number(?: of the system)?\s*[=:]\s*([\d.]+)", text),
        _last(r"FINAL_ETOT_IS\s+([-+\d.eE]+)\s*eV", text),
        False if failed else (True if reached else None),
    )


def _last(pattern: str, text: str) -> float | None:
    found = re.findall(pattern, text)
    return float(found[-1]) if found else None


def _spin_of(h_files: list[Path], s_file: Path, basis: OrbitalBasis, structure: AtomicStructure) -> Spin:
    n = int(basis.n_orbitals[structure.species].sum())
    for path in (*h_files, s_file):
        with path.open() as file:
            size = _header(file, path)
        if size not in (n, 2 * n):
            shells = ", ".join(species.describe() for species in basis.species)
            raise FormatError(f"{path}: matrices of {size} rows, but STRU's orbitals are {n} ({shells})")
        if size == 2 * n:
            return Spin.SPINOR
    return Spin.COLLINEAR if len(h_files) == 2 else Spin.NONE


def _header(file: TextIO, path: Path) -> int:
    """Dimension of the matrix, after an optional STEP line."""
    for _ in range(2):
        found = re.match(r"\s*Matrix Dimension of [HS]\(R\):\s*(\d+)", file.readline())
        if found:
            return int(found[1])
    raise FormatError(f"{path}: no line 'Matrix Dimension of H(R): n' at the start: no .csr of ABACUS 2.3 to 3.8")


def _read_csr(path: Path) -> tuple[int, IntArray, IntArray, IntArray, NDArray[np.complex128]]:
    """Dimension, rows, columns, images (n, 3) and values of all elements."""
    with path.open() as file:
        size = _header(file, path)
        lines = file.read().splitlines()
    numbers = re.match(r"\s*Matrix number of [HS]\(R\):\s*(\d+)", lines[0]) if lines else None
    if numbers is None:
        raise FormatError(f"{path}: no line 'Matrix number of H(R): m' after the dimension")
    parts, at = [], 1
    for _ in range(int(numbers[1])):
        try:
            *shift, count = (int(word) for word in lines[at].split())
            if count:
                parts.append(_image(lines[at + 1 : at + 4], np.array(shift), count, size))
            at += 4 if count else 1
        except (ValueError, IndexError) as error:
            raise FormatError(f"{path}: cut short or damaged near image line {at + 2} of the matrices") from error
    if not parts:
        raise FormatError(f"{path}: no element in any image")
    row, column, shifts, values = (np.concatenate(part) for part in zip(*parts, strict=True))
    return size, row, column, shifts, values


def _image(
    lines: list[str], shift: IntArray, count: int, size: int
) -> tuple[IntArray, IntArray, IntArray, NDArray[np.complex128]]:
    values, columns = _numbers(lines[0]), np.array(lines[1].split(), dtype=np.int64)
    starts = np.array(lines[2].split(), dtype=np.int64)
    lengths = (len(values), len(columns), len(starts), int(starts[-1]), len(shift))
    if lengths != (count, count, size + 1, count, 3) or columns.min() < 0 or columns.max() >= size:
        raise ValueError(f"lengths {lengths}")
    rows = np.repeat(np.arange(size), np.diff(starts))
    return rows, columns, np.tile(shift, (count, 1)), values


def _numbers(line: str) -> NDArray[np.complex128]:
    words = line.replace("(", " ").replace(")", " ").split()
    if "," not in line:
        return np.array(words, dtype=np.float64).astype(np.complex128)
    real, imag = np.array([word.split(",") for word in words], dtype=np.float64).T
    result: NDArray[np.complex128] = real + 1j * imag
    return result


def _overlap(path: Path, structure: AtomicStructure, basis: OrbitalBasis) -> BlockMatrix:
    size, row, column, shift, value = _read_csr(path)
    n = int(basis.n_orbitals[structure.species].sum())
    if size == 2 * n:  # diag(S, S), spins side by side: the up part
        up = (row % 2 == 0) & (column % 2 == 0)
        row, column, shift, value = row[up] // 2, column[up] // 2, shift[up], value[up]
    elements = Elements(row, column, shift, np.zeros_like(row), value.real)
    return matrix_from_elements(elements, structure, basis, Spin.NONE, ABACUS, str(path), TOLERANCE)


def _hamiltonian(files: list[Path], structure: AtomicStructure, basis: OrbitalBasis, spin: Spin) -> BlockMatrix:
    parts = []
    for channel, path in enumerate(files):
        _, row, column, shift, value = _read_csr(path)
        component = np.full_like(row, channel)
        if spin is Spin.SPINOR:
            component = 2 * (row % 2) + column % 2
            row, column = row // 2, column // 2
        number = value * RYDBERG if spin is Spin.SPINOR else value.real * RYDBERG
        parts.append((row, column, shift, component, number))
    elements = Elements(*(np.concatenate(part) for part in zip(*parts, strict=True)))
    return matrix_from_elements(elements, structure, basis, spin, ABACUS, str(files[0]), TOLERANCE)


def _check_images(overlap: BlockMatrix, structure: AtomicStructure, path: Path) -> None:
    """Blocks must be between near atoms: with images counted the other way they are not.

    Raises:
        PhysicsError: the blocks' weighted distance is shorter when every R is taken as -R.
    """
    pairs = overlap.pairs
    weight = np.add.reduceat(np.abs(overlap.values), overlap.offsets[:-1])
    x, shift = structure.positions, pairs.cell_shift @ structure.lattice
    distances = [np.linalg.norm(x[pairs.j] - x[pairs.i] + sign * shift, axis=1) for sign in (1, -1)]
    here, there = (float(weight @ d) for d in distances)
    if here > there * (1 + 1e-6):
        raise PhysicsError(
            f"{path}: the images do not fit STRU: blocks would join atoms nearer to each other if R were -R; "
            "STRU is of another run, or its atoms were wrapped"
        )
