"""Reader for OpenMX: a folder with one .scfout (and perhaps a .out) becomes a Calculation."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hamnet.core.basis import OrbitalBasis
from hamnet.core.blocks import BlockMatrix, species_groups
from hamnet.core.calculation import Calculation, Provenance
from hamnet.core.conventions import OPENMX
from hamnet.core.pairs import PairList
from hamnet.core.spin import Spin
from hamnet.core.structure import AtomicStructure
from hamnet.core.time_reversal import EVEN, odd_part
from hamnet.core.units import BOHR, HARTREE
from hamnet.errors import BasisError, ConvergenceError, FormatError, HamnetError, PhysicsError
from hamnet_preprocess.openmx_deck import Deck, basis_of_deck
from hamnet_preprocess.openmx_moments import deck_moments, field_remark, moments_without_out, refuse_spiral
from hamnet_preprocess.openmx_out import OutFile, read_out
from hamnet_preprocess.openmx_pao import attach, pao_folder
from hamnet_preprocess.openmx_scfout import VERSIONS, ScfoutHeader, read_header

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]

_log = logging.getLogger(__name__)

ASYMMETRY = 1e-6
"""Largest |M - M^dagger| (eV for H, 1 for S) taken for grid noise; OpenMX's own is about 1e-8 eV."""

FIRST = 1024
"""Numbers of H that are looked at first: only where these are zero is the whole of it read to see if all is."""

SPINS = {0: Spin.NONE, 1: Spin.COLLINEAR, 3: Spin.SPINOR}


class OpenMXReader:
    """Reads OpenMX 3.7 to 3.9: H, S, structure and basis from .scfout, energy and convergence from .out."""

    name = "openmx"

    def find(self, root: Path) -> list[Path]:
        """Folders at or below root with a .scfout, or with OpenMX's input and no .scfout; a file is its own source."""
        if root.is_file():
            return [root]
        folders = {path.parent for path in root.rglob("*.scfout")}
        folders |= {path.parent for path in root.rglob("*.dat") if _is_input(path)}
        return sorted(folders)

    def read(self, source: Path, *, allow_unconverged: bool = False) -> Calculation:
        """One calculation from a folder with exactly one .scfout, or from a .scfout.

        Raises:
            FormatError: no or several .scfout, or the file is cut short, corrupt or of an unknown version.
            BasisError: a species without a PAO, or a PAO that does not fit the matrices.
            PhysicsError: H or S is not hermitian, or holds a number that is not finite; or a spin spiral.
            ConvergenceError: the SCF did not converge and `allow_unconverged` is False.
        """
        path = scfout_of(source)
        header = read_header(path)
        deck = Deck.parse(header.deck, path)
        refuse_spiral(deck)
        if not has_hamiltonian(header):
            return _overlap_only(header, deck)
        out = _out_beside(path, SPINS[header.spin], deck)
        converged, convergence = _convergence(deck, out)
        if not converged and not allow_unconverged:
            raise ConvergenceError(
                f"{path}: the SCF did not converge: {convergence}; repeat it with more cycles or other mixing, "
                "or read it all the same with allow_unconverged"
            )
        structure, basis = _structure(header, deck, out.moments if out else None)
        overlap, hamiltonian = _matrices(header, structure, basis)
        structure = _with_moments(structure, header, deck, odd_part(hamiltonian))
        calculation = Calculation(
            structure,
            basis,
            overlap,
            hamiltonian,
            energy=out.energy if out else None,
            forces=out.forces if out and out.forces is not None and len(out.forces) == structure.n_atoms else None,
            kpoints=out.kpoints if out else None,
            eigenvalues=out.eigenvalues if out else None,
            fermi_energy=header.chemical_potential * HARTREE,
            n_electrons=_electrons(header, deck, structure, basis),
            kmesh=deck.kmesh,
            electronic_temperature=header.temperature,
            converged=converged,
            provenance=_provenance(header, deck, out, basis, convergence),
        )
        return _with_own_radial_functions(calculation, deck)


