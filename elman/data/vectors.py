"""Word vectors: read from where they were learned, written, and laid out as an embedding."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load
from torch import Tensor

from elman.data.utf8 import BLOCK, read_text, unpacked
from elman.data.vocabulary import Vocabulary
from elman.data.words import END, UNKNOWN
from elman.errors import ElmanError, InputError
from elman.files import write_bytes

WEIGHTS = "embedding.weight"
"""What a run's model calls its embedding."""

_HEADER = re.compile(rb"(\d{1,12}) (\d{1,9})\s*")
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1f]")
_PICKLE = b"\x80"
# No word is longer, in bytes; what is, is a damaged file.
_LONGEST = 1 << 16

_logger = logging.getLogger("elman")


class Vectors(NamedTuple):
    """Words and their vectors, usually the most frequent first.

    Attributes:
        name: where they are from.
        words: N different ones.
        matrix: float32 (N, width), a row a word.
    """

    name: str
    words: list[str]
    matrix: np.ndarray

    @property
    def width(self) -> int:
        """The length of each vector."""
        return int(self.matrix.shape[1])


class Table(NamedTuple):
    """What an embedding starts from.

    Attributes:
        weight: float32 (N, width), a row a name.
        known: bool (N), whether the row is a vector that was read.
    """

    weight: Tensor
    known: Tensor


def read_vectors(path: Path | str) -> Vectors:
    """Read word vectors; the format is told by the content, not by the file's name.

    Args:
        path: a file in word2vec's text format, which fastText's ``.vec`` is too, in word2vec's
            binary format, or in that of GloVe, a word and its numbers a line; gzip, bzip2 or xz may
            have packed it. Or the folder of a run whose model has an embedding, as those of
            ``elman train embed``. Nothing is ever unpickled.

    Returns:
        the vectors in the order of the file; of a word that comes twice, the first.

    Raises:
        ElmanError: it is missing, damaged, or in another format; the message names the line.
    """
    path = Path(path)
    if path.is_dir():
        return _of_run(path)
    try:
        with unpacked(path) as file:
            first, sample = file.readline(BLOCK), file.read(4096)
    except (OSError, EOFError) as error:
        why = getattr(error, "strerror", None) or error
        raise ElmanError(
            f"the word vectors {str(path)!r} cannot be read ({why}): name a file in word2vec's or "
            "GloVe's format, or the folder of a run."
        ) from error
    if first.startswith(_PICKLE):
        raise ElmanError(
            f"{path} is a pickle, as gensim saves its own, which may execute code and is never "
            "opened: convert it with gensim's KeyedVectors.save_word2vec_format."
        )
    header = _HEADER.fullmatch(first)
    if header and not _is_text(sample):
        return _distinct(str(path), *_binary(path, int(header[1]), int(header[2])))
    return _distinct(str(path), *_text(path, header))


def write_vectors(path: Path, words: Sequence[str], matrix: np.ndarray) -> None:
    """Write vectors in word2vec's text format, which gensim, spaCy, fastText and others read.

    Args:
        path: the file.
        words: N of them, without white space.
        matrix: (N, width).

    Raises:
        ElmanError: it cannot be written.
    """
    lines = (
        " ".join([word, *(f"{x:.7g}" for x in row)])
        for word, row in zip(words, matrix, strict=True)
    )
    text = "\n".join([f"{len(words)} {matrix.shape[1]}", *lines]) + "\n"
    write_bytes(path, text.encode())


def table(
    names: Sequence[str], vectors: Vectors, width: int, generator: torch.Generator | None = None
) -> Table:
    """The weights that an embedding of these names starts from, and which of them are known.

    A name that has no vector takes that of its lower-cased form. The others are drawn from a
    normal distribution with the mean and the standard deviation of all the vectors' numbers, so
    that they look alike. How many were found is logged.

    Args:
        names: of the rows, by id; those of a lexicon or a vocabulary.
        vectors: from :func:`read_vectors`.
        width: of the embedding, which must be that of the vectors.
        generator: of the draws; by default PyTorch's.

    Raises:
        InputError: the vectors have another width.
        ElmanError: none of the names has a vector.
    """
    if vectors.width != width:
        raise InputError(
            f"the vectors of {vectors.name} have width {vectors.width}, expected {width}, that of "
            f"the embedding: set that to {vectors.width}, or give other vectors."
        )
    place = {word: k for k, word in enumerate(vectors.words)}
    rows = [place.get(name, place.get(name.lower(), -1)) for name in names]
    found = torch.tensor(rows, dtype=torch.long)
    known = found >= 0
    if not known.any():
        raise ElmanError(
            f"none of {len(names):,} words has a vector in {vectors.name}: give vectors of the "
            "language and the spelling of the data."
        )
    _logger.info(
        "%s of %s words (%.1f %%) have a vector in %s.",
        f"{int(known.sum()):,}", f"{len(names):,}", 100 * float(known.float().mean()), vectors.name,
    )  # fmt: skip
    weight = torch.randn(len(names), width, generator=generator)
    weight = weight * float(vectors.matrix.std()) + float(vectors.matrix.mean())
    weight[known] = torch.from_numpy(vectors.matrix[found[known].numpy()])
    return Table(weight, known)


