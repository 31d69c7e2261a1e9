"""What a step does in Python and in autograd, not only in PyTorch's operations, is what counts."""

import itertools
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import sigmoid, tanh

import elman
from elman import Affine, Cell, EngineWarning
from elman.engines import native

REALS = pytest.mark.parametrize("real", [torch.float64, torch.float32], ids=["double", "float"])


def of_step(step, **attributes):
    return type(step.__name__, (Cell,), {"net": Affine(), "step": step, **attributes})


def results(network, x, state, name):
    with elman.engine(name):
        y, last = network(x, state, lengths=[len(x), len(x) - 1, 0])
        loss = (y * torch.arange(y.numel(), dtype=y.dtype).view_as(y).cos()).sum() + last.sum()
        wanted = [x, state, *network.parameters()]
        gradients = torch.autograd.grad(loss, wanted, allow_unused=True)
    given = zip(gradients, wanted, strict=True)
    return [y, last, *(torch.zeros_like(t) if g is None else g for g, t in given)]


def compare(cell, real):
    """The native engine beside the reference engine."""
    torch.manual_seed(0)
    network = elman.Recurrent(cell).to(real)
    x = torch.randn(4, 3, cell.input_size, dtype=real, requires_grad=True)
    state = torch.randn(1, 3, cell.hidden_size, dtype=real, requires_grad=True)
    found, right = (results(network, x, state, name) for name in ("native", "reference"))
    limit = 1e-10 if real == torch.float64 else 2e-5
    for a, b in zip(found, right, strict=True):
        torch.testing.assert_close(a, b, rtol=limit, atol=limit)


# -- gradients that are not those of the operations ------------------------------------------------


class Spike(torch.autograd.Function):
    """A threshold, with the gradient of a soft one."""

    @staticmethod
    def forward(ctx, v, slope):
        ctx.save_for_backward(v)
        ctx.slope = slope
        return (v > 0).to(v.dtype)

    @staticmethod
    def backward(ctx, gradient):
        (v,) = ctx.saved_tensors
        return gradient / (1 + ctx.slope * v.abs()) ** 2, None


class Swapped(torch.autograd.Function):
    """Two values in, two out, set up apart; its gradient reads an output and is another's."""

    @staticmethod
    def forward(a, b):
        return a * b, a.tanh()

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs, output[1])

    @staticmethod
    def backward(ctx, product, squashed):
        a, _, y = ctx.saved_tensors
        return 3 * product + squashed * y, product * a


spike = Spike.apply


def spiking(self, z, h):
    return spike(z - h, 2.0) + 0.5 * tanh(h)


def spiking_input(self, z, h):
    return spike(z, 5.0) * h + tanh(z)


def swapped(self, z, h):
    product, squashed = Swapped.apply(z, h)
    return tanh(product) + squashed


def without_gradient(self, z, h):
    with torch.no_grad():
        k = sigmoid(z)
    return tanh(z) * k


def without_gradient_of_state(self, z, h):
    with torch.no_grad():
        k = sigmoid(z + h)
    return tanh(z - h) * k


def by_data(self, z, h):
    return tanh(z) * sigmoid(z).data + h.data


def detached(self, z, h):
    return tanh(z + h.detach()) + 0.1 * h


def straight_through(self, z, h):
    soft = sigmoid(z + h)
    return soft + ((soft > 0.5).to(h.dtype) - soft).detach()


@REALS
@pytest.mark.parametrize(
    "step",
    [
        spiking, spiking_input, swapped, without_gradient, without_gradient_of_state, by_data,
        detached, straight_through,
    ],
)  # fmt: skip
def test_gradients_are_those_that_the_step_says(step, real):
    compare(of_step(step)(2, 5), real)


