"""Against exploding gradients: clipping. Against large weights: decay."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from elman.errors import InputError
from elman.learning import fused
from elman.learning.decay import decaying


@torch.no_grad()
def clip_norm(
    parameters: Iterable[nn.Parameter],
    threshold: float | None,
    *,
    error_if_nonfinite: bool = True,
) -> Tensor:
    """Scale the gradient g of all parameters, seen as one vector, to at most ``threshold``.

    g ← threshold · g / ‖g‖ where ‖g‖ > threshold (Pascanu, Mikolov & Bengio, 2013), to the last
    digit but one: nothing is added to ‖g‖. (PyTorch's adds 1e-6.)

    Args:
        parameters: those whose ``.grad`` is clipped in place; those without one are left out.
        threshold: in the unit of the gradient's Euclidean norm; None clips nothing.
        error_if_nonfinite: whether a gradient that is to be clipped and holds infinities or NaN
            is an error. Otherwise it stays as it is: no factor makes it short.

    Returns:
        ‖g‖ before clipping, so that it can be watched.

    Raises:
        InputError: the threshold is not positive, or the gradient is not finite.
    """
    if threshold is not None:
        _check(threshold)
    gradients = [p.grad for p in parameters if p.grad is not None]
    if not error_if_nonfinite and gradients and all(_waits(g) for g in gradients):
        return _clip_unread(gradients, threshold)
    norm = _norm(gradients)
    if threshold is None:
        return norm
    size = float(norm)
    if not math.isfinite(size):
        if error_if_nonfinite:
            raise InputError(
                f"the gradient's norm is {size}, which no clipping mends: look for what made it "
                "so, or lower the learning rate (error_if_nonfinite=False leaves it as it is)."
            )
    elif size > threshold:
        for gradient in gradients:
            gradient.mul_(threshold / size)
    return norm


def _waits(gradient: Tensor) -> bool:
    """Whether the host would wait for a device to read a norm there."""
    return gradient.is_cuda and not gradient.is_sparse


def _clip_unread(gradients: list[Tensor], threshold: float | None) -> Tensor:
    """Clip without reading the norm: in double precision, where no square is out of range."""
    if fused.fits(gradients) and (kernels := fused.kernels(gradients[0].device)):
        return kernels.clip(gradients, threshold)
    each = torch._foreach_norm(gradients, 2, dtype=torch.float64)
    norm = torch.linalg.vector_norm(torch.stack([n.to(each[0].device) for n in each]))
    if threshold is not None:
        longer = norm.isfinite() & (norm > threshold)
        factor = torch.where(longer, threshold / norm, 1.0)
        for gradient in gradients:
            gradient.mul_(factor.to(gradient))
    return norm


def _norm(gradients: list[Tensor]) -> Tensor:
    """The Euclidean norm of all gradients side by side, also where squares are out of range."""
    values = [g.coalesce().values() if g.is_sparse else g for g in gradients]
    values = [v.float() if v.itemsize < 4 else v for v in values if v.numel()]
    if not values:
        return torch.tensor(0.0)
    norm = _root(values)
    limits = torch.finfo(norm.dtype)
    if limits.tiny**0.5 / limits.eps < float(norm) < math.inf:
        return norm
    largest = torch.stack([v.abs().amax().to(norm) for v in values]).amax()
    if not 0 < float(largest) < math.inf:
        return largest  # zero, infinite or NaN, as the norm is
    return largest * _root([v / largest.to(v.device) for v in values])


def _root(values: list[Tensor]) -> Tensor:
    each = [torch.linalg.vector_norm(v) for v in values]
    return torch.linalg.vector_norm(torch.stack([n.to(each[0].device) for n in each]))


@torch.no_grad()
def clip_value(parameters: Iterable[nn.Parameter], threshold: float) -> None:
    """Limit each entry of the gradient to [−threshold, threshold], in place; NaN stays NaN.

    Raises:
        InputError: the threshold is not positive.
    """
    _check(threshold)
    for parameter in parameters:
        if parameter.grad is not None:
            gradient = parameter.grad
            if gradient.is_sparse:  # its entries are sums of what is written down
                gradient = parameter.grad = gradient.coalesce()
                gradient = gradient.values()
            gradient.clamp_(-threshold, threshold)


def _check(threshold: float) -> None:
    if not threshold > 0:
        raise InputError(f"threshold must be positive, received {threshold!r}.")


@torch.no_grad()
def add_l1(model: nn.Module, strength: float) -> None:
    """Add the gradient of strength · Σ|w|, which is strength · sign(w), to every weight's.

    Which parameters are weights, :func:`elman.learning.decaying` says: biases and their kin are
    left alone. Those without a ``.grad`` are, too.

    Raises:
        InputError: ``model`` is no module.
    """
    for parameter in decaying(model):
        if parameter.grad is not None:
            parameter.grad.add_(parameter.sign(), alpha=strength)
