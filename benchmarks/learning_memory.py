"""Memory of RTRL and of BPTT by the length of the sequence, measured.

    python benchmarks/learning_memory.py [--hidden 32] [--longest 100000]

Writes benchmarks/results/learning-memory.json and docs/images/learning-memory.png and .svg.
Every point is a process of its own: how much its resident memory grew at most while it took the
gradient of a sequence, after engines were built and graphs traced on a short one.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from elman.bench import machine
from elman.data.endless import open_endless
from elman.learning import RULES as LEARNING_RULES
from elman.studies.online import Online, OnlineSettings
from elman.training.memory import Memory
from elman.training.storage import to_json

RULES = {"bptt": "BPTT", "rtrl": "RTRL"}
ROOT = Path(__file__).parent.parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cell", default="lstm")
    parser.add_argument("--hidden", type=int, default=32)
    parser.add_argument("--longest", type=int, default=100_000)
    options = parser.parse_args()
    lengths = [10**k for k in range(1, round(math.log10(options.longest)) + 1)]
    rows = []
    for name in RULES:
        for length in lengths:
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                job = pool.submit(measure, name, options.cell, options.hidden, length)
                rows.append(job.result())
            print(to_json(rows[-1]), flush=True)
    result = {
        "command": "python benchmarks/learning_memory.py",
        "cell": options.cell, "hidden": options.hidden, "rows": rows, "machine": machine(),
    }  # fmt: skip
    path = ROOT / "benchmarks" / "results" / "learning-memory.json"
    path.write_text(to_json(result, indent=2) + "\n", encoding="utf-8")
    draw(result, ROOT / "docs" / "images" / "learning-memory")


def measure(name: str, cell: str, hidden: int, length: int) -> dict[str, Any]:
    """The gradient of one sequence: BPTT takes it whole, RTRL step by step."""
    stream = open_endless("mackey-glass")
    task = Online.create(["mackey-glass"], OnlineSettings(cell=cell, hidden=hidden))
    model, head = task.model, task.model["head"]
    rule = LEARNING_RULES[name](model["network"], lambda y, target: stream.loss(head(y), target))
    size = length if name == "bptt" else 1
    for x, target in [next(stream.windows(1, min(size, 10)))] * 3:
        rule.gradients(x, target)
    rule.reset()
    model.zero_grad()
    windows, memory, started = stream.windows(1, size), Memory(), time.perf_counter()
    for _ in range(length // size):
        rule.gradients(*next(windows))
    seconds = time.perf_counter() - started
    return {"rule": name, "steps": length, "bytes": memory.peak(), "seconds": round(seconds, 4)}


def draw(result: dict[str, Any], path: Path) -> None:
    from matplotlib.figure import Figure
    from matplotlib.ticker import FormatStrFormatter

    figure = Figure(figsize=(6, 4), layout="constrained")
    axis = figure.subplots()
    for (name, label), style in zip(RULES.items(), ("ko-", "ks--"), strict=True):
        rows = [row for row in result["rows"] if row["rule"] == name]
        megabytes = [row["bytes"] / 1e6 for row in rows]
        axis.plot([row["steps"] for row in rows], megabytes, style, mfc="white", label=label)
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.yaxis.set_major_formatter(FormatStrFormatter("%g"))
    axis.set_xlabel("steps of the sequence, T")
    axis.set_ylabel("memory for its gradient, MB")
    axis.grid(alpha=0.3)
    axis.legend(frameon=False)
    axis.set_title(f"{result['cell']}, {result['hidden']} units, one sequence")
    for kind in ("png", "svg"):
        figure.savefig(path.with_suffix(f".{kind}"), dpi=130)


if __name__ == "__main__":
    main()
