"""What a tagger is judged by: single tags, the spans that tags write, or the words they part."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any, NamedTuple

import torch

from elman.decoding import spans
from elman.tasks.scores import Found, counted, scored, spans_of, table
from elman.training.confusion import confused, rates, tables
from elman.training.measures import Measure, Sums

_SPAN, _WORD = "span", "word"


class Sentence(NamedTuple):
    """The tags of a sentence as the data has them and as a model has found them.

    Attributes:
        given, found: ids of tags.
        unseen: which tokens stand in a word that was not trained on.
    """

    given: list[int]
    found: list[int]
    unseen: list[bool]


class Tags:
    """Each tag by itself: accuracy, F1 of the labels, and which was taken for which.

    Args:
        names: the tags, by id.
    """

    headline = Measure("accuracy", higher=True)

    def __init__(self, names: Sequence[str]):
        self.names = list(names)

    def sums(self, sentences: Sequence[Sentence]) -> Sums:
        """What adds up over sentences."""
        given = torch.tensor([id for sentence in sentences for id in sentence.given])
        found = torch.tensor([id for sentence in sentences for id in sentence.found])
        return confused(given, found, len(self.names)) | _right(sentences)

    def measures(self, sums: Sums) -> dict[str, float]:
        """The figures of sums."""
        return rates(sums, len(self.names)) | _on_unknown(sums, "accuracy")

    def tables(self, sums: Sums) -> dict[str, Any]:
        """The figures of each label."""
        return tables(sums, self.names)


class SpanTags(Tags):
    """Whole spans: precision, recall and F1 of seqeval, which are those of CoNLL."""

    headline = Measure("f1", higher=True)

    def sums(self, sentences: Sequence[Sentence]) -> Sums:
        """What adds up over sentences."""
        return counted(map(self._spans, sentences), _SPAN) | _right(sentences)

    def measures(self, sums: Sums) -> dict[str, float]:
        """The figures of sums."""
        accuracy = {"accuracy": sums["right"] / sums["count"]}
        return scored(sums, _SPAN) | accuracy | _on_unknown(sums, "accuracy")

    def tables(self, sums: Sums) -> dict[str, Any]:
        """The figures of each label."""
        return {"labels": table(sums, _SPAN)}

    def _spans(self, sentence: Sentence) -> tuple[set[Found], set[Found]]:
        given, found = ([self.names[id] for id in ids] for ids in sentence[:2])
        return spans_of(given), spans_of(found)


class Segmentation(SpanTags):
    """The words that tags part: F1 of words, and the share of the unknown ones that are found."""

    def sums(self, sentences: Sequence[Sentence]) -> Sums:
        """What adds up over sentences."""
        spans = [self._spans(sentence) for sentence in sentences]
        words = [(_words(given), _words(found)) for given, found in spans]
        sums: Sums = {"unknown": 0.0, "unknown_right": 0.0}
        for (given, found), sentence in zip(words, sentences, strict=True):
            new = {word for word in given if sentence.unseen[word[1]]}
            sums["unknown"] += len(new)
            sums["unknown_right"] += len(new & found)
        return counted(spans, _SPAN) | counted(words, _WORD) | sums

    def measures(self, sums: Sums) -> dict[str, float]:
        """The figures of sums: of words, and of words with their tags where tags name these."""
        words = {"word_f1": scored(sums, _WORD)["f1"]} if self._joint else {}
        return scored(sums, _SPAN) | words | _on_unknown(sums, "recall")

    def tables(self, sums: Sums) -> dict[str, Any]:
        """The figures of each part of speech, where tags name these."""
        return super().tables(sums) if self._joint else {}

    @property
    def _joint(self) -> bool:
        return any("-" in name for name in self.names)


def _words(spans: set[Found]) -> set[Found]:
    """The same, whatever their tags."""
    return {(_WORD, *place) for _, *place in spans}


def judge(names: Sequence[str], segment: bool) -> Tags:
    """What a tagger with these tags is judged by."""
    if segment:
        return Segmentation(names)
    return Tags(names) if spans.guess(names) is None else SpanTags(names)


def _right(sentences: Sequence[Sentence]) -> Sums:
    """How many tags are right, how many words unknown, and how many of those have the right tag."""
    tokens: Iterator[tuple[int, int, bool]] = chain(*(zip(*s, strict=True) for s in sentences))
    every = [(given == found, unseen) for given, found, unseen in tokens]
    return {
        "right": float(sum(right for right, _ in every)),
        "unknown": float(sum(unseen for _, unseen in every)),
        "unknown_right": float(sum(right and unseen for right, unseen in every)),
    }


def _on_unknown(sums: Sums, what: str) -> dict[str, float]:
    unknown = sums["unknown"]
    return {f"unknown_{what}": sums["unknown_right"] / unknown} if unknown else {}
