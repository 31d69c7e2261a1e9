"""What is measured: losses with a count, sums of them, and measures with a direction."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor

Sums = dict[str, float]
"""What adds up over batches and processes, by name; ``loss`` and ``count`` are among them."""


def perplexity(nats: float) -> float:
    """exp of a mean loss in nats; infinite where no float64 holds it."""
    return math.exp(nats) if nats < _LARGEST else math.inf


_LARGEST = math.log(sys.float_info.max)


class Measure(NamedTuple):
    """A figure by which models are judged: ``Measure("f1", higher=True)``.

    Whatever asks which of two is better asks here: the best weights, the plateau schedule, early
    stopping, curves, comparisons.
    """

    name: str
    higher: bool = False

    def cost(self, measures: Mapping[str, float]) -> float:
        """What is to become small: the figure, negated where higher is better.

        It is the mean loss where the figure was not measured, as F1 is not while training.
        """
        if self.name not in measures:
            return measures["loss"]
        figure = -measures[self.name] if self.higher else measures[self.name]
        return math.inf if math.isnan(figure) else figure  # F1 of nothing found is no number

    def of(self, measures: Mapping[str, float]) -> dict[str, float]:
        """The figure by its name, or the mean loss where it was not measured."""
        name = self.name if self.name in measures else "loss"
        return {name: measures[name]}


class Loss(NamedTuple):
    """What a model makes of a batch.

    Attributes:
        value: the mean loss, a scalar.
        count: how many units that mean is over; 0 for a batch in which nothing is asked.
        carry: what the next batch goes on from, such as the network's state; the loop detaches it.
        sums: what else adds up over batches, such as how many answers are right.
        penalty: what is to become small beside the loss, a scalar: learned from, never measured.
    """

    value: Tensor
    count: int  # type: ignore[assignment] # a tuple has a method of that name
    carry: Any = None
    sums: Mapping[str, float] = {}
    penalty: Tensor | float = 0.0

    @property
    def objective(self) -> Tensor:
        """What is learned from: the loss with its penalty."""
        known = isinstance(self.penalty, float) and not self.penalty
        return self.value if known else self.value + self.penalty


def sums_of(loss: Loss) -> Sums:
    """The sums of one batch."""
    whole = float(loss.value.detach()) * loss.count if loss.count else 0.0
    return {"loss": whole, "count": loss.count, **{k: float(v) for k, v in loss.sums.items()}}


def add(sums: Sums, more: Mapping[str, float]) -> None:
    """Add sums to others by name, in place."""
    for name, value in more.items():
        sums[name] = sums.get(name, 0) + value
