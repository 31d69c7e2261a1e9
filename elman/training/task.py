"""What a job is: the contract between who writes one and the loop, the run, the command line."""

from __future__ import annotations

import inspect
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import nn

from elman.data.batches import Batches
from elman.data.shards import Shard
from elman.data.sources import short_name
from elman.data.utf8 import read_lines
from elman.errors import ElmanError, InputError, brief
from elman.learning import detach
from elman.training.gradients import Recurrence, moved
from elman.training.measures import Loss, Measure, Sums, add, sums_of
from elman.training.memory import if_it_fits
from elman.training.report import Report
from elman.training.settings import Settings, TrainingSettings
from elman.training.verbs import Signature, Verb

PARTS = {"given": "given", "test": "test", "validation": "held out", "train": "trained on"}
"""What the parts of a job's data are called where people read of them."""

NOTHING = Settings
"""The settings of what can be told nothing."""


class Task(ABC):
    """A job: its data, its model, its loss and its measures.

    Those who write one give the abstract methods, and of the others what is different; see
    docs/add-a-job.md. All else, from the run folder to several processes, comes with it.

    Attributes:
        name: what the command line calls it.
        unit: what its throughput counts, such as "tokens".
        example: a training to copy, the arguments behind ``elman train NAME``.
        headline: the measure that progress, the choice of the best weights and comparisons go by;
            a job whose measure follows from its data sets it when it is made.
        goal: the headline, of what is held out, at which training ends; None: it does not.
        Settings: its settings, those of training among them.
        Evaluation: what :meth:`evaluate` can be told of how to measure; by default nothing.
        endless: whether an epoch goes on from where the one before ended.
        by_shape: whether what its loss computes, its count among it, depends on nothing of a batch
            but its tensors and their shapes, so that it may be recorded and replayed.
        verbs: what its trained model does.
        measured_together: whether :meth:`evaluate` measures it and its companions as one.
        model: the network that is trained; it is there once :meth:`build` has made it.
        data: the names of its sources.
        settings: those that it was made with.
        known: the fingerprints of the data that its run was trained on, where it is from one.
    """

    name: ClassVar[str]
    unit: ClassVar[str]
    example: ClassVar[str] = ""
    headline: Measure
    goal: ClassVar[float | None] = None
    Settings: ClassVar[type[TrainingSettings]]
    Evaluation: ClassVar[type[Any]] = NOTHING
    endless: ClassVar[bool] = False
    by_shape: ClassVar[bool] = False
    verbs: ClassVar[tuple[Verb, ...]] = ()
    measured_together: ClassVar[bool] = False
    model: Any
    data: list[str]
    settings: Any
    known: Mapping[str, int] = {}
    _companions: Sequence[Any] = ()

    def __init__(self, settings: Any, data: Iterable[str] = ()):
        self.settings, self.data = settings, list(data)

    # -- what a job must give -----------------------------------------------------------------

    @abstractmethod
    def build(self) -> nn.Module:
        """A new model, its weights drawn from PyTorch's generator."""

    @abstractmethod
    def batches(self, part: str, epoch: int | None = None, shard: Shard = ...) -> Batches:
        """The batches of a part of the data: "train", "validation" or "test".

        Args:
            part: which.
            epoch: to learn from: in an order of its own for each epoch, every process its share of
                a batch. None: to measure, every unit exactly once, in order.
            shard: this process's share.

        Returns:
            none of them, :data:`elman.data.batches.NONE`, where there is no such part.
        """

    @abstractmethod
    def loss(self, model: nn.Module, batch: Any, carry: Any) -> Loss:
        """What the model makes of a batch, going on from ``carry``, None at the first of them."""

    # -- what it may give ---------------------------------------------------------------------

    @classmethod
    def prepare(cls, data: list[str], settings: Any) -> Self:
        """Read the data and collect what the model needs to know of it: vocabularies, labels.

        The settings may be fitted to the data; ``data`` and ``settings`` of what is returned are
        those that a run keeps.

        Raises:
            ElmanError: the data cannot be used; told before anything is written.
        """
        if data:
            raise InputError(f"{cls.name} makes its own data: leave out {data[0]!r}.")
        return cls(settings)

    def assets(self) -> dict[str, Any]:
        """What a run must keep for :meth:`restore`, by name; by default nothing.

        JSON, tensors, and :class:`~pathlib.Path` for files to be copied.
        """
        return {}

    @classmethod
    def restore(cls, settings: Any, assets: dict[str, Any]) -> Self:
        """The job again, from what :meth:`assets` gave; its data is read when it is needed."""
        return cls(settings)

    def batches_of(self, data: list[str], shard: Shard = Shard()) -> Batches:  # noqa: B008
        """The batches of other data, to measure on.

        Raises:
            InputError: this job is measured on its own data alone.
        """
        raise InputError(f"{self.name} is measured on its own data alone: leave out {data[0]!r}.")

    def tally(self, model: nn.Module, batch: Any, carry: Any) -> tuple[Sums, Any]:
        """The sums of a batch, from which :meth:`measures` come, and what the next goes on from.

        By default those of :meth:`loss`. A job that decodes to be measured, as by a beam, does so
        here.
        """
        loss = self.loss(model, batch, carry)
        return sums_of(loss), detach(loss.carry)

    def measures(self, sums: Sums) -> dict[str, float]:
        """The measures that follow from sums, beside the mean loss; those of training have fewer.

        Asked only where something was counted. By default none.
        """
        return {}

    def tables(self, sums: Sums) -> dict[str, Any]:
        """What :meth:`evaluate` tells beside the measures, from the same sums: rows by name.

        By default nothing.
        """
        return {}

    def fingerprints(self) -> dict[str, int]:
        """A number for each source, which changes with its content; by default none is known."""
        return {}

    def observations(self) -> dict[str, float | None]:
        """What else a line of metrics says of this moment, by name."""
        return {}

    def inputs_of(self, path: Path) -> list[Any]:
        """What a file asks the verbs that read; by default a text a line.

        Raises:
            ElmanError: the file cannot be read, or is empty.
        """
        lines = [line for _, line in read_lines(path, str(path))]
        if not lines:
            raise ElmanError(f"{path} is empty, expected a line for each input.")
        return lines

    def common(self) -> Mapping[str, Any]:
        """What runs must have in common to answer together, by name; by default nothing."""
        return {}

    def draw_measures(self, measures: dict[str, Any], path: Path) -> None:
        """Draw what :meth:`evaluate` found, such as a confusion matrix.

        Raises:
            InputError: this job has no such picture.
        """
        raise InputError(f"{self.name} has no picture of its measures: leave out `plot`.")

    def doubts(self, measures: dict[str, Any]) -> list[str]:
        """What those who read :meth:`evaluate`'s measures must know, a sentence each."""
        return []

    def sample(self) -> str | None:
        """Something the model makes, for people to look at while it learns."""
        return None

    def recurrence(self) -> Recurrence | None:
        """The model as learning rules see it; None where it is no such model."""
        return None

    def signature(self) -> Signature | None:
        """One step of the model, for what runs it outside of Python; None where there is none."""
        return None

    def describe_model(self) -> str:
        """One line about the model and what runs it."""
        return f"{self.name}, {self.parameters():,} parameters"

    def title(self) -> str:
        """The model and its data, for the head of a picture."""
        return f"{self.name}: {short_name(self.data)}" if self.data else self.name

    # -- what every job has -------------------------------------------------------------------

    @classmethod
    def create(cls, data: list[str], settings: Any) -> Self:
        """Prepare the data and make a new model, both by ``settings.seed``.

        Raises:
            ElmanError: the data cannot be used.
            InputError: a setting cannot be used, or the model is larger than the memory.
        """
        torch.manual_seed(settings.seed)
        task = cls.prepare(data, settings)
        task.model = if_it_fits(task.build)
        return task

    @classmethod
    def train(
        cls,
        data: list[str],
        *,
        run: Path | str | None = None,
        report: Report | None = None,
        **settings: Any,
    ) -> Self:
        """Train a model and return its job, with the best weights::

            model = LanguageModeling.train(["book.txt"], hidden=128, epochs=5)

        Args:
            data: as the command line takes it.
            run: the folder to make; by default the next free one in ``runs``.
            report: shows the progress; by default nothing does.
            settings: by name.

        Raises:
            InputError: a setting is unknown or cannot be used.
            ElmanError: the data cannot be used, or the folder is there already.
        """
        from elman.training.start import train

        place = None if run is None else Path(run)
        return train(cls, data, cls.Settings.of(settings), place, report).task  # type: ignore[return-value]

    @property
    def companions(self) -> Sequence[Any]:
        """Jobs of other runs whose models answer with this one's, as an average.

        Raises:
            InputError: when they are set, one is of another job, or differs in :meth:`common`.
        """
        return self._companions

    @companions.setter
    def companions(self, others: Sequence[Any]) -> None:
        mine = self.common()
        for other in others:
            if type(other) is not type(self):
                raise InputError(
                    f"runs that answer together are of one job, received {self.name} and "
                    f"{other.name}: name another run of {self.name}, or leave out `companions`."
                )
            theirs = other.common()
            if differ := [what for what in mine if mine[what] != theirs[what]]:
                raise InputError(
                    f"runs that answer together must have the same {' and '.join(differ)}: train "
                    "them on the same data, with another `seed`, or leave out `companions`."
                )
        self._companions = others

    def do(self, name: str, inputs: Iterable[Any] = (), **settings: Any) -> Any:
        """What one of the verbs makes: ``tagger.do("predict", ["the old man the boat"])``.

        Verbs are methods, too: ``tagger.predict(["the old man the boat"])``.

        Args:
            name: of the verb.
            inputs: what it reads.
            settings: by name.

        Returns:
            a list with a mapping for each input, or what it makes, piece by piece.

        Raises:
            InputError: there is no such verb, or a setting is unknown or cannot be used.
        """
        verb = self.verb(name)
        if isinstance(inputs, str):
            raise InputError(
                f"inputs must be a list of texts, received {brief(inputs)}: put it in [ ]."
            )
        self.model.eval()
        made = verb.run(self, inputs, verb.Settings.of(settings))
        return list(made) if verb.each else made

    def verb(self, name: str) -> Verb:
        """The verb of that name.

        Raises:
            InputError: there is none.
        """
        for verb in self.verbs:
            if verb.name == name:
                return verb
        can = ", ".join(verb.name for verb in self.verbs) or "nothing"
        raise InputError(f"{self.name} cannot {name}; it can: {can}.")

    def __getattr__(self, name: str) -> Any:
        """A verb as a method; asked only for what is nowhere else."""
        if any(verb.name == name for verb in type(self).verbs):
            return partial(self.do, name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    @classmethod
    def summary(cls) -> str:
        """What the job is, in one line."""
        return (inspect.getdoc(cls) or cls.name).splitlines()[0]

    @classmethod
    def folder(cls, data: list[str]) -> str:
        """What a run's folder is called where nobody names it."""
        return f"{cls.name}-{short_name(data)}" if data else cls.name

    def check_data(self) -> None:
        """Read the data of the run again, which must be the same.

        Raises:
            ElmanError: some of it has changed, or cannot be read.
        """
        now, known = self.fingerprints(), self.known
        changed = [name for name in {**known, **now} if now.get(name) != known.get(name)]
        if known and changed:
            raise ElmanError(
                f"{', '.join(changed)} is no longer what this run was trained on: "
                "restore it, or train anew."
            )

    def judged_part(self) -> str:
        """The part of the run's data that a model is judged by, which must be the same still.

        Raises:
            ElmanError: the data has changed, or there is none.
        """
        self.check_data()
        for name in ("test", "validation", "train"):
            if self.batches(name):
                return name
        raise ElmanError(f"there is nothing to measure {self.name} on: give data.")

    def parameters(self) -> int:
        """How many numbers the model learns."""
        return sum(p.numel() for p in self.model.parameters())

    @torch.no_grad()
    def measure(
        self,
        model: nn.Module,
        batches: Iterable[Any],
        together: Callable[[Sums], Sums] = lambda sums: sums,
    ) -> dict[str, float]:
        """The measures on batches, the mean loss first.

        Args:
            model: is left in evaluation mode.
            batches: from :meth:`batches`.
            together: adds the sums of several processes up.
        """
        model.eval()
        sums: Sums = {}
        carry, device = None, next(model.parameters(), torch.empty(0)).device
        for batch in batches:
            if batch is not None:
                tallied, carry = self.tally(model, moved(batch, device), carry)
                add(sums, tallied)
        return self.described(together(sums))

    def described(self, sums: Sums) -> dict[str, float]:
        """The mean loss, and the measures that follow from the same sums."""
        if not sums.get("count"):
            return {"loss": 0.0}
        return {"loss": sums["loss"] / sums["count"], **self.measures(sums)}

    def evaluate(self, data: list[str] | None = None, **how: Any) -> dict[str, Any]:
        """The measures on ``data``, or else on the test part, what is held out, or the whole.

        Args:
            data: as the command line takes it.
            how: settings of :attr:`Evaluation`, by name.

        Raises:
            InputError: a setting is unknown or cannot be used.
        """
        self.Evaluation.of(how)
        part = "given" if data else self.judged_part()
        batches = self.batches_of(list(data)) if data else self.batches(part)
        found: Sums = {}

        def keep(sums: Sums) -> Sums:
            found.update(sums)
            return sums

        started = time.perf_counter()
        measures = self.measure(self.model, batches, keep)
        seconds = time.perf_counter() - started
        if not found.get("count"):
            raise ElmanError(f"there is nothing to measure {self.name} on: give other data.")
        first = self.headline.of(measures)
        rate = round(found.get("count", 0) / max(seconds, 1e-9))
        context = {f"{self.unit}_per_second": rate, "part": PARTS[part]}
        return first | measures | context | self.tables(found)
