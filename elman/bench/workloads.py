"""What can be measured, a function a workload: from a comparison to its measurements."""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from elman.bench import jobs
from elman.bench.cells import BUILT_IN, CELLS, OWN
from elman.bench.isolated import ask
from elman.bench.measurement import Comparison, Measurement, Shape
from elman.bench.networks import (
    STREAMED,
    ElmanCalls,
    TorchCalls,
    check_agreement,
    columns,
    elman_network,
    products,
    torch_network,
)
from elman.bench.timing import Timing, interleaved, product_rate
from elman.cells import Cell, layer_norm, recurrent_dropout, zoneout
from elman.engines.choice import engine
from elman.layers import Recurrent

TEXTBOOK = Shape(28, 256, 2, 32, 35)
SHAPES = (
    TEXTBOOK,
    Shape(256, 256, 2, 32, 35),
    Shape(128, 128, 1, 16, 100),
    Shape(650, 650, 2, 20, 35),
    Shape(1024, 1024, 1, 64, 50),
    Shape(64, 64, 1, 1, 1000),
)
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
class Workload:
    """Something that can be measured.

    Attributes:
        measure: from a comparison and the seconds to take to its measurements.
        peers: those of PEERS that it can be compared with.
        shapes: those that are measured where none are named.
        cells: those that it can be measured for.
        otherwise: what it is compared with where no peer fits, "" for nothing; None where it
            cannot be measured then.
    """

    measure: Callable[[Comparison, float], Iterator[Measurement]]
    peers: tuple[str, ...] = ("torch.nn",)
    shapes: tuple[Shape, ...] = SHAPES
    cells: tuple[str, ...] = tuple(CELLS)
    otherwise: str | None = None

    def fitting(self, cell: str, peers: Sequence[str]) -> list[str]:
        """Those of ``peers`` that a cell can be compared with here."""
        if cell not in self.cells:
            return []
        # ONNX has no operator for a cell of one's own.
        fit = [p for p in peers if p in self.peers and not (p == "onnxruntime" and cell in OWN)]
        return fit or ([] if self.otherwise is None else [self.otherwise])


def missing_packages(peer: str) -> list[str]:
    """The packages that a peer needs and that are not installed."""
    return [p for p in PACKAGES.get(peer, ()) if importlib.util.find_spec(p) is None]


def _network(what: Comparison, seconds: float) -> Iterator[Measurement]:
    """One call of one network, elman's beside the peer's."""
    if what.workload == "step":
        what = what._replace(shape=what.shape._replace(batch=1, steps=1))
    shape = what.shape
    network = elman_network(what.cell, shape)
    x = torch.randn(shape.steps, shape.batch, shape.input)
    calls = getattr(ElmanCalls(network, x), what.workload), _peer(what, network, x)
    if what.peer != "torch.nn" or what.cell in BUILT_IN:
        check_agreement(*calls, str(what))
    ours, theirs = interleaved(calls, seconds)
    if what.workload == "step":
        ours, theirs = ours.times(1 / STREAMED), theirs.times(1 / STREAMED)
    gflop = 2e-9 * products(network, what.workload) * shape.steps * shape.batch
    # At best: one product of all steps with all of the last layer's recurrent weights.
    best = product_rate(shape.steps * shape.batch, shape.hidden, columns(network.cells[-1]))
    yield Measurement.of(what, ours, theirs, gflop, best)


def _peer(what: Comparison, network: Recurrent, x: Tensor) -> Callable[[], Tensor]:
    """The peer's call for a workload, with the weights of ``network``."""
    if what.peer == "torch.nn":
        calls = TorchCalls(torch_network(what.cell, what.shape, network), x)
        return getattr(calls, what.workload)
    if what.peer == "onnxruntime":
        from elman.bench.onnx_runtime import OnnxCalls

        return getattr(OnnxCalls(what.cell, network, x), what.workload)
    if what.peer == "jax":
        from elman.bench.jax_scan import JaxCalls

        return getattr(JaxCalls(what.cell, network, x), what.workload)
    with engine("reference"):
        looped = torch.compile(network) if what.peer == "torch.compile" else network
        call = getattr(ElmanCalls(looped, x), what.workload)

    def loop() -> Tensor:
        with engine("reference"):
            return call()

    return loop