def _is_text(sample: bytes) -> bool:
    """Whether what follows a header is text; numbers of four bytes are hardly ever."""
    if _CONTROL.search(sample):
        return False
    try:
        sample.decode()
    except UnicodeDecodeError as error:
        return error.end == len(sample) and error.reason == "unexpected end of data"
    return True


def _text(path: Path, header: re.Match[bytes] | None) -> tuple[list[str], np.ndarray]:
    """The vectors of a text: behind a header, where there is one, a word and its numbers a line."""
    words: list[str] = []
    rows: list[np.ndarray] = []
    width = int(header[2]) if header else 0
    for number, line in enumerate(_lines(read_text(path)), start=1):
        # Only spaces part: words hold other white space, and in GloVe's files spaces, too.
        fields = line.rstrip(" ").split(" ")
        if (header and number == 1) or not line.strip():
            continue
        width = width or len(fields) - 1
        if len(fields) <= width or not width:
            raise ElmanError(
                f"{path}, line {number}: received {len(fields) - 1} numbers behind a word, "
                f"expected {width or 'some'}, as in the lines before; mend it or fetch it anew."
            )
        try:
            row = np.array(fields[-width:], np.float32)
        except ValueError:
            raise ElmanError(
                f"{path}, line {number}: received {line[:40]!r}, expected a word and {width} "
                "numbers with spaces between; give word2vec's or GloVe's format."
            ) from None
        if not np.isfinite(row).all():
            raise ElmanError(f"{path}, line {number}: a number is not finite; mend it.")
        words.append(" ".join(fields[:-width]))
        rows.append(row)
    if not rows or (header and len(rows) != int(header[1])):
        expected = f"{int(header[1]):,}, as its first line says" if header else "some"
        raise ElmanError(f"{path} has {len(rows):,} vectors, expected {expected}; fetch it anew.")
    return words, np.stack(rows)


def _lines(blocks: Iterable[str]) -> Iterator[str]:
    """The lines of a text; of no other characters than \\n, which a word may hold."""
    held = ""
    for block in blocks:
        *whole, held = (held + block).split("\n")
        yield from whole
    if held:
        yield held


def _binary(path: Path, count: int, width: int) -> tuple[list[str], np.ndarray]:
    """The vectors of word2vec's binary format: a word, a space and the bytes of its numbers."""
    size = 4 * width
    words: list[str] = []
    rows: list[np.ndarray] = []
    with unpacked(path) as file:
        file.readline()
        for word, numbers in _entries(file, size):
            words.append(word.decode(errors="replace"))
            rows.append(np.frombuffer(numbers, "<f4"))
            if len(words) == count:
                break
    if len(words) < count or not words:
        raise ElmanError(
            f"{path} ends after {len(words):,} vectors, expected {count:,} of {width} numbers, as "
            "its first line says; fetch it anew."
        )
    matrix = np.stack(rows).astype(np.float32)
    if not np.isfinite(matrix).all():
        bad = int((~np.isfinite(matrix)).any(1).argmax())
        raise ElmanError(f"{path}, vector {bad + 1}: a number is not finite; fetch it anew.")
    return words, matrix


def _entries(file: IO[bytes], size: int) -> Iterator[tuple[bytes, bytes]]:
    """Words and the ``size`` bytes behind each; ends where one is cut off."""
    held, at = b"", 0
    while True:
        if len(held) - at < _LONGEST + size:
            held, at = held[at:] + file.read(max(BLOCK, _LONGEST + size)), 0
        end = held.find(b" ", at, at + _LONGEST)
        if end < 0 or len(held) < end + 1 + size:
            return
        # Some writers put a line's end behind each vector.
        yield held[at:end].lstrip(b"\n"), held[end + 1 : end + 1 + size]
        at = end + 1 + size


def _of_run(folder: Path) -> Vectors:
    """The embedding of a run's model, without the vocabulary's special tokens."""
    try:
        weights = load((folder / "model.safetensors").read_bytes())
        described = json.loads((folder / "assets" / "vocabulary.json").read_text(encoding="utf-8"))
    except (OSError, SafetensorError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise ElmanError(
            f"{folder} has no word vectors ({why}): expected the folder of a run of "
            "`elman train embed`, or a file of vectors."
        ) from error
    words, matrix = Vocabulary.from_json(described).tokens, weights.get(WEIGHTS)
    if matrix is None or matrix.shape[:1] != (len(words),):
        raise ElmanError(
            f"{folder} has no embedding of its {len(words):,} words: expected the folder of a run "
            "of `elman train embed`."
        )
    kept = [k for k, word in enumerate(words) if word not in (UNKNOWN, END)]
    return Vectors(str(folder), [words[k] for k in kept], matrix[kept].astype(np.float32))


def _distinct(name: str, words: list[str], matrix: np.ndarray) -> Vectors:
    """The vectors without words that come again; how many those are is logged."""
    first = list({word: k for k, word in reversed(list(enumerate(words)))}.values())[::-1]
    if len(first) < len(words):
        again = len(words) - len(first)
        _logger.info("%s: words that come again: %s; only their first vector counts.", name, again)
        words, matrix = [words[k] for k in sorted(first)], matrix[sorted(first)]
    return Vectors(name, words, matrix)
