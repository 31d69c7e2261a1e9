"""Cells that see a window: a time-delay layer is a causal convolution, in a stack too."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import conv1d, pad

import elman
from elman import cells

F64 = {"dtype": torch.float64}


def convolved(cell: cells.TDNN, x: torch.Tensor) -> torch.Tensor:
    """tanh of the causal convolution of x (T, B, M) with the cell's weights."""
    past = cell.weight_delayed.unflatten(1, (cell.delays, cell.input_size))
    kernel = torch.cat([past, cell.weight_now.unsqueeze(1)], 1).transpose(1, 2)
    padded = pad(x.permute(1, 2, 0), (cell.delays, 0))
    return torch.tanh(conv1d(padded, kernel, cell.bias_now).permute(2, 0, 1))


@settings(max_examples=8)
@given(
    delays=st.integers(1, 4), layers=st.integers(1, 3), steps=st.integers(1, 7),
    width=st.integers(1, 5), hidden=st.integers(1, 6),
)  # fmt: skip
def test_a_stack_of_delays_is_a_stack_of_causal_convolutions(delays, layers, steps, width, hidden):
    torch.manual_seed(0)
    rnn = elman.Recurrent(cells.TDNN(width, hidden, delays, **F64), layers)
    x = torch.randn(steps, 2, width, **F64, requires_grad=True)
    y, expected = rnn(x)[0], x
    for cell in rnn.cells:
        expected = convolved(cell, expected)
    torch.testing.assert_close(y, expected, rtol=1e-10, atol=1e-10)
    inputs, weight = [x, *rnn.parameters()], torch.randn_like(y)
    for a, b in zip(
        torch.autograd.grad((weight * y).sum(), inputs),
        torch.autograd.grad((weight * expected).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_backwards_it_sees_what_follows(agree):
    rnn = elman.Recurrent(cells.TDNN(2, 3, delays=2, **F64), bidirectional=True)
    x = torch.randn(6, 2, 2, **F64)
    agree(rnn(x)[0][..., 3:], convolved(rnn.cells[1], x.flip(0)).flip(0))


@pytest.mark.parametrize("grad", [True, False])
def test_it_streams(grad, agree):
    rnn = elman.Recurrent(cells.TDNN(3, 3, delays=3, **F64), 2)
    x = torch.randn(7, 2, 3, **F64)
    with torch.set_grad_enabled(grad):
        state, rows = rnn.initial_state(2), []
        for row in x:
            y, state = rnn.step(row, state)
            rows.append(y)
        agree(torch.stack(rows), rnn(x)[0])


def test_external_input_step_by_step(agree):
    """Each step written out from the whole history, with zeros before its beginning."""
    cell = cells.NARX(2, 5, 3, input_delays=2, output_delays=3, **F64)
    x, ys = torch.randn(6, 1, 2, **F64), [torch.zeros(1, 3, **F64)] * 3
    padded = [torch.zeros(1, 2, **F64)] * 2 + list(x)
    for t in range(6):
        z = padded[t + 2] @ cell.weight_now.T + cell.bias_now
        for k, block in enumerate(cell.weight_delayed.split(2, 1)):
            z = z + padded[t + k] @ block.T
        for k, block in enumerate(cell.weight_feedback.split(3, 1)):
            z = z + ys[t + k] @ block.T
        ys.append(torch.tanh(z) @ cell.weight_out.T + cell.bias_out)
    agree(elman.Recurrent(cell)(x)[0], torch.stack(ys[3:]))
