"""Poems: Chinese lyrics under the name of their tune, from the JSON they are published in."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from elman.data.jsonlines import read_value, read_values
from elman.data.place import Place
from elman.data.utf8 import read_lines
from elman.errors import ElmanError, brief

_logger = logging.getLogger("elman")

# Everything a sound poem is written with: Chinese characters and their punctuation. The song
# lyrics hold 1,000 or so lyrics with something else, and each time it stands for words that are
# lost: □ and … for gaps in the old prints, （缺词文） and （下缺） for whole stanzas, and kana,
# Cyrillic, bopomofo, box drawing or U+FFFD for characters lost when the file was converted from
# an older encoding. A form poem with a hole teaches the wrong form, so such a poem is left out.
_SOUND = re.compile(
    r"[\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U000323af〇 ，。、？！；：“”‘’「」《》・\n]*"
)
# Editors of the Tang poems put a corrected character in [ ] and another reading in （ ）.
_CORRECTED = re.compile(r"\[(\w)\]")
_READING = re.compile(r"（一作[^）]*）")

_HEADINGS = ("tune", "rhythmic", "title")
_LINES = ("lines", "paragraphs")


class Poem(NamedTuple):
    """A poem.

    Attributes:
        tune: the name of the tune that it is sung to, which fixes its form; or its title.
        lines: its lines, not one of them empty.
        author: who wrote it; "" where that is not told.
        place: where it was read.
    """

    tune: str
    lines: tuple[str, ...]
    author: str
    place: Place

    def text(self) -> str:
        """The tune and the lines, each on a line, and an empty line."""
        return "\n".join([self.tune, *self.lines]) + "\n\n"


def read_json(path: Path, name: str, lacking: Counter[str] | None = None) -> Iterator[Poem]:
    """Read the JSON of the chinese-poetry collection: a list of objects.

    They have ``rhythmic`` (or ``title``, ``tune``), ``paragraphs`` (or ``lines``) and ``author``.
    Poems that are not sound are left out and counted: without a heading or lines, or with anything
    that is neither a Chinese character nor a Chinese mark, which stands for words that are lost.

    Args:
        path, name: the file, and what errors call it.
        lacking: where to count, by name, what is left out; default: it is logged.

    Raises:
        ElmanError: the file is something else.
    """
    entries = read_value(path, name)
    if not isinstance(entries, list):
        raise ElmanError(f"{name}: received {brief(entries)}, expected a list of poems.")
    own = Counter[str]() if lacking is None else lacking
    for number, entry in enumerate(entries, start=1):
        poem = _poem(entry, Place(name, number, "poem"))
        text = _CORRECTED.sub(r"\1", _READING.sub("", "\n".join([poem.tune, *poem.lines])))
        tune, *lines = text.split("\n")
        if tune and lines and _SOUND.fullmatch(text):
            yield poem._replace(tune=tune, lines=tuple(lines))
        else:
            own[name] += 1
    if lacking is None:
        tell(own)


def tell(lacking: Counter[str]) -> None:
    """Log how many poems were left out."""
    if lacking:
        first, *others = lacking
        name = f"{first} and {len(others):,} more" if others else first
        _logger.info("%s: poems left out, which lack words: %s", name, f"{lacking.total():,}")


def read_jsonl(path: Path, name: str) -> Iterator[Poem]:
    """Read a poem a line: ``{"tune": …, "lines": [texts], "author": …}``, the author if known.

    Raises:
        ElmanError: a line is something else, or has no tune or no lines.
    """
    for place, value in read_values(path, name):
        yield _whole(_poem(value, place))


def read_text(path: Path, name: str) -> Iterator[Poem]:
    """Read poems with empty lines between: the tune first, then the lines.

    Raises:
        ElmanError: there are no lines below a tune.
    """
    lines: list[str] = []
    first = 1
    for number, line in read_lines(path, name):
        if line.strip():
            first = first if lines else number
            lines.append(line.strip())
        elif lines:
            yield _under_its_tune(lines, Place(name, first))
            lines = []
    if lines:
        yield _under_its_tune(lines, Place(name, first))


def _under_its_tune(lines: list[str], place: Place) -> Poem:
    return _whole(Poem(lines[0], tuple(lines[1:]), "", place))


def _whole(poem: Poem) -> Poem:
    if not poem.tune or not poem.lines:
        missing = "lines" if poem.tune else "tune"
        raise ElmanError(
            f"{poem.place}: {brief(poem.tune)} has no {missing}, expected a tune and lines below."
        )
    return poem


def _poem(entry: Any, place: Place) -> Poem:
    found = entry if isinstance(entry, Mapping) else {}
    tune = next((found[key] for key in _HEADINGS if key in found), None)
    lines = next((found[key] for key in _LINES if key in found), None)
    author = found.get("author") or ""
    lines = lines if isinstance(lines, list) else [None]
    if not isinstance(tune, str) or not all(isinstance(text, str) for text in [author, *lines]):
        raise ElmanError(
            f'{place}: received {brief(entry)}, expected {{"tune": a text, "lines": [texts]}}.'
        )
    stripped = (line.strip() for line in lines)
    return Poem(tune.strip(), tuple(line for line in stripped if line), author.strip(), place)
