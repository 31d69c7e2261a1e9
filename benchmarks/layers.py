"""Microseconds of a training step and of a step of a stream, for a few shapes, on one thread.

    python benchmarks/layers.py                     this checkout
    PYTHONPATH=OTHER python benchmarks/layers.py    another one: in turns, they compare

Printed: medians after a warm-up, as a line of JSON each.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

import elman
from elman import cells
from elman.training.storage import to_json

TRAINED = {
    "LSTM 35x32x128": (lambda: elman.LSTM(128, 128), 35, 32, 128, 40),
    "minGRU 35x32x128": (lambda: elman.Recurrent(cells.MinGRU(128, 128)), 35, 32, 128, 40),
    "GRU 35x16x64": (lambda: elman.GRU(64, 64), 35, 16, 64, 80),
    "LSTM 5x2x8": (lambda: elman.LSTM(8, 8), 5, 2, 8, 300),
}
STEPPED = {"LSTM 64": (elman.LSTM, 64), "LSTM 256": (elman.LSTM, 256), "GRU 256": (elman.GRU, 256)}


def main() -> None:
    torch.set_num_threads(1)
    for name, (make, steps, batch, inputs, turns) in TRAINED.items():
        network, x = make(), torch.randn(steps, batch, inputs)
        lengths = torch.randint(1, steps + 1, (batch,))
        show(f"train {name}", median(lambda n=network, x=x: train(n, x), turns))
        padded = median(lambda n=network, x=x, k=lengths: train(n, x, lengths=k), turns)
        show(f"train {name} with lengths", padded)
    for name, (kind, hidden) in STEPPED.items():
        network, x = kind(hidden, hidden), torch.randn(1, hidden)
        with torch.inference_mode():
            state = [network.step(x)[1]]
            show(f"step {name}", median(lambda n=network, x=x, s=state: step(n, x, s), 1500))


def train(network: Any, x: torch.Tensor, **how: Any) -> None:
    """A pass forward and back."""
    network.zero_grad()
    network(x, **how)[0].sum().backward()


def step(network: Any, x: torch.Tensor, state: list[Any]) -> None:
    """A step that goes on from the last."""
    _, state[0] = network.step(x, state[0])


def median(run: Callable[[], None], turns: int) -> float:
    """Microseconds of a call."""
    for _ in range(5):
        run()
    found = []
    for _ in range(turns):
        began = time.perf_counter()
        run()
        found.append(time.perf_counter() - began)
    return 1e6 * statistics.median(found)


def show(name: str, microseconds: float) -> None:
    print(to_json({"what": name, "microseconds": round(microseconds, 1)}), flush=True)


if __name__ == "__main__":
    main()