def _with_moments(structure: AtomicStructure, header: ScfoutHeader, deck: Deck, odd: float) -> AtomicStructure:
    """With the moments of a magnetic H, from wherever they are known; without any where H is not magnetic.

    Args:
        structure: with the moments that the .out prints, if it does.
        header: of the .scfout; deck: of the run.
        odd: eV, the largest number of H that is odd under time reversal.
    """
    if odd < EVEN:  # populations of thousandths of a Bohr magneton are noise then
        return replace(structure, moments=None)
    if remark := field_remark(deck):
        _log.warning("%s: %s", header.path, remark)
    if structure.moments is not None:
        return structure
    moments, where = moments_without_out(header, deck)
    if moments is None:
        _log.warning(
            "%s: H is magnetic (odd under time reversal by %.2g eV) and its moments are unknown: %s; a network cannot "
            "be trained on it: put the run's .out beside the .scfout",
            header.path, odd, where,
        )  # fmt: skip
    return replace(structure, moments=moments)


def _with_own_radial_functions(calculation: Calculation, deck: Deck) -> Calculation:
    """With the radial functions of the deck's own DATA.PATH where that is at hand and gives the file's S."""
    folder = pao_folder(deck)
    if folder is None:
        return calculation
    try:
        return attach(calculation, folder)
    except HamnetError as error:
        _log.warning("radial functions left out: %s", error)
        return calculation


def has_hamiltonian(header: ScfoutHeader) -> bool:
    """False where every number of H is zero: a run that computed S only, without an SCF."""
    with header.path.open("rb") as file:
        file.seek(header.matrix_start)
        start = np.fromfile(file, dtype=header.order + "f8", count=min(header.size, FIRST))
    return bool(start.any()) or any(header.read_matrix(f"H{s}").any() for s in range(header.spin + 1))


def _overlap_only(header: ScfoutHeader, deck: Deck) -> Calculation:
    """Structure with the deck's moments, basis and S; what an SCF gives (Fermi level, energies) is not there."""
    said = deck_moments(deck, header.spin).moments  # no SCF has changed them: what is asked for
    structure, basis = _structure(header, deck, said if said.any() else None)
    layout = _Layout.build(header, structure.species, basis)
    values = layout.read("S", layout.mirror, 1.0)
    calculation = Calculation(
        structure,
        basis,
        BlockMatrix.from_values(layout.pairs, basis, structure.species, Spin.NONE, values),
        n_electrons=_electrons(header, deck, structure, basis),
        kmesh=deck.kmesh,
        provenance=_provenance(header, deck, None, basis, "overlap only: the file's H is zero"),
    )
    return _with_own_radial_functions(calculation, deck)


def scfout_of(source: Path) -> Path:
    """The one .scfout of a folder, or the file itself.

    Raises:
        FormatError: there is none, or there are several.
    """
    if source.is_file():
        return source
    if not source.is_dir():
        raise FormatError(f"{source}: no such file or folder")
    found = sorted(source.glob("*.scfout"))
    if not found:
        inputs = sorted(p.name for p in source.glob("*.dat"))
        raise FormatError(
            f"{source}: no .scfout here (inputs: {inputs or 'none'}): "
            "run OpenMX with 'HS.fileout on', or point to the folder with the output"
        )
    if len(found) > 1:
        raise FormatError(
            f"{source}: {len(found)} .scfout files, expected one: {[p.name for p in found]}; name the one"
        )
    return found[0]


def _is_input(path: Path) -> bool:
    try:
        with path.open("rb") as handle:
            return b"definition.of.atomic.species" in handle.read(65536).lower()
    except OSError:
        return False


def _out_beside(path: Path, spin: Spin, deck: Deck) -> OutFile | None:
    out = path.with_suffix(".out")
    return read_out(out, 2 if spin is Spin.COLLINEAR else 1, deck.kmesh) if out.is_file() else None


def _convergence(deck: Deck, out: OutFile | None) -> tuple[bool, str]:
    """OpenMX stops when the band energy Uele changes by less than scf.criterion (Hartree)."""
    if out is None:
        return True, "unknown: no .out beside the .scfout"
    criterion = deck.number("scf.criterion", 1e-6) * HARTREE
    if out.steps == 0:
        return True, "unknown: the .out has no SCF history"
    if out.change is None:
        return False, f"the only SCF cycle in the .out, expected a change below {criterion:.3g} eV between two"
    text = f"|change of band energy| {out.change:.3g} eV after {out.steps} cycles, criterion {criterion:.3g} eV"
    # The energies are printed with twelve decimals: their difference is known to 1e-12 Hartree.
    return out.change <= criterion + 1e-12 * HARTREE, text


