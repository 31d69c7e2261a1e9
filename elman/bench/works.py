"""What can be measured, one function a work: from a comparison to its rows."""

from __future__ import annotations

import importlib.util
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from elman.bench import jobs
from elman.bench.cells import CELLS, OWN
from elman.bench.fresh import ask
from elman.bench.jax_scan import JaxScan
from elman.bench.limits import product_rate
from elman.bench.onnx_runtime import OnnxRuntime
from elman.bench.rows import Row, Shape, row
from elman.bench.sides import (
    STREAMED,
    Elman,
    Loop,
    Side,
    check_agreement,
    own,
    products,
    torch_network,
)
from elman.bench.timing import Timing, interleaved
from elman.cells import Cell, layer_norm, recurrent_dropout, zoneout
from elman.compiler.engine import engine
from elman.errors import InputError
from elman.layers import Recurrent

SHAPES = tuple(
    Shape(*sizes)
    for sizes in (
        (28, 256, 2, 32, 35),
        (256, 256, 2, 32, 35),
        (128, 128, 1, 16, 100),
        (650, 650, 2, 20, 35),
        (1024, 1024, 1, 64, 50),
        (64, 64, 1, 1, 1000),
    )
)
TEXTBOOK = SHAPES[0]
STREAM = Shape(256, 256, 2, 1, 1)

PEERS = ("torch.nn", "loop", "torch.compile", "onnxruntime", "jax")
PACKAGES = {"onnxruntime": ("onnx", "onnxruntime"), "jax": ("jax",)}
"""What a peer needs beside PyTorch."""

TRANSFORMS: dict[str, Callable[[Cell], Cell]] = {
    "zoneout": zoneout,
    "recurrent_dropout": recurrent_dropout,
    "layer_norm": layer_norm,
}


@dataclass(frozen=True)
class Comparison:
    """What is measured at one go."""

    work: str
    cell: str
    shape: Shape
    peer: str

    def __str__(self) -> str:
        return f"{self.work} {self.cell} {self.shape} {self.peer}".rstrip()

    def rows(self, seconds: float) -> Iterator[Row]:
        """Measure for about so many seconds."""
        torch.manual_seed(0)
        return WORKS[self.work].measure(self, seconds)


@dataclass(frozen=True)
class Work:
    """Something that can be measured.

    Attributes:
        what: what it is, in a line.
        measure: from a comparison and the seconds to take to its rows.
        peers: what it can be compared with; none of PEERS where the peer is fixed.
        shapes: those that are measured where none are named.
        cells: those that it can be measured for.
        fixed: the peer that it always has, or nothing.
    """

    what: str
    measure: Callable[[Comparison, float], Iterator[Row]]
    peers: tuple[str, ...]
    shapes: tuple[Shape, ...] = SHAPES
    cells: tuple[str, ...] = tuple(CELLS)
    fixed: str | None = None


def possible(work: str, cell: str, peer: str) -> bool:
    """Whether that cell can be compared with that peer at that work."""
    known = WORKS[work]
    if peer == "onnxruntime" and cell in OWN:
        return False  # ONNX has no operator for them
    return cell in known.cells and (peer in known.peers or peer == known.fixed)


def check_installed(peer: str) -> None:
    """Raise where a peer's package is missing.

    Raises:
        InputError: it is; the message says what to install.
    """
    missing = [p for p in PACKAGES.get(peer, ()) if importlib.util.find_spec(p) is None]
    if missing:
        raise InputError(
            f"the peer {peer} needs {' and '.join(missing)}: "
            f"{sys.executable} -m pip install {' '.join(missing)}, or leave it out of `peers`."
        )


def _network(what: Comparison, seconds: float) -> Iterator[Row]:
    """``train``, ``fit``, ``forward`` and ``step``: one network, one call."""
    shape = what.shape._replace(batch=1, steps=1) if what.work == "step" else what.shape
    network = own(what.cell, shape)
    x = torch.randn(shape.steps, shape.batch, shape.input)
    one, two = Elman(network, x), _peer(what, network, x)
    calls = getattr(one, what.work), getattr(two, what.work)
    if what.peer != "torch.nn" or CELLS[what.cell].same:
        check_agreement(*calls, str(what))
    ours, theirs = interleaved(calls, seconds)
    if what.work == "step":
        ours, theirs = ours.times(1 / STREAMED), theirs.times(1 / STREAMED)
    gflop = 2e-9 * products(network, what.work) * shape.steps * shape.batch
    yield row(what.work, what.cell, shape, what.peer, ours, theirs, gflop, _limit(network, shape))


