"""Text to learn from: a file or a corpus, streamed in blocks so that it may outgrow memory."""

from __future__ import annotations

import logging
import os
import shutil
import sys
import tempfile
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from elman.data.corpora import CORPORA, did_you_mean
from elman.data.normalization import normalized
from elman.data.utf8 import BLOCK, ending_of, inner, read_text
from elman.errors import ElmanError, InputError

STDIN = "-"
"""What standard input is called on a command line."""

_ENDINGS = (".txt", ".text", ".md")
_logger = logging.getLogger("elman")


@dataclass(frozen=True)
class TextSource:
    """A text that can be read as often as needed, always block by block.

    Attributes:
        name: the file's or folder's name without its ending, or the corpus's.
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
    """Open a text; what exists on disk comes before a corpus of the same name.

    Args:
        data: path to a UTF-8 file, which may be packed by gzip, bzip2 or xz; a folder, whose
            texts are read one after the other (see :func:`texts_in`); a name such as
            ``time-machine``; or ``-``, standard input.

    Raises:
        ElmanError: there is neither such a file nor such a corpus, the file is empty, binary, not
            UTF-8 or unreadable, the folder has no text, or the corpus cannot be fetched.
    """
    if str(data) == STDIN:
        return _standard_input()
    path = Path(data)
    if not os.path.exists(path) or (path.is_dir() and str(data) in CORPORA):
        if str(data) not in CORPORA:
            raise neither(path)
        corpus = CORPORA[str(data)]
        reader, paths = corpus.text(), corpus.paths()
        return TextSource(corpus.name, lambda: reader(paths))
    if path.is_dir():
        return _folder(path)
    _check(path)
    return TextSource(stem(path), lambda: read_text(path))


def stem(path: Path) -> str:
    """A file's name without its ending: book of book.txt and of book.txt.gz."""
    return inner(path).stem


def texts_in(folder: Path) -> list[Path]:
    """The texts of a folder and of the folders in it, in the order of their paths.

    They are the files that end in .txt, .text or .md, packed or not; where there are none, all
    files. What is hidden is left out.

    Raises:
        ElmanError: there is no file, a folder cannot be opened, or it is that of a run.
    """
    if (folder / "config.json").is_file() and (folder / "checkpoint").is_dir():
        raise ElmanError(
            f"{folder} is the folder of a run, expected texts; to go on with it, name it with "
            "`resume`."
        )
    files: list[Path] = []
    for place, below, names in os.walk(folder, onerror=_refuse):
        below[:] = [name for name in below if not name.startswith(".")]
        paths = (Path(place, name) for name in names if not name.startswith("."))
        files += [path for path in paths if path.is_file()]
    if not files:
        raise ElmanError(f"{folder} is a folder without files, expected one with texts in it.")
    named = [path for path in files if ending_of(path) in _ENDINGS]
    return sorted(named or files)


def _refuse(error: OSError) -> None:
    """Tell of a folder that cannot be opened: what is in it would be missing without a word."""
    raise ElmanError(
        f"the folder {error.filename} could not be read ({error.strerror}); expected one that this "
        "user may open: change that, or name the texts one by one."
    ) from error


def _folder(folder: Path) -> TextSource:
    paths = texts_in(folder)
    _logger.info("%s: %s", folder, f"{len(paths):,} text{'s' if len(paths) > 1 else ''}")
    if not any(next(read_text(path), "") for path in paths):
        raise ElmanError(f"the texts in {folder} are empty, expected some that hold text.")
    return TextSource(folder.resolve().name, lambda: _one_after_the_other(paths))


def _one_after_the_other(paths: Sequence[Path]) -> Iterator[str]:
    """The texts of files; one that ends within a line gets a line's end, if another follows."""
    last = "\n"
    for path in paths:
        for k, block in enumerate(read_text(path)):
            yield block if k or last == "\n" else "\n" + block
            last = block[-1]


_KEPT: weakref.WeakKeyDictionary[IO[bytes], Path] = weakref.WeakKeyDictionary()


def standard_input() -> Path:
    """A file with all that standard input holds: a text is read more than once.

    It lies in the temporary folder until the process ends.

    Raises:
        ElmanError: there is no standard input, or no room for it.
    """
    stream = getattr(sys.stdin, "buffer", None)
    if stream is None:
        raise ElmanError("there is no standard input to read: name a file.")
    if stream not in _KEPT:
        if stream.isatty():
            _logger.info("reading the text from this terminal; Ctrl-D ends it.")
        folder = Path(tempfile.mkdtemp(prefix="elman-"))
        weakref.finalize(stream, shutil.rmtree, folder, ignore_errors=True)
        try:
            with (folder / "stdin").open("wb") as file:
                # Not read(), which at a terminal asks for a second Ctrl-D.
                for block in iter(lambda: stream.read1(BLOCK), b""):
                    file.write(block)
        except OSError as error:
            raise ElmanError(
                f"standard input could not be kept in {folder.parent} ({error.strerror or error}); "
                "make room there, or name another folder in TMPDIR."
            ) from error
        _KEPT[stream] = folder / "stdin"
    return _KEPT[stream]


def _standard_input() -> TextSource:
    path, name = standard_input(), "standard input"
    if next(read_text(path, name=name), None) is None:
        raise ElmanError(f"{name} is empty, expected text.")
    return TextSource("stdin", lambda: read_text(path, name=name))


def neither(path: Path) -> ElmanError:
    """What is wrong with a name that is neither on disk nor in the registry."""
    try:
        nearby = os.listdir(path.parent)
    except OSError:
        nearby = []
    hint = did_you_mean(path.name, [*CORPORA, *nearby])
    return ElmanError(
        f"{path} is neither a file nor the name of a corpus{hint}; give the path of a file "
        "or a name that `elman data` lists."
    )


def _check(path: Path) -> None:
    if not path.is_file():
        raise ElmanError(
            f"{path} is not a regular file, and a text is read more than once; save it to a file "
            "and give the path of that, or send it to - (standard input)."
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
