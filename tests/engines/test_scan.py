"""The scan engine: cells whose memory is a linear recurrence, all their steps at once."""

import copy
import warnings

import pytest
import torch

import elman
from elman import Linear, cells
from elman.cells import LinearRecurrence
from elman.compiler import recurrence
from elman.compiler.cpu import build
from elman.compiler.cpu import scan as kernel
from elman.engines import reference, scan
from elman.engines.call import Call

F64 = {"dtype": torch.float64}


@pytest.fixture(params=["kernel", "doubled"])
def way(request, monkeypatch):
    """Both ways of scanning: by the engine, and by PyTorch's operations."""
    if request.param == "doubled":
        monkeypatch.setattr(recurrence, "has_kernel", lambda c: False)
    return request.param


def test_a_long_sequence_is_its_steps(agree):
    """10,000 steps: the memory neither drifts nor depends on how they are taken."""
    for name in ("sru", "lru"):
        rnn = elman.Recurrent(cells.make(name, 2, 3, **F64))
        x = torch.randn(10_000, 1, 2, **F64)
        with torch.no_grad():
            y, last = rnn(x)
            first, middle = rnn(x[:4_321])
            second, state = rnn(x[4_321:], middle)
            agree(torch.cat([first, second]), y)
            agree(state, last)
            state = rnn.initial_state(1)
            for x_t in x[:500]:
                y_t, state = rnn.step(x_t, state)
            agree(y_t, y[499])


class Leaky(LinearRecurrence):
    """A user's own: h' = a ⊙ h + W x with a learned constant a."""

    state = ("h",)
    drive = Linear(of="x")
    decay = elman.Diagonal()

    def coefficients(self, x):
        return torch.sigmoid(self.decay), self.drive(x)


class Windowed(LinearRecurrence):
    """An output that reads a window of three inputs, the memory, and the present input."""

    state = ("h", "c", "past")
    drive = Linear(of="x")
    seen = Linear(of="past", bias=True)
    read = Linear(of="c")

    @property
    def state_sizes(self):
        return self.hidden_size, self.hidden_size, 3 * self.input_size

    def coefficients(self, x, past):
        return torch.sigmoid(self.seen(past)), self.drive(x)

    def output(self, c, x, past):
        return torch.tanh(self.read(c)) + self.seen(past)


@pytest.mark.parametrize("make", [Leaky, Windowed])
@pytest.mark.parametrize("reverse", [False, True])
def test_a_cell_of_ones_own_is_scanned(way, agree, gradients, make, reverse):
    cell = make(2, 5, **F64)
    assert elman.Recurrent(cell).engine == "scan"
    x = torch.randn(7, 4, 2, **F64, requires_grad=True)
    states = [
        tuple(torch.randn(4, size, **F64, requires_grad=True) for size in cell.state_sizes)
        for _ in range(2)
    ]
    lengths = torch.tensor([7, 0, 1, 4])
    resets = (torch.rand(7, 4) < 0.4) & (torch.arange(7).unsqueeze(1) < lengths)
    x.data[torch.arange(7).unsqueeze(1) >= lengths] = 0
    call = Call(x, *states, reverse, lengths, resets, True)
    weights = cell.state_dict(keep_vars=True)
    received, expected = (e.run(cell, weights, call) for e in (scan, reference))
    agree(received, expected)
    inputs = [x, *states[0], *states[1], *cell.parameters()]
    agree(gradients(received, inputs), gradients(expected, inputs))


def test_what_changes_the_step_is_not_scanned():
    """Zoneout mixes states, and an own step may do anything: a scan would give other numbers."""

    class Saturating(cells.MinGRU):
        def step(self, x, h):
            return torch.tanh(super().step(x, h))

    assert elman.Recurrent(cells.MinGRU(2, 3)).engine == "scan"
    for cell in (
        cells.zoneout(cells.MinGRU(2, 3), 0.1), Saturating(2, 3), cells.PeepholeSRU(2, 3),
        cells.LSTM(2, 3),
    ):  # fmt: skip
        rnn = elman.Recurrent(cell)
        assert rnn.engine != "scan"
        with elman.engine("scan"), pytest.raises(elman.InputError, match="no linear recurrence"):
            rnn(torch.randn(4, 1, 2))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            rnn(torch.randn(4, 1, 2))


