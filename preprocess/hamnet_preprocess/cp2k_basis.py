"""CP2K's basis-set files, and the orbitals of a run.

An entry is `Element NAME ALIAS ...`, the number of sets, and for each set a line `n l_min l_max n_exponents` with the
number of shells of each l, then one row for each exponent (1 / bohr^2) with a coefficient for each shell, l by l.
Coefficients belong to normalised primitives; CP2K scales each contraction to unit norm. Orbitals of an atom follow
sets, then shells, then m = -l..l.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hamnet.core.basis import Shell
from hamnet.errors import BasisError, FormatError

FALLBACK_FOLDERS = (Path("/usr/share/cp2k"), Path("/usr/share/cp2k/data"))
"""Where Debian's package cp2k-data puts the files."""
_HEAD = re.compile(r"^\s*([A-Za-z]{1,2})\s+(\S+(?:\s+\S+)*)\s*$")


def basis_shells(element: str, name: str, files: tuple[Path, ...]) -> tuple[Shell, ...]:
    """Shells of one element in the first file that has the entry.

    Args:
        element: symbol.
        name: name or alias; case does not matter, as in CP2K.
        files: basis-set files.

    Raises:
        BasisError: no file has the entry; the message lists what they have for the element.
        FormatError: the entry is broken.
    """
    known: list[str] = []
    for path in files:
        for line, names, lines in _entries(path, element):
            if name.upper() in (n.upper() for n in names):
                return _parse(path, line, lines)
            known.append(names[0])
    where = ", ".join(str(path) for path in files) or "no file"
    raise BasisError(
        f"no basis set {name!r} for {element} in {where}; there are for {element}: {', '.join(known) or 'none'}. "
        "Put the file that the run used beside its output, or set CP2K_DATA_DIR"
    )


def basis_files(names: tuple[str, ...], folder: Path, data_folder: str) -> tuple[Path, ...]:
    """The basis-set files that a run names.

    Looked for beside the run, in $CP2K_DATA_DIR, in the data folder that the output names, in `FALLBACK_FOLDERS`.

    Raises:
        BasisError: one is not found.
    """
    environment = os.environ.get("CP2K_DATA_DIR")
    places = [folder, *([Path(environment)] if environment else []), *([Path(data_folder)] if data_folder else [])]
    places += FALLBACK_FOLDERS
    found = []
    for name in names:
        candidates = [place / name for place in places] + [place / Path(name).name for place in places]
        path = next((p for p in candidates if p.is_file()), None)
        if path is None:
            raise BasisError(
                f"{folder}: the run took its orbitals from {name}, which is neither beside the output nor in "
                f"{', '.join(dict.fromkeys(str(p) for p in places[1:]))}: copy it there or set CP2K_DATA_DIR"
            )
        found.append(path)
    return tuple(found)


def _entries(path: Path, element: str) -> Iterator[tuple[int, list[str], list[str]]]:
    """(number of its first line, names, lines) of each entry of an element."""
    lines = [line.split("#")[0].rstrip() for line in path.read_text(encoding="utf-8", errors="replace").splitlines()]
    for number, line in enumerate(lines, 1):
        match = _HEAD.match(line)
        if match and match[1].upper() == element.upper():
            yield number, match[2].split(), lines[number:]


def _parse(path: Path, first: int, lines: list[str]) -> tuple[Shell, ...]:
    rows = (line.split() for line in lines if line)
    shells: list[Shell] = []
    try:
        for _ in range(int(next(rows)[0])):
            _, l_min, l_max, n_exponents, *counts = (int(word) for word in next(rows))
            ls = [l for l, count in zip(range(l_min, l_max + 1), counts, strict=True) for _ in range(count)]
            table = np.array([[float(word.replace("D", "E")) for word in next(rows)] for _ in range(n_exponents)])
            if table.shape != (n_exponents, 1 + len(ls)):
                raise ValueError(f"rows of {table.shape[1]} numbers, expected an exponent and {len(ls)} coefficients")
            shells += [_shell(l, table[:, 0], table[:, 1 + k]) for k, l in enumerate(ls)]
    except (ValueError, IndexError, StopIteration) as error:
        raise FormatError(f"{path}: the basis set at line {first} is broken: {error or 'cut short'}") from error
    return tuple(shells)


def _shell(l: int, exponents: NDArray[np.float64], coefficients: NDArray[np.float64]) -> Shell:
    """Contraction of unit norm; primitives with coefficient 0 are left out."""
    used = coefficients != 0
    a, c = exponents[used], coefficients[used]
    # overlap of normalised primitives of one l on one centre: (2 sqrt(ab) / (a + b))^(l + 3/2)
    overlap = (2 * np.sqrt(np.outer(a, a)) / np.add.outer(a, a)) ** (l + 1.5)
    norm = float(c @ overlap @ c)
    if not norm > 0:
        raise ValueError(f"a shell of l = {l} has norm {norm}")
    return Shell(l, None, tuple(a.tolist()), tuple((c / np.sqrt(norm)).tolist()))
