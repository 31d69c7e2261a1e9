"""Real-time recurrent learning, and what all rules share that learn forward in time."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn, sigmoid, tanh

import elman
from elman.cells import (
    LSTM,
    MGU,
    TDNN,
    Cell,
    Diagonal,
    Linear,
    layer_norm,
)
from elman.learning import BPTT, RFLO, RTRL, UORO, SnAp1, elementwise
from elman.learning.influence import ByUnit, Full

DOUBLE = {"dtype": torch.float64}


@pytest.fixture(autouse=True)
def _eager():
    with elman.engine("reference"):
        yield


class IndRNN(Cell):
    """h' = tanh(W x + b + u ⊙ h), with a diagonal recurrence."""

    net = Linear(of="x", bias=True)
    own = Diagonal()

    def step(self, x: Tensor, h: Tensor) -> Tensor:
        return tanh(self.net(x) + self.own * h)


class DiagonalLSTM(Cell):
    """An LSTM whose gates see their own unit alone: two states a unit, four blocks."""

    state = ("h", "c")
    net = Linear("i f g o", of="x", bias=True)
    own = Diagonal("i f g o")

    def step(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        z, u = self.net(x), self.own
        c = sigmoid(z.f + u.f * h) * c + sigmoid(z.i + u.i * h) * tanh(z.g + u.g * h)
        return sigmoid(z.o + u.o * h) * tanh(c), c


@pytest.mark.parametrize(
    ("layers", "options"),
    [(1, {}), (2, {"learn_initial_state": True}), (2, {"skip": "highway"})],
    ids=["plain", "initial", "highway"],
)
def test_rtrl_is_bptt_for_every_cell(kind, agree, layers, options, loss, window, by_rule):
    network = elman.Recurrent(kind(3, 4), layers, **options)
    for parameter in network.parameters():  # an initial state, too, that is not zero
        nn.init.normal_(parameter, std=0.5)
    stream = window(network, 7)
    expected = by_rule(network, BPTT(network, loss), *stream)
    assert sum(g.abs().sum() for g in expected.values()) > 0
    agree(by_rule(network, RTRL(network, loss), *stream, 1, 2, 5).values(), expected.values())


@given(
    sizes=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    inputs=st.integers(1, 4),
    batch=st.integers(1, 3),
    cuts=st.sets(st.integers(1, 8)),
)
@settings(max_examples=8)
def test_rtrl_is_bptt_for_drawn_shapes(agree, sizes, inputs, batch, cuts, loss, window, by_rule):
    network = elman.Recurrent(LSTM(inputs, sizes[0], **DOUBLE), hidden_sizes=sizes)
    stream = window(network, 9, batch)
    expected = by_rule(network, BPTT(network, loss), *stream)
    received = by_rule(network, RTRL(network, loss), *stream, *sorted(cuts))
    agree(received.values(), expected.values())


@pytest.mark.parametrize("rule", [RTRL, SnAp1, RFLO, UORO])
def test_outputs_states_and_the_losss_own_weights_are_those_of_bptt(agree, rule, loss):
    network = elman.LSTM(3, 4, 2, **DOUBLE)
    head = nn.Linear(4, 2, **DOUBLE)
    x, target = torch.randn(6, 2, 3, **DOUBLE), torch.randn(6, 2, 2, **DOUBLE)

    def loss(y, target):
        return (head(y) - target).square().sum()

    exact, online = BPTT(network, loss), rule(network, loss)
    whole = exact.gradients(x, target)
    expected = [p.grad.clone() for p in head.parameters()]
    head.zero_grad()
    parts = [online.gradients(x[:1], target[:1]), online.gradients(x[1:], target[1:])]
    agree([sum(parts), [p.grad for p in head.parameters()]], [whole, expected])
    agree(online.state, exact.state)
    assert not any(part.requires_grad for part in online.state)


@pytest.mark.parametrize("cell", [IndRNN, DiagonalLSTM], ids=lambda cell: cell.__name__)
@pytest.mark.parametrize("learned", [False, True], ids=["zero", "initial"])
def test_elementwise_rtrl_is_full_rtrl(agree, cell, learned, loss, window, by_rule):
    network = elman.Recurrent(cell(3, 4, **DOUBLE), learn_initial_state=learned)
    for parameter in network.parameters():
        nn.init.normal_(parameter)
    stream = window(network, 7)
    rule, full = RTRL(network, loss), RTRL(network, loss)
    full.influence = Full(network)
    expected = by_rule(network, full, *stream, 3)
    agree(by_rule(network, rule, *stream, 3).values(), expected.values())
    # One number for each parameter, sequence, and state of a unit, where the full one has n.
    size = sum(p.numel() for p in network.parameters())
    assert isinstance(rule.influence, ByUnit)
    assert rule._carried.shape == (2, len(cell.state), size)
    assert full._carried.shape == (2, 4 * len(cell.state), size)
    agree(by_rule(network, SnAp1(network, loss), *stream, 3).values(), expected.values())


SEPARATE = [
    (RTRL, lambda: elman.LSTM(3, 4, 2, **DOUBLE)),
    (RTRL, lambda: elman.Recurrent(IndRNN(3, 4, **DOUBLE))),  # unit by unit
    (SnAp1, lambda: elman.GRU(3, 4, **DOUBLE)),
    (RFLO, lambda: elman.LSTM(3, 4, **DOUBLE)),
]


@pytest.mark.parametrize(("rule", "make"), SEPARATE)
@pytest.mark.parametrize("learned", [False, True], ids=["zero", "initial"])
def test_resets_make_separate_sequences(agree, rule, make, learned, loss, window, by_rule, flat):
    network = elman.Recurrent(make().cells[0], make().num_layers, learn_initial_state=learned)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.5)
    x, target = window(network, 8)
    resets = torch.zeros(8, 2, dtype=torch.bool)
    resets[3, 0] = resets[5, 1] = True
    online = rule(network, loss)
    network.zero_grad()
    for at in (slice(0, 3), slice(3, 4), slice(4, 8)):
        online.gradients(x[at], target[at], resets=resets[at] if resets[at].any() else None)
    received = flat({n: p.grad for n, p in network.named_parameters()})
    exact = BPTT if rule is RTRL else rule
    expected = torch.zeros_like(received)
    for row, cut in ((0, 3), (1, 5)):
        for part in (slice(0, cut), slice(cut, 8)):
            one = x[part, row : row + 1], target[part, row : row + 1]
            expected += flat(by_rule(network, exact(network, loss), *one))
    agree(received, expected)


