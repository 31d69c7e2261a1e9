"""The cliff in the error surface of a recurrence, and what clipping does there."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from elman.errors import InputError
from elman.learning import clip_norm

START, TARGET, STEPS = 0.5, 0.7, 50


def error(weight: Tensor, bias: Tensor, steps: int = STEPS) -> Tensor:
    """E = (σ(a_T) − 0.7)² of a recurrent net of one unit without input (Pascanu et al., 2013).

    a_t = w σ(a_{t−1}) + b with a_0 = 0.5, of which only the last step is judged. Where the unit
    goes from one fixed point to another, E has a wall.

    Args:
        weight, bias: w and b, of any one shape.
        steps: T.
    """
    a = torch.full_like(weight, START)
    for _ in range(steps):
        a = weight * a.sigmoid() + bias
    return (a.sigmoid() - TARGET).square()


@dataclass(frozen=True)
class Descent:
    """A path of gradient descent on the surface.

    Attributes:
        threshold: what the gradient's norm was clipped to; None where it was not.
        weight, bias: before the first update and after each (updates + 1).
        errors: E there.
        norms: ‖∂E/∂(w, b)‖ there, before clipping.
    """

    threshold: float | None
    weight: Tensor
    bias: Tensor
    errors: Tensor
    norms: Tensor


def descend(
    threshold: float | None,
    *,
    start: tuple[float, float] = (5.0, -1.6),
    learning_rate: float = 0.3,
    updates: int = 100,
) -> Descent:
    """Gradient descent on :func:`error`, with the gradient's norm clipped or not.

    Args:
        threshold: see :func:`elman.learning.clip_norm`; None clips nothing.
        start: w and b.
        learning_rate: the step size.
        updates: how many.

    Raises:
        InputError: the threshold or the rate is not positive, or there is no update.
    """
    if threshold is not None and not threshold > 0:
        raise InputError(f"threshold must be positive, or None, received {threshold!r}.")
    if not (learning_rate > 0 and math.isfinite(learning_rate)):
        raise InputError(f"learning_rate must be a positive number, received {learning_rate!r}.")
    if updates < 1:
        raise InputError(f"updates must be at least 1, received {updates!r}.")
    point = nn.Parameter(torch.tensor(start, dtype=torch.float64))
    path, errors, norms = [], [], []
    for _ in range(updates + 1):
        value = error(point[0], point[1])
        (point.grad,) = torch.autograd.grad(value, point)
        path.append(point.detach().clone())
        errors.append(value.detach())
        norms.append(clip_norm([point], threshold, error_if_nonfinite=False))
        with torch.no_grad():
            point.sub_(learning_rate * point.grad)
    places = torch.stack(path)
    return Descent(threshold, places[:, 0], places[:, 1], torch.stack(errors), torch.stack(norms))
