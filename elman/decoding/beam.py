"""Beam search: the likeliest sequences of a model that writes one token after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from elman.decoding.steps import Allowed, Hypothesis, Rows, Rules, Step
from elman.errors import InputError


@torch.inference_mode()
def beam(
    step: Step | Sequence[Step],
    state: Any,
    start: Tensor,
    end: int,
    width: int,
    *,
    max_length: int | Sequence[int] | Tensor,
    min_length: int = 0,
    length_penalty: float = 0.0,
    n_best: int = 1,
    no_repeat: int = 0,
    allowed: Tensor | Allowed | None = None,
    record: Callable[[Any], Tensor] | None = None,
    batch_dim: int = -2,
) -> list[list[Hypothesis]]:
    """The likeliest sequences for each sentence of a batch, best first.

    The W likeliest beginnings of each sentence are kept, and each of their continuations is
    weighed. One that ends among the W best is a hypothesis, with the score

        log P(y) / lp(y)    lp(y) = ((5 + |y|) / 6)^α    |y| with the end (Wu et al., 2016)

    A sentence is done when it has W hypotheses, or ``n_best`` that nothing begun can surpass. A
    width of 1 takes the likeliest token always; one of Vᵗ finds the best of all sequences of t
    tokens::

        found = beam(step, state, start, end=2, width=5, max_length=100, length_penalty=0.6)
        tokens = found[0][0].tokens

    Args:
        step: from the last token of each row (N) and a state to logits, or log-probabilities, of
            the next (N, V) and the state after it, W rows for each sentence. With a list of steps,
            the probabilities of several models are averaged.
        state: what it starts from, any nesting of tensors with a row for each sentence; with a list
            of steps, a list of states. What every step hands on as it is, such as the memory that
            attention reads, is not copied from step to step; no step may write into its state.
        start: the token that each sentence starts from (B), which is not written.
        end: the token that ends a sequence, which is not written either.
        width: W.
        max_length: the most tokens, for all or for each sentence (B): there a sequence must end.
        min_length: the fewest tokens.
        length_penalty: α ≥ 0, from 0, the likeliest, to 1, which favours longer ones; 0.6 to 1 is
            usual for translation.
        n_best: how many hypotheses are wanted, at most W.
        no_repeat: n, where no n tokens in a row may come twice; 0 for no such rule.
        allowed: the tokens that may be written, bool (V), or (B, V) for each sentence, or a
            function from the sentence of each row (N) and its tokens so far (N, t) to (N, V). The
            end is one of them.
        record: from the state after a step to what is kept of it (N, …), such as the weights of
            attention, along the path of each hypothesis.
        batch_dim: the axis of the state's tensors that sentences lie along, counted from the end:
            as in the states of :class:`elman.Recurrent` and the memory of :class:`Attention`.

    Returns:
        For each sentence at most ``n_best`` hypotheses; fewer, or none, where ``allowed`` leaves no
        more.

    Raises:
        InputError: a setting is out of bounds.
        ElmanError: the model expects NaN.
    """
    if width < 1:
        raise InputError(f"`width` must be at least 1, received {width}.")
    if not 1 <= n_best <= width:
        raise InputError(
            f"`n_best` must lie between 1 and the beam's width, {width}, received {n_best}."
        )
    if not length_penalty >= 0:
        raise InputError(f"`length_penalty` must be at least 0, received {length_penalty}.")
    rules = Rules(end, max_length, min_length, no_repeat, allowed)
    rows = Rows(step, state, start, width, rules, batch_dim, record)
    limits = rules.limits(rows.sentences[::width])
    found: list[list[Hypothesis]] = [[] for _ in start]
    live = list(range(len(start)))
    scores: Tensor | None = None

    def penalty(length: Tensor | int) -> Any:
        return ((5 + length) / 6) ** length_penalty

    while live:
        expected = rows.expected().unflatten(0, (len(live), width))
        size = expected.shape[-1]
        if scores is None:  # all rows of a sentence are alike yet: the first stands for them
            scores = expected.new_full((len(live), width), -torch.inf)
            scores[:, 0] = 0
        every = (scores.unsqueeze(-1) + expected).flatten(1)
        # At most one continuation of each row ends, so that W of 2 W go on.
        best, index = every.topk(min(2 * width, every.shape[1]))
        row, token = index.div(size, rounding_mode="floor"), index % size
        ends = token == end
        length = rows.tokens.shape[1] + 1
        for k, place in (ends & (best > -torch.inf))[:, :width].nonzero().tolist():
            log_probability = float(best[k, place])
            score = log_probability / penalty(length)
            new = rows.hypothesis(k * width + int(row[k, place]), score, log_probability)
            found[live[k]].append(new)
        scores, chosen = best.masked_fill(ends, -torch.inf).topk(width)
        # Nothing that is begun can end above this.
        bound = (scores[:, 0] / penalty(limits + 1)).tolist()
        kept = [
            k for k, (sentence, most) in enumerate(zip(live, bound, strict=True))
            if not _is_done(found[sentence], most, width, n_best)
        ]  # fmt: skip
        live = [live[k] for k in kept]
        on = torch.tensor(kept, device=start.device, dtype=torch.long)
        scores, limits, chosen = scores[on], limits[on], chosen[on]
        parents = on.unsqueeze(1) * width + row[on].gather(1, chosen)
        rows.go_on(parents.flatten(), token[on].gather(1, chosen).flatten())
    return [sorted(each, key=lambda h: -h.score)[:n_best] for each in found]


def _is_done(found: list[Hypothesis], bound: float, width: int, n_best: int) -> bool:
    """Whether no better hypothesis is to come, or none that a beam of this width looks for."""
    if bound == -torch.inf or len(found) >= width:
        return True
    if len(found) < n_best:
        return False
    return sorted((h.score for h in found), reverse=True)[n_best - 1] >= bound
