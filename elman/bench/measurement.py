"""What was measured: one row of the table, whatever the workload."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch

from elman.bench.timing import Timing
from elman.compiler.cpu.build import BuildError, cpu, version
from elman.version import __version__


class Shape(NamedTuple):
    """The sizes of a comparison."""

    input: int
    hidden: int
    layers: int
    batch: int
    steps: int

    def __str__(self) -> str:
        return ":".join(map(str, self))


class Comparison(NamedTuple):
    """What is measured at one go: a workload of a cell in some sizes, beside a peer."""

    workload: str
    cell: str
    shape: Shape
    peer: str

    def __str__(self) -> str:
        return " ".join(map(str, self)).rstrip()


@dataclass(frozen=True)
class Measurement:
    """One workload of one cell, elman's beside a peer's.

    Attributes:
        workload: what was measured; see :data:`elman.bench.WORKLOADS`.
        cell: the cell, and after a plus its transform.
        input, hidden, layers, batch, steps: the sizes.
        elman_ms, peer_ms: the median time; for ``main-job`` of one update, for ``generate`` of one
            character, for ``step`` of one step. None where memory was measured.
        ratio: how many times as fast as the peer elman is, or as small: peer / elman. None where
            there is no peer.
        gflops: elman's rate, counting the products alone.
        gemm_gflops: the best rate of one product over all steps that a library reached in the
            same run.
        threads: how many threads both had.
        elman_spread, peer_spread: the interquartile range of the times as a share of the median.
        elman_bytes, peer_bytes: where memory was measured, its peak.
    """

    workload: str
    cell: str
    input: int
    hidden: int
    layers: int
    batch: int
    steps: int
    elman_ms: float | None
    peer: str
    peer_ms: float | None
    ratio: float | None
    gflops: float | None
    gemm_gflops: float | None
    threads: int
    elman_spread: float | None = None
    peer_spread: float | None = None
    elman_bytes: int | None = None
    peer_bytes: int | None = None

    @classmethod
    def of(
        cls,
        what: Comparison,
        elman: Timing,
        peer: Timing | None,
        gflop: float | None = None,
        gemm_gflops: float | None = None,
    ) -> Measurement:
        """From two timings.

        Args:
            what: what was measured.
            elman, peer: how long it took on each side.
            gflop: the products' operations in elman's call, in thousand millions.
            gemm_gflops: the rate to compare theirs with.
        """
        return cls(
            what.workload, what.cell, *what.shape,
            elman.seconds * 1e3, what.peer, peer and peer.seconds * 1e3,
            peer and peer.seconds / elman.seconds,
            gflop and gflop / elman.seconds, gemm_gflops, torch.get_num_threads(),
            elman.spread, peer and peer.spread,
        )  # fmt: skip

    @property
    def shape(self) -> Shape:
        """The sizes together."""
        return Shape(self.input, self.hidden, self.layers, self.batch, self.steps)

    @property
    def share(self) -> float | None:
        """The share of the rate of one product that elman reaches."""
        return self.gflops / self.gemm_gflops if self.gflops and self.gemm_gflops else None


def geometric_mean(measurements: Iterable[Measurement]) -> float:
    """Of the ratios, where there are any."""
    return statistics.geometric_mean(m.ratio for m in measurements if m.ratio is not None)


def as_json(found: Sequence[Any]) -> list[dict[str, Any]]:
    """Measurements or profiles as files of results have them, where a workload is a ``work``."""
    return [
        {"work" if name == "workload" else name: value for name, value in asdict(one).items()}
        for one in found
    ]


def machine() -> dict[str, Any]:
    """What a result depends on: the machine, the date, the versions, threads and precision."""
    lines = [x.split(":")[1].strip() for x in cpu().splitlines() if x.startswith("model name")]
    try:
        compiler = version()
    except BuildError as why:
        compiler = str(why)
    return {
        "date": time.strftime("%Y-%m-%d"),
        "processor": lines[0] if lines else platform.processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "precision": "float32",
        "elman": __version__,
        "torch": torch.__version__,
        "compiler": compiler,
    }
