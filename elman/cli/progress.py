"""How far a training or a download has come: a live line on a terminal, lines elsewhere."""

from __future__ import annotations

import time
from functools import cached_property
from typing import TYPE_CHECKING, Self

from elman.cli.figures import clock, figure
from elman.data.download import Bar
from elman.training.report import Report

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Live

_BETWEEN_LINES = 10.0  # seconds, where there is no terminal to redraw on


class Progress(Report):
    """Shows the progress of a training on standard error.

    Args:
        epochs: how many there will be; None where there are none, as on an endless stream.
        unit: what the throughput counts.
    """

    def __init__(self, epochs: int | None, unit: str):
        self.epochs, self.unit = epochs, unit
        self._live: Live | None = None
        self._last = time.monotonic()

    @cached_property
    def console(self) -> Console:
        """Where it is shown; made by the process that shows it."""
        from rich.console import Console

        return Console(stderr=True, highlight=False)

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            from rich.progress import BarColumn, TextColumn
            from rich.progress import Progress as Live

            self._live = Live(
                BarColumn(24),
                TextColumn("{task.description}"),
                console=self.console,
                refresh_per_second=4,
            )
            self._bar = self._live.add_task("", total=1.0)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def update(
        self, epoch: int, done: float, figures: dict[str, float], rate: float, left: float
    ) -> None:
        """Show where the training stands."""
        measures = "  ".join(f"{name} {figure(value)}" for name, value in figures.items())
        where = "" if self.epochs is None else f"epoch {epoch}/{self.epochs}  "
        text = f"{where}{measures}  {rate:,.0f} {self.unit}/s  {clock(left)} left"
        if self._live:
            self._live.update(self._bar, completed=done, description=text)
        elif time.monotonic() - self._last > _BETWEEN_LINES or done >= 1:
            self._last = time.monotonic()
            self.console.print(text)

    def say(self, text: str) -> None:
        """Print a line that stays."""
        self.console.print(text, markup=False, soft_wrap=True)


class Downloading(Bar):
    """Shows a download on standard error: one bar for all its files."""

    def __enter__(self) -> Self:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Live

        columns = (TextColumn(f"downloading {self.name}"), BarColumn(), DownloadColumn())
        self._live = Live(*columns, TimeRemainingColumn(), console=Console(stderr=True))
        self._bar = self._live.add_task(self.name, total=self.size)
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, done: int) -> None:
        """Show how many bytes have come."""
        self._live.update(self._bar, completed=done)
