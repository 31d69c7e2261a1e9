"""Learning from a stream as it comes, and the learning rules side by side."""

from __future__ import annotations

import itertools
import math
import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from elman.cells import registry
from elman.data.endless import Endless, open_endless
from elman.errors import ElmanError, InputError
from elman.layers import Recurrent
from elman.learning import OPTIMIZERS, RULES, Rule, TruncatedBPTT, clip_norm, make_optimizer
from elman.plots.learning_rules import draw_rules
from elman.training import storage
from elman.training.interrupt import Interrupt
from elman.training.memory import Memory, if_it_fits
from elman.training.report import Report
from elman.training.settings import Settings, option

POINTS = 50  # of a curve: each the mean over many steps, because single errors scatter


@dataclass
class OnlineSettings(Settings):
    """What learning from a stream can be told."""

    cell: str = option(
        "gru", "A name that `elman cells` lists, such as lstm, or path/to/file.py:ClassName."
    )
    hidden: int = option(32, "Units of each layer.", least=1, below=2**31)
    layers: int = option(1, "Layers.", least=1, below=10_000)
    batch: int = option(1, "Streams side by side.", least=1, below=10**6)
    steps: int = option(20_000, "Steps of the stream to learn from.", least=1)
    update: int = option(1, "Steps between two updates; tbptt's k1.", least=1, below=10**7)
    reach: int = option(20, "How many steps tbptt goes back: k2.", least=1)
    sequence: int = option(
        200, "Steps of bptt's sequences, with an update for each.", least=1, below=10**7
    )
    optimizer: str = option("adam", "How to update.", choices=tuple(OPTIMIZERS))
    learning_rate: float = option(1e-3, "The optimiser's step size.", above=0, below=1e31)
    clip_norm: float = option(1.0, "Clip the gradient's norm to this; 0: never.", least=0)
    seed: int = option(0, "Fixes every draw.", least=0, below=2**63)


def make_rule(name: str, settings: OnlineSettings, stream: Endless) -> tuple[Rule, nn.ModuleDict]:
    """The rule of that name, and the network and output layer that it learns, freshly drawn.

    Raises:
        InputError: the rule cannot be used with the settings' cell.
    """
    torch.manual_seed(settings.seed)
    network = _network(settings, stream)
    head = nn.Linear(network.output_size, stream.outputs)

    def loss(y: Tensor, target: Tensor) -> Tensor:
        return stream.loss(head(y), target)

    kind = RULES[name]
    rule = kind(network, loss, settings.reach) if kind is TruncatedBPTT else kind(network, loss)
    return rule, nn.ModuleDict({"network": network, "head": head})


def _network(settings: OnlineSettings, stream: Endless) -> Recurrent:
    def make() -> Recurrent:
        cell = registry.make(settings.cell, stream.inputs, settings.hidden)
        return Recurrent(cell, settings.layers)

    return if_it_fits(make)


