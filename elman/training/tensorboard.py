"""The measures of a run for TensorBoard, beside the metrics that are always there."""

from __future__ import annotations

import time
from typing import Any, Self

from lightning_fabric.loggers import TensorBoardLogger

from elman.errors import InputError
from elman.training.run import Run


class Board:
    """Writes every line of metrics to ``tensorboard/`` in a run's folder.

    Raises:
        InputError: TensorBoard is not installed.
    """

    def __init__(self, run: Run):
        self._run = run
        self._logger = self._open()  # what is missing shows before anything is trained

    def _open(self) -> TensorBoardLogger:
        try:
            # Files are named by the second, within which a training may be resumed.
            suffix = f".{time.time_ns()}"
            return TensorBoardLogger(
                self._run.path, name="tensorboard", version="", filename_suffix=suffix
            )
        except ModuleNotFoundError as error:
            raise InputError(
                "`tensorboard` needs the package of that name: pip install tensorboard, or leave "
                "it out, for metrics.jsonl and curves.png are always written."
            ) from error

    def add(self, line: dict[str, Any]) -> None:
        """Write the numbers of a line, by update."""
        numbers = {
            name: float(value) for name, value in line.items() if isinstance(value, int | float)
        }
        self._logger.log_metrics(numbers, step=line["update"])
        self._logger.save()

    def __enter__(self) -> Self:
        self._logger = self._open()  # a new run has moved to its place since
        return self

    def __exit__(self, *_: object) -> None:
        self._logger.finalize("success")
