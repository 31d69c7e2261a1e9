from __future__ import annotations

import pytest
import torch
from torch import Tensor

from elman import LSTM, Pooling
from elman.errors import InputError
from elman.layers.pooling import KINDS

T, LENGTHS, SIZE = 5, [5, 1, 0, 3], 6


def pooled(pooling: Pooling, y: Tensor) -> Tensor:
    """One sequence (T, S), T ≥ 1, by the definition."""
    if pooling.kind == "mean":
        return y.mean(0)
    if pooling.kind == "max":
        return y.max(0).values
    if pooling.kind == "last":
        half = SIZE // 2 if pooling.bidirectional else SIZE
        return torch.cat([y[-1, :half], y[0, half:]])
    return pooling.score(pooling.hidden(y).tanh()).softmax(0).squeeze(-1) @ y


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_each_sequence_is_pooled_alone(kind, bidirectional, gradients):
    pooling = Pooling(kind, SIZE, bidirectional=bidirectional, dtype=torch.float64)
    y = torch.randn(T, len(LENGTHS), SIZE, dtype=torch.float64)
    poisoned = y.clone()
    for b, length in enumerate(LENGTHS):
        poisoned[length:, b] = torch.nan
    poisoned.requires_grad_()
    found = pooling(poisoned, LENGTHS)
    for b, length in enumerate(LENGTHS):
        expected = pooled(pooling, y[:length, b]) if length else torch.zeros(SIZE).double()
        torch.testing.assert_close(found[b], expected)
    (gradient,) = gradients(found, [poisoned])
    assert gradient.isfinite().all()
    assert not any(gradient[n:, b].any() for b, n in enumerate(LENGTHS))
    torch.testing.assert_close(pooling(y), pooling(y, [T] * len(LENGTHS)))
    assert pooling(y[:0]).equal(torch.zeros(len(LENGTHS), SIZE).double())


@pytest.mark.parametrize("bidirectional", [False, True])
def test_the_last_outputs_are_the_last_states(bidirectional):
    network = LSTM(3, 4, bidirectional=bidirectional)
    y, (h, _) = network(torch.randn(T, 4, 3), lengths=LENGTHS)
    pooling = Pooling("last", network.output_size, bidirectional=bidirectional)
    torch.testing.assert_close(pooling(y, LENGTHS), torch.cat(tuple(h), -1))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Pooling("sum", 4), "one of last, mean, max, attention, received 'sum'"),
        (lambda: Pooling("last", 3, bidirectional=True), "must be even, received 3"),
        (lambda: Pooling("mean", 4)(torch.zeros(5, 2, 3)), r"\(T, B, 4\), received \(5, 2, 3\)"),
        (lambda: Pooling("mean", 4)(torch.zeros(5, 2, 4), [1]), "lengths must be 2 integers"),
    ],
)
def test_what_does_not_fit(make, words):
    with pytest.raises(InputError, match=words):
        make()
