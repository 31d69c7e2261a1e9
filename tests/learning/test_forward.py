from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn, sigmoid, tanh

import elman
from elman.cells import (
    GRU,
    LSTM,
    MGU,
    TDNN,
    Affine,
    Cell,
    Diagonal,
    Elman,
    Linear,
    layer_norm,
)
from elman.learning import BPTT, RFLO, RTRL, UORO, SnAp1, elementwise
from elman.learning.influence import ByUnit, Full

DOUBLE = {"dtype": torch.float64}


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


class Leaky(Cell):
    """h' = (1 − α) h + α tanh(W x + U h + b), the net of RFLO, with α = 1/τ."""

    net = Affine()
    alpha = 0.3

    def step(self, z: Tensor, h: Tensor) -> Tensor:
        return (1 - self.alpha) * h + self.alpha * tanh(z)


@pytest.fixture(autouse=True)
def _eager():
    with elman.engine("reference"):
        yield


def _loss(y, target):
    """A weight of its own for every output: under a plain sum, exchanged steps would not show."""
    return (y * target).sum() + y.square().sum()


def _window(network, steps, batch=2):
    x = torch.randn(steps, batch, network.input_size, **DOUBLE)
    return x, torch.randn(steps, batch, network.output_size, **DOUBLE)


def _gradients(network, rule, x, target, *cuts):
    """What the rule gives for a stream that comes in the windows between ``cuts``."""
    network.zero_grad()
    for start, end in zip((0, *cuts), (*cuts, len(x)), strict=True):
        rule.gradients(x[start:end], target[start:end])
    return {
        name: torch.zeros_like(p) if p.grad is None else p.grad.clone()
        for name, p in network.named_parameters()
    }


@pytest.mark.parametrize(
    ("layers", "options"),
    [(1, {}), (2, {"learn_initial_state": True}), (2, {"skip": "highway"})],
    ids=["plain", "initial", "highway"],
)
def test_rtrl_is_bptt_for_every_cell(kind, agree, layers, options):
    network = elman.Recurrent(kind(3, 4), layers, **options)
    for parameter in network.parameters():  # an initial state, too, that is not zero
        nn.init.normal_(parameter, std=0.5)
    stream = _window(network, 7)
    expected = _gradients(network, BPTT(network, _loss), *stream)
    assert sum(g.abs().sum() for g in expected.values()) > 0
    agree(_gradients(network, RTRL(network, _loss), *stream, 1, 2, 5).values(), expected.values())


@given(
    sizes=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    inputs=st.integers(1, 4),
    batch=st.integers(1, 3),
    cuts=st.sets(st.integers(1, 8)),
)
@settings(max_examples=8)
def test_rtrl_is_bptt_for_drawn_shapes(agree, sizes, inputs, batch, cuts):
    network = elman.Recurrent(LSTM(inputs, sizes[0], **DOUBLE), hidden_sizes=sizes)
    stream = _window(network, 9, batch)
    expected = _gradients(network, BPTT(network, _loss), *stream)
    received = _gradients(network, RTRL(network, _loss), *stream, *sorted(cuts))
    agree(received.values(), expected.values())


@pytest.mark.parametrize("rule", [RTRL, SnAp1, RFLO, UORO])
def test_outputs_states_and_the_losss_own_weights_are_those_of_bptt(agree, rule):
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
def test_elementwise_rtrl_is_full_rtrl(agree, cell, learned):
    network = elman.Recurrent(cell(3, 4, **DOUBLE), learn_initial_state=learned)
    for parameter in network.parameters():
        nn.init.normal_(parameter)
    stream = _window(network, 7)
    rule, full = RTRL(network, _loss), RTRL(network, _loss)
    full.influence = Full(network)
    expected = _gradients(network, full, *stream, 3)
    agree(_gradients(network, rule, *stream, 3).values(), expected.values())
    # One number for each parameter, sequence, and state of a unit, where the full one has n.
    size = sum(p.numel() for p in network.parameters())
    assert isinstance(rule.influence, ByUnit)
    assert rule._carried.shape == (2, len(cell.state), size)
    assert full._carried.shape == (2, 4 * len(cell.state), size)
    agree(_gradients(network, SnAp1(network, _loss), *stream, 3).values(), expected.values())


SEPARATE = [
    (RTRL, lambda: elman.LSTM(3, 4, 2, **DOUBLE)),
    (RTRL, lambda: elman.Recurrent(IndRNN(3, 4, **DOUBLE))),  # unit by unit
    (SnAp1, lambda: elman.GRU(3, 4, **DOUBLE)),
    (RFLO, lambda: elman.LSTM(3, 4, **DOUBLE)),
]


