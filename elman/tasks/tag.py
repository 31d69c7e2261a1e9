"""Tagging: a label for each word of a sentence, or the words of one that is written without spaces."""

from __future__ import annotations

import logging
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from elman.data import kinds
from elman.data.batches import NONE, Batches, batched, pad
from elman.data.lexicon import Lexicon
from elman.data.records import Kind, Parts
from elman.data.segmentation import segmented, words as words_of
from elman.data.shards import Shard
from elman.data.tagged import Tagged
from elman.data.text import STDIN, standard_input
from elman.data.vectors import Vectors
from elman.data.words import END, split_words
from elman.decoding import spans
from elman.errors import InputError
from elman.layers.sequences import mask_of
from elman.networks.tagger import TaggerBatch, TaggerNetwork, TaggerSettings
from elman.networks.words import SPECIAL, Words, fitted
from elman.tasks.tag_scores import Sentence, Tags, judge
from elman.tasks.tag_verbs import PREDICT
from elman.tasks.texts import absolute
from elman.training.confusion import balanced
from elman.training.gradients import moved
from elman.training.measures import Sums, sums_of
from elman.training.settings import DataSettings, Settings, TrainingSettings, option
from elman.training.task import Loss, Measure, Task, Verb

_logger = logging.getLogger("elman")


