"""A step of a stream is of today's weights, whoever wrote them and however."""

from __future__ import annotations

import pytest
import torch
import torch.multiprocessing as multiprocessing
from torch import nn
from torch.nn.utils import parametrize

import elman
from elman import cells
from elman.compiler.cpu.stack import CompiledStack
from elman.layers import stepping


def fused(rnn):
    optimizer = torch.optim.AdamW(rnn.parameters(), lr=0.1, fused=True)
    for p in rnn.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()


def through_data(rnn):
    for p in rnn.parameters():
        p.data.mul_(0.5)


def of_one_weight(rnn):
    weight = next(rnn.parameters()).data
    weight.add_(torch.rand_like(weight))


def through_numpy(rnn):
    for p in rnn.parameters():
        p.detach().numpy()[...] *= 0.5


def other_memory(rnn):
    for p in rnn.parameters():
        p.data = p.data * 0.5


def turned_in_memory(rnn):
    for p in rnn.parameters():
        if p.dim() == 2:
            p.data = (p.data.t().contiguous() * 0.5).t()


def negated_lazily(rnn):
    for p in rnn.parameters():
        p.data = torch._neg_view(p.data)


def replaced(rnn):
    for name, p in list(rnn.named_parameters()):
        setattr(rnn, name, nn.Parameter(p.detach() * 0.5))


def square_turned(rnn):
    rnn.weight_ih_l0.data = rnn.weight_ih_l0.data.t()


CHANGES = [
    fused, through_data, of_one_weight, through_numpy, other_memory, turned_in_memory,
    negated_lazily, replaced,
]  # fmt: skip
KINDS = [
    cells.LSTM, cells.GRUResetBefore, cells.Clockwork, cells.LRU, cells.LayerNormLSTM,
    cells.PeepholeLSTM, cells.MultiplicativeLSTM,
]  # fmt: skip


def step(rnn, x, streamed=True):
    with torch.no_grad():
        state = rnn.initial_state(*x.shape[:-1])
        y, new = rnn.step(x, state)
        if streamed:
            assert stepping.of(rnn) is not None
        with elman.engine("reference"):
            expected, last = rnn.step(x, state)
    torch.testing.assert_close(y, expected, atol=2e-6, rtol=1e-5)
    torch.testing.assert_close(new, last, atol=2e-6, rtol=1e-5)
    return expected


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("kind", KINDS)
def test_todays_weights(kind, change):
    torch.manual_seed(0)
    two = {} if kind in (cells.Clockwork, cells.LRU) else {"biases": 2}
    rnn, x = elman.Recurrent(kind(6, 19, **two), 2), torch.randn(3, 6)
    before = step(rnn, x)
    for _ in range(2):
        change(rnn)
        after = step(rnn, x)
        assert not torch.allclose(before, after)
        before = after
    step(rnn, x[0])


def test_a_square_matrix_that_is_turned():
    torch.manual_seed(0)
    rnn, x = elman.RNN(8, 8), torch.randn(1, 8)
    before = step(rnn, x)
    square_turned(rnn)  # the same object at the same place, of the same shape
    assert not torch.allclose(step(rnn, x), before)


def test_a_constant_that_changes():
    rnn, x = elman.Recurrent(cells.Clockwork(3, 8)), torch.randn(2, 3)
    before = step(rnn, x)
    rnn.constant_connected_l0.data.mul_(0.5)
    rnn.weight_hh_l0.data.add_(1)
    with torch.no_grad():
        state = (torch.ones(1, 2, 8), torch.zeros(1, 2, 8))[: len(rnn.cells[0].state)]
        a, _ = rnn.step(x, tuple(torch.ones_like(s) for s in rnn.initial_state(2)))
        with elman.engine("reference"):
            b, _ = rnn.step(x, tuple(torch.ones_like(s) for s in rnn.initial_state(2)))
    torch.testing.assert_close(a, b)
    assert before.shape == a.shape and len(state) == 2


def test_computed_weights():
    class Halved(nn.Module):
        def forward(self, w):
            return w / 2

    rnn, x = elman.LSTM(3, 19), torch.randn(2, 3)
    parametrize.register_parametrization(rnn, "weight_hh_l0", Halved())
    before = step(rnn, x)
    rnn.parametrizations.weight_hh_l0.original.data.mul_(0.5)
    rnn.weight_ih_l0.data.mul_(0.5)
    assert not torch.allclose(step(rnn, x), before)


def test_weights_made_in_inference_mode_stream():
    with torch.inference_mode():
        rnn, x = elman.LSTM(3, 4), torch.randn(2, 3)
        state = rnn.initial_state(2)
        before, _ = rnn.step(x, state)
        rnn.weight_ih_l0.mul_(0.5)
        after, _ = rnn.step(x, state)
        with elman.engine("reference"):
            expected, _ = rnn.step(x, state)
    torch.testing.assert_close(after, expected)
    assert not torch.allclose(before, after)


def test_inputs_and_states_with_a_negative_bit():
    rnn = elman.LSTM(3, 4)
    x = torch.randn(2, 3, dtype=torch.complex64).conj().imag
    state = tuple(torch.randn(1, 2, 4, dtype=torch.complex64).conj().imag for _ in range(2))
    with torch.no_grad():
        y, _ = rnn.step(x, state)
        expected, _ = rnn.step(x.resolve_neg(), tuple(s.resolve_neg() for s in state))
    torch.testing.assert_close(y, expected)


def test_rows_do_not_depend_on_their_batch():
    torch.manual_seed(0)
    rnn, x = elman.LSTM(37, 41, 2), torch.randn(7, 37)
    with torch.no_grad():
        together, _ = rnn.step(x, rnn.initial_state(7))
        for k in range(7):
            alone, _ = rnn.step(x[k : k + 1], rnn.initial_state(1))
            assert torch.equal(alone[0], together[k])


def _halve(rnn):
    for p in rnn.parameters():
        p.data.mul_(0.5)


def test_another_process_writes_shared_weights():
    rnn, x = elman.LSTM(3, 4).share_memory(), torch.randn(2, 3)
    before = step(rnn, x)
    other = multiprocessing.get_context("fork").Process(target=_halve, args=(rnn,))
    other.start()
    other.join()
    assert other.exitcode == 0
    assert not torch.allclose(step(rnn, x), before)


def test_nothing_is_prepared_again_where_nothing_is_computed_from_weights(monkeypatch):
    rnn, x = elman.Recurrent(cells.LSTM(3, 4)), torch.randn(2, 3)
    step(rnn, x)

    def refuse(*_):
        raise AssertionError

    monkeypatch.setattr(CompiledStack, "_prepare", refuse)
    through_data(rnn)
    step(rnn, x)


@pytest.mark.parametrize("shape", [(32, 4), (16, 8), (8, 4)])
@pytest.mark.parametrize("name", ["weight_hh_l0", "weight_ih_l0"])
@pytest.mark.filterwarnings("error")
def test_a_weight_of_another_shape_is_refused(name, shape):
    rnn, x = elman.LSTM(4, 4), torch.randn(2, 1, 4)
    state = rnn.initial_state(1)
    rnn(x)
    with torch.no_grad():
        rnn.step(x[0], state)
        setattr(rnn, name, nn.Parameter(torch.randn(shape)))
        for run in (lambda: rnn(x), lambda: rnn.step(x[0], state)):
            with pytest.raises(
                (elman.InputError, RuntimeError, ValueError), match=r"shape|product|size"
            ):
                run()
