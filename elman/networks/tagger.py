"""A network that gives each step of a sentence a tag."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from elman.data.vectors import Vectors
from elman.decoding import spans
from elman.decoding.viterbi import viterbi
from elman.layers.crf import CRF, Scores
from elman.layers.dropout import between_layers
from elman.layers.sequences import mask_of
from elman.networks.words import Lookup, WordBatch, WordEncoder, Words, WordSettings
from elman.training.network import NetworkSettings, make_recurrent
from elman.training.settings import option

OUTPUTS = ("softmax", "crf")


@dataclass
class TaggerSettings(NetworkSettings, WordSettings):
    """What a tagger's network can be told."""

    output: str | None = option(
        None, "What gives the tags: each step by itself, or a conditional random field.",
        choices=OUTPUTS, unset="crf where tags write spans, else softmax",
    )  # fmt: skip
    feature_embedding: int = option(
        30, "Width of each feature beside the word.", least=1, below=2**31
    )


class TaggerBatch(NamedTuple):
    """B sentences, what is known of their words, and their tags.

    Attributes:
        words: of them.
        features: (T, B) ids for each feature that words have beside; 0 past the end.
        tags: (T, B) ids; 0 past the end, and everywhere where they are to be told.
    """

    words: WordBatch
    features: tuple[Tensor, ...]
    tags: Tensor


class TaggerNetwork(nn.Module):
    """Words to y_t, a recurrent network's in both directions, to scores e_t = V y_t + b of tags.

    With ``softmax``, P(tags) = Π_t softmax(e_t); with ``crf``, e are the emissions of a linear
    chain (Huang et al., 2015; Lample et al., 2016). Tags that write spans are decoded under the
    constraints of their scheme, whichever it is.

    Args:
        words: which words and characters there are.
        features: how many values each of the features has.
        labels: the tags, by id.
        settings: with an ``output``.
        vectors: what the embedding starts from.
        class_weights: (L), of the tags in the loss of ``softmax``.
    """

    class_weights: Tensor | None

    def __init__(
        self,
        words: Words,
        features: Sequence[int],
        labels: Sequence[str],
        settings: TaggerSettings,
        vectors: Vectors | None = None,
        class_weights: Tensor | None = None,
    ):
        super().__init__()
        self.dropout, self.variational = settings.dropout, settings.variational
        self.words = WordEncoder(words, settings, vectors)
        self.features = nn.ModuleList(
            Lookup(count, settings.feature_embedding, settings.word_dropout) for count in features
        )
        width = self.words.output_size + len(features) * settings.feature_embedding
        self.recurrent = make_recurrent(settings, width, bidirectional=True)
        self.output = nn.Linear(self.recurrent.output_size, len(labels))
        scheme = spans.guess(labels)
        constraints = None if scheme is None else spans.allowed(labels, scheme)
        self.learns_chain = settings.output == "crf"
        self.chain: CRF | None = None
        if self.learns_chain or constraints is not None:
            # Without weights of its own, a chain is a softmax for each step under constraints.
            self.chain = CRF(len(labels), constraints).requires_grad_(self.learns_chain)
        self.register_buffer("class_weights", class_weights)

    def read(self, batch: TaggerBatch) -> Tensor:
        """The recurrent network's outputs (T, B, S)."""
        x = self.words(batch.words)
        beside = [
            between_layers(embed(ids), self.words.dropout, self.variational, self.training)
            for embed, ids in zip(self.features, batch.features, strict=True)
        ]
        y, _ = self.recurrent(torch.cat([x, *beside], -1), lengths=batch.words.lengths)
        return between_layers(y, self.dropout, self.variational, self.training)

    def forward(self, batch: TaggerBatch) -> Tensor:
        """The scores (T, B, L) of the tags of a batch."""
        return self.output(self.read(batch))

    def loss(self, scores: Tensor, tags: Tensor, lengths: Tensor) -> Tensor:
        """−log P(tags), in nats, summed over a batch; with class weights, that of each tag weighed.

        Args:
            scores: (T, B, L).
            tags: (T, B).
            lengths: (B).
        """
        if self.chain is not None and self.learns_chain:
            return -self.chain.log_likelihood(scores, tags, lengths).sum()
        inside = mask_of(scores, lengths)
        return cross_entropy(scores[inside], tags[inside], self.class_weights, reduction="sum")

    def decode(self, scores: Tensor, lengths: Tensor, learned: bool = True) -> list[list[int]]:
        """The tags of the highest score for each sentence.

        Args:
            scores: (T, B, L).
            lengths: (B).
            learned: with what the chain has learned; else under its constraints alone, for scores
                that have that in them, such as logarithms of :meth:`marginals`.
        """
        if self.chain is not None:
            chain = self.chain.scores()
            if not learned:
                chain = Scores(*(torch.where(each.isneginf(), each, 0) for each in chain))
            return viterbi(scores, *chain, lengths)[0]
        best, sizes = scores.argmax(-1).t().tolist(), lengths.tolist()
        return [tags[:size] for tags, size in zip(best, sizes, strict=True)]

    def marginals(self, scores: Tensor, lengths: Tensor) -> Tensor:
        """P(y_t = l) of every step and tag (T, B, L); they mean nothing past the end."""
        if self.chain is not None:
            return self.chain.marginals(scores, lengths)
        return scores.softmax(-1)
