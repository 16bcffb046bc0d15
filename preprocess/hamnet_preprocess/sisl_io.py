"""SIESTA's files through sisl: .HSX, .TSHS, .nc and .fdf in; .HSX, .TSHS and .nc out.

SIESTA's orbitals are m = -l..l with odd m flipped (`core/conventions.SIESTA`); sisl puts the zero of energy at the
Fermi level, so energies read are relative to it and energies written are shifted to it. A .TSHS holds no orbital
names: they are taken from a .HSX or .ORB_INDX of the same name beside it.
Sources: sisl 0.20, `sisl.io.siesta`; sisl's spin components of `Hamiltonian` (uu, dd, ud, du).
"""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from hamnet.core.basis import SPECTROSCOPIC, OrbitalBasis, Shell, Species
from hamnet.core.blocks import BlockMatrix
from hamnet.core.calculation import Calculation, Provenance
from hamnet.core.conventions import SIESTA
from hamnet.core.spin import Spin
from hamnet.core.structure import AtomicStructure
from hamnet.core.units import BOHR
from hamnet.errors import BasisError, ConfigError, FormatError, PhysicsError
from hamnet_preprocess.code_blocks import Elements, elements_of, matrix_from_elements, shell_text, with_pairs_of
from hamnet_preprocess.elements import cell_for_file, symbol_of

SUFFIXES = (".HSX", ".TSHS", ".nc")
"""Files that hold H and S, best first: where a run left several, one is read."""
TOLERANCE = 1e-4
"""eV; SIESTA may store single precision: 30 eV have a rounding of 2e-6."""
SPINOR_PARTS = ((0, 0, 4), (3, 1, 5), (1, 2, 3), (2, 6, 7))
"""Our component 2 s + t, and where sisl keeps its real and imaginary parts."""


class SislReader:
    """Reads SIESTA Hamiltonians through sisl, which must be installed: pip install "hamnet[sisl]"."""

    name = "sisl"

    def find(self, root: Path) -> list[Path]:
        """One file with H and S for each run at or below a folder; a file is its own source."""
        if root.is_file():
            return [root]
        best: dict[tuple[Path, str], Path] = {}
        for suffix in SUFFIXES:
            for path in sorted(root.rglob(f"*{suffix}")):
                if suffix != ".nc" or _is_siesta_nc(path):
                    best.setdefault((path.parent, path.stem), path)
        return sorted(best.values())

    def read(self, source: Path, *, allow_unconverged: bool = False) -> Calculation:
        """One calculation from a .HSX, .TSHS, .nc or .fdf; the files do not say whether the SCF converged.

        Raises:
            ConfigError: sisl is not installed.
            FormatError: sisl cannot read the file.
            BasisError: the orbitals are not named, or are not whole shells m = -l..l.
            PhysicsError: H or S is not hermitian.
        """
        path = self._file(Path(source))
        sisl = _sisl()
        h = _quietly(path, lambda: sisl.get_sile(path).read_hamiltonian())
        atoms = _named_atoms(sisl, h, path)
        structure, basis = _structure(h.geometry, atoms, path)
        spin = _spin(h, path)
        frame = structure, basis
        overlap = matrix_from_elements(_overlap_elements(h), *frame, Spin.NONE, SIESTA, f"{path} (S)", TOLERANCE)
        found = matrix_from_elements(_elements(h, spin), *frame, spin, SIESTA, f"{path} (H)", TOLERANCE)
        electrons = basis.n_electrons(structure.species)
        labels = " ".join(species.label for species in basis.species)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        return Calculation(
            structure,
            basis,
            overlap,
            with_pairs_of(found, overlap),
            fermi_energy=0.0,
            n_electrons=electrons if electrons > 0 else None,
            provenance=Provenance("SIESTA", version="", basis=labels, source=str(source), sha256=digest),
        )

    def _file(self, source: Path) -> Path:
        if source.is_file():
            return source
        found = self.find(source) if source.is_dir() else []
        if len(found) != 1:
            names = [path.name for path in found]
            raise FormatError(f"{source}: {len(found)} SIESTA files {names}, expected one of {', '.join(SUFFIXES)}")
        return found[0]


