"""How well a language model foretells texts, with no more memory than its training needs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from elman.data.batches import Batches
from elman.data.shards import Shard
from elman.data.streams import PADDING, Evaluation, Tokens, Window
from elman.learning import detach

if TYPE_CHECKING:
    from elman.tasks.language_model.network import LanguageModel

# Rows that are long, so that few tokens lack their past, and many, so that it is quick.
_TOKENS_A_ROW, _ROWS = 10_000, 32
_STEPS = 256


class Passage(NamedTuple):
    """A window of one of several texts.

    Attributes:
        text: its name.
        begins: whether nothing of the text came before.
        window: the tokens, and those that follow them.
    """

    text: str
    begins: bool
    window: Window


def passages(
    texts: Sequence[tuple[str, Tokens]],
    at_a_time: int,
    shard: Shard = Shard(),  # noqa: B008
) -> Batches[Passage]:
    """Texts cut for judging a model: every token of each but its first is a target exactly once.

    How a text is cut into rows, which lose what came before them, depends on the text alone; their
    windows go on from each other. So what is measured is the same, up to rounding, however many
    tokens are read at a time, and by how many processes.

    Args:
        texts: tokens by name.
        at_a_time: how many tokens go through the layers together, or one of each row where these
            are more.
        shard: this process, which reads its share of the rows.
    """
    cut = []
    for name, tokens in texts:
        rows = max(1, min(_ROWS, len(tokens) // _TOKENS_A_ROW))
        steps = max(1, min(_STEPS, at_a_time // rows))
        cut.append((name, Evaluation(tokens, rows, steps)))

    def read(done: int) -> Iterator[Passage]:
        every = (
            Passage(name, k == 0, window)
            for name, evaluation in cut
            for k, window in enumerate(evaluation.batches(shard))
        )
        return islice(every, done, None)

    return Batches(sum(len(evaluation) for _, evaluation in cut), read)


@torch.no_grad()
def nats_of(
    model: LanguageModel, passage: Passage, state: Any, some: int
) -> tuple[float, int, Any]:
    """The sum of −log P over a passage's targets, how many they are, and the state after them.

    Args:
        model: in evaluation mode.
        passage: what is read.
        state: that of the passage before.
        some: how many tokens become logits together.
    """
    device = model.device
    inputs, targets = passage.window
    y, state = model.read(inputs.to(device), None if passage.begins else state)
    asked = targets.flatten() != PADDING
    y, wanted = y.flatten(0, 1)[asked.to(device)], targets.flatten()[asked].to(device)
    total = 0.0
    for outputs, following in zip(y.split(some), wanted.split(some), strict=True):
        total += float(model.nats(outputs, following).sum(dtype=torch.float64))
    return total, len(wanted), detach(state)
