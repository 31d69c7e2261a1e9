"""Several runs that answer as one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from elman.errors import InputError
from elman.tasks import open_run
from elman.training.task import Task


def join(
    job: Task, runs: Sequence[Path], able: bool, verb: str, device: str, cell: str | None
) -> None:
    """Let other runs answer with a job's; see :attr:`Task.companions`.

    Args:
        job: of the first run.
        runs: the folders of the others.
        able: whether the job can do this with others.
        verb: what they do together.
        device, cell: as for the first.

    Raises:
        InputError: the job cannot do it with others, or one of them is of another job.
    """
    if runs and not able:
        raise InputError(
            f"runs of {job.name} cannot {verb} together: leave out `companions`, and {verb} one."
        )
    job.companions = [open_run(path, device, cell) for path in runs]
