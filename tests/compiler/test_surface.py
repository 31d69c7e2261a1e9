"""The whole surface of torch that a step may use, on every engine that takes it.

Each function is used in a step. Those that the tracer accepts are put together, a dozen to a cell,
each with a state of its own, and run on the native engine; all of them run in a linear recurrence
by scan. Outputs and gradients are compared with the reference engine's. How many compile and how
many fall back is printed at the end of the tests' output.
"""

import warnings

import pytest
import torch
import torch.nn.functional as F

import elman
from elman import Affine, Cell, Linear
from elman.cells import LinearRecurrence
from elman.engines import native

REALS = {"double": torch.float64, "float": torch.float32}
SIZES = (1, 3, 19)
TOGETHER = 12

# What each function is given: a, b any numbers; p > 0; u in (−1, 1); m, n true or false.

OF_ONE = {
    "a": [
        "abs", "asinh", "atan", "ceil", "cos", "cosh", "deg2rad", "erf", "erfc", "exp", "exp2",
        "expm1", "fix", "floor", "frac", "nan_to_num", "neg", "positive", "rad2deg", "relu",
        "round", "sgn", "sigmoid", "sign", "signbit", "sin", "sinc", "sinh", "square", "tanh",
        "trunc", "isnan", "isinf", "isfinite", "isposinf", "logical_not", "i0", "clone",
        "celu", "selu", "special.expit", "special.erfcx", "special.ndtr", "special.log_ndtr",
        "special.i0e", "special.i1", "special.sinc", "special.round", "bool",
        "nn.functional.elu", "nn.functional.gelu", "nn.functional.hardshrink",
        "nn.functional.hardsigmoid", "nn.functional.hardswish", "nn.functional.hardtanh",
        "nn.functional.leaky_relu", "nn.functional.logsigmoid", "nn.functional.mish",
        "nn.functional.relu6", "nn.functional.rrelu", "nn.functional.silu",
        "nn.functional.softplus", "nn.functional.softshrink", "nn.functional.softsign",
        "nn.functional.tanhshrink",
    ],
    "p": [
        "digamma", "lgamma", "log", "log10", "log1p", "log2", "reciprocal", "rsqrt", "sqrt",
        "special.entr", "special.psi", "special.gammaln",
    ],
    "u": ["acos", "asin", "atanh", "erfinv", "tan", "special.erfinv"],
    "m": ["logical_not", "bitwise_not"],
}  # fmt: skip

OF_TWO = {
    "ab": [
        "add", "sub", "rsub", "mul", "atan2", "maximum", "minimum", "fmax", "fmin", "hypot",
        "logaddexp", "logaddexp2", "copysign", "gt", "ge", "lt", "le", "eq", "ne", "logical_and",
        "logical_or", "logical_xor", "heaviside", "ldexp", "nn.functional.mse_loss",
    ],
    "ap": [
        "div", "true_divide", "floor_divide", "remainder", "fmod", "xlogy", "special.xlog1py",
        "special.xlogy",
    ],
    "pa": ["pow", "float_power"],
    "mn": [
        "logical_and", "logical_or", "logical_xor", "bitwise_and", "bitwise_or", "bitwise_xor",
        "eq", "ne",
    ],
    "am": ["mul", "add"],
}  # fmt: skip

