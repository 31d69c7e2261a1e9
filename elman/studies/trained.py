"""A study that trains: a job whose sequences are drawn, and a measure that must be reached."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from elman.data.batches import Batches
from elman.data.shards import Shard
from elman.errors import InputError
from elman.learning import OPTIMIZERS, SCHEDULES
from elman.studies import pictures
from elman.studies.batch import Batch
from elman.studies.networks import Reader, make_cell
from elman.training.settings import TrainingSettings, option
from elman.training.task import Task

# The checks and the final test have sequences of their own, the same for every seed.
_SEEDS = {"validation": 2**31 + 1, "test": 2**31 + 2}


@dataclass
class TrainedSettings(TrainingSettings):
    """The settings of a study that trains; its epochs are what lies between two checks."""

    cell: str = option("lstm", "A name that `elman cells` lists, or path/to/file.py:ClassName.")
    hidden: int = option(32, "Units.", least=1, below=2**31)
    length: int = option(100, "T, the length of a sequence in steps.", least=1, below=2**31)
    updates: int = option(5000, "At most, for each seed.", least=1, below=10**12)
    every: int = option(100, "Updates between two checks.", least=1, below=10**12)
    batch: int = option(32, "Sequences of an update, in each process.", least=1, below=2**31)
    memory: int = option(0, "Start gates as for memories of so many steps; 0: plainly.", least=0)
    forget_bias: float | None = option(
        None, "What the bias of the gate that keeps starts at.", above=-1e31, below=1e31
    )
    optimizer: str = option("adam", "How to update.", choices=tuple(OPTIMIZERS))
    learning_rate: float = option(5e-3, "The optimiser's step size.", above=0, below=1e31)
    schedule: str = option("cosine", "How the rate changes.", choices=SCHEDULES)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.epochs = -(-self.updates // self.every)

    @classmethod
    def with_defaults(cls, **defaults: Any) -> type[TrainedSettings]:
        """The same settings with other defaults."""
        changed: dict[str, Any] = {"__module__": cls.__module__, "__annotations__": {}}
        for declared in fields(cls):
            if declared.name in defaults:
                rules = dict(declared.metadata)
                changed["__annotations__"][declared.name] = declared.type
                changed[declared.name] = option(defaults[declared.name], rules.pop("help"), **rules)
        return dataclass(type(cls.__name__, (cls,), changed))


class _Draws:
    """The batches of a training, drawn one after the other, and by all processes alike."""

    def __init__(self, seed: int, draw: Callable[[torch.Generator], Batch]):
        self._seed, self._draw = seed, draw
        self._rewind()

    def _rewind(self) -> None:
        self._drawn, self._done = torch.Generator().manual_seed(self._seed), 0

    def __call__(self, update: int) -> Batch:
        """The batch of that update; to go back, or far ahead, all before it are drawn again."""
        if update < self._done:
            self._rewind()
        while True:
            batch = self._draw(self._drawn)
            self._done += 1
            if self._done > update:
                return batch


class TrainedStudy(Task):
    """A study for which networks are trained, one for each seed.

    A subclass gives :meth:`batch`, :meth:`loss`, :meth:`measures`, and what its headline must
    reach. Every ``every`` updates, on sequences held out for these checks, the network is measured:
    the best weights are kept, and training ends at the goal. What is reported is measured on yet
    others.

    Attributes:
        subject: one line.
        source: where it comes from.
        inputs, outputs: M and O.
        reach: what the headline must reach.
        goal: at what the training ends: some way past ``reach``, because checks scatter.
        shortest: the least length T.
        tested: how many sequences the checks and the test have.
        seeds: how many networks, by default.
        fixed: the settings that are the study's own matter.
    """

    subject: ClassVar[str]
    source: ClassVar[str]
    inputs: ClassVar[int]
    outputs: ClassVar[int]
    reach: float
    shortest: ClassVar[int] = 1
    tested: ClassVar[int] = 1000
    seeds: ClassVar[int] = 5
    fixed: ClassVar[frozenset[str]] = frozenset()
    unit = "sequences"
    Settings = TrainedSettings
    settings: TrainedSettings

    def __init__(self, settings: Any, data: Sequence[str] = ()):
        super().__init__(settings, data)
        if settings.length < self.shortest:
            raise InputError(
                f"{self.name} needs sequences of {self.shortest} steps at least, received "
                f"`length` {settings.length}."
            )
        self._draws: dict[int, _Draws] = {}  # by how many sequences a batch has

    @abstractmethod
    def batch(self, draw: torch.Generator, count: int, length: int) -> Batch:
        """``count`` sequences.

        Args:
            draw: where the random numbers come from.
            count: B.
            length: T.
        """

    def build(self) -> nn.Module:
        """A new network, such as a :class:`Reader`."""
        return Reader(self.make_cell(self.inputs, self.settings.hidden), self.outputs)

    def make_cell(self, inputs: int, hidden: int) -> Any:
        """A new cell by the settings; see :func:`elman.studies.networks.make_cell`."""
        its = self.settings
        return make_cell(its.cell, inputs, hidden, its.memory, its.forget_bias)

    # -- what it learns from, and what it is measured on --------------------------------------

    def batches(self, part: str, epoch: int | None = None, shard: Shard = Shard()) -> Batches:  # noqa: B008
        """To learn from, batches drawn by ``settings.seed``; those held out are always the same."""
        if part == "train":
            return self._learned(epoch or 0, shard)
        held_out = self.held_out(part)

        def read(done: int) -> Iterator[Batch | None]:
            for make in held_out[done:]:
                whole = make()
                own = shard.rows(len(whole))
                yield whole.rows(own) if own.start < own.stop else None

        return Batches(len(held_out), read)

    def held_out(self, part: str) -> Sequence[Callable[[], Batch]]:
        """What makes each batch of "validation" or "test"; by default there is one."""
        draw, length = torch.Generator(), self.length(part)
        return [lambda: self.batch(draw.manual_seed(_SEEDS[part]), self.tested, length)]

    def length(self, part: str) -> int:
        """T of the sequences of that part."""
        return self.settings.length

    def _learned(self, epoch: int, shard: Shard) -> Batches:
        its = self.settings
        first, together = epoch * its.every, its.batch * shard.world
        left = its.updates - first  # not more than 0 where a training that is done is opened again
        count = min(its.every, left) if left > 0 else its.every
        if together not in self._draws:
            draw = partial(self.batch, count=together, length=its.length)
            self._draws[together] = _Draws(its.seed, draw)
        draws = self._draws[together]
        return Batches(
            count,
            lambda done: (draws(first + k).rows(shard.rows(together)) for k in range(done, count)),
        )

    # -- what is found ------------------------------------------------------------------------

    @classmethod
    def variants(cls, settings: Any, seeds: Sequence[int]) -> dict[str, Any]:
        """The settings of each training, by the name of its folder; here one for each seed."""
        return {f"seed-{seed}": replace(settings, seed=seed) for seed in seeds}

    def row(self, measures: Mapping[str, float], training: Mapping[str, Any]) -> dict[str, Any]:
        """A trained network's row of the table.

        Args:
            measures: on the test part.
            training: ``updates``, ``seconds`` and ``cpu``, the processor's seconds.
        """
        figure = measures[self.headline.name]
        row = {"seed": self.settings.seed, **training, self.headline.name: figure}
        reached = self.headline.cost(measures) <= self.headline.cost(
            {self.headline.name: self.reach}
        )
        return {**row, "reached": reached}

    @classmethod
    def baselines(cls, studies: Sequence[Any]) -> list[dict[str, Any]]:
        """The rows of what the trained networks are compared with; here of nothing."""
        return []

    @classmethod
    def draw(cls, studies: Sequence[Any], found: Mapping[str, Any], path: Path) -> None:
        """Draw what was found, here the headline by update, a line for each network.

        Args:
            studies: each with its trained model.
            found: ``rows``, ``curves``, …: what the study's JSON file holds.
            path: of the picture.
        """
        pictures.draw_learning(found, cls.headline, studies[0].title(), path)

    def title(self) -> str:
        """The network and the task, for the head of a picture."""
        return f"{self.name}: {self.settings.cell}, {self.widths()}, T = {self.settings.length}"

    def widths(self) -> str:
        """How large the network is."""
        return f"{self.settings.hidden} units"
