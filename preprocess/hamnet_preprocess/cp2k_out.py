"""CP2K's output: atoms, kinds, list of periodic images, energies, convergence."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hamnet.errors import FormatError
from hamnet_preprocess.cp2k_csr import Images

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

TRIED = ("2023.1",)
"""Versions whose output was read in tests."""
BANNER = "CP2K| version string:"
_START, _END = "PROGRAM STARTED AT", "PROGRAM ENDED AT"
_NUMBER = r"([-+]?\d+\.\d*(?:[eED][-+]?\d+)?)"
_ATOM = re.compile(r"^\s+(\d+)\s+(\d+)\s+(\S+)\s+(\d+)" + (r"\s+" + _NUMBER) * 4)
_ENERGY = re.compile(r"^\s*ENERGY\| Total FORCE_EVAL \( QS \) energy \[\S+\s+" + _NUMBER, re.M)
_FORCE = re.compile(r"^\s+(\d+)\s+(\d+)\s+\S+" + (r"\s+" + _NUMBER) * 3 + r"\s*$")
_STEP = re.compile(r"^\s+(\d+) \S+\s+\S+\s+(?:\S+\s+)?" + (_NUMBER + r"\s+") * 2 + r"\S+\s+" + _NUMBER)


@dataclass(frozen=True)
class OutKind:
    """One atomic kind as printed.

    Args:
        label: name of the kind.
        basis, potential: names; the potential is empty where none is printed (all electrons).
        n_orbitals: spherical basis functions.
    """

    label: str
    basis: str
    potential: str
    n_orbitals: int


@dataclass(frozen=True, eq=False)
class OutFile:
    """What the last run in an output says; Hartree, bohr-free (positions in Angstrom with six decimals).

    Args:
        path: the file.
        version: as "2023.1".
        settings: value of each printed `GLOBAL|`, `DFT|`, `QS|`, `CELL|`, `BRILLOUIN|`, `CP2K|` line, first one wins.
        basis_files: names of the basis-set files.
        kinds: atomic kinds by their number.
        kind_of_atom: (n_atoms,) number of the kind.
        atomic_numbers, positions, valence: of each atom; `valence` is Z(eff).
        images: of KS and of S, number -> integer triple; empty in a run without k-points.
        n_electrons: all spins.
        n_orbitals: of the cell.
        energy, fermi_energy: Hartree, None where not printed.
        forces: (n_atoms, 3) Hartree / bohr, None where not printed.
        moments: (n_atoms,) Mulliken spin moments, None where not printed.
        converged: None where the output does not say.
        convergence: text for people.
        temperature: kelvin of smeared occupations, None without.
        functional: name.
    """

    path: Path
    version: str
    settings: dict[str, str]
    basis_files: tuple[str, ...]
    kinds: dict[int, OutKind]
    kind_of_atom: IntArray
    atomic_numbers: IntArray
    positions: FloatArray
    valence: FloatArray
    images: dict[str, Images]
    n_electrons: float
    n_orbitals: int
    energy: float | None
    fermi_energy: float | None
    forces: FloatArray | None
    moments: FloatArray | None
    converged: bool | None
    convergence: str
    temperature: float | None
    functional: str

    @property
    def is_polarised(self) -> bool:
        """True for alpha and beta matrices."""
        return self.settings.get("DFT| Number of spin states", "1") == "2"

    @property
    def kmesh(self) -> tuple[int, int, int] | None:
        """Counts of the k-point grid, 1 x 1 x 1 for SCHEME GAMMA; None for a list of k-points or none."""
        if self.settings.get("BRILLOUIN|") == "Gamma-point calculation":
            return 1, 1, 1
        words = self.settings.get("BRILLOUIN| K-Point grid", "").split()
        return (int(words[0]), int(words[1]), int(words[2])) if len(words) == 3 else None


def is_out(path: Path) -> bool:
    """True for a text file with CP2K's banner in its first 64 kB."""
    try:
        with path.open("rb") as handle:
            return BANNER.encode() in handle.read(65536)
    except OSError:
        return False


