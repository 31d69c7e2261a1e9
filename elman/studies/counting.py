"""Counting: aⁿbⁿ and aⁿbⁿcⁿ (Gers & Schmidhuber, 2001)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from elman.data.batches import Batches
from elman.data.shards import Shard
from elman.studies import pictures
from elman.studies.batch import Batch
from elman.studies.grammar import NextSymbol, as_batch
from elman.studies.trained import TrainedSettings
from elman.training.measures import Loss, Measure, Sums, sums_of


class Counting(NextSymbol):
    """aⁿbⁿ or aⁿbⁿcⁿ, trained on small n and tried on larger ones.

    A string is S aⁿ bⁿ T; S and every a may be followed by a or (after an a) by b, all b but the
    last by b, the last by T. The measure is the largest N such that all of 1, …, N are right at
    every symbol. Training, its checks and the choice of weights see n ≤ ``length`` alone.

    An LSTM counts in its cells, which nothing bounds; a GRU's state is an average, within (−1, 1)
    (Weiss, Goldberg & Yahav, 2018).

    How far a network counts that is right up to ``length`` is decided by two things. One is what a
    forget gate below 1 leaks: a bias that starts at 20 makes it 1 in float32, as in the LSTM of
    1997. The other is the loss, see :meth:`loss`.
    """

    letters: ClassVar[str]
    most: ClassVar[int] = 1000  # the largest n tried
    headline = Measure("right_up_to_n", higher=True)
    goal = None  # nothing that n ≤ length shows says that a count is exact: all updates
    FIRST, LAST = "S", "T"

    @classmethod
    def string(cls, n: int) -> tuple[str, list[set[str]]]:
        """The string of that n, and what may follow each of its symbols but the last."""
        text = cls.FIRST + "".join(letter * n for letter in cls.letters) + cls.LAST
        first, second = cls.letters[0], cls.letters[1]
        legal = [{following} for following in text[1:]]
        for k in range(1, n + 1):
            legal[k] = {first, second}
        return text, legal

    def batch(self, draw: torch.Generator, count: int, length: int) -> Batch:
        """``count`` strings with n drawn evenly from 1 to ``length``."""
        known, drawn = (
            self.strings(range(1, length + 1)),
            torch.randint(length, (count,), generator=draw),
        )
        assert known.lengths is not None
        lengths = known.lengths[drawn]
        end = int(lengths.max())
        return Batch(known.x[:end, drawn], known.target[:end, drawn], lengths)

    def loss(self, model: Any, batch: Batch, carry: Any) -> Loss:
        """The mean squared error against 1 for what may follow and −1 for what may not.

        Cross-entropy is content with a margin: a count that drifts a little with every symbol
        still ends on the right side of it for all n that training has. The squared error wants
        the same value at the end for every n, and the drift goes to 0.
        """
        return self._loss(model(batch), batch)

    def _loss(self, y: Tensor, batch: Batch) -> Loss:
        wanted = batch.target >= 0
        y = y[wanted]
        return Loss(mse_loss(y, 2 * batch.target[wanted].to(y) - 1), len(y))

    def held_out(self, part: str) -> list[Callable[[], Batch]]:
        """The strings of all n, in order: those of training for the checks, more for the test."""
        most = self.most if part == "test" else self.settings.length
        starts = range(1, most + 1, 50)
        return [partial(self.strings, range(n, min(n + 50, most + 1))) for n in starts]

    def batches(self, part: str, epoch: int | None = None, shard: Shard = Shard()) -> Batches:  # noqa: B008
        """As every study's, but that the first process counts alone: what is asked has an order."""
        found = super().batches(part, epoch, shard if part == "train" else Shard())
        if part == "train" or shard.rank == 0:
            return found
        return Batches(len(found), lambda done: iter([None] * (len(found) - done)))

    def tally(self, model: Any, batch: Batch, carry: Any) -> tuple[Sums, Any]:
        """How many n are right before the first that is wrong; ``carry`` is whether one was."""
        if carry == "wrong":
            return {"right_up_to_n": 0}, carry
        y = model(batch)
        right = self.right(y, batch).tolist()
        count = right.index(False) if False in right else len(right)
        sums = {**sums_of(self._loss(y, batch)), "right_up_to_n": count}
        return sums, "right" if all(right) else "wrong"

    def measures(self, sums: Sums) -> dict[str, float]:
        """N, which training itself does not measure."""
        return {k: v for k, v in sums.items() if k == "right_up_to_n"}

    def strings(self, ns: range) -> Batch:
        """The strings of these n."""
        return _strings(type(self), ns)

    @classmethod
    @torch.no_grad()
    def draw(cls, studies: Sequence[Any], found: Mapping[str, Any], path: Path) -> None:
        """What each seed learned, how far it counts, and the best network's last state."""
        counts = [row["right_up_to_n"] for row in found["rows"]]
        best = studies[max(range(len(counts)), key=lambda k: (counts[k], k))]
        n, model = best.settings.length, best.model
        batch = best.strings(range(n, n + 1))
        _, states = model.recurrent(batch.x.to(model.readout.weight), return_states="all")
        memory = states[-1] if isinstance(states, tuple) else states
        letters = "".join(f"{letter}$^{{{n}}}$" for letter in cls.letters)
        kind = "cell states" if isinstance(states, tuple) else "states"
        pictures.draw_counting(
            found, cls.headline, memory[:, 0, 0], cls.string(n)[0][: len(memory)],
            f"{best.settings.cell}: the {kind} on {letters}; named: what comes back furthest", path,
        )  # fmt: skip


@cache
def _strings(kind: type[Counting], ns: range) -> Batch:
    symbols = kind.FIRST + kind.letters + kind.LAST
    return as_batch([kind.string(n) for n in ns], symbols)


class AnBn(Counting):
    """aⁿbⁿ: context-free, one counter."""

    name = "anbn"
    subject = "counting: aⁿbⁿ, trained to n ≤ 50"
    source = "Gers & Schmidhuber, 2001"
    letters = "ab"
    inputs = outputs = 4
    reach = 256
    Settings = TrainedSettings.with_defaults(
        hidden=10, length=50, updates=4000, learning_rate=0.02, forget_bias=20.0
    )


class AnBnCn(Counting):
    """aⁿbⁿcⁿ: context-sensitive, two counters."""

    name = "anbncn"
    subject = "counting: aⁿbⁿcⁿ, trained to n ≤ 50"
    source = "Gers & Schmidhuber, 2001"
    letters = "abc"
    inputs = outputs = 5
    reach = 100
    Settings = TrainedSettings.with_defaults(
        hidden=12, length=50, updates=4000, learning_rate=0.02, forget_bias=20.0
    )