def _memory(what: Comparison, seconds: float) -> Iterator[Measurement]:
    """The peak of a training step, each side's in a process of its own."""
    ours, theirs = (
        ask("memory", what.cell, what.shape, library)["bytes"] for library in ("elman", what.peer)
    )
    yield Measurement(
        what.workload, what.cell, *what.shape, None, what.peer, None, theirs / max(1, ours),
        None, None, torch.get_num_threads(), elman_bytes=ours, peer_bytes=theirs,
    )  # fmt: skip


def _compile(what: Comparison, seconds: float) -> Iterator[Measurement]:
    """Cold, with the engine's library apart, and from the cache; each in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="elman-") as folder:
        for workload in ("compile", "compile-cached"):
            ours, theirs = ask("compile", what.cell, what.shape, cache=Path(folder)), None
            if what.peer:
                found = ask("compile", what.cell, what.shape, what.peer, Path(folder))
                theirs = Timing(found["seconds"])
            if workload == "compile":
                library = what._replace(workload="compile-engine", peer="")
                yield Measurement.of(library, Timing(ours["engine"]), None)
            yield Measurement.of(what._replace(workload=workload), Timing(ours["seconds"]), theirs)


def _job(
    make: Callable[[str, Shape], AbstractContextManager[jobs.Job]],
) -> Callable[[Comparison, float], Iterator[Measurement]]:
    """A whole job: its time is of one update, or of one character."""

    def measure(what: Comparison, seconds: float) -> Iterator[Measurement]:
        one = what.shape._replace(batch=1, steps=1) if what.workload == "generate" else what.shape
        with make(what.cell, what.shape) as job:
            share = one.batch * one.steps / job.tokens
            ours, theirs = (t.times(share) for t in interleaved([job.elman, job.peer], seconds))
            what = what._replace(shape=one._replace(input=job.vocabulary))
            yield Measurement.of(what, ours, theirs)

    return measure


def _transforms(what: Comparison, seconds: float) -> Iterator[Measurement]:
    """A cell's transforms and the cell itself on the native engine, all in turns."""
    shape = what.shape
    x = torch.randn(shape.steps, shape.batch, shape.input)
    with engine("native"):
        networks = [elman_network(what.cell, shape)]
        for transform in TRANSFORMS.values():
            cell = transform(CELLS[what.cell](shape.input, shape.hidden))
            networks.append(Recurrent(cell, shape.layers))
        calls = [ElmanCalls(network, x).train for network in networks]
        plain, *times = interleaved(calls, 2 * seconds)
    for name, changed in zip(TRANSFORMS, times, strict=True):
        yield Measurement.of(what._replace(cell=f"{what.cell}+{name}"), changed, plain)


_LOOPS = ("torch.nn", "loop", "torch.compile")
_BUILT_IN = tuple(BUILT_IN)

WORKLOADS = {
    # Forward and backward.
    "train": Workload(_network, (*_LOOPS, "jax")),
    # The same where x is data, whose gradient nobody wants.
    "fit": Workload(_network, _LOOPS),
    # All steps, without a gradient.
    "forward": Workload(_network, PEERS),
    # One step of a stream, batch 1.
    "step": Workload(_network, ("torch.nn", "loop", "onnxruntime"), (STREAM,)),
    # The peak of memory in a training step.
    "memory": Workload(_memory),
    # The first training step of a new cell.
    "compile": Workload(_compile, ("torch.compile",), (TEXTBOOK._replace(layers=1),), otherwise=""),
    # Writing character by character, batch 1.
    "generate": Workload(_job(jobs.generation), shapes=(TEXTBOOK,), cells=_BUILT_IN),
    # The training loop of The Time Machine.
    "main-job": Workload(_job(jobs.main_job), shapes=(TEXTBOOK,), cells=_BUILT_IN),
    # Zoneout, recurrent dropout and layer normalisation.
    "transforms": Workload(_transforms, (), otherwise="plain cell"),
}
"""By name."""
