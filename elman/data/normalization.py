"""Normalises a stream of text blocks; where the blocks were cut never shows in the result."""

from __future__ import annotations

import functools
import re
import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator

from elman.data.utf8 import BLOCK
from elman.errors import InputError

_NOT_ASCII_LETTERS = re.compile(r"[^a-z]+")


def normalized(blocks: Iterable[str], how: str) -> Iterator[str]:
    """Yield the blocks normalised.

    Args:
        blocks: the text, cut anywhere.
        how: ``"none"``; ``"lower"``, lower case; or ``"letters"``, lower case with every run of
            characters other than letters (of any script, with their combining marks) turned into
            one space, and no space at the start.

    Raises:
        InputError: ``how`` is none of these.
    """
    if how not in NORMALIZATIONS:
        raise InputError(
            f"normalize is {how!r}, expected one of {', '.join(NORMALIZATIONS)}; choose one."
        )
    return NORMALIZATIONS[how](blocks)


def whole_words(blocks: Iterable[str], longest: int = BLOCK) -> Iterator[str]:
    """Cut the text anew, each time just in front of white space, so that no word is in two pieces.

    Args:
        blocks: the text, cut anywhere.
        longest: a piece of this many characters without white space is passed on as it stands,
            so that memory stays bounded.
    """
    held = ""
    for block in blocks:
        held += block
        cut = _last_space(held)
        if cut == 0 and len(held) >= longest:
            cut = len(held)
        if cut:
            yield held[:cut]
            held = held[cut:]
    if held:
        yield held


def _last_space(text: str) -> int:
    """Where the last run of white space starts; 0 where there is none behind the first word."""
    words = text.rstrip()
    if len(words) == len(text) and text:
        last = text.rsplit(None, 1)[-1]
        words = text[: len(text) - len(last)].rstrip()
    return len(words)


def _lower(blocks: Iterable[str]) -> Iterator[str]:
    # Only whole words: a capital sigma is lowered to ς at the end of a word and to σ inside it.
    for piece in whole_words(blocks):
        yield piece.lower()


def _letters(blocks: Iterable[str]) -> Iterator[str]:
    after_space = True
    for piece in _lower(blocks):
        pattern = _NOT_ASCII_LETTERS if piece.isascii() else _not_letters()
        text = pattern.sub(" ", piece)
        if after_space:
            text = text.removeprefix(" ")
        if text:
            after_space = text.endswith(" ")
            yield text


@functools.cache
def _not_letters() -> re.Pattern[str]:
    # Marks count with the letter they stand on (accents, the vowel signs of Hindi), but not on
    # their own, as behind an emoji.
    letters = _ranges(str.isalpha)
    marks = mark_ranges()
    return re.compile(f"(?:[^{letters}{marks}][{marks}]*)+")


@functools.cache
def mark_ranges() -> str:
    """All combining marks, as the inside of a regular expression's character class."""
    return _ranges(lambda character: unicodedata.category(character)[0] == "M")


def _ranges(belongs: Callable[[str], bool]) -> str:
    """Write the characters of a kind as the inside of a regular expression's character class."""
    parts = []
    first: int | None = None
    for code in range(sys.maxunicode + 2):
        inside = code <= sys.maxunicode and belongs(chr(code))
        if inside and first is None:
            first = code
        elif not inside and first is not None:
            parts.append(f"\\U{first:08x}-\\U{code - 1:08x}")
            first = None
    return "".join(parts)


NORMALIZATIONS: dict[str, Callable[[Iterable[str]], Iterator[str]]] = {
    "none": iter,
    "lower": _lower,
    "letters": _letters,
}
