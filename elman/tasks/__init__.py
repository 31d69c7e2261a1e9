"""The field's jobs: one file each, and a line here."""

from __future__ import annotations

from pathlib import Path

from elman.tasks import saved
from elman.tasks.language_model import LanguageModeling
from elman.tasks.saved import load_weights
from elman.training.run import Run
from elman.training.task import Task

TASKS: dict[str, type[Task]] = {task.name: task for task in (LanguageModeling,)}


def restore(run: Run, cell: str | None = None) -> Task:
    """The job of a run without its weights; see :func:`elman.tasks.saved.restore`."""
    return saved.restore(TASKS, run, cell)


def open_run(path: Path | str, device: str = "auto", cell: str | None = None) -> Task:
    """The job of the run in ``path``, with its weights, ready to evaluate or to generate.

    Args:
        path: the folder of the run.
        device: where to compute.
        cell: ``file.py:ClassName`` again, where the run was trained with a cell of one's own.

    Raises:
        ElmanError: the folder is not a run, is damaged, or needs ``cell``.
    """
    return saved.open_job(TASKS, Path(path), device, cell)


__all__ = ["TASKS", "load_weights", "open_run", "restore"]
