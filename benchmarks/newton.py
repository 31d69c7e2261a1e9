"""Newton's method over all steps beside the loop over them, on the same device.

    python benchmarks/newton.py [--device cuda] [--cells lstm,gru,…] [--steps 1024,4096,…]
                                [--units 16] [--batch 1] [--seconds 60]

Prints a line of JSON for each cell, part of the Jacobian and length: iterations, residual, seconds
of a forward pass and of a training step (forward and backward) by Newton's method and by the engine
that otherwise runs the cell there (``loop``), and the peak of memory in MiB (of the process so far,
on a CPU). On a CUDA device times are those of events. A line has null where the rest of
``--seconds`` would not suffice, going by the line before; and a message where there is no solution.
float32, one warm-up, the median of up to three; weights as cells make them, the input normal.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch

import elman
from elman.cells import make

CELLS = "lstm,gru,rnn,indrnn,sru-peephole,lstm-peephole"
STEPS = "1024,4096,16384,65536"
REPEATS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--cells", default=CELLS)
    parser.add_argument("--steps", default=STEPS)
    parser.add_argument("--units", type=int, default=16)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=60.0, help="for everything together")
    options = parser.parse_args()
    warnings.simplefilter("ignore", elman.EngineWarning)  # each line names its engine
    clock = Clock(torch.device(options.device), options.seconds)
    named = torch.cuda.get_device_name() if options.device.startswith("cuda") else "cpu"
    print(json.dumps({"device": named, "torch": torch.__version__, **vars(options)}), flush=True)
    for steps in map(int, options.steps.split(",")):
        for name in options.cells.split(","):
            for row in rows(name, steps, options, clock):
                print(json.dumps(row), flush=True)


class Clock:
    """Measures calls on a device, as long as there is time left."""

    def __init__(self, device: torch.device, seconds: float):
        self.device, self.end = device, time.perf_counter() + seconds
        # By what is measured: the last number of steps, and the time of all its runs.
        self._taken: dict[Any, tuple[int, float]] = {}

    def median(
        self, key: Any, steps: int, call: Callable[[], Any], share: float = 1.0
    ) -> float | None:
        """The median time of ``call``, or None where it would need more than a share of the rest.

        What it will need goes by its steps and by what it has needed for fewer.
        """
        before, taken = self._taken.get(key, (steps, 0.0))
        if taken * steps / before >= share * (self.end - time.perf_counter()):
            return None
        begin = time.perf_counter()
        times: list[float] = []
        self._once(call)
        while len(times) < REPEATS and time.perf_counter() < self.end:
            times.append(self._once(call))
        self._taken[key] = steps, time.perf_counter() - begin
        return statistics.median(times) if times else None

    def _once(self, call: Callable[[], Any]) -> float:
        if self.device.type != "cuda":
            now = time.perf_counter()
            call()
            return time.perf_counter() - now
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        call()
        end.record()
        end.synchronize()
        return float(begin.elapsed_time(end)) / 1e3


def rows(name: str, steps: int, options: argparse.Namespace, clock: Clock) -> list[dict[str, Any]]:
    """A row for each part of the Jacobian of one cell over ``steps`` steps."""
    torch.manual_seed(0)
    rnn = elman.Recurrent(make(name, options.units, options.units)).to(clock.device)
    x = torch.randn(steps, options.batch, options.units, device=clock.device, requires_grad=True)
    gradient = torch.randn_like(x)

    def passes(engine: str) -> list[Callable[[], Any]]:
        def forward() -> None:
            with torch.no_grad(), elman.engine(engine):
                rnn(x)

        def train() -> None:
            with elman.engine(engine):
                y, _ = rnn(x)
            y.backward(gradient)
            rnn.zero_grad()
            x.grad = None

        return [forward, train]

    cell = {"cell": name, "units": options.units, "batch": options.batch, "steps": steps}
    cuda = clock.device.type == "cuda"
    loop = [
        # An eager loop on a GPU takes long, and is not what is to be measured.
        clock.median((name, k), steps, call, share=0.2)
        for k, call in enumerate(passes("auto"))
    ]
    by = ("torch" if name in ("lstm", "gru", "rnn") else "reference") if cuda else rnn.engine
    found: list[dict[str, Any]] = []
    for jacobian in (None, "diagonal"):
        if cuda:
            torch.cuda.reset_peak_memory_stats()
        how = elman.Newton(jacobian=jacobian)
        taken: list[float | None] = [None, None]
        row = {**cell, "jacobian": jacobian or "whole"}
        try:
            with how:
                for k, call in enumerate(passes("newton")):
                    taken[k] = clock.median((name, jacobian, k), steps, call)
        except elman.InputError as error:
            row["message"] = str(error)
        except torch.OutOfMemoryError:
            row["message"] = "out of memory"
        if how.solved:
            last = how.solved[-1]
            row |= {"kind": last.jacobian, "iterations": last.iterations, "residual": last.residual}
        row |= {"newton forward s": taken[0], "newton training s": taken[1]}
        row |= {"loop": by, "loop forward s": loop[0], "loop training s": loop[1]}
        row["peak MiB"] = round(
            torch.cuda.max_memory_allocated() / 2**20
            if cuda
            else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
        )
        if jacobian is None or row.get("kind") != found[0].get("kind"):
            found.append(row)
    return found


if __name__ == "__main__":
    main()
