"""Every rule against the operator that it writes in simpler ones, at its kinks too."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import tanh

import elman
from elman import Affine, Cell, Linear
from elman.compiler import reductions  # noqa: F401 # enters its rules
from elman.compiler.decompositions import DECOMPOSITIONS, WITHOUT_KERNEL
from elman.compiler.gradient_decompositions import GRADIENTS
from elman.compiler.lower import decompose
from elman.compiler.ops import GRADIENTS as OWN_GRADIENTS

aten = torch.ops.aten
OWN = {getattr(aten, name).default: rule for name, rule in OWN_GRADIENTS.items()}
RULES = DECOMPOSITIONS | GRADIENTS | OWN
KINKS = [0.0, 0.1, 0.5, 1.0, 2.0, 3.0, 6.0, 20.0, 30.0, 100.0, 1000.0, math.inf]
KINKS = [*KINKS, *(-k for k in KINKS), math.nan, 0.3, -0.7, 1.7, -2.2, 4.4, -5.5, 1e-20, -1e-20]
USUAL = [0.3, -0.7, 1.7, -2.2, 0.0, 4.4, -5.5, 30.0]

x, other = torch.tensor(KINKS).reshape(3, -1), torch.tensor(KINKS).flip(0).reshape(3, -1)
g = torch.linspace(-1, 1, x.numel()).reshape(x.shape) + 0.3
row, to_row = torch.tensor([USUAL, USUAL[::-1]]), torch.linspace(-1, 1, 16).reshape(2, 8)
width = [row.shape[-1]]
normal = aten.native_layer_norm.default(row.double(), width, None, None, 1e-3)
ends = torch.tensor([[-math.inf] * 8, [*[-math.inf] * 7, 1.0]])
mask = x > 0.3

CASES = {
    aten.hardtanh.default: [(x,), (x, -0.5, 2.0)],
    aten.hardtanh_backward.default: [(g, x, -1.0, 1.0), (g, x, 0.0, 6.0)],
    aten.hardsigmoid.default: [(x,)],
    aten.hardsigmoid_backward.default: [(g, x)],
    aten.hardswish.default: [(x,)],
    aten.hardswish_backward.default: [(g, x)],
    aten.leaky_relu.default: [(x, 0.2)],
    aten.leaky_relu_backward.default: [(g, x, 0.2, False)],
    aten._prelu_kernel.default: [(x, other)],
    aten._prelu_kernel_backward.default: [(g, x, other)],
    aten.elu.default: [(x,), (x, 1.5, 2.0, 0.5)],
    aten.elu_backward.default: [
        (g, 1.5, 2.0, 0.5, False, x), (g, 1.5, 2.0, 1.0, True, F.elu(x, 1.5)),
    ],
    aten.celu.default: [(x, 1.5)],
    aten.softplus.default: [(x,), (x, 2.0, 3.0)],
    aten.softplus_backward.default: [(g, x, 1.0, 20.0), (g, x, 2.0, 3.0)],
    aten.log_sigmoid_forward.default: [(x,)],
    aten.log_sigmoid_backward.default: [(g, x, torch.exp(-x.double().abs()))],
    aten.silu.default: [(x,)],
    aten.silu_backward.default: [(to_row, row)],
    aten.mish.default: [(x,)],
    aten.mish_backward.default: [(to_row, row)],
    aten.gelu.default: [(row * 20,), (row, "tanh")],
    aten.gelu_backward.default: [(to_row, row), (to_row, row, "tanh")],
    aten.glu.default: [(row, -1)],
    aten.glu_backward.default: [(to_row[:, :4], row, -1)],
    aten.threshold.default: [(x, 0.5, 2.0)],
    aten.hardshrink.default: [(x,)],
    aten.hardshrink_backward.default: [(g, x, 0.5)],
    aten.softshrink.default: [(x,)],
    aten.softshrink_backward.default: [(g, x, 0.5)],
    aten.lerp.Tensor: [(row, row.flip(0), to_row)],
    aten.lerp.Scalar: [(row, row.flip(0), 0.3), (row, row.flip(0), 0.8)],
    aten.addcmul.default: [(x, other, g, 0.3)],
    aten.addcdiv.default: [(x, other, g, 0.3)],
    aten.logaddexp.default: [(x, other), (x, x)],
    aten.hypot.default: [
        (row * 1e-25, row.flip(0) * 1e-25), (row * 1e25, row), (row * 0, row * 0),
        (x, torch.full_like(x, math.nan)), (torch.full_like(x, -math.inf), x),
    ],
    aten.sinc.default: [(row,)],
    aten.tan.default: [(row,)],
    aten.log2.default: [(x,)],
    aten.log10.default: [(x,)],
    aten.logit.default: [(x,), (x, 0.1)],
    aten.logit_backward.default: [(g, x), (g, x, 0.1)],
    aten.deg2rad.default: [(row,)],
    aten.rad2deg.default: [(row,)],
    aten.ceil.default: [(x,)],
    aten.trunc.default: [(x,)],
    aten.frac.default: [(row,)],
    aten.isnan.default: [(x,)],
    aten.isinf.default: [(x,)],
    aten.isposinf.default: [(x,)],
    aten.signbit.default: [(x,), (x * 0,)],
    aten.xlogy.Tensor: [(x, other), (x, x.abs())],
    aten.xlogy.Scalar_Self: [(0.0, x), (0.7, x)],
    aten.xlogy.Scalar_Other: [(x, 0.0), (x, -1.0), (x, 1.7), (x, math.inf), (x, math.nan)],
    aten.sigmoid_backward.default: [(g, row.sigmoid().repeat(2, 3)[:3, :11])],
    aten.tanh_backward.default: [(g, row.tanh().repeat(2, 3)[:3, :11])],
    aten.threshold_backward.default: [(g, x, 0.0), (g, x, 0.5)],
    aten.masked_fill.Scalar: [(x, mask, 2.0)],
    aten.masked_fill.Tensor: [(x, mask, torch.tensor(2.0))],
    aten._efficientzerotensor.default: [([2, 3],)],
    aten.roll.default: [(row, [3], [-1]), (row, [-9], [1]), (row, [8], [1])],
    aten.constant_pad_nd.default: [
        (row, [2, 1], 0.5), (row, [-1, 2]), (row, [-3, -2]), (row, [0, 0]),
    ],
    aten.native_layer_norm.default: [
        (row, width, None, None, 1e-3), (row, width, row[0], row[1], 1e-3),
    ],
    aten.native_layer_norm_backward.default: [
        (to_row, row, width, *normal[1:], weight, weight, [True, learns, learns])
        for weight, learns in ((None, False), (row[1], True))
    ],
    aten._softmax.default: [(row, -1, False)],
    aten._softmax_backward_data.default: [(to_row, row.softmax(-1), -1, torch.float32)],
    aten._log_softmax.default: [(row, -1, False)],
    aten._log_softmax_backward_data.default: [(to_row, row.log_softmax(-1), -1, torch.float32)],
    aten.logsumexp.default: [(row, [-1], True), (row, [-1], False), (ends, [-1], True)],
    aten.std.correction: [(row, [-1], 1, True), (row, [-1], 0, False)],
    aten.std_mean.correction: [(row, [-1], 1, True)],
    aten.linalg_vector_norm.default: [
        (row, order, [-1], keep) for order in (1, 2, 3, math.inf) for keep in (True, False)
    ],
    aten.amin.default: [(x, [-1], True)],
    aten.binary_cross_entropy_with_logits.default: [
        (row, row.sigmoid(), None, None, 0), (row, row.sigmoid(), row.abs(), row.abs() + 0.5, 1),
    ],
}  # fmt: skip
"""Arguments for every operator, in the order of its schema."""
for loss, more in (("mse", ()), ("smooth_l1", (0.7,)), ("huber", (0.7,))):
    forward, backward = (getattr(aten, f"{loss}_loss{end}").default for end in ("", "_backward"))
    CASES[forward] = [(row, to_row, reduction, *more) for reduction in (0, 1, 2)]
    CASES[backward] = [(to_row, row, to_row, reduction, *more) for reduction in (0, 1)]

IN_PLACE = {
    aten.fill_.Scalar: (2.0,),
    aten.add_.Tensor: (to_row,),
    aten.sub_.Tensor: (to_row,),
    aten.mul_.Tensor: (to_row,),
    aten.div_.Tensor: (to_row,),
    aten.neg_.default: (),
    aten.logical_and_.default: (to_row > 0,),
    aten.logical_or_.default: (to_row > 0,),
    aten.logical_not_.default: (),
    aten.masked_fill_.Scalar: (to_row > 0, 2.0),
    aten.masked_fill_.Tensor: (to_row > 0, torch.tensor(2.0)),
    aten.clamp_min_.default: (0.5,),
    aten.clamp_max_.default: (0.5,),
}


def called(function, operator, arguments, real):
    """``function`` of arguments that are given as the operator's schema says, in this type."""
    positional, options = [], {}
    for declared, given in zip(operator._schema.arguments, arguments, strict=False):
        if isinstance(given, torch.Tensor) and given.is_floating_point():
            given = given.to(real)
        if given is torch.float32:
            given = real
        if declared.kwarg_only:
            options[declared.name] = given
        else:
            positional.append(given)
    out = function(*positional, **options)
    return [v for v in (out if isinstance(out, tuple) else [out]) if v is not None]


