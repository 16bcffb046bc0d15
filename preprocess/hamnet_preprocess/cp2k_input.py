"""CP2K input of one structure from a template.

Placeholders `{{name}}` of the template are replaced; a user's own must have those of `REQUIRED`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hamnet.errors import ConfigError, PhysicsError
from hamnet_preprocess.cp2k_library import Kind

if TYPE_CHECKING:
    from hamnet_preprocess.label_cp2k import CP2KSettings

BandPoint = tuple[str, tuple[float, float, float]]
"""Name and fractional k-point."""
BandPath = tuple[tuple[BandPoint, ...], ...]
"""Unbroken pieces of a path."""
REQUIRED = ("cell", "coordinates", "kinds", "kpoints", "matrices")
"""Placeholders without which the output would not belong to the structure, or could not be read."""
VACUUM = 20.0
"""Least empty space across a slab, Angstrom. The two-dimensional Poisson solver needs room: h-BN's H is off by
7 meV at most with 12 A, by 1.6 meV with 20 A."""
TEMPLATE = """\
&GLOBAL
  PROJECT cp2k
  RUN_TYPE ENERGY
  PRINT_LEVEL MEDIUM
&END GLOBAL
&FORCE_EVAL
  METHOD QUICKSTEP
  &DFT
    {{files}}
    CHARGE {{charge}}
    {{spin}}
    &QS
      METHOD GPW
      EPS_DEFAULT {{eps_default}}
    &END QS
    &POISSON
      {{poisson}}
    &END POISSON
    &MGRID
      CUTOFF {{cutoff}}
      REL_CUTOFF {{rel_cutoff}}
      NGRIDS 4
    &END MGRID
    &SCF
      SCF_GUESS ATOMIC
      EPS_SCF {{eps_scf}}
      MAX_SCF {{max_scf}}
      {{smearing}}
      &MIXING
        METHOD BROYDEN_MIXING
        ALPHA 0.4
        NBROYDEN 8
      &END MIXING
    &END SCF
    &XC
      &XC_FUNCTIONAL {{functional}}
      &END XC_FUNCTIONAL
    &END XC
    {{kpoints}}
    &PRINT
      {{matrices}}
      {{bands}}
    &END PRINT
  &END DFT
  &SUBSYS
    {{cell}}
    {{coordinates}}
    {{kinds}}
  &END SUBSYS
&END FORCE_EVAL
"""
_MATRIX = """\
&{name}_CSR_WRITE
  REAL_SPACE T
  THRESHOLD 1.0E-12
  UPPER_TRIANGULAR F
  BINARY {binary}
