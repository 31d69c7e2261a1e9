"""The Jacobians of a recurrence's steps, their product, its singular values, Lyapunov exponents."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from elman.cells.contract import Cell
from elman.errors import InputError


def step_jacobians(cell: Cell, x: Tensor, states: Sequence[Tensor]) -> Tensor:
    """J_k = ∂s_k/∂s_{k−1} at every step, s the states of the cell as one vector of n numbers.

    Args:
        cell: a cell with its weights.
        x: the inputs of one sequence (T, M).
        states: the states before each step, (T, size) for each.

    Returns:
        (T, n, n), float64.
    """
    sizes = [state.shape[-1] for state in states]

    def step(s: Tensor, read: Tensor) -> Tensor:
        return torch.cat(cell(read, *s.split(sizes)), -1)

    vectors = torch.cat(list(states), -1).detach()
    rows = [torch.func.jacrev(step)(s, read) for s, read in zip(vectors, x, strict=True)]
    return torch.stack(rows).detach().cpu().double()


def product(jacobians: Tensor) -> Tensor:
    """∂s_T/∂s_0 = J_T … J_2 J_1 of Jacobians (T, n, n) in the order of time: (n, n)."""
    result = torch.eye(jacobians.shape[-1], dtype=jacobians.dtype, device=jacobians.device)
    for jacobian in jacobians:
        result = jacobian @ result
    return result


def singular_values(jacobians: Tensor) -> tuple[list[int], Tensor]:
    """The singular values of ∂s_T/∂s_{T−l} at lags l that are evenly spread on a log scale.

    A change of s_{T−l} by a unit vector changes s_T by at most the largest of them and at least
    the smallest. Those below 1e-16 of the largest are rounding.

    Args:
        jacobians: (T, n, n), in the order of time.

    Returns:
        The lags 1, 2, 3, 4, 6, 8, 12, … T, and (lags, n), descending.
    """
    steps, n = jacobians.shape[:2]
    lags = sorted({*(b * 2**k // 2 for k in range(32) for b in (2, 3)), steps})
    lags = [lag for lag in lags if lag <= steps]
    back, rows = torch.eye(n, dtype=jacobians.dtype, device=jacobians.device), []
    beyond = jacobians.new_full((n,), torch.inf)  # where the product has left float64's range
    for lag in range(1, steps + 1):
        back = back @ jacobians[steps - lag]
        if lag in lags:
            rows.append(torch.linalg.svdvals(back) if back.isfinite().all() else beyond)
    return lags, torch.stack(rows)


def lyapunov_exponents(jacobians: Tensor, discard: int = 0) -> Tensor:
    """The Lyapunov exponents λ_1 ≥ λ_2 ≥ …: how fast small changes of the state grow, per step.

    Q_k R_k = J_k Q_{k−1} with Q_0 = I, and λ_i = mean of ln|(R_k)_ii| over the steps (Benettin et
    al., 1980; Engelken et al., 2023). λ_1 > 0: changes, and gradients, grow by exp(λ_1) a step;
    λ_1 < 0: they shrink. For a linear recurrence they are ln|eigenvalue|.

    Args:
        jacobians: (T, n, n), in the order of time.
        discard: the first steps, over which Q turns towards the growing directions, that the mean
            leaves out.

    Returns:
        (n), in nats a step, descending; −inf where a direction is lost altogether.

    Raises:
        InputError: no step is left.
    """
    if not 0 <= discard < len(jacobians):
        raise InputError(
            f"discard must lie between 0 and {len(jacobians) - 1}, which leaves a step of "
            f"{len(jacobians)}, received {discard}."
        )
    q = torch.eye(jacobians.shape[-1], dtype=jacobians.dtype, device=jacobians.device)
    total = jacobians.new_zeros(jacobians.shape[-1])
    for k, jacobian in enumerate(jacobians):
        q, r = torch.linalg.qr(jacobian @ q)
        if k >= discard:
            total += r.diagonal().abs().log()
    return (total / (len(jacobians) - discard)).sort(descending=True).values
