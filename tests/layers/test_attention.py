from __future__ import annotations

import pytest
import torch
from torch import Tensor

from elman import Attention, nested
from elman.errors import InputError
from elman.layers.attention import KINDS

S, B, T, SIZE = 5, 4, 3, 6
LENGTHS = [5, 1, 0, 3]


def made(kind: str) -> Attention:
    return Attention(SIZE, SIZE, kind, hidden=7, dtype=torch.float64)


def inputs() -> tuple[Tensor, Tensor]:
    return tuple(torch.randn(n, B, SIZE, dtype=torch.float64) for n in (T, S))


def score(attention: Attention, q: Tensor, m: Tensor) -> Tensor:
    """The score of one query and one place, by the definition."""
    if attention.kind == "dot":
        return q @ m / SIZE**0.5
    if attention.kind == "general":
        return q @ attention.key.weight @ m / SIZE**0.5
    hidden = attention.query.weight @ q + attention.query.bias + attention.key.weight @ m
    return attention.score.weight[0] @ hidden.tanh()


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_the_weighted_mean_of_its_definition(kind):
    attention, (queries, memory) = made(kind), inputs()
    contexts, weights = attention(queries, attention.prepare(memory, LENGTHS))
    assert (contexts.shape, weights.shape) == ((T, B, SIZE), (T, B, S))
    for b, length in enumerate(LENGTHS):
        for t in range(T):
            own = memory[:length, b]
            a = torch.zeros(0, dtype=torch.float64)
            if length:
                a = torch.stack([score(attention, queries[t, b], m) for m in own]).softmax(-1)
            torch.testing.assert_close(weights[t, b, :length], a)
            torch.testing.assert_close(contexts[t, b], a @ own)
            assert not weights[t, b, length:].any()


@pytest.mark.parametrize("kind", KINDS)
def test_many_steps_are_as_one_at_a_time(kind):
    attention, (queries, memory) = made(kind), inputs()
    ready = attention.prepare(memory, LENGTHS)
    contexts, weights = attention(queries, ready)
    for t in range(T):
        context, weight = attention(queries[t], ready)
        torch.testing.assert_close(context, contexts[t])
        torch.testing.assert_close(weight, weights[t])


@pytest.mark.parametrize("kind", KINDS)
def test_what_stands_in_the_padding_reaches_nothing(kind, gradients):
    attention, (queries, memory) = made(kind), inputs()
    poisoned = memory.clone()
    for b, length in enumerate(LENGTHS):
        poisoned[length:, b] = torch.nan
    found = []
    for given in (memory, poisoned):
        given, asked = given.clone().requires_grad_(), queries.clone().requires_grad_()
        out = attention(asked, attention.prepare(given, LENGTHS))
        wanted = gradients(out, [given, asked, *attention.parameters()])
        assert all(g.isfinite().all() for g in wanted)
        found.append([*out, *wanted])
    for clean, dirty in zip(*found, strict=True):
        assert torch.equal(clean, dirty)


def test_a_wide_product_leaves_a_gradient_to_every_place():
    attention = Attention(1024, 1024, "dot")
    weights = attention(torch.randn(T, B, 1024), attention.prepare(torch.randn(S, B, 1024)))[1]
    assert 0.001 < weights.min() < weights.max() < 0.99


def test_an_empty_memory_gives_zeros():
    attention, (queries, memory) = made("additive"), inputs()
    for ready in (attention.prepare(memory, [0] * B), attention.prepare(memory[:0])):
        context, weights = attention(queries[0], ready)
        assert not context.any()
        assert not weights.any()


@pytest.mark.parametrize("kind", KINDS)
def test_gradients(kind):
    attention, (queries, memory) = made(kind), inputs()

    def context(queries, memory):
        return attention(queries, attention.prepare(memory, LENGTHS))

    assert torch.autograd.gradcheck(context, (queries.requires_grad_(), memory.requires_grad_()))


def test_a_memory_is_repeated_and_reordered_as_states_are():
    attention, (queries, memory) = made("general"), inputs()
    rows = torch.tensor([3, 3, 0])
    ready = nested.map(lambda s: s.index_select(-2, rows), attention.prepare(memory, LENGTHS))
    for one, all_ in zip(
        attention(queries[:, rows], ready),
        attention(queries, attention.prepare(memory, LENGTHS)),
        strict=True,
    ):
        torch.testing.assert_close(one, all_[:, rows])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Attention(3, 3, "cosine"), "one of additive, dot, general, received 'cosine'"),
        (lambda: Attention(3, 4, "dot"), "must have one size, received 3 and 4; take 'general'"),
        (lambda: Attention(3, 4).prepare(torch.zeros(5, 2, 3)), r"\(S, B, 4\), received \(5, 2, 3"),
        (lambda: Attention(3, 4).prepare(torch.zeros(5, 2, 4), [6, 1]), "between 0 and 5"),
        (
            lambda: Attention(6, 6)(torch.zeros(1, 6), made("dot").prepare(inputs()[1])),
            r"the query must have the shape \(4, 6\)",
        ),
    ],
)
def test_what_does_not_fit(make, words):
    with pytest.raises(InputError, match=words):
        make()
