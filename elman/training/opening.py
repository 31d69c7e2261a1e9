"""Opening what a training has left behind."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from elman.errors import ElmanError, InputError
from elman.training.device import pick
from elman.training.memory import if_it_fits
from elman.training.run import Run

if TYPE_CHECKING:
    from elman.training.task import Task

_logger = logging.getLogger("elman")


def restore(tasks: Mapping[str, type[Task]], run: Run, cell: str | None = None) -> Task:
    """The job of a run, without its weights.

    Args:
        tasks: the jobs that there are, by name.
        run: the run.
        cell: the cell's name again, where the run was trained with a user's own. Opening a run
            never executes a file that only the run names.

    Raises:
        ElmanError: the run is damaged, of an unknown job, or has a cell of the user's own.
    """
    settings, name = run.config["settings"], run.config["task"]
    own = str(settings.get("cell"))
    if ".py:" not in own:
        if cell not in (None, own):
            raise InputError(
                f"{run.path} was trained with the cell {own}, received {cell}: leave out `cell`, "
                "which is for runs with a cell of your own."
            )
    elif cell is not None:
        if ".py:" not in cell or own.rpartition(":")[2] != cell.rpartition(":")[2]:
            raise InputError(
                f"{run.path} was trained with the cell {own}, received {cell}: name the file that "
                "has it now, and the same class."
            )
        run = Run(run.path, {**run.config, "settings": {**settings, "cell": cell}})
    else:
        raise ElmanError(
            f"{run.path} was trained with the cell {settings['cell']}: name it again with `cell`, "
            "because opening a run executes no file on its own."
        )
    if name not in tasks:
        raise ElmanError(f"{run.path} is a run of {name!r}, which this elman does not know.")
    missing = [f.name for f in fields(tasks[name].Settings) if f.name not in settings]
    if missing:  # as in a run of before there was that setting
        _logger.warning(
            "%s has no %s: the default is taken.", run.path / "config.json", ", ".join(missing)
        )
    kind, assets = tasks[name], run.load_assets()
    try:
        chosen = kind.Settings.of(settings)
    except InputError as error:
        raise ElmanError(f"{run.path / 'config.json'} is damaged: {error}") from None
    try:
        task = kind.restore(chosen, assets)
    except ElmanError as why:
        raise ElmanError(f"{run.path / 'assets'} is damaged: {why}") from None
    task.data, task.known = run.config["data"], run.config["fingerprints"]
    try:
        with torch.random.fork_rng(devices=[]):  # the weights that it draws are not kept
            task.model = if_it_fits(task.build)
    except InputError as error:
        raise ElmanError(f"{run.path / 'config.json'} is damaged: {error}") from None
    return task


def open_job(
    tasks: Mapping[str, type[Task]], path: Path, device: str = "auto", cell: str | None = None
) -> Task:
    """The job of the run in a folder, with its weights, on a device."""
    run = Run.open(path)
    job = restore(tasks, run, cell)
    run.give_weights(job.model)
    job.model.to(pick(device)).eval()
    return job
