"""What benchmarks/gpu.sh runs: tests on a GPU, PyTorch's own cells there, the main job there.

Each part may fail without stopping the others. Every line of JSON has a ``part``; with ``OUT`` set,
the lines are in ``$OUT/gpu.jsonl`` and the table in ``$OUT/gpu.txt``, too.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import torch
from torch import nn
from torch.nn.functional import cross_entropy

ROOT = Path(__file__).resolve().parents[1]
DEVICE = os.environ.get("ELMAN_GPU_DEVICE") or "cuda"
CUDA = DEVICE.startswith("cuda")
OUT = Path(os.environ["OUT"]) if os.environ.get("OUT") else None
BEGAN = time.monotonic()

# Those whose tensors and networks name no place. Files that are about the CPU alone, such as the
# native engine's, are left out.
ELSEWHERE = (
    "tests/layers/test_equalities.py", "tests/layers/test_recurrent.py",
    "tests/layers/test_attention.py", "tests/layers/test_pooling.py",
    "tests/layers/test_softmax.py", "tests/layers/test_crf.py", "tests/layers/test_dropout.py",
    "tests/layers/test_links.py", "tests/layers/test_strided.py", "tests/layers/test_states.py",
    "tests/layers/test_delay.py", "tests/layers/test_torch_nn.py", "tests/learning",
    "tests/lens", "tests/decoding", "tests/cells/test_family.py", "tests/cells/test_equations.py",
    "tests/cells/test_transforms.py", "tests/networks",
)  # fmt: skip

table: list[str] = []


def emit(part: str, **line: Any) -> None:
    """Print a line of JSON, and keep it."""
    text = json.dumps({"part": part, "at": round(time.monotonic() - BEGAN, 1), **line})
    print(text, flush=True)
    if OUT:
        with (OUT / "gpu.jsonl").open("a", encoding="utf-8") as file:
            file.write(text + "\n")


def tell(text: str) -> None:
    """Keep a line of the table, which is printed at the end."""
    table.append(text)


def part(name: str, run: Callable[[], None]) -> None:
    """Run a part; what stops it is told and stops nothing else."""
    try:
        run()
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        emit(name, failed=reason[:400], where=f"{where.filename}:{where.lineno}")
        tell(f"{name:<34} FAILED  {reason[:120]}")


# -- where --------------------------------------------------------------------------------------


def environment() -> None:
    found: dict[str, Any] = {"torch": torch.__version__, "python": sys.version.split()[0]}
    found["device"] = torch.cuda.get_device_name() if CUDA else "cpu"
    found["cores"] = len(os.sched_getaffinity(0))
    if CUDA:
        found |= {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
    for name in ("lightning_fabric", "pooch", "tokenizers", "hypothesis", "seqeval", "torchcrf"):
        try:
            __import__(name)
        except Exception as error:
            found.setdefault("missing", {})[name] = str(error).splitlines()[0][:120]
    emit("environment", **found)
    tell(f"{found['device']}, torch {found['torch']}, missing: {[*found.get('missing', {})]}")


# -- tests --------------------------------------------------------------------------------------


def tests(name: str, files: list[str], seconds: int, workers: int, *more: str) -> None:
    """Run tests on the device; those that fail are listed, each with its reason in a line."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [
            sys.executable, "-m", "pytest", *files, "-q", "--tb=short", "-n", str(workers),
            "-p", "no:cacheprovider", "-W", "default", f"--junitxml={report}", "--maxfail=400",
            "--continue-on-collection-errors", *more,
        ]  # fmt: skip
        began = time.monotonic()
        log = ""
        try:
            done = subprocess.run(
                command, cwd=ROOT, capture_output=True, encoding="utf-8", timeout=seconds,
                env={**os.environ, "ELMAN_TEST_DEVICE": DEVICE},
            )  # fmt: skip
            log = done.stdout + done.stderr
        except subprocess.TimeoutExpired as late:
            log = (late.stdout or b"").decode(errors="replace")
            emit(name, timeout=seconds)
        took = time.monotonic() - began
        if not report.exists():
            emit(name, failed="no report", tail=log[-3000:])
            tell(f"{name:<34} no report after {took:.0f} s")
            return
        counts: Counter[str] = Counter()
        for case in ElementTree.parse(report).iter("testcase"):
            kinds = [c for c in case if c.tag in ("failure", "error", "skipped")]
            if not kinds:
                counts["passed"] += 1
                continue
            counts[kinds[0].tag] += 1
            if kinds[0].tag != "skipped":
                lines = (kinds[0].text or "").strip().splitlines()
                raised = [x[1:].strip() for x in lines if x.startswith("E ")]
                places = [x for x in lines if re.match(r"\S+\.py:\d+: ", x)]
                emit(
                    name,
                    test=f"{case.get('classname')}::{case.get('name')}",
                    reason=" | ".join(raised[:3])[:300] or (kinds[0].get("message") or "")[:300],
                    where=places[-1][:160] if places else "",
                )
        emit(name, **counts, seconds=round(took, 1))
        tell(f"{name:<34} {dict(counts)} in {took:.0f} s")


