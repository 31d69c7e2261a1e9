"""Chaos, predicted freely: a trained network, an echo-state network and a linear law."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, Sequence
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
from elman.studies.batch import Batch
from elman.studies.networks import Reader
from elman.studies.trained import TrainedSettings, TrainedStudy
from elman.training.measures import Loss, Measure, Sums
from elman.training.settings import option

TRAINED, WARM, STARTS = 8000, 300, 64
HORIZONS = {"mackey-glass": (84, 200, 400), "lorenz": (55, 110, 220)}
UNITS = {"mackey-glass": (1.0, "time units"), "lorenz": (0.02 * 0.906, "Lyapunov times")}


@dataclass
class DynamicsSettings(TrainedSettings):
    """The settings of the prediction of a dynamical system."""

    system: str = option("mackey-glass", "What to predict.", choices=tuple(HORIZONS))
    reservoir: int = option(500, "Units of the echo-state network.", least=1, below=30_000)
    order: int = option(50, "K, of the linear law.", least=1, below=30_000)


class Dynamics(TrainedStudy):
    """A dynamical system goes on by itself: every value is predicted from predictions.

    Of one motion, standardised, 8,000 values are learned from. Then from each of 64 starts, 300
    true values warm a model up, and it runs freely. The measure is the root mean squared error over
    the starts, over the standard deviation: 1 is as good as the mean. Chaos multiplies any error by
    e in a Lyapunov time, so that no model stays right for long.

    The network learns the next difference, x' − x, from windows of T true values. To be judged, its
    read-out is fitted once more, in double precision, to all states at once: what is linear needs
    no small steps. Beside it, on the same values, an echo-state network, whose read-out is fitted
    in the same way and is all that is, and a linear autoregression by least squares.
    """

    name = "dynamics"
    subject = "Mackey–Glass and Lorenz, predicted freely, beside two baselines"
    source = "Jaeger & Haas, 2004"
    outputs = 1
    headline = Measure("normalised_error")
    goal, reach = 0.0, 0.1
    seeds = 3
    Settings = DynamicsSettings.with_defaults(
        cell="gru", hidden=128, length=200, updates=4000, batch=16, learning_rate=5e-3, every=500,
    )  # fmt: skip
    settings: DynamicsSettings

    def __init__(self, settings: DynamicsSettings, data: Sequence[str] = ()):
        super().__init__(settings, data)
        self.horizons = HORIZONS[settings.system]
        apart = 2 * self.horizons[-1]
        held = STARTS * apart + WARM
        whole = _series(settings.system, TRAINED + 2 * held)
        whole = (whole - whole[:TRAINED].mean(0)) / whole[:TRAINED].std(0)
        self.series = whole[:TRAINED]
        self.step = (self.series[1:] - self.series[:-1]).std(0)
        parts = whole[TRAINED : TRAINED + held], whole[TRAINED + held :]
        # (T, starts, S) for the checks while training, and for the final test.
        window = WARM + self.horizons[-1]
        cut = [p.unfold(0, window, apart)[:STARTS].permute(2, 0, 1) for p in parts]
        self.motions = dict(zip(("validation", "test"), cut, strict=True))

    def batch(self, draw: torch.Generator, count: int, length: int) -> Batch:
        """Windows of the series, and the differences to each next value, standardised."""
        starts = torch.randint(TRAINED - length, (count,), generator=draw)
        at = starts + torch.arange(length + 1).unsqueeze(1)
        windows = self.series[at]
        real = torch.get_default_dtype()
        return Batch(windows[:-1].to(real), self._differences(windows).to(real))

    def held_out(self, part: str) -> list[Callable[[], Batch]]:
        """The motions from all starts; the target is what is to be foretold."""
        motions = self.motions[part]
        return [lambda: Batch(motions[:WARM], motions[WARM:])]

    def build(self) -> Reader:
        """A new network, as wide as the system."""
        size = self.series.shape[1]
        return Reader(self.make_cell(size, self.settings.hidden), size)

    def loss(self, model: Any, batch: Batch, carry: Any) -> Loss:
        """The mean squared error, but of the first steps, at which the state is still empty."""
        skip = min(20, len(batch.x) // 2)
        return Loss(mse_loss(model(batch)[skip:], batch.target[skip:]), len(batch))

    def tally(self, model: Any, batch: Batch, carry: Any) -> tuple[Sums, Any]:
        """The squared error at the first horizon, where the network runs freely."""
        freely = self._freely(self._fitted(model), batch.x)
        off = (freely - batch.target)[self.horizons[0] - 1].square().mean(-1)
        return {"loss": float(off.sum()), "count": len(batch), "squares": float(off.sum())}, None

    def measures(self, sums: Sums) -> dict[str, float]:
        """The normalised error at the first horizon, which training itself does not measure."""
        if "squares" not in sums:
            return {}
        return {"normalised_error": (sums["squares"] / sums["count"]) ** 0.5}

    def row(self, measures: Mapping[str, float], training: Mapping[str, Any]) -> dict[str, Any]:
        """The errors at all horizons."""
        size = sum(p.numel() for p in self.model.parameters())
        return self._row(self.settings.cell, size, training["cpu"], self.freely())

    @torch.no_grad()
    def freely(self) -> Tensor:
        """(horizons, starts, S): the model's values from the starts of the test."""
        return self._freely(self._fitted(self.model), self.motions["test"][:WARM])

    @classmethod
    def baselines(cls, studies: Sequence[Any]) -> list[dict[str, Any]]:
        """As many echo-state networks, and the linear law."""
        rows = []
        for study in studies:
            began = time.process_time()
            echo = study.echo_state()
            spent = time.process_time() - began
            size = sum(p.numel() for p in echo.readout.parameters())
            rows.append(study._row("echo state", size, spent, study.freely_by(echo)))
        began = time.process_time()
        law = studies[0].law()
        spent = time.process_time() - began
        size = sum(p.numel() for p in law.parameters())
        rows.append(studies[0]._row("linear", size, spent, studies[0].freely_by(law)))
        return rows

    def echo_state(self) -> EchoState:
        """The echo-state network of this seed, fitted."""
        torch.manual_seed(self.settings.seed)
        return EchoState(self.series.shape[1], self.settings.reservoir).fit(self.series)

    def law(self) -> AR:
        """The linear law, fitted."""
        size = self.series.shape[1]
        return AR(self.settings.order, size, dtype=torch.float64).fit(self.series)

    @torch.no_grad()
    def freely_by(self, model: EchoState | AR) -> Tensor:
        """(horizons, starts, S): the values of another model from the starts of the test."""
        warm, steps = self.motions["test"][:WARM], self.horizons[-1]
        if isinstance(model, AR):
            return model.forecast(warm, steps)
        return free_run(model.recurrent, model.readout, warm, steps)

    @classmethod
    def draw(cls, studies: Sequence[Any], found: Mapping[str, Any], path: Path) -> None:
        """A free run of each model's first seed, and its error by horizon."""
        first = studies[0]
        runs = {
            first.settings.cell: first.freely(),
            "echo state": first.freely_by(first.echo_state()),
            "linear": first.freely_by(first.law()),
        }
        interval, unit = UNITS[first.settings.system]
        pictures.draw_forecasts(
            first.motions["test"][WARM:][:, 0, 0],
            {name: run[:, 0, 0] for name, run in runs.items()},
            {name: first.errors(run) for name, run in runs.items()},
            interval, unit, f"{first.settings.system}, running freely", path,
        )  # fmt: skip

    def _differences(self, series: Tensor) -> Tensor:
        return (series[1:] - series[:-1]) / self.step

    @torch.no_grad()
    def _fitted(self, network: Reader) -> Reader:
        """The network in double precision, its read-out fitted to all states of the series."""
        network = copy.deepcopy(network).to("cpu", torch.float64)
        states = network.recurrent(self.series[:-1])[0]
        fit_readout(network.readout, states[WARM:], self._differences(self.series)[WARM:])
        return network

    def _freely(self, network: Reader, warm: Tensor) -> Tensor:
        def difference(h: Tensor) -> Tensor:
            return network.readout(h) * self.step

        return free_run(network.recurrent, difference, warm, self.horizons[-1])

    def errors(self, freely: Tensor) -> Tensor:
        """(horizons): the normalised error after 1, 2, … steps, over the starts of the test."""
        return (freely - self.motions["test"][WARM:]).square().mean((1, 2)).sqrt()

    def _row(self, model: str, size: int, cpu: float, freely: Tensor) -> dict[str, Any]:
        errors = self.errors(freely)
        row: dict[str, Any] = {"model": model, "seed": self.settings.seed, "fitted": size}
        row["cpu"] = round(cpu, 1)
        return row | {f"error at {h}": float(errors[h - 1]) for h in self.horizons}


def _series(system: str, steps: int) -> Tensor:
    """(steps, S) of the motion, once it is on its attractor."""
    if system == "lorenz":
        return torch.from_numpy(lorenz(steps + 1000)[1000:])
    values = chain.from_iterable(mackey_glass())
    return torch.from_numpy(np.fromiter(islice(values, 1000, steps + 1000), float)).unsqueeze(-1)
