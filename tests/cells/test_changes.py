"""Options that change after a cell was made: they take effect everywhere, or say why not."""

from __future__ import annotations

import collections
import contextvars
import copy
import dataclasses
import gc
import logging
import pickle
import weakref

import numpy as np
import pytest
import torch
from torch import nn

import elman
from elman import cells
from elman.cells import Affine, Cell, Constant, Linear, options
from elman.compiler import operator
from elman.layers import streams
from elman.learning import RTRL

SLOPE = 1.0
F64 = torch.float64


def helper(z):
    return z * SLOPE


@dataclasses.dataclass
class Settings:
    slope: float = 1.0


class Sloped(Cell):
    """Reads an option of every kind."""

    gates = Affine("a")
    of_class = 1.0
    listed = [1.0]  # noqa: RUF012

    def __init__(self, input_size, hidden_size, slope=1.0, **options):
        super().__init__(input_size, hidden_size, **options)
        self.slope, self.coefficients, self.named = slope, [1.0, 2.0], {"a": [1.0]}
        self.settings, self.array = Settings(), np.ones(2)
        self.leak = nn.LeakyReLU(0.5)
        self.function = lambda z: z * slope

    def step(self, z, h):
        factor = self.coefficients[0] * self.named["a"][0] * self.settings.slope
        factor = factor * self.slope * float(self.array[0]) * self.of_class * self.listed[0]
        return torch.tanh(self.leak(helper(self.function(z.a))) * factor)


def results(rnn, x):
    """What forward and step give, on the engine that usually runs the cell; checked."""
    y, _ = rnn(x)
    state = rnn.initial_state(x.shape[1])
    with torch.no_grad():
        one, _ = rnn.step(x[0], state)
        assert streams.of(rnn) is not None
    with elman.engine("reference"):
        expected, _ = rnn(x)
    torch.testing.assert_close(y, expected, atol=1e-10, rtol=1e-10)
    torch.testing.assert_close(one, expected[0], atol=1e-10, rtol=1e-10)
    return expected


def networks(layers=1):
    torch.manual_seed(0)
    cell = Sloped(3, 4, dtype=F64)
    return cell, elman.Recurrent(cell, layers), torch.randn(2, 2, 3, dtype=F64)


def set_on_the_cell(cell, rnn):
    cell.slope = 0.5


def set_on_one_of_the_networks(cell, rnn):
    rnn.cells[0].slope = 0.5


def set_within_a_list(cell, rnn):
    cell.coefficients[0] = 0.5


def set_within_a_nested_list(cell, rnn):
    rnn.cells[0].named["a"][0] = 0.5


def set_within_an_object(cell, rnn):
    cell.settings.slope = 0.5


def set_within_an_array(cell, rnn):
    cell.array[0] = 0.5


def set_within_a_module(cell, rnn):
    cell.leak.negative_slope = 0.25


def replaced_module(cell, rnn):
    cell.leak = nn.LeakyReLU(0.25)


def replaced_function(cell, rnn):
    cell.function = lambda z: z * 0.5


def set_on_the_class(cell, rnn):
    Sloped.of_class = 0.5


def set_within_the_class(cell, rnn):
    Sloped.listed[0] = 0.5


def hidden_by_an_instance(cell, rnn):
    cell.of_class = 0.5


def set_globally(cell, rnn):
    global SLOPE
    SLOPE = 0.5