def test_without_a_compiler_it_scans_by_pytorch_and_says_so(monkeypatch, agree):
    rnn, x = elman.Recurrent(cells.SRU(3, 4)), torch.randn(5, 2, 3)
    expected = rnn(x)

    def missing(real):
        raise build.BuildError("no C++ compiler was found")

    monkeypatch.setattr(kernel, "runtime", missing)
    monkeypatch.setattr(kernel, "_is_built", kernel.cache(kernel._is_built.__wrapped__))
    with pytest.warns(elman.EngineWarning, match=r"slower: no C\+\+ compiler") as caught:
        agree(rnn(x), expected, 1e-6)
        rnn(x)
    assert len(caught) == 1


def test_half_precision_is_scanned_by_pytorch():
    rnn = elman.Recurrent(cells.MinGRU(3, 4)).bfloat16()
    y, _ = rnn(torch.randn(6, 2, 3, dtype=torch.bfloat16))
    assert y.dtype == torch.bfloat16 and y.isfinite().all()


def test_autocast_computes_in_the_weights_type():
    rnn, x = elman.Recurrent(cells.QRNN(3, 4), 2), torch.randn(5, 2, 3)
    y, _ = rnn(x)
    with torch.autocast("cpu"):
        low, _ = rnn(x)
    assert low.dtype == torch.float32
    assert torch.equal(low, y)


@pytest.mark.filterwarnings("ignore")  # of PyTorch's compiler, about itself
@pytest.mark.parametrize("name", ["qrnn", "lru"])
def test_torch_compile_passes_through(name):
    rnn = elman.Recurrent(cells.make(name, 3, 4), 2)
    rnn(torch.randn(5, 2, 3))
    x = [torch.randn(5, 2, 3).requires_grad_()]
    x.append(x[0].detach().clone().requires_grad_())
    y = torch.compile(rnn, fullgraph=True, backend="aot_eager")(x[0])[0]
    expected = rnn(x[1])[0]
    torch.testing.assert_close(y, expected)
    for out in (y, expected):
        out.square().sum().backward()
    torch.testing.assert_close(x[0].grad, x[1].grad)


@pytest.mark.filterwarnings("ignore")
def test_torch_export_keeps_the_scan_in_one_operator():
    rnn, x = elman.Recurrent(cells.MinLSTM(3, 4), 2), torch.randn(5, 2, 3)
    exported = torch.export.export(rnn, (x,))
    assert sum("elman.scan" in str(node.target) for node in exported.graph.nodes) == 2
    torch.testing.assert_close(exported.module()(x)[0], rnn(x)[0])


def test_copies_run(agree):
    rnn, x = elman.Recurrent(cells.SRU(3, 4)), torch.randn(5, 2, 3)
    agree(copy.deepcopy(rnn)(x), rnn(x))


def test_what_a_cell_does_wrong_is_told():
    class Mixing(Leaky):
        def coefficients(self, x):
            return torch.sigmoid(self.decay), self.drive(x).sum(0)

    class Narrow(Leaky):
        def coefficients(self, x):
            return torch.sigmoid(self.decay), self.drive(x)[..., 1:]

    with pytest.raises(elman.InputError, match=r"Mixing\.coefficients .*every step by itself"):
        elman.Recurrent(Mixing(3, 4))(torch.randn(5, 1, 3))
    with pytest.raises(elman.InputError, match=r"Narrow\.step"):
        elman.Recurrent(Narrow(3, 4))(torch.randn(5, 2, 3))
    rnn = elman.Recurrent(Leaky(3, 4))
    with pytest.raises(elman.InputError, match="float64"):
        rnn(torch.randn(5, 2, 3, **F64))
