from __future__ import annotations

from itertools import pairwise, product

import pytest
import torch
from torch.nn.functional import cross_entropy

from elman.networks.tagger import TaggerBatch, TaggerNetwork, TaggerSettings
from elman.networks.words import Words

SENTENCES = [("the", "old", "man"), ("The", "boat", "the", "immeasurable", "sea")]
BIO = ("O", "B-X", "I-X", "B-Y", "I-Y")


def network(labels=BIO, weights=None, **options):
    settings = TaggerSettings.of({"embedding": 4, "hidden": 6, "output": "crf", **options})
    words = Words.collect(SENTENCES, settings)
    return words, TaggerNetwork(words, (5,), labels, settings, None, weights).double().eval()


def batch(words, sentences=SENTENCES):
    read = words.batch(sentences)
    features = (1 + read.ids % 4) * (read.ids > 0)
    return TaggerBatch(read, (features,), torch.zeros_like(read.ids))


@pytest.mark.parametrize("output", ["crf", "softmax"])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_neither_neighbours_nor_padding_change_what_is_told(output, cell):
    words, model = network(output=output, cell=cell, layers=2, characters="conv")
    together = batch(words)
    scores = model(together)
    told = model.marginals(scores, together.words.lengths)
    paths = model.decode(scores, together.words.lengths)
    for embedding in (model.words.embedding, model.features[0]):
        embedding.weight.data[0] = torch.nan
    for k, sentence in enumerate(SENTENCES):
        alone = batch(words, [sentence])
        own = model(alone)
        torch.testing.assert_close(own[:, 0], scores[: len(sentence), k])
        torch.testing.assert_close(
            model.marginals(own, alone.words.lengths)[:, 0], told[: len(sentence), k]
        )
        assert model.decode(own, alone.words.lengths) == [paths[k]]
    poisoned = model(batch(words))
    assert poisoned[:3, 0].isfinite().all()
    assert model.loss(poisoned, together.tags, together.words.lengths).isfinite()


@pytest.mark.parametrize("output", ["crf", "softmax"])
def test_spans_are_decoded_under_the_constraints_of_their_scheme(output):
    _, model = network(output=output)
    if output == "crf":
        torch.nn.init.normal_(model.chain.transitions)
    scores, lengths = torch.randn(4, 1, 5, dtype=torch.float64), torch.tensor([4])
    a, b, c = model.chain.scores(constrained=False)

    def value(path):
        between = sum(a[i, j] for i, j in pairwise(path))
        return (
            b[path[0]]
            + c[path[-1]]
            + between
            + sum(s[0, k] for s, k in zip(scores, path, strict=True))
        )

    def legal(path):
        before = [0, *path]
        return all(k not in (2, 4) or before[t] in (k, k - 1) for t, k in enumerate(path))

    best = max(filter(legal, product(range(5), repeat=4)), key=value)
    assert model.decode(scores, lengths) == [list(best)]
    free = max(
        filter(legal, product(range(5), repeat=4)),
        key=lambda p: float(sum(s[0, k] for s, k in zip(scores, p, strict=True))),
    )
    assert model.decode(scores, lengths, learned=False) == [list(free)]


def test_without_spans_a_softmax_takes_the_likeliest_tag():
    _, model = network(labels=("NOUN", "VERB"), output="softmax")
    assert model.chain is None
    scores = torch.tensor([[[0.0, 1]], [[2, 1]], [[0, 5]]])
    assert model.decode(scores, torch.tensor([2])) == [[1, 0]]


def test_a_softmax_learns_nothing_of_transitions():
    words, model = network(output="softmax")
    read = batch(words)
    model.loss(model(read), read.tags, read.words.lengths).backward()
    assert model.chain.transitions.grad is None
    assert not model.chain.transitions.any()


def test_class_weights_weigh_each_tag():
    weights = torch.tensor([1.0, 3.0], dtype=torch.float64)
    words, model = network(labels=("NOUN", "VERB"), weights=weights, output="softmax")
    read = batch(words)
    tags = torch.tensor([[0, 1], [1, 1], [0, 0], [0, 1], [0, 1]])
    scores = model(read)
    wanted = sum(
        cross_entropy(scores[:n, k], tags[:n, k], weights, reduction="sum")
        for k, n in enumerate([3, 5])
    )
    torch.testing.assert_close(model.loss(scores, tags, read.words.lengths), wanted)
