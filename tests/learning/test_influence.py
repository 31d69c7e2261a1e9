"""Rules in the weights' type, whatever PyTorch's own is."""

from __future__ import annotations

import contextlib

import pytest
import torch

import elman
from elman.errors import InputError
from elman.learning import RULES

TYPES = [
    (torch.float64, torch.float64), (torch.float32, torch.float64), (torch.float64, torch.float32)
]  # fmt: skip
"""PyTorch's default and the weights'."""


@contextlib.contextmanager
def default(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _network(cell, dtype):
    torch.manual_seed(0)
    with default(torch.float32):
        cell = elman.cells.make(cell, 3, 4)
        return elman.Recurrent(cell, learn_initial_state=True).to(dtype)


def _gradients(rule, network, x, target):
    torch.manual_seed(0)  # of what UORO draws
    made = RULES[rule](network, lambda y, t: (y - t).square().mean())
    resets = torch.zeros(x.shape[:2], dtype=torch.bool)
    resets[2, 1] = True
    loss = made.gradients(x, target, resets=resets)
    return loss, [p.grad for p in network.parameters()]


@pytest.mark.parametrize(("standard", "dtype"), TYPES)
@pytest.mark.parametrize(
    ("rule", "cell"),
    [
        *((rule, "rnn") for rule in RULES),
        ("rtrl", "indrnn"), ("rtrl", "lru"), ("rtrl", "qrnn"), ("snap1", "lstm"),
        ("rflo", "gru"), ("rtrl", "clockwork"),
    ],
)  # fmt: skip
def test_a_rule_follows_the_weights(rule, cell, standard, dtype):
    x = torch.randn(4, 2, 3, dtype=dtype, generator=torch.Generator().manual_seed(1))
    target = torch.zeros(4, 2, 4, dtype=torch.float64)
    with default(torch.float32):
        _, expected = _gradients(rule, _network(cell, dtype), x, target)
    with default(standard):
        loss, found = _gradients(rule, _network(cell, dtype), x, target)
    assert loss.dtype == torch.float64  # of the target, as in PyTorch
    for a, b in zip(found, expected, strict=True):
        assert (a is None) == (b is None)
        if a is not None and b is not None:
            assert a.dtype == dtype
            torch.testing.assert_close(a, b)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.int64, torch.complex64])
def test_a_window_of_another_type_is_told(rule, dtype):
    made = RULES[rule](elman.RNN(3, 4), lambda y, t: y.square().mean())
    with pytest.raises(InputError, match=r"weights' dtype torch\.float32, received"):
        made.gradients(torch.zeros(1, 2, 3, dtype=dtype), None)
    with pytest.raises(InputError, match=r"resets must be bool of shape \(1, 2\), received"):
        made.gradients(torch.zeros(1, 2, 3), None, resets=torch.zeros(1, 2, dtype=torch.uint8))


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule != "bptt"])
def test_a_row_that_starts_anew_forgets_what_is_not_finite(rule):
    """A row that has overflowed learns again from its next sequence."""
    network = elman.RNN(3, 4, nonlinearity="relu").double()
    x = torch.randn(3, 2, 3, dtype=torch.float64)
    made = RULES[rule](network, lambda y, t: y.square().mean())
    made.gradients(x, None)
    made.state = made.state.clone()
    made.state[:, 1] = torch.nan
    if rule == "tbptt":
        made._before = made.state
    network.zero_grad()
    made.gradients(x, None, resets=torch.tensor([[False, True], [False] * 2, [False] * 2]))
    assert all(p.grad.isfinite().all() for p in network.parameters())
    assert made.state.isfinite().all()
