"""Calculation <-> rows of the store's flat tables."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hamnet.core.basis import OrbitalBasis
from hamnet.core.blocks import BlockMatrix, block_offsets, species_groups
from hamnet.core.calculation import Calculation, Provenance
from hamnet.core.pairs import PairList
from hamnet.core.spin import Spin
from hamnet.core.structure import AtomicStructure
from hamnet.data.store_format import ATOM, CALCULATION, KINDS, MATRIX, OPTIONAL, RUN, SPINS, TABLES
from hamnet.errors import FormatError

Rows = NDArray[Any]
ReadRows = Callable[[str, int, int], Rows]
"""function(dataset, start, stop) -> rows."""


# ---------------------------------------------------------------- another basis


def in_basis(calculation: Calculation, basis: OrbitalBasis) -> Calculation:
    """The same calculation with species indices into another basis that has all its species.

    Blocks are sorted again where the new indices change the order of the species.

    Raises:
        BasisError: a species is missing from the new basis.
    """
    if calculation.basis == basis:
        return calculation
    table = np.array([basis.index(s.label) for s in calculation.basis.species], dtype=np.int64)
    species = table[calculation.structure.species]
    done: dict[int, tuple[PairList, NDArray[np.int64] | None]] = {}
    changes: dict[str, Any] = {}
    for kind in KINDS:
        matrix: BlockMatrix | None = getattr(calculation, kind)
        if matrix is None:
            continue
        if id(matrix.pairs) not in done:
            done[id(matrix.pairs)] = _resorted(matrix.pairs, species, calculation.structure.species, table)
        pairs, order = done[id(matrix.pairs)]
        values = matrix.values if order is None else _gather_blocks(matrix, order)
        changes[kind] = BlockMatrix.from_values(pairs, basis, species, matrix.spin, values)
    return replace(calculation, structure=calculation.structure.with_species(species), basis=basis, **changes)


def _resorted(
    pairs: PairList, species: NDArray[np.int64], old: NDArray[np.int64], table: NDArray[np.int64]
) -> tuple[PairList, NDArray[np.int64] | None]:
    used = table[np.unique(old)]
    if (np.diff(used) > 0).all():
        return pairs, None
    return PairList.build_with_order(pairs.i, pairs.j, pairs.cell_shift, species)


def _gather_blocks(matrix: BlockMatrix, order: NDArray[np.int64]) -> Rows:
    sizes = np.diff(matrix.offsets)[order]
    starts = np.concatenate(([0], np.cumsum(sizes)))[:-1]
    within = np.arange(len(matrix.values)) - np.repeat(starts, sizes)
    result: Rows = matrix.values[np.repeat(matrix.offsets[order], sizes) + within]
    return result


# ---------------------------------------------------------------- calculation -> rows


@dataclass
class Packer:
    """Rows of one open shard, in memory."""

    rows: dict[str, list[Rows]] = field(default_factory=lambda: {name: [] for name in TABLES})
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(TABLES, 0))
    texts: dict[str, list[str]] = field(default_factory=lambda: {"names": [], "provenance": [], "fingerprints": []})
    n_bytes: int = 0

    def __len__(self) -> int:
        return len(self.texts["names"])

    def add(self, name: str, calculation: Calculation, fingerprint: str) -> None:
        """Append one calculation, whose basis is the store's; an error leaves the rows as they were."""
        counts, n_bytes = dict(self.counts), self.n_bytes
        lengths = {table: len(rows) for table, rows in self.rows.items()}
        try:
            self._add(name, calculation, fingerprint)
        except Exception:
            self.counts, self.n_bytes = counts, n_bytes
            for table, length in lengths.items():
                del self.rows[table][length:]
            raise

    def _add(self, name: str, calculation: Calculation, fingerprint: str) -> None:
        row = np.zeros(1, dtype=CALCULATION)
        for table in ("atoms", "vectors", "bands", "matrices"):
            row[f"{table}_start"] = self.counts[table]
        self._add_structure(row, calculation)
        self._add_fields(row, calculation)
        row["n_matrices"] = self._add_matrices(calculation)
        self._append("calculations", row)
        self.texts["names"].append(name)
        self.texts["provenance"].append(json.dumps(asdict(calculation.provenance)))
        self.texts["fingerprints"].append(fingerprint)

    def tables(self) -> dict[str, Rows]:
        """All rows, one array per table."""
        return {
            name: np.concatenate([np.zeros((0, *shape), dtype=dtype), *self.rows[name]])
            for name, (dtype, shape) in TABLES.items()
        }

    def _append(self, table: str, rows: Rows) -> None:
        self.rows[table].append(rows)
        self.counts[table] += len(rows)
        self.n_bytes += rows.nbytes

    def _add_structure(self, row: Rows, calculation: Calculation) -> None:
        structure = calculation.structure
        atoms = np.zeros(structure.n_atoms, dtype=ATOM)
        atoms["atomic_number"], atoms["species"] = structure.atomic_numbers, structure.species
        atoms["position"] = structure.positions
        self._append("atoms", atoms)
        row["n_atoms"], row["pbc"] = structure.n_atoms, structure.pbc
        for vectors in (calculation.forces, structure.moments):
            if vectors is not None:
                self._append("vectors", np.asarray(vectors, dtype=np.float64).reshape(structure.n_atoms, 3))

    def _add_fields(self, row: Rows, calculation: Calculation) -> None:
        present = 0
        for bit, name in enumerate(OPTIONAL):
            owner = calculation.structure if name in ("cell", "moments") else calculation
            value = getattr(owner, name)
            if value is None:
                continue
            present |= 1 << bit
            if name in CALCULATION.names:  # type: ignore[operator]
                row[name] = value
        row["present"], row["converged"] = present, calculation.converged
        if calculation.kpoints is not None:
            row["n_kpoints"] = len(calculation.kpoints)
            self._append("bands", np.asarray(calculation.kpoints, dtype=np.float64).reshape(-1))
        if calculation.eigenvalues is not None:
            row["eigenvalues_shape"] = calculation.eigenvalues.shape
            self._append("bands", np.asarray(calculation.eigenvalues, dtype=np.float64).reshape(-1))

    def _add_matrices(self, calculation: Calculation) -> int:
        lists: list[tuple[PairList, int]] = []
        count = 0
        for kind, name in enumerate(KINDS):
            matrix: BlockMatrix | None = getattr(calculation, name)
            if matrix is None:
                continue
            start = next((s for pairs, s in lists if _same_pairs(pairs, matrix.pairs)), None)
            if start is None:
                start = self.counts["pairs"]
                lists.append((matrix.pairs, start))
                self._append("pairs", _pair_rows(matrix.pairs))
            self._add_matrix(kind, matrix, start)
            count += 1
        return count

    def _add_matrix(self, kind: int, matrix: BlockMatrix, pairs_start: int) -> None:
        half = matrix.hermitian_residual()[0] == 0.0
        kept = _kept(matrix.pairs) if half else np.ones(matrix.pairs.n_pairs, dtype=bool)
        sizes = np.diff(matrix.offsets)
        values = matrix.values[np.repeat(kept, sizes)] if half else matrix.values
        values = np.ascontiguousarray(values).view(np.float64)
        row = np.zeros(1, dtype=MATRIX)
        row["kind"], row["spin"], row["half"] = kind, SPINS.index(matrix.spin.value), half
        row["pairs_start"], row["n_pairs"] = pairs_start, matrix.pairs.n_pairs
        row["values_start"], row["n_values"] = self.counts["values"], len(values)
        runs = self._runs(matrix, kept)
        row["runs_start"], row["n_runs"] = self.counts["runs"], len(runs)
        self._append("runs", runs)
        self._append("values", values)
        self._append("matrices", row)

    def _runs(self, matrix: BlockMatrix, kept: NDArray[np.bool_]) -> Rows:
        width = 2 if matrix.spin is Spin.SPINOR else 1
        start, found = self.counts["values"], []
        n = matrix.basis.n_orbitals
        for a, b, part in species_groups(matrix.pairs, matrix.species, len(n)):
            blocks = int(kept[part].sum())
            if blocks:
                found.append((a, b, blocks, start))
                start += blocks * int(n[a] * n[b]) * matrix.spin.factor * width
        return np.array(found, dtype=RUN)


