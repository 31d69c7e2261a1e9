"""Streams without end, to learn from as they come."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, mse_loss, one_hot

from elman.data.dynamics import mackey_glass
from elman.data.text import open_text
from elman.data.vocabulary import Vocabulary
from elman.errors import ElmanError

AHEAD = 6  # how far ahead the Mackey–Glass series is predicted, as is the custom (Crowder, 1990)
_MEAN, _SPREAD = 0.930, 0.226  # of its values with τ = 17


@dataclass(frozen=True)
class Endless:
    """A stream to predict.

    Attributes:
        name: what it is.
        inputs: M, the width of a step.
        outputs: the width of a prediction.
        error: what the error is called.
        rows: from a batch size to the endless values of each row, in blocks.
        ahead: how many steps ahead the target is.
        encode: from values (T, B) to inputs (T, B, M).
        loss: from predictions (T, B, outputs) and values (T, B) to their mean loss.
        measure: from a mean loss to the error.
    """

    name: str
    inputs: int
    outputs: int
    error: str
    rows: Callable[[int], list[Iterator[np.ndarray]]]
    ahead: int
    encode: Callable[[Tensor], Tensor]
    loss: Callable[[Tensor, Tensor], Tensor]
    measure: Callable[[float], float]

    def windows(self, batch: int, steps: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield inputs (T, B, M) and targets (T, B), each window going on where the last ended."""
        rows, size = self.rows(batch), steps + self.ahead
        held = [np.empty(0)] * batch
        while True:
            for b, row in enumerate(rows):
                while len(held[b]) < size:
                    held[b] = np.concatenate([held[b], next(row)])
            values = torch.from_numpy(np.stack([values[:size] for values in held], 1))
            held = [values[steps:] for values in held]
            yield self.encode(values[:steps]), values[self.ahead :]


def open_endless(data: str) -> Endless:
    """The stream called ``mackey-glass``, or the characters of a text, over and over.

    The Mackey–Glass series (τ = 17, shifted and scaled to mean 0 and variance 1) is predicted six
    steps ahead; its error is the root of the mean square, 1 for who knows the mean alone. Each row
    of a batch starts elsewhere. Of a text, the next character is predicted; the error is in nats.

    Raises:
        ElmanError: there is no such text.
        ElmanError: the text cannot be read, or is too short to predict.
    """
    if data == "mackey-glass":
        return Endless(
            data, 1, 1, "normalised error (RMS)", _signals, AHEAD,
            lambda values: values.to(torch.get_default_dtype()).unsqueeze(-1),
            lambda y, target: mse_loss(y.squeeze(-1), target.to(y)),
            lambda loss: loss**0.5,
        )  # fmt: skip
    source = open_text(data)
    vocabulary = Vocabulary.build(source.blocks("letters"), "character")
    ids = np.concatenate(list(vocabulary.encode(source.blocks("letters"))))
    if len(ids) < 2:
        raise ElmanError(f"{data} has {len(ids)} characters: expected at least 2 to predict one.")
    size = len(vocabulary)
    return Endless(
        source.name, size, size, "nats a character",
        lambda batch: [
            itertools.repeat(np.roll(ids, -(b * len(ids) // batch))) for b in range(batch)
        ],
        1,
        lambda values: one_hot(values.long(), size).to(torch.get_default_dtype()),
        lambda y, target: cross_entropy(y.flatten(0, -2), target.long().flatten()),
        lambda loss: loss,
    )  # fmt: skip


def _signals(batch: int) -> list[Iterator[np.ndarray]]:
    return [_standardised(mackey_glass(start=1.2 - 0.6 * b / batch)) for b in range(batch)]


def _standardised(blocks: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    return ((block - _MEAN) / _SPREAD for block in blocks)
