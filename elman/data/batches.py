"""What is learned from and measured on: batches in order, sized, seekable, split by process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from elman.data.shards import Shard

Batch = TypeVar("Batch")
Item = TypeVar("Item")
Answer = TypeVar("Answer")


class Batches(Generic[Batch]):
    """Batches in order.

    Args:
        count: how many there are.
        read: from the number of those that are left out to an iterator over the others, so that
            a training goes on in the midst of an epoch without reading what it has read before.
        padding: the share of places that are padding, where items of different lengths stand side
            by side.
    """

    def __init__(
        self, count: int, read: Callable[[int], Iterator[Batch]], padding: float | None = None
    ):
        self._count, self._read, self.padding = count, read, padding

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
    lengths: Sequence[int] | None = None,
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
        lengths: of each item. Those of similar length come together, so that little is padded: in
            any order they are sorted, in a drawn one within pools of 64 batches, whose batches then
            come in a drawn order.
    """
    together = size * shard.world
    plan = _plan(len(items), together, order, lengths)

    def read(done: int) -> Iterator[Batch | None]:
        for some in plan[done:]:
            own = some[shard.rows(len(some))]
            yield collate([items[k] for k in own]) if own else None

    return Batches(len(plan), read, None if lengths is None else _padding(plan, lengths))


_POOL = 64


def _plan(
    count: int, together: int, order: int | None, lengths: Sequence[int] | None
) -> list[list[int]]:
    """Which items each batch has."""
    ordered = list(range(count)) if order is None else _shuffled(count, order)
    if lengths is not None:
        pool = count if order is None else together * _POOL
        pools = (ordered[begin : begin + pool] for begin in range(0, count, pool or 1))
        ordered = [k for some in pools for k in sorted(some, key=lengths.__getitem__)]
    plan = [ordered[begin : begin + together] for begin in range(0, count, together)]
    if lengths is not None and order is not None:
        plan = [plan[k] for k in _shuffled(len(plan), order + 1)]
    return plan


def _padding(plan: list[list[int]], lengths: Sequence[int]) -> float:
    places = sum(len(some) * max(lengths[k] for k in some) for some in plan)
    return 1 - sum(lengths) / places if places else 0.0


def in_order(
    inputs: Iterable[Item],
    size: int,
    length: Callable[[Item], int],
    answer: Callable[[list[Item]], Iterable[Answer]],
) -> Iterator[Answer]:
    """The answers to inputs, ``size`` of similar length at a time, in the order of the inputs.

    Args:
        inputs: any number of them, of which some thousands are held at once.
        size: inputs of a batch.
        length: of an input.
        answer: from a batch of inputs to their answers.
    """
    given = iter(inputs)
    while some := list(islice(given, size * _POOL)):
        found: dict[int, Answer] = {}
        ordered = sorted(range(len(some)), key=lambda k: length(some[k]))
        for begin in range(0, len(some), size):
            places = ordered[begin : begin + size]
            found.update(zip(places, answer([some[k] for k in places]), strict=True))
        yield from (found[k] for k in range(len(some)))


def pad(sequences: Sequence[Any], value: float = 0, least: int = 0) -> tuple[Tensor, Tensor]:
    """Sequences of different lengths side by side, time first, and their lengths.

    Args:
        sequences: B of them, arrays, tensors or lists (T_b, …) of one width and kind.
        value: what stands behind the end of those that are shorter.
        least: how many steps there are at least.

    Returns:
        (T, B, …) and (B).
    """
    given = [torch.as_tensor(each) for each in sequences]
    lengths = torch.tensor([len(each) for each in given])
    like = next((each for each in given if len(each)), given[0])
    steps = max(least, int(lengths.max()))
    padded = like.new_full((steps, len(given), *like.shape[1:]), value)
    for k, each in enumerate(given):
        padded[: len(each), k] = each
    return padded, lengths


def _shuffled(count: int, seed: int) -> list[int]:
    generator = torch.Generator().manual_seed(seed % 2**63)
    return torch.randperm(count, generator=generator).tolist()
