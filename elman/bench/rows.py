"""What a measurement gives: a row of one table, whatever was measured."""

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
from elman.compiler.build import BuildError, cpu, version


class Shape(NamedTuple):
    """The sizes of a comparison."""

    input: int
    hidden: int
    layers: int
    batch: int
    steps: int

    def __str__(self) -> str:
        return ":".join(map(str, self))


@dataclass(frozen=True)
class Row:
    """One comparison.

    Attributes:
        work: what was measured; see :data:`elman.bench.WORKS`.
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

    work: str
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

    @property
    def shape(self) -> Shape:
        """The sizes together."""
        return Shape(self.input, self.hidden, self.layers, self.batch, self.steps)

    @property
    def share(self) -> float | None:
        """The share of the rate of one product that elman reaches."""
        return self.gflops / self.gemm_gflops if self.gflops and self.gemm_gflops else None


def row(
    work: str,
    cell: str,
    shape: Shape,
    peer: str,
    elman: Timing,
    other: Timing | None,
    gflop: float | None = None,
    gemm_gflops: float | None = None,
) -> Row:
    """The row of two timings.

    Args:
        work, cell, shape, peer: what was measured.
        elman, other: how long it took on each side.
        gflop: the products' operations in elman's call, in thousand millions.
        gemm_gflops: the rate to compare theirs with.
    """
    return Row(
        work, cell, *shape,
        elman.seconds * 1e3, peer, other and other.seconds * 1e3,
        other and other.seconds / elman.seconds,
        gflop and gflop / elman.seconds, gemm_gflops, torch.get_num_threads(),
        elman.spread, other and other.spread,
    )  # fmt: skip


def geometric_mean(rows: Iterable[Row]) -> float:
    """Of the rows' ratios."""
    return statistics.geometric_mean(row.ratio for row in rows if row.ratio is not None)


def as_json(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The rows as dictionaries."""
    return [asdict(row) for row in rows]


def machine() -> dict[str, Any]:
    """What a result depends on: the machine, the date, the versions, threads and precision."""
    from elman import __version__

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
