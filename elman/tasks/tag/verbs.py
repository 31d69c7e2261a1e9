"""What a trained tagger does: sentences in, words and tags out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from elman.data.batches import in_order
from elman.data.segmentation import words as joined
from elman.data.tagged import GIVEN, Tagged
from elman.data.words import split_sentence
from elman.errors import InputError, brief
from elman.training.gradients import moved
from elman.training.settings import Settings, option
from elman.training.task import Verb

if TYPE_CHECKING:
    from elman.tasks.tag.task import Tagger


@dataclass
class ReadingSettings(Settings):
    """How sentences are read that are to be tagged."""

    tokenised: bool = option(False, "Spaces, and nothing else, part the words of the sentences.")


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
    return Tagged(tuple(split_sentence(text, job.names.seen)), (), GIVEN)


def predict(job: Tagger, texts: Iterable[str | Tagged], settings: ReadingSettings) -> Iterator[Any]:
    """Tag sentences; a mapping for each."""

    def answers(some: list[Tagged]) -> Iterator[dict[str, Any]]:
        for each, (tags, confidence) in zip(some, tag(job, some), strict=True):
            yield _answer(job, each, tags, confidence)

    given = (sentence(job, text, settings) for text in texts)
    return in_order(given, job.settings.batch, lambda each: len(each.tokens), answers)


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
        confidence = probabilities[range(len(path)), column, path].tolist()
        found[k] = [names[id] for id in path], [round(p, 4) for p in confidence]
    return found


def _answer(job: Tagger, given: Tagged, tags: list[str], confidence: list[float]) -> dict[str, Any]:
    if job.settings.segment == "none":
        return {"tokens": list(given.tokens), "tags": tags, "confidence": confidence}
    words = joined("".join(given.tokens), tags)
    of_words, at = [], 0
    for word, _ in words:
        of_words.append(min(confidence[at : at + len(word)]))
        at += len(word)
    answer = {"words": [word for word, _ in words]}
    if job.settings.segment == "joint":
        answer["tags"] = [part for _, part in words]
    return answer | {"confidence": of_words}


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