@dataclass
class TagSettings(TrainingSettings, TaggerSettings, DataSettings):
    """The settings of a tagger."""

    tag_column: str | None = option(
        None, "The tag's column: a number, from the end with -1; in CoNLL-U a name, such as XPOS.",
        unset="the last, or UPOS",
    )  # fmt: skip
    feature_columns: list[str] = option(
        [], "A column that is read beside the word, such as 2; again for more."
    )
    segment: str = option(
        "none", "Learn where words begin and end in text without spaces; joint: and their tags.",
        choices=("none", "words", "joint"),
    )  # fmt: skip
    class_weights: str = option(
        "none", "balanced: all tags count alike in the loss of softmax, however rare.",
        choices=("none", "balanced"),
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.class_weights != "none" and self.output == "crf":
            raise InputError(
                "`class_weights` are for `output` softmax, received crf, which has a probability "
                "of whole sentences: leave out the one or the other."
            )
        if self.segment != "none" and self.feature_columns:
            raise InputError(
                "`feature_columns` are of words, which `segment` has yet to find: leave out the "
                "one or the other."
            )


class Names(NamedTuple):
    """What a tagger knows by name.

    Attributes:
        words: words and characters.
        features: the values of each feature.
        tags: the labels.
        seen: every word that it was trained on; others count as unknown.
    """

    words: Words
    features: tuple[Lexicon, ...]
    tags: Lexicon
    seen: Lexicon

    def to_json(self) -> dict[str, Any]:
        """Plain JSON content."""
        return {
            "words": self.words.to_json(),
            "features": [each.to_json() for each in self.features],
            "tags": self.tags.to_json(),
            "seen": self.seen.to_json(),
        }

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Self:
        """Restore what ``to_json`` returned.

        Raises:
            ElmanError: the content is damaged.
        """
        return cls(
            Words.from_json(content["words"]),
            tuple(Lexicon.from_json(each) for each in content["features"]),
            Lexicon.from_json(content["tags"]),
            Lexicon.from_json(content["seen"]),
        )


class Sentences(NamedTuple):
    """A batch of sentences.

    Attributes:
        input: what the network reads.
        unseen: (T, B) bool, words that were not trained on.
    """

    input: TaggerBatch
    unseen: Tensor


class Example(NamedTuple):
    """What a tagger reads of a sentence, step by step.

    Attributes:
        tokens: words, or characters of those that are to be found.
        tags: one for each token; none where they are to be told.
        features: columns of one value for each token.
        words: the word that each token stands in.
    """

    tokens: tuple[str, ...]
    tags: tuple[str, ...]
    features: tuple[tuple[str, ...], ...]
    words: tuple[str, ...]

    @classmethod
    def of(cls, sentence: Tagged, segment: str) -> Self:
        """Words as they are; or their characters, each with the one that follows it."""
        if segment == "none":
            return cls(sentence.tokens, sentence.tags, sentence.features, sentence.tokens)
        letters = segmented(sentence, segment == "joint", middle="I")
        pairs = tuple(map("".join, zip(letters.tokens, (*letters.tokens[1:], END), strict=True)))
        words = tuple(word for word in sentence.tokens for _ in word)
        return cls(letters.tokens, letters.tags, (pairs,), words)


class Tagger(Task):
    """Tag each word of a sentence, find spans, or find the words of text without spaces."""

    name = "tag"
    unit = "tokens"
    example = "ud-english-ewt --hidden 128 --characters conv --epochs 5"
    headline = Measure("accuracy", higher=True)
    Settings = TagSettings
    verbs = (PREDICT,)
    names: Names
    judge: Tags
    model: TaggerNetwork

    def __init__(self, settings: Any, data: Iterable[str] = (), kept: Any = None):
        super().__init__(settings, data)
        self._kept, self._vectors = kept, None
        self._parts: Parts[Tagged] | None = None
        self._examples: dict[str, list[Example]] = {}

    # -- data ---------------------------------------------------------------------------------

    @property
    def kind(self) -> Kind[Tagged]:
        """How files of tagged sentences are read."""
        return kinds.tags(self.settings.tag_column, self.settings.feature_columns)

    @property
    def parts(self) -> Parts[Tagged]:
        """The sentences of the data by part, read on first use."""
        if self._parts is None:
            self._parts = Parts(self.kind, self.data, self.settings, self._kept)
        return self._parts

    def examples(self, part: str) -> list[Example]:
        """What is learned from or measured on in "train", "validation" or "test"."""
        if part not in self._examples:
            self._examples[part] = [self.example(sentence) for sentence in self.parts[part]]
        return self._examples[part]

    def example(self, sentence: Tagged) -> Example:
        """What the network reads of a sentence."""
        return Example.of(sentence, self.settings.segment)

    @classmethod
    def prepare(cls, data: list[str], settings: Any) -> Self:
        """Read the sentences and collect words, characters, features and tags.

        Raises:
            ElmanError: the data is missing or damaged.
        """
        if not data:
            raise InputError(
                f"no {cls.name} data was given: name a file, or a corpus that `elman data` lists."
            )
        settings = replace(
            settings,
            validation_data=absolute(settings.validation_data),
            test_data=absolute(settings.test_data),
        )
        task = cls(settings, absolute(data))
        task.collect()
        return task

    def collect(self) -> None:
        """Collect what the model needs to know by name, and fit the settings to it."""
        self.settings, self._vectors = fitted(self.settings)
        train = self.examples("train")
        # Labels are a part of what is asked: those that only the held-out parts have are known.
        every = chain(train, self.examples("validation"), self.examples("test"))
        its = self.settings
        features = [
            Lexicon.count(chain.from_iterable(column), SPECIAL, min_count=its.min_count)
            for column in zip(*(each.features for each in train), strict=True)
        ]
        self._know(
            Names(
                Words.collect((each.tokens for each in train), its, self._vectors),
                tuple(features),
                Lexicon.count(chain.from_iterable(each.tags for each in every)),
                Lexicon.count(chain.from_iterable(each.words for each in train)),
            )
        )
        if its.output is None:
            alone = spans.guess(self.names.tags) is None
            self.settings = replace(its, output="softmax" if alone else "crf")

    def _know(self, names: Names) -> None:
        self.names = names
        self.judge = judge(names.tags.names, self.settings.segment != "none")
        self.headline = self.judge.headline

    def assets(self) -> dict[str, Any]:
        """Words, characters, features and tags, and standard input if it is among the data."""
        read = STDIN in (*self.data, *self.settings.validation_data, *self.settings.test_data)
        kept = {STDIN: standard_input()} if read else {}
        return {**self.names.to_json(), **kept}

    @classmethod
    def restore(cls, settings: Any, assets: dict[str, Any]) -> Self:
        """The job of an earlier run; its data is read when it is needed."""
        task = cls(settings, kept=assets.get(STDIN))
        task._know(Names.from_json(assets))
        return task

    def fingerprints(self) -> dict[str, int]:
        """A checksum of every source."""
        return self.parts.fingerprints()

    def batches(
        self,
        part: str,
        epoch: int | None = None,
        shard: Shard = Shard(),  # noqa: B008
    ) -> Batches:
        """Sentences of similar lengths side by side."""
        order = None if epoch is None else self.settings.seed * 1_000_003 + epoch
        return self._batched(self.examples(part), order, shard)

    def batches_of(self, data: list[str], shard: Shard = Shard()) -> Batches:  # noqa: B008
        """Sentences of other data."""
        return self._batched([self.example(each) for each in self.kind.read(data)], None, shard)

    def _batched(self, examples: list[Example], order: int | None, shard: Shard) -> Batches:
        lengths = [len(example.tokens) for example in examples]
        return batched(examples, self.settings.batch, self.collate, order, shard, lengths)

    def collate(self, examples: Sequence[Example]) -> Sentences:
        """Examples side by side, as the network reads them."""
        names = self.names
        columns = zip(*(each.features for each in examples), strict=True)
        features = tuple(
            pad([lexicon.ids(values) for values in column])[0]
            for lexicon, column in zip(names.features, columns, strict=True)
        )
        words = names.words.batch([each.tokens for each in examples])
        tags = torch.zeros_like(words.ids)
        unseen = torch.zeros_like(words.ids, dtype=torch.bool)
        for k, each in enumerate(examples):
            if each.tags:
                tags[: len(each.tags), k] = torch.tensor(names.tags.ids(each.tags))
            unseen[: len(each.words), k] = torch.tensor([w not in names.seen for w in each.words])
        return Sentences(TaggerBatch(words, features, tags), unseen)

    # -- learning and measuring ---------------------------------------------------------------

    def build(self) -> TaggerNetwork:
        """A network of the settings' cell and sizes."""
        names, weights = self.names, None
        if self.settings.class_weights == "balanced":
            weights = self._class_weights()
        sizes = [len(lexicon) for lexicon in names.features]
        return TaggerNetwork(
            names.words, sizes, names.tags.names, self.settings, self._vectors, weights
        )

    def _class_weights(self) -> Tensor:
        counts = Counter(chain.from_iterable(each.tags for each in self.examples("train")))
        return balanced([counts[tag] for tag in self.names.tags])

    def loss(self, model: Any, batch: Sentences, carry: Any) -> Loss:
        """−log P of the tags, in nats for each token."""
        return self._loss(model, model(batch.input), batch)

    @staticmethod
    def _loss(model: Any, emissions: Tensor, batch: Sentences) -> Loss:
        lengths, count = batch.input.words.lengths, int(batch.input.words.lengths.sum())
        total = model.loss(emissions, batch.input.tags, lengths)
        return Loss(total / max(1, count), count)

    def tally(self, model: Any, batch: Sentences, carry: Any) -> tuple[Sums, Any]:
        """The loss, and what the tags that are found are judged by."""
        emissions, lengths = model(batch.input), batch.input.words.lengths
        found = model.decode(emissions, lengths)
        rows = zip(batch.input.tags.t().tolist(), found, batch.unseen.t().tolist(), strict=True)
        sentences = [Sentence(a[: len(b)], b, c[: len(b)]) for a, b, c in rows]
        return sums_of(self._loss(model, emissions, batch)) | self.judge.sums(sentences), None

    def measures(self, sums: Sums) -> dict[str, float]:
        """Accuracy, also on unknown words; precision, recall and F1 of spans, or of labels."""
        return self.judge.measures(sums) if "unknown" in sums else {}

    def tables(self, sums: Sums) -> dict[str, Any]:
        """Precision, recall and F1 of each label; which label was taken for which."""
        return self.judge.tables(sums)

    def inputs_of(self, path: Path) -> list[Any]:
        """Sentences of columns or CoNLL-U, whose tags are passed over; of others, texts."""
        if path.suffix in self.kind.readers and path.suffix != ".txt":
            return self.kind.read([str(path)])
        return super().inputs_of(path)

    def draw_measures(self, measures: dict[str, Any], path: Path) -> None:
        """Draw which label was taken for which.

        Raises:
            InputError: the tags write spans.
        """
        from elman.plots.confusion import draw_confusion

        if "confusion" not in measures:
            super().draw_measures(measures, path)
        draw_confusion(measures["confusion"], path, title=self.title())

    def describe_model(self) -> str:
        """Cell, sizes, words, tags, and the engine that runs it."""
        recurrent, names = self.model.recurrent, self.names
        return (
            f"{self.settings.cell} {[c.hidden_size for c in recurrent.cells]}, "
            f"{self.parameters():,} parameters, {len(names.words.words):,} words, "
            f"{len(names.tags):,} tags, {self.settings.output}, {recurrent.engine} engine"
        )
