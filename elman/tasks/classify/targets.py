"""What a classifier tells of a sequence: its class, or a number."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, mse_loss

from elman.data.labelled import Labelled, name_of, number_of
from elman.data.lexicon import Lexicon
from elman.errors import ElmanError, brief
from elman.training import calibration, confusion
from elman.training.measures import Loss, Measure, Sums

_logger = logging.getLogger("elman")


class Targets(Protocol):
    """What is learned, how it is judged, and how it is told.

    Attributes:
        headline: the measure that models are judged by.
        outputs: how many scores the network gives.
    """

    headline: Measure
    outputs: int

    def of(self, record: Labelled) -> float:
        """What the network should tell of a record.

        Raises:
            ElmanError: its label is missing, or none that can be told.
        """

    def loss(self, scores: Tensor, targets: Tensor) -> Loss:
        """The mean loss of scores (B, C) for targets (B), and what measures are made of."""

    def mixture(self, scores: Sequence[Tensor]) -> Tensor:
        """The scores (B, C) of several models as those of one, which answers as their average."""

    def measures(self, sums: Sums) -> dict[str, float]:
        """The figures of sums."""

    def tables(self, sums: Sums) -> dict[str, Any]:
        """The figures of each class."""

    def answers(self, scores: Tensor, probabilities: bool) -> Iterator[dict[str, Any]]:
        """What people are told, with the probability of every class where they ask for it."""

    def assets(self) -> dict[str, Any]:
        """What restores it."""

    def describe(self) -> str:
        """What is told, in a few words."""


class Classes:
    """P(c) = softmax(s)_c, s the scores.

    Args:
        labels: the names of the classes.
        weights: (C) of the classes in the loss; None: all 1.
    """

    headline = Measure("accuracy", higher=True)

    def __init__(self, labels: Lexicon, weights: Tensor | None = None):
        self.labels, self.weights = labels, weights
        self.outputs = len(labels)

    @classmethod
    def collect(
        cls,
        records: Sequence[Labelled],
        balanced: bool = False,
        held_out: Sequence[Labelled] = (),
    ) -> Classes:
        """Collect the labels of records; say which of them none can be learned from.

        Args:
            records: to learn from.
            balanced: whether all classes count alike, however rare.
            held_out: to judge by. What they alone have is a class, too, which is never told.

        Raises:
            ElmanError: a label is missing, or all are the same.
        """
        counts = Counter(name_of(record) for record in records)
        if len(counts) < 2:
            raise ElmanError(
                f"all {len(records):,} sequences are of one class, {next(iter(counts))}, expected "
                "two or more: give some of others."
            )
        names = sorted({*counts, *(name_of(record) for record in held_out)})
        if unlearned := [name for name in names if name not in counts]:
            _logger.warning(
                "of the %s classes, %s in what the model is judged by alone, such as %s: none of "
                "it is learned, and all of it counts as wrong.",
                f"{len(names):,}",
                "1 is" if len(unlearned) == 1 else f"{len(unlearned):,} are",
                brief(unlearned[0]),
            )
        weights = confusion.balanced([counts[name] for name in names]) if balanced else None
        return cls(Lexicon(names), weights)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Classes) and self.labels == other.labels

    def of(self, record: Labelled) -> int:
        """The id of the record's class."""
        name = name_of(record)
        if name not in self.labels:
            names = self.labels.names
            known = ", ".join(names[:12]) + (", …" if len(names) > 12 else "")
            raise ElmanError(
                f"{record.place}: the label is {name!r}, expected one of the {len(names):,} that "
                f"were learned from ({known}): correct it, or train with data that has it."
            )
        return self.labels.ids([name])[0]

    def loss(self, scores: Tensor, targets: Tensor) -> Loss:
        """−log P of the classes, weighed."""
        count = len(targets)
        weights = None if self.weights is None else self.weights.to(scores)
        value = cross_entropy(scores, targets, weights, reduction="sum") / count
        confidence, found = scores.detach().softmax(-1).max(-1)
        sums = confusion.confused(targets, found, self.outputs)
        return Loss(value, count, sums=sums | calibration.binned(confidence, found == targets))

    def mixture(self, scores: Sequence[Tensor]) -> Tensor:
        """The logarithm of the mean of their probabilities."""
        return torch.stack([each.softmax(-1) for each in scores]).mean(0).log()

    def measures(self, sums: Sums) -> dict[str, float]:
        """Accuracy, macro F1, and the expected calibration error."""
        error = calibration.calibration_error(sums)
        return confusion.rates(sums, self.outputs) | {"calibration_error": error}

    def tables(self, sums: Sums) -> dict[str, Any]:
        """Precision, recall and F1 of each class, and which was taken for which."""
        return confusion.tables(sums, self.labels.names)

    def answers(self, scores: Tensor, probabilities: bool) -> Iterator[dict[str, Any]]:
        """The most probable class and its probability."""
        names = self.labels.names
        for shares in scores.softmax(-1).tolist():
            best = int(np.argmax(shares))
            answer = {"label": names[best], "confidence": shares[best]}
            every = {"probabilities": dict(zip(names, shares, strict=True))}
            yield answer | (every if probabilities else {})

    def assets(self) -> dict[str, Any]:
        """The labels, and what each counts."""
        weights = {} if self.weights is None else {"class_weights": self.weights}
        return {"labels": self.labels.to_json(), **weights}

    def describe(self) -> str:
        """How many classes there are."""
        return f"{self.outputs:,} classes"


