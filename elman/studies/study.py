"""What a study is: it is carried out, printed as a table, and drawn."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from elman.training.report import Report
from elman.training.settings import Settings


@dataclass
class Outcome:
    """What a study has found.

    Attributes:
        rows: one for each seed, or whatever the study varies; the table.
        details: what the plot shows beyond the rows; goes into the JSON file.
    """

    rows: list[dict[str, Any]]
    details: dict[str, Any]


class Study(ABC):
    """One thing that recurrences can do: it is run, printed as a table, and drawn.

    Attributes:
        name: what the command line calls it.
        subject: one line.
        source: where it comes from.
        Settings: its settings.
    """

    name: ClassVar[str]
    subject: ClassVar[str]
    source: ClassVar[str]
    Settings: ClassVar[type[Settings]]

    def __init__(self, settings: Any):
        self.settings = settings

    @abstractmethod
    def run(self, report: Report) -> Outcome:
        """Carry it out.

        Args:
            report: what hears of the progress.
        """

    @abstractmethod
    def draw(self, outcome: Outcome, path: Path) -> None:
        """Draw what was found into the file ``path``."""
