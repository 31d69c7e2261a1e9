"""Chaos, predicted freely: a trained network, an echo-state network and a linear law."""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from elman.data.dynamics import lorenz, mackey_glass
from elman.layers import AR
from elman.layers.echo_state import EchoState, fit_readout, free_run
from elman.studies import pictures
from elman.studies.study import Batch, Learning, LearningSettings, Outcome, Reader, make_cell
from elman.training.interrupt import Interrupt
from elman.training.report import Report
from elman.training.settings import option

TRAINED, WARM, STARTS = 8000, 300, 64
HORIZONS = {"mackey-glass": (84, 200, 400), "lorenz": (55, 110, 220)}
UNITS = {"mackey-glass": (1.0, "time units"), "lorenz": (0.02 * 0.906, "Lyapunov times")}


@dataclass
class DynamicsSettings(LearningSettings):
    """The settings of the prediction of a dynamical system."""

    system: str = option("mackey-glass", "What to predict.", choices=tuple(HORIZONS))
    reservoir: int = option(500, "Units of the echo-state network.", least=1, below=30_000)
    order: int = option(50, "K, of the linear law.", least=1, below=30_000)


class Dynamics(Learning):
    """A dynamical system goes on by itself: every value is predicted from predictions.

    Of one motion, standardised, 8,000 values are learned from. Then from each of 64 starts, 300
    true values warm a model up, and it runs freely. The figure is the root mean squared error over
    the starts, over the standard deviation: 1 is as good as the mean. Chaos multiplies any error by
    e in a Lyapunov time, so that no model stays right for long.

    The network learns the next difference, x' − x, from windows of T true values. To be judged, its
    read-out is fitted once more, in double precision, to all states at once: what is linear needs
    no small steps. Beside it, on the same values, an echo-state network, whose read-out is fitted
    in the same way and is all that is, and a linear autoregression by least squares.
    """

    name = "dynamics"
    title = "Mackey–Glass and Lorenz, predicted freely, beside two baselines"
    source = "Jaeger & Haas, 2004"
    outputs = 1
    measure = "normalised error"
    goal, reach = 0.0, 0.1
    Settings = DynamicsSettings.with_defaults(
        cell="gru", hidden=128, length=200, updates=4000, batch=16, learning_rate=5e-3, every=500,
        seeds=3,
    )  # fmt: skip
    settings: DynamicsSettings

    def __init__(self, settings: DynamicsSettings):
        super().__init__(settings)
        self.horizons = HORIZONS[settings.system]
        apart = 2 * self.horizons[-1]
        held = STARTS * apart + WARM
        whole = _series(settings.system, TRAINED + 2 * held)
        whole = (whole - whole[:TRAINED].mean(0)) / whole[:TRAINED].std(0)
        self.train = whole[:TRAINED]
        self.step = (self.train[1:] - self.train[:-1]).std(0)
        parts = whole[TRAINED : TRAINED + held], whole[TRAINED + held :]
        # (T, starts, S) for the checks while training, and for the final test.
        window = WARM + self.horizons[-1]
        self.held_out = [p.unfold(0, window, apart)[:STARTS].permute(2, 0, 1) for p in parts]

    def batch(self, draw: torch.Generator, count: int, length: int) -> Batch:
        """Windows of the series, and the differences to each next value, standardised."""
        starts = torch.randint(TRAINED - length, (count,), generator=draw)
        at = starts + torch.arange(length + 1).unsqueeze(1)
        windows = self.train[at]
        real = torch.get_default_dtype()
        return Batch(windows[:-1].to(real), self._differences(windows).to(real))

    def loss(self, network: Reader, batch: Batch) -> Tensor:
        """The mean squared error, but of the first steps, at which the state is still empty."""
        skip = min(20, len(batch.x) // 2)
        return mse_loss(network(batch)[skip:], batch.target[skip:])

    def make(self) -> Reader:
        """A new network, as wide as the system."""
        size = self.train.shape[1]
        return Reader(make_cell(self.settings, size), size)

    def check(self, network: Reader, draw: torch.Generator) -> float:
        """The error at the first horizon, from other starts than the final ones."""
        return self._error(self._fitted(network), self.held_out[0])

    def figure(self, network: Reader, draw: torch.Generator) -> float:
        """The error at the first horizon."""
        return self._error(self._fitted(network), self.held_out[1])

    def run(self, report: Report) -> Outcome:
        """Train a network for each seed, fit as many echo-state networks and the linear law."""
        its = self.settings
        warm = self.held_out[1][:WARM]
        rows: list[dict[str, Any]] = []
        curves: list[Any] = []
        self._runs: dict[str, Tensor] = {}
        with Interrupt() as self._interrupt:
            while len(curves) < its.seeds and not self._interrupt.asked:
                k = len(curves)
                row, curve = self.learn(its.seed + k, k, report)
                curves.append(curve)
                freely = self._freely(self._fitted(self.network), self.held_out[1])
                size = sum(p.numel() for p in self.network.parameters())
                rows.append(self._row(its.cell, row["seed"], size, row["cpu"], freely))
        self.interrupted = self._interrupt.asked
        for k in range(len(curves)):
            torch.manual_seed(its.seed + k)
            began = time.process_time()
            echo = EchoState(self.train.shape[1], its.reservoir).fit(self.train)
            spent = time.process_time() - began
            freely = free_run(echo.recurrent, echo.readout, warm, self.horizons[-1])
            size = sum(p.numel() for p in echo.readout.parameters())
            rows.append(self._row("echo state", its.seed + k, size, spent, freely))
        began = time.process_time()
        law = AR(its.order, self.train.shape[1], dtype=torch.float64).fit(self.train)
        spent = time.process_time() - began
        with torch.no_grad():
            freely = law.forecast(warm, self.horizons[-1])
        size = sum(p.numel() for p in law.parameters())
        rows.append(self._row("linear", its.seed, size, spent, freely))
        return Outcome(rows, {"measure": self.measure, "curves": curves})

    def draw(self, outcome: Outcome, path: Path) -> None:
        """A free run of each model's first seed, and its error by horizon."""
        truth = self.held_out[1][WARM:]
        interval, unit = UNITS[self.settings.system]
        pictures.draw_forecasts(
            truth[:, 0, 0], {name: run[:, 0, 0] for name, run in self._runs.items()},
            {name: self._errors(run, self.held_out[1]) for name, run in self._runs.items()},
            interval, unit, f"{self.settings.system}, running freely", path,
        )  # fmt: skip

    def _differences(self, series: Tensor) -> Tensor:
        return (series[1:] - series[:-1]) / self.step

    @torch.no_grad()
    def _fitted(self, network: Reader) -> Reader:
        """The network in double precision, its read-out fitted to all states of the series."""
        network = copy.deepcopy(network).double()
        states = network.recurrent(self.train[:-1])[0]
        fit_readout(network.readout, states[WARM:], self._differences(self.train)[WARM:])
        return network

    def _freely(self, network: Reader, held_out: Tensor) -> Tensor:
        def difference(h: Tensor) -> Tensor:
            return network.readout(h) * self.step

        return free_run(network.recurrent, difference, held_out[:WARM], self.horizons[-1])

    def _error(self, network: Reader, held_out: Tensor) -> float:
        return float(self._errors(self._freely(network, held_out), held_out)[self.horizons[0] - 1])

    def _errors(self, freely: Tensor, held_out: Tensor) -> Tensor:
        """(horizons): the normalised error after 1, 2, … steps."""
        return (freely - held_out[WARM:]).square().mean((1, 2)).sqrt()

    def _row(self, model: str, seed: int, size: int, cpu: float, freely: Tensor) -> dict[str, Any]:
        self._runs.setdefault(model, freely)
        errors = self._errors(freely, self.held_out[1])
        row: dict[str, Any] = {"model": model, "seed": seed, "fitted": size, "cpu": round(cpu, 1)}
        return row | {f"error at {h}": float(errors[h - 1]) for h in self.horizons}


def _series(system: str, steps: int) -> Tensor:
    """(steps, S) of the motion, once it is on its attractor."""
    if system == "lorenz":
        return torch.from_numpy(lorenz(steps + 1000)[1000:])
    values = chain.from_iterable(mackey_glass())
    return torch.from_numpy(np.fromiter(islice(values, 1000, steps + 1000), float)).unsqueeze(-1)