# -- PyTorch's own cells --------------------------------------------------------------------------


def seconds_of(call: Callable[[], Any], least: float) -> float:
    """The median time of a call, in seconds."""
    for _ in range(5):
        call()
    times: list[float] = []
    end = time.monotonic() + least
    while time.monotonic() < end or len(times) < 5:
        if CUDA:
            torch.cuda.synchronize()
        begin = time.perf_counter()
        for _ in range(4):
            call()
        if CUDA:
            torch.cuda.synchronize()
        times.append((time.perf_counter() - begin) / 4)
    return statistics.median(times)


def own_cells() -> None:
    """Forward, and forward and backward, of elman's and PyTorch's layers; μs a call."""
    import elman

    shapes = [(28, 256, 2, 32, 35), (650, 650, 2, 20, 35), (1024, 1024, 1, 64, 50)]
    least = 0.25 if CUDA else 0.02
    tell(f"{'own cells, μs a call':<34} {'elman':>9} {'torch.nn':>9}  ratio")
    for cell in ("LSTM", "GRU", "RNN"):
        for input, hidden, depth, batch, steps in shapes if CUDA else [(8, 8, 2, 2, 5)]:
            for both in (False, True) if hidden == 256 or not CUDA else (False,):
                made: dict[str, Any] = {"num_layers": depth, "bidirectional": both}
                theirs = getattr(nn, cell)(input, hidden, **made).to(DEVICE)
                ours = getattr(elman, cell)(input, hidden, **made).to(DEVICE)
                ours.load_state_dict(theirs.state_dict())
                x = torch.randn(steps, batch, input, device=DEVICE)

                def train(network: nn.Module, x: torch.Tensor = x) -> None:
                    network.zero_grad()
                    network(x)[0].sum().backward()

                def forward(network: nn.Module, x: torch.Tensor = x) -> None:
                    with torch.no_grad():
                        network(x)

                for how in (forward, train):
                    with warnings.catch_warnings(record=True) as told:
                        warnings.simplefilter("always")
                        # In turns, so that both meet the same clock rates.
                        pairs = [
                            (
                                seconds_of(lambda n=ours, f=how: f(n), least),
                                seconds_of(lambda n=theirs, f=how: f(n), least),
                            )
                            for _ in range(2)
                        ]
                    a, b = (min(each) * 1e6 for each in zip(*pairs, strict=True))
                    name = f"{cell} {depth}×{hidden}{'×2' if both else ''} {how.__name__}"
                    emit(
                        "own cells", cell=cell, shape=[input, hidden, depth, batch, steps],
                        both=both, what=how.__name__, elman_us=round(a, 1), torch_us=round(b, 1),
                        ratio=round(b / a, 3), warned=sorted({str(w.message)[:90] for w in told}),
                    )  # fmt: skip
                    tell(f"  {name:<32} {a:9.0f} {b:9.0f}  {b / a:.2f}")


# -- the main job ---------------------------------------------------------------------------------


def book(folder: Path) -> str:
    """The Time Machine where it lies at hand, or else this project's own pages as a text."""
    for data in (
        os.environ.get("ELMAN_DATA", ""),
        ROOT / "shared/data",
        ROOT.parent / "shared/data",
    ):
        if data and (Path(data) / "timemachine").is_dir():
            os.environ["ELMAN_DATA"] = str(data)
            return "time-machine"
    pages = [p.read_text(encoding="utf-8") for p in sorted(ROOT.glob("**/*.md"))]
    path = folder / "book.txt"
    path.write_text(" ".join(pages)[:200_000], encoding="utf-8")
    return str(path)