@pytest.mark.parametrize(("rule", "make"), SEPARATE)
@pytest.mark.parametrize("learned", [False, True], ids=["zero", "initial"])
def test_resets_make_separate_sequences(agree, rule, make, learned):
    network = elman.Recurrent(make().cells[0], make().num_layers, learn_initial_state=learned)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.5)
    x, target = _window(network, 8)
    resets = torch.zeros(8, 2, dtype=torch.bool)
    resets[3, 0] = resets[5, 1] = True
    online = rule(network, _loss)
    network.zero_grad()
    for at in (slice(0, 3), slice(3, 4), slice(4, 8)):
        online.gradients(x[at], target[at], resets=resets[at] if resets[at].any() else None)
    received = _flat({n: p.grad for n, p in network.named_parameters()})
    exact = BPTT if rule is RTRL else rule
    expected = torch.zeros_like(received)
    for row, cut in ((0, 3), (1, 5)):
        for part in (slice(0, cut), slice(cut, 8)):
            one = x[part, row : row + 1], target[part, row : row + 1]
            expected += _flat(_gradients(network, exact(network, _loss), *one))
    agree(received, expected)


@pytest.mark.parametrize("rule", [RTRL, SnAp1, RFLO, UORO])
def test_what_begins_anew_at_every_step_has_no_past(agree, rule):
    network = elman.LSTM(3, 4, **DOUBLE)
    x, target = _window(network, 5)
    always = torch.ones(5, 2, dtype=torch.bool)
    found = []
    for kind in (BPTT, rule):
        network.zero_grad()
        kind(network, _loss).gradients(x, target, resets=always)
        found.append([p.grad.clone() for p in network.parameters()])
    agree(*found)


def test_units_that_read_each_other_are_found(kinds):
    apart = {name for name, kind in kinds.items() if elementwise(elman.Recurrent(kind(3, 4)))}
    assert {"mlp", "indrnn", "sru", "qrnn", "mingru", "minlstm", "lru"} <= apart
    assert not apart & {"rnn", "rnn-relu", "gru", "lstm", "lstm-projected", "Attractor", "FastSlow"}
    # Layers that are element-wise each are not so together: the upper one mixes the lower's units.
    assert isinstance(RTRL(elman.Recurrent(IndRNN(3, 4), 2), _loss).influence, Full)


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
def test_snap1_keeps_what_a_parameter_changes_within_a_step(agree, cell):
    network = elman.Recurrent(cell(3, 4, **DOUBLE))
    x, target = _window(network, 7, batch=1)
    units = torch.arange(4).repeat(len(cell.state))
    mask = units[:, None] == _owners(network)
    expected = _by_definition(network, x, target, lambda d: d, mask)
    received = _gradients(network, SnAp1(network, _loss), x, target, 3)
    agree(torch.cat([g.flatten() for g in received.values()]), expected)
    exact = _gradients(network, BPTT(network, _loss), x, target)
    assert not torch.allclose(received["weight_hh_l0"], exact["weight_hh_l0"], rtol=1e-3)


def test_snap1_is_by_its_definition_or_refused(agree, kinds):
    refused = set()
    for name, kind in kinds.items():
        network = elman.Recurrent(kind(3, 4))
        try:
            rule = SnAp1(network, _loss)
        except elman.InputError:
            refused.add(name)
            continue
        x, target = _window(network, 4, batch=1)
        if elementwise(network):  # where nothing is left out
            expected = _flat(_gradients(network, BPTT(network, _loss), x, target))
        else:
            sizes = network.cells[0].state_sizes  # a clock is no unit's
            units = [torch.arange(4) if n == 4 else torch.full((n,), -1) for n in sizes]
            mask = torch.cat(units)[:, None] == _owners(network)
            expected = _by_definition(network, x, target, lambda d: d, mask)
        agree(_flat(_gradients(network, rule, x, target)), expected)
    library = set(elman.cells.CELLS)
    assert refused & library == {
        "gru-reset-before", "mgu", "jordan", "mrnn", "mlstm", "rhn", "lstm-layer-norm",
        "lstm-projected", "tdnn", "narx", "lru",
    }  # fmt: skip
    assert not refused & {"rnn", "gru", "lstm"}


