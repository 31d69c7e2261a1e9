"""Gradient flow against autograd on a loop of its own, and what is said about it."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import tanh

import elman
from elman import Affine, Cell, InputError, cells, gradient_flow
from elman.layers.recurrent import Recurrent
from elman.lens import Verdict
from elman.lens.flow import flow_of_last_step
from elman.lens.unrolled import unrolled

F64 = {"dtype": torch.float64}


def by_hand(network, x, t, loss):
    """∂L_t/∂s_k of every layer and state, from a loop over the cells that shares no code."""
    x = x.clone().requires_grad_()  # a window of it is a state, too
    states = [[torch.zeros(x.shape[1], n, **F64) for n in c.state_sizes] for c in network.cells]
    kept = []
    for x_t in x[: t + 1]:
        read, rows = x_t, []
        for k, cell in enumerate(network.cells):
            states[k] = [s.clone() for s in cell(read, *states[k])]
            read = states[k][0]
            rows.append(states[k])
        kept.append(rows)
    flat = [s for rows in kept for row in rows for s in row]
    moved = [s for s in flat if s.requires_grad]  # a clock does not
    gradients = torch.autograd.grad(loss(read), moved, allow_unused=True)
    given = dict(zip(map(id, moved), gradients, strict=True))
    found = (given.get(id(s)) for s in flat)
    deltas = []
    for rows in kept:
        deltas.append([[next(found) for _ in row] for row in rows])
    return deltas


@given(
    st.integers(1, 3), st.integers(1, 6), st.integers(2, 4), st.integers(1, 3), st.integers(0, 99)
)
def test_norms_are_autograds(kind, inputs, steps, hidden, batch, seed):
    torch.manual_seed(seed)
    network = Recurrent(kind(inputs, hidden), layers=2)
    x = torch.randn(steps, batch, inputs, **F64)
    t = seed % steps
    weight = torch.randn(batch, network.output_size, **F64)
    loss = lambda y: (weight * y.square()).sum()  # noqa: E731
    flow = gradient_flow(network, x, loss=loss, at=t, jacobians=False)
    deltas = by_hand(network, x, t, loss)
    assert flow.at == t
    for k, cell in enumerate(flow.cells):
        assert len(cell.norms) == t + 1
        for lag in range(t + 1):
            row = deltas[t - lag][k]
            row = [torch.zeros(batch, 1, **F64) if d is None else d for d in row]
            for name, delta in zip(network.cells[k].state, row, strict=True):
                expected = delta.norm(dim=1).mean()
                torch.testing.assert_close(cell.by_state[name][lag], expected, rtol=1e-10, atol=0)
            together = torch.cat(row, 1).norm(dim=1).mean()
            torch.testing.assert_close(cell.norms[lag], together, rtol=1e-10, atol=0)


def test_the_future_and_other_engines_change_nothing():
    network, x = elman.LSTM(3, 4, **F64), torch.randn(9, 2, 3, **F64)
    whole = gradient_flow(network, x, at=5)
    cut = gradient_flow(network, x[:6])
    torch.testing.assert_close(whole.cells[0].norms, cut.cells[0].norms, rtol=1e-12, atol=0)
    before = elman.engines.choice.forced()
    assert before is None
    assert network.training
    assert network(x)[0].grad_fn is not None


def test_layouts_states_and_frozen_weights():
    network, x = elman.GRU(3, 4, batch_first=True, **F64), torch.randn(7, 2, 3, **F64)
    h = torch.randn(1, 2, 4, **F64)
    first = gradient_flow(network, x.transpose(0, 1), h).cells[0].norms
    network.batch_first = False
    assert torch.equal(gradient_flow(network, x, h).cells[0].norms, first)
    network.requires_grad_(False)
    with torch.no_grad():
        assert torch.equal(gradient_flow(network, x, h).cells[0].norms, first)
    alone = [gradient_flow(network, x[:, b], h[:, b]).cells[0].norms for b in (0, 1)]
    torch.testing.assert_close((alone[0] + alone[1]) / 2, first, rtol=1e-12, atol=0)


def test_in_training_the_lens_sees_what_is_evaluated():
    cell = cells.recurrent_dropout(cells.zoneout(cells.LSTM(3, 4, **F64), 0.5), 0.5)
    network, x = Recurrent(cell, layers=2, dropout=0.5), torch.randn(7, 2, 3, **F64)
    before = torch.get_rng_state()
    first = gradient_flow(network, x)
    assert torch.equal(torch.get_rng_state(), before)
    assert network.training
    network.eval()
    for ours, theirs in zip(first.cells, gradient_flow(network, x).cells, strict=True):
        assert torch.equal(ours.norms, theirs.norms)
        assert torch.equal(ours.jacobians, theirs.jacobians)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_the_lens_looks_where_no_gradient_is_wanted_around_it(mode):
    network, x = elman.LSTM(3, 4), torch.randn(6, 2, 3)
    expected = gradient_flow(network, x).cells[0]
    with mode():
        found = gradient_flow(network, x * 1).cells[0]
    assert torch.equal(found.norms, expected.norms)
    assert torch.equal(found.lyapunov, expected.lyapunov)


def test_both_directions():
    network, x = elman.LSTM(3, 4, bidirectional=True, **F64), torch.randn(8, 2, 3, **F64)
    forward, back = gradient_flow(network, x, at=2).cells
    assert (forward.name, back.name) == ("layer 0", "layer 0 reverse")
    assert (len(forward.norms), len(back.norms)) == (3, 6)
    # The reverse cell on the reversed input is a forward cell.
    alone = elman.LSTM(3, 4, **F64)
    weights = {n: p for n, p in network.named_parameters() if n.endswith("_reverse")}
    alone.load_state_dict({n.removesuffix("_reverse"): p for n, p in weights.items()})
    (expected,) = gradient_flow(alone, x.flip(0), at=5).cells
    torch.testing.assert_close(back.norms, expected.norms, rtol=1e-12, atol=0)
    torch.testing.assert_close(back.lyapunov, expected.lyapunov, rtol=1e-10, atol=1e-10)


def test_norms_are_the_products_of_jacobians():
    network, x = elman.LSTM(3, 4, **F64), torch.randn(12, 1, 3, **F64)
    (cell,) = gradient_flow(network, x).cells
    delta = torch.cat([torch.ones(4, **F64), torch.zeros(4, **F64)])
    for lag, norm in enumerate(cell.norms):
        torch.testing.assert_close(delta.norm(), norm, rtol=1e-10, atol=0)
        if lag < 11:
            delta = cell.jacobians[10 - lag].T @ delta
    assert cell.singular_lags == [1, 2, 3, 4, 6, 8, 11]


class Scaled(Cell):
    """h' = tanh(0 · (W x + U h)) + scale · h: a gradient that is known."""

    scale = 1.0
    net = Affine()

    def step(self, x, h):
        return tanh(0 * self.net(x, h)) + self.scale * h


