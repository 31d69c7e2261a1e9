"""What the engine, which reads memory as it is told to, must not be fooled by."""

from __future__ import annotations

import contextlib
import gc
import threading
from dataclasses import replace

import pytest
import torch
from torch import nn, tanh

import elman
from elman import Cell, Linear, cells
from elman.compiler import targets
from elman.compiler.compiled import Compiled
from elman.compiler.cpu import build, kernels
from elman.compiler.cpu.products import product
from elman.compiler.cpu.target import CPU
from elman.engines import native

pytestmark = pytest.mark.filterwarnings("ignore::elman.EngineWarning")


@pytest.fixture
def network():
    torch.manual_seed(0)
    return elman.Recurrent(cells.LSTM(4, 5), 2)


@pytest.fixture
def x():
    torch.manual_seed(1)
    return torch.randn(6, 3, 4)


class Own(Cell):
    """A cell whose step is given, as a function of this cell, x and h."""

    g = Linear(of="x", bias=True)
    u = Linear(of="h")

    def __init__(self, input_size, hidden_size, k=1.0):
        self._k = k
        super().__init__(input_size, hidden_size)

    def step(self, x, h):
        return tanh(self._k * self.g(x) + self.u(h))


def agrees(cell, x):
    rnn = elman.Recurrent(cell)
    with elman.engine("reference"):
        expected = rnn(x)[0]
    torch.testing.assert_close(rnn(x)[0], expected, atol=1e-5, rtol=1e-4)


def test_private_options_make_another_kernel(x):
    for k in (1.0, 3.0):
        agrees(Own(4, 5, k), x)


class Times97(Own):
    def step(self, x, h):
        return tanh(self.g(x * 97 / 100) + self.u(h))


class Sliced(Own):
    def step(self, x, h):
        return tanh(self.g(torch.cat([x[..., :97], x[..., 97:] * 2], -1)) + self.u(h))


class AcrossRows(Own):
    def step(self, x, h):
        return tanh(self.g(x - x.mean(0)) + self.u(h))


@pytest.mark.parametrize("kind, width", [(Times97, 4), (Sliced, 120), (AcrossRows, 4)])
def test_sizes_and_numbers_are_told_apart(kind, width):
    torch.manual_seed(0)
    agrees(kind(width, 5), torch.randn(6, 3, width))


def test_what_mixes_rows_is_left_to_the_reference_engine():
    assert not native.knows(AcrossRows(4, 5))


@pytest.mark.filterwarnings("ignore")  # of tracing, about itself
def test_jit_trace_records_what_runs(network, x):
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    other = torch.randn(6, 3, 4)
    with torch.no_grad():
        traced = torch.jit.trace(network, (x,))
        torch.testing.assert_close(traced(other)[0], network(other)[0])


def test_tensors_elsewhere_or_of_another_type_are_refused(network, x):
    with pytest.raises((elman.InputError, RuntimeError)):
        network.to("meta")(x)


def test_weights_of_two_types_are_refused(network, x):
    network.bias_ih_l0.data = network.bias_ih_l0.data.double()
    with pytest.raises(elman.InputError, match=r"bias_ih is torch\.float64"):
        network(x)


def test_streams_in_several_threads(network):
    x = torch.randn(4, 50, 1, 4)

    def stream(k):
        state = network.initial_state(1)
        with torch.no_grad():
            for x_t in x[k]:
                y, state = network.step(x_t, state)
        return y

    expected = [stream(k) for k in range(4)]
    found = [None] * 4

    def work(k):
        for _ in range(5):
            found[k] = stream(k)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(map(torch.equal, found, expected))


def test_functional_transforms_take_the_reference_engine(network, x):
    with elman.engine("reference"):
        expected = torch.autograd.functional.jacobian(lambda x: network(x)[0].sum((0, 1)), x)
    found = torch.autograd.functional.jacobian(
        lambda x: network(x)[0].sum((0, 1)), x, vectorize=True
    )
    torch.testing.assert_close(found, expected)
    gradient = torch.func.grad(lambda x: network(x)[0].sum())(x)
    torch.testing.assert_close(gradient, expected.sum(0))


