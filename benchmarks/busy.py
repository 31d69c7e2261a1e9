"""What is left of the speed beside other work: a busy process pinned to each core.

    python benchmarks/busy.py [--workloads step,evaluation,training] [--threads 1,2] [--units 256]

Two LSTM layers. ``step`` is one step of a stream, ``evaluation`` one row of 200 tokens
through network, decoder and loss, ``training`` one update on 32 rows of 35 tokens. The busy
processes are there all the time, stopped while the free machine's rate is taken; both rates are
taken in turns, and their medians printed with the ratio. A fair scheduler leaves a half of each
core. With ``--record``, results/busy.json keeps what was printed. Anything else that runs on the
machine makes the ratios look better than they are, because the free rate suffers more.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import elman  # isort: skip  # before torch: it sets how long threads spin
import torch
from torch import nn

from elman.allocation import keep_freed_memory
from elman.bench import machine

WORDS = 28


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workloads", default=",".join(WORKLOADS))
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--units", type=int, default=256)
    parser.add_argument("--seconds", type=float, default=2.0, help="for each rate, each time")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args()
    keep_freed_memory()
    rows = []
    print(
        "| work | threads | free, a second | busy, a second | busy / free |\n|---|---|---|---|---|"
    )
    with pinned_processes() as busy:
        for name in options.workloads.split(","):
            for threads in map(int, options.threads.split(",")):
                torch.set_num_threads(threads)
                free, beside = rates(
                    WORKLOADS[name](options.units), busy, options.seconds, options.turns
                )
                rows.append(
                    {
                        "work": name,
                        "units": options.units,
                        "threads": threads,
                        "free": free,
                        "busy": beside,
                    }
                )
                print(f"| {name} | {threads} | {free:,.0f} | {beside:,.0f} | {beside / free:.2f} |")
    if options.record:
        path = Path(__file__).parent / "results" / "busy.json"
        path.write_text(
            json.dumps({"rows": rows, "machine": machine()}, indent=2) + "\n", encoding="utf-8"
        )


@contextlib.contextmanager
def pinned_processes() -> Iterator[Callable[[bool], None]]:
    """A process that does nothing but work on each core; what is given starts and stops them."""
    cores = sorted(os.sched_getaffinity(0))
    processes = []
    for core in cores:
        code = f"import os\nos.sched_setaffinity(0, {{{core}}})\nwhile True: pass"
        processes.append(subprocess.Popen([sys.executable, "-c", code]))

    def run(on: bool) -> None:
        for process in processes:
            process.send_signal(signal.SIGCONT if on else signal.SIGSTOP)
        time.sleep(0.2)

    try:
        run(False)
        yield run
    finally:
        for process in processes:
            process.kill()
            process.wait()


def rates(
    workload: Callable[[], int], busy: Callable[[bool], None], seconds: float, turns: int
) -> tuple[float, float]:
    """Units of work a second on the free machine and beside the busy processes: medians."""
    workload()
    found: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(turns):
        for on in (False, True):
            busy(on)
            workload()
            done, started = 0, time.perf_counter()
            while time.perf_counter() < started + seconds:
                done += workload()
            found[on].append(done / (time.perf_counter() - started))
    busy(False)
    return statistics.median(found[False]), statistics.median(found[True])


def step(units: int) -> Callable[[], int]:
    """Steps of a stream."""
    network = elman.LSTM(units, units, 2)
    x, state = torch.randn(1, units), None

    def run() -> int:
        nonlocal state
        with torch.no_grad():
            for _ in range(50):
                _, state = network.step(x, state)
        return 50

    return run


class Model(nn.Module):
    """Network, decoder and loss of a language model."""

    def __init__(self, units: int):
        super().__init__()
        self.embedding = nn.Embedding(WORDS, units)
        self.network = elman.LSTM(units, units, 2)
        self.decoder = nn.Linear(units, WORDS)

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        y, _ = self.network(self.embedding(words[:-1]))
        return nn.functional.cross_entropy(self.decoder(y).flatten(0, 1), words[1:].flatten())


def evaluation(units: int) -> Callable[[], int]:
    """Tokens of one row."""
    model, words = Model(units).eval(), torch.randint(WORDS, (201, 1))

    def run() -> int:
        with torch.no_grad():
            model(words)
        return 200

    return run


def training(units: int) -> Callable[[], int]:
    """Tokens of updates."""
    model, words = Model(units), torch.randint(WORDS, (36, 32))
    optimizer = torch.optim.AdamW(model.parameters())

    def run() -> int:
        optimizer.zero_grad()
        model(words).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return 35 * 32

    return run


WORKLOADS = {"step": step, "evaluation": evaluation, "training": training}


if __name__ == "__main__":
    main()
