"""Turns the files of a corpus into text: one reader a file format."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from elman.data.poems import read_json, tell
from elman.data.utf8 import read_text


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


def poems(paths: Sequence[Path]) -> Iterator[str]:
    """Yield poems, a block a file: the tune's name or the title, the lines, an empty line."""
    lacking = Counter[str]()
    for path in paths:
        yield "".join(poem.text() for poem in read_json(path, path.name, lacking))
    tell(lacking)
