"""Operations without a kernel, written in simpler ones: one rule for each operator of PyTorch's.

PyTorch has such a table of its own (``torch._decomp``), but the first use of most of its entries
imports sympy and the compiler, which takes a second. Both are for what runs *below* autograd: a
rule is never differentiated. The gradient of an operation is PyTorch's own, made of operators that
have rules as well (``gradient_decompositions.py``); so it is the same where a function has a kink,
and where a branch that is not taken overflows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, where

aten = torch.ops.aten

_Rule = TypeVar("_Rule", bound=Callable[..., Any])

DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {}
"""By operator, what computes the same of simpler ones, or returns NotImplemented."""

WITHOUT_KERNEL = frozenset(
    {
        "cumprod", "cumsum", "digamma", "erfinv", "flip", "fmax", "fmin", "fmod",
        "gather", "heaviside", "i0", "index", "index_select", "lgamma", "logaddexp2", "max", "min",
        "nan_to_num", "native_batch_norm", "native_dropout", "native_group_norm",
        "native_group_norm_backward", "pow", "prod", "remainder", "repeat", "scatter",
        "select_backward", "sort", "special_i1", "stack", "topk", "unbind",
    }
)  # fmt: skip
"""Operators for which PyTorch's table has nothing that ends in kernels: not worth its import."""


def writes(
    *operators: Any, table: dict[Any, Callable[..., Any]] = DECOMPOSITIONS
) -> Callable[[_Rule], _Rule]:
    """Enter a rule for these operators."""

    def enter(rule: _Rule) -> _Rule:
        table.update(dict.fromkeys(operators, rule))
        return rule

    return enter


# -- rectifiers and their smooth kin -------------------------------------------------------------


@writes(aten.hardtanh.default)
def _hardtanh(x: Tensor, low: float = -1.0, high: float = 1.0) -> Tensor:
    return x.clamp(low, high)


@writes(aten.hardsigmoid.default)
def _hardsigmoid(x: Tensor) -> Tensor:
    return (x + 3).clamp(0, 6) / 6


@writes(aten.hardswish.default)
def _hardswish(x: Tensor) -> Tensor:
    return x * (x + 3).clamp(0, 6) / 6


@writes(aten.leaky_relu.default)
def _leaky_relu(x: Tensor, slope: float = 0.01) -> Tensor:
    return where(x > 0, x, x * slope)


@writes(aten._prelu_kernel.default)
def _prelu(x: Tensor, weight: Tensor) -> Tensor:
    return where(x > 0, x, weight * x)


@writes(aten.elu.default)
def _elu(x: Tensor, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> Tensor:
    return where(x > 0, x * scale, torch.expm1(x * input_scale) * (alpha * scale))


@writes(aten.celu.default)
def _celu(x: Tensor, alpha: float = 1.0) -> Tensor:
    return _elu(x, alpha, 1.0, 1.0 / alpha)


@writes(aten.softplus.default)
def _softplus(x: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    scaled = x * beta
    return where(scaled > threshold, x, torch.log1p(torch.exp(scaled)) / beta)


@writes(aten.log_sigmoid_forward.default)
def log_sigmoid(x: Tensor) -> tuple[Tensor, Tensor]:
    """log σ(x) = min(x, 0) − log(1 + exp(−|x|)), and that exp."""
    small = torch.exp(-x.abs())
    return x.clamp(max=0) - torch.log1p(small), small


@writes(aten.silu.default)
def _silu(x: Tensor) -> Tensor:
    # Far below, sigmoid stays at the smallest number of all: times x it would not be 0.
    return torch.where(x < -1e4, 0 * x, x * torch.sigmoid(x))


@writes(aten.mish.default)
def _mish(x: Tensor) -> Tensor:
    return x * torch.tanh(torch.log1p(torch.exp(x)))


@writes(aten.gelu.default)
def _gelu(x: Tensor, *, approximate: str = "none") -> Tensor:
    if approximate == "none":
        return 0.5 * x * (1 + torch.erf(x * math.sqrt(0.5)))
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))


