"""Viterbi decoding: the likeliest sequences of labels of a linear chain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from elman.errors import InputError
from elman.layers.sequences import mask_of


class Path(NamedTuple):
    """A sequence of labels and its score, Σ of emissions, transitions, start and end."""

    labels: list[int]
    score: float


def viterbi(
    emissions: Tensor,
    transitions: Tensor,
    starts: Tensor,
    ends: Tensor,
    lengths: Tensor | Sequence[int] | None = None,
) -> tuple[list[list[int]], Tensor]:
    """The labels of the highest score for each sequence (Viterbi, 1967)::

        paths, scores = viterbi(emissions, *crf.scores(), lengths)

    Args:
        emissions: (T, B, L), the scores of the labels at each step.
        transitions: (L, L), of a label (second) after another (first); −∞ where it is barred.
        starts: (L), of a label at the first step.
        ends: (L), of a label at the last step.
        lengths: (B), from 0 to T; T by default.

    Returns:
        ``paths, scores``: the labels of each sequence, as many as it is long, and their scores (B).
        Where everything is barred the score is −∞ and the labels mean nothing.

    Raises:
        InputError: a shape or a length does not fit.
    """
    paths, scores = _best(emissions, transitions, starts, ends, lengths, 1)
    return [labels for (labels,) in paths], scores[:, 0]


def k_best(
    emissions: Tensor,
    transitions: Tensor,
    starts: Tensor,
    ends: Tensor,
    lengths: Tensor | Sequence[int] | None = None,
    *,
    k: int,
) -> list[list[Path]]:
    """The k sequences of labels of the highest scores, best first; fewer where there are not k.

    Args:
        emissions, transitions, starts, ends, lengths: as in :func:`viterbi`.
        k: how many, for each sequence.

    Raises:
        InputError: k is not positive, or a shape or a length does not fit.
    """
    if k < 1:
        raise InputError(f"k must be at least 1, received {k}.")
    paths, scores = _best(emissions, transitions, starts, ends, lengths, k)
    return [
        [Path(labels, score) for labels, score in zip(*each, strict=True) if score > -torch.inf]
        for each in zip(paths, scores.tolist(), strict=True)
    ]


@torch.no_grad()
def _best(
    emissions: Tensor,
    transitions: Tensor,
    starts: Tensor,
    ends: Tensor,
    lengths: Tensor | Sequence[int] | None,
    k: int,
) -> tuple[list[list[list[int]]], Tensor]:
    """The k best of each sequence and their scores (B, k).

    A place is one of the k best sequences that end in a label: place p stands for label p // k.
    """
    labels = emissions.shape[-1]
    if emissions.dim() != 3 or (transitions.shape, starts.shape, ends.shape) != (
        (labels, labels), (labels,), (labels,),
    ):  # fmt: skip
        raise InputError(
            "emissions (T, B, L), transitions (L, L), starts (L) and ends (L) must be of the same "
            f"labels, received {tuple(emissions.shape)}, {tuple(transitions.shape)}, "
            f"{tuple(starts.shape)} and {tuple(ends.shape)}."
        )
    mask = mask_of(emissions, lengths)
    steps, batch = mask.shape
    scores = emissions.new_full((batch, labels, k), -torch.inf)
    if steps:
        scores[..., 0] = starts + emissions[0]
    back, between = [], transitions.t().repeat_interleave(k, 1)
    for emission, inside in zip(emissions[1:], mask[1:], strict=True):
        every = scores.view(batch, 1, labels * k) + between  # (B, label, the place before it)
        best, origin = every.topk(k) if k > 1 else every.max(-1, keepdim=True)
        back.append(origin.flatten(1))
        new = best + emission.unsqueeze(-1)
        scores = torch.where(inside.view(batch, 1, 1), new, scores)
    final, place = (scores + ends.unsqueeze(-1)).view(batch, labels * k).topk(k)
    places = [place]
    for origin, inside in zip(reversed(back), reversed(mask[1:].unbind()), strict=True):
        before = origin.gather(1, places[-1])
        places.append(torch.where(inside.unsqueeze(-1), before, places[-1]))
    paths = torch.stack(places[::-1], -1).div(k, rounding_mode="floor").tolist()
    count = mask.sum(0)
    # Of no steps there is one sequence, the empty one, of score 0.
    empty = final.new_full((k,), -torch.inf).index_fill(0, count.new_zeros(1), 0)
    return [
        [labels[:length] for labels in each]
        for each, length in zip(paths, count.tolist(), strict=True)
    ], torch.where(count.unsqueeze(-1) > 0, final, empty)