CHANGES = [
    set_on_the_cell, set_on_one_of_the_networks, set_within_a_list, set_within_a_nested_list,
    set_within_an_object, set_within_an_array, set_within_a_module, replaced_module,
    replaced_function, set_on_the_class, set_within_the_class, hidden_by_an_instance, set_globally,
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_an_option_that_changes_takes_effect(change):
    global SLOPE
    cell, rnn, x = networks()
    assert rnn.engine == "native"
    before = results(rnn, x)
    try:
        change(cell, rnn)
        after = results(rnn, x)
        assert not torch.allclose(before, after)
    finally:
        SLOPE, Sloped.of_class = 1.0, 1.0
        Sloped.listed[0] = 1.0


def test_an_option_is_set_in_every_layer_or_in_one():
    cell, rnn, x = networks(2)
    results(rnn, x)
    cell.slope = 0.5
    assert [c.slope for c in rnn.cells] == [0.5, 0.5]
    results(rnn, x)
    rnn.cells[1].slope = 0.25
    assert [c.slope for c in rnn.cells] == [0.5, 0.25]
    assert cell.slope == 0.5
    results(rnn, x)
    del cell.named
    assert not any(hasattr(c, "named") for c in rnn.cells)


def test_deeper_layers_are_made_like_the_cell_as_it_is():
    torch.manual_seed(0)
    cell = Sloped(3, 4, dtype=F64)
    cell.slope, cell.coefficients[1], cell.leak.negative_slope = 0.25, 7.0, 0.125
    _, deeper = elman.Recurrent(cell, 2).cells
    assert (deeper.slope, deeper.coefficients, deeper.leak.negative_slope) == (
        0.25, [1.0, 7.0], 0.125,
    )  # fmt: skip
    deeper.coefficients[1] = 8.0
    assert cell.coefficients[1] == 7.0


def test_that_layers_are_made_like_the_cell_draws_no_numbers():
    torch.manual_seed(0)
    elman.LSTM(3, 4, 3)
    after = torch.rand(1)
    torch.manual_seed(0)
    for width in (3, 4, 4):
        elman.LSTM(width, 4)
    assert torch.equal(after, torch.rand(1))


def test_minus_zero_and_types_are_told_apart():
    class Divides(Cell):
        gates = Affine("a")
        zero = 0.0

        def step(self, z, h):
            return torch.atan(1 / (h * 0 + self.zero)) + z.a * 0

    cell = Divides(3, 4, dtype=F64)
    rnn, x = elman.Recurrent(cell), torch.ones(1, 1, 3, dtype=F64)
    assert bool((rnn(x)[0] > 0).all())
    cell.zero = -0.0
    with elman.engine("reference"):
        expected = rnn(x)[0]
    torch.testing.assert_close(rnn(x)[0], expected)


@pytest.mark.parametrize("transform", [cells.zoneout, cells.recurrent_dropout, cells.layer_norm])
def test_a_transformed_cell_follows_the_one_that_it_is_made_from(transform):
    torch.manual_seed(0)
    cell = Sloped(3, 4, dtype=F64)
    rnn, x = elman.Recurrent(transform(cell)).eval(), torch.randn(2, 2, 3, dtype=F64)
    before = results(rnn, x)
    cell.slope = 0.25
    assert not torch.allclose(results(rnn, x), before)


def test_copies_are_apart():
    _, rnn, x = networks()
    before = results(rnn, x)
    for other in (copy.deepcopy(rnn), copy.copy(rnn._cells[0]), rnn._cells[0].bind({})):
        if isinstance(other, elman.Recurrent):
            other.cells[0].slope = 0.25
            assert not torch.allclose(results(other, x), before)
        else:
            other.slope = 0.125
        assert torch.equal(results(rnn, x), before)


def test_copies_of_noisy_networks_follow_their_own_cells():
    torch.manual_seed(0)
    rnn = elman.Recurrent(cells.zoneout(cells.Elman(3, 4, nonlinearity="relu", dtype=F64))).eval()
    x = torch.randn(2, 2, 3, dtype=F64)
    for other in (rnn, copy.deepcopy(rnn), pickle.loads(pickle.dumps(rnn))):
        before = results(other, x)
        other.cells[0].nonlinearity = "tanh"
        assert not torch.allclose(results(other, x), before)


class Depth(Cell):
    state = ("h",)
    depth = 2
    maps_of_h = Linear(of="h", repeat="depth")

    def step(self, x, h):
        for inner in self.maps_of_h:
            h = torch.tanh(inner(h))
        return h


class Masked(Cell):
    gates = Affine("a")

    def __init__(self, input_size, hidden_size, scale=2.0, slope=1.0):
        self.scale = scale
        super().__init__(input_size, hidden_size)
        self.slope = slope

    @Constant
    def fixed(self):
        return torch.rand(self.hidden_size) * self.scale

    def step(self, z, h):
        return torch.tanh(z.a * self.fixed * self.slope)


@pytest.mark.parametrize(
    ("cell", "name", "value"),
    [
        (cells.LSTM(3, 4), "hidden_size", 5),
        (cells.LSTM(3, 4), "biases", 2),
        (Depth(3, 4), "depth", 3),
        (Masked(3, 4), "scale", 3.0),
        (cells.Clockwork(3, 8), "periods", (1, 3)),
    ],
)
@pytest.mark.parametrize("in_a_network", [False, True])
def test_what_weights_and_constants_were_made_by_is_refused(cell, name, value, in_a_network):
    rnn = elman.Recurrent(cell) if in_a_network else None
    before = getattr(cell, name)
    with pytest.raises(elman.InputError, match=f"{name} decides .* make a new one"):
        setattr(cell, name, value)
    assert getattr(cell, name) == before
    setattr(cell, name, before)
    if rnn is not None:
        with pytest.raises(elman.InputError, match=f"{name} decides"):
            setattr(rnn.cells[0], name, value)
        assert getattr(rnn.cells[0], name) == before


def test_a_random_constant_is_no_hindrance_to_other_options():
    cell = Masked(3, 4)
    rnn = elman.Recurrent(cell)
    before = cell.fixed.clone()
    cell.slope = 2.0
    assert torch.equal(cell.fixed, before) and rnn.cells[0].slope == 2.0


def test_a_networks_weights_are_its_own():
    cell = cells.LSTM(3, 4)
    rnn = elman.Recurrent(cell)
    for owner in (cell, rnn.cells[0]):
        with pytest.raises(elman.InputError, match="weight_ih belongs to a network"):
            owner.weight_ih = nn.Parameter(torch.zeros(16, 3))
    del rnn
    gc.collect()
    cell.weight_ih = nn.Parameter(torch.zeros(16, 3))


def test_how_a_network_was_made_is_fixed():
    rnn = elman.RNN(3, 4, 2)
    for name, value in {
        "hidden_size": 5, "num_layers": 3, "skip": "residual", "bidirectional": True,
        "learn_initial_state": True, "nonlinearity": "relu", "bias": False,
    }.items():  # fmt: skip
        with pytest.raises(elman.InputError, match=f"{name} is decided when a network is made"):
            setattr(rnn, name, value)
        setattr(rnn, name, getattr(rnn, name))
    rnn.dropout, rnn.batch_first = 0.5, True
    assert rnn(torch.zeros(1, 2, 3))[0].shape == (1, 2, 4)


# -- the mode -----------------------------------------------------------------------------------


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
def test_the_mode_of_a_step_is_the_networks(kind, on, off):
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
    count = len(operator.COMPILED)
    rnn.eval()(x)
    assert len(operator.COMPILED) == count


# -- what is left behind ------------------------------------------------------------------------


class Iterates(Moody):
    def __init__(self, *sizes, **options):
        super().__init__(*sizes, **options)
        self.unkeyable = iter([1.0])


def test_cells_with_lists_share_their_kernels():
    x = torch.zeros(1, 1, 3)
    networks = [elman.Recurrent(Sloped(3, 4))]
    networks[0](x)
    count = len(operator.COMPILED)
    for _ in range(3):
        networks.append(elman.Recurrent(Sloped(3, 4)))
        networks[-1](x)
    assert len(operator.COMPILED) == count


@pytest.mark.parametrize("local", [False, True])
def test_networks_that_are_gone_leave_nothing_behind(local):
    class Local(Moody):
        pass

    kind = Local if local else Iterates
    gc.collect()
    count = len(operator.COMPILED)
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
    assert len(operator.COMPILED) == count
    assert (made() is None) is local


def test_kernels_of_many_options_are_not_kept_for_good():
    gc.collect()
    count = len(operator.COMPILED)

    class Many(Moody):
        slope = 1.0

    for slope in range(70):
        cell = Many(3, 1)
        cell.slope = float(slope)
        elman.Recurrent(cell).engine  # noqa: B018
    gc.collect()
    assert len(operator.COMPILED) - count <= 64


def test_compiled_code_follows_options_and_mode():
    cell, rnn, x = networks()
    compiled = torch.compile(rnn, fullgraph=True, backend="eager")

    def check():
        torch.testing.assert_close(compiled(x)[0], results(rnn, x))

    check()
    rnn.eval()
    check()
    cell.slope = 0.5
    check()
    cell.coefficients[0] = 0.25
    check()


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


# -- what a step reads far from its cell ------------------------------------------------------


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
def test_what_a_step_reads_elsewhere_takes_effect(make):
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