OTHERS = {
    # pointwise, with options
    "add_alpha": lambda a, b, p, u: torch.add(a, b, alpha=0.5),
    "sub_alpha": lambda a, b, p, u: torch.sub(a, b, alpha=0.5),
    "div_floor": lambda a, b, p, u: torch.div(a, p, rounding_mode="floor"),
    "div_trunc": lambda a, b, p, u: torch.div(a, p, rounding_mode="trunc"),
    "scalars": lambda a, b, p, u: 2 - a / 3 + (1 / p) * -0.5 + 3 // p,
    "pow_0": lambda a, b, p, u: a**0 + b,
    "pow_2": lambda a, b, p, u: a**2,
    "pow_3": lambda a, b, p, u: a**3,
    "pow_7": lambda a, b, p, u: u**7,
    "pow_-3": lambda a, b, p, u: p**-3,
    "pow_half": lambda a, b, p, u: p**0.5 + p**-0.5,
    "pow_1.7": lambda a, b, p, u: p**1.7,
    "pow_scalar_base": lambda a, b, p, u: 3.0**u,
    "lerp": lambda a, b, p, u: torch.lerp(a, b, 0.3),
    "lerp_large": lambda a, b, p, u: torch.lerp(a, b, 0.8),
    "lerp_tensor": lambda a, b, p, u: torch.lerp(a, b, u),
    "addcmul": lambda a, b, p, u: torch.addcmul(a, b, u, value=0.3),
    "addcdiv": lambda a, b, p, u: torch.addcdiv(a, b, p, value=0.3),
    "clamp": lambda a, b, p, u: a.clamp(-0.3, 0.4),
    "clamp_min": lambda a, b, p, u: torch.clamp_min(a, 0.1),
    "clamp_max": lambda a, b, p, u: torch.clamp_max(a, 0.1),
    "clamp_tensors": lambda a, b, p, u: torch.clamp(a, b, b + p),
    "clip": lambda a, b, p, u: torch.clip(a, max=0.2),
    "where": lambda a, b, p, u: torch.where(a > b, a * b, p),
    "where_number": lambda a, b, p, u: torch.where(a > 0, a, 0.5),
    "where_row": lambda a, b, p, u: torch.where(a.sum(-1, keepdim=True) > 0, a, b),
    "masked_fill": lambda a, b, p, u: a.masked_fill(b > 0, 0.7),
    "threshold": lambda a, b, p, u: F.threshold(a, 0.1, 0.2),
    "gelu_tanh": lambda a, b, p, u: F.gelu(a, approximate="tanh"),
    "elu_alpha": lambda a, b, p, u: F.elu(a, 0.7),
    "softplus_beta": lambda a, b, p, u: F.softplus(a, 2.0, 1.0),
    "leaky_relu_slope": lambda a, b, p, u: F.leaky_relu(a, 0.2),
    "hardtanh_range": lambda a, b, p, u: F.hardtanh(a, -0.3, 0.2),
    "logit": lambda a, b, p, u: torch.logit(torch.sigmoid(a)),
    "logit_eps": lambda a, b, p, u: torch.logit(torch.sigmoid(a), 0.4),
    "cast": lambda a, b, p, u: (a > b).to(a.dtype) * a + (a > 0).float().to(a.dtype),
    "type_as": lambda a, b, p, u: (a > b).type_as(a),
    "acosh": lambda a, b, p, u: torch.acosh(1 + p),
    "round_tens": lambda a, b, p, u: torch.round(30 * a, decimals=-1),
    "copysign_number": lambda a, b, p, u: torch.copysign(a, -1.0),
    "xlogy_number": lambda a, b, p, u: torch.xlogy(a, 2.0) + torch.xlogy(0.5, p),
    "round_decimals": lambda a, b, p, u: torch.round(a, decimals=1),
    "zeros_like": lambda a, b, p, u: torch.zeros_like(a) + torch.ones_like(b) + b,
    "full_like": lambda a, b, p, u: torch.full_like(a, 0.3) * b,
    "new_full": lambda a, b, p, u: a.new_full(a.shape, 0.3) * b + a.new_zeros(()) + a.new_ones(1),
    "arange": lambda a, b, p, u: a * torch.arange(a.shape[-1], dtype=a.dtype),
    "in_place": lambda a, b, p, u: (a * 1.0).mul_(0.5).add_(b),
    "detach": lambda a, b, p, u: a.detach() * b,
    "data": lambda a, b, p, u: a.data * b,
    "prelu": lambda a, b, p, u: F.prelu(a, torch.tensor([0.3], dtype=a.dtype)),
    # reductions
    "sum": lambda a, b, p, u: a.sum(-1, keepdim=True),
    "sum_dropped": lambda a, b, p, u: a.sum(-1).unsqueeze(-1),
    "mean": lambda a, b, p, u: a.mean(-1, keepdim=True),
    "var": lambda a, b, p, u: a.var(-1, unbiased=False, keepdim=True),
    "var_correction": lambda a, b, p, u: torch.cat([a, b], -1).var(-1, keepdim=True),
    "std": lambda a, b, p, u: torch.cat([a, b], -1).std(-1, keepdim=True),
    "var_mean": lambda a, b, p, u: sum(torch.var_mean(torch.cat([a, b], -1), -1, keepdim=True)),
    "amax": lambda a, b, p, u: a.amax(-1, keepdim=True),
    "amin": lambda a, b, p, u: a.amin(-1, keepdim=True),
    "aminmax": lambda a, b, p, u: torch.sub(*torch.aminmax(a, dim=-1, keepdim=True)),
    "max_dim": lambda a, b, p, u: a.max(-1, keepdim=True).values,
    "min_dim": lambda a, b, p, u: a.min(-1, keepdim=True)[0],
    "argmax": lambda a, b, p, u: a.argmax(-1, keepdim=True).to(a.dtype),
    "prod": lambda a, b, p, u: u.prod(-1, keepdim=True),
    "logsumexp": lambda a, b, p, u: a.logsumexp(-1, keepdim=True),
    "norm": lambda a, b, p, u: a.norm(dim=-1, keepdim=True),
    "norm_1": lambda a, b, p, u: a.norm(1, dim=-1, keepdim=True),
    "norm_3": lambda a, b, p, u: a.norm(3, dim=-1, keepdim=True),
    "norm_inf": lambda a, b, p, u: a.norm(float("inf"), dim=-1, keepdim=True),
    "vector_norm": lambda a, b, p, u: torch.linalg.vector_norm(a, dim=-1, keepdim=True),
    "nansum": lambda a, b, p, u: a.nansum(-1, keepdim=True),
    "nanmean": lambda a, b, p, u: a.nanmean(-1, keepdim=True),
    "all": lambda a, b, p, u: (a > b).all(-1, keepdim=True),
    "any": lambda a, b, p, u: (a > b).any(-1, keepdim=True),
    "sum_of_mask": lambda a, b, p, u: (a > b).sum(-1, keepdim=True),
    "count_nonzero": lambda a, b, p, u: (a > b).count_nonzero(-1).unsqueeze(-1),
    "median": lambda a, b, p, u: a.median(-1, keepdim=True).values,
    "cumsum": lambda a, b, p, u: a.cumsum(-1),
    "cumprod": lambda a, b, p, u: u.cumprod(-1),
    "softmax": lambda a, b, p, u: F.softmax(a, -1),
    "softmin": lambda a, b, p, u: F.softmin(a, -1),
    "log_softmax": lambda a, b, p, u: F.log_softmax(a, -1),
    "layer_norm": lambda a, b, p, u: F.layer_norm(torch.cat([a, b], -1), (2 * a.shape[-1],)),
    "layer_norm_weight": lambda a, b, p, u: F.layer_norm(
        a * b, a.shape[-1:], a.new_full(a.shape[-1:], 0.5), a.new_full(a.shape[-1:], 0.1)
    ),
    "rms_norm": lambda a, b, p, u: F.rms_norm(a, a.shape[-1:]),
    "normalize": lambda a, b, p, u: F.normalize(a, dim=-1),
    "cosine_similarity": lambda a, b, p, u: F.cosine_similarity(a, b, -1).unsqueeze(-1),
    "dot": lambda a, b, p, u: (a * b).sum(-1, keepdim=True) * u,
    "einsum": lambda a, b, p, u: torch.einsum("...i,...i->...", a, b).unsqueeze(-1),
    "sum_joined": lambda a, b, p, u: torch.cat([a, torch.ones_like(b[..., :1])], -1).sum(
        -1, keepdim=True
    ),
    "amax_joined": lambda a, b, p, u: torch.cat([a, torch.zeros_like(b)], -1).amax(
        -1, keepdim=True
    ),
    "mean_joined": lambda a, b, p, u: torch.cat([a, b.new_full(b.shape, 0.3)], -1).mean(
        -1, keepdim=True
    ),
    # shapes
    "cat": lambda a, b, p, u: torch.cat([a, b], -1),
    "cat_turned": lambda a, b, p, u: torch.cat([a[..., 1:], a[..., :1]], -1) * b,
    "hstack": lambda a, b, p, u: torch.concat([a, b, a], dim=-1),
    "chunk": lambda a, b, p, u: torch.cat([a, b], -1).chunk(2, -1)[1] * u,
    "split": lambda a, b, p, u: torch.cat([a, b], -1).split(a.shape[-1], -1)[1] * u,
    "tensor_split": lambda a, b, p, u: torch.cat([a, b], -1).tensor_split(2, -1)[0] * u,
    "narrow": lambda a, b, p, u: torch.cat([a, b], -1).narrow(-1, 1, a.shape[-1]),
    "slice": lambda a, b, p, u: torch.cat([a, b], -1)[..., 1:-1].sum(-1, keepdim=True),
    "slice_step": lambda a, b, p, u: torch.cat([a, b], -1)[..., ::2],
    "select": lambda a, b, p, u: a[..., 0].unsqueeze(-1) * b,
    "none": lambda a, b, p, u: a[..., None, :].squeeze(-2),
    "unsqueeze": lambda a, b, p, u: a.unsqueeze(-2).squeeze(-2),
    "unbind": lambda a, b, p, u: torch.stack(a.unbind(-1), -1),
    "stack": lambda a, b, p, u: torch.stack([a, b], -1).sum(-1),
    "flip": lambda a, b, p, u: a.flip(-1),
    "roll": lambda a, b, p, u: a.roll(1, -1),
    "repeat": lambda a, b, p, u: torch.cat([a, b], -1) * a.repeat(*[1] * (a.dim() - 1), 2),
    "repeat_interleave": lambda a, b, p, u: a.repeat_interleave(2, -1),
    "expand": lambda a, b, p, u: a[..., :1].expand_as(b) * b,
    "broadcast_to": lambda a, b, p, u: torch.broadcast_to(a[..., :1], b.shape) * b,
    "view_as": lambda a, b, p, u: a.view_as(b) * b.reshape(a.shape),
    "unflatten": lambda a, b, p, u: torch.cat([a, b], -1).unflatten(-1, (2, -1)).sum(-2),
    "flatten": lambda a, b, p, u: torch.stack([a, b], -2).flatten(-2),
    "transpose": lambda a, b, p, u: a.transpose(-1, -2).transpose(-1, -2),
    "pad": lambda a, b, p, u: F.pad(a, (1, 2), value=0.3),
    "index": lambda a, b, p, u: a[..., [0]] * b,
    "index_select": lambda a, b, p, u: a.index_select(-1, torch.tensor([0])) * b,
    "gather": lambda a, b, p, u: a.gather(-1, torch.zeros_like(a[..., :1], dtype=torch.long)),
    "sort": lambda a, b, p, u: a.sort(-1).values,
    "topk": lambda a, b, p, u: a.topk(1, -1).values,
    "outer": lambda a, b, p, u: (a.unsqueeze(-1) * b.unsqueeze(-2)).sum(-1),
    "matmul": lambda a, b, p, u: (a.unsqueeze(-2) @ b.unsqueeze(-1)).squeeze(-1),
    "glu": lambda a, b, p, u: F.glu(torch.cat([a, b], -1), -1),
    "diff": lambda a, b, p, u: torch.cat([a, b], -1).diff(dim=-1),
    "contiguous": lambda a, b, p, u: a.contiguous() * b,
}  # fmt: skip


