"""Decoding step by step: what beam search and drawing share over any step function."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from elman import nested
from elman.errors import ElmanError, InputError

Step = Callable[[Tensor, Any], tuple[Tensor, Any]]
"""From the last token of each row (N) and a state to logits, or log-probabilities, of the next
(N, V) and the state after it."""

Allowed = Callable[[Tensor, Tensor], Tensor]
"""From the sentence of each row (N) and its tokens so far (N, t) to what may follow (N, V) bool."""


class Hypothesis(NamedTuple):
    """A sequence that a model may write.

    Attributes:
        tokens: without start and end.
        score: what hypotheses are ranked by.
        log_probability: log P(tokens, end), in nats.
        record: what was recorded at each step, the end's included: (len(tokens) + 1, …).
    """

    tokens: list[int]
    score: float
    log_probability: float
    record: Tensor | None = None


class Rules:
    """What may be written.

    Args:
        end: the token that ends a sequence.
        max_length: the most tokens before the end, for all sentences or for each (B).
        min_length: the fewest tokens before the end.
        no_repeat: n, where no n tokens in a row may come twice; 0 for no such rule.
        allowed: the tokens that may be written, bool (V), or (B, V) for each sentence, or a
            function of what is written so far. The end is one of them.

    Raises:
        InputError: a length is out of bounds.
    """

    def __init__(
        self,
        end: int,
        max_length: int | Sequence[int] | Tensor,
        min_length: int = 0,
        no_repeat: int = 0,
        allowed: Tensor | Allowed | None = None,
    ):
        self.end, self.min_length, self.no_repeat = end, min_length, no_repeat
        self.max_length, self.allowed = torch.as_tensor(max_length), allowed
        least = int(self.max_length.min()) if self.max_length.numel() else max(min_length, 1)
        if not 0 <= min_length <= least or least < 1:
            raise InputError(
                "`max_length` must be at least 1, and `min_length` lie between 0 and it, "
                f"received {least} and {min_length}."
            )
        if no_repeat < 0:
            raise InputError(f"`no_repeat` must be at least 0, received {no_repeat}.")

    def limits(self, sentences: Tensor) -> Tensor:
        """The most tokens of each of these sentences."""
        limits = self.max_length.to(sentences.device)
        return limits[sentences] if limits.dim() else limits.expand(len(sentences))

    def bar(self, expected: Tensor, sentences: Tensor, tokens: Tensor) -> None:
        """Put −∞ into ``expected`` (N, V) for what may not follow ``tokens`` (N, t)."""
        length = tokens.shape[1]
        if self.allowed is not None:
            allowed = self.allowed
            if callable(allowed):
                allowed = allowed(sentences, tokens)
            elif allowed.dim() > 1:
                allowed = allowed[sentences]
            expected.masked_fill_(~allowed, -torch.inf)
        if self.no_repeat and length >= self.no_repeat:
            grams = tokens.unfold(1, self.no_repeat, 1)
            last = tokens[:, length - self.no_repeat + 1 :].unsqueeze(1)
            row, place = (grams[..., :-1] == last).all(-1).nonzero(as_tuple=True)
            expected[row, grams[row, place, -1]] = -torch.inf
        if length < self.min_length:
            expected[:, self.end] = -torch.inf
        full = (length >= self.limits(sentences)).nonzero().flatten()
        ends = expected[full, self.end]
        expected[full] = -torch.inf
        expected[full, self.end] = ends


class Rows:
    """Sequences that are written side by side, N rows, some for each of B sentences.

    Args:
        step: of the model, or those of several, whose probabilities are averaged.
        state: what it starts from, with a row for each sentence; of several models a list.
        start: the token that each sentence starts from (B).
        copies: rows for each sentence.
        rules: what may be written.
        batch_dim: the axis of the state's tensors that rows lie along.
        record: from the state after a step to what is kept of it (N, …).

    Attributes:
        sentences: which sentence each row belongs to (N).
        tokens: what is written so far (N, t).
    """

    def __init__(
        self,
        step: Step | Sequence[Step],
        state: Any,
        start: Tensor,
        copies: int,
        rules: Rules,
        batch_dim: int,
        record: Callable[[Any], Tensor] | None,
    ):
        self._several = not callable(step)
        self._steps = [step] if callable(step) else list(step)
        self._rules, self._dim, self._record = rules, batch_dim, record
        alike = isinstance(state, (list, tuple)) and len(state) == len(self._steps)
        if self._several and not alike:
            raise InputError("several models need a list of as many states: give one for each.")
        self._state = nested.map(lambda s: s.repeat_interleave(copies, batch_dim), state)
        # What no step has changed is the same for all rows of a sentence: a memory, mostly.
        self._unchanged = {id(leaf): leaf for leaf in nested.leaves(self._state)}
        self.sentences = torch.arange(len(start), device=start.device).repeat_interleave(copies)
        self._last = start.repeat_interleave(copies)
        self.tokens = self._last.new_empty(len(self._last), 0)
        self._records: Tensor | None = None

    def expected(self) -> Tensor:
        """Log-probabilities of the next token (N, V), −∞ where it is barred; a step further.

        Raises:
            ElmanError: a model expects NaN.
        """
        states = self._state if self._several else [self._state]
        told = [step(self._last, s) for step, s in zip(self._steps, states, strict=True)]
        self._state = [state for _, state in told] if self._several else told[0][1]
        single = torch.promote_types(told[0][0].dtype, torch.float32)
        each = [logits.log_softmax(-1, dtype=single) for logits, _ in told]
        expected = each[0]
        if self._several:
            expected = torch.stack(each).logsumexp(0) - math.log(len(each))
        check_told(expected[:, 0])  # one NaN among the logits makes all of a row NaN
        if self._record is not None:
            new = self._record(self._state).unsqueeze(1)
            self._records = new if self._records is None else torch.cat([self._records, new], 1)
        self._rules.bar(expected, self.sentences, self.tokens)
        return expected

    def hypothesis(self, row: int, score: float, log_probability: float) -> Hypothesis:
        """What a row has written, ended here."""
        record = None if self._records is None else self._records[row].clone()
        return Hypothesis(self.tokens[row].tolist(), score, log_probability, record)

    def go_on(self, rows: Tensor, tokens: Tensor) -> None:
        """Go on from these rows (M) alone, each with the next of ``tokens`` (M)."""
        sentences = self.sentences[rows]
        same, unchanged = torch.equal(sentences, self.sentences), {}

        def picked(leaf: Tensor) -> Tensor:
            shared = id(leaf) in self._unchanged
            new = leaf if shared and same else leaf.index_select(self._dim, rows)
            if shared:
                unchanged[id(new)] = new
            return new

        self._state = nested.map(picked, self._state)
        self._unchanged, self.sentences, self._last = unchanged, sentences, tokens
        self.tokens = torch.cat([self.tokens[rows], tokens.unsqueeze(1)], 1)
        if self._records is not None:
            self._records = self._records[rows]


def check_told(logits: Tensor) -> None:
    """Raise an ElmanError where a model expects NaN."""
    if logits.isnan().any():
        raise ElmanError(
            "the model expects NaN of every token: its training diverged; train anew, with a "
            "smaller learning rate."
        )
