"""Records to learn from, such as labelled sentences: read from files, split into parts."""

from __future__ import annotations

import logging
import os
import zlib
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from elman.data.corpora import CORPORA
from elman.data.place import Place as Place
from elman.data.text import STDIN, neither, standard_input
from elman.data.utf8 import BLOCK, ending_of
from elman.errors import ElmanError, InputError

_logger = logging.getLogger("elman")

Record = TypeVar("Record")
Reader = Callable[[Path, str], Iterable[Record]]
"""From a file, and what errors call it, to its records."""

FOLDER = "/"
"""The ending, among those of a kind, that stands for folders."""

ANY = "*"
"""The ending, among those of a kind, that stands for all files with another one."""


class File(NamedTuple):
    """A file that was named, what errors call it, and the ending that tells its format."""

    path: Path
    name: str
    ending: str


def _first(record: Any) -> Any:
    return record[0]


@dataclass(frozen=True)
class Kind(Generic[Record]):
    """A kind of record, and how its files are read.

    Attributes:
        name: what corpora of it are filed under, such as "labels".
        what: what its records are, such as "labelled sentences".
        readers: by the ending of a file, such as ".tsv"; that of standard input is the first.
        gather: from the files that were named to their records; by default one after the other.
        given: what of a record a model is given, the rest being what it should tell; by default
            the first field.
    """

    name: str
    what: str
    readers: Mapping[str, Reader[Record]]
    gather: Callable[[Kind[Record], Sequence[File]], Iterable[Record]] | None = None
    given: Callable[[Record], Any] = _first

    def read(
        self, names: Sequence[str], part: str = "train", kept: Path | None = None
    ) -> list[Record]:
        """The records of files, corpora and standard input, in order.

        Args:
            names: of files and folders, of corpora, or - for standard input.
            part: which part of a corpus that comes in parts.
            kept: the file that has what standard input was, where that is one of them.

        Raises:
            ElmanError: one of them is missing, in another format, or damaged; none has a record.
        """
        found: list[Record] = []
        files: list[File] = []
        for name in names:
            if self._is_corpus(name):
                corpus = CORPORA[name]
                read, paths = corpus.records[self.name], corpus.paths(part)
                if not paths:
                    raise InputError(
                        f"{name} has no {part} part, expected {self.what}: name other data."
                    )
                found += read(paths, part) if read else self._gathered(self._files(paths))
            else:
                files.append(self._file(name, kept))
        found += self._gathered(files)
        if not found and files:
            named = ", ".join(file.name for file in files)
            raise ElmanError(f"{named} has no {self.what}, expected some: name another file.")
        return found

    def ending(self, path: Path) -> str:
        """The ending, among those of the kind, that tells how to read a file; or its own.

        That of a packed file is what stands before .gz, .bz2 or .xz; capitals do not matter.
        """
        ending = FOLDER if path.is_dir() else ending_of(path)
        unknown = ending not in self.readers and ending != FOLDER
        return ANY if unknown and ANY in self.readers else ending

    def _files(self, paths: Sequence[Path]) -> list[File]:
        return [File(path, path.name, self.ending(path)) for path in paths]

    def _gathered(self, files: Sequence[File]) -> Iterable[Record]:
        return self.gather(self, files) if self.gather else self.each(files)

    def each(self, files: Sequence[File]) -> Iterator[Record]:
        """The records of files, one after the other."""
        for file in files:
            yield from self.readers[file.ending](file.path, file.name)

    def key(self, record: Record) -> Hashable:
        """What records have in common of which one tells what another should: what is given."""
        given = self.given(record)
        return hash(given.tobytes()) if hasattr(given, "tobytes") else given

    def comes_in_parts(self, names: Sequence[str], part: str) -> bool:
        """Whether one of these is a corpus with a part of its own of that name."""
        return any(self._is_corpus(name) and CORPORA[name].parts.get(part) for name in names)

    def checksum(self, name: str, part: str, kept: Path | None = None) -> int:
        """A number that changes with the content of what is named."""
        if self._is_corpus(name):
            paths: Sequence[Path] = CORPORA[name].paths(part)
        else:
            path = self._file(name, kept).path
            paths = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        total = 0
        for path in paths:
            with path.open("rb") as file:
                for block in iter(partial(file.read, BLOCK), b""):
                    total = zlib.crc32(block, total)
        return total

    def _is_corpus(self, name: str) -> bool:
        """Whether it is the name of a corpus and of nothing on disk.

        Raises:
            InputError: it is one of another kind.
        """
        if os.path.exists(name) or name not in CORPORA:
            return False
        corpus = CORPORA[name]
        if self.name not in corpus.records:
            raise InputError(
                f"{name} is a corpus of {corpus.kinds}, expected {self.what}: `elman data` tells "
                "what each corpus holds."
            )
        return True

    def _file(self, name: str, kept: Path | None) -> File:
        if name == STDIN:
            return File(kept or standard_input(), "standard input", next(iter(self.readers)))
        path = Path(name)
        if not path.exists():
            raise neither(path)
        ending = self.ending(path)
        if ending not in self.readers:
            what = "is a folder" if path.is_dir() else f"ends in {ending or 'nothing'}"
            endings = [e for e in self.readers if e != FOLDER]
            raise InputError(
                f"{name} {what}, expected {self.what} in a file that ends in one of "
                f"{', '.join(endings)}: name it so, or convert it."
            )
        if not path.is_dir() and not path.is_file():
            raise ElmanError(f"{name} is not a regular file: save it to one and name that.")
        return File(path, name, ending)


