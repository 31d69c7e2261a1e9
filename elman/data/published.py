"""The published corpora as records: what is particular to each of them.

A reader takes the files of a part and the part's name. Where files do not come in parts, their
records are dealt out: of every ten (or hundred) that differ, one is for validation and one for the
test.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import TypeVar

from elman.data import dialogues, labelled, pairs, poems, tagged
from elman.data.labelled import Labelled
from elman.data.pairs import Pair
from elman.data.poems import Poem
from elman.data.tagged import Tagged
from elman.data.trees import read_trees

Record = TypeVar("Record")
_logger = logging.getLogger("elman")

SENTIMENTS = ("very negative", "negative", "neutral", "positive", "very positive")
"""What the labels 0 to 4 of the Stanford Sentiment Treebank mean (Socher et al., 2013)."""

POLARITIES = ("negative", "negative", None, "positive", "positive")
"""The same as two classes; what is neutral is left out."""

# Speakers have as many utterances in the training part, one after the other, and these in the test.
_TEST_UTTERANCES = (31, 35, 88, 44, 29, 24, 40, 50, 29)
# What is told of a poem whose author is not known.
_NAMELESS = "无名氏"


def sentiment(
    paths: Sequence[Path], part: str, names: Sequence[str | None], phrases: bool = False
) -> Iterator[Labelled]:
    """Read trees of sentiments: the whole sentences and their labels.

    Args:
        paths: the files.
        part: their part.
        names: of the labels 0 to 4; None for one that is left out.
        phrases: whether to learn from every phrase in the trees, too, each once.
    """
    below = phrases and part == "train"
    seen: set[tuple[str, str]] = set()
    for path in paths:
        left_out = 0
        for root, place in read_trees(path, path.name):
            for node in root.nodes() if below else [root]:
                text, label = " ".join(node.words()), names[int(node.label)]
                if label is None:
                    left_out += 1
                elif not below or (text, label) not in seen:
                    seen.add((text, label))
                    yield Labelled(text, label, place)
        if left_out:
            _logger.info("%s: neutral ones left out: %s", path.name, f"{left_out:,}")


def vowels(paths: Sequence[Path], part: str) -> Iterator[Labelled]:
    """Read Japanese vowels (Kudo et al., 1999): LPC cepstra (T, 12), the speakers "1" to "9"."""
    counts = _TEST_UTTERANCES if part == "test" else (30,) * 9
    speakers = [str(k) for k, count in enumerate(counts, start=1) for _ in range(count)]
    for path in paths:
        yield from labelled.read_blocks(path, path.name, [1.0] * 12, speakers)


def lyrics(paths: Sequence[Path], part: str) -> Iterator[Poem]:
    """Read poems of the chinese-poetry collection, such as song lyrics (宋词)."""
    lacking = Counter[str]()
    for path in paths:
        yield from poems.read_json(path, path.name, lacking)
    poems.tell(lacking)


def poets(paths: Sequence[Path], part: str) -> Iterator[Labelled]:
    """Read lyrics, without their tunes, and which of the ten most frequent poets wrote each."""
    every = [*lyrics(paths, part)]
    counts = Counter(poem.author for poem in every if poem.author != _NAMELESS)
    ten = {author for author, _ in counts.most_common(10)}
    theirs = (poem for poem in every if poem.author in ten)
    for poem in dealt(theirs, part, 10, lambda poem: poem.lines):
        yield Labelled("\n".join(poem.lines), poem.author, poem.place)


def brown(paths: Sequence[Path], part: str) -> Iterator[Tagged]:
    """Read the Brown corpus with its tags."""
    return chain.from_iterable(tagged.read_slashed(path, path.name) for path in paths)


def tatoeba(paths: Sequence[Path], part: str) -> Iterator[Pair]:
    """Read English sentences and their French; all translations of one are in one part."""
    every = chain.from_iterable(pairs.read_tsv(path, path.name, "fra.txt") for path in paths)
    return dealt(every, part, 100, lambda pair: pair.source)


def parallel_dialogues(paths: Sequence[Path], part: str) -> Iterator[Pair]:
    """Read the turns of dialogues and their translations, from two files."""
    one, other = (dialogues.read_text(path, path.name) for path in paths)
    return dialogues.parallel_turns(one, other)


def dealt(
    records: Iterable[Record], part: str, every: int, key: Callable[[Record], Hashable]
) -> Iterator[Record]:
    """Yield the records of one part, when all are dealt out.

    Args:
        records: all of them.
        part: "train", "validation" or "test".
        every: of so many keys, one is for validation and one for the test.
        key: what the records of one part alone may have in common.
    """
    places: dict[Hashable, int] = {}
    held_out = {every // 2 - 1: "validation", every - 1: "test"}
    for record in records:
        place = places.setdefault(key(record), len(places)) % every
        if held_out.get(place, "train") == part:
            yield record
