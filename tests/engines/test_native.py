"""The native engine against the reference engine: every cell, and cells of a user's own."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import sigmoid, tanh

import elman
from elman import Affine, Cell, Constant, Diagonal, Linear, cells
from elman.engines import native, reference
from elman.engines.call import Call


class Peephole(Cell):
    """Products with a diagonal; a gate that sees the new state."""

    state = ("h", "c")
    gates = Affine("i f g o")
    peephole = Diagonal("i f o")

    def step(self, z, h, c):
        v = self.peephole
        i, f = sigmoid(z.i + v.i * c), sigmoid(z.f + v.f * c)
        c = f * c + i * tanh(z.g)
        return sigmoid(z.o + v.o * c) * tanh(c), c


class Multiplicative(Cell):
    """A product of an intermediate value: m = (W x) ⊙ (U h), gates of m."""

    state = ("h", "c")
    wm = Linear(of="x")
    um = Linear(of="h")
    x_gates = Linear("i f g o", of="x", bias=True)
    m_gates = Linear("i f g o")

    def step(self, x, h, c):
        a, b = self.x_gates(x), self.m_gates(self.wm(x) * self.um(h))
        c = sigmoid(a.f + b.f) * c + sigmoid(a.i + b.i) * tanh(a.g + b.g)
        return sigmoid(a.o + b.o) * tanh(c), c


class Normalised(Cell):
    """Row reductions, of blocks and of a state."""

    state = ("h", "c")
    gates = Affine("i f g o")

    def step(self, z, h, c):
        i, f, g, o = (F.layer_norm(v, v.shape[-1:]) for v in z)
        c = sigmoid(f) * c + sigmoid(i) * tanh(g)
        return sigmoid(o) * tanh(F.layer_norm(c, c.shape[-1:])), c


class WholeRow(Cell):
    """A reduction of all blocks together, and a concatenation."""

    state = ("h",)
    net = Affine("a b")
    gain = Diagonal("a b")

    def step(self, z, h):
        row = torch.cat([z.a, z.b], -1)
        row = row - row.mean(-1, keepdim=True)
        row = row / torch.sqrt((row * row).mean(-1, keepdim=True) + 1e-3)
        a, b = row.chunk(2, -1)
        return tanh(a * self.gain.a) + h * sigmoid(b * self.gain.b)


class Many(Cell):
    """Three states and every function that has a kernel."""

    state = ("h", "s", "k")
    net = Affine("a b c")
    decay = Diagonal()

    def step(self, z, h, s, k):
        d = F.softplus(self.decay)
        a, b = F.gelu(z.a), F.silu(z.b) + F.leaky_relu(z.c)
        s_new = torch.exp(-d) * s + a
        k_new = torch.where(k > s_new, k * 0.5, torch.clamp(b, -1, 1)) + torch.maximum(s, k)
        h = torch.lerp(h, F.softplus(b) - s_new, sigmoid(k))
        return h, s_new / (1 + s_new.abs()), k_new.clamp(-3, 3)


class Jordan(Cell):
    """Feedback through the output (Jordan, 1986)."""

    state = ("y", "h")
    net = Affine()
    out = Linear(bias=True)

    def step(self, x, y, h):
        h = sigmoid(self.net(x, y))
        return sigmoid(self.out(h)), h


class SoftMaximum(Cell):
    state = ("h",)
    net = Affine("a b")

    def step(self, z, h):
        return torch.softmax(z.a, -1) * h + tanh(z.b)


class Rotated(Cell):
    """Slices of a state put together again."""

    state = ("h",)
    net = Affine("a b")

    def step(self, z, h):
        half = self.hidden_size // 2
        return tanh(z.a + torch.cat([h[..., half:], h[..., :half]], -1)) * sigmoid(z.b)


class Twice(Cell):
    """The same weight at two places: its gradient is a sum."""

    state = ("h",)
    net = Affine()
    u = Linear(bias=True)

    def step(self, z, h):
        a = tanh(self.u(tanh(z)))
        return tanh(self.u(a) + a)


class NoProduct(Cell):
    """Nothing of the state is multiplied by a matrix."""

    state = ("c",)
    g = Linear("f x", of="x", bias=True)

    def step(self, x, c):
        g = self.g(x)
        f = sigmoid(g.f)
        return f * c + (1 - f) * g.x


class NoRecurrence(Cell):
    state = ("h",)
    net = Linear(of="x", bias=True)

    def step(self, x, h):
        return tanh(self.net(x))


class Autonomous(Cell):
    """A dynamical system that nothing drives: the step reads no input."""

    state = ("h",)
    net = Linear(of="h", bias=True)

    def step(self, x, h):
        return tanh(self.net(h))


class Selects(Cell):
    """Comparisons of what is known before the loop: of the input, of a weight, of a constant."""

    state = ("h",)
    net = Affine()
    gain = Diagonal()

    @Constant
    def even(self):
        return torch.arange(self.hidden_size) % 2

    def step(self, x, h):
        w = self.net.input(x)
        new = torch.where(w > 0, tanh(w + self.net.hidden(h)), h)
        return torch.where((self.gain > 0) & (self.even > 0), new, new * self.gain)


class OneUnitState(Cell):
    """A state of one number for the whole row."""

    state = ("h", "m")
    net = Affine()

    @property
    def state_sizes(self):
        return self.hidden_size, 1

    def step(self, z, h, m):
        h = tanh(z) * m + h
        return h / (1 + (h * h).sum(-1, keepdim=True)), h.sum(-1, keepdim=True).tanh()


OWN = (
    Peephole, Multiplicative, Normalised, WholeRow, Many, Jordan, SoftMaximum, Rotated, Twice,
    NoProduct, NoRecurrence, Autonomous, Selects, OneUnitState,
)  # fmt: skip
LIBRARY = {
    "lstm": lambda m, h: cells.LSTM(m, h, biases=2),
    "lstm-one-bias": cells.LSTM,
    "lstm-no-bias": lambda m, h: cells.LSTM(m, h, biases=0),
    "lstm-projected": lambda m, h: cells.ProjectedLSTM(m, h + 1, max(1, h // 2), biases=2),
    "gru": lambda m, h: cells.GRU(m, h, biases=2),
    "gru-one-bias": cells.GRU,
    "gru-reset-before": cells.GRUResetBefore,
    "rnn": lambda m, h: cells.Elman(m, h, biases=2),
    "rnn-relu": lambda m, h: cells.Elman(m, h, "relu"),
    "rnn-sigmoid": lambda m, h: cells.Elman(m, h, "sigmoid"),
}
MAKERS = {**LIBRARY, **{cell.__name__: cell for cell in OWN}}


def results(engine, cell, weights, call):
    """Everything that a run gives, and the gradient of all of it with respect to everything."""
    result = engine.run(cell, weights, call)
    outputs = [result.y, *result.state, *(result.states or ())]
    generator = torch.Generator().manual_seed(1)
    loss = sum(
        (o * torch.randn(o.shape, generator=generator, dtype=o.dtype)).sum() for o in outputs
    )
    inputs = [call.x, *call.state, *call.start, *cell.parameters()]
    gradients = torch.autograd.grad(loss, inputs, allow_unused=True)
    pairs = zip(inputs, gradients, strict=True)
    return [*outputs, *(torch.zeros_like(i) if g is None else g for i, g in pairs)]


def check(cell, steps, batch, dtype=torch.float64, tolerance=1e-10, seed=0, **options):
    cell = cell.to(dtype)
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(shape, generator=generator, dtype=dtype).requires_grad_()

    x = draw(steps, batch, cell.input_size)
    state = tuple(draw(batch, size) for size in cell.state_sizes)
    start = tuple(draw(batch, size) for size in cell.state_sizes)
    call = Call(x, state, start, **options)
    assert native.unsupported(cell, call) is None
    weights = cell.state_dict(keep_vars=True)
    expected = results(reference, cell, weights, call)
    received = results(native, cell, weights, call)
    for a, b in zip(expected, received, strict=True):
        assert a.shape == b.shape
        torch.testing.assert_close(b, a, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", MAKERS)
def test_agrees_with_the_reference(name):
    torch.manual_seed(0)
    cell = MAKERS[name](5, 19)
    lengths = torch.tensor([3, 0, 7, 1, 5])
    resets = torch.rand(7, 5) < 0.3
    check(cell, 7, 5)
    check(cell, 7, 5, reverse=True, every_state=True)
    check(cell, 7, 5, lengths=lengths, every_state=True)
    check(cell, 7, 5, resets=resets)
    check(cell, 7, 5, lengths=lengths, resets=resets, reverse=True, every_state=True)
    check(cell, 1, 1)
    check(cell, 2, 31)


@pytest.mark.parametrize("name", ("lstm", "gru", "rnn", "Peephole", "Normalised"))
def test_agrees_in_single_precision(name):
    torch.manual_seed(0)
    check(MAKERS[name](5, 19), 7, 5, torch.float32, 5e-4)


@pytest.mark.parametrize("name", MAKERS)
def test_one_unit(name):
    torch.manual_seed(0)
    check(MAKERS[name](1, 1), 3, 2)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_drawn_shapes(data):
    name = data.draw(st.sampled_from(("lstm", "gru", "gru-reset-before", "rnn", "Peephole")))
    steps, batch = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 40))
    width, hidden = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 70))
    options = {
        "reverse": data.draw(st.booleans()),
        "every_state": data.draw(st.booleans()),
        "seed": data.draw(st.integers(0, 9)),
    }
    if data.draw(st.booleans()):
        lengths = st.lists(st.integers(0, steps), min_size=batch, max_size=batch)
        options["lengths"] = torch.tensor(data.draw(lengths))
    if data.draw(st.booleans()):
        options["resets"] = torch.rand(steps, batch) < 0.3
    check(MAKERS[name](width, hidden), steps, batch, **options)


@pytest.mark.parametrize("name", ("lstm", "Normalised", "gru-reset-before"))
def test_shared_rows_give_the_same_numbers(name, monkeypatch):
    # A step of so few rows would not be shared among threads by itself.
    torch.manual_seed(0)
    from elman.compiler.cpu import kernels

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        monkeypatch.setattr(kernels, "team", lambda *_: 2)
        cell = MAKERS[name](5, 70)
        for batch in (1, 3, 20):
            resets = torch.rand(6, batch) < 0.3
            lengths = torch.randint(0, 7, (batch,))
            check(cell, 6, batch)
            check(cell, 6, batch, lengths=lengths, resets=resets, every_state=True)
    finally:
        torch.set_num_threads(before)


def test_products_longer_than_a_piece(monkeypatch):
    # The engine sums over more than kPiece numbers in parts: 4 x 300 of them going back.
    torch.manual_seed(0)
    from elman.compiler.cpu import kernels

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for team in (1, 2):
            monkeypatch.setattr(kernels, "team", lambda *_, team=team: team)
            for batch in (1, 2, 14):
                check(cells.LSTM(3, 300), 2, batch)
        network = elman.LSTM(1100, 5)
        x = torch.randn(4, 3, 1100)
        with torch.no_grad():
            y, _ = network(x)
            state = network(x[:1])[1]
            for t in range(1, 4):
                step, state = network.step(x[t], state)
                torch.testing.assert_close(step, y[t])
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("name", ("lstm", "gru-reset-before", "Normalised"))
def test_results_depend_on_neither_threads_nor_other_rows(name):
    torch.manual_seed(0)
    network = elman.Recurrent(MAKERS[name](8, 40), layers=2)
    x, weight = torch.randn(9, 30, 8), torch.randn(9, 30, 40)

    def run(threads, rows=slice(None)):
        torch.set_num_threads(threads)
        read = x[:, rows].clone().requires_grad_()
        y, state = network(read)
        wanted = [read, *network.parameters()]
        gradients = torch.autograd.grad((y * weight[:, rows]).sum(), wanted)
        return [y, *(state if isinstance(state, tuple) else [state]), *gradients]

    before = torch.get_num_threads()
    try:
        with elman.engine("native"):
            alone = run(1)
            for threads in (2, 3):
                for a, b in zip(alone, run(threads), strict=True):
                    assert torch.equal(a, b)
            y, *_ = some = run(2, slice(7, 12))
            assert torch.equal(alone[0][:, 7:12], y)
            x_gradient = len(alone) - 1 - len(list(network.parameters()))
            assert torch.equal(alone[x_gradient][:, 7:12], some[x_gradient])
    finally:
        torch.set_num_threads(before)