@pytest.mark.parametrize("step", [spiking, detached])
def test_so_are_gradients_of_gradients(step):
    torch.manual_seed(0)
    network = elman.Recurrent(of_step(step)(2, 3), bidirectional=True).double()
    x = torch.randn(4, 2, 2, dtype=torch.float64, requires_grad=True)
    resets = torch.zeros(4, 2, dtype=torch.bool)
    resets[2, 0] = True

    def second(name):
        with elman.engine(name):
            y, state = network(x, resets=resets, lengths=[4, 3])
            wanted = [x, *network.parameters()]
            first = torch.autograd.grad((y**2).sum() + state.sum(), wanted, create_graph=True)
            return torch.autograd.grad(sum((g * g).sum() for g in first), wanted)

    for a, b in zip(second("native"), second("reference"), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def hooked(self, z, h):
    k = tanh(z + h)
    if k.requires_grad:
        k.register_hook(lambda gradient: 2 * gradient)
    return k * 1.0


def asks_whether_it_learns(self, z, h):
    return tanh(z + h) * (2.0 if h.requires_grad else 1.0)


@pytest.mark.parametrize(
    ("step", "why"),
    [(hooked, "register_hook"), (asks_whether_it_learns, "another output without a gradient")],
)
def test_what_cannot_be_seen_runs_on_the_reference_engine(step, why):
    with pytest.warns(EngineWarning, match=rf"{step.__name__} runs on the reference.*{why}.*\.py:"):
        elman.Recurrent(of_step(step)(2, 5))(torch.randn(4, 3, 2))


# -- Python beside the tensors ---------------------------------------------------------------------


def counting(self, z, h):
    self.t += 1
    return tanh(z) / self.t


@pytest.mark.parametrize("name", ["auto", "reference", "native"])
def test_a_step_that_keeps_a_count_is_refused(name):
    network = elman.Recurrent(of_step(counting, t=0)(2, 5))
    with (
        elman.engine(name),
        pytest.raises(elman.InputError, match=r"\.py:\d+\) sets self\.t.*state"),
    ):
        network(torch.randn(4, 3, 2))
    with elman.engine(name), pytest.raises(elman.InputError, match=r"sets self\.t"):
        network.step(torch.randn(3, 2))


def test_a_step_that_never_does_the_same_runs_on_the_reference_engine():
    clock = itertools.count(1)

    def ticking(self, z, h):
        return tanh(z) / next(clock)

    with pytest.warns(EngineWarning, match=r"same twice.*\.py:"):
        elman.Recurrent(of_step(ticking)(2, 5))(torch.randn(4, 3, 2))


def test_a_list_that_grows_is_seen():
    seen = []

    def growing(self, z, h):
        seen.append(1)
        return tanh(z + h) * len(seen)

    with pytest.warns(EngineWarning, match=r"same twice.*\.py:"):
        elman.Recurrent(of_step(growing)(2, 5))(torch.randn(4, 3, 2))


def test_a_count_that_seldom_matters_is_seen():
    """In none of the few steps that are compared, but by what the step reads afterwards."""
    count = [0]

    def seldom(self, z, h):
        count[0] += 1
        return tanh(z) * (2.0 if count[0] % 1000 == 0 else 1.0)

    with pytest.warns(EngineWarning, match=r"same twice.*\.py:"):
        elman.Recurrent(of_step(seldom)(2, 5))(torch.randn(4, 3, 2))


def test_a_small_gradient_is_compared_as_well():
    """Of steps as short as those of an ODE's solver, a lost gradient is as small."""

    def lost(self, z, h):
        k = tanh(z + h)
        if k.grad_fn is not None:
            k.grad_fn.register_prehook(lambda gradients: (0 * gradients[0],))
        return 0.99 * h + 1e-4 * k

    with pytest.warns(EngineWarning, match="another gradient of"):
        elman.Recurrent(of_step(lost)(2, 5))(torch.randn(4, 3, 2))


def test_a_step_that_cannot_be_compared_says_so():
    """It runs only where gradients are wanted."""

    def energetic(self, z, h):
        k = z * 1.0
        (slope,) = torch.autograd.grad((tanh(k) ** 2).sum(), k, create_graph=True)
        return 0.5 * h + slope

    with pytest.warns(EngineWarning, match=r"energetic.step failed \(.*\.py:"):
        elman.Recurrent(of_step(energetic)(2, 5))(torch.randn(4, 3, 2))


def test_what_was_compared_is_not_taken_for_a_step_that_differs_in_a_number():
    """Where the number is in a function of its own that no operation shows."""

    def passes(gradients):
        return (gradients[0] * 1.0,)

    def doubles(gradients):
        return (gradients[0] * 2.0,)

    def of(hook):
        def step(self, z, h):
            k = tanh(z + h)
            if k.grad_fn is not None:
                k.grad_fn.register_prehook(hook)
            return k * 1.0

        return elman.Recurrent(of_step(step)(2, 5))

    first = of(passes)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first(torch.randn(4, 3, 2))
    with pytest.warns(EngineWarning, match="another gradient of"):
        of(doubles)(torch.randn(4, 3, 2))


# -- constants and types ---------------------------------------------------------------------------


def lerp(self, z, h):
    return torch.lerp(h, tanh(z), 0.3)


def joined_with_ones(self, z, h):
    parts = torch.cat([h * h, torch.ones_like(h[..., :1])], -1)
    return tanh(z) / parts.sum(-1, keepdim=True)


def joined_with_zeros(self, z, h):
    parts = torch.cat([tanh(h), torch.zeros_like(h[..., :1])], -1)
    return tanh(z) + parts.amax(-1, keepdim=True)


def literals(self, z, h):
    return tanh(z + h) * torch.tensor(0.1) + torch.tensor(0.1, dtype=h.dtype)


def ranges(self, z, h):
    steps = torch.linspace(0, 1, h.shape[-1], dtype=h.dtype)
    return tanh(z + h) + steps + 0.1 * torch.arange(h.shape[-1])


def filled(self, z, h):
    tenth = torch.full((h.shape[-1],), 0.1)
    return tanh(z + h) * tenth if h.dtype == torch.float32 else tanh(z * tenth + h)


def cast_masks(self, z, h):
    return tanh(z) * (h > 0).to(h.dtype) + (z > h).float().to(z.dtype) + (h < 0).bool() * z


def masks_as_numbers(self, z, h):
    return tanh(z + h) * (h > 0) + (z > 0)


def row_masks(self, z, h):
    return torch.where(h.sum(-1, keepdim=True) > 0, tanh(z), h) * (
        (h > 0) & (z.mean(-1, keepdim=True) > 0)
    )


def powers(self, z, h):
    return tanh(z + h) ** 4 + (h * h + 1) ** 0.3 - (h * h + 1) ** -2 + 1.5 ** tanh(z)


def temporaries(self, z, h):
    z = z * 1.0
    z *= 0.5
    z += h
    return (2 * tanh(z)).add_(0.1)


def root_mean_square(self, z, h):
    return F.rms_norm(z + h, (h.shape[-1],))


def variance_of_one(self, z, h):
    return tanh(z) + torch.nan_to_num((z + h).var(-1, keepdim=True))


class Constants(Cell):
    net = Affine()

    @elman.Constant
    def tenth(self):
        return torch.full((self.hidden_size,), 0.1)

    @elman.Constant
    def even(self):
        return torch.arange(self.hidden_size) % 2 == 0

    @elman.Constant
    def number(self):
        return torch.arange(self.hidden_size)

    def step(self, z, h):
        odd = self.number % 2 == 1
        return torch.where(self.even, tanh(z + h), h * self.tenth) + 0.1 * z * self.number * odd


@REALS
@pytest.mark.parametrize(
    "step",
    [
        lerp, joined_with_ones, joined_with_zeros, literals, ranges, filled, cast_masks,
        masks_as_numbers, row_masks, powers, root_mean_square,
    ],
)  # fmt: skip
def test_constants_and_casts_are_those_of_the_reference_engine(step, real):
    for size in (1, 3, 19):
        compare(of_step(step)(2, size), real)


@REALS
def test_constants_keep_their_type(real):
    cell = Constants(2, 5)
    assert (cell.even.dtype, cell.number.dtype) == (torch.bool, torch.int64)
    compare(cell, real)
    exact = torch.full((5,), 0.1, dtype=torch.float64)
    assert torch.equal(elman.Recurrent(cell).double().cells[0].tenth, exact)


def rounded(self, z, h):
    return tanh(z.float()).to(h.dtype) + h


def test_a_change_of_precision_is_never_compiled_away():
    network = elman.Recurrent(of_step(rounded)(2, 5)).double()
    x = torch.randn(4, 3, 2, dtype=torch.float64)
    with pytest.warns(EngineWarning, match=r"turns a value into torch.float32"):
        y, _ = network(x)
    with elman.engine("reference"):
        assert torch.equal(y, network(x)[0])
    compare(of_step(rounded)(2, 5), torch.float32)


def test_temporaries_may_be_changed_in_place():
    network = elman.Recurrent(of_step(temporaries)(2, 5))
    x = torch.randn(4, 3, 2)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("error")
        y, _ = network(x)
        with elman.engine("reference"):
            torch.testing.assert_close(y, network(x)[0])


def test_a_change_in_place_that_autograd_refuses_is_told():
    def squashed(self, z, h):
        k = tanh(z + h)
        k *= 0.5  # the gradient of tanh reads what it was before
        return k

    with (
        pytest.warns(EngineWarning, match=r"cannot differentiate its step \(.*\.py:\d+\)"),
        pytest.raises(RuntimeError, match="inplace"),
    ):
        elman.Recurrent(of_step(squashed)(2, 5))(torch.randn(4, 3, 2))[0].sum().backward()


@pytest.mark.parametrize(
    ("step", "why"),
    [
        (lambda self, z, h: F.dropout(tanh(z + h), 0.5), "random numbers.*zoneout"),
        (lambda self, z, h: tanh(z) + h.mean(), "over the batch"),
        (
            lambda self, z, h: F.conv1d(z.unsqueeze(1), torch.ones(1, 1, 1)).squeeze(1),
            "convolution",
        ),
        (lambda self, z, h: tanh(z).view(5, -1).t(), r"\(B, 5\) to \(5, B\)|no kernel"),
        (lambda self, z, h: tanh(z).view(1, -1).view(-1, 5), r"\(B, 5\) to \(1, 5·B\)"),
        (lambda self, z, h: torch.nn.Linear(5, 5)(z), "makes weights.*declared as Affine"),
    ],
)
def test_messages_name_the_line_and_no_number_of_rows_that_was_made_up(step, why):
    step.__name__ = "step"
    with pytest.warns(EngineWarning, match=why) as warned:
        elman.Recurrent(of_step(step)(2, 5))(torch.randn(4, 3, 2))
    assert ".py:" in str(warned[0].message)
    assert "97" not in str(warned[0].message).split("(", 1)[1].replace(__file__, "")


# -- what surrounds the first call -----------------------------------------------------------------


def test_numpy_in_a_step_is_told_what_to_use_instead():
    def by_numpy(self, z, h):
        return np.tanh(z)

    def by_way_of_numpy(self, z, h):
        return torch.from_numpy(np.tanh(z.detach().numpy()))

    x = torch.randn(4, 3, 2)
    with pytest.raises(elman.InputError, match=r"\.py:\d+\) .* use torch's functions in that line"):
        elman.Recurrent(of_step(by_numpy)(2, 5))(x)
    with pytest.warns(EngineWarning, match=r"beside PyTorch.*no gradient.*torch\.tanh"):
        elman.Recurrent(of_step(by_way_of_numpy)(2, 5))(x)


def test_types_that_pytorch_makes_by_default_are_part_of_the_step():
    cell = of_step(lambda self, z, h: tanh(z + h) * torch.full((5,), 0.1).sum(-1, keepdim=True))
    before = torch.get_default_dtype()
    try:
        for default in (torch.float32, torch.float64):
            torch.set_default_dtype(default)
            compare(cell(2, 5), torch.float64)
    finally:
        torch.set_default_dtype(before)


def test_the_comparison_is_made_once(monkeypatch, tmp_path):
    monkeypatch.setenv("ELMAN_CACHE", str(tmp_path))
    monkeypatch.setattr(native.cache, "_marks", set())
    asked = []
    real_check = native.check
    monkeypatch.setattr(native, "check", lambda *a: asked.append(1) or real_check(*a))
    for _ in range(3):  # a class of its own each time, but the same step
        cell = of_step(lerp)(2, 5)
        elman.Recurrent(cell)(torch.randn(4, 3, 2))
    assert len(asked) == 1
