"""The registry of corpora that elman knows by name.

Files come from the package itself, from the folder that ``ELMAN_DATA`` names, from the user's
cache, or from a pinned address, in this order. To add a corpus: put its files in the folder that
``ELMAN_DATA`` names, enter their checksums with ``python -m elman.data.checksums``, and add one
entry to ``CORPORA``.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from elman.data import checksums, readers
from elman.data.checksums import FILES, Entry
from elman.data.download import cache_folder, download
from elman.errors import ElmanError, InputError

Reader = Callable[[Sequence[Path]], Iterator[str]]
RecordReader = Callable[[Sequence[Path]], Iterable[Any]]


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
        files: file path → size in bytes and SHA-256, in reading order.
        reader: turns the files, in the same order, into blocks of text; None where it is no text.
        shipped: whether its files come with the package.
        records: what turns files into records, by the name of their kind; see
            :class:`elman.data.records.Kind`.
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
    records: Mapping[str, RecordReader] = field(default_factory=dict)
    parts: Mapping[str, Sequence[str]] = field(default_factory=dict)

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
            folder = download(self.name, self.base, missing, self.folder)
            found |= {path: folder / path for path in missing}
        return [place for place in found.values() if place is not None]

    def blocks(self) -> Iterator[str]:
        """Yield the text in blocks; fetches the files first where needed."""
        yield from self.text()(self.paths())

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
    """Say where the files are: "shipped", "in ELMAN_DATA", "cached" or "to download (1.1 MB)"."""
    if corpus.shipped:
        return "shipped"
    folders = _data_folder(), cache_folder()
    here, cached = (
        {path for path in corpus.files if _place(folder, corpus.folder, path)} for folder in folders
    )
    if len(here) == len(corpus.files):
        return "in ELMAN_DATA"
    missing = [corpus.files[path].size for path in corpus.files if path not in here | cached]
    return f"to download ({sum(missing) / 1e6:.1f} MB)" if missing else "cached"


def find(name: str) -> Corpus:
    """Return the corpus of that name.

    Raises:
        InputError: there is none; the message lists the names that come close.
    """
    if name in CORPORA:
        return CORPORA[name]
    raise InputError(
        f"{name!r} is not the name of a corpus{did_you_mean(name, CORPORA)}; "
        "`elman data` lists them all."
    )


def did_you_mean(word: str, candidates: Mapping[str, object] | Sequence[str]) -> str:
    """Return " (did you mean …?)" with the candidates that come close, or nothing."""
    names = list(candidates)
    holding = [name for name in names if len(word) > 2 and word.lower() in name.lower()]
    close = [*dict.fromkeys(holding + difflib.get_close_matches(word.lower(), names))][:3]
    return f" (did you mean {' or '.join(close)}?)" if close else ""


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


_CHECKSUMS = checksums.load()
_GITHUB = "https://raw.githubusercontent.com"
_POETRY = f"{_GITHUB}/chinese-poetry/chinese-poetry/99ebbef7e1345c0985c44b9fd96a3f9e776f117b"


def _corpus(
    name: str,
    title: str,
    *,
    licence: str,
    language: str,
    folder: str,
    base: str,
    reader: Reader | None = readers.plain,
    shipped: bool = False,
    records: Mapping[str, RecordReader] | None = None,
    parts: Mapping[str, Sequence[str]] | None = None,
) -> Corpus:
    files = _CHECKSUMS[name]
    return Corpus(
        name, title, licence, language, folder, base, files, reader, shipped,
        records or {}, parts or {},
    )  # fmt: skip


CORPORA: dict[str, Corpus] = {
    corpus.name: corpus
    for corpus in (
        _corpus(
            "time-machine",
            "The Time Machine, H. G. Wells (1895)",
            licence="public domain",
            language="en",
            folder="timemachine",
            base=f"{_GITHUB}/d2l-ai/d2l-zh/5918a8b9e8dd92e5085c15118e76c919b04f09a7/data/",
            shipped=True,
        ),
        _corpus(
            "tiny-shakespeare",
            "Shakespeare's plays, 40,000 lines of them",
            licence="public domain",
            language="en",
            folder="tinyshakespeare",
            base=f"{_GITHUB}/karpathy/char-rnn/6f9487a6fe5b420b7ca9afb0d7c078e37c1d1b4e"
            "/data/tinyshakespeare/",
        ),
        _corpus(
            "wikitext-2",
            "WikiText-2, the validation and test parts only, pre-tokenised",
            licence="CC BY-SA",
            language="en",
            folder="wikitext2",
            base=f"{_GITHUB}/pytorch/examples/77f55b912142e11fcfdf5b530231fb9c52f181e8"
            "/word_language_model/data/wikitext-2/",
        ),
        _corpus(
            "brown",
            "Brown corpus: 500 texts of American English of 1961, without the tags",
            licence="redistribution permitted",
            language="en",
            folder="brown",
            base=f"{_GITHUB}/teropa/nlp/f89bc5a15b516208de1cfe2abe9692b7ed9a43e2"
            "/resources/corpora/brown/",
            reader=readers.brown,
        ),
        _corpus(
            "song-lyrics",
            "宋词: lyrics of the Song dynasty, 20,000 of them, each under its tune's name",
            licence="MIT",
            language="zh",
            folder="chinese-poetry/宋词",
            base=f"{_POETRY}/宋词/",
            reader=readers.song_lyrics,
        ),
        _corpus(
            "tang-poems",
            "唐诗: the first 10,000 poems of the Complete Tang Poems, in traditional characters",
            licence="MIT",
            language="zh",
            folder="chinese-poetry/唐诗",
            base=f"{_POETRY}/全唐诗/",
            reader=readers.tang_poems,
        ),
        _corpus(
            "word-similarities",
            "SimLex-999 and RG-65: how similar people find two English words",
            licence="free for research",
            language="en",
            folder="word-vectors",
            base=f"{_GITHUB}/mfaruqui/eval-word-vectors/09a5106f50818c0f4ad0a597d8c7d333ec0659fb"
            "/data/word-sim/",
            reader=None,
            records={"judgements": list},  # gensim's scorers read the files themselves
        ),
        _corpus(
            "word-analogies",
            "19,544 questions such as Athens : Greece = Baghdad : ?",
            licence="Apache-2.0",
            language="en",
            folder="word-vectors",
            base=f"{_GITHUB}/dav/word2vec/fb150971c2accbe86c3c6b0a86a57804807f8ec4/data/",
            reader=None,
            records={"judgements": list},
        ),
    )
}
