"""The model of word vectors, CBOW or skip-gram, and its settings."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding_bag, logsigmoid

from elman.data.contexts import Contexts
from elman.learning import OPTIMIZERS, SCHEDULES
from elman.training.settings import DataSettings, TrainingSettings, option

CBOW, SKIP_GRAM = "cbow", "skip-gram"


@dataclass
class EmbedSettings(TrainingSettings, DataSettings):
    """The settings of word vectors."""

    method: str = option(CBOW, "What foretells what.", choices=(CBOW, SKIP_GRAM))
    embedding: int = option(100, "Numbers of a vector.", least=1, below=2**31)
    window: int = option(5, "Words before and behind at the most; how many is drawn.", least=1)
    negatives: int = option(5, "Drawn words for each, which are to look unlikely.", least=1)
    subsample: float = option(
        1e-3, "Leave out some of the words that are a larger share of the text; 0: none.", least=0
    )
    combine: str = option("mean", "What CBOW makes of a context.", choices=("mean", "sum"))
    lines: bool = option(False, "No context reaches beyond its line, such as a sentence.")
    tokens: str = option("word", "What the text is cut into.", choices=("word", "whitespace"))
    vocabulary_size: int | None = option(
        None, "At most so many words, the most frequent, such as 50000.", least=3
    )
    min_count: int = option(5, "Words that are rarer are left out.", least=1)
    normalize: str = option(
        "lower", "letters: lower-cased letters and space.", choices=("none", "lower", "letters")
    )
    limit: int | None = option(None, "Only so many characters of each source.", least=1)
    batch: int = option(2048, "Words of the text in a batch, in each process.", least=1)
    optimizer: str = option("sgd", "How to update.", choices=tuple(OPTIMIZERS))
    learning_rate: float = option(
        31.0, "Step size for a batch's mean; word2vec's, 0.025, times a batch's words.",
        above=0, below=1e31,
    )  # fmt: skip
    schedule: str = option("linear", "How the rate changes.", choices=SCHEDULES)


class WordVectors(nn.Module):
    """Vectors v of words, and others, u, of the same words where they are to be foretold.

    Skip-gram learns to foretell from a word w each word c of its context, CBOW from the mean or
    the sum of the context's vectors the word itself; with noise n_1 … n_K (Mikolov et al., 2013):

        skip-gram    −log σ(u_c · v_w) − Σ_k log σ(−u_{n_k} · v_w)    for each c
        CBOW         −log σ(u_w · h) − Σ_k log σ(−u_{n_k} · h),       h = mean of the v_c

    A word's noise is the same for all of its context (Ji et al., 2016). Each v_c gets the gradient
    by h as it is, as in word2vec's and gensim's code, and not a share of it: the step that suits u
    then suits v (İrsoy, Benton & Stratos, 2021, have the other way).

    Args:
        words: how many there are, V.
        settings: width and method.
    """

    def __init__(self, words: int, settings: EmbedSettings):
        super().__init__()
        width = settings.embedding
        self.method, self.combine = settings.method, settings.combine
        self.embedding = nn.Embedding(words, width)  # v
        self.output = nn.Embedding(words, width)  # u
        nn.init.uniform_(self.embedding.weight, -0.5 / width, 0.5 / width)
        nn.init.zeros_(self.output.weight)

    def forward(self, batch: Contexts) -> tuple[Tensor, int]:
        """The sum of the losses of a batch, and how many predictions it is over."""
        words, context, sizes, noise = batch
        if self.method == CBOW:
            begins = sizes.cumsum(0) - sizes
            h = embedding_bag(context, self.embedding.weight, begins, mode="sum")
            if self.combine == "mean":
                # Each vector gets the gradient of h as a whole, as in word2vec and gensim.
                h = h + (h / sizes.unsqueeze(1) - h).detach()
            likely = (self.output(words) * h).sum(-1)  # (N)
            times = torch.ones_like(sizes)
        else:
            h = self.embedding(words)
            likely = (self.output(context) * h.repeat_interleave(sizes, 0)).sum(-1)  # (P)
            times = sizes
        unlikely = torch.bmm(self.output(noise), h.unsqueeze(2)).squeeze(2)  # (N, K)
        noise_loss = logsigmoid(-unlikely).sum(1) * times
        return -logsigmoid(likely).sum() - noise_loss.sum(), len(likely)
