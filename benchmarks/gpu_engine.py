"""The engine "cuda" on a GPU: is it right, and how fast is it beside cuDNN and the loop in Python?

    python benchmarks/gpu_engine.py [--seconds 240] [--only right,speed,long,stream,division]

Prints a line of JSON for each figure, first whether outputs, last states and
all gradients are those of the reference engine in float64 on the CPU, for drawn shapes, lengths and
resets; then times, medians by the device's own events, in milliseconds. The map of the input is
counted on both sides.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import date
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn, sigmoid, tanh

import elman
from elman.cells.contract import Cell
from elman.cells.registry import CELLS, make
from elman.compiler.cuda import kernels
from elman.compiler.cuda.placement import Division
from elman.engines import cuda, reference
from elman.engines.call import Call

LIMITS = {"float64": 1e-9, "float32": 3e-5, "tf32": 2e-2, "bf16": 8e-2, "fp16": 1e-2}
"""Of ‖found − expected‖ / ‖expected‖, by what products multiply."""
HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}
ENDS = 0.0


def say(**line: Any) -> None:
    print(json.dumps(line), flush=True)


class Leaky(Cell):
    """A cell of one's own: gates that look at the cell, and a leak for each unit."""

    state = ("h", "c")
    gates = elman.Affine("i f g o")
    peephole = elman.Diagonal("i f o")

    def step(self, z, h, c):  # type: ignore[no-untyped-def]
        v = self.peephole
        i, f = sigmoid(z.i + v.i * c), sigmoid(z.f + v.f * c)
        c = f * c + (1 - f) * i * tanh(z.g)
        return sigmoid(z.o + v.o * c) * tanh(c), c


def cell_of(name: str, inputs: int, units: int) -> Cell:
    return Leaky(inputs, units) if name == "own" else make(name, inputs, units)


# -- right ----------------------------------------------------------------------------------------


def rounded(operand: str) -> Any:
    for switch in (torch.backends.cuda.matmul, torch.backends.cudnn.rnn):
        switch.fp32_precision = "tf32" if operand == "tf32" else "ieee"
    half = HALVES.get(operand)
    return torch.autocast("cuda", dtype=half) if half else nullcontext()


def results(run: Callable[..., Any], weights: dict[str, Tensor], call: Call) -> dict[str, Tensor]:
    y, last, _ = run(weights, call)
    named = {**{n: w for n, w in weights.items() if w.requires_grad}, "x": call.x}
    named |= {f"state {k}": s for k, s in enumerate(call.state)}
    named |= {f"start {k}": s for k, s in enumerate(call.start) if s.requires_grad}
    outputs = (y, *last)
    slopes = [torch.linspace(-1, 1, t.numel(), dtype=torch.float64).view(t.shape) for t in outputs]
    total = sum((t.double() * s.to(t.device)).sum() for t, s in zip(outputs, slopes, strict=True))
    gradients = torch.autograd.grad(total, list(named.values()), allow_unused=True)
    found = {"y": y, **{f"last {k}": s for k, s in enumerate(last)}}
    found |= {f"gradient of {n}": g for n, g in zip(named, gradients, strict=True) if g is not None}
    return {n: t.detach().double().cpu() for n, t in found.items()}


