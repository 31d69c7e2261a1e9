"""Splits text into words and marks, and joins them again the way they are written."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Container

from elman.data.normalization import mark_ranges

UNKNOWN = "<unk>"
END = "<eos>"

# Scripts written without spaces, a character a word: Chinese, and Japanese kana.
_HAN = "\u2e80-\u2fdf\u3007\u3040-\u30fa\u30fd-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
_HAN += "\uf900-\ufaff\U00020000-\U000323af"
_WIDE = re.compile(f"[{_HAN}\u3000-\u303f\u30fb\u30fc\ufe30-\ufe4f\uff00-\uffef]")

# Marks that become one token when repeated.
_RUN = re.compile(r"[-.`']")

_CLOSING = frozenset(".,;:!?)]}%…’”»") | {"''"}
_OPENING = frozenset("([{¿¡‘“«$£€#") | {"``"}
_DASHES = ("--", "—")
# Marks that are the same on both sides; _ is how plain text writes emphasis.
_PAIRED = frozenset("\"'_")


@functools.cache
def _token() -> re.Pattern[str]:
    marks = mark_ranges()
    # Letters, digits and their combining marks, of all scripts that do put spaces between words.
    letter = rf"(?:(?![{_HAN}_])[\w{marks}])"
    return re.compile(
        rf"{UNKNOWN}|{END}|\n"
        # 1,000 and 3.14; then don't, well-known and snake_case.
        rf"|\d+(?:[.,]\d+)+(?!{letter})|{letter}+(?:['’_-]{letter}+)*"
        # A Chinese character, with a mark if there is one; quotation marks and dashes of old
        # transcripts; any other mark.
        rf"|[{_HAN}][{marks}]*|``|''|--+|\.\.\.+|\S"
    )


def split_words(text: str) -> list[str]:
    r"""Split a text into words, punctuation marks and line ends.

    Numbers, "don't", "well-known" and ``<unk>`` stay whole; every Chinese character is a word.
    A line that holds a word ends in ``<eos>``, which stands for its ``\n``; empty lines leave
    nothing.
    """
    tokens: list[str] = []
    for token in _token().findall(text):
        if token != "\n":
            tokens.append(token)
        elif not tokens or tokens[-1] != END:
            tokens.append(END)
    return tokens


def split_sentence(text: str, seen: Container[str] | None = None) -> list[str]:
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


# What treebanks part from the word before it: n't, 's, 'll.
_CLITIC = re.compile(r"(?i)(?<=\w)(n['’]t|['’](?:s|m|d|re|ve|ll))$")


def words_of(text: str) -> list[str]:
    """The words and marks of a text, without its line ends."""
    return [token for token in split_words(text) if token != END]


def characters_of(text: str) -> list[str]:
    """The characters of a text, without white space."""
    return [character for character in text if not character.isspace()]


SPLITS: dict[str, Callable[[str], list[str]]] = {
    "word": words_of,
    "whitespace": str.split,
    "character": characters_of,
}
"""What a text by itself is cut into, by the name of the setting."""


def split_spaces(text: str) -> list[str]:
    """Split a pre-tokenised text at white space, with ``<eos>`` at the end of every line.

    Empty lines end in ``<eos>`` too: the published token counts of WikiText-2 include those.
    """
    return text.replace("\n", f" {END} ").split()


class SpacedJoiner:
    """Joins tokens that stood between white space: a space in front of each, but at line starts."""

    def __init__(self) -> None:
        self._line_start = True

    def push(self, token: str) -> str:
        """Return what the token adds to the text."""
        if token == END:
            self._line_start = True
            return "\n"
        space = "" if self._line_start else " "
        self._line_start = False
        return space + token


class WordJoiner:
    """Joins words and marks as they are written: no space in front of a comma, or in Chinese."""

    def __init__(self) -> None:
        self._last = END
        self._open: set[str] = set()
        self._opened = False

    def push(self, token: str) -> str:
        """Return what the token adds to the text."""
        last, after_opening = self._last, self._opened
        closing = token in _CLOSING or token.startswith("..")
        self._opened = token in _OPENING
        if token in _PAIRED:
            closing = self._closes(last, token)
            self._opened = not closing
        self._last = token
        if token == END:
            return "\n"
        if last == END or (_touch(last, token, closing or after_opening) and _keeps(last, token)):
            return token
        return " " + token

    def _closes(self, last: str, mark: str) -> bool:
        # Quotations run on over line ends, and old books open each of their paragraphs anew: a
        # mark at the start of a line opens, any other closes what is open.
        closes = last != END and mark in self._open
        (self._open.discard if closes else self._open.add)(mark)
        return closes


def _touch(last: str, token: str, joined: bool) -> bool:
    return (
        joined
        or token.startswith(_DASHES)
        or last.startswith(_DASHES)
        or bool(_WIDE.match(last))
        # Chinese follows a foreign word directly, but a foreign comma with a space.
        or (bool(_WIDE.match(token)) and last not in _CLOSING)
    )


@functools.lru_cache(1 << 16)
def _keeps(last: str, token: str) -> bool:
    """Whether the two tokens, written without a space, are read as the same two again."""
    # Of three dots, any two are read as two dots.
    if last == token:
        return not _RUN.match(token)
    return _token().findall(last + token) == [last, token]
