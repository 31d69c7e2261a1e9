"""What elman means to reach, bar by bar, and whether some rows do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from elman.bench.cells import OWN
from elman.bench.compare import comparisons
from elman.bench.rows import Row, geometric_mean
from elman.bench.works import TRANSFORMS, Comparison, check_installed
from elman.errors import InputError


@dataclass(frozen=True)
class Bar:
    """Something to reach.

    Attributes:
        name: what it is.
        work, cells, peer: of which rows.
        mean: the least geometric mean of their ratios.
        each: the least ratio of any of them.
        seconds: the most that any of them may take.
    """

    name: str
    work: str
    cells: tuple[str, ...]
    peer: str
    mean: float | None = None
    each: float | None = None
    seconds: float | None = None

    def of(self, rows: Sequence[Row]) -> list[Row]:
        """The rows that it is about."""
        return [
            r for r in rows
            if r.work == self.work and r.cell in self.cells
            and (r.peer == self.peer or self.seconds is not None)
        ]  # fmt: skip

    @property
    def must_reach(self) -> str:
        """What is wanted."""
        if self.seconds is not None:
            return f"{self.seconds:g} s at most"
        mean = [] if self.mean is None else [f"mean {self.mean:.2f}"]
        each = [] if self.each is None else [f"least {self.each:.2f}"]
        return ", ".join(mean + each)

    def against(self, rows: Sequence[Row]) -> tuple[str, bool]:
        """What these rows reach, and whether that is enough."""
        if self.seconds is not None:
            slowest = max(r.elman_ms or 0.0 for r in rows) / 1e3
            return f"{slowest:.3g} s", slowest <= self.seconds
        # To the digits that are shown, so that what is shown is what is judged.
        mean = round(geometric_mean(rows), 2)
        least = round(min(r.ratio or 0.0 for r in rows), 2)
        enough = mean >= round(self.mean or 0.0, 2) and least >= (self.each or 0.0)
        return f"{mean:.2f}" if len(rows) == 1 else f"mean {mean:.2f}, least {least:.2f}", enough


_DROPPED = tuple(f"lstm+{name}" for name in TRANSFORMS if name != "layer_norm")

BARS = (
    Bar("LSTM training", "train", ("lstm",), "torch.nn", 1.6, 1.0),
    Bar("GRU training", "train", ("gru",), "torch.nn", 4.0, 1.1),
    Bar("RNN training", "train", ("rnn",), "torch.nn", 2.5, 1.0),
    Bar("training a cell of one's own", "train", OWN, "loop", 8.0),
    Bar("training a cell of one's own", "train", OWN, "torch.nn", 1.2),
    Bar("one streaming step", "step", ("lstm",), "torch.nn", 10.0),
    Bar("one streaming step", "step", ("lstm",), "onnxruntime", 2.5),
    Bar("the main job", "main-job", ("lstm",), "torch.nn", 1.8),
    Bar("generation", "generate", ("lstm",), "torch.nn", 5.0),
    # 1.0; but Linux counts a process's pages to about a quarter of a megabyte only.
    Bar("memory of a training step", "memory", ("lstm",), "torch.nn", each=0.98),
    Bar("zoneout, recurrent dropout", "transforms", _DROPPED, "plain cell", mean=1 / 1.3),
    Bar("layer normalisation", "transforms", ("lstm+layer_norm",), "plain cell", mean=1 / 1.6),
    Bar("a new cell compiled", "compile", OWN, "", seconds=5.0),
    Bar("a new cell from the cache", "compile-cached", OWN, "", seconds=0.1),
)
"""Those of the native engine; torch.nn, for a cell of one's own, means its LSTM."""


@dataclass(frozen=True)
class Verdict:
    """What some rows say of a bar, with one number of threads.

    Attributes:
        bar: its name, and the peer.
        threads: with how many threads; 0 where it was not measured.
        reached: what was measured; says so where nothing was.
        must_reach: what was wanted.
        met: whether it is reached; None where nothing was measured.
    """

    bar: str
    threads: int
    reached: str
    must_reach: str
    met: bool | None


def everything() -> list[Comparison]:
    """All that the bars ask for; what needs a peer that is not installed is left out."""
    peers = ["torch.nn", *(p for p in ("onnxruntime",) if installed(p))]
    return [
        *comparisons(("train",)),
        *comparisons(("train",), OWN, peers=("loop", "torch.nn")),
        *comparisons(("fit",), ("lstm", *OWN)),
        *comparisons(("step",), ("lstm",), peers=peers),
        *comparisons(("main-job", "generate", "memory", "transforms"), ("lstm",)),
        *comparisons(("compile",), OWN),
    ]


def installed(peer: str) -> bool:
    """Whether a peer's packages are there."""
    try:
        check_installed(peer)
    except InputError:
        return False
    return True


def judge(rows: Sequence[Row]) -> list[Verdict]:
    """Every bar against the rows, once for each number of threads that they were measured with."""
    verdicts = []
    for bar in BARS:
        name = f"{bar.name}, beside {bar.peer}" if bar.peer else bar.name
        found = bar.of(rows)
        if not found:
            why = "" if installed(bar.peer) else f": {bar.peer} is not installed"
            verdicts.append(Verdict(name, 0, f"not measured{why}", bar.must_reach, None))
        for threads in dict.fromkeys(r.threads for r in found):
            reached, met = bar.against([r for r in found if r.threads == threads])
            verdicts.append(Verdict(name, threads, reached, bar.must_reach, met))
    return verdicts


def summary(verdicts: Sequence[Verdict]) -> str:
    """The verdicts as a Markdown table."""
    lines = ["| bar | threads | reached | must reach | |", "|---|---|---|---|---|"]
    for v in verdicts:
        said = "" if v.met is None else "yes" if v.met else "**no**"
        lines.append(f"| {v.bar} | {v.threads or ''} | {v.reached} | {v.must_reach} | {said} |")
    return "\n".join(lines)
