from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from elman.data.contexts import Sampling
from elman.data.shards import Shard

TEXT = np.random.default_rng(0).integers(2, 30, 240)


def sampling(text=TEXT, **changed):
    counts = np.bincount(text, minlength=30)
    counts[:2] = 0
    usual = {"window": 3, "noise": 4, "subsample": 0.0, "line_end": None, "seed": 5}
    return Sampling(counts, **usual | changed)


def parted(batch):
    """The words of a batch, each with its context."""
    contexts = batch.context.split(batch.sizes.tolist())
    return [(int(w), c.tolist()) for w, c in zip(batch.words, contexts, strict=True)]


def whole(batches):
    return [pair for batch in batches if batch is not None for pair in parted(batch)]


def test_a_context_is_what_stands_up_to_r_places_away():
    reaches = Counter()
    for k, (word, context) in enumerate(whole(sampling().batches(TEXT, 64))):
        assert word == TEXT[k]
        around = {r: [*TEXT[max(0, k - r) : k], *TEXT[k + 1 : k + 1 + r]] for r in range(1, 4)}
        reaches[next(r for r in around if around[r] == context)] += 1
    assert sum(reaches.values()) == len(TEXT)
    assert all(50 < reaches[r] < 110 for r in (1, 2, 3))  # 80 of each are expected


def test_no_context_reaches_beyond_its_line():
    text = np.where(np.arange(240) % 8 == 7, 1, TEXT)
    lines = [line[:7].tolist() for line in text.reshape(30, 8)]
    found = whole(sampling(text, line_end=1, window=9).batches(text, 64))
    assert [word for word, _ in found] == [word for line in lines for word in line]
    for k, (_, context) in enumerate(found):
        assert not Counter(context) - Counter(lines[k // 7])
    crossing = whole(sampling(text, window=9).batches(text, 64))
    assert any(Counter(c) - Counter(lines[k // 7]) for k, (_, c) in enumerate(crossing))


def test_what_has_no_count_is_nowhere():
    text = np.where(np.arange(240) % 3 == 0, 0, TEXT)
    for epoch in None, 0:
        for batch in sampling(text).batches(text, 64, epoch):
            assert min(part.min() for part in (batch.words, batch.context, batch.noise)) >= 2


def test_frequent_words_are_left_out_as_often_as_word2vec_leaves_them_out():
    text = np.repeat([2, 3, 4], [90_000, 9_000, 1_000])
    np.random.default_rng(1).shuffle(text)
    kept = Counter(w for w, _ in whole(sampling(text, subsample=0.01).batches(text, 64)))
    for word, share in (2, 0.9), (3, 0.09), (4, 0.01):
        expected = min(1, (0.01 / share) ** 0.5 + 0.01 / share)
        assert kept[word] / (share * len(text)) == pytest.approx(expected, rel=0.05)


def test_noise_follows_counts_to_the_power_of_three_quarters():
    text = np.repeat([2, 3, 4], [8_000, 1_500, 500])
    drawn = torch.cat([b.noise.flatten() for b in sampling(text).batches(text, 64)]).numpy()
    weights = np.array([8_000, 1_500, 500]) ** 0.75
    shares = np.bincount(drawn)[2:] / len(drawn)
    np.testing.assert_allclose(shares, weights / weights.sum(), rtol=0.05)


@pytest.mark.parametrize("epoch", [None, 0, 3])
def test_batches_are_read_from_anywhere_and_always_the_same(epoch):
    text = np.tile(TEXT, 100)
    batches = sampling(text).batches(text, 512, epoch)
    read = list(batches)
    assert len(read) == len(batches) > 2
    again = list(sampling(text).batches(text, 512, epoch).after(2))
    for one, other in zip(again, read[2:], strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_every_epoch_has_an_order_and_draws_of_its_own():
    text = np.tile(TEXT, 10)
    first, second = (whole(sampling(text).batches(text, 512, epoch)) for epoch in (0, 1))
    assert first != second
    assert Counter(w for w, _ in first) == Counter(w for w, _ in second) == Counter(text.tolist())


def test_processes_share_the_text():
    text = np.tile(TEXT, 10)
    one = whole(sampling(text).batches(text, 512, 2))
    two = [sampling(text).batches(text, 256, 2, Shard(rank, 2)) for rank in (0, 1)]
    assert len(two[0]) == len(two[1])
    found = [word for batches in two for word, _ in whole(batches)]
    assert Counter(found) == Counter(word for word, _ in one)


def test_what_is_measured_is_the_same_for_any_size_and_processes():
    text = np.tile(TEXT, 100)
    one = whole(sampling(text).batches(text, 512))
    assert one == whole(sampling(text).batches(text, 30))
    two = [sampling(text).batches(text, 512, None, Shard(rank, 2)) for rank in (0, 1)]
    found = [pair for batches in zip(*two, strict=False) for pair in whole(batches)]
    assert found == one[: len(found)]
    assert sum(len(whole(batches)) for batches in two) == len(one)


def test_a_text_without_contexts_has_no_batch_of_them():
    text = np.array([1, 2, 1])
    assert list(sampling(text, line_end=1).batches(text, 64)) == [None]
    assert list(sampling(text).batches(np.array([2]), 64)) == [None]
