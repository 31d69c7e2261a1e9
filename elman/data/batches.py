"""What is learned from and measured on: batches in order, sized, seekable, split by process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, TypeVar

import torch

from elman.data.shards import Shard

Batch = TypeVar("Batch")
Item = TypeVar("Item")


class Batches(Generic[Batch]):
    """Batches in order.

    Args:
        count: how many there are.
        read: from the number of those that are left out to an iterator over the others, so that
            a training goes on in the midst of an epoch without reading what it has read before.
    """

    def __init__(self, count: int, read: Callable[[int], Iterator[Batch]]):
        self._count, self._read = count, read

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Batch]:
        return self._read(0)

    def after(self, done: int) -> Iterator[Batch]:
        """The batches but for the first ``done``."""
        return self._read(done)


NONE: Batches[Any] = Batches(0, lambda done: iter(()))
"""What a part of the data has that is not there."""


def batched(
    items: Sequence[Item],
    size: int,
    collate: Callable[[list[Item]], Batch],
    order: int | None = None,
    shard: Shard = Shard(),  # noqa: B008 # it cannot change
) -> Batches[Batch | None]:
    """Items that have nothing to do with each other, ``size`` at a time and for each process.

    The processes together read what one would with batches of ``shard.world`` times the size. Where
    the last batch has too few items for all of them, some get None.

    Args:
        items: what there is.
        size: items of a batch, in each process.
        collate: from items to a batch.
        order: the seed of their order; None leaves them as they are.
        shard: this process.
    """
    together = size * shard.world

    def read(done: int) -> Iterator[Batch | None]:
        order_ = list(range(len(items))) if order is None else _shuffled(len(items), order)
        for begin in range(done * together, len(items), together):
            some = order_[begin : begin + together]
            own = some[shard.rows(len(some))]
            yield collate([items[k] for k in own]) if own else None

    return Batches(-(-len(items) // together), read)


def _shuffled(count: int, seed: int) -> list[int]:
    generator = torch.Generator().manual_seed(seed % 2**63)
    return torch.randperm(count, generator=generator).tolist()
