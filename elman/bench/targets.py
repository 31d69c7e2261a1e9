"""What elman means to reach, target by target, and whether some measurements do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from elman.bench.cells import OWN
from elman.bench.comparison import comparisons
from elman.bench.measurement import Comparison, Measurement, geometric_mean
from elman.bench.workloads import TRANSFORMS, missing_packages


@dataclass(frozen=True)
class Target:
    """Something to reach.

    Attributes:
        name: what it is.
        workload, cells, peer: of which measurements.
        mean: the least geometric mean of their ratios.
        each: the least ratio of any of them.
        seconds: the most that any of them may take, whatever the peer.
    """

    name: str
    workload: str
    cells: tuple[str, ...]
    peer: str = "torch.nn"
    mean: float | None = None
    each: float | None = None
    seconds: float | None = None

    def applies(self, m: Measurement) -> bool:
        """Whether it is about a measurement."""
        if m.workload != self.workload or m.cell not in self.cells:
            return False
        return m.peer == self.peer or self.seconds is not None

    @property
    def must_reach(self) -> str:
        """What is wanted."""
        if self.seconds is not None:
            return f"{self.seconds:g} s at most"
        mean = [] if self.mean is None else [f"mean {self.mean:.2f}"]
        each = [] if self.each is None else [f"least {self.each:.2f}"]
        return ", ".join(mean + each)

    def reached(self, measurements: Sequence[Measurement]) -> tuple[str, bool]:
        """What these measurements reach, and whether that is enough."""
        if self.seconds is not None:
            slowest = max(m.elman_ms or 0.0 for m in measurements) / 1e3
            return f"{slowest:.3g} s", slowest <= self.seconds
        # To the digits that are shown, so that what is shown is what is judged.
        mean = round(geometric_mean(measurements), 2)
        least = round(min(m.ratio or 0.0 for m in measurements), 2)
        shown = f"{mean:.2f}" if len(measurements) == 1 else f"mean {mean:.2f}, least {least:.2f}"
        return shown, mean >= round(self.mean or 0.0, 2) and least >= (self.each or 0.0)


_MASKED = tuple(f"lstm+{name}" for name in TRANSFORMS if name != "layer_norm")
_OWN = tuple(OWN)

TARGETS = (
    Target("LSTM training", "train", ("lstm",), mean=1.6, each=1.0),
    Target("GRU training", "train", ("gru",), mean=4.0, each=1.1),
    Target("RNN training", "train", ("rnn",), mean=2.5, each=1.0),
    Target("training a cell of one's own", "train", _OWN, "loop", mean=8.0),
    Target("training a cell of one's own", "train", _OWN, mean=1.2),
    Target("one streaming step", "step", ("lstm",), mean=10.0),
    Target("one streaming step", "step", ("lstm",), "onnxruntime", mean=2.5),
    Target("the main job", "main-job", ("lstm",), mean=1.8),
    Target("generation", "generate", ("lstm",), mean=5.0),
    # 1.0; but Linux counts a process's pages to about a quarter of a megabyte only.
    Target("memory of a training step", "memory", ("lstm",), each=0.98),
    Target("zoneout, recurrent dropout", "transforms", _MASKED, "plain cell", mean=1 / 1.3),
    Target("layer normalisation", "transforms", ("lstm+layer_norm",), "plain cell", mean=1 / 1.6),
    Target("a new cell compiled", "compile", _OWN, "", seconds=5.0),
    Target("a new cell from the cache", "compile-cached", _OWN, "", seconds=0.1),
)
"""Those of the native engine; torch.nn, for a cell of one's own, means its LSTM."""


@dataclass(frozen=True)
class Verdict:
    """What some measurements say of a target, with one number of threads.

    Attributes:
        target: its name, and the peer.
        threads: with how many threads; 0 where it was not measured.
        reached: what was measured; says so where nothing was.
        must_reach: what was wanted.
        met: whether it is reached; None where nothing was measured.
    """

    target: str
    threads: int
    reached: str
    must_reach: str
    met: bool | None


def all_comparisons() -> list[Comparison]:
    """All that the targets ask for, and ``fit``, without peers that are not installed."""
    peers = [p for p in ("torch.nn", "onnxruntime") if not missing_packages(p)]
    return [
        *comparisons(("train",)),
        *comparisons(("train",), _OWN, peers=("loop", "torch.nn")),
        *comparisons(("fit",), ("lstm", *OWN)),
        *comparisons(("step",), ("lstm",), peers=peers),
        *comparisons(("main-job", "generate", "memory", "transforms"), ("lstm",)),
        *comparisons(("compile",), _OWN),
    ]


def judge(measurements: Sequence[Measurement]) -> list[Verdict]:
    """Every target, once for each number of threads that its measurements were made with."""
    verdicts = []
    for target in TARGETS:
        name = f"{target.name}, beside {target.peer}" if target.peer else target.name
        found = [m for m in measurements if target.applies(m)]
        if not found:
            why = f": {target.peer} is not installed" if missing_packages(target.peer) else ""
            verdicts.append(Verdict(name, 0, f"not measured{why}", target.must_reach, None))
        for threads in dict.fromkeys(m.threads for m in found):
            reached, met = target.reached([m for m in found if m.threads == threads])
            verdicts.append(Verdict(name, threads, reached, target.must_reach, met))
    return verdicts


def summary(verdicts: Sequence[Verdict]) -> str:
    """The verdicts as a Markdown table."""
    lines = ["| target | threads | reached | must reach | |", "|---|---|---|---|---|"]
    for v in verdicts:
        said = "" if v.met is None else "yes" if v.met else "**no**"
        lines.append(f"| {v.target} | {v.threads or ''} | {v.reached} | {v.must_reach} | {said} |")
    return "\n".join(lines)