@pytest.mark.parametrize(
    ("scale", "summary"),
    [(0.5, "vanishes at lag 10"), (2.0, "explodes at lag 10"), (1.0, "holds to lag 29"),
     (1.1, "holds to lag 29"), (0.0, "vanishes at lag 1")],
)  # fmt: skip
def test_verdicts(scale, summary):
    kind = type("Kind", (Scaled,), {"scale": scale})
    flow = gradient_flow(Recurrent(kind(2, 3, **F64)), torch.randn(30, 2, 2, **F64))
    (cell,) = flow.cells
    assert cell.verdict.summary == summary
    assert cell.verdict.rate == pytest.approx(scale)
    lags = torch.arange(30, **F64)
    torch.testing.assert_close(cell.norms, math.sqrt(3) * scale**lags, rtol=1e-9, atol=0)
    expected = math.log(scale) if scale else -math.inf
    assert cell.lyapunov.tolist() == pytest.approx([expected] * 3)
    assert summary in str(flow)
    assert flow.to_json()["cells"][0]["verdict"] == cell.verdict.kind


def test_a_gradient_that_is_zero_from_the_start_has_vanished():
    assert Verdict.of(torch.zeros(4), 1e-3).summary == "vanishes at lag 0"


def test_underflow_and_one_step():
    kind = type("Kind", (Scaled,), {"scale": 1e-30})
    flow = gradient_flow(Recurrent(kind(2, 3)), torch.randn(9, 2, 2))
    assert flow.cells[0].verdict.summary == "vanishes at lag 1"
    assert "nan" not in str(flow)
    (cell,) = gradient_flow(elman.RNN(2, 3), torch.randn(1, 2, 2)).cells
    assert (cell.verdict.summary, cell.jacobians) == ("holds to lag 0", None)


