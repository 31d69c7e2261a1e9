"""The two sides of a pair as a network knows them, and pairs side by side."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Self

import torch
from torch import Tensor

from elman.data.batches import pad
from elman.data.vocabulary import Vocabulary


class Side:
    """One side's tokens, as a network knows them: its vocabulary's, and the end.

    The end closes every sequence, and is what a decoder reads first.

    Attributes:
        vocabulary: of the side.
        end: the id of the end.
        size: how many tokens there are, the end among them.
    """

    def __init__(self, vocabulary: Vocabulary, lowercase: bool):
        self.vocabulary, self._lowercase = vocabulary, lowercase
        self.end, self.size = len(vocabulary), len(vocabulary) + 1

    def plain(self, text: str) -> str:
        """A text as it is read and written: in lower case, where that is wanted."""
        return text.lower() if self._lowercase else text

    def encode(self, text: str) -> list[int]:
        """The ids of a text, without the end."""
        ids: list[int] = self.vocabulary.encode_text(self.plain(text)).tolist()
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids."""
        return self.vocabulary.decode(ids).strip()

    def tokens(self, ids: Iterable[int]) -> list[str]:
        """The text of each id, for people to see."""
        return [self.decode([id]) for id in ids]

    def writable(self, device: torch.device) -> Tensor | None:
        """Which ids may be written, bool (size); None where all may."""
        unknown = self.vocabulary.unknown_id
        return None if unknown is None else torch.arange(self.size, device=device) != unknown


class Coded(NamedTuple):
    """A pair as ids, each side with its end, and the target as it is to be written."""

    source: list[int]
    target: list[int]
    reference: str


class Batch(NamedTuple):
    """Pairs side by side.

    Attributes:
        source: (S, B).
        lengths: (B) of the sources.
        previous: (T, B), the token in front of each of the targets.
        target: (T, B), −1 past the end.
        references: the targets as they are to be written.
        own: the probability that the decoder is fed a token of its own.
    """

    source: Tensor
    lengths: Tensor
    previous: Tensor
    target: Tensor
    references: list[str]
    own: float

    @classmethod
    def of(cls, pairs: Sequence[Coded], end: int, own: float = 0.0) -> Self:
        """Pairs side by side, the targets with what is read before them: ``end`` at first."""
        source, lengths = pad([pair.source for pair in pairs])
        target, _ = pad([pair.target for pair in pairs], -1)
        first = target.new_full((1, len(pairs)), end)
        previous = torch.cat([first, target[:-1].clamp(min=0)])
        return cls(source, lengths, previous, target, [pair.reference for pair in pairs], own)