def _structure(header: ScfoutHeader, deck: Deck, moments: FloatArray | None) -> tuple[AtomicStructure, OrbitalBasis]:
    basis, species = basis_of_deck(deck, header.n_orbitals)
    numbers = np.array([basis.species[k].atomic_number for k in species], dtype=np.int64)
    try:
        # OpenMX is periodic in all three directions, molecules too.
        structure = AtomicStructure(
            numbers,
            species,
            header.positions * BOHR,
            header.cell * BOHR,
            np.ones(3, dtype=np.bool_),
            moments if moments is not None and len(moments) == len(numbers) else None,
        )
    except PhysicsError as error:
        raise PhysicsError(f"{header.path}: {error}") from error
    return structure, basis


def _electrons(header: ScfoutHeader, deck: Deck, structure: AtomicStructure, basis: OrbitalBasis) -> float:
    neutral = basis.n_electrons(structure.species)
    charge = deck.number("scf.system.charge", 0.0)
    # The file holds the neutral cell's electrons; should it already count the charge, it differs from the sum.
    return header.valence_electrons - (charge if abs(header.valence_electrons - neutral) < 1e-6 else 0.0)


def _matrices(header: ScfoutHeader, structure: AtomicStructure, basis: OrbitalBasis) -> tuple[BlockMatrix, BlockMatrix]:
    layout = _Layout.build(header, structure.species, basis)
    overlap = BlockMatrix.from_values(
        layout.pairs, basis, structure.species, Spin.NONE, layout.read("S", layout.mirror, 1.0)
    )
    return overlap, _hamiltonian(layout, structure, basis)


def _hamiltonian(layout: _Layout, structure: AtomicStructure, basis: OrbitalBasis) -> BlockMatrix:
    spin = SPINS[layout.header.spin]
    if spin is Spin.NONE:
        values = layout.read("H0", layout.mirror, HARTREE)
        return BlockMatrix.from_values(layout.pairs, basis, structure.species, spin, values)
    result = BlockMatrix.zeros(layout.pairs, basis, structure.species, spin)
    if spin is Spin.COLLINEAR:
        for s in range(2):
            layout.put(result, layout.read(f"H{s}", layout.mirror, HARTREE), s)
        return result
    # [[H0 + i iH0, H2 + i (H3 + iH2)], [h.c. of the mirrored pair, H1 + i iH1]]
    for s in range(2):
        layout.put(result, layout.read(f"H{s}", layout.mirror, HARTREE), (s, s), "real")
        layout.put(result, layout.read(f"iH{s}", layout.mirror, HARTREE, sign=-1), (s, s), "imag")
    upper = layout.read("H2", None, HARTREE)
    layout.put(result, upper, (0, 1), "real")
    layout.put(result, upper[layout.mirror], (1, 0), "real")
    upper = layout.read("H3", None, HARTREE)
    upper += layout.read("iH2", None, HARTREE)
    layout.put(result, upper, (0, 1), "imag")
    layout.put(result, -upper[layout.mirror], (1, 0), "imag")
    return result