def _peer(what: Comparison, network: Recurrent, x: torch.Tensor) -> Any:
    if what.peer == "torch.nn":
        return Side(torch_network(what.cell, what.shape, network), x)
    if what.peer == "onnxruntime":
        return OnnxRuntime(what.cell, network, x)
    if what.peer == "jax":
        return JaxScan(what.cell, network, x)
    return Loop(torch.compile(network) if what.peer == "torch.compile" else network, x)


def _limit(network: Recurrent, shape: Shape) -> float:
    """The rate of one product of all steps with all of the last layer's recurrent weights."""
    last = network.cells[-1]
    columns = products(last) // (last.input_size + last.hidden_size)
    return product_rate(shape.steps * shape.batch, shape.hidden, columns)


def _memory(what: Comparison, seconds: float) -> Iterator[Row]:
    ours, theirs = (
        ask("memory", what.cell, what.shape, side)["bytes"] for side in ("elman", what.peer)
    )
    yield Row(
        what.work, what.cell, *what.shape, None, what.peer, None, theirs / max(1, ours), None, None,
        torch.get_num_threads(), elman_bytes=ours, peer_bytes=theirs,
    )  # fmt: skip


def _compile(what: Comparison, seconds: float) -> Iterator[Row]:
    """Cold, with the engine's library apart, and from the cache; each in a fresh process."""
    with tempfile.TemporaryDirectory(prefix="elman-") as folder:
        for k, work in enumerate(("compile", "compile-cached")):
            ours = ask("compile", what.cell, what.shape, folder=Path(folder))
            theirs = None
            if what.peer:
                found = ask("compile", what.cell, what.shape, what.peer, Path(folder))
                theirs = Timing(found["seconds"])
            if k == 0:
                built = Timing(ours["engine"])
                yield row("compile-engine", what.cell, what.shape, "", built, None)
            once = Timing(ours["seconds"])
            yield row(work, what.cell, what.shape, what.peer, once, theirs)


def _job(
    made: Callable[[str, Shape], AbstractContextManager[jobs.Job]],
) -> Callable[[Comparison, float], Iterator[Row]]:
    def measure(what: Comparison, seconds: float) -> Iterator[Row]:
        one = what.shape._replace(batch=1, steps=1) if what.work == "generate" else what.shape
        with made(what.cell, what.shape) as job:
            times = interleaved([job.elman, job.peer], seconds)
            share = one.batch * one.steps / job.units  # to one update, or to one character
            ours, theirs = (t.times(share) for t in times)
            shape = one._replace(input=job.input)
            yield row(what.work, what.cell, shape, what.peer, ours, theirs)

    return measure


def _transforms(what: Comparison, seconds: float) -> Iterator[Row]:
    """A cell's transforms and the cell itself on the native engine, all in turns."""
    shape = what.shape
    x = torch.randn(shape.steps, shape.batch, shape.input)
    with engine("native"):
        cells = {what.cell: own(what.cell, shape)}
        for name, transform in TRANSFORMS.items():
            cell = transform(CELLS[what.cell].make(shape.input, shape.hidden))
            cells[f"{what.cell}+{name}"] = Recurrent(cell, shape.layers)
        sides = [Elman(network, x) for network in cells.values()]
        plain, *times = interleaved([side.train for side in sides], 2 * seconds)
    for name, changed in zip(list(cells)[1:], times, strict=True):
        yield row(what.work, name, shape, what.peer, changed, plain)


_BUILT_IN = ("lstm", "gru", "rnn")

WORKS = {
    "train": Work(
        "forward and backward", _network, ("torch.nn", "loop", "torch.compile", "jax")
    ),
    "fit": Work(
        "forward and backward, no gradient of the input", _network,
        ("torch.nn", "loop", "torch.compile"),
    ),
    "forward": Work("all steps, without a gradient", _network, PEERS),
    "step": Work(
        "one step of a stream, batch 1", _network, ("torch.nn", "loop", "onnxruntime"), (STREAM,)
    ),
    "memory": Work("peak memory of a training step", _memory, ("torch.nn",)),
    "compile": Work(
        "the first training step of a new cell", _compile, ("torch.compile",),
        (TEXTBOOK._replace(layers=1),), fixed="",
    ),
    "generate": Work(
        "characters, batch 1", _job(jobs.generation), ("torch.nn",), (TEXTBOOK,), _BUILT_IN
    ),
    "main-job": Work(
        "the training loop of The Time Machine", _job(jobs.main_job), ("torch.nn",), (TEXTBOOK,),
        _BUILT_IN,
    ),
    "transforms": Work(
        "zoneout, recurrent dropout, layer normalisation", _transforms, (), fixed="plain cell",
    ),
}  # fmt: skip
"""By name."""