def test_errors_say_what_is_wrong():
    network, x = elman.RNN(2, 3), torch.randn(5, 1, 2)
    for bad in (5, -6):
        with pytest.raises(InputError, match=f"one of the 5 steps of x, received {bad}"):
            gradient_flow(network, x, at=bad)
    for empty in (x[:0], x[:, :0]):
        with pytest.raises(InputError, match="x has nothing to look at"):
            gradient_flow(network, empty)
    with pytest.raises(InputError, match=r"loss must give a scalar.*\(1, 3\)"):
        gradient_flow(network, x, loss=lambda y: y)
    with pytest.raises(InputError, match="does not depend on y"):
        gradient_flow(network, x, loss=lambda y: torch.ones(()))
    with pytest.raises(InputError, match="the loss is nan"):
        gradient_flow(network, x * torch.nan)
    with pytest.raises(InputError, match=r"threshold must lie between 0 and 1, received 2"):
        gradient_flow(network, x, threshold=2)
    with pytest.raises(InputError, match=r"elman.Recurrent.*received Linear"):
        gradient_flow(torch.nn.Linear(2, 3), x)
    packed = torch.nn.utils.rnn.pack_padded_sequence(x, [5])
    with pytest.raises(InputError, match="PackedSequence"):
        gradient_flow(network, packed)
    # Nothing stays behind, whatever went wrong.
    assert elman.engines.choice.forced() is None
    assert not network._forward_hooks
    assert not network.cells[0]._forward_hooks


def test_the_flow_of_a_window_begins_at_the_last_step_that_its_loss_reads():
    network, x = elman.GRU(3, 4, **F64), torch.randn(6, 2, 3, **F64)
    last, weight = torch.tensor([5, 3]), torch.randn(2, 4, **F64)
    read = (torch.arange(6).unsqueeze(1) <= last).double()  # (T, B), as for padded targets
    with unrolled(network) as run:
        y, _ = network(x)
        flow = flow_of_last_step(run, (read.unsqueeze(-1) * weight * y).sum())
    norms = [
        gradient_flow(network, x[:, b : b + 1], at=t, loss=lambda y, b=b: (weight[b] * y).sum())
        for b, t in enumerate(last.tolist())
    ]
    first, second = (each.cells[0].norms for each in norms)
    expected = torch.cat([(first[:4] + second) / 2, first[4:]])
    torch.testing.assert_close(flow.cells[0].norms, expected, rtol=1e-12, atol=0)
    assert flow.at is None
    assert "its last step" in str(flow)
    with unrolled(network) as run:  # a classifier reads the last state
        _, h = network(x)
        flow = flow_of_last_step(run, h.sum())
    assert torch.equal(flow.cells[0].norms, gradient_flow(network, x).cells[0].norms)


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_plots(tmp_path, suffix):
    magic = {"png": b"\x89PNG", "svg": b"<?xml"}[suffix]
    for network in (elman.LSTM(2, 3, num_layers=2), elman.RNN(2, 3, bidirectional=True)):
        path = tmp_path / f"flow.{suffix}"
        gradient_flow(network, torch.randn(6, 1, 2), at=3).plot(path)
        assert path.read_bytes().startswith(magic)
    with pytest.raises(InputError, match=r"must end in one of .png, .svg, .pdf, received 'a.txt'"):
        gradient_flow(network, torch.randn(6, 1, 2)).plot("a.txt")