def write_sisl(calculation: Calculation, path: Path) -> None:
    """Write H and S as .HSX, .TSHS or .nc, told by the suffix; the Fermi level becomes the zero of energy.

    A .TSHS or .nc gets a .ORB_INDX beside it, since these files do not name their orbitals.

    Raises:
        ConfigError: sisl is not installed, or the suffix is none of these.
        PhysicsError: there is no Hamiltonian.
    """
    if path.suffix not in SUFFIXES:
        raise ConfigError(f"{path}: SIESTA's files end in {', '.join(SUFFIXES)}, found {path.suffix or 'nothing'!r}")
    sisl = _sisl()
    h = to_sisl(calculation)

    def write() -> None:
        """Write and close."""
        with sisl.get_sile(path, "w") as sile:
            sile.write_hamiltonian(h)

    _quietly(path, write)
    if path.suffix != ".HSX":
        path.with_suffix(".ORB_INDX").write_text(_orbital_index(calculation))


def to_sisl(calculation: Calculation) -> Any:
    """`sisl.Hamiltonian` of a calculation, energies relative to the Fermi level where it is known.

    Raises:
        ConfigError: sisl is not installed.
        PhysicsError: there is no Hamiltonian.
    """
    if calculation.hamiltonian is None:
        raise PhysicsError("there is an overlap but no Hamiltonian: sisl's files need both")
    sisl = _sisl()
    hamiltonian = with_pairs_of(calculation.hamiltonian, calculation.overlap)
    geometry = _geometry(sisl, calculation, hamiltonian)
    elements, n = elements_of(hamiltonian, SIESTA), hamiltonian.n_orbitals
    parts = [
        _sparse(geometry, elements, elements.component == c, n, imaginary)
        for c, imaginary in _sisl_order(hamiltonian.spin)
    ]
    s = elements_of(calculation.overlap.on_pairs(hamiltonian.pairs), SIESTA)
    overlap = _sparse(geometry, s, np.ones(len(s.row), dtype=bool), n, False)
    kind = {Spin.NONE: "unpolarized", Spin.COLLINEAR: "polarized", Spin.SPINOR: "spin-orbit"}[hamiltonian.spin]

    def make() -> Any:
        """The Hamiltonian, shifted."""
        result = sisl.Hamiltonian.fromsp(geometry, parts, S=overlap, spin=sisl.Spin(kind))
        result.shift(-(calculation.fermi_energy or 0.0))
        return result

    return _quietly(Path("sisl"), make)


def _sisl() -> Any:
    try:
        import sisl
        import sisl.io  # the file formats register themselves
    except ImportError as error:
        raise ConfigError('SIESTA files are read and written by sisl: pip install "hamnet[sisl]"') from error
    return sisl


