"""The texts of a model by name: what it learns from, and what is held out to judge it by."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from elman.data.streams import TokenFile, Tokens, split
from elman.data.text import STDIN, open_text, stem
from elman.data.vocabulary import Vocabulary


class Source(NamedTuple):
    """One text of a model's training.

    Attributes:
        name: what to call it.
        train: the ids of what is learned from.
        held_out: the ids of its end, to judge the model by.
        checksum: of all its ids, to find out whether the text has changed.
    """

    name: str
    train: Tokens
    held_out: Tokens
    checksum: int


def read_sources(
    names: Sequence[str],
    vocabulary: Vocabulary,
    normalize: str = "none",
    held_out: float = 0.0,
    limit: int | None = None,
    kept: Path | None = None,
) -> list[Source]:
    """Read texts and encode them.

    Args:
        names: as :func:`elman.data.text.open_text` takes them.
        vocabulary: what encodes them.
        normalize: see :meth:`elman.data.text.TextSource.blocks`.
        held_out: the share at the end of each that is held out.
        limit: only so many characters of each.
        kept: the file that has what standard input was, if one of them is.

    Raises:
        ElmanError: a text cannot be read.
    """
    places = [str(kept) if name == STDIN and kept is not None else name for name in names]
    return [
        _read(name, label, vocabulary, normalize, held_out, limit)
        for name, label in zip(places, labels(names), strict=True)
    ]


def _read(
    name: str,
    label: str,
    vocabulary: Vocabulary,
    normalize: str,
    held_out: float,
    limit: int | None,
) -> Source:
    checksum = 0

    def counted() -> Iterator[np.ndarray]:
        nonlocal checksum
        for ids in vocabulary.encode(open_text(name).blocks(normalize, limit)):
            checksum = zlib.crc32(ids.tobytes(), checksum)
            yield ids

    tokens = TokenFile(counted(), len(vocabulary))
    return Source(label, *split(tokens, held_out), checksum)


def labels(names: Sequence[str]) -> list[str]:
    """What to call each text: a file by its stem, or by as much of its path as sets it apart."""
    parts = [_parts(name) for name in names]
    for size in range(1, max(map(len, parts), default=0) + 1):
        found = [os.path.join(*p[-size:]) for p in parts]
        if len(set(found)) == len(found):
            return found
    return [f"{os.path.join(*p)} ({k})" for k, p in enumerate(parts, start=1)]


def short_name(names: Sequence[str], most: int = 3) -> str:
    """What to call several texts together, in the name of a folder."""
    stems = [_parts(name)[-1] for name in names]
    more = len(stems) - most
    return "-".join([*stems[:most], *([f"and-{more}-more"] if more > 0 else [])])


def _parts(name: str) -> tuple[str, ...]:
    """The parts of a text's path, without the endings of its file's name."""
    if name == STDIN:
        return ("stdin",)
    path = Path(name)
    if not path.exists():
        return (name,)
    if path.is_dir():
        return path.resolve().parts[1:] or ("root",)
    return (*path.parts[:-1], stem(path))