@writes(aten.glu.default)
def _glu(x: Tensor, dim: int = -1) -> Tensor:
    a, b = torch.split(x, x.shape[dim] // 2, dim)
    return a * torch.sigmoid(b)


@writes(aten.threshold.default)
def _threshold(x: Tensor, least: float, value: float) -> Tensor:
    return where(x <= least, value, x)


@writes(aten.hardshrink.default)
def _hardshrink(x: Tensor, width: float = 0.5) -> Tensor:
    return where((x >= -width) & (x <= width), 0.0, x)


@writes(aten.softshrink.default)
def _softshrink(x: Tensor, width: float = 0.5) -> Tensor:
    return where(x > width, x - width, where(x < -width, x + width, x * 0))


# -- other pointwise functions -------------------------------------------------------------------


@writes(aten.lerp.Tensor, aten.lerp.Scalar)
def _lerp(start: Tensor, end: Tensor, weight: Any) -> Tensor:
    # From the nearer end, so that a weight of 1 gives it exactly.
    if not isinstance(weight, Tensor):
        return (
            start + weight * (end - start)
            if abs(weight) < 0.5
            else end - (end - start) * (1 - weight)
        )
    far = weight.abs() >= 0.5
    return where(far, weight - 1, weight) * (end - start) + where(far, end, start)


@writes(aten.addcmul.default)
def _addcmul(x: Tensor, a: Tensor, b: Tensor, *, value: float = 1) -> Tensor:
    return x + value * a * b


@writes(aten.addcdiv.default)
def _addcdiv(x: Tensor, a: Tensor, b: Tensor, *, value: float = 1) -> Tensor:
    return x + value * (a / b)


@writes(aten.logaddexp.default)
def _logaddexp(a: Tensor, b: Tensor) -> Tensor:
    most, least = torch.maximum(a, b), torch.minimum(a, b)
    total = most + torch.log1p(torch.exp(least - most))
    return where((a == b) & (a.abs() == math.inf), a, total)


@writes(aten.hypot.default)
def _hypot(a: Tensor, b: Tensor) -> Tensor:
    a, b = a.abs(), b.abs()
    most, least = torch.maximum(a, b), torch.minimum(a, b)
    part = least / most  # no square of a large or of a tiny number
    finite = where(most == 0, most, most * torch.sqrt(1 + part * part))
    return where((a == math.inf) | (b == math.inf), math.inf, finite)  # beside NaN, too


@writes(aten.sinc.default)
def _sinc(x: Tensor) -> Tensor:
    turned = x * math.pi
    return where(x == 0, 1.0, torch.sin(turned) / turned)


@writes(aten.tan.default)
def _tan(x: Tensor) -> Tensor:
    return torch.sin(x) / torch.cos(x)


@writes(aten.log2.default)
def _log2(x: Tensor) -> Tensor:
    return torch.log(x) * (1 / math.log(2))


@writes(aten.log10.default)
def _log10(x: Tensor) -> Tensor:
    return torch.log(x) * (1 / math.log(10))


@writes(aten.logit.default)
def _logit(x: Tensor, eps: float | None = None) -> Tensor:
    if eps is not None:
        x = x.clamp(eps, 1 - eps)
    return torch.log(x / (1 - x))


@writes(aten.xlogy.Tensor, aten.xlogy.Scalar_Self, aten.xlogy.Scalar_Other)
def _xlogy(x: Any, y: Any) -> Tensor:
    x = x if isinstance(x, Tensor) else torch.full_like(y, x)
    y = y if isinstance(y, Tensor) else torch.full_like(x, y)
    return where(y != y, y, where(x == 0, 0.0, x * torch.log(y)))


@writes(aten.deg2rad.default)
def _deg2rad(x: Tensor) -> Tensor:
    return x * (math.pi / 180)


@writes(aten.rad2deg.default)
def _rad2deg(x: Tensor) -> Tensor:
    return x * (180 / math.pi)


@writes(aten.ceil.default)
def _ceil(x: Tensor) -> Tensor:
    return -torch.floor(-x)


@writes(aten.trunc.default)
def _trunc(x: Tensor) -> Tensor:
    return where(x < 0, -torch.floor(-x), torch.floor(x))


@writes(aten.frac.default)
def _frac(x: Tensor) -> Tensor:
    return x - _trunc(x)


@writes(aten.isnan.default)
def _isnan(x: Tensor) -> Tensor:
    return x != x


@writes(aten.isinf.default)
def _isinf(x: Tensor) -> Tensor:
    return x.abs() == math.inf


@writes(aten.isposinf.default)
def _isposinf(x: Tensor) -> Tensor:
    return x == math.inf


@writes(aten.signbit.default)
def _signbit(x: Tensor) -> Tensor:
    return torch.copysign(torch.ones_like(x), x) < 0


@writes(aten.masked_fill.Scalar, aten.masked_fill.Tensor)
def _masked_fill(x: Tensor, mask: Tensor, value: Any) -> Tensor:
    return where(mask, value, x)


@writes(aten._efficientzerotensor.default)
def _zero(size: Sequence[int], **options: Any) -> Tensor:
    return torch.zeros(size, dtype=options.get("dtype"))


@writes(aten.empty_like.default)
def _empty_like(x: Tensor, **options: Any) -> Tensor:
    return torch.zeros_like(x)


# -- units in another order ----------------------------------------------------------------------


@writes(aten.roll.default)
def _roll(x: Tensor, shifts: Sequence[int], dims: Sequence[int] = ()) -> Any:
    if len(shifts) != 1 or list(dims) not in ([-1], [x.dim() - 1]):
        return NotImplemented
    first = -shifts[0] % x.shape[-1] if x.shape[-1] else 0
    if first == 0:
        return x.clone()
    return torch.cat([_units(x, first, x.shape[-1]), _units(x, 0, first)], -1)


@writes(aten.constant_pad_nd.default)
def _pad(x: Tensor, pad: Sequence[int], value: float = 0) -> Any:
    if len(pad) != 2:
        return NotImplemented
    width, (left, right) = x.shape[-1], pad
    kept = _units(x, max(0, -left), width - max(0, -right))
    around = [torch.full((*x.shape[:-1], max(0, n)), value, dtype=x.dtype) for n in pad]
    parts = [part for part in (around[0], kept, around[1]) if part.shape[-1]]
    return torch.cat(parts, -1) if len(parts) > 1 else kept.clone()


def _units(x: Tensor, first: int, end: int) -> Tensor:
    part: Tensor = aten.slice.Tensor(x, x.dim() - 1, first, end)
    return part
