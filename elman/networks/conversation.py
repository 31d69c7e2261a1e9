"""Conversation: an encoder that hears turn after turn, and a decoder that answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from elman import nested
from elman.data.batches import pad
from elman.layers.attention import Memory
from elman.networks.encoder_decoder import Decoding, EncoderDecoder, EncoderDecoderSettings


class Replies(NamedTuple):
    """Replies of similar length side by side.

    Attributes:
        before: (R) the place of the end of the turn before each, among (T · B) of the dialogues.
        previous: (t, R), the token in front of each of the targets.
        lengths: (R).
        target: (N) the tokens, those of the first step first, without padding.
        places: (N) theirs, among (T · B) of the dialogues.
    """

    before: Tensor
    previous: Tensor
    lengths: Tensor
    target: Tensor
    places: Tensor


class Dialogues(NamedTuple):
    """Dialogues side by side, and every turn but the first of each as a reply.

    Attributes:
        tokens: (T, B), all turns of a dialogue one after the other, each with its end.
        lengths: (B).
        begins: (T, B), the step at which the turn of each token begins.
        replies: in groups.
    """

    tokens: Tensor
    lengths: Tensor
    begins: Tensor
    replies: list[Replies]


def collate(dialogues: Sequence[Sequence[Sequence[int]]], end: int) -> Dialogues:
    """Dialogues side by side, by the ids of their turns, each closed by ``end``."""
    tokens, lengths = pad([[id for turn in turns for id in turn] for turns in dialogues])
    begins = torch.zeros_like(tokens)
    replies: list[tuple[int, int, Sequence[int]]] = []
    for row, turns in enumerate(dialogues):
        begin = 0
        for turn in turns:
            begins[begin : begin + len(turn), row] = begin
            if begin:
                replies.append((begin, row, turn))
            begin += len(turn)
    replies.sort(key=lambda reply: len(reply[2]))
    some = -(-len(replies) // _GROUPS)
    groups = [replies[k : k + some] for k in range(0, len(replies), some)]
    beside = [_side_by_side(group, len(dialogues), end) for group in groups]
    return Dialogues(tokens, lengths, begins, beside)


_GROUPS = 8
"""Into how many groups of similar length the replies of a batch fall, so that little is padded."""


def _side_by_side(
    replies: Sequence[tuple[int, int, Sequence[int]]], batch: int, end: int
) -> Replies:
    """Replies by the step at which they begin, their dialogue, and their ids."""
    begins, rows, turns = zip(*replies, strict=True)
    target, lengths = pad(turns, -1)
    first = target.new_full((1, len(turns)), end)
    previous = torch.cat([first, target[:-1].clamp(min=0)])
    begin, row = torch.tensor(begins), torch.tensor(rows)
    places = (begin + torch.arange(len(target)).unsqueeze(1)) * batch + row
    inside = target >= 0
    return Replies((begin - 1) * batch + row, previous, lengths, target[inside], places[inside])


class Encoding(NamedTuple):
    """What the encoder knows of the turns so far; the batch is the last axis but one of tensors.

    Attributes:
        recurrent: the encoder's state.
        memory: of all that was heard; None without attention.
    """

    recurrent: Any
    memory: Memory | None


class ConversationNetwork(EncoderDecoder):
    """P(reply | the turns before it), for every reply of a dialogue.

    The encoder reads one turn after the other, its state carried on: h_t = f(e_t, h_{t−1}). A reply
    is written by the decoder, which starts from the encoder's state at the end of the turn before
    it, and with attention looks at all that was read up to there. What is learned from is read
    once: the states at the ends of turns start the decoders of all replies as one batch. Both sides
    share one embedding, whose weights the output may share, too.

    Args:
        size: tokens.
        settings: of an encoder in one direction, without input feeding or additive attention.
    """

    def __init__(self, size: int, settings: EncoderDecoderSettings):
        super().__init__(size, size, settings, shared=True)
        # Vocabularies are in the order of frequency, which falls with the rank (Zipf, 1949). The
        # end, behind them, is the most frequent.
        rank = (torch.arange(size) + 1) % size + 1.0
        with torch.no_grad():
            self.output.bias.copy_(-rank.log())

    def forward(self, batch: Dialogues) -> Tensor:  # type: ignore[override]
        """The readouts (N, E) of all replies' tokens, group by group, as their targets are."""
        embedded = self._embed(self.source, batch.tokens)
        outputs, states = self.encoder(embedded, lengths=batch.lengths, return_states="all")
        written: list[Tensor] = []
        for group in batch.replies:
            before = nested.map(lambda s, at=group.before: _rows(s, at), states)
            start, _ = self.bridge(before, self.decoder.initial_state(len(group.before)))
            embedded = self._embed(self.target, group.previous)
            written.append(self.decoder(embedded, start, lengths=group.lengths)[0])
        contexts = self._contexts(written, self._drop(outputs), batch)
        return torch.cat([
            self._drop(torch.tanh(self.readout(torch.cat([y, *context], -1))))[within(y, group)]
            for y, context, group in zip(written, contexts, batch.replies, strict=True)
        ])  # fmt: skip

    def _contexts(
        self, written: list[Tensor], outputs: Tensor, batch: Dialogues
    ) -> list[list[Tensor]]:
        """What attention sees for the decoder's outputs (t, R, H) of each group; maybe nothing."""
        if self.attention is None:
            return [[] for _ in written]
        steps, size = batch.tokens.shape
        # Where the tokens of replies stand in their dialogues, the queries of all of a dialogue's
        # replies go together, and each sees what is before its turn.
        queries = torch.cat([y[within(y, g)] for y, g in zip(written, batch.replies, strict=True)])
        places = torch.cat([group.places for group in batch.replies])
        placed = queries.new_zeros(steps * size, queries.shape[-1]).index_copy(0, places, queries)
        memory = self.attention.prepare(outputs, batch.lengths)
        time = torch.arange(steps, device=places.device).view(-1, 1, 1)
        some = max(1, _SCORES // (steps * size))
        seen = torch.cat([
            self.attention(query, memory._replace(mask=time < begins.T))[0]
            for query, begins in zip(
                placed.view(steps, size, -1).split(some), batch.begins.split(some), strict=True
            )
        ])  # fmt: skip
        each = seen.flatten(0, 1)[places].split([len(group.places) for group in batch.replies])
        return [
            [y.new_zeros(*y.shape[:2], seen.shape[-1]).masked_scatter(within(y, g)[..., None], own)]
            for y, g, own in zip(written, batch.replies, each, strict=True)
        ]

    def hear(self, tokens: Tensor, lengths: Tensor, encoding: Encoding | None = None) -> Encoding:
        """Go on from what was heard with tokens (T, B) of these lengths (B)."""
        y, state = self.encoder(
            self._embed(self.source, tokens), encoding and encoding.recurrent, lengths=lengths
        )
        if self.attention is None:
            return Encoding(state, None)
        memory = self.attention.prepare(self._drop(y), lengths)
        if encoding is not None:
            assert encoding.memory is not None
            memory = Memory(*map(torch.cat, zip(encoding.memory, memory, strict=True)))
        return Encoding(state, memory)

    def answer(self, encoding: Encoding) -> Decoding:
        """What the decoder of a reply starts from."""
        batch = nested.leaves(encoding.recurrent)[0].shape[-2]
        start, _ = self.bridge(encoding.recurrent, self.decoder.initial_state(batch))
        return Decoding(start, memory=encoding.memory)


_SCORES = 1 << 24
"""How many scores of attention are in memory at once, about."""


def within(y: Tensor, group: Replies) -> Tensor:
    """Which steps (t, R) are not padding."""
    return torch.arange(len(y), device=y.device).unsqueeze(1) < group.lengths


def _rows(states: Tensor, at: Tensor) -> Tensor:
    """Of the states after every step (T, …, B, S), those at places (R) of (T · B): (…, R, S)."""
    return states.movedim(-2, 1).flatten(0, 1).index_select(0, at).movedim(0, -2)
