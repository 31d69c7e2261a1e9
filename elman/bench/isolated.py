"""What takes a process of its own to measure: the memory of a step, the time to compile a cell.

``python -m elman.bench.isolated QUESTION``, with a question in JSON, prints the answer in JSON;
:func:`ask` does so.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from elman.allocation import return_freed_memory
from elman.bench.measurement import Shape
from elman.bench.networks import ElmanCalls, TorchCalls, elman_network, torch_network
from elman.compiler.cpu import build
from elman.engines import choice
from elman.errors import ElmanError

_STEPS = 3  # training steps whose memory is measured, one after the other


def ask(
    what: str, cell: str, shape: Shape, library: str = "elman", cache: Path | None = None
) -> dict[str, Any]:
    """Put a question to a new process that has this one's number of threads.

    Args:
        what: ``"memory"`` or ``"compile"``.
        cell, shape: of what.
        library: ``"elman"``, ``"torch.nn"`` or ``"torch.compile"``.
        cache: the folder for what is compiled, elman's and PyTorch's.

    Raises:
        ElmanError: it cannot be measured here.
    """
    question = {
        "what": what, "cell": cell, "shape": shape, "library": library,
        "threads": torch.get_num_threads(), "engine": choice.forced() or "auto",
    }  # fmt: skip
    # The package may have been found through the working folder.
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    if cache is not None:
        environment["ELMAN_CACHE"] = str(cache / "elman")
        environment["TORCHINDUCTOR_CACHE_DIR"] = str(cache / "inductor")
    done = subprocess.run(
        [sys.executable, "-m", __name__, json.dumps(question)],
        env=environment, capture_output=True, encoding="utf-8", errors="replace", check=False,
    )  # fmt: skip
    if done.returncode:
        why = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ElmanError(f"{what} of {library} could not be measured in a new process: {why}")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def answer(question: dict[str, Any]) -> dict[str, Any]:
    """The answer to a question, in the process that was made for it."""
    torch.set_num_threads(question["threads"])
    choice.engine(question["engine"])
    torch.manual_seed(0)
    measure = {"memory": memory, "compile": seconds_to_compile}[question["what"]]
    return measure(question["cell"], Shape(*question["shape"]), question["library"])


def memory(cell: str, shape: Shape, library: str) -> dict[str, Any]:
    """The peak of resident memory in a training step, above what is resident before it: bytes.

    Weights, input and code are there before; outputs, what the backward pass needs, workspaces and
    gradients are what a step adds. The C library is told to give back at once what is freed, so
    that nothing that an earlier step left hides a later one's need; the median of three steps.

    Raises:
        OSError: this system does not tell the peak (only Linux does).
    """
    return_freed_memory()
    network = elman_network(cell, shape)
    x = torch.randn(shape.steps, shape.batch, shape.input)
    if library == "elman":
        calls: TorchCalls = ElmanCalls(network, x)
    else:
        calls = TorchCalls(torch_network(cell, shape, network), x)
    calls.train()
    peaks = []
    for _ in range(_STEPS):
        Path("/proc/self/clear_refs").write_bytes(b"5")  # the peak starts from here
        before = _status("VmRSS")
        calls.train()
        peaks.append(_status("VmHWM") - before)
    return {"bytes": int(statistics.median(peaks))}


def seconds_to_compile(cell: str, shape: Shape, library: str) -> dict[str, Any]:
    """How long the first training step takes, forward and backward, all that comes before it done.

    For elman, ``engine`` is the time to build the engine's library, once a machine, apart.
    """
    # What PyTorch itself does on a process's first gradient is nobody's compile time.
    torch.ones(2, requires_grad=True).sum().backward()
    started = time.perf_counter()
    if library == "elman":
        build.runtime(torch.float32)
    built = time.perf_counter() - started
    network: Any = elman_network(cell, shape)
    if library == "torch.compile":
        choice.engine("reference")
        network = torch.compile(network)
    x = torch.randn(shape.steps, shape.batch, shape.input, requires_grad=True)
    started = time.perf_counter()
    network(x)[0].sum().backward()
    return {"engine": built, "seconds": time.perf_counter() - started}


def _status(what: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="utf-8", errors="replace").splitlines()
    for line in lines:
        if line.startswith(what):
            return int(line.split()[1]) * 1024
    raise OSError(f"the system does not tell {what}")


if __name__ == "__main__":
    print(json.dumps(answer(json.loads(sys.argv[1]))))
