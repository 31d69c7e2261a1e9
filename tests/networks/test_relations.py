from __future__ import annotations

import torch

from elman.networks.relations import Pairs, RelationNetwork, every_pair

ENTITIES = [[(0, 1, 0), (2, 4, 1), (4, 5, 1)], [], [(1, 3, 1), (0, 1, 0)]]
"""First step, step behind the last, label: of three sentences of five steps."""


def network(between=None):
    there = torch.ones(2, 2, 3, dtype=torch.bool) if between is None else between
    return RelationNetwork(4, there, 6).double().eval()


def test_pairs_are_all_of_a_sentence_both_ways():
    pairs = Pairs.of(ENTITIES)
    assert pairs.sentence.tolist() == [0] * 6 + [2] * 2
    assert pairs.spans[1].tolist() == [[0, 1], [4, 5]] and pairs.kinds[1].tolist() == [0, 1]
    assert [(k, *pair) for k, *pair in every_pair(["ab"])] == [(0, "a", "b"), (0, "b", "a")]


def test_no_pairs_have_no_scores():
    y = torch.randn(5, 2, 4, dtype=torch.float64)
    assert network()(y, Pairs.of([[], [(0, 1, 0)]])).shape == (0, 3)


def test_a_pair_is_told_by_its_spans_and_what_is_between_them():
    model, pairs = network(), Pairs.of(ENTITIES)
    y = torch.randn(5, 3, 4, dtype=torch.float64)
    scores = model(y, pairs)
    for k, (b, head, tail) in enumerate(every_pair(ENTITIES)):
        rows = [y[begin:end, b] for begin, end, _ in (head, tail)]
        rows.append(y[min(head[1], tail[1]) : max(head[0], tail[0]), b])
        parts = [some.amax(0) if len(some) else torch.zeros(4) for some in rows]
        parts += [model.kinds.weight[head[2]], model.kinds.weight[tail[2]]]
        first = torch.tensor([float(head[0] < tail[0])])
        x = torch.tanh(model.hidden(torch.cat([*parts, first])))
        torch.testing.assert_close(scores[k], model.output(x))


def test_padding_has_no_part_in_it():
    model, pairs = network(), Pairs.of(ENTITIES[:1])
    y = torch.randn(5, 1, 4, dtype=torch.float64)
    longer = torch.cat([y, torch.full((3, 1, 4), torch.nan, dtype=torch.float64)])
    torch.testing.assert_close(model(longer, pairs), model(y, pairs))


def test_relations_that_labels_never_have_are_barred():
    between = torch.zeros(2, 2, 3, dtype=torch.bool)
    between[0, 1, 2] = True
    scores = network(between)(torch.randn(5, 3, 4, dtype=torch.float64), Pairs.of(ENTITIES))
    kinds = [(head[2], tail[2]) for _, head, tail in every_pair(ENTITIES)]
    for row, pair in zip(scores, kinds, strict=True):
        assert (row > -20).tolist() == [False, False, pair == (0, 1)]
