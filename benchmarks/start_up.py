"""Seconds until ``elman`` answers, and what importing it takes beside importing PyTorch.

    python benchmarks/start_up.py [--turns 7]

Every program is a process of its own, and all take turns, so that what else the machine does
meanwhile meets them alike. Printed: the medians of seconds on the clock and of processor time.
Importing elman imports nothing until a name of its own is used: hence the line that uses one.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time

PROGRAMS = {
    "python": ["-c", "pass"],
    "elman --help": ["-m", "elman", "--help"],
    "elman --version": ["-m", "elman", "--version"],
    "elman trian": ["-m", "elman", "trian"],
    "import torch": ["-c", "import torch"],
    "import elman": ["-c", "import elman"],
    "from elman import LSTM": ["-c", "from elman import LSTM"],
    "from elman import *": ["-c", "from elman import *"],
}

# Modules are compiled once, as where elman is installed.
ENVIRONMENT = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=7)
    turns = parser.parse_args().turns
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in PROGRAMS}
    for _ in range(1 + turns):
        for name, arguments in PROGRAMS.items():
            taken[name].append(seconds(arguments))
    # The first of each filled the caches.
    clock = {name: statistics.median(c for c, _ in each[1:]) for name, each in taken.items()}
    processor = {name: statistics.median(p for _, p in each[1:]) for name, each in taken.items()}
    print("| | s | processor s |\n|---|---|---|")
    for name in PROGRAMS:
        print(f"| {name} | {clock[name]:.2f} | {processor[name]:.2f} |")
    for name in ("import elman", "from elman import LSTM", "from elman import *"):
        ratios = (each[name] / each["import torch"] for each in (clock, processor))
        print(f"\n{name}: {' and '.join(f'{r:.2f}' for r in ratios)} of import torch")


def seconds(arguments: list[str]) -> tuple[float, float]:
    """What a Python process takes on the clock, and of the processor."""
    began, before = time.perf_counter(), os.times()
    subprocess.run([sys.executable, *arguments], capture_output=True, env=ENVIRONMENT, check=False)
    after = os.times()
    used = after.children_user + after.children_system
    return time.perf_counter() - began, used - before.children_user - before.children_system


if __name__ == "__main__":
    main()
