"""Which pseudopotential belongs to an element and a basis: names in CP2K's data files, checked before any run.

Facts on the files: cp2k.org manual, `BASIS_SET_FILE_NAME` and `POTENTIAL_FILE_NAME`; an entry starts with a line
`Element NAME ALIAS ...`, comments with #. A suffix -qN gives the number of valence electrons.
"""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from hamnet.errors import BasisError, ConfigError

BASIS_FILES = (
    "BASIS_MOLOPT",
    "BASIS_MOLOPT_UCL",
    "BASIS_MOLOPT_UZH",
    "GTH_BASIS_SETS",
    "BASIS_ccGRB_UZH",
    "BASIS_ZIJLSTRA",
)
"""Files of CP2K's data folder that are searched, in this order, after the user's own."""
POTENTIAL_FILES = ("GTH_POTENTIALS", "POTENTIAL_UZH")
FUNCTIONAL_OF_POTENTIAL = {"LDA": "PADE", "PBESOL": "PBESol"}
"""CP2K's functional -> the word in names of GTH potentials, where it differs (PADE is the fit of LDA)."""
_ENTRY = re.compile(r"^\s*([A-Z][a-z]?)\s+([A-Za-z].*)$")


@dataclass(frozen=True)
class Kind:
    """Basis and potential of one element.

    Args:
        element: symbol.
        basis, potential: names of the entries.
        basis_file, potential_file: where they are.
    """

    element: str
    basis: str
    basis_file: Path
    potential: str
    potential_file: Path


def data_folder(command: str = "cp2k.psmp") -> Path | None:
    """CP2K's data folder: $CP2K_DATA_DIR, else beside the program (`share/cp2k`, `share/cp2k/data`, `data`)."""
    candidates = [Path(os.environ["CP2K_DATA_DIR"])] if os.environ.get("CP2K_DATA_DIR") else []
    program = shutil.which(command)
    if program is not None:
        for parent in Path(program).resolve().parents:
            candidates += [parent / "share/cp2k", parent / "share/cp2k/data", parent / "data"]
    candidates.append(Path("/usr/share/cp2k"))
    return next((folder for folder in candidates if (folder / "GTH_POTENTIALS").is_file()), None)


@lru_cache(maxsize=32)
def names_in(path: Path) -> dict[str, list[tuple[str, ...]]]:
    """Element -> the names of each of its entries in a basis-set or potential file.

    Raises:
        BasisError: the file cannot be read.
    """
    found: dict[str, list[tuple[str, ...]]] = {}
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise BasisError(f"the basis or potential file {path} cannot be read: {error.strerror}") from error
    for line in text.splitlines():
        match = _ENTRY.match(line.split("#")[0])
        if match:
            found.setdefault(match.group(1), []).append(tuple(match.group(2).split()))
    return found


def valence(names: tuple[str, ...]) -> int | None:
    """Valence electrons from the suffix -qN of one of an entry's names."""
    found = [re.search(r"-q(\d+)$", name) for name in names]
    return next((int(match.group(1)) for match in found if match), None)


def choose_kind(element: str, basis: str, functional: str, potential: str | None, files: DataFiles) -> Kind:
    """The basis entry of an element, and the potential with as many valence electrons.

    Args:
        element: symbol.
        basis: name of the entry, with or without its -qN.
        functional: decides the family of the potential, as "PBE".
        potential: name of the potential instead, with or without its -qN.
        files: where to look.

    Raises:
        BasisError: no such entry; the message lists what the files have for the element.
    """
    names, basis_file = _entry(element, basis, files.basis, "basis")
    if potential is None and any(name.endswith("-ae") for name in names):
        raise BasisError(f"basis {names[0]} of {element} is for all electrons, hamnet labels with pseudopotentials")
    wanted = potential or f"GTH-{FUNCTIONAL_OF_POTENTIAL.get(functional.upper(), functional.upper())}"
    electrons = valence(names)
    found, potential_file = _potential(element, wanted, electrons, _same_family(basis_file, files.potentials))
    if electrons is not None and valence(found) not in (None, electrons):
        raise BasisError(
            f"basis {names[0]} of {element} is for {electrons} valence electrons, potential {found[0]} has "
            f"{valence(found)}: give a potential that fits, or leave its choice to hamnet"
        )
    return Kind(element, names[0], basis_file, _with_suffix(found), potential_file)