def test_forward_mode_keeps_its_tangent(network, x):
    tangent = torch.randn_like(x)
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    _, found = torch.func.jvp(lambda x: network(x)[0], (x,), (tangent,))
    with elman.engine("reference"):
        _, expected = torch.func.jvp(lambda x: network(x)[0], (x,), (tangent,))
    torch.testing.assert_close(found, expected)


def test_a_reused_buffer_of_resets_is_noticed(network, x):
    resets = torch.zeros(6, 3, dtype=torch.bool)
    resets[2] = True
    y, _ = network(x.requires_grad_(), resets=resets)
    resets.zero_()
    with pytest.raises(RuntimeError, match="inplace"):
        y.sum().backward()


def test_a_network_made_in_inference_mode_streams():
    with torch.inference_mode():
        network = elman.Recurrent(cells.GRU(4, 5))
        x = torch.randn(3, 2, 4)
        expected, _ = network(x)
        state = network.initial_state(2)
        for t in range(3):
            y, state = network.step(x[t], state)
    torch.testing.assert_close(y, expected[-1])


def test_a_stream_sees_weights_that_were_put_elsewhere(network):
    x, state = torch.randn(2, 4), network.initial_state(2)
    with torch.no_grad():
        network.step(x, state)
        numbers = nn.utils.parameters_to_vector(network.parameters())
        nn.utils.vector_to_parameters(numbers * 2, network.parameters())
        y, _ = network.step(x, state)
        expected, _ = network(x.unsqueeze(0))
    torch.testing.assert_close(y, expected[0])


@pytest.mark.parametrize("cell", [cells.LSTM, cells.GRU])
def test_frozen_weights_cost_no_product(cell):
    network, x = elman.Recurrent(cell(5, 7), layers=2), torch.randn(6, 3, 5)
    products = []

    def counted(*args, **options):
        products.append(args)
        return product(*args, **options)

    counting = replace(CPU, product=counted)

    def gradients():
        network.zero_grad()
        with targets.replaced("cpu", counting):
            y, _ = network(x)
            products.clear()
            y.square().sum().backward()
        return {name: p.grad for name, p in network.named_parameters()}, len(products)

    every, most = gradients()
    network.weight_hh_l1.requires_grad_(False)
    some, fewer = gradients()
    assert some.pop("weight_hh_l1") is None
    assert fewer < most
    for name, gradient in some.items():
        assert torch.equal(gradient, every[name])


class Squashed(Cell):
    """A map of x that another function of x reads, too; the loop may not write over it."""

    z = Linear(of="x", bias=True)
    u = Linear(of="h")

    def step(self, x, h):
        z = self.z(x)
        return torch.sigmoid(z + self.u(h)) * tanh(z.exp() - z)


def test_what_is_saved_takes_the_place_of_maps_that_only_the_loop_reads():
    def places(cell):
        elman.Recurrent(cell)(torch.randn(3, 2, 4))
        compiled = native.compiled(cell)
        return len(compiled.places), len(compiled.plan.saved)

    assert places(cells.LSTM(4, 5)) == (4, 4)
    assert places(cells.GRU(4, 5)) == (3, 4)
    assert places(Squashed(4, 5))[0] == 0


