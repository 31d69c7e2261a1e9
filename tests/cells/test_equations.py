"""Cells against references that no one here wrote: PyTorch's cells, papers, textbook limits."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch
from torch import nn

import elman
from elman import cells

F64 = {"dtype": torch.float64}


def uniform(*shape: int) -> torch.Tensor:
    return torch.empty(*shape, **F64).uniform_(-1.5, 1.5)


@pytest.mark.parametrize(
    ("cell", "theirs"),
    [
        (cells.LSTM(5, 4, biases=2, **F64), nn.LSTMCell(5, 4, **F64)),
        (cells.LSTM(5, 4, biases=0, **F64), nn.LSTMCell(5, 4, bias=False, **F64)),
        (cells.GRU(5, 4, biases=2, **F64), nn.GRUCell(5, 4, **F64)),
        (cells.GRU(5, 4, biases=0, **F64), nn.GRUCell(5, 4, bias=False, **F64)),
        (cells.Elman(5, 4, biases=2, **F64), nn.RNNCell(5, 4, **F64)),
        (cells.Elman(5, 4, "relu", biases=2, **F64), nn.RNNCell(5, 4, True, "relu", **F64)),
    ],
)
def test_one_step_is_torch_nn(cell, theirs, agree):
    theirs.load_state_dict(cell.state_dict(), strict=True)
    x, states = uniform(3, 5), [uniform(3, 4) for _ in cell.state]
    agree(cell(x, *states), theirs(x, tuple(states) if len(states) > 1 else states[0]))


def logistic(a: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-a))


def test_gru_reset_before_is_cho_et_al():
    """Equations 5 to 8 of the paper, over a few steps, with the bias that it leaves out."""
    cell = cells.GRUResetBefore(3, 4, **F64)
    w = {name: p.detach().numpy() for name, p in cell.named_parameters()}
    w_r, w_z = np.split(w["weight_ih"], 2)
    u_r, u_z = np.split(w["weight_hh"], 2)
    b_r, b_z = np.split(w["bias_ih"], 2)
    h, rows = uniform(2, 4), uniform(5, 2, 3)
    expected = h.numpy()
    for x in rows:
        (h,) = cell(x, h)
        x, last = x.numpy(), expected
        r = logistic(x @ w_r.T + last @ u_r.T + b_r)
        z = logistic(x @ w_z.T + last @ u_z.T + b_z)
        new = np.tanh(
            x @ w["weight_ih_candidate"].T
            + (r * last) @ w["weight_hh_candidate"].T
            + w["bias_ih_candidate"]
        )
        expected = z * last + (1 - z) * new
    np.testing.assert_allclose(h.detach().numpy(), expected, rtol=0, atol=1e-12)


def test_simple_cells_in_numpy():
    for nonlinearity, phi in {
        "sigmoid": logistic, "tanh": np.tanh, "relu": lambda a: np.maximum(a, 0),
    }.items():  # fmt: skip
        x, h = uniform(2, 3), uniform(2, 4)
        cell = cells.Elman(3, 4, nonlinearity, **F64)
        w = [p.detach().numpy() for p in cell.parameters()]
        np.testing.assert_allclose(
            cell(x, h)[0].detach().numpy(), phi(x.numpy() @ w[0].T + h.numpy() @ w[1].T + w[2])
        )
        cell = cells.Perceptron(3, 4, nonlinearity, **F64)
        w = [p.detach().numpy() for p in cell.parameters()]
        np.testing.assert_allclose(cell(x, h)[0].detach().numpy(), phi(x.numpy() @ w[0].T + w[1]))


def test_projected_lstm_is_the_lstm_projected(agree):
    """The projection comes after the gates, and the cell state keeps its width."""
    cell = cells.ProjectedLSTM(3, 5, 2, **F64)
    x, h, c = uniform(2, 3), uniform(2, 2), uniform(2, 5)
    z = x @ cell.weight_ih.T + h @ cell.weight_hh.T + cell.bias_ih
    i, f, g, o = z.chunk(4, -1)
    new_c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    agree(cell(x, h, c), ((o.sigmoid() * new_c.tanh()) @ cell.weight_hr.T, new_c))


# -- the gates at their ends, as every textbook explains them -----------------------------------

SHUT, OPEN = -1e3, 1e3


def limit(cell: elman.Cell, **gates: float) -> elman.Cell:
    for block, value in gates.items():
        cell.fill_bias(block, value)
    return cell


@pytest.mark.parametrize("convention", [cells.GRU, cells.GRUResetBefore])
def test_gru_limits(convention, agree):
    x, h, other = uniform(2, 3), uniform(2, 4), uniform(2, 4)

    keeps = limit(convention(3, 4, **F64), z=OPEN)
    agree(keeps(x, h), [h])

    simple = limit(convention(3, 4, **F64), z=SHUT, r=OPEN)
    if convention is cells.GRU:
        w, u, b = simple.weight_ih[8:], simple.weight_hh[8:], simple.bias_ih[8:]
    else:
        w, u, b = (getattr(simple, f"{n}_candidate") for n in ("weight_ih", "weight_hh", "bias_ih"))
    agree(simple(x, h), [torch.tanh(x @ w.T + h @ u.T + b)])

    forgets = limit(convention(3, 4, **F64), z=SHUT, r=SHUT)
    agree(forgets(x, h), forgets(x, other))
    assert not torch.allclose(forgets(x, h)[0], forgets(uniform(2, 3), h)[0])


def test_lstm_limits(agree):
    x, h, c, other = uniform(2, 3), uniform(2, 4), uniform(2, 4), uniform(2, 4)

    keeps = limit(cells.LSTM(3, 4, **F64), f=OPEN, i=SHUT)
    agree(keeps(x, h, c)[1], c)

    writes = limit(cells.LSTM(3, 4, **F64), f=SHUT, i=OPEN)
    z = x @ writes.weight_ih.T + h @ writes.weight_hh.T + writes.bias_ih
    agree(writes(x, h, c)[1], torch.tanh(z.chunk(4, -1)[2]))
    agree(writes(x, h, c), writes(x, h, other))

    shown = limit(cells.LSTM(3, 4, **F64), o=OPEN)
    agree(shown(x, h, c)[0], torch.tanh(shown(x, h, c)[1]))
    hidden = limit(cells.LSTM(3, 4, **F64), o=SHUT)
    agree(hidden(x, h, c)[0], torch.zeros(2, 4, **F64))


# -- counts, derivatives, length ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("cell", "count"),
    [
        (cells.LSTM(128, 64), 49_408),
        (cells.LSTM(4096, 256), 4_457_472),
        (cells.LSTM(28, 256, biases=2), 4 * 256 * (28 + 256 + 2)),
        (cells.GRU(28, 256), 3 * 256 * (28 + 256 + 1)),
        (cells.GRUResetBefore(28, 256), 3 * 256 * (28 + 256 + 1)),
        (cells.GRUResetBefore(28, 256, biases=0), 3 * 256 * (28 + 256)),
        (cells.Elman(28, 256), 256 * (28 + 256 + 1)),
        (cells.Perceptron(28, 256), 256 * (28 + 1)),
        (cells.Perceptron(28, 256, biases=0), 256 * 28),
        (cells.ProjectedLSTM(28, 256, 64), 4 * 256 * (28 + 64 + 1) + 64 * 256),
    ],
)
def test_parameter_counts(cell, count):
    assert sum(p.numel() for p in cell.parameters()) == count


def test_gradcheck(kind):
    cell = kind(2, 3)
    states = [torch.randn(2, s, **F64, requires_grad=True) for s in cell.state_sizes]
    x = torch.randn(2, 2, **F64, requires_grad=True)
    names = [name for name, _ in cell.named_parameters()]

    def step(x, *rest):
        weights = dict(zip(names, rest[len(states) :], strict=True))
        return cell.bind(weights)(x, *rest[: len(states)])

    assert torch.autograd.gradcheck(step, (x, *states, *cell.parameters()))


def test_any_leading_axes(kind, agree):
    """A step is a function of the last axis: a cell that reads others would fail here."""
    cell = kind(2, 3)
    x = uniform(5, 4, 2)
    states = [uniform(5, 4, size) for size in cell.state_sizes]
    many = cell(x, *states)
    agree([s[3, 1] for s in many], cell(x[3, 1], *[s[3, 1] for s in states]))


def test_lstm_takes_at_most_twelve_lines():
    """What the library promises of a cell: it reads like its paper."""
    source = inspect.getsource(cells.LSTM).replace(str(cells.LSTM.__doc__), "")
    code = [line for line in source.splitlines() if line.strip() and '"""' not in line]
    assert len(code) <= 12