def function(path):
    found = torch
    for name in path.split("."):
        found = getattr(found, name, None) or getattr(torch.Tensor, name)
    return found


def surface():
    """Every function by name, of (a, b, p, u)."""
    found = dict(OTHERS)
    for kinds, paths in (*OF_ONE.items(), *OF_TWO.items()):
        found |= {f"{path}({','.join(kinds)})": called(kinds, function(path)) for path in paths}
    return found


def called(kinds, function):
    def call(a, b, p, u):
        given = {"a": a, "b": b, "p": p, "u": u, "m": a > b, "n": a > u}
        return function(*(given[kind] for kind in kinds))

    return call


SURFACE = surface()


def applied(name, a, b, like):
    """A function's value as numbers of the width of ``like``."""
    p, u = 0.2 + 2 * torch.sigmoid(a), 0.9 * torch.tanh(a)
    out = SURFACE[name](a, b, p, u)
    if isinstance(out, (tuple, list)):
        out = out[0]
    out = out.to(like.dtype)
    return out if out.shape == like.shape else out.mean(-1, keepdim=True) + 0 * like


def within(z):
    """Numbers whose limit is no threshold: 2 tanh(z) is 2 or the number before it, by rounding."""
    return 1.9 * torch.tanh(z)


def cell_of(names, kind=Cell):
    """A cell with a state for each function."""

    class Surface(kind):
        state = ("h", *(f"s{k}" for k in range(len(names))))
        net = Affine("a b")

        def step(self, z, h, *states):
            new = [0.3 * h + 0.4 * torch.tanh(z.a) - 0.1 * z.b]
            for name, s in zip(names, states, strict=True):
                a, b = within(z.a + s), within(z.b - h)
                new.append(0.2 * s + 0.5 * applied(name, a, b, h))
            return tuple(new)

    Surface.__name__ = f"Surface of {', '.join(names)}"  # each is warned of by itself
    return Surface