def right(
    name: str,
    units: int,
    batch: int,
    steps: int,
    operand: str,
    drawn: bool = True,
    reverse: bool = False,
) -> None:
    real = torch.float64 if operand == "float64" else torch.float32
    draw = torch.Generator().manual_seed(units * 1000 + batch)
    some = partial(torch.randn, generator=draw, dtype=torch.float64)
    cell = cell_of(name, 13, units).double()
    weights = {
        n: some(*s) * (0.5 if len(s) < 2 else s[-1] ** -0.5)
        for n, s in cell.weight_shapes().items()
    }
    buffers = dict(cell.named_buffers())
    lengths = resets = None
    if drawn:
        lengths = torch.randint(0, steps + 1, (batch,), generator=draw)
        resets = torch.rand(steps, batch, generator=draw) < 0.2
        resets &= torch.arange(steps).unsqueeze(1) < lengths
    x = some(steps, batch, 13)
    states, starts = ([some(batch, s) * 0.3 for s in cell.state_sizes] for _ in range(2))
    noise = some(steps, batch, cell.noise_size) if cell.noise_size else None

    def on(device: str, real: torch.dtype) -> tuple[dict[str, Tensor], Call]:
        def moved(t: Tensor, wanted: bool = True) -> Tensor:
            t = t.detach().to(device, real if t.is_floating_point() else None, copy=True)
            return t.requires_grad_(wanted and t.is_floating_point())

        given = {n: moved(w) for n, w in weights.items()} | {
            n: moved(b, False) for n, b in buffers.items()
        }
        return given, Call(
            moved(x), tuple(map(moved, states)), tuple(map(moved, starts)), reverse,
            None if lengths is None else lengths.to(device),
            None if resets is None else resets.to(device),
            noise=None if noise is None else moved(noise, False),
        )  # fmt: skip

    expected = results(partial(reference.run, cell), *on("cpu", torch.float64))
    cell = cell.to(real)
    given, call = on("cuda", real)
    with rounded(operand):
        why = cuda.unsupported(cell, call)
        if why:
            say(right=name, operand=operand, ok=False, refused=why[:300])
            return
        found = results(partial(cuda.run, cell), given, call)
        again = results(partial(cuda.run, cell), *on("cuda", real))
    errors = {n: ((found[n] - e).norm() / (e.norm() + 1e-12)).item() for n, e in expected.items()}
    worst = max(errors, key=lambda n: errors[n] if errors[n] == errors[n] else 1e9)
    say(right=name, units=units, batch=batch, steps=steps, operand=operand, drawn=drawn,
        reverse=reverse, ok=errors[worst] < LIMITS[operand], error=errors[worst], of=worst,
        repeatable=all(torch.equal(found[n], again[n]) for n in found))  # fmt: skip


def rights() -> Iterator[Callable[[], None]]:
    yield partial(right, "lstm", 40, 5, 7, "float64")
    yield partial(right, "lstm", 256, 20, 9, "float32")
    yield partial(right, "lstm", 256, 32, 35, "tf32", False)
    yield partial(right, "lstm", 256, 40, 12, "bf16")
    yield partial(right, "gru", 128, 100, 9, "fp16", True, True)
    yield partial(right, "lstm", 512, 600, 4, "bf16")
    yield partial(right, "lstm", 768, 16, 40, "bf16", False)
    yield partial(right, "own", 100, 33, 12, "fp16", True, True)
    yield partial(right, "gru-reset-before", 64, 70, 8, "tf32")
    yield partial(right, "lstm-layer-norm", 200, 20, 9, "float64")
    for k, name in enumerate(CELLS):
        yield partial(
            right, name, 16 + 7 * k % 60, 3 + 5 * k % 40, 6 + k % 5, "float64", k % 3 > 0, k % 2 > 0
        )
    for name in ("gru", "mlstm", "lstm-projected", "lstm-peephole", "rhn", "lru"):
        yield partial(right, name, 96, 40, 10, "bf16")
        yield partial(right, name, 96, 100, 5, "float32")
    yield partial(right, "lstm", 1500, 16, 6, "float32")  # weights that fit nowhere but in memory


# -- times ----------------------------------------------------------------------------------------


def timed(work: Callable[[], Any], most: int = 9, seconds: float = 1.0) -> float:
    for _ in range(2):
        work()
    torch.cuda.synchronize()
    found: list[float] = []
    until = time.monotonic() + seconds
    while len(found) < most and (len(found) < 3 or time.monotonic() < until):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        work()
        end.record()
        torch.cuda.synchronize()
        found.append(begin.elapsed_time(end))
    return round(statistics.median(found), 3)