def settings_of(**changed: Any) -> Any:
    """Those of benchmarks/recipes/demo.toml."""
    from elman.tasks.language_model.task import LanguageModelSettings

    recipe: dict[str, Any] = {
        "tokens": "character", "normalize": "letters", "limit": 10_000, "validation": 0.0,
        "cell": "lstm", "hidden": 256 if CUDA else 16, "layers": 2, "batch": 32, "steps": 35,
        "epochs": 50, "optimizer": "nadam", "learning_rate": 0.01, "schedule": "linear",
        "clip_norm": 0.25, "prompts": ["time traveller"], "sample_length": 50,
        "sample_temperature": 0.0, "device": DEVICE,
    }  # fmt: skip
    return LanguageModelSettings.of(recipe, changed)


def fused_job() -> None:
    """The main job by the engine that compiles any cell, in place of cuDNN."""
    import elman

    if CUDA:
        with elman.engine("cuda"):
            main_job(engine="cuda")


def main_job(engine: str = "auto", **changed: Any) -> None:
    """Tokens a second of whole epochs of elman's loop."""
    from elman.learning import fused
    from elman.tasks.language_model.task import LanguageModeling
    from elman.training.interrupt import Interrupt
    from elman.training.start import start

    with tempfile.TemporaryDirectory() as folder:
        text = book(Path(folder))
        # A longer text shows the loop, and not what an epoch's end costs.
        for limit in (10_000, 100_000) if CUDA else (10_000,):
            its = settings_of(limit=limit, **changed)
            trainer = start(LanguageModeling, [text], its, Path(folder) / f"{limit}")
            interrupt, rates, tokens = Interrupt(), [], 0
            for _ in range((12 if limit == 10_000 else 5) if CUDA else 3):
                before, begin = trainer.position.units, time.perf_counter()
                trainer.epoch(interrupt)
                tokens = trainer.position.units - before
                rates.append(tokens / (time.perf_counter() - begin))
            best, losses = max(rates), [line["loss"] for line in trainer.run.metrics()]
            emit(
                "main job", side="elman", limit=limit, tokens_per_second=round(best), engine=engine,
                **changed,
                graphs=len(trainer.graphs._recorded), why=trainer.graphs.why,
                own_update=CUDA and fused.kernels(trainer.fabric.device) is not None,
                rates=[round(r) for r in rates], ms_a_step=round(1120e3 / best, 3), losses=losses,
            )  # fmt: skip
            label = f"elman {engine} {changed or ''} {limit:,}"
            tell(f"  {label:<32} {best:12,.0f} tokens/s  {1120e3 / best:.2f} ms a step")
            if trainer.graphs.why and CUDA:
                tell(f"    no graph: {trainer.graphs.why}")
            if limit == 10_000:
                syncs(trainer, interrupt)


def syncs(trainer: Any, interrupt: Any) -> None:
    """Where the host waits for the device within an epoch, as PyTorch finds it."""
    if not CUDA:
        return
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        found: Counter[str] = Counter()
        shown = warnings.showwarning
        try:
            before = trainer.position.update
            trainer.epoch(interrupt)
            updates = trainer.position.update - before
        finally:
            torch.cuda.set_sync_debug_mode("default")
            warnings.showwarning = shown
        for each in told:
            if "synchroniz" in str(each.message):
                place = Path(each.filename)
                if place.is_relative_to(ROOT):
                    place = place.relative_to(ROOT)
                found[f"{place}:{each.lineno}"] += 1
    for place, count in found.most_common(15):
        emit("syncs", place=place, count=count, updates=updates)
        tell(f"    waits at {place:<40} {count / max(1, updates):.2f} an update")


class Plain(nn.Module):
    """The model as a user of torch.nn writes it."""

    def __init__(self, vocabulary: int, hidden: int):
        super().__init__()
        self.size = vocabulary
        self.recurrent = nn.LSTM(vocabulary, hidden, 2)
        self.output = nn.Linear(hidden, vocabulary)

    def forward(self, x: torch.Tensor, state: Any) -> tuple[torch.Tensor, Any]:
        one_hot = x.new_zeros((*x.shape, self.size), dtype=torch.float32)
        y, state = self.recurrent(one_hot.scatter_(-1, x.unsqueeze(-1), 1.0), state)
        return self.output(y), state


def plain_loops() -> None:
    """The same loop with torch.nn.LSTM, eager and as a CUDA graph: what can be had at all."""
    for graph in (False, True) if CUDA else (False,):
        plain_loop(graph)