@pytest.mark.parametrize("real", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("operator", CASES, ids=str)
def test_a_rule_gives_what_its_operator_gives(operator, real):
    rtol, atol = (4e-6, 1e-6) if real == torch.float32 else (1e-12, 1e-13)
    for arguments in CASES[operator]:
        found = called(RULES[operator], operator, arguments, real)
        right = called(operator, operator, arguments, real)
        torch.testing.assert_close(found, right, rtol=rtol, atol=atol, equal_nan=True)


@pytest.mark.parametrize("operator", IN_PLACE, ids=str)
def test_a_change_in_place_is_a_new_value_under_the_old_name(operator):
    changed, right = ((row > 0 if "logical" in operator.name() else row).clone() for _ in range(2))
    out = RULES[operator](changed, *IN_PLACE[operator])
    operator(right, *IN_PLACE[operator])
    assert torch.equal(changed, right) and out.data_ptr() == changed.data_ptr()


def test_every_rule_is_tested():
    without = {aten.empty_like.default}  # whose numbers are anybody's
    assert RULES.keys() == CASES.keys() | IN_PLACE.keys() | without


def test_what_has_no_rule_is_refused_without_an_import():
    assert decompose(aten.cumsum.default) is None
    names = {operator.name().split("::")[1].split(".")[0] for operator in RULES}
    assert not names & WITHOUT_KERNEL


class Kinks(Cell):
    """States that start where functions have kinks and where a norm is zero."""

    state = ("h", "a", "b")
    net = Affine("x y z")

    def step(self, z, h, a, b):
        kinks = F.relu6(a) + F.hardtanh(b, 0.0, 2.0) + F.hardsigmoid(a - 3) + F.hardswish(b + 3)
        shrunk = F.softshrink(a + 0.5) + F.hardshrink(b - 0.5) + F.threshold(a, 0.0, 0.5)
        far = F.softplus(h + 800) + F.elu(a + 800) + F.mish(b + 800) + F.logsigmoid(a)
        rows = h.std(-1, keepdim=True) + torch.linalg.vector_norm(a, dim=-1, keepdim=True)
        h = tanh(z.x + kinks) + 0.01 * rows
        return h, tanh(z.y + shrunk), torch.lerp(b, tanh(z.z + 1e-3 * far), torch.sigmoid(a))


@pytest.mark.parametrize("real", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_gradients_at_kinks_and_far_out_are_those_of_the_reference(real):
    found = []
    torch.manual_seed(0)
    network = elman.Recurrent(Kinks(2, 5)).to(real)
    given = torch.randn(3, 2, 2, dtype=real)
    for engine in ("reference", "native"):
        start = [torch.zeros(1, 2, 5, dtype=real, requires_grad=True) for _ in range(3)]
        with elman.engine(engine):
            y, _ = network(given, tuple(start))
        weights = [*start, *network.parameters()]
        found.append([y, *torch.autograd.grad((y * torch.arange(10.0).view(2, 5)).sum(), weights)])
    close = {"rtol": 1e-5, "atol": 1e-5} if real == torch.float32 else {"rtol": 0, "atol": 1e-10}
    torch.testing.assert_close(found[1], found[0], **close)


@pytest.mark.parametrize("function", [F.silu, F.mish])
@pytest.mark.parametrize("real", [torch.float32, torch.float64])
def test_what_is_multiplied_by_a_sigmoid_is_0_far_below(function, real):
    class Far(Cell):
        state = ("h",)
        net = Linear(of="x")

        def step(self, x, h):
            return function(h) + self.net(x)

    network = elman.Recurrent(Far(1, 6)).to(real)
    far = torch.tensor([[[-50.0, -100.0, -800.0, -1e4, -1e30, -1e37]]], dtype=real)
    found = []
    for engine in ("reference", "native"):
        start = far.clone().requires_grad_()
        with elman.engine(engine):
            y, _ = network(torch.zeros(1, 1, 1, dtype=real), start)
        found.append((y, *torch.autograd.grad(y.sum(), start)))
    for right, ours in zip(*found, strict=True):
        torch.testing.assert_close(ours, right, rtol=1e-5, atol=1e-30)
