"""Sequence to sequence on pairs that are made by rule, as many as one likes."""

from __future__ import annotations

import random
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from elman.data.batches import Batches
from elman.data.pairs import Pair
from elman.data.records import Place
from elman.data.shards import Shard
from elman.errors import ElmanError, InputError
from elman.tasks.sequence_to_sequence import SequenceToSequence, SequenceToSequenceSettings
from elman.training.settings import option
from elman.training.task import Measure, Task


@dataclass
class GeneratedSettings(SequenceToSequenceSettings):
    """What a job that makes its own pairs can be told."""

    tokens: str = option("character", "What texts are cut into.", choices=("character",))
    count: int = option(20_000, "Pairs to learn from.", least=1, below=10**8)
    held_out: int = option(
        1_000, "Pairs of each of the two parts that are judged by, none of them learned from.",
        least=1, below=10**7,
    )  # fmt: skip


class Generated(SequenceToSequence):
    """A job whose pairs are drawn, by ``seed``; what is held out is never learned from."""

    headline = Measure("exact", higher=True)
    Settings = GeneratedSettings

    @abstractmethod
    def draw(self, random: random.Random) -> tuple[str, str]:
        """A source and its target."""

    @classmethod
    def prepare(cls, data: list[str], settings: Any) -> Self:
        ...
