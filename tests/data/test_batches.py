"""Batches: sized, seekable, and split by process so that together they are those of one."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from elman.data.batches import NONE, batched, in_order, pad
from elman.data.shards import Shard

counts, sizes, worlds = st.integers(0, 40), st.integers(1, 7), st.integers(1, 4)
orders = st.none() | st.integers(-(2**70), 2**70)


@given(counts, sizes, worlds, orders)
def test_processes_together_read_what_one_would(count, size, world, order):
    whole = list(batched(range(count), size * world, list, order=order))
    shares = [
        batched(range(count), size, list, order=order, shard=Shard(rank, world))
        for rank in range(world)
    ]
    assert {len(share) for share in shares} == {len(whole)}
    for batch, *parts in zip(whole, *shares, strict=True):
        assert [item for part in parts for item in part or ()] == batch
        # None, not an empty batch, and only where there are too few for all.
        assert all(part is None or 0 < len(part) <= size for part in parts)
        assert None not in parts or len(batch) < world
    assert sorted(item for batch in whole for item in batch) == list(range(count))


@given(counts, sizes, worlds, orders)
def test_they_can_be_gone_on_with_anywhere_and_read_again(count, size, world, order):
    batches = batched(range(count), size, tuple, order=order, shard=Shard(world - 1, world))
    read = list(batches)
    assert len(read) == len(batches) == -(-count // (size * world))
    assert list(batches) == read
    for done in range(len(read) + 2):
        assert list(batches.after(done)) == read[done:]


def test_an_order_is_drawn_from_its_seed_alone():
    def items(order):
        return [item for batch in batched(range(50), 8, list, order=order) for item in batch]

    assert items(None) == list(range(50))
    assert items(1) == items(1) != items(2)
    assert items(1) != items(None)


def test_nothing_is_no_batches():
    assert not NONE
    assert not batched([], 3, list)
    assert list(NONE) == list(NONE.after(2)) == []


def test_items_of_similar_length_share_a_batch():
    lengths = torch.randint(1, 50, (500,), generator=torch.Generator().manual_seed(0)).tolist()
    plain = batched(range(500), 8, list, order=1)
    buckets = batched(range(500), 8, list, order=1, lengths=lengths)
    read = list(buckets)
    assert sorted(k for some in read for k in some) == list(range(500))
    assert len(buckets) == len(plain) == len(read)
    padded = sum(max(lengths[k] for k in some) * len(some) for some in read)
    assert buckets.padding == pytest.approx(1 - sum(lengths) / padded)
    assert buckets.padding < 0.05 and plain.padding is None
    assert list(buckets.after(7)) == read[7:]
    first = [max(lengths[k] for k in some) for some in read]
    assert first != sorted(first)  # batches come in a drawn order
    assert list(batched(range(500), 8, list, order=2, lengths=lengths)) != read


def test_processes_share_batches_of_similar_length():
    lengths = [k % 7 + 1 for k in range(41)]
    alone = list(batched(range(41), 8, list, order=3, lengths=lengths))
    halves = [
        list(batched(range(41), 4, list, order=3, shard=Shard(k, 2), lengths=lengths))
        for k in range(2)
    ]
    assert [(a or []) + (b or []) for a, b in zip(*halves, strict=True)] == alone


def test_padding_stands_behind_the_shorter():
    padded, lengths = pad([[1, 2, 3], [], [4]], value=9)
    assert padded.T.tolist() == [[1, 2, 3], [9, 9, 9], [4, 9, 9]]
    assert lengths.tolist() == [3, 0, 1]
    assert pad([torch.ones(2, 5), torch.zeros(1, 5)], least=4)[0].shape == (4, 2, 5)


def test_answers_come_in_the_order_of_the_inputs():
    sizes = []

    def answer(some):
        sizes.append(len(some))
        return [text.upper() for text in some]

    inputs = ["a" * (k * 7 % 11) + str(k) for k in range(700)]
    assert list(in_order(iter(inputs), 4, len, answer)) == [text.upper() for text in inputs]
    assert max(sizes) == 4 and sum(sizes) == 700
    assert list(in_order([], 4, len, answer)) == []
