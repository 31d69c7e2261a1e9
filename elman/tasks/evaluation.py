"""How well a language model foretells a text, with no more memory than its training needs."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import cross_entropy

from elman.data.streams import PADDING, Evaluation, Tokens
from elman.learning import detach

if TYPE_CHECKING:
    from elman.tasks.language_model import LanguageModel

# Rows that are long, so that few tokens lack their past, and many, so that it is quick.
_TOKENS_A_ROW, _ROWS = 10_000, 32
_STEPS = 256


@torch.no_grad()
def negative_log_likelihood(
    model: LanguageModel,
    tokens: Tokens,
    at_a_time: int,
    windows: int | None = None,
    shard: tuple[int, int] = (0, 1),
) -> tuple[float, int]:
    """The sum of −log P over all tokens but the first, in nats, and how many they are.

    How the text is cut into rows, which lose what came before them, depends on the text alone;
    their windows carry the state. So the result is the same, up to rounding, however many tokens
    are read at a time.

    Args:
        model: in evaluation mode.
        tokens: the text.
        at_a_time: how many tokens an update has. As many go through the layers together, or one of
            each row where these are more. Half as many become logits together, because what the
            allocator keeps between two windows counts, too.
        windows: read only so many windows of the text.
        shard: rank and number of processes. Each reads its rows of the text, and both results add
            up over the processes to those of the whole.
    """
    rows = max(1, min(_ROWS, len(tokens) // _TOKENS_A_ROW))
    steps = max(1, min(_STEPS, at_a_time // rows))
    some = max(1, at_a_time // 2)
    evaluation = Evaluation(tokens, rows, steps)
    total, count, state, device = 0.0, 0, None, model.output.weight.device
    for window in islice(evaluation.batches(shard), windows):
        y, state = model.read(window.inputs.to(device), state)
        targets = window.targets.to(device).flatten()
        count += int((window.targets != PADDING).sum())
        parts = zip(y.flatten(0, 1).split(some), targets.split(some), strict=True)
        for outputs, targeted in parts:
            nats = cross_entropy(model.predict(outputs), targeted, reduction="none")
            total += float(nats.sum(dtype=torch.float64))
        state = detach(state)
    return total, count