def _same_family(basis_file: Path, potentials: tuple[Path, ...]) -> tuple[Path, ...]:
    """The potentials that bases of the Zurich files were made for come first for these, the user's own before all."""
    if not basis_file.name.endswith("_UZH"):
        return potentials
    return tuple(sorted(potentials, key=lambda path: path.name in POTENTIAL_FILES and not path.name.endswith("_UZH")))


def _potential(
    element: str, wanted: str, electrons: int | None, files: tuple[Path, ...]
) -> tuple[tuple[str, ...], Path]:
    """Entry of a potential with so many valence electrons; some files give the suffix -qN only where it is needed."""
    if electrons is not None and valence((wanted,)) is None:
        try:
            return _entry(element, f"{wanted}-q{electrons}", files, "potential")
        except BasisError:
            return _entry(element, wanted, files, "potential")
    return _entry(element, wanted, files, "potential")


@dataclass(frozen=True)
class DataFiles:
    """Files to search, the user's own first."""

    basis: tuple[Path, ...]
    potentials: tuple[Path, ...]


def data_files(own_basis: tuple[str, ...], own_potentials: tuple[str, ...], command: str) -> DataFiles:
    """The user's files and those of CP2K's data folder.

    Raises:
        ConfigError: a file of the user's is not there, or there is neither such a file nor a data folder.
    """
    missing = [path for path in (*own_basis, *own_potentials) if not Path(path).is_file()]
    if missing:
        raise ConfigError(f"no basis or potential file at {missing[0]}")
    folder = data_folder(command)
    if folder is None and not (own_basis and own_potentials):
        raise ConfigError(
            "CP2K's data folder was not found ($CP2K_DATA_DIR, beside the program, /usr/share/cp2k): set "
            "CP2K_DATA_DIR (Debian: apt-get install cp2k-data), or give --basis-file and --potential-file"
        )
    standard = () if folder is None else tuple(folder / name for name in BASIS_FILES if (folder / name).is_file())
    potentials = () if folder is None else tuple(folder / n for n in POTENTIAL_FILES if (folder / n).is_file())
    return DataFiles(
        (*(Path(path).resolve() for path in own_basis), *standard),
        (*(Path(path).resolve() for path in own_potentials), *potentials),
    )


def _with_suffix(names: tuple[str, ...]) -> str:
    return next((name for name in names if valence((name,)) is not None), names[0])


def _entry(element: str, name: str, files: tuple[Path, ...], what: str) -> tuple[tuple[str, ...], Path]:
    """First entry that has this name, or this name with some -qN when that is only one."""
    for path in files:
        entries = names_in(path).get(element, [])
        exact = [names for names in entries if name in names]
        if exact:
            return exact[0], path
        loose = [names for names in entries if any(re.fullmatch(re.escape(name) + r"-q\d+", one) for one in names)]
        if len(loose) == 1:
            return loose[0], path
        if loose:
            several = ", ".join(_with_suffix(names) for names in loose)
            raise BasisError(f"{what} {name!r} of {element} is several in {path.name}: choose one of {several}")
    known = {path.name: [names[0] for names in names_in(path).get(element, [])] for path in files}
    listing = "; ".join(f"{file}: {', '.join(sorted(set(found)))}" for file, found in known.items() if found)
    raise BasisError(
        f"no {what} {name!r} for {element}; there are for {element}: {listing}"
        if listing
        else f"no {what} for {element} at all in {', '.join(path.name for path in files)}: give a file that has one"
    )