&END {name}_CSR_WRITE"""


def cp2k_input(atoms: Any, kinds: Sequence[Kind], settings: CP2KSettings) -> str:
    """Text of the input file.

    Args:
        atoms: `ase.Atoms`, periodic in three directions or two.
        kinds: one for each element of the structure.
        settings: the rest.

    Raises:
        ConfigError: the template lacks a placeholder or has an unknown one; the structure has no periodic direction.
        PhysicsError: the cell does not fit.
    """
    template = TEMPLATE if settings.template is None else settings.template
    periodic = periodic_letters(atoms)
    cell, positions = placed(atoms)
    values = {
        "files": _files(kinds),
        "charge": str(settings.charge),
        "spin": f"UKS T\nMULTIPLICITY {settings.multiplicity}" if settings.polarised else "",
        "eps_default": f"{settings.eps_default:.1E}",
        "eps_scf": f"{settings.eps_scf:.1E}",
        "max_scf": str(settings.max_scf),
        "cutoff": f"{settings.cutoff:g}",
        "rel_cutoff": f"{settings.rel_cutoff:g}",
        "functional": settings.functional.upper(),
        "smearing": _smearing(settings.smearing),
        "poisson": "PERIODIC XYZ" if periodic == "XYZ" else f"PERIODIC {periodic}\nPOISSON_SOLVER ANALYTIC",
        "kpoints": _kpoints(_mesh(settings.kmesh, atoms), settings.monkhorst_pack),
        "matrices": "\n".join(_MATRIX.format(name=n, binary="T" if settings.binary else "F") for n in ("KS", "S")),
        "bands": _bands(settings.bands, settings.band_points),
        "cell": _cell(cell, periodic),
        "coordinates": _coordinates(atoms.get_chemical_symbols(), positions),
        "kinds": "\n".join(f"&KIND {k.element}\n  BASIS_SET {k.basis}\n  POTENTIAL {k.potential}\n&END" for k in kinds),
    }
    return fill(template, values)


def fill(template: str, values: dict[str, str]) -> str:
    """The template with its placeholders replaced, keeping their indentation; lines left empty are dropped.

    Raises:
        ConfigError: a required placeholder is missing, or one has no meaning.
    """
    used = set(re.findall(r"\{\{(\w+)\}\}", template))
    missing, unknown = [name for name in REQUIRED if name not in used], sorted(used - set(values))
    if missing:
        raise ConfigError(f"the CP2K template has no {{{{{missing[0]}}}}}; it needs {', '.join(REQUIRED)}")
    if unknown:
        raise ConfigError(f"the CP2K template asks for {{{{{unknown[0]}}}}}; there are {', '.join(sorted(values))}")
    lines: list[str] = []
    for line in template.splitlines():
        indent = line[: len(line) - len(line.lstrip())]
        text = re.sub(r"\{\{(\w+)\}\}", lambda match: values[match.group(1)], line.strip())
        lines += [indent + part for part in text.splitlines() if part.strip()]
    return "\n".join(lines) + "\n"


def parse_path(text: str) -> BandPath:
    """Path from text: points "NAME k1 k2 k3" with fractions allowed, separated by commas, pieces by "|".

    Raises:
        ConfigError: it is no such text.
    """
    pieces: list[tuple[BandPoint, ...]] = []
    for piece in text.split("|"):
        points: list[BandPoint] = []
        for point in piece.split(","):
            fields = point.split()
            try:
                name, (k1, k2, k3) = fields[0], (float(Fraction(field)) for field in fields[1:])
            except (ValueError, IndexError, ZeroDivisionError) as error:
                raise ConfigError(
                    f'{point.strip()!r} is no k-point: expected a path as "G 0 0 0, K 1/3 1/3 0"'
                ) from error
            points.append((name, (k1, k2, k3)))
        if len(points) < 2:
            raise ConfigError(f"{piece.strip()!r} is no piece of a path: expected two k-points or more")
        pieces.append(tuple(points))
    return tuple(pieces)


def join_segments(points: Mapping[str, NDArray[np.float64]], segments: Sequence[tuple[str, str]]) -> BandPath | None:
    """Unbroken pieces from named k-points and segments; None without a segment."""
    pieces: list[list[str]] = []
    for start, end in segments:
        if pieces and pieces[-1][-1] == start:
            pieces[-1].append(end)
        else:
            pieces.append([start, end])

    def point(name: str) -> BandPoint:
        """Name and numbers of one point."""
        k1, k2, k3 = (float(x) for x in points[name])
        return name, (k1, k2, k3)

    return tuple(tuple(point(name) for name in piece) for piece in pieces) or None


def periodic_letters(atoms: Any) -> str:
    """ "XYZ", or "XY" for a slab.

    Raises:
        ConfigError: another combination, which CP2K's k-points do not know or which is a molecule.
    """
    pbc = tuple(bool(p) for p in atoms.pbc)
    if pbc == (True, True, True):
        return "XYZ"
    if pbc == (True, True, False):
        return "XY"
    if not any(pbc):
        raise ConfigError("this structure has no periodic direction: label molecules with `hamnet label pyscf`")
    raise ConfigError(
        f"this structure is periodic along {pbc}; CP2K labels are made of crystals (three directions) and slabs "
        "(the first two): turn the cell, or set pbc along the third direction and leave vacuum there"
    )


def placed(atoms: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Cell (3, 3) and positions as CP2K gets them, Angstrom.

    A slab (not periodic along the third vector) gets a third vector at right angles, at least `VACUUM` longer than
    the slab is thick, and its atoms are moved to the middle: a shift along a direction without lattice.

    Raises:
        PhysicsError: the periodic vectors are dependent.
    """
    cell, positions = np.array(atoms.cell.array), np.array(atoms.positions)
    if atoms.pbc[2]:
        if abs(np.linalg.det(cell)) < 1e-6:
            raise PhysicsError(f"the cell {cell.tolist()} has no volume")
        return cell, positions
    normal = np.cross(cell[0], cell[1])
    if np.linalg.norm(normal) < 1e-6:
        raise PhysicsError(f"the periodic vectors {cell[:2].tolist()} are parallel")
    normal /= np.linalg.norm(normal)
    height = positions @ normal
    length = max(abs(float(cell[2] @ normal)), float(np.ptp(height)) + VACUUM)
    cell[2] = length * normal
    return cell, positions + (length / 2 - (height.max() + height.min()) / 2) * normal


