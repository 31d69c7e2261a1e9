"""A linear recurrence over time: a loop by hand, a kernel, and PyTorch's operations agree."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import elman.compiler.cpu  # noqa: F401
from elman.compiler import recurrence
from elman.compiler.recurrence import Course

F64 = {"dtype": torch.float64}


def by_hand(a, b, first, again, course):
    """A loop over time that shares nothing with either way of scanning."""

    def product(x, y):
        if not course.complex:
            return x * y
        (p, q), (re, im) = x.chunk(2, -1), y.chunk(2, -1)
        return torch.cat([p * re - q * im, p * im + q * re], -1)

    a, after_each, c = a.expand_as(b), [None] * len(b), first
    for t in reversed(range(len(b))) if course.reverse else range(len(b)):
        before = c
        if course.resets is not None:
            before = torch.where(course.resets[t].unsqueeze(-1), again, c)
        after = product(a[t], before) + b[t]
        if course.lengths is not None:
            after = torch.where((t < course.lengths).unsqueeze(-1), after, c)
        after_each[t] = c = after
    return torch.stack(after_each), c


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
    # As many numbers as a row has units, but one for each step and row.
    gate, many = torch.rand(2, 4, 1).double(), torch.randn(2, 4, 8).double()
    begin = torch.zeros(4, 8).double()
    agree(
        recurrence.scan(gate, many, begin, None, course._replace(resets=None, lengths=None)),
        by_hand(gate.expand(2, 4, 8), many, begin, None, course),
    )
    wide = first.detach()[:1].expand(4, 5)
    agree(recurrence.scan(a, b, wide, None, course), by_hand(a, b, wide, None, course))


@pytest.mark.filterwarnings("ignore")
def test_the_operator_keeps_to_its_schema():
    *inputs, course = drawn(4, 3, 5, True, True, True, False, True, 7)
    torch.library.opcheck(torch.ops.elman.scan.default, (*inputs, *course))
