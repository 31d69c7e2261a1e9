"""Counting: aⁿbⁿ and aⁿbⁿcⁿ (Gers & Schmidhuber, 2001)."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from elman.studies import pictures
from elman.studies.grammar import NextSymbol, as_batch
from elman.studies.study import Batch, LearningSettings, Outcome, Reader
from elman.training.report import Report


class Counting(NextSymbol):
    """aⁿbⁿ or aⁿbⁿcⁿ, trained on small n and tried on larger ones.

    A string is S aⁿ bⁿ T; S and every a may be followed by a or (after an a) by b, all b but the
    last by b, the last by T. The figure is the largest N such that all of 1, …, N are right at
    every symbol. Training, its checks and the choice of weights see n ≤ ``length`` alone.

    An LSTM counts in its cells, which nothing bounds; a GRU's state is an average, within (−1, 1)
    (Weiss, Goldberg & Yahav, 2018).

    How far a network counts that is right up to ``length`` is decided by two things. One is what a
    forget gate below 1 leaks: a bias that starts at 20 makes it 1 in float32, as in the LSTM of
    1997. The other is the loss, see :meth:`loss`.
    """

    letters: ClassVar[str]
    most: ClassVar[int] = 1000  # the largest n tried
    measure = "right up to n"
    goal = math.inf  # nothing that n ≤ length shows says that a count is exact: all updates
    higher = True
    FIRST, LAST = "S", "T"

    def __init__(self, settings: LearningSettings):
        super().__init__(settings)
        self._known = self.strings([1])  # all strings that training draws from, once it does
        self._tried: dict[range, Batch] = {}

    def string(self, n: int) -> tuple[str, list[set[str]]]:
        """The string of that n, and what may follow each of its symbols but the last."""
        text = self.FIRST + "".join(letter * n for letter in self.letters) + self.LAST
        first, second = self.letters[0], self.letters[1]
        legal = [{following} for following in text[1:]]
        for k in range(1, n + 1):
            legal[k] = {first, second}
        return text, legal

    def batch(self, draw: torch.Generator, count: int, length: int) -> Batch:
        """``count`` strings with n drawn evenly from 1 to ``length``."""
        if len(self._known.target[0]) != length:
            self._known = self.strings(list(range(1, length + 1)))
        known, drawn = self._known, torch.randint(length, (count,), generator=draw)
        assert known.lengths is not None
        lengths = known.lengths[drawn]
        end = int(lengths.max())
        return Batch(known.x[:end, drawn], known.target[:end, drawn], lengths)

    def loss(self, network: Reader, batch: Batch) -> Tensor:
        """The mean squared error against 1 for what may follow and −1 for what may not.

        Cross-entropy is content with a margin: a count that drifts a little with every symbol
        still ends on the right side of it for all n that training has. The squared error wants
        the same value at the end for every n, and the drift goes to 0.
        """
        wanted = batch.target >= 0
        return mse_loss(network(batch)[wanted], 2 * batch.target[wanted] - 1)

    def strings(self, ns: list[int]) -> Batch:
        """The strings of these n."""
        return as_batch([self.string(n) for n in ns], self.FIRST + self.letters + self.LAST)

    def figure(self, network: Reader, draw: torch.Generator) -> float:
        """N, of at most ``most``."""
        return float(self.right_up_to(network, self.most))

    def check(self, network: Reader, draw: torch.Generator) -> float:
        """N, of at most the n that training sees."""
        return float(self.right_up_to(network, self.settings.length))

    def learn(self, seed: int, k: int, report: Report) -> tuple[dict[str, Any], list[Any]]:
        """As every study; the network that counts furthest is kept for the plot."""
        row, curve = super().learn(seed, k, report)
        if row["figure"] >= getattr(self, "_furthest", 0.0):
            self._furthest, self._counter = row["figure"], self.network
        return row, curve

    @torch.no_grad()
    def draw(self, outcome: Outcome, path: Path) -> None:
        """What each seed learned, how far it counts, and the best network's last state."""
        n = self.settings.length
        batch = self.strings([n])
        _, states = self._counter.recurrent(
            batch.x.to(self._counter.readout.weight), return_states="all"
        )
        memory = states[-1] if isinstance(states, tuple) else states
        letters = "".join(f"{letter}$^{{{n}}}$" for letter in self.letters)
        kind = "cell states" if isinstance(states, tuple) else "states"
        pictures.draw_counting(
            outcome.rows, outcome.details, memory[:, 0, 0], self.string(n)[0][: len(memory)],
            f"{self.settings.cell}: the {kind} on {letters}; named: what comes back furthest", path,
        )  # fmt: skip

    def right_up_to(self, network: Reader, most: int) -> int:
        """The largest N ≤ ``most`` such that all of 1, …, N are right."""
        for start in range(1, most + 1, 50):
            ns = range(start, min(start + 50, most + 1))
            if ns not in self._tried:
                self._tried[ns] = self.strings(list(ns))
            right = self.right(network, self._tried[ns]).tolist()
            if not all(right):
                return start + right.index(False) - 1
        return most


class AnBn(Counting):
    """aⁿbⁿ: context-free, one counter."""

    name = "anbn"
    title = "counting: aⁿbⁿ, trained to n ≤ 50"
    source = "Gers & Schmidhuber, 2001"
    letters = "ab"
    inputs = outputs = 4
    reach = 256
    Settings = LearningSettings.with_defaults(
        hidden=10, length=50, updates=4000, learning_rate=0.02, forget_bias=20.0
    )


class AnBnCn(Counting):
    """aⁿbⁿcⁿ: context-sensitive, two counters."""

    name = "anbncn"
    title = "counting: aⁿbⁿcⁿ, trained to n ≤ 50"
    source = "Gers & Schmidhuber, 2001"
    letters = "abc"
    inputs = outputs = 5
    reach = 100
    Settings = LearningSettings.with_defaults(
        hidden=12, length=50, updates=4000, learning_rate=0.02, forget_bias=20.0
    )
