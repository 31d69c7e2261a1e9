"""Words as tags of characters, so that to segment Chinese is to tag it (Xue, 2003).

The tag says where in its word a character stands: B at its begin, M in the middle, E at its end,
S as a word of its own (BMES; with I for M, BIES). After a hyphen it may name the word's part of
speech: ``B-NOUN E-NOUN S-PUNCT``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from elman.data.tagged import Tagged


def characters(
    words: Iterable[str], parts_of_speech: Sequence[str] | None = None, middle: str = "M"
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Turn words into their characters and a tag for each.

    Args:
        words: not one of them empty.
        parts_of_speech: of the words; default: the tags name none.
        middle: the tag in the middle of a word, ``"M"`` (default) or ``"I"``.

    Returns:
        the characters and the tags, as many.
    """
    letters: list[str] = []
    tags: list[str] = []
    words = list(words)
    for word, part in zip(words, parts_of_speech or [""] * len(words), strict=True):
        places = "S" if len(word) == 1 else f"B{middle * (len(word) - 2)}E"
        letters += word
        tags += [f"{place}-{part}" if part else place for place in places]
    return tuple(letters), tuple(tags)


def words(letters: Iterable[str], tags: Iterable[str]) -> list[tuple[str, str]]:
    """Turn characters and their tags into words.

    Tags that contradict each other, which a model may tell, are read all the same: a word begins
    at B and S, after E and S, and at the first character; every character is in a word.

    Returns:
        the words, each with the part of speech that its first character's tag names, or with "".
    """
    found: list[tuple[str, str]] = []
    ended = True
    for letter, tag in zip(letters, tags, strict=True):
        place, _, part = tag.partition("-")
        if ended or place in ("B", "S"):
            found.append((letter, part))
        else:
            word, first = found[-1]
            found[-1] = (word + letter, first)
        ended = place in ("E", "S")
    return found


def segmented(sentence: Tagged, joint: bool = False, middle: str = "M") -> Tagged:
    """Turn a sentence of words into one of characters, whose tags tell where its words are.

    Args:
        sentence: words and, for ``joint``, their parts of speech.
        joint: whether the tags name the parts of speech; default no.
        middle: see :func:`characters`.
    """
    parts = sentence.tags if joint else None
    return Tagged(*characters(sentence.tokens, parts, middle), sentence.place)
