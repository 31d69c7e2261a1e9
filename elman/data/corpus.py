"""A corpus: its files, where they come from, and how they are read.

Files come from the package itself, from the folder that ``ELMAN_DATA`` names, from the user's
cache, or from a pinned address, in this order.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from elman.data import checksums
from elman.data.checksums import FILES, Entry
from elman.data.download import cache_folder, download
from elman.errors import ElmanError, InputError

Reader = Callable[[Sequence[Path]], Iterator[str]]
RecordReader = Callable[[Sequence[Path], str], Iterable[Any]]
"""From the files of a part, and the part's name, to its records."""


@dataclass(frozen=True)
class Corpus:
    """A corpus: what it is, which files it has, where they come from and how to read them.

    Attributes:
        name: what the user types.
        title: one line that says what it holds.
        licence: as its source states it.
        language: language code, such as ``en`` or ``zh``.
        folder: its place under ``ELMAN_DATA`` and under the cache folder.
        base: the address, pinned to a commit, that the files' paths are relative to.
        elsewhere: file path → another such address; "" where none has the file as it is here.
        files: file path → size in bytes and SHA-256, in reading order.
        reader: turns the files, in the same order, into blocks of text; None where it is no text.
        shipped: whether its files come with the package.
        records: what turns files into records, by the name of their kind; None where the kind's
            own readers do. See :class:`elman.data.records.Kind`.
        parts: the files of "train", "validation" and "test", where it comes in parts.
    """

    name: str
    title: str
    licence: str
    language: str
    folder: str
    base: str
    files: Mapping[str, Entry]
    reader: Reader | None = None
    shipped: bool = False
    records: Mapping[str, RecordReader | None] = field(default_factory=dict)
    parts: Mapping[str, Sequence[str]] = field(default_factory=dict)
    elsewhere: Mapping[str, str] = field(default_factory=dict)

    @property
    def kinds(self) -> str:
        """What it holds, such as "text" or "labels"."""
        return " and ".join([*(["text"] if self.reader else []), *self.records])

    def text(self) -> Reader:
        """What reads it as a text.

        Raises:
            InputError: it is none.
        """
        if self.reader is None:
            raise InputError(
                f"{self.name} is a corpus of {self.kinds}, expected a text: `elman data` tells "
                "what each corpus holds."
            )
        return self.reader

    @property
    def size(self) -> int:
        """The size of all files in bytes."""
        return sum(entry.size for entry in self.files.values())

    def paths(self, part: str | None = None) -> list[Path]:
        """Return the files in reading order, downloading those that are nowhere on the machine.

        Args:
            part: of which part, where it comes in parts; all files are of "train" where not.

        Raises:
            ElmanError: a file in ``ELMAN_DATA`` is not the one expected, or a download failed.
        """
        files = self.parts.get(part, ()) if part and self.parts else self.files
        if self.shipped:
            return [FILES / path for path in files]
        found = {path: self._in_data_folder(path) or self._in_cache(path) for path in files}
        missing = {path: self.files[path] for path, place in found.items() if place is None}
        if missing:
            addresses = {path: self._address(path) for path in missing}
            folder = download(self.name, addresses, missing, self.folder)
            found |= {path: folder / path for path in missing}
        return [place for place in found.values() if place is not None]

    def blocks(self) -> Iterator[str]:
        """Yield the text in blocks; fetches the files first where needed."""
        yield from self.text()(self.paths())

    def _address(self, path: str) -> str:
        base = self.elsewhere.get(path, self.base)
        if not base:
            raise ElmanError(
                f"{self.name} has a file that cannot be downloaded as it is, {path}: put it in "
                f"FOLDER/{self.folder} and set ELMAN_DATA to FOLDER."
            )
        return base + path

    def _in_data_folder(self, path: str) -> Path | None:
        place = _place(_data_folder(), self.folder, path)
        if place is None:
            return None
        digest = _digest(place)
        if digest != self.files[path].sha256:
            raise ElmanError(
                f"{place} has SHA-256 {digest}, expected {self.files[path].sha256}; put the right "
                f"file of {self.name} there, or unset ELMAN_DATA to download it."
            )
        return place

    def _in_cache(self, path: str) -> Path | None:
        place = _place(cache_folder(), self.folder, path)
        # A damaged file in the cache is simply downloaded anew.
        return place if place and _digest(place) == self.files[path].sha256 else None


def status(corpus: Corpus) -> str:
    """Say where the files are: "shipped", "in ELMAN_DATA", "cached" or "to download (1.1 MB)".

    Or "for ELMAN_DATA", where a file that is missing has no address.
    """
    if corpus.shipped:
        return "shipped"
    folders = _data_folder(), cache_folder()
    here, cached = (
        {path for path in corpus.files if _place(folder, corpus.folder, path)} for folder in folders
    )
    if len(here) == len(corpus.files):
        return "in ELMAN_DATA"
    missing = {
        path: entry.size for path, entry in corpus.files.items() if path not in here | cached
    }
    if not all(corpus.elsewhere.get(path, corpus.base) for path in missing):
        return "for ELMAN_DATA"
    return f"to download ({sum(missing.values()) / 1e6:.1f} MB)" if missing else "cached"


def _data_folder() -> Path | None:
    name = os.environ.get("ELMAN_DATA")
    if not name:
        return None
    if not Path(name).is_dir():
        raise ElmanError(
            f"ELMAN_DATA is {name}, expected a folder of corpora; correct it or unset it."
        )
    return Path(name)


def _place(root: Path | None, folder: str, path: str) -> Path | None:
    if root is None:
        return None
    place = root / folder / path
    return place if place.is_file() else None


def _digest(path: Path) -> str:
    try:
        return checksums.sha256(path)
    except OSError as error:
        raise ElmanError(
            f"{path} could not be read ({error.strerror or error}); expected a file of a corpus "
            "that this user may open."
        ) from error
