"""Word vectors: learned from texts by foretelling words from their contexts, or these from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from elman.data.batches import NONE, Batches
from elman.data.contexts import Contexts, Sampling
from elman.data.shards import Shard
from elman.data.sources import read_sources, short_name
from elman.data.streams import Tokens, blocks_of, joined
from elman.data.text import STDIN
from elman.data.vectors import Vectors
from elman.data.vocabulary import Vocabulary
from elman.data.words import END, UNKNOWN
from elman.errors import ElmanError
from elman.tasks.embed.similarity import VERBS, draw_map, judge, nearest
from elman.tasks.embed.word_vectors import EmbedSettings, WordVectors
from elman.tasks.texts import Texts, build_vocabulary, prepared
from elman.training.task import Loss, Measure, Sums, Task

# Of the vocabulary, by rank: the words that a sample shows the neighbours of.
_SHOWN = (100, 200, 400, 800, 1600, 3200)
_SPECIAL = (UNKNOWN, END)


class Embedding(Task):
    """Learn vectors of words from one or more texts, by CBOW or skip-gram."""

    name = "embed"
    unit = "words"
    example = "brown --method skip-gram --epochs 20"
    headline = Measure("loss")
    Settings = EmbedSettings
    verbs = VERBS
    model: WordVectors

    def __init__(
        self,
        settings: EmbedSettings,
        vocabulary: Vocabulary,
        data: list[str],
        counts: Tensor | None = None,
        kept: Any = None,
    ):
        self.settings, self.vocabulary, self.data = settings, vocabulary, data
        self._counts, self._kept = counts, kept
        self._texts: Texts | None = None
        self._joined: dict[str, Tokens] = {}

    @classmethod
    def prepare(cls, data: list[str], settings: Any) -> Self:
        """Read the texts, collect their vocabulary and count its words.

        Raises:
            ElmanError: a text is missing, empty, not UTF-8, or has fewer than two different words
                that are frequent enough.
        """
        data, settings = prepared(data, settings)
        task = cls(settings, build_vocabulary(data, settings), data)
        known = int((task.counts > 0).sum())
        if known < 2:
            raise ElmanError(
                f"of the words that are learned from, {known} come at least `min_count` "
                f"{settings.min_count} times, expected 2: give more text, or lower `min_count`."
            )
        return task

    @classmethod
    def restore(cls, settings: Any, assets: dict[str, Any]) -> Self:
        """The job of an earlier run; its texts are read when they are needed."""
        vocabulary = Vocabulary.from_json(assets["vocabulary"])
        return cls(settings, vocabulary, [], assets["counts"], assets.get(STDIN))

    def assets(self) -> dict[str, Any]:
        """The vocabulary, how often each of its words is there, and standard input, if read."""
        kept = self.texts.standard_input()
        return {"vocabulary": self.vocabulary.to_json(), "counts": self.counts, **kept}

    def fingerprints(self) -> dict[str, int]:
        """A checksum of every text."""
        return self.texts.fingerprints()

    def build(self) -> WordVectors:
        """A model of the settings' method and width."""
        return WordVectors(len(self.vocabulary), self.settings)

    @property
    def texts(self) -> Texts:
        """What is learned from and judged by."""
        if self._texts is None:
            self._texts = Texts(self.data, self.settings, self.vocabulary, self._kept)
        return self._texts

    @property
    def counts(self) -> Tensor:
        """How often each word is there in what is learned from (V); special tokens count 0."""
        if self._counts is None:
            counts = np.zeros(len(self.vocabulary), np.int64)
            for ids in blocks_of(self._tokens("train")):
                counts += np.bincount(ids, minlength=len(counts))
            counts[[k for k, token in enumerate(self.vocabulary.tokens) if token in _SPECIAL]] = 0
            self._counts = torch.from_numpy(counts)
        return self._counts

    # -- learning and measuring ---------------------------------------------------------------

    def batches(
        self,
        part: str,
        epoch: int | None = None,
        shard: Shard = Shard(),  # noqa: B008
    ) -> Batches:
        """Words with their contexts and noise."""
        return self._batches(self._tokens(part), epoch, shard)

    def batches_of(self, data: list[str], shard: Shard = Shard()) -> Batches:  # noqa: B008
        """Words of other texts."""
        given = read_sources(data, self.vocabulary, self.settings.normalize)
        parts = [source.train for source in given]
        return self._batches(joined(parts, len(self.vocabulary)), None, shard)

    def _batches(self, tokens: Tokens, epoch: int | None, shard: Shard) -> Batches:
        its = self.settings
        line_end = self.vocabulary.tokens.index(END) if its.lines else None
        sampling = Sampling(
            self.counts.numpy(), its.window, its.negatives, its.subsample, line_end, its.seed
        )
        return sampling.batches(tokens, its.batch, epoch, shard) if len(tokens) else NONE

    def _tokens(self, part: str) -> Tokens:
        """A part of the texts, one after the other."""
        if part not in self._joined:
            parts = [tokens for _, tokens in self.texts.parts(part)]
            self._joined[part] = joined(parts, len(self.vocabulary))
        return self._joined[part]

    def loss(self, model: Any, batch: Contexts, carry: Any) -> Loss:
        """The loss of the predictions, in nats: the mean over words of their sum for each."""
        nats, predictions = model(batch)
        count = len(batch.words)
        return Loss(nats / count, count, sums={"predictions": predictions})

    def measures(self, sums: Sums) -> dict[str, float]:
        """The mean loss of a prediction; (1 + ``negatives``) ln 2 where nothing is known."""
        return {"loss": sums["loss"] / sums["predictions"]}

    def evaluate(self, data: list[str] | None = None, **how: Any) -> dict[str, Any]:
        """The loss, and how well the vectors agree with people, as gensim scores it.

        Args:
            data: texts to judge the model on; without it, what was held out, and with it the
                judgements of English words of :func:`elman.tasks.embed.similarity.judge`.
            how: as any job takes it.
        """
        figures = super().evaluate(data, **how)
        return figures if data else figures | judge(self.vectors())

    def draw_measures(self, measures: dict[str, Any], path: Path) -> None:
        """Draw a map of the most frequent words."""
        draw_map(self.vectors(), path, title=self.title())

    # -- the vectors --------------------------------------------------------------------------

    def vectors(self) -> Vectors:
        """The words that were learned, the most frequent first, and their vectors."""
        kept = self.counts.nonzero().flatten()
        words = [self.vocabulary.tokens[k] for k in kept.tolist()]
        matrix = self.model.embedding.weight.detach().cpu()[kept]
        return Vectors(short_name(self.data) or self.name, words, matrix.float().numpy())

    def sample(self) -> str:
        """Some words, and those whose vectors are nearest."""
        vectors = self.vectors()
        shown = [vectors.words[k] for k in _SHOWN if k < len(vectors.words)] or vectors.words[:1]
        found = {word: [near for near, _ in nearest(vectors, [word], 6)] for word in shown}
        return "\n".join(f"{word}: {', '.join(near)}" for word, near in found.items())

    # -- telling ------------------------------------------------------------------------------

    def describe_model(self) -> str:
        """Method, words and width."""
        its, words = self.settings, int((self.counts > 0).sum())
        return f"{its.method}, {words:,} words × {its.embedding}, {self.parameters():,} parameters"

    def title(self) -> str:
        """Method, width and texts."""
        its = self.settings
        return f"{its.method}, {its.embedding} numbers, on {short_name(self.data)}"
