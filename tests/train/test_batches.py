"""Batches: every structure once an epoch, of even size in pairs, whatever the number of processes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hamnet.config import config_from_dict
from hamnet.errors import ConfigError
from hamnet.train.batches import BatchPlan
from hamnet.train.parallel import Team

sizes = st.lists(st.integers(1, 5000), min_size=1, max_size=40)


@given(sizes, st.integers(1, 20_000), st.integers(0, 5), st.integers(0, 5))
def test_by_pairs_every_structure_once_and_batches_alike(pairs: list[int], wanted: int, seed: int, epoch: int) -> None:
    plan = BatchPlan(pairs, batch_pairs=wanted, seed=seed)
    batches = plan.batches(epoch)
    assert sorted(index for batch in batches for index in batch) == list(range(len(pairs)))
    assert len(batches) == len(plan)
    assert all(batches)
    assert batches == BatchPlan(pairs, batch_pairs=wanted, seed=seed).batches(epoch)
    # a batch may go over its even share by the structure that fills it, or by one that another batch has to spare
    largest = max(sum(pairs[k] for k in batch) for batch in batches)
    assert largest <= sum(pairs) / len(batches) + 2 * max(pairs)


@given(sizes, st.integers(1, 7), st.integers(0, 3), st.integers(1, 4))
def test_processes_share_what_one_would_take(pairs: list[int], size: int, epoch: int, world: int) -> None:
    plans = [BatchPlan(pairs, batch_size=size, seed=1, team=Team(rank, world)) for rank in range(world)]
    for k, batch in enumerate(BatchPlan(pairs, batch_size=size, seed=1).batches(epoch)):
        shares = [plan.shares(epoch)[k] for plan in plans]
        assert sorted(i for share in shares if share.counted for i in share.indices) == sorted(batch)
        assert all(share.indices and share.n_structures == len(batch) for share in shares)


def test_order_changes_with_epoch_and_seed_only_where_wanted() -> None:
    shuffled = BatchPlan([1] * 20, batch_size=3, seed=0)
    assert shuffled.batches(0) != shuffled.batches(1)
    assert shuffled.batches(0) != BatchPlan([1] * 20, batch_size=3, seed=1).batches(0)
    plain = BatchPlan([1] * 20, batch_size=3)
    assert plain.batches(0) == plain.batches(7) == [list(range(k, min(k + 3, 20))) for k in range(0, 20, 3)]


def test_size_is_given_one_way_and_bf16_needs_a_gpu() -> None:
    data = {"store": "x.h5"}
    with pytest.raises(ConfigError, match="batch_size and batch_pairs"):
        config_from_dict({"data": data, "training": {"batch_size": 2, "batch_pairs": 100}})
    with pytest.raises(ConfigError, match="bf16 is for GPUs"):
        config_from_dict({"data": data, "training": {"precision": "bf16"}})
