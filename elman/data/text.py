"""Text to learn from: a file or a corpus, streamed in blocks so that it may outgrow memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from elman.data.corpora import CORPORA, did_you_mean
from elman.data.decoding import read_text
from elman.data.normalization import normalized
from elman.errors import ElmanError, InputError


@dataclass(frozen=True)
class TextSource:
    """A text that can be read as often as needed, always block by block.

    Attributes:
        name: the file's stem or the corpus's name.
    """

    name: str
    _open: Callable[[], Iterator[str]] = field(repr=False)

    def blocks(self, normalize: str = "none", limit: int | None = None) -> Iterator[str]:
        """Yield the text in blocks of about 1 MiB.

        Args:
            normalize: ``"none"`` (default); ``"lower"``, lower case; ``"letters"``, lower case
                with every run of other characters turned into one space, none at the start.
            limit: stop after this many characters, counted after normalising; default: all.

        Raises:
            InputError: an argument is out of range.
            ElmanError: the file is damaged, or no text is left.
        """
        if limit is not None and limit < 1:
            raise InputError(
                f"limit is {limit}, expected a number of characters of at least 1; "
                "raise it or leave it out."
            )
        return self._blocks(normalized(self._open(), normalize), normalize, limit)

    def _blocks(self, blocks: Iterator[str], normalize: str, limit: int | None) -> Iterator[str]:
        length = 0
        for block in blocks:
            text = block if limit is None else block[: limit - length]
            length += len(text)
            yield text
            if length == limit:
                return
        if length == 0:
            raise ElmanError(
                f"{self.name} holds no text after normalize={normalize!r}, expected at least one "
                "letter; choose normalize='none' or another file."
            )


def open_text(data: str | Path) -> TextSource:
    """Open a text file, or a corpus by its name; a file that exists comes first.

    Args:
        data: path to a UTF-8 file, or a name such as ``time-machine``.

    Raises:
        ElmanError: there is neither such a file nor such a corpus, the file is a folder, empty,
            binary, not UTF-8 or unreadable, or the corpus cannot be fetched.
    """
    path = Path(data)
    if not os.path.exists(path) or (path.is_dir() and str(data) in CORPORA):
        if str(data) not in CORPORA:
            raise _neither(path)
        corpus = CORPORA[str(data)]
        paths = corpus.paths()
        return TextSource(corpus.name, lambda: corpus.reader(paths))
    _check(path)
    return TextSource(path.stem, lambda: read_text(path))


def _neither(path: Path) -> ElmanError:
    try:
        nearby = os.listdir(path.parent)
    except OSError:
        nearby = []
    hint = did_you_mean(path.name, [*CORPORA, *nearby])
    return ElmanError(
        f"{path} is neither a file nor the name of a corpus{hint}; give the path of a text file "
        "or a name that `elman data` lists."
    )


def _check(path: Path) -> None:
    if path.is_dir():
        raise ElmanError(
            f"{path} is a folder, expected a text file; give the path of one file, "
            "for example one made with `cat`."
        )
    if not path.is_file():
        raise ElmanError(
            f"{path} is not a regular file, and a text is read more than once; save it to a file "
            "and give the path of that."
        )
    # Files such as those of /proc have no size: their text may change, wait for more, or never end.
    if path.stat().st_size == 0:
        raise ElmanError(
            f"{path} is empty, or made by the system as it is read; expected a file that holds "
            "text: give another, or a copy of it."
        )
    # The first block shows most of what can be wrong, before anything is built on the text.
    if next(read_text(path), None) is None:
        raise ElmanError(f"{path} is empty, expected text; give a file that holds some.")
