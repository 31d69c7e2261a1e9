"""What jobs share whose data is records: reading, parts, standard input, order."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from elman.data.records import ANY, FOLDER, Kind, Parts
from elman.data.text import STDIN, standard_input
from elman.errors import InputError
from elman.tasks.texts import absolute
from elman.training.task import Task


class RecordTask(Task):
    """A job that learns from records, such as labelled texts, by part.

    Its data are files, corpora and standard input; what a run learned from standard input, the run
    keeps.
    """

    def __init__(self, settings: Any, data: Iterable[str] = (), kept: Path | None = None):
        super().__init__(settings, data)
        self._kept = kept
        self._parts: Parts[Any] | None = None

    # -- what a job says of itself ------------------------------------------------------------

    @property
    @abstractmethod
    def kind(self) -> Kind[Any]:
        """How its data is read."""

    @abstractmethod
    def collect(self) -> None:
        """Collect what the model needs to know of the records, and fit the settings to them.

        Raises:
            ElmanError: the records cannot be used.
        """

    # -- what it has --------------------------------------------------------------------------

    @property
    def parts(self) -> Parts[Any]:
        """The records by part, read on first use."""
        if self._parts is None:
            self._parts = Parts(self.kind, self.data, self.settings, self._kept)
        return self._parts

    @classmethod
    def prepare(cls, data: list[str], settings: Any) -> Self:
        """Read the records and collect what the model needs to know of them.

        Raises:
            ElmanError: the data is missing or cannot be used.
        """
        parts = ("validation_data", "test_data")
        settings = replace(settings, **{part: absolute(getattr(settings, part)) for part in parts})
        task = cls(settings, absolute(data))
        if not data:
            endings = ", ".join(ending for ending in task.kind.readers if ending != FOLDER)
            raise InputError(
                f"no data was given, expected {task.kind.what}: name a file ({endings}), or a "
                "corpus that `elman data` lists."
            )
        task.collect()
        return task

    def assets(self) -> dict[str, Any]:
        """Standard input, if it is among the data."""
        named = (*self.data, *self.settings.validation_data, *self.settings.test_data)
        return {STDIN: self._kept or standard_input()} if STDIN in named else {}

    def fingerprints(self) -> dict[str, int]:
        """A checksum of every source."""
        return self.parts.fingerprints()

    def inputs_of(self, path: Path) -> list[Any]:
        """What a file asks: what its records give, where its format is one of records.

        Of .txt, and where the format is of no records, a text a line.
        """
        ending = self.kind.ending(path)
        if ending in self.kind.readers and ending not in (ANY, ".txt"):
            return [self.kind.given(record) for record in self.kind.read([str(path)])]
        return super().inputs_of(path)

    def order(self, epoch: int | None) -> int | None:
        """The seed of an epoch's order; None to measure."""
        return None if epoch is None else self.settings.seed * 1_000_003 + epoch