def test_rflos_traces_are_the_papers(agree):
    # p_t = (1 − α) p_{t−1} + α φ'(z_t) h_{t−1}, and ∂L/∂U ≈ Σ_t ∂L_t/∂h_t p_t.
    network = elman.Recurrent(Leaky(3, 4, **DOUBLE))
    x, target = _window(network, 7, batch=1)
    with torch.no_grad():
        h = network(x)[0][:, 0]
        before = torch.cat([torch.zeros(1, 4, **DOUBLE), h[:-1]])
        trace, expected = torch.zeros(4, 4, **DOUBLE), torch.zeros(4, 4, **DOUBLE)
        for t in range(7):
            z = network.weight_ih_l0 @ x[t, 0] + network.weight_hh_l0 @ before[t]
            slope = 1 - tanh(z + network.bias_ih_l0) ** 2
            trace = 0.7 * trace + 0.3 * slope[:, None] * before[t]
            expected += (target[t, 0] + 2 * h[t])[:, None] * trace
    received = _gradients(network, RFLO(network, _loss), x, target, 2)
    agree(received["weight_hh_l0"], expected)


def test_in_an_lstm_rflo_carries_the_forget_gate(agree):
    network = elman.Recurrent(LSTM(3, 4, **DOUBLE))
    x, target = _window(network, 7, batch=1)
    mask = torch.arange(4).repeat(2)[:, None] == _owners(network)

    def carried(d):  # ∂c'/∂c = f and ∂h'/∂c = o tanh'(c') f are left, what came through U h is not
        return d * torch.tensor([[0.0, 1.0], [0.0, 1.0]], **DOUBLE).kron(torch.eye(4, **DOUBLE))

    expected = _by_definition(network, x, target, carried, mask)
    received = _gradients(network, RFLO(network, _loss), x, target)
    agree(torch.cat([g.flatten() for g in received.values()]), expected)


def test_in_a_stack_the_layer_below_hears_of_the_loss_through_the_present_step(agree):
    # A lower layer of leaky units without recurrent weights, seen through a map without memory:
    # the one stack in which cutting the layers apart loses nothing.
    network = elman.Recurrent(IndRNN(3, 4, **DOUBLE), 2)
    nn.init.zeros_(network.weight_own_l1)
    stream = _window(network, 7)
    expected = _gradients(network, BPTT(network, _loss), *stream)
    received = _gradients(network, SnAp1(network, _loss), *stream)
    for name, gradient in expected.items():
        if name != "weight_own_l1":
            agree(received[name], gradient)


@pytest.mark.parametrize(("cell", "layers"), [(LSTM, 1), (GRU, 2)])
def test_uoro_is_unbiased(cell, layers):
    network = elman.Recurrent(cell(2, 3, **DOUBLE), layers, learn_initial_state=True)
    for parameter in network.parameters():
        nn.init.normal_(parameter)
    x, target = _window(network, 5, batch=1)
    exact = _flat(_gradients(network, BPTT(network, _loss), x, target))
    # Every sequence of a batch draws signs of its own, so that a batch is a sample.
    many, size, rule, samples = 30, 500, UORO(network, _loss), []
    for _ in range(many):
        rule.reset()
        samples.append(_flat(_gradients(network, rule, *_repeated(size, x, target))) / size)
    samples = torch.stack(samples)
    bound = 5 * samples.std(0) / many**0.5 + 1e-12
    assert ((samples.mean(0) - exact).abs() < bound).all()
    # The bound is tight enough to tell UORO from a rule that is biased.
    local = _flat(_gradients(network, SnAp1(network, _loss), x, target))
    assert ((local - exact).abs() > bound).sum() > 5


def _flat(gradients):
    return torch.cat([g.flatten() for g in gradients.values()])


def _repeated(size, *tensors):
    return [t.expand(-1, size, -1) for t in tensors]


def test_uoro_draws_from_the_generator():
    network = elman.LSTM(2, 3, **DOUBLE)
    stream, found = _window(network, 5), []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        found.append(_flat(_gradients(network, UORO(network, _loss), *stream)))
    assert torch.equal(found[0], found[1])
    assert not torch.allclose(found[0], found[2])


