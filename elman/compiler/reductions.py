"""Reductions over the units, and losses, written in simpler operations.

They complete the table of :mod:`elman.compiler.decompositions`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, where

from elman.compiler.decompositions import aten, log_sigmoid, writes

# -- reductions over the units -------------------------------------------------------------------


@writes(aten.native_layer_norm.default)
def _layer_norm(
    x: Tensor, shape: Sequence[int], weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    axes = list(range(x.dim() - len(shape), x.dim()))
    variance, mean = torch.var_mean(x, axes, correction=0, keepdim=True)
    scale = torch.rsqrt(variance + eps)
    y = (x - mean) * scale
    if weight is not None:
        y = y * weight
    return y if bias is None else y + bias, mean, scale


@writes(aten._softmax.default)
def _softmax(x: Tensor, dim: int, half: bool) -> Tensor:
    powers = torch.exp(x - torch.amax(x, dim, keepdim=True))
    return powers / powers.sum(dim, keepdim=True)


@writes(aten._log_softmax.default)
def _log_softmax(x: Tensor, dim: int, half: bool) -> Tensor:
    shifted = x - torch.amax(x, dim, keepdim=True)
    return shifted - torch.log(torch.exp(shifted).sum(dim, keepdim=True))


@writes(aten.logsumexp.default)
def _logsumexp(x: Tensor, dim: list[int], keepdim: bool = False) -> Tensor:
    most = torch.amax(x, dim, keepdim=keepdim)
    shift = most if keepdim else torch.amax(x, dim, keepdim=True)
    # Where all are −∞, or one is ∞, the difference to it would be NaN.
    most, shift = (where(m.abs() == math.inf, 0.0, m) for m in (most, shift))
    return torch.log(torch.exp(x - shift).sum(dim, keepdim=keepdim)) + most


@writes(aten.std.correction)
def _std(x: Tensor, dim: Any = None, *, correction: Any = None, keepdim: bool = False) -> Tensor:
    return torch.sqrt(torch.var(x, dim, correction=_correction(correction), keepdim=keepdim))


@writes(aten.std_mean.correction)
def _std_mean(
    x: Tensor, dim: Any = None, *, correction: Any = None, keepdim: bool = False
) -> tuple[Tensor, Tensor]:
    variance, mean = torch.var_mean(x, dim, correction=_correction(correction), keepdim=keepdim)
    return torch.sqrt(variance), mean


def _correction(given: Any) -> Any:
    return 1 if given is None else given


@writes(aten.linalg_vector_norm.default)
def _norm(
    x: Tensor, order: Any = 2, dim: Any = None, keepdim: bool = False, *, dtype: Any = None
) -> Any:
    if dtype not in (None, x.dtype):
        return NotImplemented
    dim = list(range(x.dim())) if dim is None else dim
    if order == 2:
        return torch.sqrt((x * x).sum(dim, keepdim=keepdim))
    if order == 1:
        return x.abs().sum(dim, keepdim=keepdim)
    if order == math.inf:
        return torch.amax(x.abs(), dim, keepdim=keepdim)
    if order <= 0:
        return NotImplemented
    return torch.pow(torch.pow(x.abs(), order).sum(dim, keepdim=keepdim), 1 / order)


@writes(aten.amin.default)
def _amin(x: Tensor, dim: Any = (), keepdim: bool = False) -> Tensor:
    return -torch.amax(-x, dim, keepdim=keepdim)


# -- losses --------------------------------------------------------------------------------------


def _reduced(loss: Tensor, reduction: int) -> Tensor:
    return (loss, loss.mean(), loss.sum())[reduction] if reduction else loss


@writes(aten.mse_loss.default)
def _mse_loss(x: Tensor, target: Tensor, reduction: int = 1) -> Tensor:
    return _reduced((x - target) * (x - target), reduction)


@writes(aten.smooth_l1_loss.default)
def _smooth_l1_loss(x: Tensor, target: Tensor, reduction: int = 1, beta: float = 1.0) -> Tensor:
    off = (x - target).abs()
    return _reduced(where(off < beta, 0.5 * off * off / beta, off - 0.5 * beta), reduction)


@writes(aten.huber_loss.default)
def _huber_loss(x: Tensor, target: Tensor, reduction: int = 1, delta: float = 1.0) -> Tensor:
    off = (x - target).abs()
    far = delta * (off - 0.5 * delta)
    return _reduced(where(off <= delta, 0.5 * off * off, far), reduction)


@writes(aten.binary_cross_entropy_with_logits.default)
def _cross_entropy(
    x: Tensor, target: Tensor, weight: Any = None, positive: Any = None, reduction: int = 1
) -> Tensor:
    log = log_sigmoid(x)[0]
    if positive is not None:
        log = log * ((positive - 1) * target + 1)
    loss = (1 - target) * x - log
    return _reduced(loss if weight is None else loss * weight, reduction)
