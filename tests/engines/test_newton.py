"""The newton engine: any recurrence with all its steps at once, by Newton's method."""

import math

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import sigmoid, tanh

import elman
from elman import Affine, Diagonal, Linear, Newton, cells
from elman.engines import newton, reference
from elman.engines.call import Call

F64 = {"dtype": torch.float64}


class Pair(elman.Cell):
    """Two states of a unit that read each other, and no unit that reads another one."""

    state = ("h", "c")
    drive = Linear("f g o", of="x", bias=True)
    own = Diagonal("f g o")

    def step(self, x, h, c):
        z, v = self.drive(x), self.own
        c = sigmoid(z.f + v.f * h) * c + tanh(z.g + v.g * h)
        return sigmoid(z.o + v.o * c) * tanh(c), c


class Rotating(elman.Cell):
    """Its units depend on each other in pairs that stand half a row apart."""

    angle = Linear(of="x")

    def step(self, x, h):
        a, b = h.chunk(2, -1)
        turned = torch.cat([a * 0.6 - b * 0.8, a * 0.8 + b * 0.6], -1)
        return tanh(0.9 * turned + self.angle(x))


MAKERS = {
    name: lambda *sizes, name=name: cells.make(name, *sizes, **F64)
    for name in (
        *("rnn", "indrnn", "lstm", "lstm-peephole", "lstm-projected", "lstm-layer-norm"),
        *("gru", "gru-reset-before", "mgu", "rhn", "mingru", "lru", "qrnn", "sru-peephole", "mlp"),
    )
} | {cell.__name__: lambda *sizes, cell=cell: cell(*sizes, **F64) for cell in (Pair, Rotating)}


def call_of(cell, steps, batch, reverse=False, padded=False, resets=False, seed=0):
    draw = torch.Generator().manual_seed(seed)

    def some(*shape):
        return torch.randn(shape, generator=draw, **F64).requires_grad_()

    x, lengths, again = some(steps, batch, cell.input_size), None, None
    if padded:
        lengths = torch.randint(0, steps + 1, (batch,), generator=draw)
        with torch.no_grad():
            x[torch.arange(steps).unsqueeze(1) >= lengths] = 0
    if resets:
        again = torch.rand(steps, batch, generator=draw) < 0.1
        if lengths is not None:
            again &= torch.arange(steps).unsqueeze(1) < lengths
    states = [tuple(some(batch, size) for size in cell.state_sizes) for _ in range(2)]
    return Call(x, *states, reverse, lengths, again, True)


def compare(cell, call, agree, gradients, tolerance=1e-9):
    weights = cell.state_dict(keep_vars=True)
    received, expected = (e.run(cell, weights, call) for e in (newton, reference))
    agree(received, expected, tolerance)
    inputs = [call.x, *call.state, *call.start, *cell.parameters()]
    agree(gradients(received, inputs), gradients(expected, inputs), tolerance)


@pytest.mark.parametrize("name", MAKERS)
@settings(max_examples=6)
@given(
    steps=st.integers(1, 70), batch=st.integers(1, 4), units=st.integers(1, 3).map(lambda n: 2 * n),
    reverse=st.booleans(), padded=st.booleans(), resets=st.booleans(), seed=st.integers(0, 99),
)  # fmt: skip
@example(steps=200, batch=2, units=6, reverse=False, padded=False, resets=False, seed=0)
@example(steps=100, batch=4, units=4, reverse=True, padded=True, resets=True, seed=1)
def test_it_is_the_loop(name, agree, gradients, steps, batch, units, reverse, padded, resets, seed):
    torch.manual_seed(seed)
    cell = MAKERS[name](3, units)
    call = call_of(cell, steps, batch, reverse, padded, resets, seed)
    with Newton() as found:
        compare(cell, call, agree, gradients)
    for solved in found.solved:
        assert solved.iterations <= (99 if name == "lstm-layer-norm" else 12)
        assert solved.residual <= 1e-11


