"""What jobs share that read sentences and tag their words."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from elman.data.batches import Batches, batched, pad
from elman.data.lexicon import Lexicon
from elman.data.shards import Shard
from elman.data.text import STDIN
from elman.data.vectors import Vectors
from elman.decoding import spans
from elman.errors import ElmanError, brief
from elman.networks.tagger import TaggerBatch
from elman.networks.words import SPECIAL, Words, fitted
from elman.tasks.records import RecordTask
from elman.training.task import Loss


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
        features = content["features"]
        if not isinstance(features, list):
            raise ElmanError(f"the features are {brief(features)}, expected a list of lists.")
        return cls(
            Words.from_json(content["words"]),
            tuple(Lexicon.from_json(each) for each in features),
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


class SentenceTask(RecordTask):
    """A job whose model tags the words of sentences; those who write one say what is read of these.

    What :meth:`as_example` makes of a record has ``tokens``, what the network reads step by step,
    ``tags``, one for each or none, ``features``, columns of one value for each, and ``words``, the
    word that each token stands in.

    Attributes:
        names: what the model knows by name.
    """

    unit = "tokens"
    names: Names

    def __init__(self, settings: Any, data: Iterable[str] = (), kept: Any = None):
        super().__init__(settings, data, kept)
        self._vectors: Vectors | None = None
        self._examples: dict[str, list[Any]] = {}

    # -- what a job says of itself ------------------------------------------------------------

    @abstractmethod
    def as_example(self, record: Any) -> Any:
        """What the network reads of a record of the data."""

    # -- data ---------------------------------------------------------------------------------

    def examples(self, part: str) -> list[Any]:
        """What is learned from or measured on in "train", "validation" or "test"."""
        if part not in self._examples:
            self._examples[part] = [self.as_example(record) for record in self.parts[part]]
        return self._examples[part]

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
        self.know(
            Names(
                Words.collect((each.tokens for each in train), its, self._vectors),
                tuple(features),
                Lexicon.count(chain.from_iterable(each.tags for each in every)),
                Lexicon.count(chain.from_iterable(each.words for each in train)),
            )
        )
        if its.output is None:
            self.settings = replace(its, output=self.usual_output())

    def usual_output(self) -> str:
        """What decides on tags where that is not chosen: crf where they write spans, or softmax."""
        return "softmax" if spans.guess(self.names.tags) is None else "crf"

    def know(self, names: Names) -> None:
        """Take over what the model knows by name."""
        self.names = names

    def assets(self) -> dict[str, Any]:
        """Words, characters, features and tags, and standard input if it is among the data."""
        return {**super().assets(), **self.names.to_json()}

    @classmethod
    def restore(cls, settings: Any, assets: dict[str, Any]) -> Self:
        """The job of an earlier run; its data is read when it is needed."""
        task = cls(settings, kept=assets.get(STDIN))
        task.know(Names.from_json(assets))
        return task

    def batches(
        self,
        part: str,
        epoch: int | None = None,
        shard: Shard = Shard(),  # noqa: B008
    ) -> Batches:
        """Sentences of similar lengths side by side."""
        return self._batched(self.examples(part), self.order(epoch), shard)

    def batches_of(self, data: list[str], shard: Shard = Shard()) -> Batches:  # noqa: B008
        """Sentences of other data."""
        return self._batched(
            [self.as_example(each) for each in self.kind.read(data, "test")], None, shard
        )

    def _batched(self, examples: list[Any], order: int | None, shard: Shard) -> Batches:
        lengths = [len(example.tokens) for example in examples]
        return batched(examples, self.settings.batch, self.collate, order, shard, lengths)

    def collate(self, examples: Sequence[Any]) -> Sentences:
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

    # -- learning -----------------------------------------------------------------------------

    @staticmethod
    def tag_loss(model: Any, emissions: Tensor, batch: Any) -> Loss:
        """−log P of the tags, in nats for each token."""
        lengths, count = batch.input.words.lengths, int(batch.input.words.lengths.sum())
        total = model.loss(emissions, batch.input.tags, lengths)
        return Loss(total / max(1, count), count)

    def named(self, paths: Iterable[Sequence[int]]) -> list[list[str]]:
        """The tags of paths of ids."""
        names = self.names.tags.names
        return [[names[id] for id in path] for path in paths]

    def describe_model(self) -> str:
        """Cell, sizes, words, tags, and the engine that runs it."""
        recurrent, names = self.model.recurrent, self.names
        return (
            f"{self.settings.cell} {[c.hidden_size for c in recurrent.cells]}, "
            f"{self.parameters():,} parameters, {len(names.words.words):,} words, "
            f"{len(names.tags):,} tags, {self.settings.output}, {recurrent.engine} engine"
        )


def given_tags(batch: TaggerBatch) -> list[list[int]]:
    """The tags that the data has, ids for each sentence."""
    rows = zip(batch.tags.t().tolist(), batch.words.lengths.tolist(), strict=True)
    return [ids[:length] for ids, length in rows]
