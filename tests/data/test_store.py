"""The store gives back bitwise what it was given, and refuses what it cannot hold."""

from __future__ import annotations

import os
import pickle
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import fields, replace
from multiprocessing import get_context
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))

from store_cases import SPECIES, calculations, random_calculation, water

from hamnet.core.basis import OrbitalBasis, RadialFunction, Shell, Species
from hamnet.core.spin import Spin
from hamnet.data import store_format
from hamnet.data.store import Store, StoreWriter, upgrade_store, write_store
from hamnet.errors import BasisError, FormatError

MATRICES = ("overlap", "hamiltonian", "reference_hamiltonian", "density")
PLAIN = {f.name for f in fields(random_calculation.__globals__["Calculation"])} - {*MATRICES, "structure", "basis"}


def block_table(matrix) -> dict[tuple[int, ...], np.ndarray]:
    keys = np.column_stack((matrix.pairs.i, matrix.pairs.j, matrix.pairs.cell_shift))
    return {tuple(key): matrix.block(p) for p, key in enumerate(keys.tolist())}


def assert_same(found, given_) -> None:
    """Every number equal, species by label, blocks by (i, j, R): the store may number the species otherwise."""
    for name in ("atomic_numbers", "positions", "cell", "pbc", "moments"):
        a, b = getattr(found.structure, name), getattr(given_.structure, name)
        assert (a is None) == (b is None), name
        assert a is None or np.array_equal(a, b), name
    labels = [[c.basis.species[k] for k in c.structure.species] for c in (found, given_)]
    assert labels[0] == labels[1]
    for name in MATRICES:
        a, b = getattr(found, name), getattr(given_, name)
        assert (a is None) == (b is None), name
        if a is None:
            continue
        assert a.spin is b.spin
        ours, theirs = block_table(a), block_table(b)
        assert ours.keys() == theirs.keys()
        assert all(np.array_equal(ours[key], theirs[key]) for key in ours), name
        assert np.array_equal(a.pairs.reverse[a.pairs.reverse], np.arange(a.pairs.n_pairs))
        code = a.species[a.pairs.i] * 100 + a.species[a.pairs.j]
        assert (np.diff(code) >= 0).all(), "blocks must be sorted by species again"
    for name in PLAIN:
        a, b = getattr(found, name), getattr(given_, name)
        assert np.array_equal(a, b) if isinstance(b, np.ndarray) else a == b, name


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data(), spin=st.sampled_from(Spin))
def test_round_trip_is_bitwise(tmp_path, data, spin):
    """Any structures, bases in any order, spins and optional parts, through shards and their merge."""
    items = [(f"a/{k} b", data.draw(calculations(spin))) for k in range(data.draw(st.integers(1, 5)))]
    path = tmp_path / "store.h5"
    with StoreWriter(path, shard_size=2, resume=False) as writer:
        for name, calculation in items:
            writer.add(name, calculation)
    assert os.listdir(tmp_path) == ["store.h5"]
    with Store(path) as store:
        assert store.names == [name for name, _ in items]
        for k, (name, calculation) in enumerate(items):
            assert_same(store.read(k), calculation)
            assert_same(store.read(name), calculation)
            n_pairs = [getattr(calculation, m).pairs.n_pairs for m in MATRICES if getattr(calculation, m) is not None]
            assert (store.n_atoms[k], store.n_pairs[k]) == (calculation.structure.n_atoms, max(n_pairs))
        assert_same(store.read(-1), items[-1][1])


def test_hermitian_matrices_take_half_the_room(tmp_path):
    """Only one of each reverse couple is kept, and only where that loses nothing."""
    rng = np.random.default_rng(0)
    basis = OrbitalBasis(SPECIES)
    bits = 1 << 4  # a Hamiltonian on the overlap's pairs
    sizes = {}
    for hermitian in (True, False):
        flags = bits | (1 << 3 if hermitian else 0)
        case = random_calculation(rng, basis, np.array([0, 1, 2, 3] * 3), Spin.SPINOR, True, flags)
        write_store(tmp_path / "s.h5", [("x", case)])
        with h5py.File(tmp_path / "s.h5") as file:
            assert file["matrices"]["half"].tolist() == [1, int(hermitian)]
            sizes[hermitian] = file["matrices"]["n_values"][1] / (2 * len(case.hamiltonian.values))
            runs, matrix = file["runs"][()], file["matrices"][1]
            own = runs[matrix["runs_start"] : matrix["runs_start"] + matrix["n_runs"]]
            n = basis.n_orbitals
            lengths = own["n_blocks"] * n[own["species_i"]] * n[own["species_j"]] * 8
            # the index of runs covers the values without gap or overlap
            assert own["values_start"].tolist() == (matrix["values_start"] + np.cumsum([0, *lengths[:-1]])).tolist()
            assert lengths.sum() == matrix["n_values"]
    assert sizes[False] == 1.0
    assert sizes[True] < 0.7  # half of the off-site blocks and all on-site ones