def test_a_network_of_layers_and_directions(agree, gradients):
    rnn = elman.LSTM(3, 5, num_layers=2, bidirectional=True, **F64)
    x, lengths = torch.randn(40, 3, 3, **F64, requires_grad=True), torch.tensor([40, 7, 23])
    expected = rnn(x, lengths=lengths)
    with elman.engine("newton"), Newton() as found:
        received = rnn(x, lengths=lengths)
    agree(received, expected)
    inputs = [x, *rnn.parameters()]
    agree(gradients(received, inputs), gradients(expected, inputs))
    assert [(s.cell, s.steps, s.jacobian) for s in found.solved] == [("LSTM", 40, "dense")] * 4


def test_it_is_never_chosen_and_can_be_forced():
    rnn = elman.GRU(2, 3)
    assert rnn.engine != "newton"
    with elman.engine("newton"):
        assert rnn.engine == "newton"


# -- how it solves --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "jacobian"),
    [
        *(("gru", "diagonal"), ("lstm", "diagonal"), ("lstm", "block"), ("Pair", "diagonal")),
        *(("Pair", "dense"), ("indrnn", "dense"), ("mingru", "block"), ("mlp", "diagonal")),
    ],
)
def test_another_part_of_the_jacobian_gives_the_same(name, jacobian, agree, gradients):
    torch.manual_seed(0)
    cell = MAKERS[name](3, 6)
    call = call_of(cell, 80, 2, padded=True, resets=True)
    with Newton(jacobian=jacobian, tolerance=1e-13) as found:
        compare(cell, call, agree, gradients)
    with Newton(jacobian="dense") as whole:
        newton.run(cell, cell.state_dict(), call)
    assert whole.solved[0].iterations <= found.solved[0].iterations <= 60


def test_damping_costs_iterations_and_changes_nothing(agree, gradients):
    cell = MAKERS["gru"](3, 4)
    call = call_of(cell, 30, 2)
    counts = []
    for damping in (0.0, 0.5, 1.0):
        with Newton(damping=damping, tolerance=1e-13) as found:
            compare(cell, call, agree, gradients)
        counts.append(found.solved[0].iterations)
    assert counts[0] < counts[1] < counts[2] <= 30


def test_as_many_iterations_as_steps_always_suffice(agree):
    """Without any Jacobian, and where the steps amplify: the first k states are right after k."""
    cell = chaotic(20)
    call = call_of(cell, 25, 2)
    weights = cell.state_dict()
    with torch.no_grad(), Newton(damping=1.0) as found:
        agree(newton.run(cell, weights, call), reference.run(cell, weights, call))
    assert found.solved[0].iterations == 25


def test_float32_is_as_good_as_the_loop(agree):
    torch.manual_seed(0)
    rnn, x = elman.LSTM(3, 16), torch.randn(1_000, 2, 3)
    expected = rnn(x)
    with elman.engine("newton"), Newton() as found:
        agree(rnn(x), expected, 1e-4)
    assert found.solved[0].residual <= 1e-5


# -- what cannot be solved ------------------------------------------------------------------------


def chaotic(units):
    """h' = tanh(W x + U h), the spectral radius of U three."""
    torch.manual_seed(0)
    cell = cells.make("rnn", 3, units, **F64)
    u = torch.randn(units, units, **F64)
    with torch.no_grad():
        cell.weight_hh.copy_(3 * u / torch.linalg.eigvals(u).abs().max())
        cell.weight_ih.mul_(0.1)
    return cell


def test_chaos_is_told(agree):
    """Tell, and tell why: at this spectral radius no iteration reaches a thousand steps."""
    cell = chaotic(40)
    x = torch.randn(1_000, 1, 3, **F64)
    with elman.engine("newton"), pytest.raises(elman.InputError) as error:
        elman.Recurrent(cell)(x)
    for word in ("Elman over 1,000 steps", "largest Lyapunov exponent is +", "amplify", "auto"):
        assert word in str(error.value)


