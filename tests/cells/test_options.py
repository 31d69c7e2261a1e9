"""What a step reads far from its cell takes effect when it changes."""

from __future__ import annotations

import collections
import contextvars
import logging

import numpy as np
import pytest
import torch
from torch import nn

import elman
from elman.cells import Affine, Cell, options

SLOPE = 1.0
F64 = torch.float64


class Config:
    slope = 1.0

    @classmethod
    def twice(cls):
        return 2 * cls.slope


class Private:
    __slots__ = ("__slope",)

    def __init__(self):
        self.__slope = 1.0

    def set(self, slope):
        self.__slope = slope

    def get(self):
        return self.__slope


class Surrogate(torch.autograd.Function):
    """A threshold with the gradient of a steep sigmoid."""

    @staticmethod
    def forward(ctx, v):
        ctx.save_for_backward(v)
        return (v > 0).to(v.dtype)

    @staticmethod
    def backward(ctx, gradient):
        (v,) = ctx.saved_tensors
        return gradient * SLOPE / (1 + v.abs()) ** 2


class Scaled(nn.Module):
    gain = 1.0

    def forward(self, z):
        return z * SLOPE * self.gain


def of_another_class():
    class Reads(Cell):
        gates = Affine("a")

        def step(self, z, h):
            return torch.tanh(z.a) * Config.slope

    return Reads, lambda cell: setattr(Config, "slope", 0.5)


def in_a_class_method_of_another_class():
    class Reads(Cell):
        gates = Affine("a")

        def step(self, z, h):
            return torch.tanh(z.a) * Config.twice()

    return Reads, lambda cell: setattr(Config, "slope", 0.5)


def in_a_gradient_of_its_own():
    class Spikes(Cell):
        gates = Affine("a")

        def step(self, z, h):
            return Surrogate.apply(z.a) + 0.1 * h

    def change(cell):
        global SLOPE
        SLOPE = 0.5

    return Spikes, change


def in_a_private_slot():
    class Reads(Cell):
        gates = Affine("a")

        def __init__(self, *sizes, **options):
            super().__init__(*sizes, **options)
            self.private = Private()

        def step(self, z, h):
            return torch.tanh(z.a) * self.private.get()

    return Reads, lambda cell: cell.private.set(0.5)


def in_a_default():
    class Reads(Cell):
        gates = Affine("a")

        def step(self, z, h, factors=[1.0]):  # noqa: B006
            return torch.tanh(z.a) * factors[0]

    return Reads, lambda cell: Reads.step.__defaults__[0].__setitem__(0, 0.5)


def in_a_context():
    slope = contextvars.ContextVar("slope", default=1.0)

    class Reads(Cell):
        gates = Affine("a")

        def step(self, z, h):
            return torch.tanh(z.a) * slope.get()

    return Reads, lambda cell: slope.set(0.5)


def in_an_object_of_a_local_class():
    class Local:
        slope = 1.0

    held = Local()

    class Reads(Cell):
        gates = Affine("a")

        def step(self, z, h):
            return torch.tanh(z.a) * held.slope

    return Reads, lambda cell: setattr(held, "slope", 0.5)


def in_the_class_of_an_object():
    class Reads(Cell):
        gates = Affine("a")

        def __init__(self, *sizes, **options):
            super().__init__(*sizes, **options)
            self.held = [Config()]

        def step(self, z, h):
            return torch.tanh(z.a) * self.held[0].slope

    return Reads, lambda cell: setattr(Config, "slope", 0.5)


def in_a_deque():
    class Reads(Cell):
        gates = Affine("a")

        def __init__(self, *sizes, **options):
            super().__init__(*sizes, **options)
            self.slopes = collections.deque([1.0])

        def step(self, z, h):
            return torch.tanh(z.a) * self.slopes[0]

    return Reads, lambda cell: cell.slopes.__setitem__(0, 0.5)


def in_a_large_array():
    class Reads(Cell):
        gates = Affine("a")

        def __init__(self, *sizes, **options):
            super().__init__(*sizes, **options)
            self.slopes = np.ones(5000)

        def step(self, z, h):
            return torch.tanh(z.a) * float(self.slopes[0])

    return Reads, lambda cell: cell.slopes.fill(0.5)


def in_the_method_of_a_module():
    class Reads(Cell):
        gates = Affine("a")

        def __init__(self, *sizes, **options):
            super().__init__(*sizes, **options)
            self.scaled = Scaled()

        def step(self, z, h):
            return torch.tanh(self.scaled(z.a))

    def change(cell):
        global SLOPE
        SLOPE = 0.5

    return Reads, change


def in_the_class_of_a_module():
    return in_the_method_of_a_module()[0], lambda cell: setattr(Scaled, "gain", 0.5)


FAR = [
    of_another_class, in_a_class_method_of_another_class, in_a_gradient_of_its_own,
    in_a_private_slot, in_a_default, in_a_context, in_an_object_of_a_local_class,
    in_the_class_of_an_object, in_a_deque, in_a_large_array, in_the_method_of_a_module,
    in_the_class_of_a_module,
]  # fmt: skip


@pytest.mark.parametrize("make", FAR)
def test_what_a_step_reads_elsewhere_takes_effect(make, results):
    """Outputs and gradients: a surrogate's slope is in no output."""
    global SLOPE
    torch.manual_seed(0)
    kind, change = make()
    cell = kind(3, 4, dtype=F64)
    rnn, x = elman.Recurrent(cell), torch.randn(2, 2, 3, dtype=F64)

    def gradients():
        y, _ = rnn(x)
        found = torch.autograd.grad(y.sum(), rnn.parameters())
        with elman.engine("reference"):
            expected = torch.autograd.grad(rnn(x)[0].sum(), rnn.parameters())
        torch.testing.assert_close(found, expected, atol=1e-10, rtol=1e-10)
        return found[0]

    assert rnn.engine == "native"
    before = results(rnn, x), gradients()
    try:
        change(rnn._cells[0])
        after = results(rnn, x), gradients()
        assert rnn.engine == "native"
        assert not all(map(torch.allclose, before, after))
    finally:
        SLOPE, Config.slope, Scaled.gain = 1.0, 1.0, 1.0


def test_an_object_that_shows_nothing_of_itself_costs_nothing():
    """A logger is tied to all loggers, and to what they write to."""
    log = logging.getLogger("elman.tests")

    class Logs(Cell):
        gates = Affine("a")

        def step(self, z, h):
            log.debug("a step")
            return torch.tanh(z.a)

    reading = options.Reading(Logs(3, 4), Cell)
    assert not any(name == "log" for _, name, _ in reading._deep)
    assert reading.key is None


SCALE = 1.0


class ReadsAGlobal(Cell):
    net = Affine()
    slope = 1.0

    def step(self, z, h):
        return torch.tanh(z + h) * SCALE * self.slope


@pytest.mark.filterwarnings("ignore")  # of PyTorch's compiler, about itself
@pytest.mark.parametrize("what", ["global", "class"])
def test_compiled_code_tells_what_has_changed_unseen(what, monkeypatch):
    class Reads(ReadsAGlobal):
        pass

    rnn, x = elman.Recurrent(Reads(3, 4)), torch.randn(4, 2, 3)
    compiled = torch.compile(rnn, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x)[0], rnn(x)[0])
    if what == "global":
        monkeypatch.setitem(globals(), "SCALE", 5.0)
    else:
        Reads.slope = 5.0
    with pytest.raises(elman.InputError, match=r"has changed since torch\.compile"):
        compiled(x)
    torch.compiler.reset()
    torch.testing.assert_close(compiled(x)[0], rnn(x)[0])
