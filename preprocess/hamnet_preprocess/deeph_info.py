"""What DeepH's two formats share: elements and shells to a basis, hamnet's remarks in info.json, provenance.

DeepH's info.json knows the shells of each element and nothing else about a basis. What hamnet knows besides (labels,
radii, valence electrons, periodic directions) it writes under the key "hamnet", which DeepH ignores; a folder without
that key is read all the same, with labels as "C-s2p2d1", no radii and no valence electrons.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hamnet.core.basis import OrbitalBasis, Shell, Species
from hamnet.core.calculation import Calculation, Provenance
from hamnet.core.structure import AtomicStructure
from hamnet.errors import FormatError, HamnetError
from hamnet_preprocess.code_blocks import shell_text
from hamnet_preprocess.elements import symbol_of

Json = dict[str, Any]


def read_json(path: Path) -> Json:
    """The object in a JSON file.

    Raises:
        FormatError: no such file, or no JSON object in it.
    """
    try:
        found = json.loads(path.read_text())
    except OSError as error:
        raise FormatError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise FormatError(f"{path}: no JSON: {error}") from error
    if not isinstance(found, dict):
        raise FormatError(f"{path}: found a {type(found).__name__}, expected a JSON object")
    return found


def extras_of(calculation: Calculation) -> Json:
    """What hamnet knows and DeepH does not, for the key "hamnet" of info.json."""
    structure = calculation.structure
    return {
        "basis": json.loads(calculation.basis.to_json()),
        "species": [calculation.basis.species[k].label for k in structure.species],
        "pbc": structure.pbc.tolist(),
        "molecule": structure.cell is None,
        "moments": None if structure.moments is None else structure.moments.tolist(),
        "n_electrons": calculation.n_electrons,
        "energy": calculation.energy,
        "electronic_temperature": calculation.electronic_temperature,
        "kmesh": None if calculation.kmesh is None else [int(n) for n in calculation.kmesh],
        "converged": bool(calculation.converged),
        "provenance": asdict(calculation.provenance),
    }


def basis_of_shells(
    numbers: NDArray[np.int64], shells: list[tuple[int, ...]], extras: Json, where: str
) -> tuple[OrbitalBasis, NDArray[np.int64]]:
    """Basis and (n_atoms,) species from the shells of each atom, with hamnet's own labels where it left them.

    Raises:
        FormatError: hamnet's remarks do not fit the shells of the file.
    """
    if "basis" in extras:
        return _remembered_basis(numbers, shells, extras, where)
    kinds: dict[tuple[int, tuple[int, ...]], int] = {}
    species = np.array([kinds.setdefault((int(z), ls), len(kinds)) for z, ls in zip(numbers, shells, strict=True)])
    made = [Species(_label(z, ls), z, 0.0, tuple(Shell(l) for l in ls)) for z, ls in kinds]
    return OrbitalBasis(tuple(made)), species


def _label(number: int, ls: tuple[int, ...]) -> str:
    text = shell_text(ls) if list(ls) == sorted(ls) else "l" + "".join(map(str, ls))
    return f"{symbol_of(number)}-{text}"


def _remembered_basis(
    numbers: NDArray[np.int64], shells: list[tuple[int, ...]], extras: Json, where: str
) -> tuple[OrbitalBasis, NDArray[np.int64]]:
    try:
        basis = OrbitalBasis.from_json(json.dumps(extras["basis"]))
        species = np.array([basis.index(label) for label in extras["species"]], dtype=np.int64)
    except (HamnetError, KeyError, TypeError, ValueError) as error:
        raise FormatError(f"{where}: the part 'hamnet' is damaged ({error}): remove it to read without") from error
    found = [(basis.species[k].atomic_number, basis.species[k].shell_ls) for k in species]
    if found != [(int(z), ls) for z, ls in zip(numbers, shells, strict=True)]:
        raise FormatError(f"{where}: the part 'hamnet' names other shells than the file: remove it to read without")
    return basis, species


def structure_with(extras: Json, structure: AtomicStructure) -> AtomicStructure:
    """The structure with the periodic directions and moments that hamnet left in info.json."""
    pbc = np.array(extras.get("pbc", structure.pbc), dtype=bool)
    cell = None if extras.get("molecule") else structure.cell
    moments = extras.get("moments")
    return AtomicStructure(
        structure.atomic_numbers,
        structure.species,
        structure.positions,
        cell,
        pbc,
        None if moments is None else np.array(moments),
    )


def scalars_of(extras: Json) -> Json:
    """Keyword arguments of Calculation that hamnet left in info.json."""
    names = ("n_electrons", "energy", "electronic_temperature", "converged")
    found = {name: extras[name] for name in names if extras.get(name) is not None}
    if extras.get("kmesh"):
        found["kmesh"] = tuple(extras["kmesh"])
    return found


def provenance_of(code: str, files: Iterable[Path], source: Path, basis: OrbitalBasis, extras: Json) -> Provenance:
    """Where the numbers come from: the original code where hamnet left it, the sha256 of the files read."""
    digest = hashlib.sha256()
    for path in files:
        digest.update(path.read_bytes())
    kept = {k: str(v) for k, v in extras.get("provenance", {}).items() if k in asdict(Provenance(""))}
    origin = Provenance(**{"code": code, **kept})
    labels = " ".join(species.label for species in basis.species)
    return replace(origin, basis=labels, source=str(source), sha256=digest.hexdigest())