def plain_loop(graph: bool) -> None:
    hidden, steps, batch = (256 if CUDA else 16), 35, 32
    data = torch.randint(28, (8, 36, batch), device=DEVICE)
    torch.manual_seed(0)
    model = Plain(28, hidden).to(DEVICE)
    options: dict[str, Any] = {"capturable": True} if CUDA else {}
    optimizer = torch.optim.NAdam(model.parameters(), lr=0.001, foreach=True, **options)
    window = data[0].clone()
    state = tuple(torch.zeros(2, batch, hidden, device=DEVICE) for _ in range(2))
    total = torch.zeros((), device=DEVICE)

    def update() -> None:
        optimizer.zero_grad(set_to_none=True)
        logits, after = model(window[:-1], state)
        loss = cross_entropy(logits.flatten(0, 1), window[1:].flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.25)
        optimizer.step()
        for held, new in zip(state, after, strict=True):
            held.copy_(new.detach())
        total.add_(loss.detach())

    run = update
    if graph:
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                update()
        torch.cuda.current_stream().wait_stream(side)
        optimizer.zero_grad(set_to_none=True)
        captured = torch.cuda.CUDAGraph()
        with torch.cuda.graph(captured):
            update()
        run = captured.replay

    def epoch() -> None:
        for k in range(9):
            window.copy_(data[k % 8])
            run()
        float(total)

    took = seconds_of(epoch, 0.5 if CUDA else 0.05) / 9
    rate = steps * batch / took
    side_name = f"torch.nn.LSTM, {'graph' if graph else 'eager'}"
    emit("main job", side=side_name, tokens_per_second=round(rate), ms_a_step=took * 1e3)
    tell(f"  {side_name:<32} {rate:12,.0f} tokens/s  {took * 1e3:.2f} ms a step")


def profile() -> None:
    """What an update spends its time on: kernels, launches and copies."""
    if not CUDA:
        return
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiled

    from elman.tasks.language_model.task import LanguageModeling
    from elman.training.interrupt import Interrupt
    from elman.training.start import start

    with tempfile.TemporaryDirectory() as folder:
        trainer = start(LanguageModeling, [book(Path(folder))], settings_of(), Path(folder) / "run")
        interrupt = Interrupt()
        trainer.epoch(interrupt)
        before = trainer.position.update
        with profiled(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
            trainer.epoch(interrupt)
        updates = trainer.position.update - before
        events = seen.key_averages()
        names = ("cudaLaunchKernel", "cudaMemcpyAsync", "cudaStreamSynchronize", "cudaGraphLaunch")
        counts = {e.key: e.count / updates for e in events if e.key.startswith(names)}
        emit("profile", per_update={k: round(v, 2) for k, v in counts.items()})
        tell(f"  an update's calls: { {k: round(v, 1) for k, v in counts.items()} }")
        most = sorted(events, key=lambda e: -e.self_device_time_total)[:10]
        for e in most:
            emit("profile", kernel=e.key[:80], us_an_update=e.self_device_time_total / updates)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", help="parts, by their keys below")
    only = parser.parse_args().only
    if OUT:
        OUT.mkdir(parents=True, exist_ok=True)
    workers = max(1, min(8, len(os.sched_getaffinity(0)) - 1))
    small = [] if CUDA else ["-k", "softmaxes or attention or pooling or crf"]
    parts: dict[str, tuple[str, Callable[[], None]]] = {
        "plain": ("the plain loop", plain_loops),
        "job": ("main job", main_job),
        "eager": ("main job, no graph", lambda: main_job(graph="off")),
        "fused": ("main job, engine cuda", fused_job),
        "profile": ("profile", profile),
        "cells": ("own cells", own_cells),
        "devices": (
            "devices",
            lambda: tests("devices", ["tests/test_devices.py"], 80, workers, *small),
        ),
        "elsewhere": (
            "tests elsewhere",
            lambda: tests(
                "tests elsewhere",
                [*ELSEWHERE] if CUDA else ["tests/layers/test_pooling.py"], 75, workers,
            ),
        ),
    }  # fmt: skip
    part("environment", environment)
    for key, (name, run) in parts.items():
        if not only or key in only:
            part(name, run)
    text = "\n".join(table)
    print(text, flush=True)
    if OUT:
        (OUT / "gpu.txt").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