def learn(
    name: str, data: str, settings: OnlineSettings, report: Report | None = None
) -> dict[str, Any]:
    """Learn from a stream by one rule, predicting each window before learning from it.

    Args:
        name: one of :data:`elman.learning.RULES`.
        data: as for :func:`elman.data.endless.open_endless`.
        settings: how.
        report: what hears of the progress.

    Returns:
        ``error`` over the last tenth of the stream; ``steps``, ``seconds``, ``steps_per_second``;
        ``peak_bytes``, the most memory that learning took; ``parameters``; ``curve``, points with
        ``step``, ``seconds``, the ``error`` since the point before, and the ``bytes`` in use;
        ``failed``, why it ended early, or None.
    """
    stream = open_endless(data)
    size = settings.sequence if name == "bptt" else settings.update
    rule, model = make_rule(name, settings, stream)
    optimizer = make_optimizer(settings.optimizer, model, settings.learning_rate)
    # Engines are built, graphs are traced and parts of PyTorch are loaded once: that is neither the
    # rule's time nor its memory.
    for x, target in itertools.islice(stream.windows(settings.batch, size), 3):
        rule.gradients(x, target)
    rule.reset()
    optimizer.zero_grad()
    optimizer.step()  # without gradients it changes nothing
    torch.manual_seed(settings.seed)
    memory = Memory()
    curve, losses, since = [], [], 0.0
    windows, failed = -(-settings.steps // size), None
    between = -(-windows // POINTS)
    started = time.perf_counter()
    with Interrupt() as interrupt, report or Report() as report:
        for k, (x, target) in enumerate(stream.windows(settings.batch, size), start=1):
            optimizer.zero_grad()
            loss = rule.gradients(x, target).item()
            threshold = settings.clip_norm or None
            norm = float(clip_norm(model.parameters(), threshold, error_if_nonfinite=False))
            optimizer.step()
            since += loss
            if not (math.isfinite(loss) and math.isfinite(norm)):
                failed = f"diverged after {k * size:,} steps: lower `learning_rate`"
            elif interrupt.asked:
                failed = f"interrupted after {k * size:,} steps"
            if failed or k % between == 0 or k == windows:
                seconds, count = time.perf_counter() - started, (k - 1) % between + 1
                losses.append(since / count)
                error, since = stream.measure(losses[-1]), 0.0
                point = {"step": k * size, "seconds": seconds, "error": error}
                curve.append(point | {"bytes": memory.now()})
                left = seconds * (windows - k) / k
                report.update(0, k / windows, {name: error}, k * size / seconds, left)
            if failed or k == windows:
                break
    last = losses[-max(1, len(losses) // 10) :]
    return {
        "rule": name,
        "error": stream.measure(sum(last) / len(last)),
        "steps": k * size,
        "seconds": seconds,
        "steps_per_second": k * size / seconds,
        "peak_bytes": memory.peak(),
        "parameters": sum(p.numel() for p in model.parameters()),
        "curve": curve,
        "failed": failed,
    }


def compare_rules(
    names: list[str],
    data: str,
    settings: OnlineSettings,
    folder: Path,
    report: Report | None = None,
) -> dict[str, Any]:
    """Learn from the same stream by each rule, and draw how they did.

    Every rule has a process of its own, so that neither its memory nor its time is another's. The
    folder gets ``comparison.json`` after each rule, and at the end ``comparison.png`` and
    ``comparison.svg``.

    Args:
        names: of :data:`elman.learning.RULES`.
        data: as for :func:`elman.data.endless.open_endless`.
        settings: what all have in common.
        folder: made anew.
        report: what hears of the progress, in each rule's process.

    Returns:
        ``rows``, what :func:`learn` gives for each rule, or why it cannot be used;
        ``interrupted``, whether somebody ended it; ``data``,
        ``measure``, ``settings`` and ``folder``.

    Raises:
        InputError: there is no such rule or cell, or a rule is named twice.
        ElmanError: the folder is there already.
    """
    for name in names:
        if name not in RULES:
            raise InputError(f"unknown rule {name!r}: expected some of {', '.join(RULES)}.")
    if len(set(names)) < len(names):
        raise InputError(f"each rule can be compared once, received {', '.join(names)}.")
    if folder.exists():
        raise ElmanError(
            f"{folder} is there already: delete it, or name another folder with `run`."
        )
    stream = open_endless(data)
    _network(settings, stream)  # what is wrong with it, says so
    rows: list[dict[str, Any]] = []
    compared = {
        "rows": rows, "data": stream.name, "measure": stream.error, "interrupted": False,
        "settings": settings.to_json(), "folder": str(folder),
    }  # fmt: skip
    with Interrupt() as interrupt:
        for name in names:
            try:
                make_rule(name, settings, stream)
            except InputError as why:
                rows.append({"rule": name, "failed": str(why), "curve": []})
                continue
            if interrupt.asked:
                rows.append({"rule": name, "failed": "interrupted before it began", "curve": []})
            else:
                rows.append(_alone(learn, name, data, settings, report))
            compared["interrupted"] = interrupt.asked
            # After each rule, so that nothing that took its time is lost.
            folder.mkdir(parents=True, exist_ok=True)
            storage.write_json(folder / "comparison.json", compared)
    folder.mkdir(parents=True, exist_ok=True)
    storage.write_json(folder / "comparison.json", compared)
    if any(row["curve"] for row in rows):
        pictures = [folder / f"comparison.{kind}" for kind in ("png", "svg")]
        draw_rules(compared, pictures)
    return compared


def _alone(function: Callable[..., Any], *arguments: Any) -> Any:
    """What a function gives in a process of its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()
