"""Byte pair encoding: frequent runs of bytes as tokens (Sennrich et al., 2016)."""

from __future__ import annotations

import codecs
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from elman.data.normalization import whole_words
from elman.data.vocabulary import Vocabulary
from elman.errors import ElmanError, InputError, one_line

DEFAULT_SIZE = 4096
# The trainer collects 256 pieces before it counts them, and an encoding takes many times its
# text's memory: small pieces keep both small.
_PIECE = 1 << 14
# Pairs are merged within words, in a time that grows with the square of the longest one. A word of
# a language has fewer bytes than this; a text without breaks would be one word.
_LONGEST = 256


class BytePairVocabulary(Vocabulary):
    """The 256 bytes and the pairs merged from them, the most frequent first; no text is unknown."""

    kind = "bpe"
    unknown_id = None

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        ids = tokenizer.get_vocab()
        self.tokens = sorted(ids, key=ids.__getitem__)
        if not _byte_letters().keys() <= ids.keys() or not _byte_letters().keys() >= set(
            "".join(ids)
        ):
            raise ValueError("its tokens are not made of the 256 bytes")

    @classmethod
    def _build(cls, blocks: Iterable[str], size: int | None, min_count: int) -> Vocabulary:
        size = DEFAULT_SIZE if size is None else size
        if size < 256:
            raise InputError(
                f"the size of the vocabulary is {size}, expected at least 256, a token for each "
                "byte; raise it, or choose other tokens."
            )
        tokenizer = Tokenizer(models.BPE())
        # After the bytes: each is a letter by then, and a cut within a character does no harm.
        cut = pre_tokenizers.Sequence(
            [
                pre_tokenizers.ByteLevel(add_prefix_space=False),
                pre_tokenizers.Split(Regex(f".{{1,{_LONGEST}}}"), "isolated"),
            ]
        )
        tokenizer.pre_tokenizer = cut
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=size,
            min_frequency=min_count,
            show_progress=False,
            initial_alphabet=sorted(_byte_letters()),
        )
        words: Counter[str] = Counter()

        def counted() -> Iterator[str]:
            for piece in _pieces(blocks):
                words.update(word for word, _ in cut.pre_tokenize_str(piece))
                yield piece

        tokenizer.train_from_iterator(counted(), trainer)
        return cls(_by_frequency(tokenizer, words))

    @classmethod
    def _restore(cls, content: Mapping[str, Any]) -> Vocabulary:
        try:
            return cls(Tokenizer.from_str(json.dumps(content["tokenizer"])))
        # tokenizers raises plain Exception for content that it cannot read.
        except Exception as error:
            raise ElmanError(
                f"the bpe vocabulary cannot be read ({one_line(error, 100)}), expected a "
                "byte-level tokenizer; restore the file from the run that wrote it."
            ) from error

    def _encode(self, blocks: Iterable[str]) -> Iterator[np.ndarray]:
        for piece in _pieces(blocks):
            yield np.array(self._tokenizer.encode(piece).ids, np.int32)

    def _decode_one(self) -> Callable[[int], str]:
        # A model may well generate bytes that are no UTF-8: they show as U+FFFD.
        utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        letters = _byte_letters()
        return lambda id: utf8.decode(bytes(letters[letter] for letter in self.token(id)))

    def _unseen(self, text: str) -> Iterable[str]:
        return ()

    def _content(self) -> dict[str, Any]:
        return {"tokenizer": json.loads(self._tokenizer.to_str())}


def _by_frequency(tokenizer: Tokenizer, words: Counter[str]) -> Tokenizer:
    """The same with the ids in the order of frequency, as adaptive softmax would have them.

    Args:
        tokenizer: with the ids in the order in which they were merged.
        words: how often each is there.
    """
    counts: Counter[int] = Counter()
    for word, count in words.items():
        for token in tokenizer.model.tokenize(word):
            counts[token.id] += count
    content = json.loads(tokenizer.to_str())
    ids = content["model"]["vocab"]
    ordered = sorted(ids, key=lambda token: (-counts[ids[token]], ids[token]))
    content["model"]["vocab"] = {token: id for id, token in enumerate(ordered)}
    return Tokenizer.from_str(json.dumps(content))


def _pieces(blocks: Iterable[str]) -> Iterator[str]:
    small = (
        block[start : start + _PIECE] for block in blocks for start in range(0, len(block), _PIECE)
    )
    for piece in whole_words(small):
        # Stray surrogates have no bytes in UTF-8.
        yield piece.encode("utf-8", "replace").decode("utf-8")


def _byte_letters() -> dict[str, int]:
    """Map the letter that byte-level tokenizers write for a byte to the byte (as GPT-2 does)."""
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    letters = {chr(byte): byte for byte in visible}
    hidden = [byte for byte in range(256) if byte not in set(visible)]
    return letters | {chr(256 + place): byte for place, byte in enumerate(hidden)}