@pytest.mark.parametrize("rule", [RTRL, SnAp1, RFLO, UORO])
def test_what_begins_anew_at_every_step_has_no_past(agree, rule, loss, window):
    network = elman.LSTM(3, 4, **DOUBLE)
    x, target = window(network, 5)
    always = torch.ones(5, 2, dtype=torch.bool)
    found = []
    for kind in (BPTT, rule):
        network.zero_grad()
        kind(network, loss).gradients(x, target, resets=always)
        found.append([p.grad.clone() for p in network.parameters()])
    agree(*found)


def test_units_that_read_each_other_are_found(kinds, loss):
    apart = {name for name, kind in kinds.items() if elementwise(elman.Recurrent(kind(3, 4)))}
    assert {"mlp", "indrnn", "sru", "qrnn", "mingru", "minlstm", "lru"} <= apart
    assert not apart & {"rnn", "rnn-relu", "gru", "lstm", "lstm-projected", "Attractor", "FastSlow"}
    # Layers that are element-wise each are not so together: the upper one mixes the lower's units.
    assert isinstance(RTRL(elman.Recurrent(IndRNN(3, 4), 2), loss).influence, Full)


@pytest.mark.parametrize("rule", [RTRL, SnAp1, RFLO, UORO])
def test_what_is_frozen_stays_and_costs_nothing(agree, rule, loss, window, by_rule):
    network = elman.LSTM(3, 4, **DOUBLE)
    stream = window(network, 6)
    torch.manual_seed(1)
    whole = by_rule(network, rule(network, loss), *stream)
    network.weight_ih_l0.requires_grad_(False)
    network.weight_ih_l0.grad = None
    torch.manual_seed(1)
    frozen = rule(network, loss)
    part = by_rule(network, frozen, *stream)
    assert network.weight_ih_l0.grad is None
    assert sum(p.numel() for p in frozen.influence.learned.values()) == 4 * 4 * 4 + 2 * 16
    if rule is not UORO:  # whose scales depend on all parameters
        agree(part["weight_hh_l0"], whole["weight_hh_l0"])
    network.requires_grad_(False)
    with pytest.raises(elman.InputError, match="nothing to learn"):
        rule(network, loss)


def test_a_reset_begins_a_new_stream(agree, loss, window, by_rule):
    network = elman.GRU(3, 4, **DOUBLE)
    rule, stream = RTRL(network, loss), window(network, 5)
    first = by_rule(network, rule, *stream)
    rule.reset()
    agree(by_rule(network, rule, *stream).values(), first.values())
    again = by_rule(network, rule, *stream)  # goes on from the state after the first stream
    assert not torch.allclose(again["weight_hh_l0"], first["weight_hh_l0"])


