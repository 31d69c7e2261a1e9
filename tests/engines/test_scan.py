"""A linear recurrence scanned over time: the operator by itself, and the engine that uses it."""

import copy
import warnings

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import elman
from elman import Linear, cells
from elman.cells import LinearRecurrence
from elman.compiler import recurrence
from elman.compiler.cpu import build
from elman.compiler.cpu import scan as kernel
from elman.compiler.recurrence import Course
from elman.engines import reference, scan
from elman.engines.call import Call

F64 = {"dtype": torch.float64}


def by_hand(a, b, first, again, course):
    """A loop over time that shares nothing with either way of scanning."""

    def product(x, y):
        if not course.complex:
            return x * y
        (p, q), (re, im) = x.chunk(2, -1), y.chunk(2, -1)
        return torch.cat([p * re - q * im, p * im + q * re], -1)

    a, rows, c = a.expand_as(b), [None] * len(b), first
    for t in reversed(range(len(b))) if course.reverse else range(len(b)):
        before = c
        if course.resets is not None:
            before = torch.where(course.resets[t].unsqueeze(-1), again, c)
        after = product(a[t], before) + b[t]
        if course.lengths is not None:
            after = torch.where((t < course.lengths).unsqueeze(-1), after, c)
        rows[t] = c = after
    return torch.stack(rows), c


def drawn(steps, batch, units, fixed, padded, reset, reverse, complex, seed, dtype=torch.float64):
    torch.manual_seed(seed)
    width = 2 * units if complex else units

    def draw(*shape):
        return (0.7 * torch.randn(*shape, **F64)).to(dtype).requires_grad_()

    lengths = torch.randint(0, steps + 1, (batch,)) if padded else None
    resets = torch.rand(steps, batch) < 0.3 if reset else None
    if padded and reset:
        resets &= torch.arange(steps).unsqueeze(1) < lengths
    a = draw(width) if fixed else draw(steps, batch, width)
    again = draw(batch, width) if reset else None
    course = Course(resets, lengths, reverse, complex)
    return a, draw(steps, batch, width), draw(batch, width), again, course


@pytest.fixture(params=["kernel", "doubled"])
def way(request, monkeypatch):
    """Both ways of scanning: by the engine, and by PyTorch's operations."""
    if request.param == "doubled":
        monkeypatch.setattr(recurrence, "has_kernel", lambda c: False)
    return request.param


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])  # one way for all
@given(
    steps=st.integers(1, 9), batch=st.integers(1, 5), units=st.integers(1, 70),
    fixed=st.booleans(), padded=st.booleans(), reset=st.booleans(), reverse=st.booleans(),
    complex=st.booleans(), seed=st.integers(0, 99),
)  # fmt: skip
def test_it_is_the_loop(way, agree, gradients, **shape):
    *inputs, course = drawn(**shape)
    received, expected = recurrence.scan(*inputs, course), by_hand(*inputs, course)
    agree(received, expected)
    inputs = [i for i in inputs if i is not None]
    agree(gradients(received, inputs), gradients(expected, inputs))
    # Either output alone, and neither gradient of a where nobody asks for it.
    for k in (0, 1):
        agree(gradients(received[k], inputs[1:]), gradients(expected[k], inputs[1:]))


@pytest.mark.parametrize("complex", [False, True])
def test_single_precision(way, agree, complex):
    *inputs, course = drawn(50, 3, 37, False, True, True, True, complex, 0, torch.float32)
    doubles = [i.detach().double() for i in inputs]
    agree(recurrence.scan(*inputs, course), [c.float() for c in by_hand(*doubles, course)], 1e-5)


@pytest.mark.parametrize("complex", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("fixed", [False, True])
def test_gradients_of_gradients(way, complex, reverse, fixed):
    *inputs, course = drawn(3, 2, 2, fixed, True, True, reverse, complex, 4)
    assert torch.autograd.gradgradcheck(lambda *i: recurrence.scan(*i, course), inputs)


@pytest.mark.parametrize("complex", [False, True])
def test_the_same_bits_for_any_threads_and_other_rows(complex):
    *inputs, course = drawn(300, 5, 45, False, True, True, False, complex, 5)

    def run(rows=slice(None)):
        a, b, first, again = (i.detach()[..., rows, :].requires_grad_() for i in inputs)
        resets, lengths = course.resets[:, rows], course.lengths[rows]
        c, last = recurrence.scan(
            a, b, first, again, course._replace(resets=resets, lengths=lengths)
        )
        return c, last, *torch.autograd.grad(c.square().sum() + last.sum(), (a, b, first, again))

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        whole = run()
        for threads in (2, 3, 40):
            torch.set_num_threads(threads)
            assert all(torch.equal(x, y) for x, y in zip(whole, run(), strict=True))
            alone = run(slice(3, 4))
            assert all(torch.equal(x[..., 3:4, :], y) for x, y in zip(whole, alone, strict=True))
    finally:
        torch.set_num_threads(before)


def test_inputs_may_be_laid_out_in_any_way(agree):
    a, b, first, _, course = drawn(6, 4, 5, False, False, False, False, False, 6)
    turned = [v.detach().transpose(0, 1).contiguous().transpose(0, 1) for v in (a, b)]
    expected = by_hand(a, b, first, None, course)
    agree(recurrence.scan(*turned, first, None, course), expected)
    wide = first.detach()[:1].expand(4, 5)
    agree(recurrence.scan(a, b, wide, None, course), by_hand(a, b, wide, None, course))


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


# -- the engine -------------------------------------------------------------------------------


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


@pytest.mark.filterwarnings("ignore")
def test_the_operator_keeps_to_its_schema():
    *inputs, course = drawn(4, 3, 5, True, True, True, False, True, 7)
    torch.library.opcheck(torch.ops.elman.scan.default, (*inputs, *course))


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