def scan_of(name):
    """A linear recurrence whose coefficients and output use a function."""

    class Surface(LinearRecurrence):
        state = ("h", "c")
        first, second = Linear(of="x", bias=True), Linear(of="x", bias=True)

        def coefficients(self, x):
            a, b = within(self.first(x)), self.second(x)
            return torch.sigmoid(b), applied(name, a, b, b)

        def output(self, c, x):
            return torch.tanh(applied(name, within(c), self.second(x), c))

    return Surface


@pytest.fixture(scope="module")
def compiled():
    """The functions that the tracer accepts, by type of number."""
    return {
        label: [name for name in SURFACE if native.knows(cell_of([name])(2, 3), real)]
        for label, real in REALS.items()
    }


def compare(cell, real, engine, learns=True):
    torch.manual_seed(0)
    network = elman.Recurrent(cell).to(real)
    x = torch.randn(3, 2, 2, dtype=real, requires_grad=True)
    states = tuple(
        torch.randn(1, 2, size, dtype=real, requires_grad=True) for size in cell.state_sizes
    )

    def run(name):
        with elman.engine(name):
            y, last = network(x, states if len(states) > 1 else states[0], lengths=[3, 2])
        last = last if isinstance(last, tuple) else (last,)
        weights = [torch.linspace(-1, 1, t.numel(), dtype=real).view_as(t) for t in (y, *last)]
        loss = sum((w * t).sum() for w, t in zip(weights, (y, *last), strict=True))
        wanted = [x, *states, *network.parameters()]
        found = torch.autograd.grad(loss, wanted, allow_unused=True)
        given = zip(found, wanted, strict=True)
        return y, last, [torch.zeros_like(w) if g is None else g for g, w in given]

    (y, last, slopes), (y_, last_, slopes_) = run(engine), run("reference")
    limit = 2e-4 if real == torch.float32 else 1e-9
    for a, b in zip((y, *last, *slopes), (y_, *last_, *slopes_), strict=True):
        torch.testing.assert_close(a, b, rtol=limit, atol=limit, equal_nan=True)