def read_out(path: Path) -> OutFile:
    """The last run in an output file (CP2K appends to a file that is there).

    Raises:
        FormatError: no CP2K output, a run that broke off, or one without a part that is needed; the message says
            which versions were tried.
    """
    text = path.read_text(encoding="utf-8", errors="replace")
    text = text[max(text.rfind(_START), 0) :]
    version = _first(text, re.escape(BANNER) + r"\s+CP2K version (\S+)")
    if version is None:
        raise FormatError(f"{path}: no line '{BANNER}': this is no output of CP2K")
    _check_ended(path, text)
    settings = _settings(text)
    atoms = _atoms(path, text, version)
    converged, convergence = _convergence(text)
    electrons = [int(x) for x in re.findall(r"^ Number of electrons:\s+(\d+)", text, re.M)]
    spins = 2 if settings.get("DFT| Number of spin states") == "2" else 1
    if len(electrons) < spins or (orbitals := _first(text, r"Number of orbital functions:\s+(\d+)")) is None:
        raise _untried(path, version, "no 'Number of electrons' or 'Number of orbital functions'")
    energy, fermi = _ENERGY.findall(text), re.findall(r"Fermi energy:\s+" + _NUMBER, text)
    temperature = _first(text, r"Electronic temperature \[K\]:\s+" + _NUMBER)
    return OutFile(
        path,
        version,
        settings,
        tuple(dict.fromkeys(re.findall(r"GLOBAL\| Basis set file name\s+(\S+)", text))),
        _kinds(path, text, version),
        *atoms,
        {name: _images(path, text, name) for name in ("KS", "S")},
        float(sum(electrons[:spins])),
        int(orbitals),
        float(energy[-1]) if energy else None,
        float(fermi[-1]) if fermi else None,
        _forces(text, len(atoms[0])),
        _moments(text, len(atoms[0])),
        converged,
        convergence,
        None if temperature is None else float(temperature),
        " ".join(dict.fromkeys(re.findall(r"^ FUNCTIONAL\| ([A-Z][\w-]*)[: ]", text, re.M))),
    )


def _first(text: str, pattern: str) -> str | None:
    match = re.search(pattern, text, re.M)
    return None if match is None else match[1]


def _untried(path: Path, version: str, what: str) -> FormatError:
    tried = ", ".join(TRIED)
    other = "" if version in TRIED else f"; this is CP2K {version}, its output was tried with {tried} only"
    return FormatError(f"{path}: {what} in the output{other}; PRINT_LEVEL MEDIUM prints all that is needed")


def _check_ended(path: Path, text: str) -> None:
    if _END in text:
        return
    abort = re.search(r"\[ABORT\](.*?)\n\s*\*{20}", text, re.S)
    if abort:
        words = " ".join(line.strip(" *\n") for line in abort[1].splitlines())
        reason = " ".join(re.sub(r"\\___/|O/\||/\| \||/ \\|\s\|\s", " ", words).split())
        raise FormatError(f"{path}: CP2K stopped with an error: {reason}")
    last = next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "nothing")
    raise FormatError(
        f"{path}: the run did not end (no '{_END}'); it was killed or is still running. Last line: {last[:80]}"
    )


