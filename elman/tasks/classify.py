"""Classification: a whole sequence, of words or of numbers, to its class, or to a number."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss

from elman.data.batches import Batches, batched, in_order, pad
from elman.data.labelled import (
    Labelled,
    name_of,
    number_of,
    read_array,
    read_folder,
    read_jsonl,
    read_lines_of_text,
    read_table,
)
from elman.data.lexicon import Lexicon
from elman.data.records import FOLDER, Kind, Parts
from elman.data.shards import Shard
from elman.data.text import STDIN, standard_input
from elman.data.words import END, split_words
from elman.errors import ElmanError, InputError
from elman.layers.dropout import between_layers
from elman.layers.pooling import KINDS, Pooling
from elman.networks.words import WordBatch, WordEncoder, Words, WordSettings, fitted
from elman.tasks.texts import absolute
from elman.training import confusion
from elman.training.network import NetworkSettings, make_recurrent
from elman.training.settings import DataSettings, Settings, TrainingSettings, option
from elman.training.task import Loss, Measure, Sums, Task, Verb

_logger = logging.getLogger("elman")

_SCALES = ("mean", "scale", "middle", "spread")

SPLITS: dict[str, Callable[[str], list[str]]] = {
    "word": lambda text: [word for word in split_words(text) if word != END],
    "whitespace": str.split,
    "character": lambda text: [c for c in text if not c.isspace()],
}
"""How a text becomes words, by the name of the setting."""


@dataclass
class ClassifySettings(TrainingSettings, NetworkSettings, DataSettings, WordSettings):
    """The settings of a classifier."""

    text_column: str | None = option(None, "The column of texts in a table.", unset="text")
    label_column: str | None = option(None, "The column of labels.", unset="label")
    tokens: str = option(
        "word", "What a text is cut into; each Chinese character is a word.", choices=tuple(SPLITS)
    )
    longest: int = option(1000, "Steps of a sequence, which is cut there.", least=1)
    bidirectional: bool = option(True, "Read in both directions.")
    pooling: str = option("max", "How outputs become one vector.", choices=KINDS)
    regression: bool = option(False, "Labels are numbers, to be foretold as such.")
    class_weights: str = option(
        "none", "balanced: every class counts alike.", choices=("none", "balanced")
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.regression and self.class_weights != "none":
            raise InputError(
                "`class_weights` are for classes, not for `regression`: leave one out."
            )


class Sequences(NamedTuple):
    """B sequences side by side, and what is to be told of them.

    Attributes:
        inputs: words, or numbers (T, B, F).
        lengths: (B).
        targets: (B), classes or numbers.
    """

    inputs: WordBatch | Tensor
    lengths: Tensor
    targets: Tensor


class Numbers(nn.Module):
    """x_t as it is but for mean 0 and variance 1, by what was learned from."""

    def __init__(self, mean: Tensor, scale: Tensor):
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("scale", scale)
        self.output_size = len(mean)

    def forward(self, x: Tensor) -> Tensor:
        """(T, B, F) to the same."""
        return (x.to(self.mean) - self.mean) / self.scale


class Classifier(nn.Module):
    """softmax(V pool(h_1 … h_T) + b), h the outputs of a recurrent network.

    Args:
        reader: from what a batch holds to inputs (T, B, ``output_size``).
        outputs: classes, or 1 for a number.
        settings: of the network.
    """

    def __init__(self, reader: nn.Module, outputs: int, settings: ClassifySettings):
        super().__init__()
        self.reader, self.dropout = reader, settings.dropout
        width: int = reader.output_size  # type: ignore[assignment]
        self.recurrent = make_recurrent(settings, width, settings.bidirectional)
        size = self.recurrent.output_size
        self.pooling = Pooling(settings.pooling, size, bidirectional=settings.bidirectional)
        self.output = nn.Linear(size, outputs)

    def forward(self, inputs: WordBatch | Tensor, lengths: Tensor) -> Tensor:
        """A batch of sequences to scores (B, C)."""
        y, _ = self.recurrent(self.reader(inputs), lengths=lengths)
        pooled = self.pooling(y, lengths)
        return self.output(between_layers(pooled, self.dropout, False, self.training))


@dataclass
class PredictSettings(Settings):
    """What a classifier that predicts can be told."""

    probabilities: bool = option(False, "Tell the probability of every class, too.")


def _predict(task: Classify, inputs: Iterable[Any], settings: Any) -> Iterator[dict[str, Any]]:
    """The class of each input, with its probability; or its number."""
    every = [task, *task.companions]
    if any(other.labels != task.labels for other in task.companions):
        raise InputError("runs that answer together must know the same labels: name others.")

    def answer(some: list[Any]) -> Iterator[dict[str, Any]]:
        found = torch.stack([each.foretold(some) for each in every]).mean(0)
        if task.labels is None:
            yield from ({"number": number} for number in found.squeeze(-1).tolist())
            return
        for shares in found:
            best = int(shares.argmax())
            said = {"label": task.labels.names[best], "confidence": float(shares[best])}
            if settings.probabilities:
                said["probabilities"] = dict(zip(task.labels, shares.tolist(), strict=True))
            yield said

    return in_order(map(task.steps_of, inputs), task.settings.batch, len, answer)


class Classify(Task):
    """Tell the class of a sequence, of a text or of numbers; or a number."""

    name = "classify"
    unit = "sequences"
    example = "sst-2 --hidden 128 --epochs 5"
    headline = Measure("accuracy", higher=True)
    Settings = ClassifySettings
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
    model: Classifier

    def __init__(
        self,
        settings: ClassifySettings,
        data: Sequence[str] = (),
        labels: Lexicon | None = None,
        words: Words | None = None,
        scaling: dict[str, Tensor] | None = None,
        kept: Path | None = None,
    ):
        super().__init__(settings, data)
        self.labels, self.words, self.scaling, self.kept = labels, words, scaling or {}, kept
        self._vectors: Any = None
        self._parts: Parts[Labelled] | None = None
        if settings.regression:
            self.headline = Measure("rmse")

    # -- data ---------------------------------------------------------------------------------

    @classmethod
    def prepare(cls, data: list[str], settings: Any) -> Self:
        """Read the sequences, and collect their words and labels.

        Raises:
            ElmanError: they cannot be read, or some are texts and others numbers.
        """
        if not data:
            raise InputError(
                "no data was given: name a file of labelled sequences (.tsv, .csv, .jsonl, .npz), "
                "a folder with one of texts for each class, or a corpus such as sst-2."
            )
        settings, vectors = fitted(settings)
        task = cls(settings, absolute(data))
        task._vectors = vectors
        train = task.parts["train"]
        if isinstance(train[0].input, str):
            texts = (task._whole(r.input) for r in train if isinstance(r.input, str))
            task.words = Words.collect(texts, settings, vectors)
        else:
            every = torch.from_numpy(np.concatenate([record.input for record in train]))
            task.scaling = {"mean": every.mean(0), "scale": every.std(0).clamp(min=1e-6)}
        if settings.regression:
            numbers = torch.tensor([number_of(record) for record in train])
            spread = numbers.std(correction=0).clamp(min=1e-6)
            task.scaling |= {"middle": numbers.mean(), "spread": spread}
        else:
            task.labels = Lexicon(sorted({name_of(record) for record in train}))
            if len(task.labels) < 2:
                raise ElmanError(
                    f"all sequences are of one class, {task.labels.names[0]}: give some of others."
                )
        for part in ("train", "validation", "test"):
            task._check(part)
        return task

    def _check(self, part: str) -> None:
        """Refuse records that do not fit those that were learned from, and tell what is cut."""
        cut = 0
        for record in self.parts[part]:
            if isinstance(record.input, str) != (self.words is not None):
                a, b = ("numbers", "texts") if self.words else ("texts", "numbers")
                raise ElmanError(f"{record.place}: received {a}, expected {b} as before.")
            if self.words is None and record.input.shape[1] != len(self.scaling["mean"]):
                raise ElmanError(
                    f"{record.place}: a step has {record.input.shape[1]} numbers, expected "
                    f"{len(self.scaling['mean'])} as before."
                )
            self._target(record)
            cut += len(self._whole(record.input)) > self.settings.longest
        if cut:
            _logger.warning(
                "%s of %s sequences (%s) are longer than `longest`, %s: cut there.",
                f"{cut:,}", f"{len(self.parts[part]):,}", part, f"{self.settings.longest:,}",
            )  # fmt: skip

    @classmethod
    def restore(cls, settings: Any, assets: dict[str, Any]) -> Self:
        """The classifier of a run."""
        labels, words = assets.get("labels"), assets.get("words")
        return cls(
            settings,
            labels=None if labels is None else Lexicon.from_json(labels),
            words=None if words is None else Words.from_json(words),
            scaling={name: value for name, value in assets.items() if name in _SCALES},
            kept=assets.get(STDIN),
        )

    def assets(self) -> dict[str, Any]:
        """Labels, words, and how numbers are scaled."""
        its = self.settings
        named = STDIN in (*self.data, *its.validation_data, *its.test_data)
        return {
            **self.scaling,
            **({} if self.labels is None else {"labels": self.labels.to_json()}),
            **({} if self.words is None else {"words": self.words.to_json()}),
            **({STDIN: standard_input()} if named else {}),
        }

    @property
    def kind(self) -> Kind[Labelled]:
        """How files are read."""
        its = self.settings
        table, jsonl = (
            partial(read, text_column=its.text_column, label_column=its.label_column)
            for read in (read_table, read_jsonl)
        )
        readers = {".tsv": table, ".csv": table, ".jsonl": jsonl, FOLDER: read_folder}
        readers |= {".npz": read_array, ".npy": read_array, ".txt": read_lines_of_text}
        return Kind("labels", "labelled sequences", readers)

    @property
    def parts(self) -> Parts[Labelled]:
        """The sequences, by part."""
        if self._parts is None:
            self._parts = Parts(self.kind, self.data, self.settings, self.kept)
        return self._parts

    def fingerprints(self) -> dict[str, int]:
        """A checksum of every file."""
        return self.parts.fingerprints()

    def inputs_of(self, path: Path) -> list[Any]:
        """The inputs of a file, with labels or without."""
        return [record.input for record in self.kind.read([str(path)], "test")]

    def _whole(self, given: Any) -> Sequence[Any]:
        return SPLITS[self.settings.tokens](given) if isinstance(given, str) else given

    def steps_of(self, given: Any) -> Any:
        """The words of a text, or the numbers of a sequence (T, F), as far as they are read.

        Raises:
            InputError: it is not what this model reads.
        """
        if self.words is None and (isinstance(given, str) or np.ndim(given) != 2):
            raise InputError(
                "this model reads sequences of numbers (T, F): name a file of them with `file`, or "
                "give arrays."
            )
        if self.words is not None and not isinstance(given, str):
            raise InputError(f"this model reads texts, received {type(given).__name__}.")
        return self._whole(given)[: self.settings.longest]

    def _target(self, record: Labelled) -> float:
        if self.labels is None:
            return number_of(record)
        name = name_of(record)
        if name not in self.labels:
            raise ElmanError(
                f"{record.place}: the label {name!r} is not among those that were learned from: "
                f"{', '.join(self.labels.names[:20])}."
            )
        return self.labels.ids([name])[0]

    # -- the contract -------------------------------------------------------------------------

    def build(self) -> Classifier:
        """A network of the settings' cell and sizes."""
        if self.words is None:
            reader: nn.Module = Numbers(self.scaling["mean"], self.scaling["scale"])
        else:
            reader = WordEncoder(self.words, self.settings, self._vectors)
        self.weights = None
        if self.settings.class_weights == "balanced" and self.labels is not None and self.data:
            targets = [int(self._target(record)) for record in self.parts["train"]]
            self.weights = confusion.balanced(
                np.bincount(targets, minlength=len(self.labels)).tolist()
            )
        return Classifier(reader, 1 if self.labels is None else len(self.labels), self.settings)

    def batches(
        self,
        part: str,
        epoch: int | None = None,
        shard: Shard = Shard(),  # noqa: B008
    ) -> Batches:
        """Sequences of similar length together."""
        order = None if epoch is None else self.settings.seed * 1_000_003 + epoch
        return self._batched(self.parts[part], order, shard)

    def batches_of(self, data: list[str], shard: Shard = Shard()) -> Batches:  # noqa: B008
        """Other labelled sequences."""
        return self._batched(self.kind.read(data, "test"), None, shard)

    def _batched(self, records: list[Labelled], order: int | None, shard: Shard) -> Batches:
        steps = [self.steps_of(record.input) for record in records]
        targets = torch.tensor([self._target(record) for record in records])

        def collate(some: list[int]) -> Sequences:
            return Sequences(*self._side_by_side([steps[k] for k in some]), targets[some])

        return batched(
            range(len(records)), self.settings.batch, collate, order, shard, list(map(len, steps))
        )

    def _side_by_side(self, steps: list[Any]) -> tuple[WordBatch | Tensor, Tensor]:
        if self.words is None:
            return pad(steps)
        batch = self.words.batch(steps)
        return batch, batch.lengths

    def loss(self, model: nn.Module, batch: Sequences, carry: Any) -> Loss:
        """−log P of the class, or the squared error of the scaled number."""
        scores = model(batch.inputs, batch.lengths)
        count = len(batch.targets)
        if self.labels is None:
            middle, spread = self.scaling["middle"], self.scaling["spread"]
            wanted = ((batch.targets - middle) / spread).to(scores)
            value = mse_loss(scores.squeeze(-1), wanted)
            return Loss(value, count, sums={"squares": value.detach() * count * spread**2})
        weights = None if self.weights is None else self.weights.to(scores)
        value = cross_entropy(scores, batch.targets, weights, reduction="sum") / count
        return Loss(
            value,
            count,
            sums=confusion.confused(batch.targets, scores.argmax(-1), scores.shape[-1]),
        )

    def measures(self, sums: Sums) -> dict[str, float]:
        """Accuracy and macro F1, or the root of the mean squared error."""
        if self.labels is None:
            return {"rmse": (sums["squares"] / sums["count"]) ** 0.5}
        return confusion.rates(sums, len(self.labels))

    def tables(self, sums: Sums) -> dict[str, Any]:
        """Precision, recall and F1 of each class, and which was taken for which."""
        return {} if self.labels is None else confusion.tables(sums, self.labels.names)

    def draw_measures(self, measures: dict[str, Any], path: Path) -> None:
        """The confusion matrix."""
        from elman.plots.confusion import draw_confusion

        if self.labels is None:
            super().draw_measures(measures, path)
        draw_confusion(measures["confusion"], path, title=self.title())

    @torch.no_grad()
    def foretold(self, steps: list[Any]) -> Tensor:
        """The probabilities (B, C) of the classes of B inputs, or their numbers (B, 1)."""
        device = self.model.output.weight.device
        inputs, lengths = self._side_by_side(steps)
        given = (
            inputs.to(device)
            if isinstance(inputs, Tensor)
            else WordBatch(*(each.to(device) for each in inputs))
        )
        scores = self.model(given, lengths).cpu()
        if self.labels is not None:
            return scores.softmax(-1)
        return scores * self.scaling["spread"] + self.scaling["middle"]

    def describe_model(self) -> str:
        """Cell, sizes, and what is told apart."""
        what = "a number" if self.labels is None else f"{len(self.labels)} classes"
        read = "numbers" if self.words is None else f"{len(self.words.words):,} words"
        recurrent = self.model.recurrent
        return (
            f"{self.settings.cell} {[c.hidden_size for c in recurrent.cells]}, "
            f"{self.parameters():,} parameters, {read} to {what}, {recurrent.engine} engine"
        )
