"""The operators that PyTorch's gradients are made of, written in simpler ones.

They complete the table of :mod:`elman.compiler.decompositions`, and compute what an operation's
rule has computed by the same expressions, so that the compiled gradient finds it there. Changes in
place are those by which PyTorch's formulas mask a value that they have just made.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, where

from elman.compiler.decompositions import writes

aten = torch.ops.aten


GRADIENTS: dict[Any, Callable[..., Any]] = {}
"""As :data:`elman.compiler.decompositions.DECOMPOSITIONS`."""

_writes = partial(writes, table=GRADIENTS)
_SIXTH = 0.1666666716337204  # PyTorch's is a float in double precision, too


# -- of rectifiers and their smooth kin ----------------------------------------------------------


@_writes(aten.hardtanh_backward.default)
def _hardtanh(g: Tensor, x: Tensor, low: float, high: float) -> Tensor:
    return where((x > low) & (x < high), g, 0.0)


@_writes(aten.hardsigmoid_backward.default)
def _hardsigmoid(g: Tensor, x: Tensor) -> Tensor:
    return where((x > -3) & (x < 3), g * _SIXTH, 0.0)


@_writes(aten.hardswish_backward.default)
def _hardswish(g: Tensor, x: Tensor) -> Tensor:
    return where(x <= -3, 0.0, where(x >= 3, g, g * (x / 3 + 0.5)))


@_writes(aten.leaky_relu_backward.default)
def _leaky_relu(g: Tensor, x: Tensor, slope: float, is_result: bool) -> Tensor:
    return where(x > 0, g, g * slope)


@_writes(aten._prelu_kernel_backward.default)
def _prelu(g: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    return where(x > 0, g, weight * g), where(x > 0, 0.0, x * g)


@_writes(aten.elu_backward.default)
def _elu(
    g: Tensor, alpha: float, scale: float, input_scale: float, is_result: bool, x: Tensor
) -> Tensor:
    if is_result:
        slope = (x + alpha * scale) * input_scale
    else:
        slope = torch.exp(x * input_scale) * (input_scale * alpha * scale)
    return where(x > 0, g * scale, g * slope)


@_writes(aten.softplus_backward.default)
def _softplus(g: Tensor, x: Tensor, beta: float, threshold: float) -> Tensor:
    scaled = x * beta
    powers = torch.exp(scaled)
    return where(scaled > threshold, g, g * powers / (powers + 1))


@_writes(aten.log_sigmoid_backward.default)
def _log_sigmoid(g: Tensor, x: Tensor, buffer: Tensor) -> Tensor:
    small = torch.exp(-x.abs())
    part = small / (1 + small)
    return g * where(x < 0, 1 - part, part)


@_writes(aten.silu_backward.default)
def _silu(g: Tensor, x: Tensor) -> Tensor:
    y = torch.sigmoid(x)
    return g * y * (1 + torch.clamp(x, min=-1e4) * (1 - y))


@_writes(aten.mish_backward.default)
def _mish(g: Tensor, x: Tensor) -> Tensor:
    y = torch.tanh(torch.log1p(torch.exp(x)))
    return g * (y + torch.clamp(x, min=-1e4) * torch.sigmoid(x) * (1 - y * y))


@_writes(aten.gelu_backward.default)
def _gelu(g: Tensor, x: Tensor, *, approximate: str = "none") -> Tensor:
    if approximate == "none":
        density = torch.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)
        return g * (0.5 * (1 + torch.erf(x * math.sqrt(0.5))) + x * density)
    scale = math.sqrt(2 / math.pi)
    y = torch.tanh(scale * (x + 0.044715 * x * x * x))
    slope = scale * (1 + 3 * 0.044715 * x * x)
    return g * (0.5 * (1 + y) + 0.5 * x * (1 - y * y) * slope)


@_writes(aten.glu_backward.default)
def _glu(g: Tensor, x: Tensor, dim: int) -> Tensor:
    a, b = torch.split(x, x.shape[dim] // 2, dim)
    y = torch.sigmoid(b)
    return torch.cat([g * y, g * a * y * (1 - y)], dim)


@_writes(aten.hardshrink_backward.default, aten.softshrink_backward.default)
def _shrink(g: Tensor, x: Tensor, width: float) -> Tensor:
    return where((x > width) | (x < -width), g, 0.0)


# -- of other pointwise functions and of losses --------------------------------------------------


@_writes(aten.logit_backward.default)
def _logit(g: Tensor, x: Tensor, eps: float | None = None) -> Tensor:
    slope = g / (x * (1 - x))
    if eps is None:
        return where((x < 0) | (x > 1), math.nan, slope)
    return where((x >= eps) & (x <= 1 - eps), slope, 0.0)


@_writes(aten.mse_loss_backward.default)
def _mse_loss(g: Tensor, x: Tensor, target: Tensor, reduction: int) -> Tensor:
    return _share(reduction, x) * 2 * (x - target) * g


@_writes(aten.smooth_l1_loss_backward.default)
def _smooth_l1_loss(g: Tensor, x: Tensor, target: Tensor, reduction: int, beta: float) -> Tensor:
    off, g = x - target, _share(reduction, x) * g
    return where(off.abs() < beta, g * off / beta, g * off.sign())


@_writes(aten.huber_loss_backward.default)
def _huber_loss(g: Tensor, x: Tensor, target: Tensor, reduction: int, delta: float) -> Tensor:
    return _share(reduction, x) * g * (x - target).clamp(-delta, delta)


def _share(reduction: int, x: Tensor) -> float:
    """Of a loss in its mean, where it is one."""
    return 1.0 / x.numel() if reduction == 1 else 1.0


# -- of reductions over the units ----------------------------------------------------------------


@_writes(aten._softmax_backward_data.default)
def _softmax(g: Tensor, y: Tensor, dim: int, dtype: Any) -> Tensor:
    return g * y - y * (g * y).sum(dim, keepdim=True)


@_writes(aten._log_softmax_backward_data.default)
def _log_softmax(g: Tensor, y: Tensor, dim: int, dtype: Any) -> Tensor:
    return g - torch.exp(y) * g.sum(dim, keepdim=True)


@_writes(aten.native_layer_norm_backward.default)
def _layer_norm(
    g: Tensor, x: Tensor, shape: Sequence[int], mean: Tensor, scale: Tensor, weight: Tensor | None,
    bias: Tensor | None, wanted: Sequence[bool],
) -> tuple[Tensor | None, ...]:  # fmt: skip
    axes = list(range(x.dim() - len(shape), x.dim()))
    rest = list(range(x.dim() - len(shape)))
    normal = (x - mean) * scale
    inner = g if weight is None else g * weight
    off = inner - inner.mean(axes, keepdim=True)
    to_x = scale * (off - normal * (inner * normal).mean(axes, keepdim=True))
    return (
        to_x if wanted[0] else None,
        (g * normal).sum(rest) if wanted[1] and weight is not None else None,
        g.sum(rest) if wanted[2] and bias is not None else None,
    )


# -- changes in place of what such a formula has just made ---------------------------------------


def _in_place(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The rule of an operator that changes its first argument: a new value under its name."""
    return lambda x, *args, **options: aten.copy_.default(x, function(x, *args, **options))


for changing, function in (
    (aten.fill_.Scalar, torch.full_like),
    (aten.add_.Tensor, torch.add),
    (aten.sub_.Tensor, torch.sub),
    (aten.mul_.Tensor, torch.mul),
    (aten.div_.Tensor, torch.div),
    (aten.neg_.default, torch.neg),
    (aten.logical_and_.default, torch.logical_and),
    (aten.logical_or_.default, torch.logical_or),
    (aten.logical_not_.default, torch.logical_not),
    (aten.masked_fill_.Scalar, torch.masked_fill),
    (aten.masked_fill_.Tensor, torch.masked_fill),
    (aten.clamp_min_.default, torch.clamp_min),
    (aten.clamp_max_.default, torch.clamp_max),
):
    _writes(changing)(_in_place(function))
