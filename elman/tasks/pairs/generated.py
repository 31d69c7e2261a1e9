"""Sequence to sequence on pairs that are made by rule, as many as one likes."""

from __future__ import annotations

import zlib
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from random import Random
from typing import Any, ClassVar, Self

from elman.data.kinds import PAIRS
from elman.data.pairs import Pair
from elman.data.records import Place, spread
from elman.errors import InputError
from elman.tasks.pairs.alignment import Drawing, drawn
from elman.tasks.pairs.sequence_to_sequence import SequenceToSequence, SequenceToSequenceSettings
from elman.tasks.texts import absolute
from elman.training.measures import Measure
from elman.training.settings import option
from elman.training.verbs import Verb

_TRIES = 100


@dataclass
class GeneratedSettings(SequenceToSequenceSettings):
    """What a job that makes its own pairs can be told."""

    tokens: str = option("character", "What texts are cut into.", choices=("character",))
    count: int = option(
        20_000, "Different pairs to make, the held out among them.", least=2, below=10**8
    )
    data_seed: int = option(0, "Fixes the pairs, whatever `seed` is.", least=0, below=2**63)


def solving(name: str, help: str, example: str, reads: str, result: str) -> Verb:
    """A verb that writes the likeliest target of each source.

    Args:
        name, help, example, reads: as :class:`Verb` has them.
        result: what targets are called in its answers.
    """

    def run(
        task: SequenceToSequence, inputs: Iterable[str], settings: Drawing
    ) -> Iterator[dict[str, Any]]:
        for (best,) in task.best(drawn(task, inputs, settings.plot)):
            yield {result: best}

    return Verb(name, help, example, run, reads, each=True, Settings=Drawing)


class Generated(SequenceToSequence):
    """A job whose pairs are drawn by ``data_seed``, no source twice.

    A share of them is held out; those that the model is judged by may come from files, too.
    """

    headline = Measure("exact", higher=True)
    Settings = GeneratedSettings
    kind = PAIRS
    settings: GeneratedSettings
    made: ClassVar[str]
    """What its pairs are called in messages, such as "sums"."""

    @abstractmethod
    def draw(self, random: Random) -> tuple[str, str]:
        """A source and its target."""

    @classmethod
    def prepare(cls, data: list[str], settings: Any) -> Self:
        """Make the pairs and collect their characters.

        Raises:
            InputError: there are not so many different ones.
        """
        if data:
            raise InputError(
                f"{cls.name} makes what it learns from: leave out {data[0]!r}, or name it as "
                "`test_data`."
            )
        parts = ("validation_data", "test_data")
        settings = replace(settings, **{part: absolute(getattr(settings, part)) for part in parts})
        task = cls(settings)
        task.collect()
        return task

    def records(self, part: str) -> Sequence[Any]:
        """Pairs that are made, or those of ``validation_data`` and ``test_data``."""
        its = self.settings
        files = {"validation": its.validation_data, "test": its.test_data}.get(part)
        if files:
            return self.kind.read(files, part, self._kept)
        train, held_out = spread(self._made, 0.0 if its.validation_data else its.validation)
        return {"train": train, "validation": held_out}.get(part, [])

    def fingerprints(self) -> dict[str, int]:
        """A checksum of what is made, and of every file."""
        text = "\n".join(f"{pair.source}\t{pair.target}" for pair in self._made)
        return {self.made: zlib.crc32(text.encode()), **super().fingerprints()}

    @cached_property
    def _made(self) -> list[Pair]:
        random, count = Random(self.settings.data_seed), self.settings.count
        found: dict[str, str] = {}
        for _ in range(_TRIES * count):
            source, target = self.draw(random)
            found[source] = target
            if len(found) == count:
                places = (Place(self.made, line) for line in range(1, count + 1))
                return [
                    Pair(*pair, place) for pair, place in zip(found.items(), places, strict=True)
                ]
        raise InputError(
            f"`count` is {count:,}, and {len(found):,} different {self.made} were found: lower it."
        )