@pytest.mark.parametrize("cell", [cells.LSTM, cells.GRUResetBefore, Squashed])
def test_a_second_backward_gives_the_same(cell):
    network = elman.Recurrent(cell(4, 5), layers=2, bidirectional=True).double()
    x = torch.randn(6, 3, 4, dtype=torch.float64, requires_grad=True)
    wanted = [x, *network.parameters()]

    def gradients(y):
        return torch.autograd.grad(y.square().sum(), wanted, retain_graph=True)

    y = network(x)[0]
    first, second = gradients(y), gradients(y)
    with elman.engine("reference"):
        expected = gradients(network(x)[0])
    for a, b, c in zip(first, second, expected, strict=True):
        assert torch.equal(a, b)
        torch.testing.assert_close(a, c, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("cell", [cells.LSTM, cells.GRUResetBefore, cells.LRU])
def test_a_step_leaves_nothing_to_the_garbage_collector(cell):
    # What is only reachable from itself keeps its tensors until the collector comes by.
    network, x = elman.Recurrent(cell(4, 5)), torch.randn(6, 3, 4)

    def work():
        network(x)[0].sum().backward()
        network.zero_grad()
        with torch.no_grad():
            state = network(x)[1]
            for _ in range(3):
                _, state = network.step(x[0], state)

    work()  # compiles
    gc.collect()
    gc.disable()
    try:
        work()
        assert gc.collect() == 0
    finally:
        gc.enable()


class Late(Cell):
    """A second stage reads the map of x again, after the first has made something of it."""

    z = Linear(of="x", bias=True)
    u = Linear(of="h")
    v = Linear(of="h")

    def step(self, x, h):
        z = self.z(x)
        q = torch.sigmoid(z + self.u(h))
        return tanh(self.v(q * h) + z)


def against_reference(network, x, context=None):
    wanted = [x, *network.parameters()]

    def gradients():
        with context or contextlib.nullcontext():
            y = network(x)[0]
        return torch.autograd.grad(y.square().sum(), wanted)

    received = gradients()
    with elman.engine("reference"):
        context = None
        expected = gradients()
    for a, b in zip(received, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_a_map_that_is_read_again_later_is_not_written_over():
    x = torch.randn(6, 3, 4, dtype=torch.float64, requires_grad=True)
    against_reference(elman.Recurrent(Late(4, 5)).double(), x)


@pytest.mark.parametrize("cell", [cells.LSTM, cells.GRUResetBefore])
def test_saved_tensors_may_come_back_laid_out_otherwise(cell):
    x = torch.randn(6, 3, 4, dtype=torch.float64, requires_grad=True)

    def turned(t):
        return t.mT.contiguous().mT if t.dim() > 1 else t

    hooks = torch.autograd.graph.saved_tensors_hooks(turned, turned)
    against_reference(elman.Recurrent(cell(4, 5), 2).double(), x, hooks)


def first_call(how):
    """Which engine runs a cell whose first call is surrounded by something."""
    network, x = elman.Recurrent(cells.GRUResetBefore(4, 5)), torch.randn(3, 2, 4)
    if how == "checkpoint":
        torch.utils.checkpoint.checkpoint(network, x, use_reentrant=False)[0].sum().backward()
    elif how == "autocast":
        with torch.autocast("cpu", dtype=torch.bfloat16):
            network(x)
    else:
        torch.set_default_dtype(torch.float64)
        network.float()(x)
    return network.engine


@pytest.mark.parametrize("how", ["checkpoint", "autocast", "default type"])
def test_what_surrounds_the_first_call_decides_nothing(how, monkeypatch):
    monkeypatch.setattr(native, "_known", {})
    before = torch.get_default_dtype()
    try:
        assert first_call(how) == "native"
    finally:
        torch.set_default_dtype(before)


def test_a_stream_that_was_interrupted_while_it_prepared_goes_on(network, x, monkeypatch):
    with torch.no_grad():
        _, state = network(x)
        expected = network.step(x[0], state)[0]
        with monkeypatch.context() as broken:
            broken.setattr(kernels.Kernel, "described", interrupted)
            with pytest.raises(KeyboardInterrupt):  # of another batch, which is prepared anew
                network.step(x[0, :2], tuple(s[:, :2] for s in state))
        assert torch.equal(network.step(x[0], state)[0], expected)


def interrupted(*_, **__):
    raise KeyboardInterrupt


def test_steps_are_taken_where_nothing_can_be_built(x, monkeypatch):
    network = elman.Recurrent(Own(4, 5, k=3.5))
    with torch.no_grad():
        _, state = network(x)
        expected = network.step(x[0], state)[0]

        def unable(*_):
            raise build.BuildError("no compiler")

        monkeypatch.setattr(Compiled, "build", unable)
        other = elman.Recurrent(Own(4, 5, k=3.5))
        other.load_state_dict(network.state_dict())
        torch.testing.assert_close(other.step(x[0], state)[0], expected)
