"""What the training loop asks of a job."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar

from torch import Tensor, nn

from elman.data.sources import short_name
from elman.training.run import Run
from elman.training.settings import TrainingSettings


class Task(ABC):
    """A job: its data, its model, its loss and its measures.

    Attributes:
        name: what the command line calls it.
        Settings: its settings, those of training among them.
        unit: what its throughput counts, such as "tokens".
        headline: the measure that progress and the comparison of models show.
        model: the network that is trained.
        data: the names of its sources.
        settings: those that it was made with.
    """

    name: ClassVar[str]
    Settings: ClassVar[type[TrainingSettings]]
    unit: ClassVar[str]
    headline: ClassVar[str]
    model: nn.Module
    data: list[str]
    settings: Any

    @classmethod
    def summary(cls) -> str:
        """What the job is, in one line."""
        return (inspect.getdoc(cls) or cls.name).splitlines()[0]

    @classmethod
    @abstractmethod
    def prepare(cls, data: list[str], settings: Any) -> Task:
        """Read the data and make the model anew."""

    @classmethod
    @abstractmethod
    def restore(cls, run: Run) -> Task:
        """Make the job of a run again, with its vocabulary and without its weights."""

    @abstractmethod
    def save(self, run: Run) -> None:
        """Keep in the run what :meth:`restore` needs beside the settings."""

    @abstractmethod
    def windows(self, epoch: int) -> int:
        """How many updates that epoch has."""

    @abstractmethod
    def read(self, epoch: int, start: int) -> Iterator[Any]:
        """The windows of an epoch, from the one numbered ``start``."""

    @abstractmethod
    def loss(self, model: nn.Module, window: Any, state: Any) -> tuple[Tensor, Any]:
        """The mean loss of a window, and the state after it."""

    @abstractmethod
    def count(self, window: Any) -> int:
        """How many units the mean loss of a window is over."""

    @abstractmethod
    def validate(self) -> float | None:
        """The mean loss on held-out data, or None where nothing is held out."""

    def rehearse_evaluation(self) -> None:  # noqa: B027 # a job may do without
        """Do the first piece of :meth:`validate`, which may need more memory than an update.

        It is done before a training begins, on a copy of the model, and by default nothing.
        """

    @abstractmethod
    def evaluate(self, data: list[str] | None = None) -> dict[str, Any]:
        """The measures on ``data``, on the held-out data, or else on what was trained on."""

    def doubts(self, measures: dict[str, Any]) -> list[str]:
        """What those who read :meth:`evaluate`'s measures must know, a sentence each."""
        return []

    @abstractmethod
    def describe(self, loss: float) -> dict[str, float]:
        """The measures that follow from a mean loss, the headline among them."""

    def parameters(self) -> int:
        """How many numbers the model learns."""
        return sum(p.numel() for p in self.model.parameters())

    def describe_model(self) -> str:
        """One line about the model and what runs it."""
        return f"{self.name}, {self.parameters():,} parameters"

    def title(self) -> str:
        """The model and its data, for the head of a picture."""
        return f"{self.name}: {short_name(self.data)}"

    def sample(self) -> str | None:
        """Something the model makes, for people to look at while it learns."""
        return None