class DataNames(Protocol):
    """What :class:`Parts` reads of a job's settings; see ``elman.training.settings``."""

    validation: float
    validation_data: list[str]
    test_data: list[str]


class Parts(Generic[Record]):
    """The records of a job's data by part, read when they are first asked for.

    What is held out is ``validation_data`` where that is named, else the part that a corpus has for
    it, else a share of all records, evenly spread: files are often sorted by label. What is given
    twice, such as a sentence with two translations, is on one side of these with both.

    Args:
        kind: of the records.
        data: what is learned from, by name.
        settings: with ``validation``, ``validation_data`` and ``test_data``.
        kept: the file that a run has kept of standard input, where that is named.
    """

    def __init__(
        self, kind: Kind[Record], data: Sequence[str], settings: DataNames, kept: Path | None = None
    ):
        self.kind, self.data, self.settings, self.kept = kind, list(data), settings, kept
        self._read: dict[str, list[Record]] = {}

    def __getitem__(self, part: str) -> list[Record]:
        """The records of "train", "validation" or "test"; none where there is no such part."""
        if part not in self._read:
            names = self._names(part)
            if names is None:
                self._hold_out()
            else:
                self._read[part] = self.kind.read(names, part, self.kept) if names else []
        return self._read[part]

    def fingerprints(self) -> dict[str, int]:
        """A checksum of everything that was named, by what it is for."""
        found = {}
        for part in ("train", "validation", "test"):
            for name in self.data if part == "train" else self._names(part) or []:
                label = name if part == "train" else f"{name} ({part})"
                found[label] = self.kind.checksum(name, part, self.kept)
        return found

    def _names(self, part: str) -> list[str] | None:
        """What has the records of a part; None where they are a share of one reading."""
        its, kind = self.settings, self.kind
        given = {"validation": its.validation_data, "test": its.test_data}.get(part)
        if given:
            return given
        if part != "train" and kind.comes_in_parts(self.data, part):
            return [name for name in self.data if kind.comes_in_parts([name], part)]
        own = its.validation_data or kind.comes_in_parts(self.data, "validation")
        if part == "test" or (part == "validation" and (own or not its.validation)):
            return []
        return self.data if own or not its.validation else None

    def _hold_out(self) -> None:
        every = self.kind.read(self.data, "train", self.kept)
        train, held_out = spread(every, self.settings.validation, self.kind.key)
        if not train:
            raise ElmanError(
                f"of {len(every):,} {self.kind.what} none is left to learn from: give more, or "
                "lower `validation`."
            )
        if not held_out:
            _logger.info(
                "nothing is held out: there are too few different %s for a share of %g.",
                self.kind.what, self.settings.validation,
            )  # fmt: skip
        self._read |= {"train": train, "validation": held_out}


def spread(
    records: Iterable[Record],
    share: float,
    key: Callable[[Record], Hashable] = lambda record: record,
) -> tuple[list[Record], list[Record]]:
    """All but a share of the records, and that share, evenly spread over them.

    Record k is held out where the fractional part of (k + 1) φ, φ the golden ratio, is below the
    share: so are as many of any run of records, and of every second or third one, too. Records of
    the same key go with the first of them.
    """
    kept: list[Record] = []
    held_out: list[Record] = []
    sides: dict[Hashable, list[Record]] = {}
    for k, record in enumerate(records):
        side = held_out if (k + 1) * _GOLDEN % 1 < share else kept
        sides.setdefault(key(record), side).append(record)
    return kept, held_out


_GOLDEN = (5**0.5 - 1) / 2
