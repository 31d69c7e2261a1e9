"""Where a training tells how far it has come: nobody hears, unless the caller says who."""

from __future__ import annotations

from typing import Self


class Report:
    """Hears of the progress of a training and says nothing; what shows it derives from this.

    The command line's is :class:`elman.cli.progress.Progress`.
    """

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(
        self, epoch: int, done: float, figures: dict[str, float], rate: float, left: float
    ) -> None:
        """Hear where the training stands.

        Args:
            epoch: the present one, from 1.
            done: the share of the whole that is done.
            figures: measures by name.
            rate: units a second.
            left: seconds left.
        """

    def say(self, text: str) -> None:
        """Hear a line that is worth keeping."""
