"""What a trained tagger does: sentences in, words and tags out."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch

from elman.data.segmentation import words as joined
from elman.data.tagged import GIVEN, Tagged
from elman.data.words import END, split_words
from elman.errors import InputError, brief
from elman.training.gradients import moved
from elman.training.settings import Settings, option
from elman.training.task import Verb

if TYPE_CHECKING:
    from elman.tasks.tag.task import Tagger

# What treebanks part from the word before it: n't, 's, 'll.
_CLITIC = re.compile(r"(?i)(?<=\w)(n['’]t|['’](?:s|m|d|re|ve|ll))$")


@dataclass
class ReadingSettings(Settings):
    """How sentences are read that are to be tagged."""

    tokenised: bool = option(False, "Spaces, and nothing else, part the words of the sentences.")


def split(text: str, seen: Container[str] | None = None) -> list[str]:
    """The words and marks of a text, with ``n't``, ``'s`` and the like apart, as treebanks have it.

    Args:
        text: what is parted.
        seen: the words of the data that a model has learned from: where these have ``don't``, or
            have no ``n't``, it stays whole.
    """
    found: list[str] = []
    for word in split_words(text):
        clitic = _CLITIC.search(word)
        if clitic and (seen is None or (word not in seen and clitic[0] in seen)):
            found += [word[: clitic.start()], clitic[0]]
        elif word != END:
            found.append(word)
    return found


def sentence(job: Tagger, text: str | Tagged, settings: ReadingSettings) -> Tagged:
    """A sentence as the tagger reads it.

    Raises:
        InputError: the tagger reads more than words, and the sentence has nothing beside them.
    """
    if isinstance(text, Tagged):
        return text
    beside = len(job.names.features) if job.settings.segment == "none" else 0
    if beside:
        rows = [token.rsplit("/", beside) for token in text.split()]
        for row in rows:
            if len(row) != beside + 1 or not all(row):
                like = "/".join(["word", *(f"column {c}" for c in job.settings.feature_columns)])
                raise InputError(
                    f"received {brief('/'.join(row))}, expected {like}: this tagger reads "
                    "`feature_columns` beside the words; or name a file that has them."
                )
        words, *features = zip(*rows, strict=True) if rows else [()] * (beside + 1)
        return Tagged(words, (), GIVEN, tuple(features))
    if settings.tokenised or job.settings.segment != "none":
        return Tagged(tuple(text.split()), (), GIVEN)
    return Tagged(tuple(split(text, job.names.seen)), (), GIVEN)


def predict(job: Tagger, texts: Iterable[str | Tagged], settings: ReadingSettings) -> Iterator[Any]:
    """Tag sentences; a mapping for each."""
    for other in job.companions:
        mine, theirs = (
            (each.names.tags, each.settings.segment, each.settings.feature_columns)
            for each in (job, other)
        )
        if mine != theirs:
            raise InputError(
                "runs that tag together must have the same tags, `segment` and `feature_columns`: "
                "train them on the same data."
            )
    given = iter(texts)
    while some := [sentence(job, text, settings) for text in islice(given, job.settings.batch)]:
        for each, (tags, sure) in zip(some, tag(job, some), strict=True):
            yield _told(job, each, tags, sure)


@torch.inference_mode()
def tag(job: Tagger, sentences: Sequence[Tagged]) -> list[tuple[list[str], list[float]]]:
    """The tags of sentences, and how probable each is.

    With companions, the probabilities are the mean of all runs', and the tags those of the highest
    product of them that their scheme allows.
    """
    found: list[tuple[list[str], list[float]]] = [([], []) for _ in sentences]
    there = [k for k, each in enumerate(sentences) if each.tokens]
    if not there:
        return found
    every = []
    for each in (job, *job.companions):
        model = each.model.eval()
        batch = each.collate([each.as_example(sentences[k]) for k in there]).input
        batch = moved(batch, model.output.weight.device)
        lengths = batch.words.lengths
        emissions = model(batch)
        every.append(model.marginals(emissions, lengths))
    probabilities = torch.stack(every).mean(0)
    if job.companions:
        paths = job.model.decode(probabilities.log(), lengths, learned=False)
    else:
        paths = job.model.decode(emissions, lengths)
    names = job.names.tags.names
    for column, (k, path) in enumerate(zip(there, paths, strict=True)):
        sure = probabilities[range(len(path)), column, path].tolist()
        found[k] = [names[id] for id in path], [round(p, 4) for p in sure]
    return found


def _told(job: Tagger, given: Tagged, tags: list[str], sure: list[float]) -> dict[str, Any]:
    if job.settings.segment == "none":
        return {"tokens": list(given.tokens), "tags": tags, "confidence": sure}
    words = joined("".join(given.tokens), tags)
    probable, at = [], 0
    for word, _ in words:
        probable.append(min(sure[at : at + len(word)]))
        at += len(word)
    told = {"words": [word for word, _ in words]}
    if job.settings.segment == "joint":
        told["tags"] = [part for _, part in words]
    return told | {"confidence": probable}


def shown(found: dict[str, Any]) -> str:
    """An answer as people read it: words with spaces between, each with its tag behind a slash."""
    words = found["words"] if "words" in found else found["tokens"]
    if "tags" in found:
        words = map("/".join, zip(words, found["tags"], strict=True))
    return " ".join(words)


PREDICT = Verb(
    "predict",
    "Tell what a model was trained to tell of each input.",
    "RUN 'The old man the boat.'\nRUN --file sentences.txt --output tagged.jsonl",
    predict,
    "Sentences",
    each=True,
    together=True,
    show=shown,
    Settings=ReadingSettings,
)
"""Of sentences as they are written, or of a file of them: text a line, CoNLL columns, CoNLL-U."""
