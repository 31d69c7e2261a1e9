"""Pairs of texts: a source and its target, such as a sentence and its translation."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

from elman.data.jsonlines import read_values, text_of
from elman.data.place import Place
from elman.data.utf8 import read_lines
from elman.errors import ElmanError, brief

_logger = logging.getLogger("elman")


class Pair(NamedTuple):
    """A text and what it is to become.

    Attributes:
        source: what is read.
        target: what is to be written.
        place: where it was read.
    """

    source: str
    target: str
    place: Place


def read_tsv(path: Path, name: str, member: str = "") -> Iterator[Pair]:
    """Read a pair a line: source, tab, target; more columns are not read.

    Args:
        path, name: the file, and what errors call it.
        member: of a zip archive, the file in it.

    Raises:
        ElmanError: a line has more or fewer columns than the first, or one alone.
    """
    return _whole(_from_tsv(path, name, member), name)


def read_jsonl(path: Path, name: str) -> Iterator[Pair]:
    """Read a JSON object a line: ``{"source": …, "target": …}``.

    Raises:
        ElmanError: a line is something else.
    """
    texts = (
        Pair(text_of(value, "source", place), text_of(value, "target", place), place)
        for place, value in read_values(path, name)
    )
    return _whole(texts, name)


def read_parallel(source: Path, target: Path, name: str, target_name: str) -> Iterator[Pair]:
    """Read two files whose lines belong together, packed or not.

    Args:
        source, target: the files.
        name, target_name: what errors call them.

    Raises:
        ElmanError: they have different numbers of lines.
    """
    return _whole(_side_by_side(source, target, name, target_name), name)


def _from_tsv(path: Path, name: str, member: str) -> Iterator[Pair]:
    width = 0
    for number, line in read_lines(path, name, member):
        if not line:
            continue
        place = Place(name, number)
        columns = line.split("\t")
        width = width or max(2, len(columns))
        if len(columns) != width:
            raise ElmanError(
                f"{place}: received {brief(line)}, {len(columns)} column"
                f"{'s' if len(columns) > 1 else ''}, expected {width} with tabs between: source "
                "and target first."
            )
        yield Pair(columns[0], columns[1], place)


def _side_by_side(source: Path, target: Path, name: str, target_name: str) -> Iterator[Pair]:
    lines, others = read_lines(source, name), read_lines(target, target_name)
    for one, other in zip_longest(lines, others):
        if one is None or other is None:
            longer, rest = (target_name, others) if one is None else (name, lines)
            shorter = name if one is None else target_name
            number = (one or other)[0]
            raise ElmanError(
                f"{longer} has {number + sum(1 for _ in rest):,} lines and {shorter} "
                f"{number - 1:,}, expected as many: a line and its translation each."
            )
        yield Pair(one[1], other[1], Place(name, one[0]))


def _whole(pairs: Iterable[Pair], name: str) -> Iterator[Pair]:
    """Leave out the pairs of which a side is empty, and say how many they are."""
    empty = 0
    for source, target, place in pairs:
        if source.strip() and target.strip():
            yield Pair(source.strip(), target.strip(), place)
        else:
            empty += 1
    if empty:
        _logger.info("%s: pairs left out, of which a side is empty: %s", name, f"{empty:,}")
