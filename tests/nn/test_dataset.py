"""Samples over several stores: with worker processes and without, kept or read again, the same batches."""

from pathlib import Path

import numpy as np
import pytest
import torch
from factories import lawful_calculation
from torch.utils.data import DataLoader

from hamnet.core.spin import Spin
from hamnet.data.store_writer import write_store
from hamnet.errors import BasisError, PhysicsError
from hamnet.nn.dataset import Batch, HamiltonianDataset, StoreCollection, collate
from hamnet.nn.prior import Baseline, matrix_channels


def two_stores(folder: Path, spin: Spin = Spin.NONE) -> list[Path]:
    """Two stores of three and two calculations."""
    parts = {"first.h5": range(3), "second.h5": range(3, 5)}
    for name, seeds in parts.items():
        write_store(folder / name, [(f"s{k}", lawful_calculation(k, spin)) for k in seeds])
    return [folder / name for name in parts]


def batches(stores: StoreCollection, workers: int, **options: object) -> list[Batch]:
    data = HamiltonianDataset(stores, stores.names, stores.basis, 3.0, **options)
    loader = DataLoader(data, batch_size=2, collate_fn=collate, num_workers=workers)
    return list(loader)


def equal(first: list[Batch], second: list[Batch]) -> None:
    for a, b in zip(first, second, strict=True):
        assert a.names == b.names
        for name in ("target", "overlap", "baseline"):
            assert torch.equal(getattr(a, name), getattr(b, name))
        assert torch.equal(a.graphs.pair_vector, b.graphs.pair_vector)


@pytest.mark.parametrize("spin", [Spin.NONE, Spin.SPINOR])
def test_a_worker_process_gives_the_same_batches(tmp_path: Path, spin: Spin) -> None:
    stores = StoreCollection(two_stores(tmp_path, spin))
    baseline = Baseline.fit("two_centre", map(stores.read, stores.names), spin)
    options = {"baseline": baseline, "kspace_points": 1}
    here, there = batches(stores, 0, **options), batches(stores, 1, **options)
    equal(here, there)
    assert [name for batch in here for name in batch.names] == [f"s{k}" for k in range(5)]
    for a, b in zip(here, there, strict=True):
        for first, second in zip(a.states, b.states, strict=True):
            assert first is not None
            assert second is not None
            assert torch.equal(first.phases, second.phases)  # the k-points depend on the name alone
    stores.close()


def test_what_is_not_kept_is_read_again(tmp_path: Path) -> None:
    stores = StoreCollection(two_stores(tmp_path))
    kept = HamiltonianDataset(stores, stores.names, stores.basis, 3.0)
    read = HamiltonianDataset(stores, stores.names, stores.basis, 3.0, cache_bytes=0)
    assert kept[0] is kept[0]
    assert read[0] is not read[0]
    assert torch.equal(read[0].target, kept[0].target)
    stores.close()


def test_target_and_baseline_add_up_to_h(tmp_path: Path) -> None:
    stores = StoreCollection(two_stores(tmp_path))
    baseline = Baseline.fit("two_centre", map(stores.read, stores.names), Spin.NONE)
    sample = HamiltonianDataset(stores, ["s4"], stores.basis, 3.0, baseline=baseline)[0]
    matrix = stores.read("s4").hamiltonian
    assert matrix is not None
    # a - b + b: rounding of numbers of order one
    np.testing.assert_allclose((sample.target + sample.baseline).numpy(), matrix_channels(matrix), atol=1e-14)
    assert sample.baseline.abs().max() > 1e-3
    stores.close()


def test_a_batch_goes_to_a_device_whole(tmp_path: Path) -> None:
    stores = StoreCollection(two_stores(tmp_path))
    (batch, *_) = batches(stores, 0, kspace_points=1)
    moved = batch.to("meta")
    assert {getattr(moved, name).device.type for name in ("target", "overlap", "baseline")} == {"meta"}
    assert all(states is not None and states.states.device.type == "meta" for states in moved.states)
    stores.close()


def test_stores_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    first, _ = two_stores(tmp_path)
    again = tmp_path / "again.h5"
    write_store(again, [("s0", lawful_calculation(7))])
    with pytest.raises(PhysicsError, match=r"'s0' stands in .*first\.h5 and in .*again\.h5"):
        StoreCollection([first, again])
    spinor = tmp_path / "spinor.h5"
    write_store(spinor, [("t", lawful_calculation(1, Spin.SPINOR))])
    with pytest.raises(BasisError, match="one layout at a time"):
        StoreCollection([first, spinor])
