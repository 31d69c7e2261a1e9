"""Nothing that lies past a sequence's end, or before a reset, reaches a result or a gradient."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import exp, sigmoid, tanh

import elman
from elman import Affine, Cell, Diagonal, Linear, Recurrent
from elman.cells import GRU, LRU, LSTM, QRNN, LayerNormLSTM, LinearRecurrence, MinGRU
from elman.compiler.masks import filled
from elman.compiler.recurrence import Course, doubled
from elman.engines import native

BAD = (math.nan, math.inf, -math.inf)


class Mean(Cell):
    """Divides by a state that starts at 0."""

    state = ("h", "n")
    net = Affine()

    def step(self, z, h, n):
        n = n + exp(z)
        return tanh(z) / n, n


class Countdown(Cell):
    """Divides by what is 0 after its last step; its gradient goes through every kind of weight."""

    state = ("h", "n")
    net = Affine()
    own = Diagonal()
    out = Linear()

    def step(self, z, h, n):
        return self.out(tanh(z + self.own * h) / n) + torch.log(n), n - 1


class Shares(Cell):
    """Divides by the sum of its inputs and of its states, which are zeros in the padding."""

    net = Affine()
    last = Linear()

    def step(self, x, h):
        z = self.net(x / x.abs().sum(-1, keepdim=True), h / h.abs().sum(-1, keepdim=True))
        return self.last(exp(z) / exp(z).sum(-1, keepdim=True))


class Ratio(LinearRecurrence):
    """Divides by its input and by its memory, all steps at once."""

    state = ("h", "c")
    keep = Linear(of="x", bias=True)
    add = Linear(of="x")
    out = Linear()

    def coefficients(self, x):
        x = x / x.abs().sum(-1, keepdim=True)
        return sigmoid(self.keep(x)), exp(self.add(x))

    def output(self, c, x):
        return self.out(1 / c)


CELLS = [Mean, Countdown, Shares, Ratio, LSTM, GRU, LayerNormLSTM, LRU, QRNN, MinGRU]
CHOICES = [
    (cell, engine)
    for cell in CELLS
    for engine in (
        ["reference", "native"]
        + ["scan"] * issubclass(cell, LinearRecurrence)
        + ["torch"] * (cell in (LSTM, GRU))
    )
]


def _start(network, cell, lengths, draw):
    parts = network.initial_state(len(lengths))
    parts = (parts,) if isinstance(parts, torch.Tensor) else parts
    state = [torch.rand(p.shape, generator=draw, dtype=p.dtype) + 0.5 for p in parts]
    if cell is Countdown:  # as many steps as it has
        state[1] = torch.tensor(lengths, dtype=torch.float64).view(1, -1, 1).expand_as(parts[1])
        state[1] = state[1].clone()
    return [s.requires_grad_() for s in state]


def _given(state):
    return state[0] if len(state) == 1 else tuple(state)


def _finals(state):
    return [state] if isinstance(state, torch.Tensor) else list(state)


def _compare(found, expected, names):
    for name, a, b in zip(names, found, expected, strict=True):
        a, b = (torch.zeros(1, dtype=torch.float64) if g is None else g for g in (a, b))
        assert a.isfinite().all(), name
        torch.testing.assert_close(*torch.broadcast_tensors(a, b), rtol=1e-9, atol=1e-10, msg=name)


@settings(max_examples=80, deadline=None)
@given(
    choice=st.sampled_from(CHOICES),
    lengths=st.lists(st.integers(0, 5), min_size=1, max_size=3),
    padding=st.integers(0, 2),
    layers=st.integers(1, 2),
    bidirectional=st.booleans(),
    fill=st.sampled_from(BAD),
    every=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_a_padded_batch_is_its_sequences(
    choice, lengths, padding, layers, bidirectional, fill, every, seed
):
    cell, engine = choice
    layers = 1 if cell is QRNN else layers
    draw = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    network = Recurrent(cell(3, 4), layers=layers, bidirectional=bidirectional).double()
    steps = max(lengths) + padding
    # What comes back from the states of every step comes back from those of the last alone.
    every = every and steps > 0 and not bidirectional and engine != "torch"
    x = torch.randn(steps, len(lengths), 3, generator=draw, dtype=torch.float64)
    for b, length in enumerate(lengths):
        x[length:, b, seed % 3 :] = fill
    x.requires_grad_()
    state = _start(network, cell, lengths, draw)
    weight = torch.randn(
        steps, len(lengths), network.output_size, generator=draw, dtype=torch.float64
    )
    leaves = [*network.parameters(), x, *state]
    names = [*(n for n, _ in network.named_parameters()), "x", *network._states.names]

    with elman.engine(engine):
        y, final = network(
            x, _given(state), lengths=torch.tensor(lengths),
            return_states="all" if every else "last",
        )  # fmt: skip
        finals = [f[-1] if every else f for f in _finals(final)]
        loss = (y * weight).sum() + sum(((k + 1) * f).sum() for k, f in enumerate(finals))
        assert loss.isfinite()
        found = torch.autograd.grad(loss, leaves, allow_unused=True)

    with elman.engine("reference"):
        expected = torch.zeros((), dtype=torch.float64)
        for b, length in enumerate(lengths):
            one = [s[:, b : b + 1] for s in state]
            y_one, final = network(x[:length, b : b + 1], _given(one))
            torch.testing.assert_close(y[:length, b : b + 1], y_one, rtol=1e-9, atol=1e-10)
            assert not y[length:, b].any()
            expected = expected + (y_one * weight[:length, b : b + 1]).sum()
            for k, (f, f_one) in enumerate(zip(finals, _finals(final), strict=True)):
                torch.testing.assert_close(f[:, b : b + 1], f_one, rtol=1e-9, atol=1e-10)
                expected = expected + ((k + 1) * f_one).sum()
        wanted = torch.autograd.grad(expected, leaves, allow_unused=True)
    _compare(found, wanted, names)


@pytest.mark.parametrize("engine", ["reference", "native"])
def test_a_cell_that_divides_by_a_state_which_starts_at_0(engine):
    torch.manual_seed(0)
    network = Recurrent(Mean(3, 4))
    x = torch.randn(5, 2, 3)
    with elman.engine(engine):
        y, _ = network(x, lengths=[5, 0])
        y.sum().backward()
    padded = [p.grad.clone() for p in network.parameters()]
    network.zero_grad()
    network(x[:, :1])[0].sum().backward()
    for gradient, parameter in zip(padded, network.parameters(), strict=True):
        torch.testing.assert_close(gradient, parameter.grad)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(("cell", "engine"), CHOICES)
def test_states_that_are_not_finite_go_by_or_are_forgotten(cell, engine, reverse):
    """Row 0 has no step, row 1 starts anew at its first; what both were given is NaN."""
    if engine == "torch" or cell in (Countdown, Shares):  # no resets; starts where they are 0
        return
    torch.manual_seed(0)
    network = Recurrent(cell(3, 4), bidirectional=reverse).double()
    x = torch.randn(4, 3, 3, dtype=torch.float64)
    lengths, resets = torch.tensor([0, 3, 4]), torch.zeros(4, 3, dtype=torch.bool)
    resets[0, 1] = True
    state = [s.clone() for s in _finals(network.initial_state(3))]
    for s in state:
        s += 0.5
        s[:, 0], s[0, 1] = math.nan, math.inf
        s.requires_grad_()
    with elman.engine(engine):
        y, final = network(x, _given(state), lengths=lengths, resets=resets)
        parts = [y.sum(), *(f[:, 1:].sum() for f in _finals(final))]
        leaves = [*network.parameters(), *state]
        found = torch.autograd.grad(sum(parts), leaves, allow_unused=True)
    assert y.isfinite().all()
    for f in _finals(final):
        assert f[:, 0].isnan().all() and f[:, 1:].isfinite().all()
    with elman.engine("reference"):
        started = [torch.zeros_like(s) for s in state]
        for s, f in zip(state, started, strict=True):
            f[1:, 1] = s.detach()[1:, 1]  # read in reverse, the reset is behind the last step
            f[:, 2] = s.detach()[:, 2]
            f.requires_grad_()
        y, final = network(x, _given(started), lengths=lengths)
        parts = [y.sum(), *(f[:, 1:].sum() for f in _finals(final))]
        wanted = torch.autograd.grad(
            sum(parts), [*network.parameters(), *started], allow_unused=True
        )
    count = len(list(network.parameters()))
    _compare(found[:count], wanted[:count], [n for n, _ in network.named_parameters()])
    for g, w in zip(found[count:], wanted[count:], strict=True):
        assert g is None or (not g[0, 1].any() and torch.allclose(g[:, 2], w[:, 2]))


@pytest.mark.parametrize("cell", [Mean, Countdown, Ratio, LSTM])
def test_a_gradient_of_a_gradient(cell):
    torch.manual_seed(0)
    network = Recurrent(cell(3, 4)).double()
    x = torch.randn(4, 3, 3, dtype=torch.float64)
    lengths = [4, 0, 2]
    x[2:, 2], x[:, 1] = math.nan, math.inf
    state = _start(network, cell, lengths, torch.Generator().manual_seed(0))
    leaves = list(network.parameters())

    def second(run):
        y = run()
        first = torch.autograd.grad(y, leaves, create_graph=True, allow_unused=True)
        size = sum(g.square().sum() for g in first if g is not None)
        return torch.autograd.grad(size, leaves, allow_unused=True)

    def alone():
        ones = [
            network(x[:n, b : b + 1], _given([s[:, b : b + 1] for s in state]))[0].square().sum()
            for b, n in enumerate(lengths)
        ]
        return sum(ones)

    with elman.engine("reference"):
        wanted = second(alone)
    for engine in ("reference", "scan" if cell is Ratio else "native"):
        with elman.engine(engine):
            found = second(
                lambda: network(x, _given(state), lengths=torch.tensor(lengths))[0].square().sum()
            )
        _compare(found, wanted, [n for n, _ in network.named_parameters()])


@pytest.mark.parametrize("cell", [Mean, Ratio])
def test_no_sequence_has_a_step(cell):
    """The gradients are zero, not missing and not NaN."""
    network = Recurrent(cell(3, 4))
    x = torch.full((3, 2, 3), math.nan, requires_grad=True)
    for engine in ("reference", "scan" if cell is Ratio else "native"):
        with elman.engine(engine):
            y, _ = network(x, lengths=[0, 0])
            for gradient in torch.autograd.grad(y.sum(), [*network.parameters(), x]):
                assert not gradient.any()


def test_the_scan_of_pytorchs_operations_forgets_what_is_infinite():
    a, b = torch.full((5, 1, 2), 0.5), torch.ones(5, 1, 2)
    b[1], first = math.inf, torch.full((1, 2), math.nan)
    leaves = [t.requires_grad_() for t in (a, b, first)]
    resets = torch.tensor([[True], [False], [True], [False], [False]])
    for complex in (False, True):
        c, _ = doubled(*leaves, torch.zeros(1, 2), Course(resets, complex=complex))
        found = torch.autograd.grad(c[2:].sum(), leaves)
        assert c[2:].isfinite().all()
        assert all(g.isfinite().all() for g in found)
        assert not found[2].any()


@pytest.mark.parametrize("reverse", [False, True])
def test_what_is_drawn_up_for_other_lengths_is_right_too(reverse):
    """Traced, the reference engine cannot ask which rows are alive."""
    torch.manual_seed(0)
    network = Recurrent(Countdown(3, 4), bidirectional=reverse).double()
    x = torch.randn(5, 3, 3, dtype=torch.float64)

    def padded(lengths, state):
        with elman.engine("reference"):
            return network(x, state, lengths=lengths)[0]

    for values in ([2, 1, 0], [3, 3, 3], [0, 0, 0]):
        lengths = torch.tensor(values)
        state = tuple(_start(network, Countdown, values, torch.Generator().manual_seed(0)))
        leaves = [*network.parameters(), *state]
        expected = torch.autograd.grad(padded(lengths, state).sum(), leaves, allow_unused=True)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("elman.compiler.masks.is_drawn_up", lambda: True)
            y = padded(lengths, state)
        found = torch.autograd.grad(y.sum(), leaves, allow_unused=True)
        names = [*(n for n, _ in network.named_parameters()), "h", "n"]
        _compare(found, expected, names)


def test_only_cells_whose_maps_are_no_maps_alone_take_stand_ins():
    tame = {cell: native.compiled(cell(3, 4)).tame for cell in (LSTM, GRU, Shares)}
    assert tame == {LSTM: True, GRU: True, Shares: False}
    x = torch.arange(6.0).view(3, 2, 1)
    assert filled(x, torch.tensor([1, 2])).flatten().tolist() == [0, 1, 3, 3, 3, 3]