def _files(kinds: Sequence[Kind]) -> str:
    """Files by name alone: the standard ones are found in CP2K's data folder, others are copied beside the input."""
    basis = dict.fromkeys(kind.basis_file.name for kind in kinds)
    potentials = dict.fromkeys(kind.potential_file.name for kind in kinds)
    if len(potentials) > 1:
        raise ConfigError(f"CP2K reads one potential file, these elements need {', '.join(potentials)}: join them")
    lines = [f"BASIS_SET_FILE_NAME {name}" for name in basis]
    return "\n".join([*lines, *(f"POTENTIAL_FILE_NAME {name}" for name in potentials)])


def _cell(cell: NDArray[np.float64], periodic: str) -> str:
    rows = [f"  {name} " + " ".join(f"{x:.12f}" for x in row) for name, row in zip("ABC", cell, strict=True)]
    return "\n".join(["&CELL", *rows, f"  PERIODIC {periodic}", "&END CELL"])


def _coordinates(symbols: Sequence[str], positions: NDArray[np.float64]) -> str:
    rows = [f"  {s} " + " ".join(f"{x:.12f}" for x in p) for s, p in zip(symbols, positions, strict=True)]
    return "\n".join(["&COORD", *rows, "&END COORD"])


def _mesh(kmesh: tuple[int, int, int], atoms: Any) -> tuple[int, int, int]:
    return kmesh if atoms.pbc[2] else (kmesh[0], kmesh[1], 1)


def _kpoints(kmesh: tuple[int, int, int], monkhorst_pack: bool) -> str:
    """A k-point section even for 1 x 1 x 1: without one CP2K has no periodic images, and H would be folded.

    CP2K's points are (2 i - n - 1) / 2 n, so an even count is shifted by 1 / 2 n to hold Gamma.
    """
    counts = " ".join(map(str, kmesh))
    shifts = [0.0 if n % 2 or monkhorst_pack else 0.5 / n for n in kmesh]
    scheme = f"SCHEME MACDONALD {counts} " + " ".join(f"{shift:.10f}" for shift in shifts)
    return f"&KPOINTS\n  {scheme}\n  SYMMETRY F\n  FULL_GRID F\n  PARALLEL_GROUP_SIZE -1\n&END KPOINTS"


def _smearing(kelvin: float | None) -> str:
    if kelvin is None:
        return ""
    smear = f"&SMEAR ON\n  METHOD FERMI_DIRAC\n  ELECTRONIC_TEMPERATURE [K] {kelvin:g}\n&END SMEAR"
    return f"ADDED_MOS 1000\n{smear}"


def _bands(path: BandPath | None, points: int) -> str:
    """Section for a .bs file, one set of k-points for each unbroken piece of the path."""
    if path is None:
        return ""
    sets: list[str] = []
    for piece in path:
        rows = [f"    SPECIAL_POINT {name} " + " ".join(f"{x:.10f}" for x in k) for name, k in piece]
        sets += ["  &KPOINT_SET", "    UNITS B_VECTOR", *rows, f"    NPOINTS {points}", "  &END KPOINT_SET"]
    return "\n".join(["&BAND_STRUCTURE", "  FILE_NAME cp2k.bs", "  ADDED_MOS 1000", *sets, "&END BAND_STRUCTURE"])