def test_memory_does_not_grow_with_the_stream(loss, window):
    network = elman.LSTM(3, 4, **DOUBLE)
    rule = RTRL(network, loss)
    sizes = set()
    for _ in range(3):
        rule.gradients(*window(network, 20))
        sizes.add(rule._carried.numel())
        assert len(rule._graphs) == 1
    assert len(sizes) == 1


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_it_learns_where_no_gradient_is_wanted_around_it(agree, mode, window, by_rule):
    network = elman.LSTM(3, 4, **DOUBLE)
    x, target = window(network, 5)
    expected = by_rule(network, RTRL(network, nn.functional.mse_loss), x, target, 2)
    with mode():
        inner = (x * 1, target * 1)
        rule = RTRL(network, nn.functional.mse_loss)
        network.zero_grad()
        for start, end in ((0, 2), (2, 5)):
            rule.gradients(inner[0][start:end], inner[1][start:end])
    agree([p.grad for p in network.parameters()], list(expected.values()))


def test_single_precision_and_the_native_engine(agree, loss, by_rule):
    network = elman.LSTM(3, 4)
    x, target = torch.randn(6, 2, 3), torch.randn(6, 2, 4)
    with elman.engine("auto"):
        expected = by_rule(network, BPTT(network, loss), x, target)
        received = by_rule(network, RTRL(network, loss), x, target, 3)
    agree(received.values(), expected.values(), tolerance=1e-5)


def test_what_a_rule_cannot_do_is_said(loss):
    for rule in (RTRL, SnAp1, RFLO, UORO):
        with pytest.raises(elman.InputError, match="bidirectional"):
            rule(elman.LSTM(3, 4, bidirectional=True), loss)
        with pytest.raises(elman.InputError, match="without dropout, weight drop and"):
            rule(elman.LSTM(3, 4, 2, dropout=0.5), loss)
        with pytest.raises(elman.InputError, match="without dropout, weight drop and"):
            rule(elman.LSTM(3, 4, weight_drop=0.5), loss)
        with pytest.raises(elman.InputError, match=r"window \(T, B, 3\), received .* \(5, 3"):
            rule(elman.LSTM(3, 4), loss).gradients(torch.zeros(5, 3), None)
        with pytest.raises(elman.InputError, match=r"window \(T, B, 3\), received .* \(0, 2, 3"):
            rule(elman.LSTM(3, 4), loss).gradients(torch.zeros(0, 2, 3), None)
        with pytest.raises(elman.InputError, match="x requires a gradient"):
            rule(elman.LSTM(3, 4), loss).gradients(torch.zeros(1, 2, 3).requires_grad_(), None)
        one = rule(elman.LSTM(3, 4), loss)
        one.gradients(torch.zeros(1, 1, 3), torch.zeros(1, 1, 4))
        with pytest.raises(elman.InputError, match="had 1 rows and this window has 2"):
            one.gradients(torch.zeros(1, 2, 3), torch.zeros(1, 2, 4))
    for rule in (SnAp1, RFLO):
        with pytest.raises(elman.InputError, match="MGU acts on neither the input nor a"):
            rule(elman.Recurrent(MGU(3, 4)), loss)
        with pytest.raises(elman.InputError, match="read each other's states outside its linear"):
            rule(elman.Recurrent(layer_norm(LSTM(3, 4))), loss)
        with pytest.raises(elman.InputError, match=r"not whole numbers a unit\. Use RTRL"):
            rule(elman.Recurrent(TDNN(3, 4)), loss)


def test_learning_at_every_step_remembers():
    """To say what came two steps ago, an update after each single step of an endless stream."""
    torch.manual_seed(0)
    network, head = elman.GRU(1, 12), nn.Linear(12, 1)
    optimizer = torch.optim.Adam([*network.parameters(), *head.parameters()], 0.01)
    rule = RTRL(network, lambda y, target: (head(y) - target).square().mean())
    bits = torch.randint(2, (1502, 1, 1)).float() * 2 - 1
    losses = []
    for t in range(2, len(bits)):
        optimizer.zero_grad()
        losses.append(rule.gradients(bits[t : t + 1], bits[t - 2 : t - 1]))
        optimizer.step()
    assert torch.stack(losses[:100]).mean() > 0.5
    assert torch.stack(losses[-100:]).mean() < 0.05
