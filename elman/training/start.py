"""Beginning a training: data read, a model made, a run folder that is there whole or not at all."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elman.data.text import STDIN
from elman.errors import InputError
from elman.training.distribution import Processes
from elman.training.loop import Trainer
from elman.training.opening import restore
from elman.training.report import Report
from elman.training.run import Run, free_folder, refuse_existing

if TYPE_CHECKING:
    from elman.training.task import Task


def start(
    kind: type[Task],
    data: list[str],
    settings: Any,
    path: Path | None = None,
    report: Report | None = None,
) -> Trainer:
    """A new run in the folder ``path``, ready to train; the folder is there whole or not at all.

    Args:
        kind: of job.
        data: as :meth:`Task.prepare` takes it.
        settings: of the job.
        path: the folder; by default the next free one in ``runs``.
        report: what hears of the progress.

    Raises:
        ElmanError: the folder is there already, the data cannot be used, or the disk is full.
        InputError: a setting cannot be used, or the first step of a cell fails.
    """
    processes = Processes(settings)
    parts = (getattr(settings, part, []) for part in ("validation_data", "test_data"))
    if processes.several and STDIN in (*data, *chain(*parts)):
        raise InputError(
            f"{STDIN} is standard input, of which each of {processes.shard.world} processes would "
            "read a piece: save it to a file and name that, or train in one process."
        )
    if processes.first:
        path = path or free_folder(kind.folder(data))
        refuse_existing(path)
    path = Path(processes.agree(str(path)))
    task = kind.create(data, settings)
    settings = task.settings  # a job may fit them to its data
    config = {
        "task": kind.name, "data": task.data, "settings": settings.to_json(),
        "fingerprints": task.fingerprints(),
    }  # fmt: skip
    run = Run.begin(path, config) if processes.first else Run(path, config)
    try:
        if processes.first:
            run.save_assets(task.assets())
        run.path = Path(processes.agree(str(run.path)))
        trainer = Trainer(task, run, settings, processes, report=report)
        trainer.rehearse()
        if processes.first:
            run.settle()
        run.path = Path(processes.agree(str(run.path)))
        return trainer
    except BaseException:
        if processes.first:
            run.remove()
        raise


def resume(
    kind: type[Task],
    run: Run,
    report: Report | None = None,
    cell: str | None = None,
    **changed: Any,
) -> Trainer:
    """Go on with a run, from its checkpoint.

    Args:
        kind: of job.
        run: its folder.
        report: what hears of the progress.
        cell: see :func:`elman.training.opening.restore`.
        changed: settings that are others from now on.

    Raises:
        ElmanError: the run is damaged, or its data has changed.
        InputError: a setting cannot be used.
    """
    task = restore({kind.name: kind}, run, cell)
    task.settings = settings = kind.Settings.of(task.settings.to_json(), changed)
    return Trainer(task, run, settings, Processes(settings), resume=True, report=report)


def train(
    kind: type[Task],
    data: list[str],
    settings: Any,
    path: Path | None = None,
    report: Report | None = None,
) -> Trainer:
    """Train a job as :func:`start` begins it, and give its model the best weights.

    Raises:
        ElmanError, InputError: see :func:`start`.
        KeyboardInterrupt: it was interrupted; the run can be resumed.
    """
    trainer = start(kind, data, settings, path, report)
    trainer.train()
    if trainer.interrupted:
        raise KeyboardInterrupt
    trainer.run.give_weights(trainer.task.model)
    trainer.task.model.eval()
    return trainer