def graphed(work: Callable[[], Any]) -> Callable[[], None]:
    """``work`` as a CUDA graph, which does it again in the same memory."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            work()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph.replay


def ways(network: Any, x: Tensor) -> tuple[Callable[[], None], Callable[[], None]]:
    """Forward, and forward and backward, whose gradients are new ones each time."""

    def forward() -> None:
        with torch.no_grad():
            network(x)

    def train() -> None:
        network.zero_grad()
        x.grad = None
        y, _ = network(x)
        y.backward(slope)

    with torch.no_grad():
        slope = torch.randn_like(network(x)[0])
    return forward, train


def both_ways(network: Any, x: Tensor) -> tuple[float, float]:
    forward, train = ways(network, x)
    return timed(forward), timed(train)


def both_graphed(network: Any, x: Tensor) -> dict[str, Any]:
    """As :func:`both_ways`, each in a CUDA graph, or why there is none."""
    found: dict[str, Any] = {}
    for name, work in zip(("graph_forward", "graph_train"), ways(network, x), strict=True):
        try:
            replay = graphed(work)
            found[name] = timed(replay)
        except torch.AcceleratorError:
            raise
        except Exception as error:
            found[name] = f"none: {type(error).__name__}: {error}"[:200]
    network.zero_grad()
    x.grad = None
    return found


def cudnn(kind: str, units: int, batch: int, steps: int, real: torch.dtype) -> None:
    torch.backends.cudnn.rnn.fp32_precision = torch.backends.cuda.matmul.fp32_precision = "tf32"
    network = getattr(nn, kind)(units, units).cuda().to(real)
    network.flatten_parameters()
    x = torch.randn(steps, batch, units, device="cuda", dtype=real, requires_grad=True)
    forward, train = both_ways(network, x)
    say(peer=f"cuDNN {kind}", units=units, batch=batch, steps=steps, real=str(real)[6:],
        forward=forward, train=train, **both_graphed(network, x))  # fmt: skip


@contextmanager
def kernels_timed() -> Iterator[dict[str, list[Any]]]:
    """The kernels' own times by program, without what goes on before and after."""
    found: dict[str, list[Any]] = {}
    run = kernels.Kernel.run

    def measured(self: kernels.Kernel, *given: Any, **named: Any) -> None:
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        run(self, *given, **named)
        end.record()
        found.setdefault(self.name, []).append((begin, end))

    kernels.Kernel.run = measured  # type: ignore[method-assign]
    try:
        yield found
    finally:
        kernels.Kernel.run = run  # type: ignore[method-assign]


def ours(name: str, units: int, batch: int, steps: int, operand: str, engine: str = "cuda") -> None:
    cell = cell_of(name, units, units)
    network = elman.Recurrent(cell).cuda()
    x = torch.randn(steps, batch, units, device="cuda", requires_grad=True)
    with rounded(operand), elman.engine(engine), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with kernels_timed() as each:
            forward, train = both_ways(network, x)
        # A loop in Python is recorded for minutes.
        graphs = both_graphed(network, x) if engine != "reference" else {}
    loops = {
        n: round(statistics.median(a.elapsed_time(b) for a, b in v[1:]), 3) for n, v in each.items()
    }
    floor = _floor(cell, units, batch, steps, operand)
    say(ours=name, engine=engine, units=units, batch=batch, steps=steps, operand=operand,
        forward=forward, train=train, **graphs, kernels=loops, floor_forward=floor)  # fmt: skip


def _floor(cell: Cell, units: int, batch: int, steps: int, operand: str) -> float:
    """Milliseconds that the map of the input takes at the rate of products, and moving its rows."""
    rates = {"bf16": 790e12, "fp16": 790e12, "tf32": 400e12, "float32": 60e12, "float64": 60e12}
    numbers = sum(w.numel() for w in cell.parameters())
    moved = (
        4
        * steps
        * batch
        * (2 * sum(s[0] for n, s in cell.weight_shapes().items() if n == "weight_ih") + 2 * units)
    )
    return round(1e3 * (2 * steps * batch * numbers / rates[operand] + moved / 3.0e12), 3)


def speeds() -> Iterator[Callable[[], None]]:
    shape = 768, 16, 1024
    yield partial(cudnn, "LSTM", *shape, torch.float16)
    for name in ("own", "lstm-peephole"):
        yield partial(ours, name, *shape, "bf16")
    yield partial(cudnn, "LSTM", 256, 32, 35, torch.float32)
    yield partial(ours, "lstm", 256, 32, 35, "tf32")
    for name in ("gru-reset-before", "lstm-layer-norm"):
        yield partial(ours, name, *shape, "bf16")
    yield partial(cudnn, "LSTM", 1024, 128, 128, torch.float32)
    yield partial(ours, "lstm", 1024, 128, 128, "tf32")
    yield partial(cudnn, "LSTM", 512, 512, 64, torch.float32)
    yield partial(ours, "lstm", 512, 512, 64, "tf32")
    yield partial(ours, "lstm", *shape, "tf32")
    yield partial(cudnn, "LSTM", *shape, torch.float32)
    yield partial(cudnn, "LSTM", *shape, torch.bfloat16)
    yield partial(ours, "lstm", *shape, "float32")
    yield partial(ours, "lstm", *shape, "fp16")
    yield partial(ours, "gru", *shape, "bf16")
    yield partial(cudnn, "GRU", *shape, torch.float16)
    yield partial(cudnn, "LSTM", 512, 16, 1024, torch.float16)
    yield partial(ours, "lstm", 512, 16, 1024, "fp16")
    yield partial(ours, "lstm-layer-norm", 768, 16, 128, "float32", "reference")
    yield partial(ours, "gru-reset-before", 768, 16, 128, "float32", "reference")


