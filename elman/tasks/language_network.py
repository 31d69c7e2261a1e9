"""The network of a language model, and its settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from elman import nested
from elman.data.vocabulary import KINDS
from elman.errors import InputError
from elman.layers.dropout import between_layers
from elman.training.network import NetworkSettings, make_recurrent
from elman.training.settings import DataSettings, TrainingSettings, option
from elman.training.task import Signature

_ONE_HOT_UP_TO = 256


@dataclass
class LanguageNetworkSettings(NetworkSettings):
    """The settings of a network that reads tokens and expects the next, whatever its job."""

    tokens: str = option("character", "What the text is cut into.", choices=KINDS)
    vocabulary_size: int | None = option(
        None, "At most so many tokens, the most frequent, such as 10000.", least=2
    )
    min_count: int = option(1, "Tokens that are rarer become <unk>.", least=1)
    embedding: int | None = option(
        None, "Width of the embedding; 0 is one-hot, the default for small vocabularies.",
        least=0, below=2**31,
    )  # fmt: skip
    tied: bool = option(False, "Share the embedding's weights with the output's.")


@dataclass
class LanguageModelSettings(TrainingSettings, LanguageNetworkSettings, DataSettings):
    """The settings of a language model."""

    normalize: str = option(
        "none", "letters: lower-cased letters and space.", choices=("none", "lower", "letters")
    )
    limit: int | None = option(None, "Only so many characters of each source.", least=1)
    steps: int = option(
        35, "Steps of a window, which the gradient reaches back.", least=1, below=2**31
    )
    prompts: list[str] = option(
        [], "What the samples begin with, such as 'time traveller'; again for more."
    )
    sample_length: int = option(200, "Tokens of a sample.", least=1, below=10**7)
    sample_temperature: float = option(
        0.8, "Temperature of the samples; 0 is greedy.", least=0, below=100
    )


class LanguageModel(nn.Module):
    """P(w_{t+1} | w_1 … w_t) = softmax(V h_t + b), h the output of a recurrent network.

    The input is one-hot or embedded. With ``tied`` weights, V is the embedding (Press & Wolf,
    2017); a linear map stands between where the widths differ.

    Args:
        vocabulary_size: how many tokens there are.
        settings: cell, sizes, dropout, embedding.
    """

    def __init__(self, vocabulary_size: int, settings: LanguageNetworkSettings):
        super().__init__()
        width = settings.embedding
        if width is None:
            small = vocabulary_size <= _ONE_HOT_UP_TO and not settings.tied
            width = 0 if small else (settings.hidden_sizes or [settings.hidden])[0]
        if settings.tied and not width:
            raise InputError("tied weights need an embedding: set embedding above 0.")
        self.vocabulary_size, self.dropout = vocabulary_size, settings.dropout
        self.variational = settings.variational
        self.embedding = nn.Embedding(vocabulary_size, width) if width else None
        self.recurrent = make_recurrent(settings, width or vocabulary_size)
        size = self.recurrent.output_size
        self.to_embedding = nn.Linear(size, width) if settings.tied and size != width else None
        self.output = nn.Linear(width if settings.tied else size, vocabulary_size)
        if self.embedding is not None:
            nn.init.uniform_(self.embedding.weight, -0.1, 0.1)
            if settings.tied:
                self.output.weight = self.embedding.weight

    def forward(self, tokens: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Tokens (T, B) and a state to logits (T, B, V) and the state after them."""
        y, state = self.read(tokens, state)
        return self.predict(y), state

    def read(self, tokens: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Tokens (T, B) and a state to the network's outputs (T, B, S) and the state after them."""
        return self.recurrent(self.embed(tokens), state)

    def predict(self, y: Tensor) -> Tensor:
        """Outputs of the network (…, S) to logits (…, V)."""
        y = between_layers(y, self.dropout, self.variational, self.training)
        return self.output(y if self.to_embedding is None else self.to_embedding(y))

    def step(self, token: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """One token (B), or a scalar, and a state to logits (B, V) or (V), and the new state."""
        y, state = self.recurrent.step(self.embed(token), state)
        return self.predict(y), state

    def embed(self, tokens: Tensor) -> Tensor:
        """Tokens (…) to the network's inputs (…, M): one-hot, or embedded."""
        if self.embedding is None:
            like = self.output.weight
            one_hot = like.new_zeros(*tokens.shape, self.vocabulary_size)
            return one_hot.scatter_(-1, tokens.unsqueeze(-1), 1.0)
        return between_layers(self.embedding(tokens), self.dropout, self.variational, self.training)


class TokenStep(nn.Module):
    """A language model as a function of a token and of every state by itself.

    Args:
        model: the model.
        like: its state, whose nesting the states are put together in again.
    """

    def __init__(self, model: LanguageModel, like: Any):
        super().__init__()
        self.model, self.like = model, like

    def forward(self, token: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        """A token (B) and the states to logits (B, V) and the new states."""
        given = iter(states)
        logits, state = self.model.step(token, nested.map(lambda _: next(given), self.like))
        return (logits, *nested.leaves(state))


def signature(model: LanguageModel) -> Signature:
    """One step of a language model, its states named as its cell names them."""
    start = model.recurrent.initial_state(1)
    names = model.recurrent.cells[0].state
    by_state = start if len(names) > 1 else (start,)
    states = {}
    for name, part in zip(names, by_state, strict=True):
        parts = nested.leaves(part)
        for k, leaf in enumerate(parts):  # one of all layers, or one a layer
            states[name if len(parts) == 1 else f"{name}_{k}"] = leaf
    token = torch.zeros(1, dtype=torch.long, device=model.output.weight.device)
    return Signature(TokenStep(model, start), {"token": token}, states, ("logits",))
