"""Classification: a whole sequence, of words or of numbers, to its class, or to a number."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from elman.data import kinds
from elman.data.batches import Batches, batched, in_order
from elman.data.labelled import Labelled
from elman.data.place import Place
from elman.data.records import Kind
from elman.data.shards import Shard
from elman.data.text import STDIN
from elman.data.words import SPLITS
from elman.errors import InputError
from elman.networks.classifier import Classifier, ClassifierSettings
from elman.networks.words import fitted
from elman.tasks.classify.inputs import Inputs, collected
from elman.tasks.classify.inputs import restored as restored_inputs
from elman.tasks.classify.targets import Classes, Quantity, Targets
from elman.tasks.classify.targets import restored as restored_targets
from elman.tasks.records import RecordTask
from elman.training.gradients import moved
from elman.training.measures import Sums, sums_of
from elman.training.settings import DataSettings, Settings, TrainingSettings, option
from elman.training.task import Loss, Verb

_logger = logging.getLogger("elman")


@dataclass
class ClassifySettings(TrainingSettings, ClassifierSettings, DataSettings):
    """The settings of a classifier."""

    text_column: str | None = option(None, "The column of texts in a table.", unset="text")
    label_column: str | None = option(None, "The column of labels.", unset="label")
    tokens: str = option(
        "word", "What a text is cut into; each Chinese character is a word.", choices=tuple(SPLITS)
    )
    longest: int = option(1000, "Steps of a sequence, which is cut there.", least=1)
    regression: bool = option(False, "Labels are numbers, to be foretold as such.")
    class_weights: str = option(
        "none", "balanced: all classes count alike in the loss, however rare.",
        choices=("none", "balanced"), only=("regression", False),
    )  # fmt: skip


class Example(NamedTuple):
    """A sequence as it was given, what the model reads of it, and what it should tell."""

    given: Any
    steps: Sequence[Any]
    target: float


class Sequences(NamedTuple):
    """B sequences side by side, and what is to be told of them.

    Attributes:
        inputs: what each of the models that answer together reads of them, and the lengths (B).
        targets: (B), ids of classes, or scores.
    """

    inputs: tuple[tuple[Any, Tensor], ...]
    targets: Tensor


@dataclass
class PredictSettings(Settings):
    """What a classifier that predicts can be told."""

    probabilities: bool = option(False, "Tell the probability of every class, too.")


def _predict(job: Classify, inputs: Iterable[Any], settings: Any) -> Iterator[dict[str, Any]]:
    """The class of each input, with its probability; or its number."""
    device = job.model.output.weight.device

    @torch.inference_mode()
    def answer(some: list[Example]) -> Iterator[dict[str, Any]]:
        scores = job.scores(job.model.eval(), moved(job.collate(some), device))
        return job.targets.answers(scores.cpu(), settings.probabilities)

    asked = (
        Labelled(given, None, Place("what was given", k, "input"))
        for k, given in enumerate(inputs, 1)
    )
    read = job.read(asked, labelled=False)
    return in_order(read, job.settings.batch, lambda example: len(example.steps), answer)


class Classify(RecordTask):
    """Tell the class of a sequence, of a text or of numbers; or a number."""

    name = "classify"
    unit = "sequences"
    example = "sst-2 --hidden 128 --epochs 5"
    headline = Classes.headline
    Settings = ClassifySettings
    measured_together = True
    verbs = (
        Verb(
            "predict",
            "Tell what a model was trained to tell of each input.",
            "RUN 'a film to remember'\nRUN --file reviews.tsv --output told.jsonl",
            _predict,
            "Texts",
            each=True,
            together=True,
            Settings=PredictSettings,
        ),
    )
    inputs: Inputs
    targets: Targets
    model: Classifier

    def __init__(self, settings: Any, data: Iterable[str] = (), kept: Path | None = None):
        super().__init__(settings, data, kept)
        self._examples: dict[str, list[Example]] = {}

    # -- data ---------------------------------------------------------------------------------

    @property
    def kind(self) -> Kind[Labelled]:
        """How files of labelled texts and sequences are read."""
        return kinds.labels(self.settings.text_column, self.settings.label_column)

    def collect(self) -> None:
        """Collect words, or how numbers are scaled, and labels; read all parts."""
        self.settings, vectors = fitted(self.settings)
        its, train = self.settings, self.parts["train"]
        given = [record.input for record in train]
        inputs = collected(given, its, vectors)
        held_out = [*self.parts["validation"], *self.parts["test"]]
        targets: Targets = (
            Quantity.collect(train)
            if its.regression
            else Classes.collect(train, its.class_weights == "balanced", held_out)
        )
        self._know(inputs, targets)
        for part in ("train", "validation", "test"):
            self.examples(part)

    def _know(self, inputs: Inputs, targets: Targets) -> None:
        self.inputs, self.targets, self.headline = inputs, targets, targets.headline

    def assets(self) -> dict[str, Any]:
        """Words and labels, or how numbers are scaled."""
        return super().assets() | self.inputs.assets() | self.targets.assets()

    @classmethod
    def restore(cls, settings: Any, assets: dict[str, Any]) -> Self:
        """The classifier of a run; its data is read when it is needed."""
        task = cls(settings, kept=assets.get(STDIN))
        task._know(restored_inputs(assets, settings), restored_targets(assets))
        return task

    def examples(self, part: str) -> list[Example]:
        """What is learned from or measured on in "train", "validation" or "test"."""
        if part not in self._examples:
            self._examples[part] = list(self.read(self.parts[part]))
        return self._examples[part]

    def read(self, records: Iterable[Labelled], labelled: bool = True) -> Iterator[Example]:
        """Records as the model reads them; how many are cut is told at the end.

        Args:
            records: of any part, or what is asked.
            labelled: whether they say what the model should tell.

        Raises:
            ElmanError: one has another kind of input, or of label, than what was learned from.
        """
        most, number, cut = self.settings.longest, 0, 0
        for record in records:
            try:
                steps = self.inputs.steps(record.input)
            except InputError as error:
                raise InputError(f"{record.place}: {error}") from error
            number, cut = number + 1, cut + (len(steps) > most)
            target = self.targets.of(record) if labelled else math.nan
            yield Example(record.input, steps[:most], target)
        if cut:
            _logger.warning(
                "%s of %s sequences have more steps than `longest`, %s: cut there.",
                f"{cut:,}", f"{number:,}", f"{most:,}",
            )  # fmt: skip

    def inputs_of(self, path: Path) -> list[Any]:
        """The inputs of a file, with labels or without."""
        return [self.kind.given(record) for record in self.kind.read([str(path)])]

    def batches(
        self,
        part: str,
        epoch: int | None = None,
        shard: Shard = Shard(),  # noqa: B008
    ) -> Batches:
        """Sequences of similar length together."""
        return self._batched(self.examples(part), self.order(epoch), shard)

    def batches_of(self, data: list[str], shard: Shard = Shard()) -> Batches:  # noqa: B008
        """Other labelled sequences."""
        return self._batched(list(self.read(self.kind.read(data, "test"))), None, shard)

    def _batched(self, examples: list[Example], order: int | None, shard: Shard) -> Batches:
        lengths = [len(example.steps) for example in examples]
        return batched(examples, self.settings.batch, self.collate, order, shard, lengths)

    def collate(self, examples: Sequence[Example]) -> Sequences:
        """Examples side by side, as this model reads them, and as its companions do."""
        read = [self.inputs.batch([example.steps for example in examples])]
        for other in self.companions:
            most = other.settings.longest
            steps = [other.inputs.steps(example.given)[:most] for example in examples]
            read.append(other.inputs.batch(steps))
        return Sequences(tuple(read), torch.tensor([example.target for example in examples]))

    def common(self) -> dict[str, Any]:
        """The labels."""
        return {"labels": self.targets}

    # -- learning and measuring ---------------------------------------------------------------

    def build(self) -> Classifier:
        """A network of the settings' cell and sizes."""
        its = self.settings
        return Classifier(self.inputs.reader(its), self.targets.outputs, its)

    def loss(self, model: nn.Module, batch: Sequences, carry: Any) -> Loss:
        """−log P of the class, or the squared error of the scaled number."""
        return self.targets.loss(model(*batch.inputs[0]), batch.targets)

    def tally(self, model: nn.Module, batch: Sequences, carry: Any) -> tuple[Sums, Any]:
        """The same of the average, where several models answer together."""
        return sums_of(self.targets.loss(self.scores(model, batch), batch.targets)), None

    def scores(self, model: nn.Module, batch: Sequences) -> Tensor:
        """The scores (B, C) of a batch: the model's, or as an average of it and its companions."""
        others = [other.model.eval() for other in self.companions]
        every = zip((model, *others), batch.inputs, strict=True)
        scores = [each(*inputs) for each, inputs in every]
        return self.targets.mixture(scores) if others else scores[0]

    def measures(self, sums: Sums) -> dict[str, float]:
        """Accuracy, macro F1 and calibration error; or root mean squared error and R²."""
        return self.targets.measures(sums)

    def tables(self, sums: Sums) -> dict[str, Any]:
        """Precision, recall and F1 of each class, and which was taken for which."""
        return self.targets.tables(sums)

    def draw_measures(self, measures: dict[str, Any], path: Path) -> None:
        """Draw which class was taken for which.

        Raises:
            InputError: numbers are told.
        """
        from elman.plots.confusion import draw_confusion

        if "confusion" not in measures:
            super().draw_measures(measures, path)
        draw_confusion(measures["confusion"], path, title=self.title())

    def describe_model(self) -> str:
        """Cell, sizes, what is read and told, and the engine that runs it."""
        recurrent = self.model.recurrent
        return (
            f"{self.settings.cell} {[c.hidden_size for c in recurrent.cells]}, "
            f"{self.parameters():,} parameters, {self.inputs.describe()} to "
            f"{self.targets.describe()}, {recurrent.engine} engine"
        )
