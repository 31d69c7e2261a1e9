"""A linear recurrence over time with matrices, c_t = A_t c_{t−1} + b_t, for all steps at once."""

from __future__ import annotations

import torch
from torch import Tensor

from elman.compiler.recurrence import Course, scan


def matrix_scan(a: Tensor, b: Tensor) -> Tensor:
    """All c_t = A_t c_{t−1} + b_t with c_0 = 0.

    Each A_t is U matrices of k × k. Where k = 1, this is :func:`elman.compiler.recurrence.scan`.
    Else two steps after each other become one, A₂ A₁ and A₂ b₁ + b₂; of half as many, the
    recurrence gives every second c; and from these the others come by one step (Blelloch, 1990).
    It takes T products of matrices in 2 log₂ T rounds.

    Args:
        a: (T, B, k, k, U).
        b: (T, B, k, U).

    Returns:
        c (T, B, k, U).
    """
    if a.shape[2] > 1:
        return _paired(a, b)
    c, _ = scan(a[:, :, 0, 0], b[:, :, 0], torch.zeros_like(b[0, :, 0]), None, Course())
    return c.unsqueeze(2)


def _paired(a: Tensor, b: Tensor) -> Tensor:
    steps = len(b)
    if steps == 1:
        return b
    earlier, later = slice(0, steps // 2 * 2, 2), slice(1, None, 2)
    second = _paired(_product(a[later], a[earlier]), _times(a[later], b[earlier]) + b[later])
    c = torch.empty_like(b)
    c[0], c[1::2] = b[0], second
    c[2::2] = _times(a[2::2], second[: (steps - 1) // 2]) + b[2::2]
    return c


def _product(a: Tensor, b: Tensor) -> Tensor:
    """A B of matrices (…, k, k, U)."""
    if a.shape[-1] == 1:
        return (a.squeeze(-1) @ b.squeeze(-1)).unsqueeze(-1)
    return (a.unsqueeze(-2) * b.unsqueeze(-4)).sum(-3)


def _times(a: Tensor, v: Tensor) -> Tensor:
    """A v of matrices (…, k, k, U) and vectors (…, k, U)."""
    if a.shape[-1] == 1:
        return a.squeeze(-1) @ v
    return (a * v.unsqueeze(-3)).sum(-2)
