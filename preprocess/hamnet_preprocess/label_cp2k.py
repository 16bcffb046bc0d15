"""Labels from CP2K: one folder per structure with input, output, H and S in real space, and `label.json` last.

A run happens in a hidden folder beside its target, renamed when it is complete and converged.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hamnet.errors import ConfigError, ConvergenceError, FormatError
from hamnet_preprocess.cp2k_input import BandPath, cp2k_input
from hamnet_preprocess.cp2k_library import Kind, choose_kind, data_files, data_folder
from hamnet_preprocess.label import geometry_hash

COMMANDS = ("cp2k.psmp", "cp2k.ssmp", "cp2k.popt", "cp2k.sopt", "cp2k")
"""Programs looked for, in this order, when none is given."""
HOW_TO_GET = "get it with `apt-get install cp2k` (Debian, Ubuntu) or `conda install -c conda-forge cp2k`"
LABEL_FILE = "label.json"
_TAIL = 12
"""Lines of output that a message of failure shows."""


@dataclass(frozen=True)
class CP2KSettings:
    """What to compute with CP2K.

    Args:
        basis: name of the basis of every element ("DZVP-MOLOPT-SR-GTH"), or "Ga=NAME,As=NAME".
        functional: name in CP2K's XC_FUNCTIONAL, as PBE.
        kmesh: k-mesh; 1 1 1 still gives H in real space.
        cutoff: Ry, plane-wave cutoff of the finest grid.
        rel_cutoff: Ry, cutoff that a Gaussian of exponent 1 is mapped with.
        eps_default: accuracy of integrals.
        eps_scf: largest change of the density matrix at convergence.
        max_scf: steps.
        charge: of the cell.
        multiplicity: 2 S + 1; above 1, or with `spin`, unrestricted.
        spin: unrestricted even for a singlet.
        smearing: K, Fermi-Dirac; None for fixed occupations.
        monkhorst_pack: mesh off Gamma for even counts instead of holding Gamma.
        bands: path of a .bs file.
        band_points: k-points between two special points.
        binary: matrices as binary files, half as large as text.
        potential: name of the pseudopotential, instead of GTH-<functional> with the basis's valence electrons.
        basis_files, potential_files: the user's own, searched before CP2K's.
        template: text of an input template (see `cp2k_input`).
        command: program; None looks for one.
        launcher: what stands before it, as "srun -n 16".

    Raises:
        ConfigError: a number is impossible.
    """

    basis: str = "DZVP-MOLOPT-SR-GTH"
    functional: str = "PBE"
    kmesh: tuple[int, int, int] = (1, 1, 1)
    cutoff: float = 400.0
    rel_cutoff: float = 60.0
    eps_default: float = 1e-12
    eps_scf: float = 1e-7
    max_scf: int = 100
    charge: int = 0
    multiplicity: int = 1
    spin: bool = False
    smearing: float | None = None
    monkhorst_pack: bool = False
    bands: BandPath | None = None
    band_points: int = 20
    binary: bool = False
    potential: str | None = None
    basis_files: tuple[str, ...] = ()
    potential_files: tuple[str, ...] = ()
    template: str | None = None
    command: str | None = None
    launcher: str = ""

    def __post_init__(self) -> None:
        positive = ("cutoff", "rel_cutoff", "eps_default", "eps_scf", "max_scf", "multiplicity", "band_points")
        bad = [name for name in positive if not getattr(self, name) > 0]
        if bad:
            raise ConfigError(f"{bad[0]} is {getattr(self, bad[0])}, expected a positive number")
        if len(self.kmesh) != 3 or min(self.kmesh) < 1:
            raise ConfigError(f"kmesh is {self.kmesh}, expected three positive integers")
        if self.smearing is not None and not self.smearing > 0:
            raise ConfigError(f"smearing is {self.smearing} K, expected a positive temperature")

    @property
    def polarised(self) -> bool:
        """True for an unrestricted calculation."""
        return self.spin or self.multiplicity > 1

    def text(self, atoms: Any) -> str:
        """Canonical text of what decides the numbers, and of the geometry; how CP2K is started is left out."""
        fields = asdict(self)
        for name in ("command", "launcher"):
            fields.pop(name)
        for name in ("basis_files", "potential_files"):
            fields[name] = [[Path(path).name, file_hash(Path(path))] for path in fields[name]]
        return json.dumps({**fields, "geometry": geometry_hash(atoms)}, sort_keys=True)

    def basis_of(self, element: str) -> str:
        """Name of an element's basis.

        Raises:
            ConfigError: `basis` names bases by element, and not for this one.
        """
        if "=" not in self.basis:
            return self.basis
        table = dict(part.strip().split("=", 1) for part in self.basis.split(",") if "=" in part)
        if element not in table:
            raise ConfigError(f"--basis {self.basis!r} names no basis for {element}: add {element}=NAME")
        return table[element]


class CP2KLabelEngine:
    """GPW with Gaussian bases and GTH pseudopotentials: crystals and slabs, restricted or unrestricted."""

    name = "cp2k"
    suffix = ""

    def settings_of(self, target: Path) -> str | None:
        """Settings text of a finished folder."""
        try:
            found = json.loads((target / LABEL_FILE).read_text(encoding="utf-8"))
            return str(found["settings"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def label(self, atoms: Any, target: Path, settings: CP2KSettings) -> None:
        """Run CP2K; the folder gets its name when the run has ended well. A failed one stays as `.NAME.part`.

        Raises:
            ConvergenceError: the SCF did not converge.
            ConfigError: CP2K is not there, or the settings do not fit the structure.
            BasisError: no such basis or potential.
            FormatError: CP2K ended badly, or without its matrices.
        """
        program = find_program(settings.command)
        kinds = kinds_of(atoms, settings, program)
        text = cp2k_input(atoms, kinds, settings)
        work = target.with_name(f".{target.name}.part")
        if work.exists():
            shutil.rmtree(work)
        work.mkdir(parents=True)
        _copy_own_files(kinds, settings, work)
        (work / "cp2k.inp").write_text(text, encoding="utf-8")
        try:
            run_cp2k([*shlex.split(settings.launcher), program, "-i", "cp2k.inp", "-o", "cp2k.out"], work)
            version = check_run(work)
        except BaseException:
            _drop(work, "*.csr")
            raise
        finally:
            _drop(work, "*.kp*", "*.wfn*")
        record = {
            "settings": settings.text(atoms),
            "geometry": geometry_hash(atoms),
            "code": "CP2K",
            "version": version,
            "command": shlex.join([*shlex.split(settings.launcher), program]),
            "sha256": {name: file_hash(work / name) for name in ("cp2k.inp", "cp2k.out")},
        }
        temporary = work / f".{LABEL_FILE}.part"
        temporary.write_text(json.dumps(record, indent=1), encoding="utf-8")
        os.replace(temporary, work / LABEL_FILE)
        os.replace(work, target)


def read_template(path: Path | None) -> str | None:
    """Text of a user's template.

    Raises:
        ConfigError: it cannot be read.
    """
    if path is None:
        return None
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the template {path} cannot be read: {error}") from error


def find_program(command: str | None) -> str:
    """Path of CP2K.

    Raises:
        ConfigError: it is not there.
    """
    names = COMMANDS if command is None else (command,)
    found = next((path for path in map(shutil.which, names) if path), None)
    if found is None:
        raise ConfigError(f"CP2K was not found ({', '.join(names)}): {HOW_TO_GET}, or name the program with --command")
    return str(Path(found).absolute())


def kinds_of(atoms: Any, settings: CP2KSettings, program: str) -> list[Kind]:
    """Basis and potential of each element of a structure, in order of their first atoms.

    Raises:
        BasisError: no such entry in the files.
        ConfigError: a file or CP2K's data folder is missing.
    """
    files = data_files(settings.basis_files, settings.potential_files, program)
    elements = dict.fromkeys(atoms.get_chemical_symbols())
    return [choose_kind(e, settings.basis_of(e), settings.functional, settings.potential, files) for e in elements]


def run_cp2k(command: list[str], folder: Path) -> None:
    """Run the command in a folder.

    Raises:
        FormatError: it ended with an error or was killed; the message has the end of its output.
    """
    environment = dict(os.environ)
    data = data_folder(command[-5])
    if data is not None:
        environment.setdefault("CP2K_DATA_DIR", str(data))
    with (folder / "screen.txt").open("wb") as screen:
        code = subprocess.run(command, cwd=folder, stdout=screen, stderr=subprocess.STDOUT, env=environment).returncode
    if code:
        how = (
            f"was killed by signal {-code} (9: often too little memory)" if code < 0 else f"ended with exit code {code}"
        )
        raise FormatError(f"CP2K {how} in {folder}; the end of its output: {_tail(folder)}")


def check_run(folder: Path) -> str:
    """Version of CP2K that a run was made with, when it converged and wrote its matrices.

    Raises:
        ConvergenceError: the SCF did not converge.
        FormatError: the run was cut short, or the output or the matrices are missing.
    """
    path = folder / "cp2k.out"
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    if "PROGRAM ENDED AT" not in text:
        raise FormatError(f"CP2K was cut short in {folder}: cp2k.out has no end; its last lines: {_tail(folder)}")
    if re.search(r"SCF run NOT converged", text):
        steps = re.findall(r"^ +\d+ \S+ +\S+ +[\d.]+ +(\S+) +-?\d+\.\d+ +\S+$", text, re.MULTILINE)
        last = f" (last convergence {steps[-1]})" if steps else ""
        raise ConvergenceError(
            f"CP2K's SCF did not converge in {folder}{last}: give --smearing 500 or --monkhorst-pack where the gap is "
            "small, else raise --max-scf"
        )
    if "SCF run converged" not in text:
        raise FormatError(f"cp2k.out in {folder} says nothing of a converged SCF: is RUN_TYPE in the template ENERGY?")
    for what in ("KS_SPIN_1", "S_SPIN_1"):
        if not any(folder.glob(f"*-{what}_R_*.csr")):
            raise FormatError(f"CP2K wrote no {what} matrices in {folder}: the template must print {{{{matrices}}}}")
    version = re.search(r"CP2K\| version string:\s+(.+)", text)
    return version.group(1).strip() if version else "unknown"


def file_hash(path: Path) -> str:
    """SHA-256 of a file.

    Raises:
        ConfigError: it is not there.
    """
    if not path.is_file():
        raise ConfigError(f"there is no file {path}")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _copy_own_files(kinds: list[Kind], settings: CP2KSettings, work: Path) -> None:
    """The user's files go beside the input, where CP2K finds them by name and the folder keeps them."""
    own = {Path(path).resolve() for path in (*settings.basis_files, *settings.potential_files)}
    for path in {file for kind in kinds for file in (kind.basis_file, kind.potential_file)} & own:
        shutil.copy(path, work / path.name)


def _drop(work: Path, *patterns: str) -> None:
    """Remove files: matrices of a failed run, restart files of any."""
    for path in {path for pattern in patterns for path in work.glob(pattern)}:
        path.unlink()


def _tail(folder: Path) -> str:
    """Last lines of the output, or of the screen where there is no output, on one line."""
    for name in ("cp2k.out", "screen.txt"):
        path = folder / name
        if path.is_file() and path.stat().st_size:
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
            kept = [" ".join(re.sub(r"[*_]{2,}", " ", line).split()) for line in lines]
            return " / ".join([line for line in kept if line][-_TAIL:])
    return "nothing was written"