def _settings(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for match in re.finditer(r"^ ((?:GLOBAL|DFT|QS|CELL|BRILLOUIN|CP2K)\| .+?):?(?: {2,}(\S.*))?$", text, re.M):
        found.setdefault(match[1].strip(), (match[2] or "").strip())
    return found


def _kinds(path: Path, text: str, version: str) -> dict[int, OutKind]:
    heads = list(re.finditer(r"^ +(\d+)\. Atomic kind: (\S+)", text, re.M))
    if not heads:
        raise _untried(path, version, "no ATOMIC KIND INFORMATION")
    ends = [*(m.start() for m in heads[1:]), max(text.find("TOTAL NUMBERS AND MAXIMUM NUMBERS"), 0) or len(text)]
    found = {}
    for head, end in zip(heads, ends, strict=True):
        part = text[head.end() : end]
        basis = _first(part, r"^ +Orbital Basis Set\s+(\S+)")
        orbitals = _first(part, r"Number of spherical basis functions:\s+(\d+)")
        potential = _first(part, r"Potential information for\s+(\S+)") or ""
        if basis is None or orbitals is None:
            raise _untried(path, version, f"no orbital basis of kind {head[2]}")
        found[int(head[1])] = OutKind(head[2], basis, potential, int(orbitals))
    return found


def _atoms(path: Path, text: str, version: str) -> tuple[IntArray, IntArray, FloatArray, FloatArray]:
    head = re.search(r"ATOMIC COORDINATES IN (ANGSTROM|angstrom)[^\n]*\n", text)
    if head is None:
        raise _untried(path, version, "no 'ATOMIC COORDINATES IN ANGSTROM'")
    rows = []
    for line in text[head.end() :].splitlines():
        match = _ATOM.match(line)
        if match:
            rows.append(match.groups())
        elif rows:
            break
    if not rows:
        raise _untried(path, version, "no atoms in the table of coordinates")
    numbers = np.array([[float(x) for x in (*row[:2], *row[3:])] for row in rows])
    kinds, elements = numbers[:, 1].astype(np.int64), numbers[:, 2].astype(np.int64)
    return kinds, elements, numbers[:, 3:6], numbers[:, 6]


def _images(path: Path, text: str, name: str) -> Images:
    head = re.search(rf"^ +{name} CSR write\|\s*(\d+) periodic images\s*\n.*\n", text, re.M)
    if head is None:
        return {}
    found: Images = {}
    for number, line in enumerate(text[head.end() :].splitlines()[: int(head[1])], 1):
        words = line.split()
        # the number is printed in three digits, as *** from 1000 on; rows are in its order
        if len(words) != 4 or words[0] not in (str(number), "***"):
            break
        found[number] = (int(words[1]), int(words[2]), int(words[3]))
    if len(found) != int(head[1]):
        raise FormatError(f"{path}: the list of {name} names {head[1]} periodic images, {len(found)} rows follow")
    return found


def _convergence(text: str) -> tuple[bool | None, str]:
    """CP2K stops when the change of the density matrix (or gradient) falls below EPS_SCF."""
    criterion = _first(text, r"^ +eps_scf:\s+(\S+)")
    steps = [match for line in text.splitlines() if (match := _STEP.match(line))]
    reached = f"convergence {float(steps[-1][3]):.3g} after {steps[-1][1]} cycles, " if steps else ""
    figures = f"{reached}eps_scf {criterion or 'unknown'}"
    bad, good = text.rfind("SCF run NOT converged"), text.rfind("SCF run converged in")
    if bad < 0 and good < 0:
        return None, f"not stated in the output, {figures}"
    return good > bad, figures


def _forces(text: str, n_atoms: int) -> FloatArray | None:
    start = text.rfind("ATOMIC FORCES in [a.u.]")
    if start < 0:
        return None
    rows = [m.groups()[2:] for line in text[start:].splitlines() if (m := _FORCE.match(line))][:n_atoms]
    return np.array(rows, dtype=np.float64) if len(rows) == n_atoms else None


def _moments(text: str, n_atoms: int) -> FloatArray | None:
    head = text.rfind("Mulliken Population Analysis")
    if head < 0 or "Spin moment" not in text[head : head + 300]:
        return None
    rows = re.findall(r"^ +\d+ +[A-Z]\S* +\d+" + (r" +" + _NUMBER) * 4 + r"\s*$", text[head:], re.M)
    return np.array([float(row[3]) for row in rows[:n_atoms]]) if len(rows) >= n_atoms else None