@dataclass(frozen=True, eq=False)
class _Layout:
    """Where each number of a spinless matrix stands in the file.

    `source` (n_values,) takes file order to ours in one gather; `mirror` (n_values,) gives the place of
    M_ji(-R)[b, a] for M_ij(R)[a, b].
    """

    header: ScfoutHeader
    pairs: PairList
    source: IntArray
    sign: FloatArray | None
    mirror: IntArray
    offsets: IntArray
    groups: list[tuple[int, int, slice]]
    basis: OrbitalBasis

    @classmethod
    def build(cls, header: ScfoutHeader, species: IntArray, basis: OrbitalBasis) -> _Layout:
        """Layout of the file's pairs in our order."""
        try:
            pairs, order = PairList.build_with_order(header.i, header.j, header.cell_shift, species)
        except PhysicsError as error:
            raise PhysicsError(f"{header.path}: {error}") from error
        n = basis.n_orbitals
        atoms = n[species]
        offsets = np.concatenate(([0], np.cumsum(atoms[pairs.i] * atoms[pairs.j])))
        source = np.empty(offsets[-1], dtype=np.int64)
        mirror = np.empty_like(source)
        groups = species_groups(pairs, species, len(basis.species))
        signs = []
        for a, b, part in groups:
            row, row_sign = _order(header, basis, a)
            column, column_sign = _order(header, basis, b)
            values = slice(offsets[part.start], offsets[part.stop])
            inside = (row[:, None] * n[b] + column[None, :]).reshape(-1)
            np.add(header.starts[order[part]][:, None], inside, out=source[values].reshape(-1, inside.size))
            transposed = (np.arange(n[b])[None, :] * n[a] + np.arange(n[a])[:, None]).reshape(-1)
            np.add(offsets[pairs.reverse[part]][:, None], transposed, out=mirror[values].reshape(-1, inside.size))
            signs.append(np.tile(np.outer(row_sign, column_sign).reshape(-1), part.stop - part.start))
        sign = np.concatenate(signs)
        return cls(header, pairs, source, None if (sign > 0).all() else sign, mirror, offsets, groups, basis)

    def read(self, name: str, mirror: IntArray | None, unit: float, sign: int = 1) -> FloatArray:
        """One matrix in our order and unit; with `mirror`, made exactly (anti)symmetric after a check."""
        values: FloatArray = self.header.read_matrix(name)[self.source]
        values *= unit
        if self.sign is not None:
            values *= self.sign
        if mirror is None:
            return values
        other = values[mirror]
        other *= sign
        self._check(name, values, other)
        values += other
        values *= 0.5
        return values

    def _check(self, name: str, values: FloatArray, mirrored: FloatArray) -> None:
        difference = np.abs(values - mirrored)
        at = int(difference.argmax())
        if difference[at] > ASYMMETRY:
            p = int(np.searchsorted(self.offsets, at, side="right")) - 1
            pair = (int(self.pairs.i[p]), int(self.pairs.j[p]), self.pairs.cell_shift[p].tolist())
            raise PhysicsError(
                f"{self.header.path}: matrix {name} is not hermitian: the block of pair {pair} differs from its "
                f"reverse by {difference[at]:.3g}, expected at most {ASYMMETRY:g} (eV, or 1 for S): the file is "
                "corrupt or its SCF broke off; repeat the calculation"
            )

    def put(self, target: BlockMatrix, values: FloatArray, spin: int | tuple[int, int], part: str = "real") -> None:
        """Write a spinless matrix into a spin channel: s of a collinear one, (s, s') of a spinor."""
        n = self.basis.n_orbitals
        for group, (a, b, pairs) in zip(target.groups(), self.groups, strict=True):
            blocks = values[self.offsets[pairs.start] : self.offsets[pairs.stop]].reshape(-1, n[a], n[b])
            if isinstance(spin, int):
                group.blocks[:, spin] = blocks
                continue
            s, t = spin
            view = group.blocks.real if part == "real" else group.blocks.imag
            view[:, s * n[a] : (s + 1) * n[a], t * n[b] : (t + 1) * n[b]] = blocks


def _order(header: ScfoutHeader, basis: OrbitalBasis, species: int) -> tuple[IntArray, FloatArray]:
    try:
        return OPENMX.species(basis.species[species])
    except BasisError as error:
        raise BasisError(f"{header.path}: species {basis.species[species].label}: {error}") from error


def _provenance(
    header: ScfoutHeader, deck: Deck, out: OutFile | None, basis: OrbitalBasis, convergence: str
) -> Provenance:
    digest = hashlib.sha256()
    with header.path.open("rb") as handle:
        while piece := handle.read(1 << 20):
            digest.update(piece)
    cutoff = deck.keys.get("scf.energycutoff", "")
    return Provenance(
        code="OpenMX",
        version=(out.version if out else "") or VERSIONS[header.version],
        functional=deck.keys.get("scf.xctype", ""),
        basis=" ".join(species.label for species in basis.species),
        grid=f"{cutoff} Ry" if cutoff else "",
        convergence=convergence,
        source=str(header.path),
        sha256=digest.hexdigest(),
    )
