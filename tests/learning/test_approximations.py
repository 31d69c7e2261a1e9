"""SnAp-1, RFLO and UORO: what they keep of the gradient."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn, tanh

import elman
from elman.cells import (
    GRU,
    LSTM,
    Affine,
    Cell,
    Diagonal,
    Elman,
    Linear,
)
from elman.learning import BPTT, RFLO, UORO, SnAp1, elementwise

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


class Leaky(Cell):
    """h' = (1 − α) h + α tanh(W x + U h + b), the net of RFLO, with α = 1/τ."""

    net = Affine()
    alpha = 0.3

    def step(self, z: Tensor, h: Tensor) -> Tensor:
        return (1 - self.alpha) * h + self.alpha * tanh(z)


def _by_definition(network, x, target, carried, mask):
    """Σ_t ∂L_t/∂s_t J_t with J_t = (carried(D_t) J_{t−1} + ∂s_t/∂θ) ⊙ mask, all dense."""
    cell, given = network.cells[0], network.weights(0)
    names = [name for name in given if name in dict(cell.named_parameters())]
    width, size = cell.hidden_size, sum(cell.state_sizes)

    def step(x, s, *weights):
        bound = cell.bind(given | dict(zip(names, weights, strict=True)))
        return torch.cat(bound(x, *s.split(cell.state_sizes)))

    weights = [p.detach() for p in network.parameters()]
    s, total = torch.zeros(size, **DOUBLE), 0.0
    j = torch.zeros(size, sum(w.numel() for w in weights), **DOUBLE)
    for x_t, target_t in zip(x[:, 0], target[:, 0], strict=True):
        d, *f = torch.func.jacrev(step, argnums=tuple(range(1, 2 + len(weights))))(x_t, s, *weights)
        j = (carried(d) @ j + torch.cat([part.flatten(1) for part in f], -1)) * mask
        s = step(x_t, s, *weights)
        total = total + (target_t + 2 * s[:width]) @ j[:width]
    return total


def _owners(network):
    """The unit that each parameter belongs to: its row, in each block anew."""
    width = network.hidden_size
    rows = [torch.arange(len(p)).repeat_interleave(p[0].numel()) for p in network.parameters()]
    return torch.cat(rows) % width


@pytest.mark.parametrize("cell", [Elman, GRU, LSTM, Leaky], ids=lambda cell: cell.__name__)
def test_snap1_keeps_what_a_parameter_changes_within_a_step(agree, cell, loss, window, by_rule):
    network = elman.Recurrent(cell(3, 4, **DOUBLE))
    x, target = window(network, 7, batch=1)
    units = torch.arange(4).repeat(len(cell.state))
    mask = units[:, None] == _owners(network)
    expected = _by_definition(network, x, target, lambda d: d, mask)
    received = by_rule(network, SnAp1(network, loss), x, target, 3)
    agree(torch.cat([g.flatten() for g in received.values()]), expected)
    exact = by_rule(network, BPTT(network, loss), x, target)
    assert not torch.allclose(received["weight_hh_l0"], exact["weight_hh_l0"], rtol=1e-3)


def test_snap1_is_by_its_definition_or_refused(agree, kinds, loss, window, by_rule, flat):
    refused = set()
    for name, kind in kinds.items():
        network = elman.Recurrent(kind(3, 4))
        try:
            rule = SnAp1(network, loss)
        except elman.InputError:
            refused.add(name)
            continue
        x, target = window(network, 4, batch=1)
        if elementwise(network):  # where nothing is left out
            expected = flat(by_rule(network, BPTT(network, loss), x, target))
        else:
            sizes = network.cells[0].state_sizes  # a clock is no unit's
            units = [torch.arange(4) if n == 4 else torch.full((n,), -1) for n in sizes]
            mask = torch.cat(units)[:, None] == _owners(network)
            expected = _by_definition(network, x, target, lambda d: d, mask)
        agree(flat(by_rule(network, rule, x, target)), expected)
    library = set(elman.cells.CELLS)
    assert refused & library == {
        "gru-reset-before", "mgu", "jordan", "mrnn", "mlstm", "rhn", "lstm-layer-norm",
        "lstm-projected", "tdnn", "narx", "lru",
    }  # fmt: skip
    assert not refused & {"rnn", "gru", "lstm"}


