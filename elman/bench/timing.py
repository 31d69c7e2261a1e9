"""How long calls take: in turns, warmed up, medians of many."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

_FEWEST = 3  # each call is measured so often at least, however long it takes


class Timing(NamedTuple):
    """The times of a call.

    Attributes:
        seconds: their median.
        spread: their interquartile range, as a share of the median: a row of more than about 0.2
            was measured on a busy machine. None where it was measured once.
    """

    seconds: float
    spread: float | None = None

    @classmethod
    def of(cls, times: Sequence[float]) -> Timing:
        """The median and the spread of some times, at least two."""
        low, median, high = statistics.quantiles(times, n=4, method="inclusive")
        return cls(median, (high - low) / median)

    def times(self, factor: float) -> Timing:
        """The times of so much of the call."""
        return Timing(self.seconds * factor, self.spread)


def interleaved(calls: Sequence[Callable[[], Any]], seconds: float) -> list[Timing]:
    """Time each of ``calls``, taken in turns for ``seconds`` in all, after a warm-up.

    In turns, whatever else the machine does meets all of them alike.
    """
    for call in calls:
        started = time.perf_counter()
        call()
        if time.perf_counter() - started < seconds / 4:
            call()
    times: list[list[float]] = [[] for _ in calls]
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times[0]) < _FEWEST:
        for call, taken in zip(calls, times, strict=True):
            started = time.perf_counter()
            call()
            taken.append(time.perf_counter() - started)
    return [Timing.of(taken) for taken in times]


def product_rate(rows: int, depth: int, columns: int, seconds: float = 0.2) -> float:
    """What the machine can do at best: the rate of one product (rows, depth) × (depth, columns).

    In GFLOP/s, float32, with PyTorch's threads, by whichever library is faster: PyTorch's own (MKL
    on most x86 processors) or oneDNN. On AMD processors MKL reaches half of oneDNN's rate.
    """
    x, weight = torch.randn(rows, depth), torch.randn(columns, depth)
    calls: list[Callable[[], torch.Tensor]] = [lambda: x @ weight.t()]
    if torch.backends.mkldnn.is_available():
        linear = torch.ops.mkldnn._linear_pointwise
        calls.append(lambda: linear(x, weight, None, "none", [], ""))
    with torch.no_grad():
        best = min(timing.seconds for timing in interleaved(calls, seconds))
    return 2 * rows * depth * columns / best / 1e9
