"""The mode that a step reads, and what networks that are gone leave behind."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref

import pytest
import torch
from torch import nn

import elman
from elman import cells
from elman.cells import Cell, Linear
from elman.engines import kept
from elman.learning import RTRL

F64 = torch.float64


class Moody(Cell):
    of_x = Linear(of="x")

    def step(self, x, h):
        return torch.tanh(self.of_x(x)) * (2.0 if self.training else 1.0)


class MoodyMemory(cells.MinLSTM):
    def coefficients(self, x, *past):
        a, b = super().coefficients(x, *past)
        return a, b * (2.0 if self.training else 1.0)


def modes():
    yield lambda rnn: rnn.train(), lambda rnn: rnn.eval()
    yield lambda rnn: nn.Sequential(rnn).train(), lambda rnn: nn.ModuleList([rnn]).eval()
    yield lambda rnn: setattr(rnn, "training", True), lambda rnn: setattr(rnn, "training", False)


@pytest.mark.parametrize("kind", [Moody, MoodyMemory])
@pytest.mark.parametrize(("on", "off"), list(modes()))
def test_the_mode_of_a_step_is_the_networks(kind, on, off, results):
    torch.manual_seed(0)
    rnn, x = elman.Recurrent(kind(3, 4, dtype=F64)), torch.randn(3, 2, 3, dtype=F64)
    trained = results(rnn, x)
    off(rnn)
    for evaluated in (rnn, copy.deepcopy(rnn), pickle.loads(pickle.dumps(rnn))):
        torch.testing.assert_close(results(evaluated, x), trained / 2)
        on(evaluated)
        torch.testing.assert_close(results(evaluated, x), trained)


def test_a_network_of_a_cell_in_evaluation_begins_in_training():
    cell = Moody(3, 4).eval()
    rnn, other = elman.Recurrent(cell), elman.Recurrent(cell).eval()
    assert rnn.training and rnn.cells[0].training
    assert not cell.training and not other.cells[0].training


def test_noise_and_mode_are_apart():
    torch.manual_seed(0)
    rnn = elman.Recurrent(cells.zoneout(Moody(3, 4, dtype=F64), 0.5))
    x = torch.randn(3, 2, 3, dtype=F64)
    for _ in range(2):
        torch.manual_seed(1)
        y = rnn(x)[0]
        with elman.engine("reference"):
            torch.manual_seed(1)
            torch.testing.assert_close(rnn(x)[0], y)
        rnn.eval()


def test_cells_that_do_not_ask_for_the_mode_are_compiled_once():
    rnn, x = elman.Recurrent(cells.LSTM(3, 5)), torch.zeros(1, 1, 3)
    rnn(x)
    count = len(kept.COMPILED)
    rnn.eval()(x)
    assert len(kept.COMPILED) == count


class Iterates(Moody):
    def __init__(self, *sizes, **options):
        super().__init__(*sizes, **options)
        self.unkeyable = iter([1.0])


@pytest.mark.parametrize("local", [False, True])
def test_networks_that_are_gone_leave_nothing_behind(local):
    class Local(Moody):
        pass

    kind = Local if local else Iterates
    gc.collect()
    count = len(kept.COMPILED)
    rnn, x = elman.Recurrent(kind(3, 4)), torch.zeros(2, 1, 3)
    weight = rnn.weight_of_x_l0
    y = rnn(x)[0].sum()
    with torch.no_grad():
        rnn.step(x[0], rnn.initial_state(1))
    gone, made = [weakref.ref(rnn), weakref.ref(rnn._cells[0])], weakref.ref(kind)
    del rnn, Local, kind
    gc.collect()
    assert [reference() for reference in gone] == [None] * len(gone)
    y.backward()  # the graph lives, and so do its kernels
    assert weight.grad is not None
    del y
    gc.collect()
    assert len(kept.COMPILED) == count
    assert (made() is None) is local


def test_kernels_of_many_options_are_not_kept_for_good():
    gc.collect()
    count = len(kept.COMPILED)

    class Many(Moody):
        slope = 1.0

    for slope in range(70):
        cell = Many(3, 1)
        cell.slope = float(slope)
        elman.Recurrent(cell).engine  # noqa: B018
    gc.collect()
    assert len(kept.COMPILED) - count <= 64


def test_an_exported_program_outlives_its_network():
    rnn, x = elman.Recurrent(Iterates(3, 4)), torch.randn(2, 1, 3)
    expected = rnn(x)[0]
    program = torch.export.export(rnn, (x,)).module()
    del rnn
    gc.collect()
    torch.testing.assert_close(program(x)[0], expected)


def test_learning_forward_in_time_follows_options():
    torch.manual_seed(0)
    cell = Moody(3, 4)
    rnn, x, y = elman.Recurrent(cell), torch.randn(4, 1, 3), torch.randn(4, 1, 4)

    def loss(a, b):
        return (a - b).square().mean()

    def gradients(rule):
        rule.reset()
        rnn.zero_grad()
        for t in range(4):
            rule.gradients(x[t : t + 1], y[t : t + 1])
        return [p.grad.clone() for p in rnn.parameters()]

    rule = RTRL(rnn, loss)
    before = gradients(rule)
    rnn.eval()
    after = gradients(rule)
    for a, b, expected in zip(after, before, gradients(RTRL(rnn, loss)), strict=True):
        assert torch.equal(a, expected) and not torch.equal(a, b)
