"""Learning from a stream as it comes, and the learning rules side by side."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from elman.cells import registry
from elman.data.batches import NONE, Batches
from elman.data.endless import Endless, open_endless
from elman.data.shards import Shard
from elman.errors import ElmanError, InputError
from elman.layers import Recurrent
from elman.learning import OPTIMIZERS, RULES
from elman.plots.learning_rules import draw_rules
from elman.training import schema, storage
from elman.training.interrupt import Interrupt
from elman.training.loop import Diverged, Trainer
from elman.training.memory import Memory
from elman.training.report import Report
from elman.training.run import Run
from elman.training.settings import TrainingSettings, option
from elman.training.start import resume, start
from elman.training.task import Loss, Measure, Recurrence, Sums, Task

POINTS = 50  # of a curve: each the mean over many steps, because single errors scatter


@dataclass
class OnlineSettings(TrainingSettings):
    """The settings of learning from a stream; its epochs are what lies between two points."""

    cell: str = option(
        "gru", "A name that `elman cells` lists, such as lstm, or path/to/file.py:ClassName."
    )
    hidden: int = option(32, "Units of each layer.", least=1, below=2**31)
    layers: int = option(1, "Layers.", least=1, below=10_000)
    batch: int = option(1, "Streams side by side.", least=1, below=10**6)
    steps: int = option(20_000, "Steps of the stream to learn from.", least=1)
    update: int = option(1, "Steps between two updates; tbptt's k1.", least=1, below=10**7)
    reach: int | None = option(20, "How many steps tbptt goes back: k2.", least=1)
    sequence: int = option(
        200, "Steps of bptt's sequences, with an update for each.", least=1, below=10**7
    )
    optimizer: str = option("adam", "How to update.", choices=tuple(OPTIMIZERS))
    learning_rate: float = option(1e-3, "The optimiser's step size.", above=0, below=1e31)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.epochs = -(-self.windows // self.between)

    def _check_learning(self) -> None:
        """Of several rules, each takes of these what is for it."""

    @property
    def size(self) -> int:
        """Steps of a window."""
        return self.sequence if self.learning == "bptt" else self.update

    @property
    def windows(self) -> int:
        """How many windows there are in all."""
        return -(-self.steps // self.size)

    @property
    def between(self) -> int:
        """Windows between two points of the curve."""
        return -(-self.windows // POINTS)


class Online(Task):
    """Predict an endless stream, each window before learning from it."""

    name, unit, headline = "online", "steps", Measure("error")
    Settings = OnlineSettings
    endless = True
    settings: OnlineSettings

    def __init__(self, settings: Any, data: Any = ()):
        super().__init__(settings, data)
        self._stream: Endless | None = None
        self._reading: tuple[int, Iterator[Any]] = (0, iter(()))
        self.memory: Memory | None = None

    @classmethod
    def prepare(cls, data: list[str], settings: Any) -> Online:
        """Open the stream."""
        return cls(settings, data)

    @property
    def stream(self) -> Endless:
        """What is learned from."""
        if self._stream is None:
            self._stream = open_endless(self.data[0])
        return self._stream

    def build(self) -> nn.Module:
        """A recurrent network, and an affine map of its outputs."""
        its = self.settings
        cell = registry.make(its.cell, self.stream.inputs, its.hidden)
        network = Recurrent(cell, its.layers)
        head = nn.Linear(network.output_size, self.stream.outputs)
        return nn.ModuleDict({"network": network, "head": head})

    def batches(
        self,
        part: str,
        epoch: int | None = None,
        shard: Shard = Shard(),  # noqa: B008
    ) -> Batches:
        """The windows between two points of the curve."""
        if part != "train":
            return NONE
        its = self.settings
        begin = (epoch or 0) * its.between
        return Batches(
            min(its.between, its.windows - begin),
            lambda done: self._windows(begin + done, min(begin + its.between, its.windows)),
        )

    def _windows(self, begin: int, end: int) -> Iterator[Any]:
        """Windows by number; those that follow what was read last are not read from the start."""
        at, reading = self._reading
        if at != begin or not begin:
            windows = self.stream.windows(self.settings.batch, self.settings.size)
            reading = islice(windows, begin, None)
        for k, window in enumerate(islice(reading, end - begin), start=begin):
            self._reading = k + 1, reading
            yield window

    def loss(self, model: nn.Module, batch: Any, carry: Any) -> Loss:
        """The mean loss of predicting a window."""
        y, state = self.model["network"](batch[0].to(self._like), carry)
        return self._loss(y, batch)._replace(carry=state)

    def recurrence(self) -> Recurrence:
        """The network, between the stream and its prediction."""
        return Recurrence(self.model["network"], lambda batch: batch[0].to(self._like), self._loss)

    @property
    def _like(self) -> Tensor:
        weight: Tensor = self.model["head"].weight
        return weight

    def _loss(self, y: Tensor, batch: Any) -> Loss:
        return Loss(self.stream.loss(self.model["head"](y), batch[1]), len(batch[0]))

    def measures(self, sums: Sums) -> dict[str, float]:
        """The error, as the stream measures it."""
        return {"error": self.stream.measure(sums["loss"] / max(1, sums["count"]))}

    def observations(self) -> dict[str, float | None]:
        """The memory that learning has taken, where it is watched."""
        return {} if self.memory is None else {"bytes": self.memory.now()}


def learn(
    name: str, data: str, settings: OnlineSettings, folder: Path, report: Report | None = None
) -> dict[str, Any]:
    """Learn from a stream by one rule, or go on with that, in a run folder of its own.

    Args:
        name: one of :data:`elman.learning.RULES`.
        data: as for :func:`elman.data.endless.open_endless`.
        settings: how.
        folder: where the run is, or is made.
        report: what hears of the progress.

    Returns:
        ``error`` over the last tenth of the stream; ``steps``, ``seconds``, ``steps_per_second``;
        ``peak_bytes``, the most memory that learning took; ``parameters``; ``curve``, points with
        ``step``, ``seconds``, the ``error`` since the point before, and the ``bytes`` in use;
        ``failed``, why it ended early, or None.
    """
    try:
        if folder.exists():
            trainer = resume(Online, Run.open(folder), report)
        else:
            trainer = start(Online, [data], replace(settings, learning=name), folder, report)
    except InputError as why:
        return {"rule": name, "failed": str(why), "curve": []}
    job = trainer.task
    assert isinstance(job, Online)
    _warm_up(trainer)
    job.memory, failed = Memory(), None
    try:
        trainer.train()
    except Diverged:
        failed = "diverged after {:,} steps: lower `learning_rate`"
    if trainer.interrupted:
        failed = "interrupted after {:,} steps"
    return _row(name, trainer, job, failed)


def _warm_up(trainer: Trainer) -> None:
    """Take some gradients that change nothing.

    Engines are built, graphs are traced and parts of PyTorch are loaded once: that is neither the
    rule's time nor its memory.
    """
    with torch.random.fork_rng(devices=[]):
        for window in islice(trainer.batches(0), 3):
            trainer.gradients(window, None, False)
    trainer.optimizer.zero_grad()


def _row(name: str, trainer: Trainer, job: Online, failed: str | None) -> dict[str, Any]:
    at, size = trainer.position, trainer.settings.size  # type: ignore[attr-defined]
    points = [
        {
            "step": line["update"] * size, "seconds": line["seconds"], "error": line["error"],
            "bytes": line.get("bytes"), "loss": line["loss"],
        }
        for line in trainer.run.metrics("update", "seconds", "loss", "error")
    ]  # fmt: skip
    steps = at.update * size
    losses = [point.pop("loss") for point in points[-max(1, len(points) // 10) :]]
    for point in points:
        point.pop("loss", None)
    loss = sum(losses) / len(losses) if losses and not (failed or "").startswith("div") else None
    return {
        "rule": name,
        "error": torch.inf if loss is None else job.stream.measure(loss),
        "steps": steps,
        "seconds": at.seconds,
        "steps_per_second": steps / max(1e-9, at.seconds),
        "peak_bytes": job.memory.peak() if job.memory else None,
        "parameters": job.parameters(),
        "curve": points,
        "failed": failed and failed.format(steps),
    }


def compare_rules(
    names: list[str],
    data: str,
    settings: OnlineSettings,
    folder: Path,
    report: Report | None = None,
) -> dict[str, Any]:
    """Learn from the same stream by each rule, and draw how they did.

    Every rule has a process of its own, so that neither its memory nor its time is another's, and a
    run folder, from which it can go on. The folder gets ``comparison.json`` after each rule, and at
    the end ``comparison.png`` and ``comparison.svg``.

    Args:
        names: of :data:`elman.learning.RULES`.
        data: as for :func:`elman.data.endless.open_endless`.
        settings: what all have in common.
        folder: made anew.
        report: what hears of the progress, in each rule's process.

    Returns:
        ``rows``, what :func:`learn` gives for each rule, or why it cannot be used;
        ``interrupted``, whether somebody ended it; ``data``, ``source``, ``rules``,
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
            f"{folder} is there already: delete it, go on with it with `resume`, or name another "
            "folder with `run`."
        )
    first = Online(settings, [data])
    first.build()  # what is wrong with it, says so
    compared = {
        "rows": [], "data": first.stream.name, "source": data, "rules": names,
        "measure": first.stream.error, "interrupted": False, "settings": settings.to_json(),
        "folder": str(folder),
    }  # fmt: skip
    return _compare(compared, folder, report)


