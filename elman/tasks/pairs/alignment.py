"""Where a decoder looked while it wrote: as numbers, and drawn."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from elman.data.words import END
from elman.errors import InputError
from elman.networks.encoder_decoder import Decoding
from elman.plots.attention import draw_attention
from elman.tasks.pairs.sequence_to_sequence import SequenceToSequence
from elman.tasks.pairs.sides import Batch, Coded
from elman.training.settings import Settings, option


@dataclass
class Drawing(Settings):
    """Where a decoder looked may be drawn."""

    plot: str | None = option(None, "Draw where the one input was looked at, such as see.png.")


def alignment(
    task: SequenceToSequence, text: str, width: int = 1, **how: Any
) -> tuple[Tensor, list[str], list[str]]:
    """How far each token that a beam writes looked at each of a text, the mean of several runs.

    Args:
        task: with its model.
        text: what is read.
        width, how: see :func:`elman.decoding.beam`.

    Returns:
        ``weights, source, target``: (T, S), and the S and T tokens, the ends included.

    Raises:
        InputError: the text is empty, or a model has no attention.
    """
    if any(each.model.attention is None for each in (task, *task.companions)):
        raise InputError("a run without `attention` looks nowhere: leave out `plot`.")
    if not text.strip():
        raise InputError("the text is empty: expected some tokens to look at.")
    task.model.eval()
    read = task.read([text])[0]

    def looked(states: Sequence[Decoding]) -> Tensor:
        return torch.stack([state.weights for state in states if state.weights is not None]).mean(0)

    batch = Batch.of([Coded(read, [], "")], task.target.end)
    best = task.search(batch, width, record=looked, **how)[0][0]
    assert best.record is not None
    source, target = task.source.tokens(read[:-1]), task.target.tokens(best.tokens)
    return best.record.cpu(), [*source, END], [*target, END]


def drawn(
    task: SequenceToSequence, inputs: Iterable[str], plot: str | None, width: int = 1, **how: Any
) -> Iterable[str]:
    """The inputs; where a picture is asked for, it is drawn of the one that there is.

    Raises:
        InputError: a picture is asked for, and there are several; see :func:`alignment`.
    """
    if plot is None:
        return inputs
    inputs = list(inputs)
    if len(inputs) != 1:
        raise InputError(f"`plot` draws one input, received {len(inputs)}: give one.")
    draw_attention(*alignment(task, inputs[0], width, **how), Path(plot))
    return inputs
