"""The network of a language model, and its settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout

from elman import nested
from elman.data.vocabulary import KINDS
from elman.errors import InputError
from elman.layers.dropout import between_layers
from elman.layers.softmax import AdaptiveSoftmax, FullSoftmax, SampledSoftmax
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
    softmax: str = option(
        "full", "Over all tokens, clusters of them, or samples while it learns.",
        choices=("full", "adaptive", "sampled"),
    )  # fmt: skip
    cutoffs: list[int] = option(
        [], "First ids of the adaptive softmax's clusters of rare tokens.", least=1,
        unset="a tenth and a half of the vocabulary", only=("softmax", "adaptive"),
    )  # fmt: skip
    softmax_samples: int = option(
        1024, "Tokens that the sampled softmax draws for a batch.", least=1,
        only=("softmax", "sampled"),
    )  # fmt: skip
    input_dropout: float | None = option(
        None, "Dropout of the embedding's units.", least=0, below=1, unset="as `dropout`"
    )
    output_dropout: float | None = option(
        None, "Dropout before the softmax.", least=0, below=1, unset="as `dropout`"
    )
    embedding_dropout: float = option(
        0.0, "Dropout of whole tokens, wherever a window has them.", least=0, below=1
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tied and self.softmax == "adaptive":
            raise InputError(
                "`tied` weights are one matrix of embedding and softmax, and the adaptive softmax "
                "has a matrix for each cluster: leave out the one or the other."
            )


@dataclass
class LanguageModelSettings(TrainingSettings, LanguageNetworkSettings, DataSettings):
    """The settings of a language model."""

    normalize: str = option(
        "none", "letters: lower-cased letters and space.", choices=("none", "lower", "letters")
    )
    limit: int | None = option(None, "Only so many characters of each source.", least=1)
    activation_decay: float = option(
        0.0, "Times the mean square of the network's dropped output, as a penalty.", least=0
    )
    slowness: float = option(
        0.0, "Times the mean square of the output's change from step to step, as a penalty.",
        least=0,
    )  # fmt: skip
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
    2017); a linear map stands between where the widths differ. What is dropped while it learns:
    whole tokens and units of the embedding, entries of the recurrent matrices, units between
    layers and before the softmax (AWD-LSTM: Merity, Keskar & Socher, 2018).

    Args:
        vocabulary_size: how many tokens there are.
        settings: cell, sizes, dropout, embedding, softmax.
    """

    def __init__(self, vocabulary_size: int, settings: LanguageNetworkSettings):
        super().__init__()
        width = settings.embedding
        if width is None:
            small = vocabulary_size <= _ONE_HOT_UP_TO and not settings.tied
            width = 0 if small else (settings.hidden_sizes or [settings.hidden])[0]
        if settings.tied and not width:
            raise InputError("tied weights need an embedding: set embedding above 0.")
        if settings.input_dropout and not width:
            raise InputError(
                "`input_dropout` drops units of an embedding, and the input is one-hot: set "
                "`embedding` above 0, or leave `input_dropout` out."
            )
        self.vocabulary_size, self.settings = vocabulary_size, settings
        self.embedding = nn.Embedding(vocabulary_size, width) if width else None
        self.recurrent = make_recurrent(settings, width or vocabulary_size)
        size = self.recurrent.output_size
        self.to_embedding = nn.Linear(size, width) if settings.tied and size != width else None
        self.output = _softmax(width if settings.tied else size, vocabulary_size, settings)
        if self.embedding is not None:
            nn.init.uniform_(self.embedding.weight, -0.1, 0.1)
            if settings.tied:
                self.output.weight = self.embedding.weight

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return next(self.parameters()).device

    def forward(self, tokens: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Tokens (T, B) and a state to logits (T, B, V) and the state after them."""
        y, state = self.read(tokens, state)
        return self.predict(y), state

    def read(self, tokens: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Tokens (T, B) and a state to the network's outputs (T, B, S) and the state after them."""
        return self.recurrent(self.embed(tokens), state)

    def predict(self, y: Tensor) -> Tensor:
        """Outputs of the network (…, S) to logits (…, V)."""
        logits: Tensor = self.output(self._features(self._dropped(y)))
        return logits

    def nats(self, y: Tensor, targets: Tensor) -> Tensor:
        """Outputs of the network (N, S) to −log P of the targets (N) that follow, in nats (N)."""
        return self.output.nats(self._features(self._dropped(y)), targets)

    def loss(
        self, y: Tensor, targets: Tensor, activation_decay: float = 0.0, slowness: float = 0.0
    ) -> tuple[Tensor, Tensor | float]:
        """The mean of −log P of targets (T, B) after outputs y (T, B, S), and a penalty on y.

        The penalty is α mean((m ⊙ y_t)²) + β mean((y_{t+1} − y_t)²), with m the mask of dropout,
        α ``activation_decay`` and β ``slowness``: activation regularisation and its temporal kind,
        AR and TAR (Merity, McCann & Socher, 2017).
        """
        dropped = self._dropped(y)
        penalty: Tensor | float = 0.0
        nats = self.output.nats(self._features(dropped).flatten(0, 1), targets.flatten())
        if activation_decay:
            penalty = penalty + activation_decay * dropped.square().mean()
        if slowness and len(y) > 1:
            penalty = penalty + slowness * y.diff(dim=0).square().mean()
        return nats.mean(), penalty

    def step(self, token: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """One token (B), or a scalar, and a state to logits (B, V) or (V), and the new state."""
        y, state = self.recurrent.step(self.embed(token), state)
        return self.predict(y), state

    def embed(self, tokens: Tensor) -> Tensor:
        """Tokens (…) to the network's inputs (…, M): one-hot, or embedded."""
        its = self.settings
        if self.embedding is None:
            like = next(self.parameters())
            one_hot = like.new_zeros(*tokens.shape, self.vocabulary_size)
            x = one_hot.scatter_(-1, tokens.unsqueeze(-1), 1.0)
        else:
            x = self._thinned(self.embedding(tokens), its.input_dropout)
        if self.training and its.embedding_dropout:
            kept = dropout(x.new_ones(self.vocabulary_size), its.embedding_dropout)
            x = x * kept[tokens].unsqueeze(-1)
        return x

    def _dropped(self, y: Tensor) -> Tensor:
        return self._thinned(y, self.settings.output_dropout)

    def _thinned(self, y: Tensor, rate: float | None) -> Tensor:
        its = self.settings
        p = its.dropout if rate is None else rate
        return between_layers(y, p, its.variational, self.training)

    def _features(self, y: Tensor) -> Tensor:
        """What the softmax reads."""
        return y if self.to_embedding is None else self.to_embedding(y)


def _softmax(width: int, vocabulary_size: int, settings: LanguageNetworkSettings) -> Any:
    if settings.softmax == "adaptive":
        return AdaptiveSoftmax(width, vocabulary_size, settings.cutoffs)
    if settings.softmax == "sampled":
        return SampledSoftmax(width, vocabulary_size, settings.softmax_samples)
    return FullSoftmax(width, vocabulary_size)


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
    token = torch.zeros(1, dtype=torch.long, device=model.device)
    return Signature(TokenStep(model, start), {"token": token}, states, ("logits",))
