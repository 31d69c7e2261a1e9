"""Words and their contexts, in batches: what word vectors are learned from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from elman.data.batches import Batches
from elman.data.shards import Shard
from elman.data.streams import Tokens

# The text is read in passages of so many tokens, in an order of its own for each epoch; no context
# reaches beyond one, which leaves out about one pair in a hundred.
_PASSAGE = 256
# Passages of a batch to measure on, whatever a training's batch is: so its draws are the same.
_MEASURED = 32
_POWER = 0.75


class Contexts(NamedTuple):
    """Words, the words around each, and words that are not around it but drawn.

    Attributes:
        words: int64 (N), each in a place of the text of its own.
        context: int64 (P), the words around the first, then those around the second, and so on.
        sizes: int64 (N), how many are around each, at least 1; they add up to P.
        noise: int64 (N, K), drawn words.
    """

    words: Tensor
    context: Tensor
    sizes: Tensor
    noise: Tensor


class Sampling:
    """How contexts are drawn from a text (Mikolov et al., 2013).

    A word whose share of the text is f is kept with probability min(1, √(t/f) + t/f), as word2vec's
    code has it. The context of a word is the kept ones up to r places before and behind it, r drawn
    from 1 … ``window``. Noise is drawn in proportion to the words' counts to the power of 0.75.

    Args:
        counts: int (V), how often each word is there; 0 leaves it out, as special tokens are.
        window: r at the most.
        noise: words to draw for each, K.
        subsample: t; 0 keeps every word.
        line_end: the id that ends a line, where no context may reach beyond one.
        seed: fixes the draws.
    """

    def __init__(
        self,
        counts: np.ndarray,
        window: int,
        noise: int,
        subsample: float,
        line_end: int | None,
        seed: int,
    ):
        self.window, self.noise, self.line_end, self.seed = window, noise, line_end, seed
        share = counts / max(1, counts.sum())
        ratio = subsample / np.maximum(share, 1e-30) if subsample else np.ones(len(share))
        self._kept = np.where(counts > 0, np.sqrt(ratio) + ratio, 0).astype(np.float32)
        weights = counts**_POWER
        self._noise = np.cumsum(weights) / max(1.0, weights.sum())

    def batches(
        self,
        tokens: Tokens,
        size: int,
        epoch: int | None = None,
        shard: Shard = Shard(),  # noqa: B008
    ) -> Batches[Contexts | None]:
        """The contexts of a text; None where there is not one in a batch.

        Each batch has draws of its own, so that a training goes on in the midst of an epoch without
        making those that it has had.

        Args:
            tokens: the ids of the text.
            size: tokens of the text to a batch, in each process, before any are left out.
            epoch: to learn from: in an order and with draws of its own. None: in order, to measure,
                with the same draws each time, whatever the size and however many processes.
            shard: this process's share.
        """
        if epoch is None:
            starts = np.arange(0, len(tokens), _PASSAGE)
            groups = [starts[k : k + _MEASURED] for k in range(0, len(starts), _MEASURED)]
            numbers = range(shard.rank, len(groups), shard.world)  # whole batches, in turn

            def measured(done: int) -> Iterator[Contexts | None]:
                for number in numbers[done:]:
                    draw = np.random.default_rng([self.seed, number])
                    yield self._around(tokens, groups[number], _PASSAGE, draw)

            return Batches(len(numbers), measured)
        passage = min(_PASSAGE, size)
        together = size // passage * shard.world
        # Every epoch cuts the text elsewhere.
        draw = np.random.default_rng([self.seed, epoch])
        starts = draw.permutation(np.arange(-int(draw.integers(passage)), len(tokens), passage))
        count = -(-len(starts) // together)

        def read(done: int) -> Iterator[Contexts | None]:
            for number in range(done, count):
                some = starts[number * together : (number + 1) * together]
                own = some[shard.rows(len(some))]
                draw = np.random.default_rng([self.seed, epoch, number, shard.rank])
                yield self._around(tokens, own, passage, draw)

        return Batches(count, read)

    def _around(
        self, tokens: Tokens, starts: np.ndarray, passage: int, draw: np.random.Generator
    ) -> Contexts | None:
        """The contexts within passages; None where there is not one."""
        parts = [tokens[max(0, start) : start + passage] for start in starts.tolist()]
        ids = np.concatenate([np.zeros(0, np.int64), *parts])
        # The passage that each token is in, and the line, if that matters.
        place = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
        if self.line_end is not None:
            place = place * (len(ids) + 1) + np.cumsum(ids == self.line_end)
        kept = draw.random(len(ids), np.float32) < self._kept[ids]
        ids, place = ids[kept], place[kept]
        if len(ids) < 2:
            return None
        offsets = np.array([o for o in range(-self.window, self.window + 1) if o])
        reach = draw.integers(1, self.window + 1, (len(ids), 1))
        around = np.arange(len(ids))[:, None] + offsets  # (N, 2 window)
        inside = (np.abs(offsets) <= reach) & (around >= 0) & (around < len(ids))
        around = np.where(inside, around, 0)
        inside &= place[around] == place[:, None]
        sizes = inside.sum(1)
        there = sizes > 0
        if not there.any():
            return None
        noise = np.searchsorted(self._noise, draw.random((there.sum(), self.noise)), "right")
        found = ids[there], ids[around[inside]], sizes[there], noise
        return Contexts(*(torch.from_numpy(array.astype(np.int64)) for array in found))
