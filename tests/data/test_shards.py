from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from elman.data.shards import Shard
from elman.data.streams import PADDING, Evaluation, Stream
from elman.errors import InputError


def _together(shards):
    """The windows of all processes, their rows side by side in the order of the ranks."""
    return [
        tuple(torch.cat(parts, 1) for parts in zip(*windows, strict=True))
        for windows in zip(*shards, strict=True)
    ]


def _assert_equal(found, expected):
    assert len(found) == len(expected)
    for ours, whole in zip(found, expected, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours, whole, strict=True))


@given(count=st.integers(0, 50), world=st.integers(1, 9))
def test_rows_go_to_one_process_each_in_order_and_evenly(count, world):
    shares = [range(count)[Shard(rank, world).rows(count)] for rank in range(world)]
    assert [row for share in shares for row in share] == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@given(world=st.integers(1, 4), each=st.integers(1, 3), steps=st.integers(1, 5), data=st.data())
def test_processes_see_what_one_with_all_their_rows_sees(world, each, steps, data):
    batch = world * each
    stream = Stream(np.arange(data.draw(st.integers(batch * steps + 1, 150))), batch, steps)
    offset = data.draw(st.integers(0, stream.offsets - 1))
    start = data.draw(st.integers(0, stream.windows(offset)))
    shards = [list(stream.batches(offset, start, (rank, world))) for rank in range(world)]
    assert all(window.inputs.shape[1] == each for windows in shards for window in windows)
    _assert_equal(_together(shards), list(stream.batches(offset, start)))


def test_two_processes_of_two_rows():
    stream = Stream(np.arange(9), 4, 2)
    first, second = (next(stream.batches(shard=(rank, 2))).inputs.T.tolist() for rank in range(2))
    assert (first, second) == ([[0, 1], [2, 3]], [[4, 5], [6, 7]])


@given(
    length=st.integers(2, 60),
    rows=st.integers(1, 7),
    steps=st.integers(1, 9),
    world=st.integers(1, 9),
)
def test_every_target_is_judged_by_one_process(length, rows, steps, world):
    evaluation = Evaluation(np.arange(length), rows, steps)
    shards = [list(evaluation.batches((rank, world))) for rank in range(world)]
    judged = [t for windows in shards for w in windows for t in w.targets.flatten().tolist()]
    assert sorted(t for t in judged if t != PADDING) == list(range(1, length))
    # Processes without a row have no window; the others have them all, of the same steps.
    busy = [windows for windows in shards if windows]
    assert len(busy) == min(rows, world)
    _assert_equal(_together(busy), list(evaluation))


def test_shards_that_there_are_not():
    stream = Stream(np.arange(20), 3, 2)
    with pytest.raises(InputError, match="3 rows cannot be split evenly between 2 processes"):
        stream.batches(shard=(0, 2))
    for shard in ((2, 2), (-1, 2), (0, 0)):
        with pytest.raises(InputError, match=r"shard is \(.*expected a rank from 0"):
            Evaluation(np.arange(20), 3, 2).batches(shard)