def resume_rules(folder: Path, report: Report | None = None) -> dict[str, Any]:
    """Go on with a comparison that was interrupted, each rule from its checkpoint.

    Raises:
        ElmanError: it is damaged, or no such comparison.
    """
    return _compare(storage.read_json(folder / _KEPT, _RULE), folder, report)


_KEPT = "comparison.json"
_RULE = schema.record(
    {
        "rules": schema.listed(schema.text(*RULES), least=1), "source": schema.text(),
        "settings": schema.record({}, others=schema.anything),
    },
    others=schema.anything,
)  # fmt: skip


def _compare(
    compared: dict[str, Any], folder: Path, report: Report | None = None
) -> dict[str, Any]:
    settings = OnlineSettings.of(compared["settings"])
    rows: list[dict[str, Any]] = []
    compared |= {"rows": rows, "interrupted": False}
    with Interrupt() as interrupt:
        for name in compared["rules"]:
            if interrupt.asked:
                rows.append({"rule": name, "failed": "interrupted before it began", "curve": []})
            else:
                rows.append(
                    _alone(learn, name, compared["source"], settings, folder / name, report)
                )
            compared["interrupted"] = interrupt.asked
            # After each rule, so that nothing that took its time is lost.
            folder.mkdir(parents=True, exist_ok=True)
            storage.write_json(folder / _KEPT, compared)
    if any(row["curve"] for row in rows):
        draw_rules(compared, [folder / f"comparison.{kind}" for kind in ("png", "svg")])
    return compared


def _alone(function: Callable[..., Any], *arguments: Any) -> Any:
    """What a function gives in a process of its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()