def _quietly(path: Path, action: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # sisl warns of what a file leaves out: checked here
        try:
            return action()
        except (ConfigError, FormatError):
            raise
        except Exception as error:  # sisl raises kinds of its own
            raise FormatError(f"{path}: sisl says: {type(error).__name__}: {error}") from error


def _is_siesta_nc(path: Path) -> bool:
    if not h5py.is_hdf5(path):
        return False
    with h5py.File(path, "r") as file:
        return "SPARSE" in file


def _named_atoms(sisl: Any, h: Any, path: Path) -> Any:
    """Atoms whose orbitals have l and m: of the file itself, else of a file of the same name beside it."""
    atoms = h.geometry.atoms
    if _named(atoms):
        return atoms
    for suffix in (".HSX", ".ORB_INDX"):
        beside = path.with_suffix(suffix)
        if beside == path or not beside.is_file():
            continue
        found = _quietly(beside, lambda beside=beside: sisl.get_sile(beside).read_basis())
        if _named(found) and [len(a) for a in found] == [len(a) for a in atoms]:
            return found
        raise BasisError(f"{beside}: its orbitals are not those of {path.name}: they come from different runs")
    raise BasisError(
        f"{path}: the file does not name its orbitals; put the .HSX (SIESTA 5) or the .ORB_INDX of the same run "
        f"beside it as {path.stem}.HSX or {path.stem}.ORB_INDX"
    )


def _named(atoms: Any) -> bool:
    return all(hasattr(orbital, "l") and hasattr(orbital, "m") for atom in atoms.atom for orbital in atom.orbitals)


def _structure(geometry: Any, atoms: Any, path: Path) -> tuple[AtomicStructure, OrbitalBasis]:
    species: list[Species] = []
    index: dict[int, int] = {}
    for k in np.unique(atoms.species).tolist():
        index[k] = len(species)
        species.append(_species(atoms.atom[k], {s.label for s in species}, path))
    own = np.array([index[int(k)] for k in atoms.species], dtype=np.int64)
    numbers = np.array([species[k].atomic_number for k in own], dtype=np.int64)
    cell, positions = np.array(geometry.lattice.cell), np.array(geometry.xyz)
    return AtomicStructure(numbers, own, positions, cell, np.ones(3, dtype=bool)), OrbitalBasis(tuple(species))


def _species(atom: Any, taken: set[str], path: Path) -> Species:
    orbitals, shells, at = list(atom.orbitals), [], 0
    while at < len(orbitals):
        l, radius = int(orbitals[at].l), float(orbitals[at].R)
        found = [(int(o.l), int(o.m)) for o in orbitals[at : at + 2 * l + 1]]
        if found != [(l, m) for m in range(-l, l + 1)]:
            raise BasisError(f"{path}: {atom.tag}: orbitals {found} (l, m), expected the whole shell m = -{l}..{l}")
        shells.append(Shell(l, radius if radius > 0 else None))
        at += 2 * l + 1
    number = int(atom.Z)
    label = f"{symbol_of(number)}-{shell_text(tuple(s.l for s in shells))}"
    while label in taken:
        label += "'"
    return Species(label, number, float(np.sum(atom.q0)), tuple(shells))


def _spin(h: Any, path: Path) -> Spin:
    if h.spin.is_unpolarized:
        return Spin.NONE
    if h.spin.is_polarized:
        return Spin.COLLINEAR
    if h.spin.is_noncolinear or h.spin.is_spinorbit:
        return Spin.SPINOR
    raise FormatError(f"{path}: spin is {h.spin}, which hamnet does not have")


def _elements(h: Any, spin: Spin) -> Elements:
    if spin is not Spin.SPINOR:
        n_components = 2 if spin is Spin.COLLINEAR else 1
        return _stacked(h, [(c, _coo(h, c)) for c in range(n_components)])
    h = h.astype(np.float64)
    if h.spin.is_noncolinear:  # uu, dd, Re ud, Im ud; du is the conjugate of ud
        uu, dd, re, im = (_coo(h, c) for c in range(4))
        return _stacked(h, [(0, uu + 0j * uu), (3, dd + 0j * dd), (1, re + 1j * im), (2, re - 1j * im)])
    return _stacked(h, [(c, _coo(h, real) + 1j * _coo(h, imag)) for c, real, imag in SPINOR_PARTS])


def _overlap_elements(h: Any) -> Elements:
    if h.orthogonal:
        n = h.geometry.no
        own, none = np.arange(n), np.zeros(n, dtype=np.int64)
        return Elements(own, own, np.zeros((n, 3), dtype=np.int64), none, np.ones(n))
    return _stacked(h, [(0, _coo(h, h.S_idx))])


def _coo(h: Any, component: int) -> Any:
    return h.tocsr(component)


def _stacked(h: Any, matrices: list[tuple[int, Any]]) -> Elements:
    n, offsets = int(h.geometry.no), np.asarray(h.geometry.lattice.sc_off, dtype=np.int64)
    parts = []
    for component, matrix in matrices:
        coo = matrix.tocoo()
        image, column = np.divmod(coo.col.astype(np.int64), n)
        row = coo.row.astype(np.int64)
        parts.append((row, column, offsets[image], np.full(len(row), component), coo.data))
    return Elements(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def _sisl_order(spin: Spin) -> list[tuple[int, bool]]:
    """(our component, imaginary part) for each of sisl's numbers of a pair of orbitals."""
    if spin is not Spin.SPINOR:
        return [(c, False) for c in range(spin.factor)]
    order = [(0, False)] * 8
    for component, real, imag in SPINOR_PARTS:
        order[real], order[imag] = (component, False), (component, True)
    return order


def _sparse(geometry: Any, elements: Elements, chosen: NDArray[np.bool_], n: int, imaginary: bool) -> Any:
    shifts, inverse = np.unique(elements.shift[chosen], axis=0, return_inverse=True)
    image = np.array([int(geometry.lattice.sc_index(shift)) for shift in shifts])[inverse.ravel()]
    value = elements.value[chosen]
    value = value.imag if imaginary else value.real
    columns = image * n + elements.column[chosen]
    return csr_matrix((value, (elements.row[chosen], columns)), shape=(n, n * int(geometry.n_s)))


def _geometry(sisl: Any, calculation: Calculation, hamiltonian: BlockMatrix) -> Any:
    structure, basis = calculation.structure, calculation.basis
    made = {int(k): _sisl_atom(sisl, basis.species[int(k)], int(k)) for k in np.unique(structure.species)}
    atoms = [made[int(k)] for k in structure.species]
    reach = np.abs(hamiltonian.pairs.cell_shift).max(axis=0, initial=0)
    lattice = sisl.Lattice(cell_for_file(structure), nsc=(2 * reach + 1).tolist())
    return sisl.Geometry(structure.positions, atoms, lattice=lattice)


def _sisl_atom(sisl: Any, species: Species, number: int) -> Any:
    orbitals = [
        sisl.AtomicOrbital(n=l + 1, l=l, m=m, zeta=zeta, R=-1.0 if radius is None else radius)
        for l, m, zeta, radius in _orbitals(species)
    ]
    # the first characters of a tag tell SIESTA's readers the element
    return sisl.Atom(species.atomic_number, orbitals, tag=f"{symbol_of(species.atomic_number)}_{number + 1}")


def _orbitals(species: Species) -> list[tuple[int, int, int, float | None]]:
    """(l, m, zeta, radius) of each orbital; zeta counts the shells of one l."""
    found: list[tuple[int, int, int, float | None]] = []
    for k, shell in enumerate(species.shells):
        zeta = sum(s.l == shell.l for s in species.shells[: k + 1])
        found += [(shell.l, m, zeta, shell.radius) for m in range(-shell.l, shell.l + 1)]
    return found


def _orbital_index(calculation: Calculation) -> str:
    """The text of SIESTA's .ORB_INDX: one line of 16 columns for each orbital of the cell."""
    structure, basis = calculation.structure, calculation.basis
    lines: list[str] = []
    for atom, k in enumerate(structure.species.tolist()):
        species = basis.species[k]
        for own, (l, m, zeta, radius) in enumerate(_orbitals(species)):
            io = len(lines) + 1
            reach = (radius or 0.0) / BOHR
            lines.append(
                f"{io:6d} {atom + 1:5d} {k + 1:3d} {symbol_of(species.atomic_number):>4} {own + 1:3d} {l + 1:2d} "
                f"{l:2d} {m:3d} {zeta:2d} F {SPECTROSCOPIC[l]:>4} {reach:10.6f} 0 0 0 {io:6d}"
            )
    head = f"{len(lines)} {len(lines)} = orbitals in unit cell and supercell. See end of file.\n\n"
    return head + "io ia is spec iao n l m z p sym rc isc iuo\n" + "\n".join(lines) + "\n"