def test_too_few_iterations_are_told():
    cell = MAKERS["lstm"](3, 4)
    call, weights = call_of(cell, 50, 2), cell.state_dict(keep_vars=True)
    said = r"LSTM .*after 2 iterations.* more iterations"
    with Newton(iterations=2), pytest.raises(elman.InputError, match=said):
        newton.run(cell, weights, call)
    with Newton(jacobian="diagonal") as options:
        result = newton.run(cell, weights, call)
    options.iterations = 2
    with pytest.raises(elman.InputError, match="has not solved the gradient of LSTM"):
        result.y.sum().backward()


def test_gradients_of_gradients_are_refused():
    rnn, x = elman.GRU(2, 3, **F64), torch.randn(5, 2, 2, **F64, requires_grad=True)
    with elman.engine("newton"):
        y, _ = rnn(x)
    with pytest.raises(elman.InputError, match=r"first derivatives.*engine\('reference'\)"):
        torch.autograd.grad(y.sum(), x, create_graph=True)


@pytest.mark.parametrize(
    "options",
    [{"jacobian": "sparse"}, {"damping": 2.0}, {"tolerance": 0.0}, {"iterations": 0}],
)
def test_options_that_are_none(options):
    with pytest.raises(elman.InputError, match=f"{next(iter(options))} must"):
        Newton(**options)


def test_a_step_that_mixes_its_rows_is_refused():
    class Mixing(elman.Cell):
        net = Affine()

        def step(self, z, h):
            return tanh(z - z.mean(0, keepdim=True))

    with elman.engine("newton"), pytest.raises(elman.InputError, match="every row of the batch"):
        elman.Recurrent(Mixing(2, 3))(torch.randn(4, 2, 2))


@pytest.mark.filterwarnings("ignore:.*torch.jit.trace:DeprecationWarning")
def test_half_precision_and_compilers_are_refused():
    rnn = elman.GRU(2, 3)
    with elman.engine("newton"):
        with pytest.raises(elman.InputError, match="float32 and float64"):
            rnn.bfloat16()(torch.randn(4, 1, 2, dtype=torch.bfloat16))
        rnn.float()
        with pytest.raises(elman.InputError, match="depends on the numbers"):
            torch.jit.trace(rnn, torch.randn(4, 1, 2))


# -- around it ------------------------------------------------------------------------------------


def test_an_option_that_changes_what_is_read(agree):
    class Either(elman.Cell):
        """Its units read themselves or each other."""

        net, own = Linear(of="h"), Diagonal()
        drive = Linear(of="x")
        apart = True

        def step(self, x, h):
            return tanh(self.drive(x) + (self.own * h if self.apart else self.net(h)))

    rnn = elman.Recurrent(Either(2, 4, **F64))
    x = torch.randn(30, 2, 2, **F64)
    for apart, jacobian in ((True, "diagonal"), (False, "dense")):
        rnn.cells[0].apart = apart
        with elman.engine("reference"):
            expected = rnn(x)
        with elman.engine("newton"), Newton() as found:
            agree(rnn(x), expected)
        assert found.solved[0].jacobian == jacobian


def test_inference_mode_and_autocast(agree):
    rnn, x = elman.GRU(3, 4), torch.randn(20, 2, 3)
    expected = rnn(x)
    with elman.engine("newton"):
        with torch.inference_mode():
            y, state = rnn(x)
        agree((y, state), expected, 1e-4)
        assert not y.requires_grad
        with torch.autocast("cpu"):
            low, _ = rnn(x)
            (found,) = torch.autograd.grad(low.sum(), [rnn.weight_hh_l0])
    assert low.dtype == torch.float32
    agree(low, expected[0], 1e-4)
    agree(found, torch.autograd.grad(expected[0].sum(), [rnn.weight_hh_l0])[0], 1e-3)


def test_a_gradient_that_is_not_finite_is_passed_on():
    rnn, x = elman.GRU(2, 3), torch.randn(6, 1, 2, requires_grad=True)
    with elman.engine("newton"):
        y, _ = rnn(x)
    (y.sum() * math.inf).backward()
    assert x.grad.isnan().all()