PARTS = range(-(-len(SURFACE) // TOGETHER))


@pytest.mark.parametrize("label", REALS)
@pytest.mark.parametrize("part", PARTS)
def test_what_compiles_gives_the_reference_engines_numbers(part, label, compiled):
    names = compiled[label][part :: len(PARTS)]
    assert names
    for size in SIZES:
        cell = cell_of(names)(2, size)
        if native.knows(cell, REALS[label]):
            compare(cell, REALS[label], "native")
        else:  # at this width one of them has no kernel
            for name in names:
                one = cell_of([name])(2, size)
                if native.knows(one, REALS[label]):
                    compare(one, REALS[label], "native")


@pytest.mark.parametrize("name", SURFACE)
def test_what_does_not_compile_says_so_and_runs(name, compiled):
    if name in compiled["double"] and name in compiled["float"]:
        return
    network = elman.Recurrent(cell_of([name])(2, 3))
    x = torch.randn(3, 2, 2)
    try:
        with elman.engine("reference"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            right, _ = network(x)
    except elman.InputError:
        return  # PyTorch itself does not take it
    with pytest.warns(elman.EngineWarning, match=r"runs on the reference engine.*\.py:\d+"):
        y, _ = network(x)
    assert torch.equal(y, right)


@pytest.mark.parametrize("label", REALS)
@pytest.mark.parametrize("name", SURFACE)
def test_scans_give_the_reference_engines_numbers(name, label):
    for size in SIZES:
        try:
            compare(scan_of(name)(2, size), REALS[label], "reference")
        except (elman.InputError, RuntimeError):
            return  # PyTorch itself does not take it at this width
        with warnings.catch_warnings():  # of what would mix the steps, which is not done by scan
            warnings.filterwarnings("ignore", "Surface runs on the .* engine", elman.EngineWarning)
            compare(scan_of(name)(2, size), REALS[label], "auto")


def test_what_mixes_steps_is_not_done_by_scan():
    kind = type("Mixing", (scan_of("nn.functional.mse_loss(a,b)"),), {})
    network = elman.Recurrent(kind(2, 3))
    with pytest.warns(elman.EngineWarning, match=r"must treat every step by itself"):
        network(torch.randn(4, 2, 2))


def test_how_much_compiles(compiled, record_property):
    for label, names in compiled.items():
        rest = [name for name in SURFACE if name not in names]
        record_property(
            "summary",
            f"native engine, {label}: of {len(SURFACE)} functions of torch {len(names)} compile, "
            f"{len(rest)} fall back: {', '.join(rest)}",
        )
    assert compiled["double"] == compiled["float"]
    assert len(compiled["double"]) >= 190
