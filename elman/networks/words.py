"""Words as vectors: an embedding of whole words, and beside it what their characters tell."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor, nn

from elman.data.batches import pad
from elman.data.lexicon import PAD, Lexicon, most_frequent
from elman.data.vectors import Vectors, read_vectors, table
from elman.data.words import UNKNOWN
from elman.errors import ElmanError, InputError, brief
from elman.layers.dropout import between_layers
from elman.layers.pooling import Pooling
from elman.layers.sequences import mask_of
from elman.training.network import NetworkSettings, make_recurrent
from elman.training.settings import Settings, option

_logger = logging.getLogger("elman")

SPECIAL = (PAD, UNKNOWN)
"""The names of the first ids of words and of characters."""

_PAD, _UNKNOWN = range(2)

CHARACTERS = ("conv", "recurrent")
"""What can read the characters of words."""


@dataclass
class WordSettings(Settings):
    """How words become vectors."""

    panel: ClassVar[str] = "Words"

    embedding: int = option(100, "Width of the word embedding.", least=1, below=2**31)
    embedding_from: str | None = option(
        None,
        "Word vectors to start from, whose width the embedding takes: a file in word2vec's or "
        "GloVe's format, or a run of embed.",
    )
    frozen: bool = option(False, "Leave the vectors of embedding_from as they are.")
    lower: bool = option(False, "Look words up in lower case; their characters stay as they are.")
    min_count: int = option(1, "Words that are rarer become <unk>.", least=1)
    vocabulary_size: int | None = option(
        None, "At most so many words, the most frequent, such as 10000.", least=3
    )
    word_dropout: float = option(
        0.0, "Share of words that become <unk> while training, so that it is learned.",
        least=0, below=1,
    )  # fmt: skip
    embedding_dropout: float = option(0.0, "Dropout of the words' vectors.", least=0, below=1)
    characters: str = option(
        "none", "What reads a word's characters.", choices=("none", *CHARACTERS)
    )
    character_embedding: int = option(
        30, "Width of a character.", least=1, below=2**31, only=("characters", *CHARACTERS)
    )
    character_hidden: int = option(
        50, "Filters of conv, units of each direction of recurrent.",
        least=1, below=2**31, only=("characters", *CHARACTERS),
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.frozen and not self.embedding_from:
            raise InputError("`frozen` is for the vectors of `embedding_from`: name some.")


class WordBatch(NamedTuple):
    """B sentences of words.

    Attributes:
        ids: (T, B), of the words; 0 past the end.
        lengths: (B).
        distinct: (T, B), which of the N distinct words of the batch stands there.
        characters: (C, N), ids of the characters of those; 0 past the end.
        sizes: (N), how many characters each of them has.
    """

    ids: Tensor
    lengths: Tensor
    distinct: Tensor
    characters: Tensor
    sizes: Tensor


class Words:
    """The words and the characters that a model knows, and sentences as batches of their ids.

    Args:
        words: with ``<pad>`` and ``<unk>`` as the first two.
        characters: likewise.
        lower: words are looked up in lower case.
    """

    def __init__(self, words: Lexicon, characters: Lexicon, lower: bool = False):
        self.words, self.characters, self.lower = words, characters, lower

    @classmethod
    def collect(
        cls,
        sentences: Iterable[Sequence[str]],
        settings: WordSettings,
        vectors: Vectors | None = None,
    ) -> Self:
        """Collect what sentences have.

        Args:
            sentences: to learn from.
            settings: which words are kept, and whether their case is.
            vectors: their words are known, too, behind those of the sentences.

        Raises:
            InputError: no word is as frequent as ``min_count`` asks.
        """
        every = list(chain.from_iterable(sentences))
        size = settings.vocabulary_size
        cased = (word.lower() for word in every) if settings.lower else every
        counts = Counter(cased)
        words = Lexicon(most_frequent(counts, SPECIAL, size, settings.min_count))
        learned = settings.word_dropout or UNKNOWN in counts or words.unseen(counts)
        if not learned:
            _logger.info(
                "%s is nowhere in what is learned from, so the vector of words never seen stays as "
                "it was drawn: `word_dropout` 0.1 or `min_count` 2 would teach it.", UNKNOWN,
            )  # fmt: skip
        if vectors is not None:
            others = (word for word in vectors.words if not settings.lower or word == word.lower())
            words = Lexicon([*words, *words.unseen(others)][:size])
        return cls(words, Lexicon.count(chain.from_iterable(every), SPECIAL), settings.lower)

    def batch(self, sentences: Sequence[Sequence[str]]) -> WordBatch:
        """Sentences side by side, in one step at least."""
        places: dict[str, int] = {}
        distinct = [[places.setdefault(w, len(places)) for w in words] for words in sentences]
        known = list(places) or [""]  # of sentences that are all empty
        ids = self.words.ids(word.lower() if self.lower else word for word in known)
        where, lengths = pad([torch.tensor(each, dtype=torch.long) for each in distinct], least=1)
        spelt = [torch.tensor(self.characters.ids(word), dtype=torch.long) for word in known]
        spelled, sizes = pad(spelt, least=1)
        inside = mask_of(where, lengths)
        return WordBatch(torch.tensor(ids)[where] * inside, lengths, where, spelled, sizes)

    def to_json(self) -> dict[str, Any]:
        """The names as plain JSON content."""
        return {
            "words": self.words.to_json(),
            "characters": self.characters.to_json(),
            "lower": self.lower,
        }

    @classmethod
    def from_json(cls, content: object) -> Self:
        """Restore what ``to_json`` returned.

        Raises:
            ElmanError: the content is damaged.
        """
        parts = ("words", "characters", "lower")
        if not isinstance(content, Mapping) or any(part not in content for part in parts):
            raise ElmanError(
                f"the words are {brief(content)}, expected {', '.join(parts)}; restore the file "
                "from the run that wrote it."
            )
        words, characters, lower = (content[part] for part in parts)
        return cls(Lexicon.from_json(words), Lexicon.from_json(characters), bool(lower))


class Lookup(nn.Embedding):
    """An embedding of names, the first two ``<pad>``, which is 0, and ``<unk>``.

    It starts uniform with variance 1 / width (Ma & Hovy, 2016).

    Args:
        count: how many names there are.
        width: of their vectors.
        unknown: share of the names that are taken for ``<unk>`` while training.
    """

    def __init__(self, count: int, width: int, unknown: float = 0.0):
        self.unknown = unknown
        super().__init__(count, width, padding_idx=_PAD)

    def reset_parameters(self) -> None:
        """Draw the weights."""
        bound = (3 / self.embedding_dim) ** 0.5
        with torch.no_grad():
            self.weight.uniform_(-bound, bound)[_PAD] = 0

    def forward(self, ids: Tensor) -> Tensor:
        """Ids (…) to vectors (…, width)."""
        if self.training and self.unknown:
            dropped = torch.rand(ids.shape, device=ids.device) < self.unknown
            ids = ids.masked_fill(dropped & (ids != _PAD), _UNKNOWN)
        return super().forward(ids)


class WordEncoder(nn.Module):
    """x_t = [E(w_t), f(characters of w_t)], the vector of each word of a sentence.

    E is an embedding. f is max_k of a convolution with windows of three characters (``conv``, Ma &
    Hovy, 2016), or what a recurrent network ends with in each direction (``recurrent``, Lample et
    al., 2016); it is computed once for each distinct word of a batch. While training, a share
    ``word_dropout`` of the words has E of ``<unk>``, but keeps its characters.

    Args:
        words: which words and characters there are.
        settings: of them, and of the recurrent network's cell.
        vectors: what the embedding starts from, for the words that have one.
    """

    def __init__(self, words: Words, settings: Any, vectors: Vectors | None = None):
        super().__init__()
        self.dropout, self.variational = settings.embedding_dropout, settings.variational
        self.embedding = Lookup(len(words.words), settings.embedding, settings.word_dropout)
        if vectors is not None:
            start = table(words.words.names, vectors, settings.embedding).weight
            start[_PAD] = 0
            with torch.no_grad():
                self.embedding.weight.copy_(start)
        self.embedding.weight.requires_grad_(not settings.frozen)
        kind, count = settings.characters, len(words.characters)
        readers = {"conv": ConvolvedCharacters, "recurrent": RecurrentCharacters}
        self.characters = None if kind == "none" else readers[kind](count, settings)
        spelled = 0 if self.characters is None else self.characters.output_size
        self.output_size = settings.embedding + spelled

    def forward(self, batch: WordBatch) -> Tensor:
        """The vectors (T, B, S) of a batch; past the end of a sentence, they mean nothing."""
        x = self.embedding(batch.ids)
        if self.characters is not None:
            spelled = self.characters(batch.characters, batch.sizes)
            x = torch.cat([x, spelled[batch.distinct]], -1)
        return between_layers(x, self.dropout, self.variational, self.training)


class ConvolvedCharacters(nn.Module):
    """max_k (W [e_{k−1}, e_k, e_{k+1}] + b), e the characters of a word (Ma & Hovy, 2016).

    Args:
        count: how many characters there are.
        settings: ``character_embedding``, ``character_hidden`` and ``embedding_dropout``.
    """

    def __init__(self, count: int, settings: Any):
        super().__init__()
        width, self.output_size = settings.character_embedding, settings.character_hidden
        self.dropout = settings.embedding_dropout
        self.embedding = Lookup(count, width)
        self.convolution = nn.Conv1d(width, self.output_size, 3, padding=1)
        self.pooling = Pooling("max", self.output_size)

    def forward(self, characters: Tensor, sizes: Tensor) -> Tensor:
        """Characters (C, N) of N words to their features (N, S)."""
        x = between_layers(self.embedding(characters), self.dropout, False, self.training)
        # The window of the last character must find zeros behind it, as in a word by itself.
        x = torch.where(mask_of(x, sizes).unsqueeze(-1), x, 0)
        y = self.convolution(x.permute(1, 2, 0)).permute(2, 0, 1)
        return self.pooling(y, sizes)


class RecurrentCharacters(nn.Module):
    """[h_C, h'_1]: what each direction of a recurrent network gives last (Lample et al., 2016).

    Args:
        count: how many characters there are.
        settings: ``cell``, ``biases``, ``character_embedding``, ``character_hidden`` and
            ``embedding_dropout``.
    """

    def __init__(self, count: int, settings: Any):
        super().__init__()
        width, self.dropout = settings.character_embedding, settings.embedding_dropout
        self.embedding = Lookup(count, width)
        own = NetworkSettings(
            cell=settings.cell, hidden=settings.character_hidden, biases=settings.biases
        )
        self.recurrent = make_recurrent(own, width, bidirectional=True)
        self.output_size = self.recurrent.output_size
        self.pooling = Pooling("last", self.output_size, bidirectional=True)

    def forward(self, characters: Tensor, sizes: Tensor) -> Tensor:
        """Characters (C, N) of N words to their features (N, S)."""
        x = between_layers(self.embedding(characters), self.dropout, False, self.training)
        return self.pooling(self.recurrent(x, lengths=sizes)[0], sizes)


def fitted(settings: Any) -> tuple[Any, Vectors | None]:
    """The settings with the width of the vectors that they name, and these vectors.

    Raises:
        ElmanError: the vectors cannot be read.
    """
    if not settings.embedding_from:
        return settings, None
    vectors = read_vectors(Path(settings.embedding_from))
    return replace(settings, embedding=vectors.width), vectors
