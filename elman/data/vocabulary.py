"""Vocabularies: text into token ids and back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from typing import Any, ClassVar

import numpy as np

from elman.data.lexicon import most_frequent
from elman.data.normalization import whole_words
from elman.data.words import (
    END,
    UNKNOWN,
    SpacedJoiner,
    WordJoiner,
    split_spaces,
    split_words,
)
from elman.errors import ElmanError, InputError, brief

KINDS = ("character", "word", "whitespace", "bpe")


class Decoder:
    """Turns ids into text one at a time; what it returns, put together, is the decoded text."""

    def __init__(self, push: Callable[[int], str]) -> None:
        self._push = push

    def push(self, id: int) -> str:
        """Return the text that this id adds; may be empty inside a character of many bytes.

        Raises:
            InputError: the id is outside the vocabulary.
        """
        return self._push(int(id))


class Vocabulary(ABC):
    """The tokens a model knows, by id.

    Attributes:
        kind: ``"character"``, ``"word"``, ``"whitespace"`` or ``"bpe"``.
        tokens: the tokens; a token's place is its id.
        unknown_id: the id of ``<unk>``; None where no text is unknown.
    """

    kind: ClassVar[str]
    tokens: list[str]
    unknown_id: int | None = 0

    @staticmethod
    def build(
        blocks: Iterable[str], kind: str, *, size: int | None = None, min_count: int = 1
    ) -> Vocabulary:
        """Collect the vocabulary of a text.

        Args:
            blocks: the text, cut anywhere.
            kind: ``"character"``: every character; ``"word"``: words and punctuation marks, and
                ``<eos>`` at the end of lines; ``"whitespace"``: whatever stands between white
                space, for pre-tokenised text; ``"bpe"``: byte pair encoding (Sennrich et al.,
                2016) of UTF-8 bytes, which leaves nothing unknown.
            size: at most this many tokens, special ones included; the most frequent stay.
                Default: all; 4096 for ``"bpe"``.
            min_count: rarer tokens (for ``"bpe"``: pairs) are left out; default 1.

        Raises:
            InputError: an argument is out of range.
        """
        if kind not in KINDS:
            raise _unknown_kind(kind)
        if min_count < 1:
            raise InputError(
                f"min_count is {min_count}, expected at least 1, which keeps every token; raise it."
            )
        return _subclass(kind)._build(blocks, size, min_count)

    @staticmethod
    def from_json(content: object) -> Vocabulary:
        """Restore a vocabulary from what ``to_json`` returned.

        Raises:
            ElmanError: the content is damaged.
        """
        if not isinstance(content, Mapping) or content.get("kind") not in KINDS:
            raise ElmanError(
                f"the vocabulary is {brief(content)}, expected a JSON object whose kind is one "
                f"of {', '.join(KINDS)}; restore the file from the run that wrote it."
            )
        return _subclass(content["kind"])._restore(content)

    def __len__(self) -> int:
        return len(self.tokens)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocabulary) and self.to_json() == other.to_json()

    def encode_text(self, text: str) -> np.ndarray:
        """Return the ids of a whole text, int32 (N)."""
        return np.concatenate([np.zeros(0, np.int32), *self.encode([text])])

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of these ids.

        Raises:
            InputError: an id is outside the vocabulary.
        """
        decoder = self.decoder()
        return "".join(map(decoder.push, ids))

    def encode(self, blocks: Iterable[str]) -> Iterator[np.ndarray]:
        """Yield the ids of the text, int32 arrays (N), the same however the blocks are cut."""
        return (ids for ids in self._encode(blocks) if len(ids))

    def decoder(self) -> Decoder:
        """Return a decoder for ids that arrive one at a time."""
        return Decoder(self._decode_one())

    def unseen(self, text: str) -> list[str]:
        """Return the characters or words of a text that have no id, in order, each once."""
        return list(dict.fromkeys(self._unseen(text)))

    def to_json(self) -> dict[str, Any]:
        """Return the vocabulary as plain JSON content."""
        return {"kind": self.kind, **self._content()}

    def token(self, id: int) -> str:
        """Return the token with this id.

        Raises:
            InputError: there is none.
        """
        if not 0 <= id < len(self.tokens):
            raise InputError(
                f"id {id} is outside the vocabulary, expected 0 to {len(self.tokens) - 1}; "
                "decode with the vocabulary that the ids were encoded with."
            )
        return self.tokens[id]

    @classmethod
    @abstractmethod
    def _build(cls, blocks: Iterable[str], size: int | None, min_count: int) -> Vocabulary: ...

    @classmethod
    @abstractmethod
    def _restore(cls, content: Mapping[str, Any]) -> Vocabulary: ...

    @abstractmethod
    def _encode(self, blocks: Iterable[str]) -> Iterator[np.ndarray]: ...

    @abstractmethod
    def _decode_one(self) -> Callable[[int], str]: ...

    @abstractmethod
    def _unseen(self, text: str) -> Iterable[str]: ...

    @abstractmethod
    def _content(self) -> dict[str, Any]: ...


