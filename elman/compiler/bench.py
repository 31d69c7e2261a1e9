"""Side by side with what a user would pick instead: in one process, interleaved, warmed up."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from elman.cells import Affine, Blocks, Cell, Diagonal
from elman.cells.registry import make
from elman.compiler.build import BuildError, cpu, version
from elman.compiler.engine import engine
from elman.errors import InputError

SHAPES = (
    (28, 256, 2, 32, 35),
    (256, 256, 2, 32, 35),
    (128, 128, 1, 16, 100),
    (650, 650, 2, 20, 35),
    (1024, 1024, 1, 64, 50),
    (64, 64, 1, 1, 1000),
)
"""(input, hidden, layers, batch, steps)."""

WORKS = ("train", "forward", "step")
PEERS = ("torch.nn", "loop", "torch.compile")


class PeepholeLSTM(Cell):
    """LSTM whose gates see the memory (Gers & Schmidhuber, 2000): here as a cell of one's own.

    i, f = σ(W x + U h + v ⊙ c + b)    c' = f ⊙ c + i ⊙ tanh(W x + U h + b)
    o = σ(W x + U h + v ⊙ c' + b)    h' = o ⊙ tanh(c')
    """

    state = ("h", "c")
    gates = Affine("i f g o")
    peephole = Diagonal("i f o")

    def step(self, z: Blocks, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """One step."""
        v = self.peephole
        i, f = torch.sigmoid(z.i + v.i * c), torch.sigmoid(z.f + v.f * c)
        c = f * c + i * torch.tanh(z.g)
        return torch.sigmoid(z.o + v.o * c) * torch.tanh(c), c


CELLS = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN, "peephole": nn.LSTM}
"""The cells, and what stands against them in ``torch.nn``."""

GATES = {"lstm": 4, "gru": 3, "rnn": 1, "peephole": 4}


@dataclass(frozen=True)
class Row:
    """One comparison.

    Attributes:
        work: ``train`` (forward and backward), ``forward``, or ``step`` (one step of a stream).
        elman_ms, peer_ms: the median time of a call.
        ratio: how many times as fast as the peer elman is.
        gflops: elman's rate, counting the products alone.
        gemm_gflops: the rate of one product over all steps, in the same run.
        threads: how many threads both had.
    """

    work: str
    cell: str
    input: int
    hidden: int
    layers: int
    batch: int
    steps: int
    elman_ms: float
    peer: str
    peer_ms: float
    ratio: float
    gflops: float
    gemm_gflops: float
    threads: int


def bench(
    works: Sequence[str] = ("train",),
    cells: Sequence[str] = ("lstm", "gru", "rnn"),
    shapes: Iterable[tuple[int, int, int, int, int]] = SHAPES,
    peers: Sequence[str] = ("torch.nn",),
    seconds: float = 2.0,
) -> Iterator[Row]:
    """Compare, a row at a time.

    Args:
        works: of ``train``, ``forward``, ``step``; a step has a batch of 1.
        cells: of ``lstm``, ``gru``, ``rnn``, ``peephole``.
        shapes: (input, hidden, layers, batch, steps) of each comparison.
        peers: of ``torch.nn``, ``loop`` (the step in PyTorch, called in a Python loop),
            ``torch.compile`` (of that loop; it takes minutes to compile).
        seconds: how long to measure each pair.

    Raises:
        InputError: one of the names is not known.
    """
    for label, given, known in (
        ("work", works, WORKS),
        ("cell", cells, CELLS),
        ("peer", peers, PEERS),
    ):
        for name in given:
            if name not in known:
                raise InputError(f"unknown {label} {name!r}: expected one of {', '.join(known)}.")
    for shape in shapes:
        for work in works:
            for cell in cells:
                for peer in peers:
                    yield _compare(work, cell, shape, peer, seconds)


def _compare(
    work: str, cell: str, shape: tuple[int, int, int, int, int], peer: str, seconds: float
) -> Row:
    width, hidden, layers, batch, steps = shape
    if work == "step":
        batch, steps = 1, 1
    torch.manual_seed(0)
    own = _own(cell, width, hidden, layers)
    other: Any = own if peer != "torch.nn" else CELLS[cell](width, hidden, layers)
    x = torch.randn(steps, batch, width)
    one = _call(work, own, x)
    if peer == "torch.nn":
        two = _call(work, other, x)
    else:
        compiled = torch.compile(own) if peer == "torch.compile" else own
        two = _referred(_call(work, compiled, x))
    times = _interleaved([one, two], seconds)
    work_done = sum(
        2 * steps * batch * GATES[cell] * hidden * ((width if k == 0 else hidden) + hidden)
        for k in range(layers)
    ) * (3 if work == "train" else 1)  # fmt: skip
    return Row(
        work, cell, width, hidden, layers, batch, steps, times[0] * 1e3, peer, times[1] * 1e3,
        times[1] / times[0], work_done / times[0] / 1e9,
        _gemm_rate(steps * batch, hidden, GATES[cell] * hidden), torch.get_num_threads(),
    )  # fmt: skip


def _own(cell: str, width: int, hidden: int, layers: int) -> Any:
    from elman.layers.recurrent import Recurrent

    biased = {} if cell == "peephole" else {"biases": 2}
    first = (
        PeepholeLSTM(width, hidden) if cell == "peephole" else make(cell, width, hidden, **biased)
    )
    return Recurrent(first, layers)


def _call(work: str, network: Any, x: Tensor) -> Callable[[], Any]:
    if work == "train":
        x = x.requires_grad_()
        gradient = torch.ones(x.shape[0], x.shape[1], network.hidden_size)

        def train() -> None:
            y, _ = network(x)
            torch.autograd.backward(y, gradient)
            network.zero_grad()

        return train
    state = None
    with torch.no_grad():
        _, state = network(x)

    def forward() -> None:
        with torch.no_grad():
            network(x)

    def step() -> None:
        with torch.no_grad():
            if hasattr(network, "step"):
                network.step(x[0], state)
            else:
                network(x, state)

    return step if work == "step" else forward


def _referred(call: Callable[[], Any]) -> Callable[[], Any]:
    def run() -> None:
        with engine("reference"):
            call()

    return run


def _interleaved(calls: Sequence[Callable[[], Any]], seconds: float) -> list[float]:
    """The median time of each call, taken in turns."""
    for call in calls:
        call()
        call()
    times: list[list[float]] = [[] for _ in calls]
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times[0]) < 3:
        for call, taken in zip(calls, times, strict=True):
            start = time.perf_counter()
            call()
            taken.append(time.perf_counter() - start)
    return [statistics.median(taken) for taken in times]


def _gemm_rate(rows: int, depth: int, columns: int) -> float:
    a, b = torch.randn(rows, depth), torch.randn(depth, columns)
    (taken,) = _interleaved([lambda: a @ b], 0.1)
    return 2 * rows * depth * columns / taken / 1e9


def machine() -> dict[str, Any]:
    """What a result depends on: the machine, the date, the versions and the threads."""
    lines = [x.split(":")[1].strip() for x in cpu().splitlines() if x.startswith("model name")]
    try:
        compiler = version()
    except BuildError as why:
        compiler = str(why)
    return {
        "date": time.strftime("%Y-%m-%d"),
        "processor": lines[0] if lines else platform.processor(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "compiler": compiler,
    }


def geometric_mean(rows: Sequence[Row]) -> float:
    """Of the rows' ratios."""
    return statistics.geometric_mean(row.ratio for row in rows)


def table(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table, with the geometric mean of each group last."""
    lines = [
        "| work | cell | input, hidden, layers, batch, steps | elman ms | peer | peer ms | ratio "
        "| of GEMM rate |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        shape = f"{r.input}, {r.hidden}, {r.layers}, {r.batch}, {r.steps}"
        lines.append(
            f"| {r.work} | {r.cell} | {shape} | {r.elman_ms:.3f} | {r.peer} | {r.peer_ms:.3f} "
            f"| {r.ratio:.2f} | {r.gflops / r.gemm_gflops:.0%} |"
        )
    for group in dict.fromkeys((r.work, r.cell, r.peer) for r in rows):
        alike = [r for r in rows if (r.work, r.cell, r.peer) == group]
        if len(alike) > 1:
            work, cell, peer = group
            mean = geometric_mean(alike)
            lines.append(f"| {work} | {cell} | geometric mean | | {peer} | | {mean:.2f} | |")
    return "\n".join(lines)


def as_json(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The rows as dictionaries."""
    return [asdict(row) for row in rows]


def plot(rows: Sequence[Row], path: Path) -> None:
    """Draw the ratios as bars, one group a shape."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    labels = [
        f"{r.work} {r.cell}\n{r.input}·{r.hidden}·{r.layers}\nB={r.batch} T={r.steps}" for r in rows
    ]
    figure, axes = plt.subplots(figsize=(max(4.0, 1.1 * len(rows)), 4), layout="constrained")
    bars = axes.bar(range(len(rows)), [r.ratio for r in rows], color="#4878a8")
    axes.bar_label(bars, fmt="%.2f", fontsize=8)
    axes.axhline(1, color="black", linewidth=0.8)
    axes.set_xticks(range(len(rows)), labels, fontsize=7)
    axes.set_ylabel("times as fast as its peer")
    figure.savefig(path)
    plt.close(figure)