@pytest.mark.parametrize("rule", [RTRL, SnAp1, RFLO, UORO])
def test_what_is_frozen_stays_and_costs_nothing(agree, rule):
    network = elman.LSTM(3, 4, **DOUBLE)
    stream = _window(network, 6)
    torch.manual_seed(1)
    whole = _gradients(network, rule(network, _loss), *stream)
    network.weight_ih_l0.requires_grad_(False)
    network.weight_ih_l0.grad = None
    torch.manual_seed(1)
    frozen = rule(network, _loss)
    part = _gradients(network, frozen, *stream)
    assert network.weight_ih_l0.grad is None
    assert sum(p.numel() for p in frozen.influence.learned.values()) == 4 * 4 * 4 + 2 * 16
    if rule is not UORO:  # whose scales depend on all parameters
        agree(part["weight_hh_l0"], whole["weight_hh_l0"])
    network.requires_grad_(False)
    with pytest.raises(elman.InputError, match="nothing to learn"):
        rule(network, _loss)


def test_a_reset_begins_a_new_stream(agree):
    network = elman.GRU(3, 4, **DOUBLE)
    rule, stream = RTRL(network, _loss), _window(network, 5)
    first = _gradients(network, rule, *stream)
    rule.reset()
    agree(_gradients(network, rule, *stream).values(), first.values())
    again = _gradients(network, rule, *stream)  # goes on from the state after the first stream
    assert not torch.allclose(again["weight_hh_l0"], first["weight_hh_l0"])


def test_memory_does_not_grow_with_the_stream():
    network = elman.LSTM(3, 4, **DOUBLE)
    rule = RTRL(network, _loss)
    sizes = set()
    for _ in range(3):
        rule.gradients(*_window(network, 20))
        sizes.add(rule._carried.numel())
        assert len(rule._graphs) == 1
    assert len(sizes) == 1


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_it_learns_where_no_gradient_is_wanted_around_it(agree, mode):
    network = elman.LSTM(3, 4, **DOUBLE)
    x, target = _window(network, 5)
    loss = lambda y, t: nn.functional.mse_loss(y, t)  # noqa: E731
    expected = _gradients(network, RTRL(network, loss), x, target, 2)
    with mode():
        inner = (x * 1, target * 1)
        rule = RTRL(network, loss)
        network.zero_grad()
        for start, end in ((0, 2), (2, 5)):
            rule.gradients(inner[0][start:end], inner[1][start:end])
    agree([p.grad for p in network.parameters()], list(expected.values()))


def test_single_precision_and_the_native_engine(agree):
    network = elman.LSTM(3, 4)
    x, target = torch.randn(6, 2, 3), torch.randn(6, 2, 4)
    with elman.engine("auto"):
        expected = _gradients(network, BPTT(network, _loss), x, target)
        received = _gradients(network, RTRL(network, _loss), x, target, 3)
    agree(received.values(), expected.values(), tolerance=1e-5)


def test_what_a_rule_cannot_do_is_said():
    for rule in (RTRL, SnAp1, RFLO, UORO):
        with pytest.raises(elman.InputError, match="bidirectional"):
            rule(elman.LSTM(3, 4, bidirectional=True), _loss)
        with pytest.raises(elman.InputError, match="without dropout and zoneout"):
            rule(elman.LSTM(3, 4, 2, dropout=0.5), _loss)
        with pytest.raises(elman.InputError, match=r"window \(T, B, 3\), received .* \(5, 3"):
            rule(elman.LSTM(3, 4), _loss).gradients(torch.zeros(5, 3), None)
        with pytest.raises(elman.InputError, match=r"window \(T, B, 3\), received .* \(0, 2, 3"):
            rule(elman.LSTM(3, 4), _loss).gradients(torch.zeros(0, 2, 3), None)
        with pytest.raises(elman.InputError, match="x requires a gradient"):
            rule(elman.LSTM(3, 4), _loss).gradients(torch.zeros(1, 2, 3).requires_grad_(), None)
        one = rule(elman.LSTM(3, 4), _loss)
        one.gradients(torch.zeros(1, 1, 3), torch.zeros(1, 1, 4))
        with pytest.raises(elman.InputError, match="had 1 rows and this window has 2"):
            one.gradients(torch.zeros(1, 2, 3), torch.zeros(1, 2, 4))
    for rule in (SnAp1, RFLO):
        with pytest.raises(elman.InputError, match="MGU acts on neither the input nor a"):
            rule(elman.Recurrent(MGU(3, 4)), _loss)
        with pytest.raises(elman.InputError, match="read each other's states outside its linear"):
            rule(elman.Recurrent(layer_norm(LSTM(3, 4))), _loss)
        with pytest.raises(elman.InputError, match=r"not whole numbers a unit\. Use RTRL"):
            rule(elman.Recurrent(TDNN(3, 4)), _loss)


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