def _same_pairs(a: PairList, b: PairList) -> bool:
    if a is b:
        return True
    return np.array_equal(a.i, b.i) and np.array_equal(a.j, b.j) and np.array_equal(a.cell_shift, b.cell_shift)


def _pair_rows(pairs: PairList) -> Rows:
    rows = np.column_stack((pairs.i, pairs.j, pairs.cell_shift, pairs.reverse))
    if rows.size and np.abs(rows).max() > np.iinfo(np.int32).max:
        raise FormatError(f"a pair index or cell shift is {np.abs(rows).max()}, too large for the store (32 bits)")
    return rows.astype("<i4")


def _kept(pairs: PairList) -> NDArray[np.bool_]:
    kept: NDArray[np.bool_] = np.arange(pairs.n_pairs) <= pairs.reverse
    return kept


# ---------------------------------------------------------------- rows -> calculation


def unpack(row: Rows, matrices: Rows, basis: OrbitalBasis, read: ReadRows, provenance: str) -> Calculation:
    """Calculation from its row in `calculations`, its rows in `matrices`, and a function that reads slices."""
    there = {name for bit, name in enumerate(OPTIONAL) if int(row["present"]) >> bit & 1}
    n_atoms = int(row["n_atoms"])
    atoms = read("atoms", int(row["atoms_start"]), int(row["atoms_start"]) + n_atoms)
    at, vectors = int(row["vectors_start"]), {}
    for name in ("forces", "moments"):
        if name in there:
            vectors[name] = read("vectors", at, at + n_atoms)
            at += n_atoms
    structure = AtomicStructure(
        atoms["atomic_number"],
        atoms["species"],
        atoms["position"],
        row["cell"].copy() if "cell" in there else None,
        row["pbc"].astype(bool),
        vectors.get("moments"),
    )
    scalars = ("energy", "fermi_energy", "n_electrons", "electronic_temperature")
    parts: dict[str, Any] = {
        **_read_matrices(matrices, basis, structure.species, read),
        **_read_bands(row, there, read),
        **{name: float(row[name]) for name in scalars if name in there},
    }
    return Calculation(
        structure=structure,
        basis=basis,
        **parts,
        forces=vectors.get("forces"),
        kmesh=tuple(row["kmesh"].tolist()) if "kmesh" in there else None,
        converged=bool(row["converged"]),
        provenance=Provenance(**json.loads(provenance)),
    )


