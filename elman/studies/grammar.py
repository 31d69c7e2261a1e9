"""What may follow, symbol by symbol: the embedded Reber grammar."""

from __future__ import annotations

import random
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, one_hot

from elman.studies.batch import Batch
from elman.studies.trained import TrainedSettings, TrainedStudy
from elman.training.measures import Loss, Measure, Sums

REBER = "BTPSXVE"

# By state: the symbols that may follow, each with the state that it leads to (Reber, 1967).
_ARCS: tuple[tuple[tuple[str, int], ...], ...] = (
    (("T", 1), ("P", 2)),
    (("S", 1), ("X", 3)),
    (("T", 2), ("V", 4)),
    (("X", 2), ("S", 5)),
    (("P", 3), ("V", 5)),
    (),
)


def reber(draw: random.Random) -> tuple[str, list[set[str]]]:
    """A string of the embedded Reber grammar, and the symbols that may follow each of its own.

    B, then T or P, then a string of Reber's grammar from B to E, then again the T or P of the
    start, then E. What is legal after the inner E depends on the second symbol alone.

    Args:
        draw: where the random choices come from.

    Returns:
        the string, and for each symbol but the last the set of its legal successors.
    """

    outer = draw.choice("TP")
    text, legal, state = f"B{outer}B", [{"T", "P"}, {"B"}, {"T", "P"}], 0
    while _ARCS[state]:
        symbol, state = draw.choice(_ARCS[state])
        text += symbol
        legal.append({s for s, _ in _ARCS[state]} or {"E"})
    return f"{text}E{outer}E", [*legal, {outer}, {"E"}]


class NextSymbol(TrainedStudy):
    """After every symbol, all those that may follow are wanted: σ(y) is 1 for them, 0 for others.

    The target is (T, B, symbols); where nothing is wanted, past a string's end, it is −1.
    """

    def right(self, y: Tensor, batch: Batch) -> Tensor:
        """(B) bool: whether every symbol's set of successors is the right one."""
        return (((y > 0) == (batch.target > 0.5)) | (batch.target < 0)).all(0).all(-1)


class Reber(NextSymbol):
    """The embedded Reber grammar (experiment 1): what may follow, symbol by symbol.

    The measure is the share of 1,000 strings of which every symbol's legal successors, and no
    others, are predicted: stricter than the paper, which asks that the legal ones come first.
    """

    name = "reber"
    subject = "the embedded Reber grammar: which symbols may follow"
    source = "Hochreiter & Schmidhuber, 1997, experiment 1"
    inputs = outputs = len(REBER)
    headline = Measure("accuracy", higher=True)
    goal, reach = 1.0, 0.995
    # The grammar, not a setting, decides how long its strings are.
    Settings = TrainedSettings.with_defaults(hidden=16, updates=3000, length=1, learning_rate=1e-2)

    def batch(self, draw: torch.Generator, count: int, length: int) -> Batch:
        """Strings as long as they come, one-hot, and their legal successors; both (T, B, 7)."""
        # Python's own numbers: a torch call for every symbol takes longer than the network.
        choices = random.Random(int(torch.randint(2**62, (), generator=draw)))
        return as_batch([reber(choices) for _ in range(count)], REBER)

    def loss(self, model: Any, batch: Batch, carry: Any) -> Loss:
        """The mean binary cross-entropy of the symbols, in nats."""
        y, wanted = model(batch), batch.target >= 0
        value = binary_cross_entropy_with_logits(y[wanted], batch.target[wanted].to(y))
        right = {"right": float(self.right(y, batch).sum()), "strings": len(batch)}
        return Loss(value, int(wanted.sum()), sums=right)

    def measures(self, sums: Sums) -> dict[str, float]:
        """The share of strings that are right throughout."""
        return {"accuracy": sums["right"] / sums["strings"]}


def as_batch(strings: list[tuple[str, list[set[str]]]], symbols: str) -> Batch:
    """Strings and their legal successors, padded: x and target (T, B, symbols)."""
    lengths = torch.tensor([len(legal) for _, legal in strings])
    longest = int(lengths.max())
    read = torch.zeros(longest, len(strings), dtype=torch.long)
    target = torch.full((longest, len(strings), len(symbols)), -1.0)
    for k, (text, legal) in enumerate(strings):
        read[: len(legal), k] = torch.tensor([symbols.index(s) for s in text[: len(legal)]])
        target[: len(legal), k] = torch.tensor(
            [[float(s in after) for s in symbols] for after in legal]
        )
    return Batch(one_hot(read, len(symbols)).to(torch.get_default_dtype()), target, lengths)
