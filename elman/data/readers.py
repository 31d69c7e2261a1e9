"""Turns the files of a corpus into text: one reader a file format."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from elman.data.utf8 import read_text

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


def plain(paths: Sequence[Path]) -> Iterator[str]:
    """Yield the text of UTF-8 files, one after the other, in blocks of about 1 MiB."""
    for path in paths:
        yield from read_text(path)


def brown(paths: Sequence[Path]) -> Iterator[str]:
    """Yield the Brown corpus, a block a file: one sentence a line, its words without their tags."""
    for path in paths:
        sentences = (line.split() for line in "".join(read_text(path)).split("\n"))
        lines = [
            # Words such as "and/or" hold a stroke too: the tag is what follows the last.
            " ".join(token.rpartition("/")[0] for token in tokens)
            for tokens in sentences
            if tokens
        ]
        yield "\n".join(lines) + "\n"


def song_lyrics(paths: Sequence[Path]) -> Iterator[str]:
    """Yield song lyrics (宋词), a block a file: the tune's name, the lines, an empty line."""
    for path in paths:
        yield "".join(_poems(_load(path), "rhythmic"))


def tang_poems(paths: Sequence[Path]) -> Iterator[str]:
    """Yield Tang poems (唐诗), a block a file: the title, the lines, an empty line."""
    for path in paths:
        yield "".join(_poems(_load(path), "title"))


def _load(path: Path) -> list[dict[str, Any]]:
    return json.loads(path.read_text("utf-8"))


def _poems(entries: Iterable[dict[str, Any]], heading: str) -> Iterator[str]:
    for entry in entries:
        title = entry[heading].strip()
        lines = [line.strip() for line in entry["paragraphs"] if line.strip()]
        if not title or not lines:
            continue
        poem = "\n".join([title, *lines]) + "\n\n"
        poem = _CORRECTED.sub(r"\1", _READING.sub("", poem))
        if _SOUND.fullmatch(poem):
            yield poem
