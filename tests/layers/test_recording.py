"""Networks in programs that PyTorch records: right for other lengths and batches, or refused."""

from __future__ import annotations

import io
import warnings

import pytest
import torch
from torch import nn, tanh

import elman
from elman import Affine, Cell, cells

pytestmark = [
    # Of torch.jit, about its age; and of PyTorch's LSTM with projections.
    pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


class Falling(Cell):
    """A cell that nothing but the reference engine runs."""

    net = Affine()

    def step(self, z, h):
        return tanh(z) * torch.where(torch.cumsum(h, -1) >= 0, 1.0, 0.5)


class Parent(nn.Module):
    """A network among other layers; ``names`` are those of its arguments after x."""

    def __init__(self, rnn, *names):
        super().__init__()
        self.rnn, self.names = rnn, names

    def forward(self, x, *rest):
        y, state = self.rnn(x, **dict(zip(self.names, rest, strict=True)))
        return y * 1.0, state


CELLS = {
    "LSTM": cells.LSTM, "GRU": cells.GRU, "QRNN": cells.QRNN, "MinGRU": cells.MinGRU,
}  # fmt: skip


def inputs(names, steps, batch, first=False):
    generator = torch.Generator().manual_seed(steps)
    shape = (batch, steps) if first else (steps, batch)
    given = {
        "lengths": torch.tensor([steps, 0, 2][:batch]),
        "resets": torch.rand(shape, generator=generator) < 0.5,
    }
    return torch.randn(*shape, 4, generator=generator), *(given[n] for n in names)


@pytest.mark.parametrize("names", [(), ("lengths",), ("resets",)], ids=str)
@pytest.mark.parametrize("name", CELLS)
def test_traces_take_every_length_and_batch(name, names, agree, gradients):
    options = {"bidirectional": True, "batch_first": True} if name != "GRU" else {}
    parent = Parent(elman.Recurrent(CELLS[name](4, 6), 2, **options), *names)
    first = bool(options)
    traced = torch.jit.trace(parent, inputs(names, 5, 2, first))
    weights = list(parent.parameters())
    for steps, batch in ((5, 2), (9, 3), (2, 1)):
        given = inputs(names, steps, batch, first)
        received, expected = traced(*given), parent(*given)
        agree(received, expected, 1e-6)
        agree(gradients(received[0], weights), gradients(expected[0], weights), 1e-5)


@pytest.mark.parametrize("names", [(), ("lengths",)], ids=str)
def test_traces_of_pytorchs_kernels_take_every_length(names, agree):
    with elman.engine("torch"):
        parent = Parent(elman.LSTM(4, 6, 2, bidirectional=True), *names)
        traced = torch.jit.trace(parent, inputs(names, 5, 2))
        for steps, batch in ((5, 2), (9, 3)):
            given = inputs(names, steps, batch)
            agree(traced(*given), parent(*given), 1e-6)
    assert "elman::" not in str(traced.inlined_graph)


@pytest.mark.filterwarnings("ignore::elman.EngineWarning")
@pytest.mark.parametrize("cell", [cells.LSTM, Falling])
def test_traces_of_the_loop_in_python_refuse_other_lengths(cell, agree):
    """They hold its steps one by one: a longer sequence would be cut to the traced length."""
    with elman.engine("reference" if cell is cells.LSTM else "auto"):
        parent = Parent(elman.Recurrent(cell(4, 6)))
        traced = torch.jit.trace(parent, inputs((), 5, 2))
        for steps in (4, 9):
            with pytest.raises(RuntimeError, match="sequences of 5 steps and takes no others"):
                traced(*inputs((), steps, 2))
        given = inputs((), 5, 3)
        agree(traced(*given), parent(*given), 1e-6)


def test_traces_check_lengths():
    parent = Parent(elman.GRU(4, 6), "lengths")
    traced = torch.jit.trace(parent, inputs(("lengths",), 5, 2))
    with pytest.raises(RuntimeError, match="lengths must lie between 0 and the number of steps"):
        traced(torch.randn(5, 2, 4), torch.tensor([6, 1]))


def test_traces_without_gradient_have_one_when_they_run(agree, gradients):
    parent, given = Parent(elman.GRU(4, 6)), inputs((), 5, 2)
    with torch.no_grad():
        traced = torch.jit.trace(parent, given)
    weights = list(parent.parameters())
    agree(gradients(traced(*given)[0], weights), gradients(parent(*given)[0], weights), 1e-5)


def test_a_first_call_that_is_traced_leaves_the_engine_as_it_was():
    """The cell was compiled while it was traced, and fell back for good."""

    class Fresh(Cell):
        net = Affine()

        def step(self, z, h):
            return tanh(z) + 0.25 * h

    rnn = elman.Recurrent(Fresh(4, 6))
    torch.jit.trace(Parent(rnn), inputs((), 5, 2))
    with elman.engine("native"):
        rnn(torch.randn(3, 2, 4))


def test_traces_of_steps(agree):
    """The fast path writes into memory that no tracer sees."""

    class Step(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = elman.LSTM(4, 6, 2)

        def forward(self, x, h, c):
            return self.rnn.step(x, (h, c))

    with torch.no_grad():
        step, states = Step(), elman.LSTM(4, 6, 2).initial_state(2)
        traced = torch.jit.trace(step, (torch.randn(2, 4), *states))
        x, states = torch.randn(3, 4), [torch.randn(2, 3, 6) for _ in range(2)]
        agree(traced(x, *states), step(x, *states), 1e-6)


def test_no_time_at_all_in_a_trace(agree):
    parent = Parent(elman.GRU(4, 6))
    traced = torch.jit.trace(parent, inputs((), 5, 2))
    y, state = traced(torch.randn(0, 2, 4))
    assert y.shape == (0, 2, 6)
    assert not state.any()


def test_symbolic_tracing_keeps_a_network_as_one_node(agree):
    parent = Whole(elman.LSTM(4, 6))
    graph = torch.fx.symbolic_trace(parent)
    assert [n.target for n in graph.graph.nodes if n.op == "call_module"] == ["rnn"]
    for steps in (5, 9):
        x = torch.randn(steps, 2, 4)
        agree(graph(x), parent(x), 0.0)
    with pytest.raises(elman.InputError, match="trace the module that holds it"):
        torch.fx.symbolic_trace(parent.rnn)


class Whole(nn.Module):
    """As ``torch.fx`` can trace it: without a variable number of arguments."""

    def __init__(self, rnn):
        super().__init__()
        self.rnn = rnn

    def forward(self, x):
        return self.rnn(x)[0]


@pytest.mark.parametrize("make", [lambda: elman.LSTM(4, 6), lambda: elman.Recurrent(Falling(4, 6))])
def test_scripts_are_refused_in_a_sentence(make):
    parent = Whole(make())
    with pytest.raises(elman.InputError, match=r"torch.jit.script.*torch.jit.trace\.$"):
        torch.jit.script(parent)
    assert isinstance(parent.rnn, elman.Recurrent)  # it would be replaced by what is scripted


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("cell", [cells.LSTM, cells.QRNN])
def test_compiled_and_exported_with_lengths(cell, agree):
    rnn = elman.Recurrent(cell(4, 6), bidirectional=True)
    x, lengths = torch.randn(5, 3, 4), torch.tensor([5, 0, 3])
    compiled = torch.compile(rnn, fullgraph=True, backend="aot_eager")
    agree(compiled(x, lengths=lengths), rnn(x, lengths=lengths), 1e-6)
    program = torch.export.export(rnn, (x,), {"lengths": lengths}).module()
    for other in ([1, 4, 2], [5, 5, 0]):
        lengths = torch.tensor(other)
        agree(program(x, lengths=lengths), rnn(x, lengths=lengths), 1e-6)
    with pytest.raises(RuntimeError, match="lengths must lie between 0 and the number of steps"):
        program(x, lengths=torch.tensor([6, 1, 1]))


@pytest.mark.filterwarnings("ignore")
def test_a_cell_that_falls_back_is_compiled_on_its_first_run(agree):
    rnn, x = elman.Recurrent(Falling(4, 5)), torch.randn(3, 2, 4)
    received = torch.compile(rnn, fullgraph=True, backend="aot_eager")(x)
    agree(received, rnn(x), 1e-6)


def test_onnx_gets_pytorchs_operators(monkeypatch):
    """The exporter that traces: an operator of ONNX where there is one, which takes any length."""
    proto = pytest.importorskip("torch.onnx._internal.torchscript_exporter.onnx_proto_utils")
    monkeypatch.setattr(proto, "_add_onnxscript_fn", lambda model, *_: model)  # it needs onnx
    for make, operator in ((elman.LSTM, b"LSTM"), (elman.GRU, b"GRU")):
        file = io.BytesIO()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                make(4, 6).eval(), (torch.randn(5, 2, 4),), file, dynamo=False,
                input_names=["x"], dynamic_axes={"x": {0: "T"}},
            )  # fmt: skip
        assert operator in file.getvalue()
        assert b"elman" not in file.getvalue()