def longs() -> Iterator[Callable[[], None]]:
    for name in ("lru", "mingru"):
        for engine in ("scan", "cuda"):
            yield partial(ours, name, 256, 8, 16_384, "float32", engine)


STREAMED = 20  # steps that follow each other without a wait, as a server's do


def streaming(units: int, sessions: int) -> None:
    """A step of two layers for many sessions, as a server takes it: milliseconds, host included."""
    x = torch.randn(1, sessions, units, device="cuda")
    peer = nn.LSTM(units, units, 2).cuda()
    network = elman.LSTM(units, units, 2).cuda()
    network.load_state_dict(peer.state_dict())

    def each(step: Callable[[Any], Any], state: Any) -> float:
        held = [state]

        def work() -> None:
            for _ in range(STREAMED):
                held[0] = step(held[0])

        return round(timed(work, 15, 2.0) / STREAMED, 4)

    with torch.no_grad(), rounded("tf32"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _, first = peer(x)
        found: dict[str, Any] = {"torch_nn": each(lambda s: peer(x, s)[1], first)}
        held = tuple(s.clone() for s in first)
        made: list[Any] = []

        def keep() -> None:
            y, after = peer(x, held)
            for into, new in zip(held, after, strict=True):
                into.copy_(new)
            made[:] = [y]

        replay = graphed(keep)

        def replayed(_: Any) -> Any:
            replay()
            return made[0].clone()

        found["torch_nn_graph"] = each(replayed, None)
        expected = peer(x, first)
        for engine in ("torch", "cuda", "auto"):
            with elman.engine(engine):
                for _ in range(3):  # eager, recorded, replayed
                    y, after = network.step(x[0], first)
                found[engine] = each(lambda s: network.step(x[0], s)[1], first)
                found[f"{engine}_forward"] = each(lambda s: network(x, s)[1], first)
                pairs = ((y, expected[0][0]), *zip(after, expected[1], strict=True))
                found[f"{engine}_error"] = max((a - b).abs().max().item() for a, b in pairs)
        graphs = [g for g in replay_steps(network) if g is not None]
    say(streaming=sessions, units=units, graphs=len(graphs), **found)


def replay_steps(network: Any) -> list[Any]:
    from elman.layers import replay

    steps = replay._steps.get(network)
    return [] if steps is None else list(steps.seen.values())


def streams() -> Iterator[Callable[[], None]]:
    yield partial(streaming, 256, 1024)


def divisions() -> Iterator[Callable[[], None]]:
    """Ways to divide the work, to see which is best."""
    usual = kernels.divide

    def forced(rows: int, parts: int, sharing: str, name: str, shape: tuple[int, int, int],
               operand: str) -> None:  # fmt: skip
        kernels.divide = lambda *_: [(Division(rows, parts, sharing), False)]
        try:
            say(division=[rows, parts, sharing])
            ours(name, *shape, operand)
        finally:
            kernels.divide = usual

    small, usual_shape = (256, 32, 35), (768, 16, 1024)
    for way in ((16, 16, "cluster"), (16, 8, "cluster"), (16, 32, "meeting"), (16, 64, "meeting")):
        yield partial(forced, *way, "lstm", small, "tf32")
    for way in ((16, 48, "meeting"), (16, 96, "meeting"), (16, 64, "meeting")):
        yield partial(forced, *way, "lstm", usual_shape, "bf16")
    yield partial(forced, 16, 48, "meeting", "lstm-layer-norm", usual_shape, "bf16")


PARTS = {"right": rights, "speed": speeds, "long": longs, "stream": streams, "division": divisions}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=240)
    parser.add_argument(
        "--only", default=",".join(PARTS), help="parts, as speed,right:20 (seconds)"
    )
    options = parser.parse_args()
    end = time.monotonic() + options.seconds
    say(device=torch.cuda.get_device_name(), torch=torch.__version__, date=str(date.today()))
    torch.manual_seed(0)
    for part in options.only.split(","):
        name, _, most = part.partition(":")
        until = min(end, time.monotonic() + float(most or options.seconds))
        for work in PARTS[name]():
            if time.monotonic() > until:
                say(left=name)
                break
            try:
                work()
            except torch.AcceleratorError as error:  # nothing works after it
                say(part=name, failed=str(getattr(work, "args", "")), why=str(error)[:600])
                sys.exit(1)
            except Exception as error:
                said = str(getattr(work, "args", ""))
                say(part=name, failed=said, why=f"{type(error).__name__}: {error}"[:600])


if __name__ == "__main__":
    main()