def test_rflos_traces_are_the_papers(agree, loss, window, by_rule):
    # p_t = (1 − α) p_{t−1} + α φ'(z_t) h_{t−1}, and ∂L/∂U ≈ Σ_t ∂L_t/∂h_t p_t.
    network = elman.Recurrent(Leaky(3, 4, **DOUBLE))
    x, target = window(network, 7, batch=1)
    with torch.no_grad():
        h = network(x)[0][:, 0]
        before = torch.cat([torch.zeros(1, 4, **DOUBLE), h[:-1]])
        trace, expected = torch.zeros(4, 4, **DOUBLE), torch.zeros(4, 4, **DOUBLE)
        for t in range(7):
            z = network.weight_ih_l0 @ x[t, 0] + network.weight_hh_l0 @ before[t]
            slope = 1 - tanh(z + network.bias_ih_l0) ** 2
            trace = 0.7 * trace + 0.3 * slope[:, None] * before[t]
            expected += (target[t, 0] + 2 * h[t])[:, None] * trace
    received = by_rule(network, RFLO(network, loss), x, target, 2)
    agree(received["weight_hh_l0"], expected)


def test_in_an_lstm_rflo_carries_the_forget_gate(agree, loss, window, by_rule):
    network = elman.Recurrent(LSTM(3, 4, **DOUBLE))
    x, target = window(network, 7, batch=1)
    mask = torch.arange(4).repeat(2)[:, None] == _owners(network)

    def carried(d):  # ∂c'/∂c = f and ∂h'/∂c = o tanh'(c') f are left, what came through U h is not
        return d * torch.tensor([[0.0, 1.0], [0.0, 1.0]], **DOUBLE).kron(torch.eye(4, **DOUBLE))

    expected = _by_definition(network, x, target, carried, mask)
    received = by_rule(network, RFLO(network, loss), x, target)
    agree(torch.cat([g.flatten() for g in received.values()]), expected)


def test_in_a_stack_the_layer_below_hears_of_the_loss_through_the_present_step(
    agree, loss, window, by_rule
):
    # A lower layer of leaky units without recurrent weights, seen through a map without memory:
    # the one stack in which cutting the layers apart loses nothing.
    network = elman.Recurrent(IndRNN(3, 4, **DOUBLE), 2)
    nn.init.zeros_(network.weight_own_l1)
    stream = window(network, 7)
    expected = by_rule(network, BPTT(network, loss), *stream)
    received = by_rule(network, SnAp1(network, loss), *stream)
    for name, gradient in expected.items():
        if name != "weight_own_l1":
            agree(received[name], gradient)


@pytest.mark.parametrize(("cell", "layers"), [(LSTM, 1), (GRU, 2)])
def test_uoro_is_unbiased(cell, layers, loss, window, by_rule, flat):
    network = elman.Recurrent(cell(2, 3, **DOUBLE), layers, learn_initial_state=True)
    for parameter in network.parameters():
        nn.init.normal_(parameter)
    x, target = window(network, 5, batch=1)
    exact = flat(by_rule(network, BPTT(network, loss), x, target))
    # Every sequence of a batch draws signs of its own, so that a batch is a sample.
    many, size, rule, samples = 30, 500, UORO(network, loss), []
    for _ in range(many):
        rule.reset()
        samples.append(flat(by_rule(network, rule, *_repeated(size, x, target))) / size)
    samples = torch.stack(samples)
    bound = 5 * samples.std(0) / many**0.5 + 1e-12
    assert ((samples.mean(0) - exact).abs() < bound).all()
    # The bound is tight enough to tell UORO from a rule that is biased.
    local = flat(by_rule(network, SnAp1(network, loss), x, target))
    assert ((local - exact).abs() > bound).sum() > 5


def _repeated(size, *tensors):
    return [t.expand(-1, size, -1) for t in tensors]


def test_uoro_draws_from_the_generator(loss, window, by_rule, flat):
    network = elman.LSTM(2, 3, **DOUBLE)
    stream, found = window(network, 5), []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        found.append(flat(by_rule(network, UORO(network, loss), *stream)))
    assert torch.equal(found[0], found[1])
    assert not torch.allclose(found[0], found[2])
