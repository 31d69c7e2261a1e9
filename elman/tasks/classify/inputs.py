"""What a classifier reads: texts, as words or characters, or sequences of numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from elman.data.batches import pad
from elman.data.vectors import Vectors
from elman.data.words import SPLITS
from elman.errors import InputError
from elman.networks.classifier import Standardized
from elman.networks.words import WordEncoder, Words


class Inputs(Protocol):
    """How inputs become batches, and what of the network reads these."""

    def steps(self, given: Any) -> Any:
        """What the network reads step by step of one input.

        Raises:
            InputError: it is another kind of input than what was learned from.
        """

    def batch(self, several: Sequence[Sequence[Any]]) -> tuple[Any, Tensor]:
        """The steps of B inputs side by side, and their lengths (B)."""

    def reader(self, settings: Any) -> nn.Module:
        """From such a batch to the inputs (T, B, S) of the recurrent network."""

    def assets(self) -> dict[str, Any]:
        """What restores it."""

    def describe(self) -> str:
        """What it reads, in a few words."""


class Texts:
    """Texts, cut into words.

    Args:
        words: the words and characters that are known.
        tokens: what texts are cut into; see :data:`elman.data.words.SPLITS`.
        vectors: what the embedding starts from.
    """

    def __init__(self, words: Words, tokens: str, vectors: Vectors | None = None):
        self.words, self._tokens, self._vectors = words, tokens, vectors

    @classmethod
    def collect(cls, texts: Iterable[Any], settings: Any, vectors: Vectors | None) -> Texts:
        """Collect the words of texts."""
        split = SPLITS[settings.tokens]
        found = Words.collect((split(t) for t in texts if isinstance(t, str)), settings, vectors)
        return cls(found, settings.tokens, vectors)

    def steps(self, given: Any) -> list[str]:
        """The words of a text."""
        if not isinstance(given, str):
            raise InputError("received numbers, expected a text, as this model has learned from.")
        return SPLITS[self._tokens](given)

    def batch(self, several: Sequence[Sequence[str]]) -> tuple[Any, Tensor]:
        """Texts side by side."""
        batch = self.words.batch(several)
        return batch, batch.lengths

    def reader(self, settings: Any) -> nn.Module:
        """Words as vectors."""
        return WordEncoder(self.words, settings, self._vectors)

    def assets(self) -> dict[str, Any]:
        """The names of words and characters."""
        return {"words": self.words.to_json()}

    def describe(self) -> str:
        """How many words are known."""
        return f"{len(self.words.words):,} words"


class Series:
    """Sequences of numbers (T, F), F features at each of T steps.

    Args:
        mean, scale: (F) of the features, over what is learned from; see
            :class:`~elman.networks.classifier.Standardized`.
    """

    def __init__(self, mean: Tensor, scale: Tensor):
        self.mean, self.scale = mean, scale

    @classmethod
    def collect(cls, sequences: Sequence[Any]) -> Series:
        """Measure the features of sequences that are like the first; others are no input of this.

        Args:
            sequences: to learn from.
        """
        width = sequences[0].shape[1]
        alike = [x for x in sequences if not isinstance(x, str) and x.shape[1] == width]
        steps = np.concatenate(alike).astype(np.float64)
        mean, scale = steps.mean(0), np.maximum(steps.std(0), 1e-6)
        return cls(*(torch.tensor(each, dtype=torch.float32) for each in (mean, scale)))

    def steps(self, given: Any) -> np.ndarray:
        """The numbers of a sequence."""
        expected = f"expected numbers (T, {len(self.mean)}), as this model has learned from"
        if isinstance(given, str):
            raise InputError(f"received a text, {expected}: name a file of such sequences.")
        numbers = np.asarray(given, np.float32)
        if numbers.ndim != 2 or numbers.shape[1] != len(self.mean) or not len(numbers):
            raise InputError(f"received numbers of the shape {numbers.shape}, {expected}.")
        if not np.isfinite(numbers).all():
            raise InputError("received numbers that are missing or infinite: fill them in.")
        return numbers

    def batch(self, several: Sequence[Sequence[Any]]) -> tuple[Any, Tensor]:
        """Sequences side by side (T, B, F)."""
        return pad(several)

    def reader(self, settings: Any) -> nn.Module:
        """Features of mean 0 and variance 1."""
        return Standardized(self.mean, self.scale)

    def assets(self) -> dict[str, Any]:
        """How features are scaled."""
        return {"mean": self.mean, "scale": self.scale}

    def describe(self) -> str:
        """How many numbers a step has."""
        return f"{len(self.mean):,} features"


def collected(given: Sequence[Any], settings: Any, vectors: Vectors | None) -> Inputs:
    """What reads inputs of the kind that the first of those to learn from is of."""
    if isinstance(given[0], str):
        return Texts.collect(given, settings, vectors)
    return Series.collect(given)


def restored(assets: dict[str, Any], settings: Any) -> Inputs:
    """What the assets of a run restore."""
    if "words" in assets:
        return Texts(Words.from_json(assets["words"]), settings.tokens)
    return Series(assets["mean"], assets["scale"])
