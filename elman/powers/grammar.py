"""Languages: the embedded Reber grammar, and counting (Gers & Schmidhuber, 2001)."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, mse_loss, one_hot

from elman.powers import pictures
from elman.powers.power import Batch, Learning, LearningSettings, Outcome, Reader
from elman.training.report import Report

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


class _NextSymbol(Learning):
    """After every symbol, all those that may follow are wanted: σ(y) is 1 for them, 0 for others.

    The target is (T, B, symbols); where nothing is wanted, past a string's end, it is −1.
    """

    def loss(self, network: Reader, batch: Batch) -> Tensor:
        """The mean binary cross-entropy of the symbols, in nats."""
        wanted = batch.target >= 0
        return binary_cross_entropy_with_logits(network(batch)[wanted], batch.target[wanted])

    def right(self, network: Reader, batch: Batch) -> Tensor:
        """(B) bool: whether every symbol's set of successors is the right one."""
        above = network(batch) > 0
        return ((above == (batch.target > 0.5)) | (batch.target < 0)).all(0).all(-1)


class Reber(_NextSymbol):
    """The embedded Reber grammar (experiment 1): what may follow, symbol by symbol.

    The figure is the share of 1,000 strings of which every symbol's legal successors, and no
    others, are predicted: stricter than the paper, which asks that the legal ones come first.
    """

    name = "reber"
    title = "the embedded Reber grammar: which symbols may follow"
    source = "Hochreiter & Schmidhuber, 1997, experiment 1"
    inputs = outputs = len(REBER)
    measure = "share of strings right"
    goal, reach = 1.0, 0.995
    higher = True
    # The grammar, not a setting, decides how long its strings are.
    Settings = LearningSettings.with_defaults(hidden=16, updates=3000, length=1, learning_rate=1e-2)

    def batch(self, draw: torch.Generator, count: int, length: int) -> Batch:
        """See the class; strings are as long as they come."""
        # Python's own numbers: a torch call for every symbol takes longer than the network.
        choices = random.Random(int(torch.randint(2**62, (), generator=draw)))
        return as_batch([reber(choices) for _ in range(count)], REBER)

    def figure(self, network: Reader, draw: torch.Generator) -> float:
        """The share of strings that are right throughout."""
        return float(self.right(network, self.batch(draw, 1000, 1)).double().mean())


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


class Counting(_NextSymbol):
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
        """As every test; the network that counts furthest is kept for the plot."""
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
