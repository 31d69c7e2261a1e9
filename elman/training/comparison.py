"""Several models on the same data, with the same epochs or seconds for each, side by side."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from elman.data.sources import short_name
from elman.errors import ElmanError, InputError
from elman.plots.curves import draw_models
from elman.training import schema, storage
from elman.training.loop import Trainer
from elman.training.report import Report
from elman.training.run import Run
from elman.training.start import resume, start

if TYPE_CHECKING:
    from elman.training.task import Task

_logger = logging.getLogger("elman")


def compare_models(
    task: type[Task],
    data: list[str],
    settings: Any,
    variants: list[dict[str, Any]],
    folder: Path,
    report: Report | None = None,
) -> dict[str, Any]:
    """Train a model for each variant of the settings and draw a plot.

    The folder gets a run folder for each, ``comparison.json`` and ``comparison.png``. A model
    whose training diverges has a row that says so.

    Args:
        task: the job.
        data: what all models learn from.
        settings: what they have in common.
        variants: what each changes, such as ``{"cell": "gru", "hidden": 128}``.
        folder: made anew.
        report: what hears of the progress.

    Returns:
        ``rows``, a row of figures for each model, ``headline``, what they are judged by, and
        ``folder``; nothing in other processes than
        the first.
    """
    if folder.exists():
        raise ElmanError(
            f"{folder} is there already: delete it, go on with it with `resume`, or name another "
            "folder with `run`."
        )
    chosen = [replace(settings, **variant) for variant in variants]
    labels = list(map(_label, variants))
    if len(set(labels)) < len(labels):
        raise InputError(f"each model can be compared once, received {', '.join(labels)}.")
    # All take their first step before any is trained, so that one that cannot costs no time.
    trainers: list[tuple[Trainer, Tensor]] = []
    try:
        for label, its in zip(labels, chosen, strict=True):
            trainer = start(task, data, its, folder / _place(label), report)
            trainers.append((trainer, torch.get_rng_state()))
    except BaseException:
        for trainer, _ in trainers:
            trainer.run.remove()
        raise
    if trainers[0][0].processes.first:
        _keep(folder, variants, [])
    return _train(task, folder, variants, trainers)


def resume_comparison(
    task: type[Task], folder: Path, report: Report | None = None, cells: Sequence[str] = ()
) -> dict[str, Any]:
    """Go on with a comparison that was interrupted; models that are done are measured again.

    Args:
        task: the job.
        folder: that :func:`compare_models` made.
        report: what hears of the progress.
        cells: those of the user's own once more, as ``file.py:ClassName``.

    Raises:
        ElmanError: it is damaged, a comparison of something else, or one of its runs is.
    """
    variants = storage.read_json(folder / _KEPT, _RULE)["variants"]
    trainers = []
    for variant in variants:
        run = Run.open(folder / _place(_label(variant)))
        own = str(variant.get("cell")).partition(".py:")[2]
        cell = next((c for c in cells if own and c.partition(".py:")[2] == own), None)
        trainers.append((resume(task, run, report, cell), torch.get_rng_state()))
    return _train(task, folder, variants, trainers)


_KEPT = "comparison.json"
_RULE = schema.record(
    {"variants": schema.listed(schema.record({}, others=schema.anything))}, others=schema.anything
)


def _label(variant: dict[str, Any]) -> str:
    return " ".join(str(value) for value in variant.values() if value is not None)


def _place(label: str) -> str:
    """The folder of a model, below that of the comparison."""
    return label.replace(" ", "-").replace("/", "_")


def _keep(
    folder: Path, variants: list[dict[str, Any]], rows: list[dict[str, Any]]
) -> dict[str, Any]:
    compared = {"rows": rows, "variants": variants, "folder": str(folder)}
    storage.write_json(folder / _KEPT, compared)
    return compared


def _train(
    task: type[Task],
    folder: Path,
    variants: list[dict[str, Any]],
    trainers: list[tuple[Trainer, Tensor]],
) -> dict[str, Any]:
    """Train what is begun, one after the other, each with the random numbers that it began with."""
    rows, curves = [], []
    for variant, (trainer, randomness) in zip(variants, trainers, strict=True):
        job, run, label = trainer.task, trainer.run, _label(variant)
        torch.set_rng_state(randomness)
        trainer.report.say(f"{label}: {job.describe_model()}")
        row = {**variant, "parameters": job.parameters()}
        try:
            trainer.train()
            run.give_weights(job.model)
            row |= _figures(job, trainer)
            for doubt in job.doubts(row):
                _logger.warning("%s: %s", label, doubt)
        except ElmanError as error:
            _logger.warning("%s: %s", label, error)
            row["failed"] = str(error)
        if trainer.interrupted:
            raise ElmanError(
                f"interrupted at {label}, all of it kept: go on with `resume` "
                f"{shlex.quote(str(folder))}."
            )
        rows.append(row)
        curves.append((label, run.metrics("seconds", "loss")))
    if trainers[0][0].processes.first:
        _keep(folder, variants, rows)
        title = f"{task.name}: {short_name(trainers[0][0].task.data)}"
        headline = trainers[0][0].task.headline
        draw_models(curves, headline, folder / "comparison.png", title)
        return {"rows": rows, "headline": headline.name, "folder": str(folder)}
    return {}


def _figures(job: Task, trainer: Trainer) -> dict[str, Any]:
    at, rate = trainer.position, f"{job.unit}_per_second"
    measures = {k: v for k, v in job.evaluate().items() if not isinstance(v, dict)}
    return measures | {
        rate: round(at.units / max(1e-9, at.seconds)),
        "seconds": round(at.seconds, 2),
        "epochs": trainer.epochs,
    }
