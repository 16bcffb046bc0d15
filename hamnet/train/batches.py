"""Which structures make up which batch: decided by seed and epoch alone, so that a resumed run takes the same steps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch.utils.data import Sampler

from hamnet.train.parallel import Team

SEED_STRIDE = 1_000_003
"""Seeds of epochs are apart by one, those of runs by this prime."""


@dataclass(frozen=True)
class Share:
    """What one process takes of one batch.

    Args:
        indices: samples.
        counted: False where the batch has too few structures for all processes: this one computes, for step, a copy
            whose numbers count nowhere.
        n_structures: structures of the whole batch.
    """

    indices: tuple[int, ...]
    counted: bool
    n_structures: int


class BatchPlan(Sampler[list[int]]):
    """Batches of every epoch, and the share of this process in each.

    By count: `batch_size` structures each, the last of an epoch may have fewer. By pairs: the epoch is dealt into
    ceil(all pairs / batch_pairs) batches of nearly equal numbers of pairs, at least one structure each; the number of
    batches is that of every epoch.

    Args:
        pairs: number of pairs of each sample.
        batch_size: structures of a batch; or
        batch_pairs: pairs of a batch.
        seed: of the order; None: as they stand, every epoch.
        team: processes that share each batch.
    """

    def __init__(
        self,
        pairs: Sequence[int],
        batch_size: int | None = None,
        batch_pairs: int | None = None,
        seed: int | None = None,
        team: Team | None = None,
    ) -> None:
        self.pairs = [int(n) for n in pairs]
        self.batch_size, self.batch_pairs, self.seed = batch_size, batch_pairs, seed
        self.team = team or Team()
        self.epoch = 0
        self.sampler = self
        """Lightning looks here for `set_epoch`."""
        self._dealt: tuple[int, list[Share]] | None = None

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        if self.batch_pairs is not None:
            return min(len(self.pairs), -(-sum(self.pairs) // self.batch_pairs))
        return -(-len(self.pairs) // (self.batch_size or 1))

    def __iter__(self) -> Iterator[list[int]]:
        # a generator: the epoch counts when the first batch is asked for, not when Lightning makes the iterator
        for share in self.shares(self.epoch):
            yield list(share.indices)

    def batches(self, epoch: int) -> list[list[int]]:
        """The whole batches of an epoch, whatever the number of processes."""
        order = list(range(len(self.pairs)))
        if self.seed is not None:
            generator = torch.Generator().manual_seed(self.seed * SEED_STRIDE + epoch)
            order = torch.randperm(len(order), generator=generator).tolist()
        if self.batch_pairs is None:
            size = self.batch_size or 1
            return [order[k : k + size] for k in range(0, len(order), size)]
        return self._dealt_by_pairs(order)

    def _dealt_by_pairs(self, order: list[int]) -> list[list[int]]:
        count = len(self)
        target = sum(self.pairs) / count
        result: list[list[int]] = [[]]
        taken = 0
        for place, index in enumerate(order):
            left = len(order) - place
            full = taken + self.pairs[index] / 2 > target * len(result)
            must = left == count - len(result)  # every batch still to come needs one structure
            if result[-1] and len(result) < count and (full or must):
                result.append([])
            result[-1].append(index)
            taken += self.pairs[index]
        return result

    def shares(self, epoch: int) -> list[Share]:
        """This process's part of every batch of an epoch."""
        if self._dealt is None or self._dealt[0] != epoch:
            self._dealt = epoch, [self._share(batch) for batch in self.batches(epoch)]
        return self._dealt[1]

    def _share(self, batch: list[int]) -> Share:
        """Structures go, the largest first, to the process that has the fewest pairs so far."""
        loads = [0] * self.team.world
        mine = []
        for index in sorted(batch, key=lambda k: -self.pairs[k]):
            rank = loads.index(min(loads))
            loads[rank] += self.pairs[index] + 1
            if rank == self.team.rank:
                mine.append(index)
        mine.sort(key=batch.index)
        return Share(tuple(mine) or (batch[0],), bool(mine), len(batch))
