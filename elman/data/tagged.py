"""Sentences whose every token has a tag: CoNLL columns, CoNLL-U, and words with a slash."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from elman.data.place import Place
from elman.data.utf8 import read_lines
from elman.errors import ElmanError, InputError, brief

_logger = logging.getLogger("elman")

CONLLU = ("ID", "FORM", "LEMMA", "UPOS", "XPOS", "FEATS", "HEAD", "DEPREL", "DEPS", "MISC")
"""The columns of CoNLL-U."""

# A word may hold what Unicode calls a space: the no-break space of "2 1/2".
_SPACES = re.compile(r"[ \t]+")
_DOCUMENT = "-DOCSTART-"

GIVEN = Place("the sentence", 1)
"""Where a sentence stands that is to be tagged."""


class Tagged(NamedTuple):
    """A sentence and its tags.

    Attributes:
        tokens: its words, or its characters.
        tags: one for each token; none where they are to be told.
        place: where it begins.
        features: what else is known of the tokens, such as their parts of speech: columns of one
            value for each token.
    """

    tokens: tuple[str, ...]
    tags: tuple[str, ...]
    place: Place
    features: tuple[tuple[str, ...], ...] = ()

    def untagged(self) -> Tagged:
        """The sentence as it is to be tagged, wherever it stands."""
        return self._replace(tags=(), place=GIVEN)


def read_columns(
    path: Path, name: str, column: int = -1, features: Sequence[int] = ()
) -> Iterator[Tagged]:
    """Read CoNLL columns: a token a line, an empty line between sentences.

    The token is in the first column. Tabs separate columns, or else spaces. Lines of
    ``-DOCSTART-`` are left out; so are comments, which begin with ``#`` and have another number
    of columns than tokens do.

    Args:
        path: the file.
        name: what errors call it.
        column: the tag's, counted from 1, or from the end with -1; default the last.
        features: the columns of what else is known of the tokens, counted likewise.

    Raises:
        InputError: there is no such column.
        ElmanError: a line has more or fewer columns than the first.
    """
    width = 0
    left_out: Counter[str] = Counter()
    for lines in _sentences(path, name):
        rows = []
        for place, line in lines:
            fields = line.split("\t") if "\t" in line else _SPACES.split(line.strip(" "))
            if fields[0] == _DOCUMENT:
                left_out[_DOCUMENT] += 1
            elif line.startswith("#") and len(fields) != (width or _width(lines)):
                left_out["comments"] += 1
            else:
                if not width:
                    width = len(fields)
                    places = [_place_of("tag_column", column, width, place)]
                    places += [_place_of("feature_columns", f, width, place) for f in features]
                if len(fields) != width:
                    raise ElmanError(
                        f"{place}: received {brief(line)}, {len(fields)} columns, expected "
                        f"{width} as in the lines above; mend the line."
                    )
                rows.append((place, fields[0], *(fields[k] for k in places)))
        if rows:
            yield _tagged(rows)
    _tell(name, left_out)


def read_conllu(
    path: Path, name: str, column: str = "UPOS", features: Sequence[str] = ()
) -> Iterator[Tagged]:
    """Read CoNLL-U: ten columns with tabs between; the token is the word's FORM.

    Multiword tokens (1-2) and empty nodes (8.1) are passed over: their words have lines, and
    tags, of their own.

    Args:
        path: the file.
        name: what errors call it.
        column: the tag's, such as ``UPOS`` (default), ``XPOS`` or ``DEPREL``.
        features: the columns of what else is known of the tokens.

    Raises:
        InputError: there is no such column.
        ElmanError: a line is not as CoNLL-U wants it.
    """
    for setting, each in (("tag_column", column), *(("feature_columns", f) for f in features)):
        if each not in CONLLU:
            raise InputError(
                f"`{setting}` is {brief(each)}, expected one of {', '.join(CONLLU)} for {name}."
            )
    left_out: Counter[str] = Counter()
    for lines in _sentences(path, name):
        rows = []
        for place, line in lines:
            if line.startswith("#"):
                continue
            fields = line.split("\t")
            if len(fields) != len(CONLLU) or not re.fullmatch(r"\d+([-.]\d+)?", fields[0]):
                raise ElmanError(
                    f"{place}: received {brief(line)}, expected the ten columns of CoNLL-U with "
                    "tabs between, the first a number."
                )
            if fields[0].isdecimal():
                known = (fields[CONLLU.index(each)] for each in (column, *features))
                rows.append((place, fields[1], *known))
            else:
                left_out["multiword tokens" if "-" in fields[0] else "empty nodes"] += 1
        if rows:
            yield _tagged(rows)
    _tell(name, left_out)


def read_slashed(path: Path, name: str) -> Iterator[Tagged]:
    """Read a sentence a line, its tokens as ``word/tag``, where the last slash counts.

    Raises:
        ElmanError: a token has no tag.
    """
    for number, line in read_lines(path, name):
        place = Place(name, number)
        rows = []
        for token in _SPACES.split(line.strip(" \t")):
            word, _, tag = token.rpartition("/")
            if token and not (word and tag):
                raise ElmanError(f"{place}: received {brief(token)}, expected word/tag.")
            rows.append((place, word, tag))
        if line.strip(" \t"):
            yield _tagged(rows)


def read_untagged(path: Path, name: str) -> Iterator[Tagged]:
    """Read a sentence a line, its tokens with spaces between, without tags."""
    for number, line in read_lines(path, name):
        tokens = tuple(token for token in _SPACES.split(line) if token)
        yield Tagged(tokens, (), Place(name, number))


def _sentences(path: Path, name: str) -> Iterator[list[tuple[Place, str]]]:
    """The lines between empty ones, with their places."""
    lines: list[tuple[Place, str]] = []
    for number, line in read_lines(path, name):
        if line.strip(" \t"):
            lines.append((Place(name, number), line))
        elif lines:
            yield lines
            lines = []
    if lines:
        yield lines


def _width(lines: Sequence[tuple[Place, str]]) -> int:
    """How many columns the first token has that is no ``#``; 0 where there are comments alone."""
    line = next((line for _, line in lines if not line.startswith("#")), "")
    return len(line.split("\t") if "\t" in line else _SPACES.split(line.strip(" "))) if line else 0


def _place_of(setting: str, column: int, width: int, place: Place) -> int:
    if not (2 <= column <= width or -width < column <= -1):
        raise InputError(
            f"{place}: `{setting}` is {column}, expected 2 to {width}, or -1 for the last; the "
            "first has the token."
        )
    return column - 1 if column > 0 else column


def _tagged(rows: Sequence[tuple[Any, ...]]) -> Tagged:
    """A sentence of rows: a place, a token, its tag and its features."""
    for place, token, tag, *_ in rows:
        if not (token and tag):
            missing = "tag" if token else "token"
            raise ElmanError(f"{place}: the {missing} is empty, expected a token and its tag.")
    _, tokens, tags, *features = zip(*rows, strict=True)
    return Tagged(tokens, tags, rows[0][0], tuple(features))


def _tell(name: str, left_out: Counter[str]) -> None:
    for what, count in left_out.items():
        _logger.info("%s: %s left out: %s", name, what, f"{count:,}")
