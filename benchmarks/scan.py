"""Cells made for parallel time: all steps at once beside the same cells step by step.

    python benchmarks/scan.py [--cells sru,lru] [--threads 1] [--seconds 1]

Prints two tables: training (forward and backward of one layer) on the scan engine, and how many
times as long the loop of the native engine and the eager loop take; then the scan alone, in bytes a
second, beside the sum of two tensors of its size. Medians, interleaved in one process, float32,
glibc told to keep freed memory. With one thread it is processor time, so that other work on the
machine hardly counts. The eager loop is measured up to 1,000 steps.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

import elman
from elman.allocation import keep_freed_memory
from elman.bench import machine
from elman.cells import make
from elman.compiler.recurrence import Course, scan

CELLS = "sru,qrnn,mingru,minlstm,lru"
SHAPES = (
    (100, 1, 128), (100, 16, 512), (1_000, 1, 512), (1_000, 16, 128), (10_000, 1, 128),
    (10_000, 1, 512), (10_000, 16, 128), (100_000, 1, 128),
)  # fmt: skip
"""(steps, batch, units); the input is as wide as the units."""
LONGEST_EAGER = 1_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", default=CELLS)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--seconds", type=float, default=1.0, help="for each row, at least")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    print(machine(), f"{options.threads} threads\n")
    print("| cell | steps, batch, units | scan ms | native loop | eager loop |")
    print("|---|---|---|---|---|")
    for name in options.cells.split(","):
        for shape in SHAPES:
            training(name, shape, options.seconds)
    print("\n| steps, batch, units | forward GB/s | backward GB/s | the machine GB/s |")
    print("|---|---|---|---|")
    for shape in SHAPES:
        alone(shape, options.seconds)


def training(name: str, shape: tuple[int, int, int], seconds: float) -> None:
    """One layer, forward and backward, by each engine; ratios are to the scan."""
    steps, batch, units = shape
    rnn = elman.Recurrent(make(name, units, units))
    x = torch.randn(steps, batch, units, requires_grad=True)
    gradient = torch.randn(steps, batch, units)

    def run(engine: str) -> Callable[[], Any]:
        def train() -> None:
            with elman.engine(engine):
                y, _ = rnn(x)
            torch.autograd.backward(y, gradient)
            rnn.zero_grad()
            x.grad = None

        return train

    engines = ["scan", "native"] + ["reference"] * (steps <= LONGEST_EAGER)
    taken = medians([run(engine) for engine in engines], seconds)
    ratios = [f"{other / taken[0]:.2f}" for other in taken[1:]] + ["–"]
    where = ", ".join(f"{n:,}".replace(",", " ") for n in shape)
    print(f"| {name} | {where} | {taken[0] * 1e3:.2f} | {ratios[0]} | {ratios[1]} |", flush=True)


def alone(shape: tuple[int, int, int], seconds: float) -> None:
    """The scan: it reads a, b and writes c; backward it reads a, c, a gradient and writes two."""
    a, b, out = (torch.rand(shape) for _ in range(3))
    first, gradient = torch.zeros(shape[1:]), torch.randn(shape)
    a.requires_grad_()
    c, _ = scan(a, b.requires_grad_(), first, None, Course())
    with torch.no_grad():
        plain = [a.detach(), b.detach()]
        calls = [
            lambda: scan(*plain, first, None, Course()),
            lambda: torch.autograd.grad(c, (a, b), gradient, retain_graph=True),
            lambda: torch.add(*plain, out=out),
        ]
        taken = medians(calls, seconds)
    size = a.numel() * a.element_size() / 1e9
    rates = [n * size / t for n, t in zip((3, 5, 3), taken, strict=True)]
    where = ", ".join(f"{n:,}".replace(",", " ") for n in shape)
    print(f"| {where} | {rates[0]:.1f} | {rates[1]:.1f} | {rates[2]:.1f} |", flush=True)


def medians(calls: Sequence[Callable[[], Any]], seconds: float) -> list[float]:
    """The median time of each call, taken in turns, warmed up."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    for call in calls:
        call()
    times: list[list[float]] = [[] for _ in calls]
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times[0]) < 3:
        for call, taken in zip(calls, times, strict=True):
            start = clock()
            call()
            taken.append(clock() - start)
    return [statistics.median(taken) for taken in times]


if __name__ == "__main__":
    main()
