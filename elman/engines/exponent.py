"""The largest Lyapunov exponent of a cell's run: whether its steps forget, or amplify."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from elman.cells.contract import Cell


def largest_lyapunov_exponent(
    cell: Cell, x: Tensor, states: Sequence[Tensor] | None = None
) -> float:
    """λ_1, how fast small changes of the state grow in a run of ``cell``, in nats a step.

    w_{k−1} = J_kᵀ w_k / ‖J_kᵀ w_k‖ from the last step to the first, w_T random, and λ_1 = mean of
    ln ‖J_kᵀ w_k‖, without the first quarter, over which w turns. One backward pass; it keeps no
    Jacobian. λ_1 < 0: changes shrink, the past is forgotten, and Newton's method over all steps
    converges in few iterations. λ_1 > 0: changes grow by exp(λ_1) a step, the run is chaotic, and
    no method can take its steps side by side (Gonzalez et al., 2025).

    Args:
        cell: a cell with its weights.
        x: the inputs (T, B, M), T ≥ 1.
        states: before the first step, (B, size) for each; zeros if not given.

    Returns:
        λ_1, the mean over the batch; −inf where the state before a step has no influence after it;
        NaN where the states leave the range of their numbers.

    :func:`elman.lens.lyapunov_exponents` gives all n, from the Jacobians of one sequence.
    """
    sizes = cell.state_sizes
    if states is None:
        states = [x.new_zeros(x.shape[1], size) for size in sizes]
    s, before = torch.cat(list(states), -1).detach(), []
    with torch.no_grad():
        for x_t in x:
            before.append(s)
            s = torch.cat(cell(x_t, *s.split(sizes, -1)), -1)
    draw = torch.Generator().manual_seed(0)
    w = torch.randn(s.shape, generator=draw, dtype=torch.float64).to(s)
    growth = []
    for x_t, s in zip(reversed(x.detach().unbind()), reversed(before), strict=True):
        w = w / w.norm(dim=-1, keepdim=True)
        with torch.enable_grad():
            s = s.requires_grad_()
            new = torch.cat(cell(x_t, *s.split(sizes, -1)), -1)
            found = None
            if new.requires_grad:
                (found,) = torch.autograd.grad(new, s, w, allow_unused=True)
        if found is None:
            return -math.inf
        w = found
        growth.append(w.norm(dim=-1).log())
    rates = torch.stack(growth[len(growth) // 4 :]).double()
    return -math.inf if bool((rates == -math.inf).any()) else float(rates.mean())
