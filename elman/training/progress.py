"""How far a training has come: a live line on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from elman.training.tables import figure

_BETWEEN_LINES = 10.0  # seconds, where there is no terminal to redraw on


class Report:
    """Shows the progress of a training on standard error.

    Args:
        epochs: how many there will be; None where there are none, as on an endless stream.
        unit: what the throughput counts.
        quiet: show nothing.
    """

    def __init__(self, epochs: int | None, unit: str, quiet: bool = False):
        self.epochs, self.unit, self.quiet = epochs, unit, quiet
        self.console = Console(stderr=True, highlight=False)
        self._live: Progress | None = None
        self._last = time.monotonic()

    def __enter__(self) -> Self:
        if self.console.is_terminal and not self.quiet:
            self._live = Progress(
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
        """Show where the training stands.

        Args:
            epoch: the present one, from 1.
            done: the share of the whole that is done.
            figures: measures by name.
            rate: units a second.
            left: seconds left.
        """
        if self.quiet:
            return
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
        if not self.quiet:
            self.console.print(text, markup=False, soft_wrap=True)


def clock(seconds: float) -> str:
    """Seconds as people write them: 1:05, 2:03:09."""
    whole = max(0, round(seconds))
    hours, rest = divmod(whole, 3600)
    minutes, secs = divmod(rest, 60)
    return f"{hours}:{minutes:02d}:{secs:02d}" if hours else f"{minutes}:{secs:02d}"
