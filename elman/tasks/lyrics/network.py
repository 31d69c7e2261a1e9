"""The network of verse: a language model that is told what the form asks of the next token."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn

from elman.tasks.language_model.network import LanguageModel, LanguageNetworkSettings


class VerseModel(LanguageModel):
    """A language model whose input has conditions in it.

    x_t = E[w_t] + Σ_k C_k[c_{t+1, k}], with w_t the token, and c_{t+1} what is asked of the one
    that comes next: the sum of embeddings, as a transformer adds positions to tokens. All else is
    the language model's. Where it takes tokens (…), this takes tokens with their conditions,
    (…, 1 + K).

    Args:
        vocabulary_size: how many tokens there are.
        settings: cell, sizes, dropout, embedding.
        sizes: how many values each condition has.
    """

    offsets: Tensor

    def __init__(
        self, vocabulary_size: int, settings: LanguageNetworkSettings, sizes: Sequence[int]
    ):
        super().__init__(vocabulary_size, settings)
        self.conditions = nn.Embedding(sum(sizes), self.recurrent.cells[0].input_size)
        nn.init.uniform_(self.conditions.weight, -0.1, 0.1)
        before = torch.tensor([0, *accumulate(sizes)][:-1])
        self.register_buffer("offsets", before, persistent=False)

    def embed(self, tokens: Tensor) -> Tensor:
        """Tokens and conditions (…, 1 + K) to the network's inputs (…, M)."""
        token, conditions = tokens[..., 0], tokens[..., 1:]
        return super().embed(token) + self.conditions(conditions + self.offsets).sum(-2)


class Guided:
    """A model with the form of one poem, as :func:`elman.decoding.sample` calls a model.

    Args:
        model: a language model.
        conditions: for each token that it reads, what is asked of the next (T, K); None where it is
            none that is told.
        allowed: which tokens may follow each, bool (T, V); None for all. The others are masked.
    """

    def __init__(
        self, model: LanguageModel, conditions: Tensor | None = None, allowed: Tensor | None = None
    ):
        self.model, self.conditions, self.allowed = model, conditions, allowed

    def __call__(self, tokens: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Tokens (T) to logits (T, V), and how many were read with the state after them."""
        read, state = state or (0, None)
        upto = read + len(tokens)
        logits, state = self.model(self._told(tokens, slice(read, upto)), state)
        return self._masked(logits, slice(read, upto)), (upto, state)

    def step(self, token: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """One token () to logits (V), and how many were read with the state after it."""
        read, state = state or (0, None)
        logits, state = self.model.step(self._told(token, read), state)
        return self._masked(logits, read), (read + 1, state)

    def _told(self, tokens: Tensor, where: int | slice) -> Tensor:
        if self.conditions is None:
            return tokens
        return torch.cat([tokens.unsqueeze(-1), self.conditions[where]], -1)

    def _masked(self, logits: Tensor, where: int | slice) -> Tensor:
        if self.allowed is None:
            return logits
        return logits.masked_fill(~self.allowed[where], -torch.inf)
