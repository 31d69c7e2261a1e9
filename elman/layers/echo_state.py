"""The echo-state network: a recurrence that is drawn, not learned (Jaeger, 2001)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor, nn

from elman import cells
from elman.errors import InputError
from elman.layers.recurrent import Recurrent


class EchoState(nn.Module):
    """Predicts the next value of a series from the state of a random recurrence.

    h' = tanh(W x + U h + b)    x̂' = x + V h' + v

    W, U and b are drawn once: one entry of U in ten is not zero, and the largest |eigenvalue| of U
    is ``radius``, below which the state forgets how it began. Only V and v are fitted, by ridge
    regression: (H + 1) S numbers.

    Args:
        size: S, the width of a value.
        hidden: H.
        radius: the spectral radius of U.
        scale: W ~ U(−scale, scale).
        ridge: λ of the regression, which minimises |V h + v − (x' − x)|² + λ |V|².
        washout: the first steps of a series, which are not fitted.

    Raises:
        InputError: a number is not positive.
    """

    def __init__(
        self,
        size: int,
        hidden: int = 500,
        *,
        radius: float = 0.9,
        scale: float = 0.5,
        ridge: float = 1e-8,
        washout: int = 200,
    ):
        super().__init__()
        for name, value in (("size", size), ("hidden", hidden), ("radius", radius)):
            if not value > 0:
                raise InputError(f"{name} must be positive, received {value!r}.")
        self.ridge, self.washout = ridge, washout
        cell = cells.Elman(size, hidden, biases=1, dtype=torch.float64)
        with torch.no_grad():
            for name, parameter in cell.named_parameters():
                parameter.uniform_(-scale, scale)
                if name == "weight_hh":
                    parameter.mul_(torch.rand(hidden, hidden) < 0.1)
                    largest = torch.linalg.eigvals(parameter).abs().max()
                    parameter.mul_(radius / largest.clamp(min=1e-12))
        self.recurrent = Recurrent(cell)
        self.readout = nn.Linear(hidden, size, dtype=torch.float64)

    @torch.no_grad()
    def fit(self, series: Tensor) -> Self:
        """Fit V and v to a series (T, S), T > washout."""
        states = self.recurrent(series[:-1])[0][self.washout :]
        fit_readout(self.readout, states, (series[1:] - series[:-1])[self.washout :], self.ridge)
        return self


@torch.no_grad()
def fit_readout(readout: nn.Linear, states: Tensor, wanted: Tensor, ridge: float = 1e-8) -> None:
    """Set a read-out to what minimises |V h + v − y|² + λ |V|² over states h and wanted values y.

    Args:
        readout: V and v.
        states: (N, H).
        wanted: (N, S).
        ridge: λ.
    """
    design = torch.cat([states, torch.ones_like(states[:, :1])], -1)
    penalty = ridge * torch.eye(design.shape[1], dtype=design.dtype, device=design.device)
    penalty[-1, -1] = 0.0
    solution = torch.linalg.solve(design.t() @ design + penalty, design.t() @ wanted)
    readout.weight.copy_(solution[:-1].t())
    readout.bias.copy_(solution[-1])


@torch.no_grad()
def free_run(
    recurrent: Recurrent, readout: Callable[[Tensor], Tensor], series: Tensor, steps: int
) -> Tensor:
    """The values after a series, x̂' = x + readout(h'), each from the one before.

    Args:
        recurrent: reads x (…, S).
        readout: what the next value is more than this one, from the state.
        series: (T, B, S), of which all but the last value warm the state up.
        steps: how many values.

    Returns:
        (steps, B, S).
    """
    state: Any = None
    if len(series) > 1:
        _, state = recurrent(series[:-1])
    x, found = series[-1], []
    for _ in range(steps):
        h, state = recurrent.step(x, state)
        x = x + readout(h)
        found.append(x)
    return torch.stack(found) if found else series[:0]
