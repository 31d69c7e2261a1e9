"""What one hidden layer can approximate: every continuous function (Cybenko, 1989)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from elman.cells import Perceptron
from elman.errors import InputError
from elman.studies import pictures
from elman.studies.study import Outcome, Study
from elman.training.report import Report
from elman.training.settings import Settings, option

FUNCTIONS = {
    "wave": lambda x: torch.sin(3 * math.pi * x) * torch.exp(-x),
    "corner": lambda x: x.abs(),
    "step": lambda x: torch.tanh(50 * x),
}


@dataclass
class FunctionSettings(Settings):
    """The settings of the approximation of a function."""

    function: str = option("wave", "sin(3πx)·e⁻ˣ, |x| or tanh(50 x).", choices=tuple(FUNCTIONS))
    widths: list[int] = option([1, 2, 4, 8, 16, 32, 64], "Numbers of units.", least=1, below=2**31)
    updates: int = option(300, "Of L-BFGS, for each width.", least=1)
    seeds: int = option(3, "Networks of each width, of which the best counts.", least=1)
    seed: int = option(0, "The first one's seed.", least=0, below=2**31)


class FunctionApproximation(Study):
    """A function on [−1, 1] fitted by multilayer perceptrons of growing width.

    ŷ = V tanh(W x + b) + v, by L-BFGS and then V and v by least squares, on 400 points, in double
    precision; the errors are those at 1,999 others. That some width will do for any continuous
    function and any error is Cybenko's theorem; what it does not say is that training finds the
    weights, which is tried here.
    """

    name = "function-approximation"
    subject = "one hidden layer approximates a function, error by width"
    source = "Cybenko, 1989; Hornik, Stinchcombe & White, 1989"
    Settings = FunctionSettings
    settings: FunctionSettings

    def run(self, report: Report) -> Outcome:
        """Fit a network of each width, several times."""
        its = self.settings
        if len(set(its.widths)) < len(its.widths) or not its.widths:
            raise InputError(f"widths must be different numbers, received {its.widths}.")
        function = FUNCTIONS[its.function]
        x = torch.linspace(-1, 1, 400, dtype=torch.float64).unsqueeze(1)
        self.x = torch.linspace(-1, 1, 2001, dtype=torch.float64)[1:-1].unsqueeze(1)
        self.fits: dict[int, Tensor] = {}
        rows: list[dict[str, Any]] = []
        for k, width in enumerate(its.widths):
            fitted = [
                fit(x, function(x), width, its.updates, its.seed + j) for j in range(its.seeds)
            ]
            with torch.no_grad():
                best = min((net(self.x) for net in fitted), key=lambda y: self._error(y))
            self.fits[width] = best
            off = best - function(self.x)
            row: dict[str, Any] = {"units": width, "error": float(off.square().mean().sqrt())}
            rows.append(row | {"largest error": float(off.abs().max())})
            report.update(1, (k + 1) / len(its.widths), {"error": row["error"]}, k + 1, 0)
        return Outcome(rows, {})

    def draw(self, outcome: Outcome, path: Path) -> None:
        """The function and some fits; the error by width."""
        chosen = sorted(self.fits)[:: max(1, len(self.fits) // 3)][:3]
        fits = {width: self.fits[width][:, 0] for width in chosen}
        true = FUNCTIONS[self.settings.function](self.x)[:, 0]
        pictures.draw_widths(self.x[:, 0], true, fits, outcome.rows, path)

    def _error(self, y: Tensor) -> float:
        return float((y - FUNCTIONS[self.settings.function](self.x)).square().mean())


class _Network(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.hidden = Perceptron(1, width, dtype=torch.float64)
        self.readout = nn.Linear(width, 1, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        # A perceptron has no memory; as a cell it is given a state that it does not read.
        (h,) = self.hidden(x, x.new_zeros(len(x), self.hidden.hidden_size))
        return self.readout(h)


def fit(x: Tensor, y: Tensor, width: int, updates: int, seed: int) -> nn.Module:
    """The network of that width, trained to give y (N, 1) for x (N, 1) in [−1, 1]."""
    torch.manual_seed(seed)
    network = _Network(width)
    with torch.no_grad():
        # Steep units whose bends lie all over the interval; as drawn by default, all are alike.
        slopes = torch.empty(width, dtype=torch.float64).uniform_(2, 2 + width)
        bends = torch.empty(width, dtype=torch.float64).uniform_(-1, 1)
        weight, bias = network.hidden.parameters()
        weight.copy_(slopes.unsqueeze(1))
        bias.copy_(-slopes * bends)
    optimizer = torch.optim.LBFGS(
        network.parameters(), max_iter=updates, history_size=50, line_search_fn="strong_wolfe",
        tolerance_grad=1e-12, tolerance_change=1e-15,
    )  # fmt: skip

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = (network(x) - y).square().mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    # The read-out is linear: its best weights are known, and L-BFGS is slow to find them.
    with torch.no_grad():
        (h,) = network.hidden(x, x.new_zeros(len(x), width))
        design = torch.cat([h, torch.ones_like(x)], -1)
        solution = torch.linalg.lstsq(design, y, driver="gelsd").solution
        network.readout.weight.copy_(solution[:-1].t())
        network.readout.bias.copy_(solution[-1])
    return network
