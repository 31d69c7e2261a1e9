"""Against exploding gradients: clipping. Against large weights: decay."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_value_, clip_grads_with_norm_, get_total_norm

from elman.errors import InputError


def clip_norm(parameters: Iterable[nn.Parameter], threshold: float | None) -> Tensor:
    """Scale the gradient g of all parameters, seen as one vector, to at most ``threshold``.

    g ← threshold · g / ‖g‖ where ‖g‖ ≥ threshold (Pascanu, Mikolov & Bengio, 2013).

    Args:
        parameters: those whose ``.grad`` is clipped in place; those without one are left out.
        threshold: in the unit of the gradient's Euclidean norm; None clips nothing.

    Returns:
        ‖g‖ before clipping, so that it can be watched.

    Raises:
        InputError: the threshold is not positive.
    """
    if threshold is not None:
        _check(threshold)
    clipped = [p for p in parameters if p.grad is not None]
    norm = get_total_norm([p.grad for p in clipped if p.grad is not None])
    if threshold is not None:
        clip_grads_with_norm_(clipped, threshold, norm)
    return norm


def clip_value(parameters: Iterable[nn.Parameter], threshold: float) -> None:
    """Limit each entry of the gradient to [−threshold, threshold], in place.

    Raises:
        InputError: the threshold is not positive.
    """
    _check(threshold)
    clip_grad_value_(parameters, threshold)


def _check(threshold: float) -> None:
    if not threshold > 0:
        raise InputError(f"threshold must be positive, received {threshold!r}.")


@torch.no_grad()
def add_l1(parameters: Iterable[nn.Parameter], strength: float) -> None:
    """Add the gradient of strength · Σ|w|, which is strength · sign(w), to every matrix's.

    Biases and other vectors are left alone: they do not over-fit.
    """
    for parameter in parameters:
        if parameter.grad is not None and parameter.dim() > 1:
            parameter.grad.add_(parameter.sign(), alpha=strength)
