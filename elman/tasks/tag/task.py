"""Tagging: a label for each word of a sentence, or the words of text without spaces."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch

from elman.data import kinds
from elman.data.records import Kind
from elman.data.segmentation import segmented
from elman.data.tagged import Tagged
from elman.data.words import END
from elman.decoding import spans
from elman.errors import InputError
from elman.networks.tagger import TaggerNetwork, TaggerSettings
from elman.tasks.sentences import Names, Sentences, SentenceTask, given_tags
from elman.tasks.tag.scores import Sentence, Tags, judge
from elman.tasks.tag.verbs import PREDICT
from elman.training.confusion import balanced
from elman.training.measures import Sums, sums_of
from elman.training.settings import DataSettings, TrainingSettings, option
from elman.training.task import Loss, Measure

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
        return cls(letters.tokens, letters.tags if sentence.tags else (), (pairs,), words)


class Tagger(SentenceTask):
    """Tag each word of a sentence, find spans, or find the words of text without spaces."""

    name = "tag"
    example = "ud-english-ewt --characters conv --epochs 5"
    _rewritten = 0
    headline = Measure("accuracy", higher=True)
    Settings = TagSettings
    verbs = (PREDICT,)
    judge: Tags
    model: TaggerNetwork

    @property
    def kind(self) -> Kind[Tagged]:
        """How tagged sentences are read, with the columns of the settings."""
        return kinds.tags(self.settings.tag_column, self.settings.feature_columns)

    def as_example(self, record: Tagged) -> Example:
        """What the network reads of a sentence.

        Tags that their scheme does not allow, such as I-PER after O, are written as it would have
        the same spans, which are read as CoNLL's scores read them: so IOB1 becomes BIO.
        """
        example = Example.of(record, self.settings.segment)
        scheme = self._scheme
        if scheme is None or not spans.fits(example.tags, scheme):
            return example
        meant = spans.tags(spans.spans(example.tags, scheme), len(example.tags), scheme)
        if tuple(meant) == example.tags:
            return example
        self._rewritten += 1
        return example._replace(tags=tuple(meant))

    @cached_property
    def _scheme(self) -> str | None:
        """The scheme of the tags that are learned from; None where they write no spans."""
        if hasattr(self, "names"):
            return spans.guess(self.names.tags)
        if self.settings.segment != "none":
            return None
        return spans.guess(chain.from_iterable(record.tags for record in self.parts["train"]))

    def collect(self) -> None:
        """Collect what the model needs to know by name; say how many tags were written anew."""
        super().collect()
        if self._rewritten:
            _logger.warning(
                "%s sentences have tags that %s does not allow, such as I- at the beginning of a "
                "span: they are learned as the same spans in %s.",
                f"{self._rewritten:,}", self._scheme, self._scheme,
            )  # fmt: skip

    def usual_output(self) -> str:
        """What decides on tags where that is not chosen.

        Raises:
            InputError: it is crf, and classes are to be weighed.
        """
        output = super().usual_output()
        if output == "crf" and self.settings.class_weights != "none":
            raise InputError(
                "the tags write spans, of which crf takes care unless another `output` is chosen, "
                "and `class_weights` are for softmax: choose `output` softmax, or leave them out."
            )
        return output

    def know(self, names: Names) -> None:
        """Take over what the model knows by name; the tags tell what it is judged by."""
        super().know(names)
        self.judge = judge(names.tags.names, self.settings.segment != "none")
        self.headline = self.judge.headline

    def build(self) -> TaggerNetwork:
        """A network of the settings' cell and sizes."""
        names, weights = self.names, None
        if self.settings.class_weights == "balanced":
            # A run has them among its weights, and need not read its data to go on.
            weights = torch.ones(len(names.tags))
            if "train" in self._examples:
                tags = chain.from_iterable(each.tags for each in self.examples("train"))
                counts = Counter(tags)
                weights = balanced([counts[tag] for tag in names.tags])
        sizes = [len(lexicon) for lexicon in names.features]
        return TaggerNetwork(
            names.words, sizes, names.tags.names, self.settings, self._vectors, weights
        )

    def loss(self, model: Any, batch: Sentences, carry: Any) -> Loss:
        """−log P of the tags, in nats for each token."""
        return self.tag_loss(model, model(batch.input), batch)

    def tally(self, model: Any, batch: Sentences, carry: Any) -> tuple[Sums, Any]:
        """The loss, and what the tags that are found are judged by."""
        emissions = model(batch.input)
        rows = zip(
            given_tags(batch.input),
            model.decode(emissions, batch.input.words.lengths),
            batch.unseen.t().tolist(),
            strict=True,
        )
        sentences = [Sentence(given, found, new[: len(given)]) for given, found, new in rows]
        return sums_of(self.tag_loss(model, emissions, batch)) | self.judge.sums(sentences), None

    def measures(self, sums: Sums) -> dict[str, float]:
        """Accuracy, also on unknown words; precision, recall and F1 of spans, or of labels."""
        return self.judge.measures(sums) if "unknown" in sums else {}

    def tables(self, sums: Sums) -> dict[str, Any]:
        """Precision, recall and F1 of each label; which label was taken for which."""
        return self.judge.tables(sums)

    def common(self) -> dict[str, Any]:
        """The tags, and what is read."""
        its = self.settings
        read = {"`segment`": its.segment, "`feature_columns`": its.feature_columns}
        return {"tags": self.names.tags, **read}

    def draw_measures(self, measures: dict[str, Any], path: Path) -> None:
        """Draw which label was taken for which.

        Raises:
            InputError: the tags write spans.
        """
        from elman.plots.confusion import draw_confusion

        if "confusion" not in measures:
            super().draw_measures(measures, path)
        draw_confusion(measures["confusion"], path, title=self.title())