def test_the_file_explains_itself(tmp_path):
    write_store(tmp_path / "s.h5", [("w", water(np.random.default_rng(0)))], metadata={"note": "a test"})
    with h5py.File(tmp_path / "s.h5") as file:
        assert {"units", "orbital_order", "spin_layout", "gauge", "basis", "version"} <= set(file.attrs)
        assert all("description" in file[name].attrs for name in file)
    assert Store(tmp_path / "s.h5").metadata["note"] == "a test"


def _last_value(store: Store) -> float:
    return float(store.read(len(store) - 1).hamiltonian.values[-1])


def test_several_workers_read_one_store(tmp_path):
    rng = np.random.default_rng(1)
    write_store(tmp_path / "s.h5", [(f"w{k}", water(rng)) for k in range(3)])
    store = Store(tmp_path / "s.h5")
    expected = _last_value(store)
    assert _last_value(pickle.loads(pickle.dumps(store))) == expected
    for method in ("fork", "spawn"):
        with ProcessPoolExecutor(1, mp_context=get_context(method)) as pool:
            assert pool.submit(_last_value, store).result() == expected
    store.close()
    assert _last_value(store) == expected


def test_mixed_spin_layouts_are_refused(tmp_path):
    rng = np.random.default_rng(2)
    one, two = (
        random_calculation(rng, OrbitalBasis(SPECIES[:1]), np.array([0]), spin, False, 1 << 4)
        for spin in (Spin.NONE, Spin.SPINOR)
    )
    with pytest.raises(FormatError, match="'b' has spin layout spinor.* have none"):
        write_store(tmp_path / "s.h5", [("a", one), ("b", two)])
    assert os.listdir(tmp_path) == []


def test_one_label_with_two_meanings_is_refused(tmp_path):
    rng = np.random.default_rng(3)
    other = OrbitalBasis((Species("H5.0-s1", 1, 1.0, (Shell(0, 3.0),)),))
    one = random_calculation(rng, OrbitalBasis(SPECIES[:1]), np.array([0]), Spin.NONE, False, 0)
    two = random_calculation(rng, other, np.array([0]), Spin.NONE, False, 0)
    with pytest.raises(BasisError, match="H5.0-s1"):
        write_store(tmp_path / "s.h5", [("a", one), ("b", two)])


@pytest.mark.parametrize(("version", "advice"), [(99, "update hamnet"), (0, "make the store again")])
def test_another_version_is_refused_by_name(tmp_path, version, advice):
    path = tmp_path / "s.h5"
    write_store(path, [("w", water(np.random.default_rng(0)))])
    with h5py.File(path, "a") as file:
        file.attrs["version"] = version
    with pytest.raises(FormatError, match=f"version {version}.*version 1 and 2.*{advice}"):
        Store(path)


def test_upgrades_run_as_a_chain(tmp_path, monkeypatch):
    path = tmp_path / "old.h5"
    write_store(path, [("w", water(np.random.default_rng(0)))])
    with h5py.File(path, "a") as file:
        file.attrs["version"] = 0

    def upgrade(old: Path, new: Path) -> None:
        new.write_bytes(old.read_bytes())
        with h5py.File(new, "a") as file:
            file.attrs["version"] = 1

    with pytest.raises(FormatError, match="no way up from version 0"):
        upgrade_store(path, tmp_path / "new.h5")
    monkeypatch.setitem(store_format.UPGRADES, 0, upgrade)
    with pytest.raises(FormatError, match="upgrade_store"):
        Store(path)
    upgrade_store(path, tmp_path / "new.h5")
    assert Store(tmp_path / "new.h5").names == ["w"]


