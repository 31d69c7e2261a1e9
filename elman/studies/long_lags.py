"""The classic suite of long time lags (Hochreiter & Schmidhuber, 1997), and the copy task."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, mse_loss, one_hot

from elman.studies.batch import Batch
from elman.studies.trained import TrainedSettings, TrainedStudy
from elman.training.measures import Loss, Measure, Sums
from elman.training.settings import option


class _Marked(TrainedStudy):
    """What is wanted, at the end of each sequence, is made of two marked values among many."""

    inputs, outputs = 2, 1
    headline = Measure("mean_squared_error")
    goal, reach = 5e-5, 1e-4
    shortest = 2
    Settings = TrainedSettings.with_defaults(
        length=100, hidden=64, updates=4000, learning_rate=1e-2, memory=100
    )

    @abstractmethod
    def answer(self, first: Tensor, second: Tensor) -> Tensor:
        """The target (B) for the marked values (B)."""

    def batch(self, draw: torch.Generator, count: int, length: int) -> Batch:
        """Values and marks, (T, B, 2), and what is made of the two marked values, (B)."""
        values = torch.rand(length, count, generator=draw)
        half = max(1, length // 2)
        columns = torch.arange(count)
        first = torch.randint(half, (count,), generator=draw), columns
        second = torch.randint(half, length, (count,), generator=draw), columns
        marks = torch.zeros(length, count)
        marks[first] = marks[second] = 1.0
        return Batch(torch.stack([values, marks], -1), self.answer(values[first], values[second]))

    def loss(self, model: Any, batch: Batch, carry: Any) -> Loss:
        """The mean squared error."""
        return Loss(mse_loss(model.last(batch)[:, 0], batch.target), len(batch))

    def measures(self, sums: Sums) -> dict[str, float]:
        """The mean squared error."""
        return {"mean_squared_error": sums["loss"] / sums["count"]}


class Adding(_Marked):
    """The sum of the two marked values (experiment 4).

    x_t = (v_t, m_t) with v_t ~ U(0, 1); m_t is 1 at one step of the first half and at one of the
    second half of T steps, and 0 elsewhere. Always to answer 1, the mean, has an error of 1/6. The
    paper has values of (−1, 1) and scales the sum; this form is that of Le et al. (2015).
    """

    name = "adding"
    subject = "the sum of two marked values among many"
    source = "Hochreiter & Schmidhuber, 1997, experiment 4"

    def answer(self, first: Tensor, second: Tensor) -> Tensor:
        """The sum."""
        return first + second


class Multiplication(_Marked):
    """The product of the two marked values (experiment 5): no sum of what is stored will do.

    Sequences as in :class:`Adding`. Always to answer 1/4, the mean, has an error of 7/144.
    """

    name = "multiplication"
    subject = "the product of two marked values among many"
    source = "Hochreiter & Schmidhuber, 1997, experiment 5"

    def answer(self, first: Tensor, second: Tensor) -> Tensor:
        """The product."""
        return first * second


class TemporalOrder(TrainedStudy):
    """Which of X and Y came first, which second (experiment 6a).

    Symbols: E at the start, B at the end, X or Y at one step of (T/10, T/5) and at one of
    (T/2, 3T/5), the distractors a, b, c, d at all others. Four classes: XX, XY, YX, YY.
    """

    name = "temporal-order"
    subject = "the order of two symbols far apart"
    source = "Hochreiter & Schmidhuber, 1997, experiment 6a"
    inputs, outputs = 8, 4
    headline = Measure("accuracy", higher=True)
    goal, reach = 1.0, 0.995
    shortest = 8  # E, a symbol, the other symbol, B
    Settings = TrainedSettings.with_defaults(length=100, hidden=32, updates=4000, memory=100)

    def batch(self, draw: torch.Generator, count: int, length: int) -> Batch:
        """Symbols, one-hot (T, B, 8), and the class of each sequence, (B)."""
        tenth = max(1, length // 10)
        symbols = torch.randint(4, (length, count), generator=draw)
        symbols[0], symbols[-1] = 6, 7
        target = torch.zeros(count, dtype=torch.long)
        for start in (tenth, 5 * tenth):
            at = torch.randint(start, start + tenth, (count,), generator=draw)
            which = torch.randint(2, (count,), generator=draw)
            symbols[at, torch.arange(count)] = 4 + which
            target = 2 * target + which
        return Batch(one_hot(symbols, 8).to(torch.get_default_dtype()), target)

    def loss(self, model: Any, batch: Batch, carry: Any) -> Loss:
        """The mean cross-entropy of the class, in nats."""
        y = model.last(batch)
        right = {"right": float((y.argmax(-1) == batch.target).sum())}
        return Loss(cross_entropy(y, batch.target), len(batch), sums=right)

    def measures(self, sums: Sums) -> dict[str, float]:
        """The share of sequences that are given their class."""
        return {"accuracy": sums["right"] / sums["count"]}


class Copy(TrainedStudy):
    """Write what was read T steps ago.

    Ten symbols of eight kinds, then T blanks, the last of them a mark, then ten blanks during
    which the ten symbols are wanted, in order. A memoryless guess has 1/8 of them right. A linear
    recurrent unit whose |λ| start near 1 is a delay line from the outset, and the default here.
    """

    name = "copy"
    subject = "ten symbols, written again after a lag of T steps"
    source = "Arjovsky, Shah & Bengio, 2016, after Hochreiter & Schmidhuber, 1997"
    inputs, outputs = 10, 8
    headline = Measure("accuracy", higher=True)
    goal, reach = 0.999, 0.99
    tested = 256
    SYMBOLS = 10
    Settings = TrainedSettings.with_defaults(
        cell="lru",
        length=200,
        hidden=128,
        updates=1000,
        batch=16,
        learning_rate=3e-3,
        memory=1000,
        every=25,
    )

    def batch(self, draw: torch.Generator, count: int, length: int) -> Batch:
        """Symbols, one-hot (T + 20, B, 10), and the ten to be written, (10, B)."""
        symbols = torch.randint(8, (self.SYMBOLS, count), generator=draw)
        read = torch.full((length + 2 * self.SYMBOLS, count), 8)
        read[: self.SYMBOLS] = symbols
        read[length + self.SYMBOLS - 1] = 9
        return Batch(one_hot(read, 10).to(torch.get_default_dtype()), symbols)

    def loss(self, model: Any, batch: Batch, carry: Any) -> Loss:
        """The mean cross-entropy of the ten symbols, in nats."""
        y, wanted = model(batch)[-self.SYMBOLS :].flatten(0, 1), batch.target.flatten()
        right = {"right": float((y.argmax(-1) == wanted).sum())}
        return Loss(cross_entropy(y, wanted), len(wanted), sums=right)

    def measures(self, sums: Sums) -> dict[str, float]:
        """The share of symbols that are right."""
        return {"accuracy": sums["right"] / sums["count"]}


@dataclass
class LatchSettings(TrainedSettings):
    """The settings of the two-sequence problem."""

    noise: str = option(
        "distractors", "Where there is noise: after the signal, on it too, or on the targets too.",
        choices=("distractors", "inputs", "targets"),
    )  # fmt: skip


class TwoSequence(TrainedStudy):
    """Latching: the first three values tell of which class a noisy sequence is (experiment 3).

    Of T to T + T/10 values the first three are 1 for one class and −1 for the other, the rest are
    Gaussian noise of variance 0.2. At the end 1 is wanted for the first class, 0 for the second.
    With ``noise``

    - ``distractors``: that is all (3a, the problem of Bengio, Simard & Frasconi, 1994);
    - ``inputs``: the first three values have the same noise as the others (3b);
    - ``targets``: what is taught is 0.8 and 0.2 with Gaussian noise of deviation 0.32 (3c); the
      conditional mean is to be learned.

    The measure is the mean absolute error against the target without its noise, which the paper has
    below 0.01 in 3a and 3b, and below 0.015 in 3c.
    """

    name = "two-sequence"
    subject = "two classes of noise, told apart by three values long ago"
    source = "Hochreiter & Schmidhuber, 1997, experiment 3"
    inputs = outputs = 1
    headline = Measure("mean_absolute_error")
    goal, reach = 0.01, 0.015
    Settings = LatchSettings.with_defaults(length=100, hidden=16, updates=4000, memory=100)
    settings: LatchSettings

    def batch(self, draw: torch.Generator, count: int, length: int) -> Batch:
        """Noise, (T, B, 1), and what is taught at each sequence's end, (B)."""
        lengths = torch.randint(length, length + length // 10 + 1, (count,), generator=draw)
        x = 0.2**0.5 * torch.randn(int(lengths.max()), count, generator=draw)
        target = torch.randint(2, (count,), generator=draw).to(torch.get_default_dtype())
        signal = 2 * target - 1
        x[:3] = signal if self.settings.noise == "distractors" else signal + x[:3]
        if self.settings.noise == "targets":
            target = 0.2 + 0.6 * target + 0.32 * torch.randn(count, generator=draw)
        return Batch(x.unsqueeze(-1), target, lengths)

    def loss(self, model: Any, batch: Batch, carry: Any) -> Loss:
        """The mean squared error against what is taught."""
        y = model.last(batch)[:, 0]
        # The class is the sign of the sum of the first three values, but for 1 in 10,000 of 3b.
        first = (batch.x[:3, :, 0].sum(0) > 0).to(y)
        mean = 0.2 + 0.6 * first if self.settings.noise == "targets" else first
        off = {"off": float((y.detach() - mean).abs().sum())}
        return Loss(mse_loss(y, batch.target), len(batch), sums=off)

    def measures(self, sums: Sums) -> dict[str, float]:
        """The mean absolute error against the mean of what is taught."""
        return {"mean_absolute_error": sums["off"] / sums["count"]}