class Quantity:
    """y = μ + σ s, s the score, μ and σ those of the numbers that are learned from.

    Args:
        mean, scale: μ and σ.
    """

    headline = Measure("rmse")
    outputs = 1

    def __init__(self, mean: float, scale: float):
        self.mean, self.scale = mean, scale

    @classmethod
    def collect(cls, records: Sequence[Labelled]) -> Quantity:
        """Measure the labels of records.

        Raises:
            ElmanError: one is missing, or no number.
        """
        numbers = np.array([number_of(record) for record in records])
        return cls(float(numbers.mean()), max(float(numbers.std()), 1e-6))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Quantity) and self.assets() == other.assets()

    def of(self, record: Labelled) -> float:
        """The record's number, as a score."""
        return (number_of(record) - self.mean) / self.scale

    def loss(self, scores: Tensor, targets: Tensor) -> Loss:
        """The squared error of the scores."""
        wanted = targets.to(scores)
        value = mse_loss(scores.squeeze(-1), wanted)
        count, total, squares = len(wanted), wanted.sum(), wanted.square().sum()
        sums = {"errors": value.detach() * count, "targets": total, "squares": squares}
        return Loss(value, count, sums=sums)  # type: ignore[arg-type] # become numbers there

    def mixture(self, scores: Sequence[Tensor]) -> Tensor:
        """Their mean."""
        return torch.stack(list(scores)).mean(0)

    def measures(self, sums: Sums) -> dict[str, float]:
        """The root of the mean squared error, in the labels' unit, and R²."""
        errors, count = sums["errors"], sums["count"]
        spread = sums["squares"] - sums["targets"] ** 2 / count
        r2 = 1 - errors / spread if spread > 0 else 0.0
        return {"rmse": (errors / count) ** 0.5 * self.scale, "r2": r2}

    def tables(self, sums: Sums) -> dict[str, Any]:
        """None."""
        return {}

    def answers(self, scores: Tensor, probabilities: bool) -> Iterator[dict[str, Any]]:
        """The number."""
        for score in scores.squeeze(-1).tolist():
            yield {"number": self.mean + self.scale * score}

    def assets(self) -> dict[str, Any]:
        """How numbers are scaled."""
        return {"number": {"mean": self.mean, "scale": self.scale}}

    def describe(self) -> str:
        """What is told."""
        return "a number"


def restored(assets: dict[str, Any]) -> Targets:
    """What the assets of a run restore."""
    if "labels" in assets:
        return Classes(Lexicon.from_json(assets["labels"]), assets.get("class_weights"))
    return Quantity(**assets["number"])