def _read_bands(row: Rows, there: set[str], read: ReadRows) -> dict[str, Any]:
    at, result = int(row["bands_start"]), {}
    for name, shape in (("kpoints", (int(row["n_kpoints"]), 3)), ("eigenvalues", tuple(row["eigenvalues_shape"]))):
        if name in there:
            size = int(np.prod(shape))
            result[name] = read("bands", at, at + size).reshape(shape)
            at += size
    return result


def _read_matrices(
    matrices: Rows, basis: OrbitalBasis, species: NDArray[np.int64], read: ReadRows
) -> dict[str, BlockMatrix]:
    if not len(matrices):
        return {}
    # all matrices of a calculation lie side by side: one read is several times faster than one for each
    base, last = int(matrices["values_start"][0]), matrices[-1]
    numbers = read("values", base, int(last["values_start"] + last["n_values"]))
    lists: dict[int, PairList] = {}
    result = {}
    for row in matrices:
        start = int(row["pairs_start"])
        if start not in lists:
            lists[start] = _pair_list(read("pairs", start, start + int(row["n_pairs"])))
        first = int(row["values_start"]) - base
        stored = numbers[first : first + int(row["n_values"])]
        result[KINDS[row["kind"]]] = _matrix(row, stored, lists[start], basis, species)
    return result


def _pair_list(rows: Rows) -> PairList:
    rows = rows.astype(np.int64)
    return PairList(rows[:, 0].copy(), rows[:, 1].copy(), rows[:, 2:5].copy(), rows[:, 5].copy())


def _matrix(row: Rows, stored: Rows, pairs: PairList, basis: OrbitalBasis, species: NDArray[np.int64]) -> BlockMatrix:
    spin = Spin(SPINS[row["spin"]])
    offsets = block_offsets(pairs, basis, species, spin)
    stored = stored.view(spin.dtype)
    if not row["half"]:
        return BlockMatrix(pairs, basis, species, spin, stored.copy(), offsets)
    kept = np.repeat(_kept(pairs), np.diff(offsets))
    values = np.zeros(int(offsets[-1]), dtype=spin.dtype)
    values[kept] = stored
    adjoint = BlockMatrix(pairs, basis, species, spin, values, offsets).adjoint().values
    # conj(0 + 0i) is 0 - 0i: adding zero gives the one zero back that symmetrised matrices have
    return BlockMatrix(pairs, basis, species, spin, np.where(kept, values, adjoint + 0.0), offsets)
