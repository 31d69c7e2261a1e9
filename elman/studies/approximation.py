"""What recurrent networks can approximate: every driven dynamical system, given enough units."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from elman.cells import Elman
from elman.errors import InputError
from elman.layers.echo_state import fit_readout
from elman.studies import pictures
from elman.studies.batch import Batch
from elman.studies.networks import Reader
from elman.studies.trained import TrainedSettings, TrainedStudy
from elman.training.measures import Loss, Measure, Sums
from elman.training.settings import option


def pendulum(x: Tensor) -> Tensor:
    """A damped pendulum under a torque; seen is how far it is to the side.

    s = (θ, ω):    ω_t = ω_{t−1} + h (x_t − sin θ_{t−1} − ω_{t−1} / 2)    θ_t = θ_{t−1} + h ω_t
    y_t = sin θ_t, with steps of h = 1/4; it hangs at rest before the first.

    Args:
        x: (T, B), the torque.

    Returns:
        y (T, B).
    """
    angle = speed = torch.zeros_like(x[0])
    seen = []
    for torque in x:
        speed = speed + 0.25 * (torque - angle.sin() - speed / 2)
        angle = angle + 0.25 * speed
        seen.append(angle.sin())
    return torch.stack(seen)


def plant(x: Tensor) -> Tensor:
    """A plant of control theory (Narendra & Parthasarathy, 1990): s_t = s / (1 + s²) + x_t³, y = s.

    Args:
        x: (T, B), what drives it.

    Returns:
        y (T, B), from s_0 = 0.
    """
    s = torch.zeros_like(x[0])
    seen = []
    for drive in x:
        s = s / (1 + s * s) + drive**3
        seen.append(s)
    return torch.stack(seen)


SYSTEMS: dict[str, tuple[Callable[[Tensor], Tensor], float, int]] = {
    "pendulum": (pendulum, 0.5, 8),
    "plant": (plant, 1.0, 1),
}
"""By name: the system, how strongly it is driven, and for how many steps each value is held."""


@dataclass
class ApproximationSettings(TrainedSettings):
    """The settings of the approximation of a driven system."""

    system: str = option("pendulum", "What to approximate.", choices=tuple(SYSTEMS))
    widths: list[int] = option([2, 4, 8, 16, 32, 64], "Numbers of units.", least=1, below=2**31)
    tested_length: int = option(500, "Steps of the sequences of the test.", least=1, below=10**6)


class Approximation(TrainedStudy):
    """A driven non-linear system is approximated by networks of growing width.

    The system is s_t = g(s_{t−1}, x_t), y_t = o(s_t); the network, all of whose units see each
    other, h_t = σ(W x_t + U h_{t−1} + b), ŷ_t = V h_t + v, with the logistic σ. That some width
    will do for any such system, any error and any number of steps is a theorem; what it does not
    say is that training finds the weights, which is tried here, and that they serve beyond that
    number of steps, which is measured: training, its checks and the choice of weights see
    sequences of ``length`` steps, the test has ``tested_length``.

    x is drawn evenly from (−a, a) and held for some steps. The error is the root mean square over
    all steps and sequences, over the deviation of y: 1 is as good as the mean. To be judged, V and
    v are fitted once more by least squares, in double precision, to 200 sequences of training.
    """

    name = "approximation"
    subject = "recurrent sigmoid units approximate a driven system"
    source = "Schäfer & Zimmermann, 2006"
    inputs = outputs = 1
    headline = Measure("normalised_error")
    goal, reach = None, 0.0
    tested = 100
    seeds = 3
    fixed = frozenset({"cell", "hidden", "memory", "forget_bias"})
    Settings = ApproximationSettings.with_defaults(
        cell="rnn", length=50, updates=3000, every=500, learning_rate=1e-2
    )
    settings: ApproximationSettings

    @classmethod
    def variants(cls, settings: Any, seeds: Sequence[int]) -> dict[str, Any]:
        """A network of each width and seed."""
        if len(set(settings.widths)) < len(settings.widths) or not settings.widths:
            raise InputError(f"widths must be different numbers, received {settings.widths}.")
        return {
            f"{width}-units-seed-{seed}": replace(settings, hidden=width, seed=seed)
            for width in settings.widths
            for seed in seeds
        }

    def batch(self, draw: torch.Generator, count: int, length: int) -> Batch:
        """What drives the system, and what is seen of it, both (T, B, 1)."""
        system, most, held = SYSTEMS[self.settings.system]
        x = most * (2 * torch.rand(-(-length // held), count, generator=draw) - 1)
        x = x.repeat_interleave(held, 0)[:length]
        return Batch(x.unsqueeze(-1), system(x).unsqueeze(-1))

    def length(self, part: str) -> int:
        """Longer in the test."""
        return self.settings.tested_length if part == "test" else self.settings.length

    def build(self) -> Reader:
        """A new network, which also learns the state that it starts in."""
        cell = Elman(1, self.settings.hidden, "sigmoid", biases=1)
        with torch.no_grad():
            for parameter in cell.parameters():
                parameter.mul_(4)  # the slope of σ is a quarter of tanh's
        return Reader(cell, 1, learn_initial_state=True)

    def loss(self, model: Any, batch: Batch, carry: Any) -> Loss:
        """The mean squared error of all steps."""
        return Loss(mse_loss(model(batch), batch.target), batch.target.numel())

    def tally(self, model: Any, batch: Batch, carry: Any) -> tuple[Sums, Any]:
        """Squared errors with the read-out fitted: of all steps, and of the first ``length``."""
        off = (self.fitted(model)(batch) - batch.target).square()
        within = off[: self.settings.length]
        sums = {"loss": float(off.sum()), "count": off.numel(), "within": float(within.sum())}
        return sums | {"steps_within": within.numel()}, None

    def measures(self, sums: Sums) -> dict[str, float]:
        """The normalised errors, which training itself does not measure."""
        if "within" not in sums:
            return {}
        of_all, within = sums["loss"] / sums["count"], sums["within"] / sums["steps_within"]
        return {
            "normalised_error": of_all**0.5 / self._deviation,
            "normalised_error_within": within**0.5 / self._deviation,
        }

    def row(self, measures: Mapping[str, float], training: Mapping[str, Any]) -> dict[str, Any]:
        """The errors within the steps of training, and over all."""
        its = self.settings
        row = {"units": its.hidden, "seed": its.seed, "parameters": self.parameters(), **training}
        row[f"error of {its.length} steps"] = measures["normalised_error_within"]
        return row | {f"error of {its.tested_length} steps": measures["normalised_error"]}

    @torch.no_grad()
    def fitted(self, model: Reader) -> Reader:
        """The network in double precision, its read-out fitted to sequences of training."""
        model = copy.deepcopy(model).to("cpu", torch.float64)
        states = model.recurrent(self._known.x.double())[0]
        fit_readout(model.readout, states.flatten(0, 1), self._known.target.double().flatten(0, 1))
        return model

    @classmethod
    @torch.no_grad()
    def draw(cls, studies: Sequence[Any], found: Mapping[str, Any], path: Path) -> None:
        """A sequence of the test beside the networks of some widths, and the error by width."""
        (make,) = studies[0].held_out("test")
        batch = make().rows(slice(1))
        widths = sorted({study.settings.hidden for study in studies})
        shown = {}
        for width in (widths[0], widths[len(widths) // 2], widths[-1]):
            study = next(study for study in studies if study.settings.hidden == width)
            shown[width] = study.fitted(study.model)(batch)[:, 0, 0]
        its = studies[0].settings
        pictures.draw_approximation(
            batch.target[:, 0, 0], shown, found["rows"], its.length, f"the {its.system}", path
        )

    @cached_property
    def _known(self) -> Batch:
        return self.batch(
            torch.Generator().manual_seed(self.settings.seed), 200, self.length("train")
        )

    @cached_property
    def _deviation(self) -> float:
        whole = self.batch(torch.Generator().manual_seed(0), 1000, self.settings.tested_length)
        return float(whole.target.std())
