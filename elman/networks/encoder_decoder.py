"""Encoder and decoder: one network reads a sequence, another writes what it becomes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from elman import nested
from elman.errors import InputError
from elman.layers import Attention, Recurrent
from elman.layers.attention import Memory
from elman.layers.dropout import between_layers
from elman.layers.states import States
from elman.training.network import NetworkSettings, make_recurrent
from elman.training.settings import option

ATTENTIONS = ("none", "additive", "general", "dot")


@dataclass
class EncoderDecoderSettings(NetworkSettings):
    """What an encoder and decoder can be told, beside the sizes that both of them have."""

    bidirectional: bool = option(True, "Read the source in both directions.")
    attention: str = option(
        "general",
        "How the decoder looks at the source: additive before a step, the others after it.",
        choices=ATTENTIONS,
    )
    input_feeding: bool = option(
        False, "A step also reads what was seen at the last.", only=("attention", "general", "dot")
    )
    embedding: int | None = option(
        None, "Width of the embeddings.", least=1, below=2**31, unset="as the first layer's"
    )
    tied: bool = option(True, "Share the target embedding's weights with the output's.")
    scheduled_sampling: float = option(
        0.0, "Share of its own tokens that the decoder is fed in the last epoch.", least=0, below=1
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        steps = self.attention == "additive" or self.input_feeding or self.scheduled_sampling
        if self.weight_drop and steps:
            raise InputError(
                "`weight_drop` draws what it drops once a sequence, received it with additive "
                "`attention`, `input_feeding` or `scheduled_sampling`, by which a decoder goes "
                "step by step: leave out the one or the other."
            )


class Decoding(NamedTuple):
    """What a decoder goes on from; the batch is the second last axis of every tensor.

    Attributes:
        recurrent: the state of its recurrent network.
        fed: (B, F) what the next step is fed beside a token: the query of additive attention, the
            readout with input feeding; None where it is fed nothing.
        memory: of the source; None without attention.
        weights: (B, S) of attention in the last step.
    """

    recurrent: Any
    fed: Tensor | None = None
    memory: Memory | None = None
    weights: Tensor | None = None


class EncoderDecoder(nn.Module):
    """P(y_t | y_1 … y_{t−1}, x) = softmax(V r_t + b), with x the source and y the target.

    The encoder, in one direction or both, turns the source into a memory m_1 … m_S. The decoder
    starts from its last states: as they are from one direction (Sutskever et al., 2014); from two,
    a linear map of both, one for each state of each layer. Then, with e_t the embedding of y_{t−1},

    - ``none``: h_t = f(e_t, h_{t−1})    r_t = tanh(W h_t)
    - ``additive`` (Bahdanau et al., 2015): c_t = attention(h_{t−1}, m)
      h_t = f([e_t; c_t], h_{t−1})    r_t = tanh(W [h_t; c_t; e_t])
    - ``general``, ``dot`` (Luong et al., 2015): h_t = f(e_t, h_{t−1})    c_t = attention(h_t, m)
      r_t = tanh(W [h_t; c_t]); with input feeding h_t = f([e_t; r_{t−1}], h_{t−1}).

    With ``tied`` weights, V is the target's embedding and r_t as wide as it, else as the decoder.
    Where a step is fed nothing of the last one but its state, the decoder reads a known target in
    one call, and attends to the source for all steps together.

    What is read of an embedding is √E times its weights, which the output may share: those of an
    output must be small, the inputs of a network should not be (Vaswani et al., 2017).

    Args:
        source_size: tokens of the source.
        target_size: tokens of the target.
        settings: cell, sizes, attention, dropout.
        shared: whether both sides have the same tokens, and one embedding.
    """

    def __init__(
        self,
        source_size: int,
        target_size: int,
        settings: EncoderDecoderSettings,
        shared: bool = False,
    ):
        super().__init__()
        its = settings
        width = its.embedding or (its.hidden_sizes or [its.hidden])[0]
        self.dropout, self.variational = its.dropout, its.variational
        self.target = nn.Embedding(target_size, width)
        self.source = self.target if shared else nn.Embedding(source_size, width)
        self.encoder = make_recurrent(its, width, its.bidirectional)
        memory = self.encoder.output_size
        self.early = its.attention == "additive"
        self.feeding = its.input_feeding
        size = (its.hidden_sizes or [its.hidden] * its.layers)[-1]
        read = width if its.tied else size
        self.decoder = make_recurrent(its, width + self.early * memory + self.feeding * read)
        self.bridge = Bridge(self.encoder, self.decoder)
        self.attention, seen = None, self.decoder.output_size
        if its.attention != "none":
            self.attention = Attention(seen, memory, its.attention)
            seen += memory + self.early * width
        self.readout = nn.Linear(seen, read)
        self.output = nn.Linear(read, target_size)
        for embedding in (self.source, self.target):
            nn.init.normal_(embedding.weight, std=width**-0.5)
        if its.tied:
            self.output.weight = self.target.weight

    def forward(
        self, source: Tensor, lengths: Tensor, previous: Tensor, own: float = 0.0
    ) -> tuple[Tensor, Tensor | None]:
        """Read the source, and the target by teacher forcing.

        Args:
            source: (S, B) tokens.
            lengths: (B) of the sources.
            previous: (T, B), the tokens in front of those of the target.
            own: the probability that the decoder is fed in place of one of these its own, the
                likeliest after its last step (scheduled sampling; Bengio et al., 2015).

        Returns:
            ``readouts, weights``: (T, B, E), which ``output`` turns into logits (T, B, V); and
            those of attention (T, B, S), None without.
        """
        state = self.encode(source, lengths)
        embedded = self._embed(self.target, previous)
        if not (self.early or self.feeding or own):
            y, _ = self.decoder(embedded, state.recurrent)
            readouts, weights = self._read(y, state.memory)
            return self._drop(readouts), weights
        read: list[Tensor] = []
        attended: list[Tensor] = []
        for e in embedded:
            if own and read:
                likeliest = self.output(read[-1]).argmax(-1, keepdim=True).T
                is_own = torch.rand(len(e), 1, device=e.device) < own
                e = torch.where(is_own, self._embed(self.target, likeliest)[0], e)
            readout, state = self._step(e, state)
            read.append(readout)
            if state.weights is not None:
                attended.append(state.weights)
        weights = torch.stack(attended) if attended else None
        return self._drop(torch.stack(read)), weights

    def encode(self, source: Tensor, lengths: Tensor) -> Decoding:
        """Sources (S, B) of these lengths (B) to what the decoder starts from."""
        y, last = self.encoder(self._embed(self.source, source), lengths=lengths)
        recurrent, top = self.bridge(last, self.decoder.initial_state(len(lengths)))
        if self.attention is None:
            return Decoding(recurrent)
        fed = None
        if self.early:
            fed = top
        elif self.feeding:
            fed = top.new_zeros(len(top), self.readout.out_features)
        return Decoding(recurrent, fed, self.attention.prepare(self._drop(y), lengths))

    def step(self, token: Tensor, state: Decoding) -> tuple[Tensor, Decoding]:
        """The last token of each row (B) and a state to logits of the next (B, V), and the new."""
        readout, state = self._step(self._embed(self.target, token.unsqueeze(0))[0], state)
        return self.output(readout), state

    def _step(self, e: Tensor, state: Decoding) -> tuple[Tensor, Decoding]:
        """One step by an embedded token (B, E) to a readout (B, E)."""
        memory, fed = state.memory, state.fed
        if self.attention is not None and self.early:
            context, weights = self.attention(fed, memory)
            y, recurrent = self.decoder.step(torch.cat([e, context], -1), state.recurrent)
            readout = torch.tanh(self.readout(torch.cat([y, context, e], -1)))
            return readout, Decoding(recurrent, y, memory, weights)
        x = e if fed is None else torch.cat([e, fed], -1)
        y, recurrent = self.decoder.step(x, state.recurrent)
        readout, weights = self._read(y, memory)
        return readout, Decoding(recurrent, readout if self.feeding else None, memory, weights)

    def _read(self, y: Tensor, memory: Memory | None) -> tuple[Tensor, Tensor | None]:
        """Outputs ((T,) B, H) to readouts, and the weights of attention that follows them."""
        weights = None
        if self.attention is not None:
            context, weights = self.attention(y, memory)
            y = torch.cat([y, context], -1)
        return torch.tanh(self.readout(y)), weights

    def _embed(self, embedding: nn.Embedding, tokens: Tensor) -> Tensor:
        return self._drop(embedding(tokens)) * embedding.embedding_dim**0.5

    def _drop(self, values: Tensor) -> Tensor:
        return between_layers(values, self.dropout, self.variational, self.training)


class Bridge(nn.Module):
    """From the last states of an encoder to the first of a decoder of the same cell and sizes.

    The decoder's clocks and windows of past inputs begin as they always do.
    """

    def __init__(self, encoder: Recurrent, decoder: Recurrent):
        super().__init__()
        cells = decoder.cells
        self._last, self._first = States(encoder.cells), States(cells)
        self.maps = nn.ModuleDict()
        for layer, cell in enumerate(cells):
            for name, size in zip(cell.state, cell.state_sizes, strict=True):
                if name not in cell.bookkeeping:
                    both = encoder.bidirectional
                    self.maps[f"{name}_l{layer}"] = (
                        nn.Linear(2 * size, size) if both else nn.Identity()
                    )

    def forward(self, last: Any, start: Any) -> tuple[Any, Tensor]:
        """The encoder's last states, and the decoder's own start, to its first state.

        Returns:
            the state, and of it what the top layer's last output would be (B, H).
        """
        batch = nested.leaves(last)[0].shape[-2]
        read, own = self._last.split(last, batch), self._first.split(start, batch)
        directions = len(read) // len(own)
        states = []
        for layer, begins in enumerate(own):
            ends = read[layer * directions : (layer + 1) * directions]
            named = zip(self._first.names, begins, *ends, strict=True)
            states.append(
                tuple(
                    self.maps[key](torch.cat(end, -1))
                    if (key := f"{name}_l{layer}") in self.maps
                    else begin
                    for name, begin, *end in named
                )
            )
        return self._first.join(states), states[-1][0]
