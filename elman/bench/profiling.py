"""Where the time of a call goes, by PyTorch's profiler."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch.profiler import ProfilerActivity

from elman.bench.comparison import conditions, thread_counts
from elman.bench.measurement import Comparison, Shape
from elman.bench.networks import ElmanCalls, elman_network
from elman.errors import InputError

_WORKLOADS = ("train", "forward")
_PRODUCTS = ("mm", "addmm", "bmm", "baddbmm", "linear", "affine", "matmul", "product")
_CALLS = 10
KINDS = ("loops", "products", "PyTorch's operators", "describing calls")

# Otherwise the profiler tells on standard error when it starts and stops.
os.environ.setdefault("KINETO_LOG_LEVEL", "99")


@dataclass(frozen=True)
class Operator:
    """What one operator took: milliseconds a call of the workload, and how often it ran in one."""

    name: str
    ms: float
    times: float
    kind: str


@dataclass(frozen=True)
class Profile:
    """Where the time of one workload goes.

    Attributes:
        workload, cell, shape: of what.
        threads: with how many threads.
        ms: the time of a call under the profiler.
        operators: the most expensive first. Each operator's own time, without those it calls.
    """

    workload: str
    cell: str
    shape: Shape
    threads: int
    ms: float
    operators: tuple[Operator, ...]

    @property
    def kinds(self) -> dict[str, float]:
        """Milliseconds by kind; what no operator accounts for is Python."""
        found = dict.fromkeys(KINDS, 0.0)
        for operator in self.operators:
            found[operator.kind] += operator.ms
        return found | {"Python": max(0.0, self.ms - sum(found.values()))}

    def __str__(self) -> str:
        """As a Markdown table, the ten most expensive operators by name."""
        plural = "s" if self.threads > 1 else ""
        lines = [
            f"{self.workload} {self.cell} {self.shape}, {self.threads} thread{plural}: "
            f"{self.ms:.3f} ms a call\n",
            "| where | ms | share |",
            "|---|---|---|",
            *(f"| **{k}** | {ms:.3f} | {ms / self.ms:.0%} |" for k, ms in self.kinds.items()),
        ]
        for o in self.operators[:10]:
            lines.append(
                f"| {o.kind}: {o.name} × {o.times:g} | {o.ms:.3f} | {o.ms / self.ms:.0%} |"
            )
        return "\n".join(lines)


def profile(what: Sequence[Comparison], threads: Sequence[int] | None = None) -> Iterator[Profile]:
    """Profile elman's side of each comparison, once whatever the peer.

    Loops are the steps of a cell's kernels; products those of all steps, before and after the
    loops; describing calls is what Python does to hand both over. The profiler itself costs some
    microseconds an operator. A step of a stream runs outside PyTorch's operators and has none.

    Raises:
        InputError: a workload cannot be profiled, or a number of threads is not positive.
    """
    if wrong := [c.workload for c in what if c.workload not in _WORKLOADS]:
        raise InputError(f"{wrong[0]} cannot be profiled: expected one of {', '.join(_WORKLOADS)}.")
    for number in thread_counts(threads):
        for workload, cell, shape in dict.fromkeys(c[:3] for c in what):
            with conditions(number):
                found = _profile(workload, cell, shape)
            yield found


def _profile(workload: str, cell: str, shape: Shape) -> Profile:
    network = elman_network(cell, shape)
    calls = ElmanCalls(network, torch.randn(shape.steps, shape.batch, shape.input))
    call = getattr(calls, workload)
    for _ in range(3):
        call()
    with torch.profiler.profile(activities=[ProfilerActivity.CPU]) as profiler:
        call()  # the profiler's own first time is not counted
        profiler.step()
    with torch.profiler.profile(activities=[ProfilerActivity.CPU]) as profiler:
        started = time.perf_counter()
        for _ in range(_CALLS):
            call()
        taken = (time.perf_counter() - started) / _CALLS * 1e3
    operators = [
        Operator(e.key, e.self_cpu_time_total / _CALLS / 1e3, e.count / _CALLS, _kind(e.key))
        for e in profiler.key_averages()
    ]
    operators.sort(key=lambda o: o.ms, reverse=True)
    return Profile(workload, cell, shape, torch.get_num_threads(), taken, tuple(operators))


def _kind(operator: str) -> str:
    name = operator.rpartition("::")[2].lower()
    if operator == "elman::steps":
        return "loops"
    if "elman" in operator or name.startswith(("_loop", "_affine")):
        return "products" if name == "product" else "describing calls"
    if any(part in _PRODUCTS for part in name.replace("_", " ").split()):
        return "products"
    return "PyTorch's operators"