def test_files_that_are_no_store(tmp_path):
    rng = np.random.default_rng(0)
    good, cut, other, text = (tmp_path / n for n in ("good.h5", "cut.h5", "other.h5", "text.h5"))
    write_store(good, [("w", water(rng))])
    cut.write_bytes(good.read_bytes()[: good.stat().st_size // 2])
    text.write_text("hello")
    with h5py.File(other, "w") as file:
        file["x"] = 1
    for path, message in ((cut, "cut short"), (text, "no store"), (other, "not a hamnet store")):
        with pytest.raises(FormatError, match=message):
            Store(path)
    with pytest.raises(FormatError, match="no such file"):
        Store(tmp_path / "absent.h5")
    store = Store(good)
    with pytest.raises(FormatError, match="no calculation 'x'.* w"):
        store.read("x")
    with pytest.raises(FormatError, match="no calculation 1 .* holds 1"):
        store.read(1)


def test_radial_functions_travel_with_the_store(tmp_path):
    """The numbers come back to the last bit, and joining calculations with and without them keeps them."""
    rng = np.random.default_rng(2)
    plain = random_calculation(rng, OrbitalBasis(SPECIES[:1]), np.array([0]), Spin.NONE, False, 0)
    r = tuple(np.linspace(0.0, 3.0, 20).tolist())
    values = tuple(np.exp(-np.array(r)).tolist())
    shells = tuple(replace(s, radial=RadialFunction(r, values, values)) for s in SPECIES[0].shells)
    basis = OrbitalBasis((replace(SPECIES[0], shells=shells),))
    known = random_calculation(rng, basis, np.array([0]), Spin.NONE, False, 0)
    assert basis.hash != plain.basis.hash
    write_store(tmp_path / "s.h5", [("plain", plain), ("known", known)])
    with Store(tmp_path / "s.h5") as store:
        assert store.basis == basis
        assert store.metadata["version"] == 2
        assert_same(store.read("known"), known)
    rounded = tuple(v + 1e-9 for v in values)
    other = replace(SPECIES[0], shells=tuple(replace(s, radial=RadialFunction(r, rounded, values)) for s in shells))
    with pytest.raises(BasisError, match="different radial functions"):
        basis.merged(OrbitalBasis((other,)))


def test_an_old_store_goes_on_as_a_new_one(tmp_path, golden_dir):
    """Adding to a store of version 1 gives one of version 2; upgrading it changes nothing but the version."""
    old, new = tmp_path / "old.h5", tmp_path / "new.h5"
    old.write_bytes((golden_dir / "store_v1.h5").read_bytes())
    upgrade_store(old, new)
    with Store(old) as one, Store(new) as two:
        assert (one.metadata["version"], two.metadata["version"]) == (1, 2)
        assert one.basis.hash == two.basis.hash == one.metadata["basis_hash"]
        first = one.read("one")
        assert_same(two.read("one"), first)
    with StoreWriter(old) as writer:
        writer.add("again", first)
    with Store(old) as store:
        assert store.metadata["version"] == 2
        assert_same(store.read("one"), first)


def test_an_empty_store_reads(tmp_path):
    write_store(tmp_path / "s.h5", [])
    assert len(Store(tmp_path / "s.h5")) == 0


def test_the_released_format_still_reads(golden_dir):
    """Version 1 as first written: two species, collinear, with every optional part."""
    with Store(golden_dir / "store_v1.h5") as store:
        first = store.read("one")
        assert store.spin is Spin.COLLINEAR
        assert first.hamiltonian is not None
        expected = random_calculation(
            np.random.default_rng(5), OrbitalBasis(SPECIES[:2]), np.array([1, 0, 1]), Spin.COLLINEAR, True, 0xFFFF
        )
        assert_same(first, expected)


def test_water_is_written_and_read_in_milliseconds(tmp_path):
    """The budget is 2 ms each; four times that of processor time here: other tests share the caches, not the clock."""
    rng = np.random.default_rng(0)
    items = [(f"w{k}", water(rng)) for k in range(600)]
    start = time.process_time()
    write_store(tmp_path / "w.h5", items)
    middle = time.process_time()
    store = Store(tmp_path / "w.h5")
    for k in range(len(store)):
        store.read(k)
    end = time.process_time()
    assert (middle - start) / 600 < 8e-3
    assert (end - middle) / 600 < 8e-3
    # 2 x 348 kept numbers of 8 bytes make 5.6 kB; indices, eigenvalues and text may not double that
    assert (tmp_path / "w.h5").stat().st_size / 600 < 10e3