class _Listed(Vocabulary):
    """A vocabulary that is a list of tokens, the special ones first."""

    special: ClassVar[tuple[str, ...]] = (UNKNOWN,)

    def __init__(self, tokens: Sequence[str]) -> None:
        self.tokens = list(tokens)
        self._ids = {token: id for id, token in enumerate(self.tokens)}

    @classmethod
    def _most_frequent(cls, counts: Mapping[str, int], size: int | None, min_count: int) -> Any:
        return cls(most_frequent(counts, cls.special, size, min_count))

    @classmethod
    def _restore(cls, content: Mapping[str, Any]) -> Vocabulary:
        tokens = content.get("tokens")
        valid = (
            isinstance(tokens, list)
            and all(isinstance(token, str) and cls._is_token(token) for token in tokens)
            and len(set(tokens)) == len(tokens)
            and tuple(tokens[: len(cls.special)]) == cls.special
        )
        if not valid:
            raise ElmanError(
                f"the {cls.kind} vocabulary has tokens {brief(tokens)}, expected a list of "
                f"different tokens that starts with {', '.join(cls.special)}; restore the file "
                "from the run that wrote it."
            )
        return cls(content["tokens"])

    @classmethod
    def _is_token(cls, token: str) -> bool:
        return bool(token)

    def _content(self) -> dict[str, Any]:
        return {"tokens": list(self.tokens)}

    def _split(self, text: str) -> Sequence[str]:
        return text

    def _unseen(self, text: str) -> Iterable[str]:
        return (token for token in self._split(text) if token not in self._ids)


class CharacterVocabulary(_Listed):
    """Every character a token; ``<unk>`` is 0, then the most frequent come first."""

    kind = "character"

    def __init__(self, tokens: Sequence[str]) -> None:
        super().__init__(tokens)
        codes = [ord(token) for token in self.tokens[1:]]
        self._table = np.zeros(max(codes, default=0) + 2, np.int32)
        self._table[codes] = np.arange(1, len(self.tokens), dtype=np.int32)

    @classmethod
    def _build(cls, blocks: Iterable[str], size: int | None, min_count: int) -> Vocabulary:
        counts = np.zeros(0x110000, np.int64)
        for block in blocks:
            found = np.bincount(_code_points(block))
            counts[: len(found)] += found
        codes = counts.nonzero()[0]
        return cls._most_frequent({chr(c): int(counts[c]) for c in codes}, size, min_count)

    @classmethod
    def _is_token(cls, token: str) -> bool:
        return len(token) == 1 or token == UNKNOWN

    def _encode(self, blocks: Iterable[str]) -> Iterator[np.ndarray]:
        # The table's last place is 0, <unk>, and stands for all characters beyond it.
        for block in blocks:
            yield self._table[np.minimum(_code_points(block), len(self._table) - 1)]

    def _decode_one(self) -> Callable[[int], str]:
        return self.token


class WordVocabulary(_Listed):
    """Words and punctuation marks; ``<unk>`` is 0, ``<eos>`` is 1 and stands for a line's end."""

    kind = "word"
    special = (UNKNOWN, END)

    # A method of the class: building needs it before there is a vocabulary.
    _split = staticmethod(split_words)
    _joiner: ClassVar[type[WordJoiner | SpacedJoiner]] = WordJoiner

    @classmethod
    def _build(cls, blocks: Iterable[str], size: int | None, min_count: int) -> Vocabulary:
        counts: Counter[str] = Counter()
        for piece in whole_words(blocks):
            counts.update(cls._split(piece))
        return cls._most_frequent(counts, size, min_count)

    def _encode(self, blocks: Iterable[str]) -> Iterator[np.ndarray]:
        line_start = True
        for ids in self._encode_pieces(blocks):
            # Empty lines leave nothing: neither at the start nor where two pieces meet.
            kept = ids[1:] if line_start and ids[:1] == [1] else ids
            if kept:
                line_start = kept[-1] == 1
            yield np.array(kept, np.int32)

    def _encode_pieces(self, blocks: Iterable[str]) -> Iterator[list[int]]:
        known = self._ids.get
        for piece in whole_words(blocks):
            yield [known(token, 0) for token in self._split(piece)]

    def _decode_one(self) -> Callable[[int], str]:
        joiner = self._joiner()
        return lambda id: joiner.push(self.token(id))


class WhitespaceVocabulary(WordVocabulary):
    """Whatever stands between white space, and ``<eos>`` at the end of every line."""

    kind = "whitespace"
    _split = staticmethod(split_spaces)
    _joiner = SpacedJoiner

    def _encode(self, blocks: Iterable[str]) -> Iterator[np.ndarray]:
        return (np.array(ids, np.int32) for ids in self._encode_pieces(blocks))


def _subclass(kind: str) -> type[Vocabulary]:
    if kind in _ELSEWHERE:
        module, _, name = _ELSEWHERE[kind].rpartition(".")
        found: type[Vocabulary] = getattr(import_module(module), name)
        return found
    listed = (CharacterVocabulary, WordVocabulary, WhitespaceVocabulary)
    return next(vocabulary for vocabulary in listed if vocabulary.kind == kind)


# What takes a while to import, while most runs work with characters.
_ELSEWHERE = {"bpe": "elman.data.bytepairs.BytePairVocabulary"}


def _code_points(text: str) -> np.ndarray:
    # Stray surrogates come from file names and terminals; they are characters like any other.
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4").astype(np.int64)


def _unknown_kind(kind: str) -> InputError:
    return InputError(f"kind is {kind!r}, expected one of {', '.join(KINDS)}; choose one.")
