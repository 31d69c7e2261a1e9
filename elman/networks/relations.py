"""A network that tells what the entities of a sentence have to do with each other."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from typing import NamedTuple, Self, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout

Entity = TypeVar("Entity")

# log-odds; finite, for data that has it all the same
_NEVER = -20.0


class Pairs(NamedTuple):
    """P pairs of entities, each of one sentence.

    Attributes:
        sentence: (P), which of the batch.
        spans: (P, 2, 2), the first step of the head and of the tail, and that behind the last.
        kinds: (P, 2), ids of their labels.
    """

    sentence: Tensor
    spans: Tensor
    kinds: Tensor

    @classmethod
    def of(cls, entities: Sequence[Sequence[tuple[int, int, int]]]) -> Self:
        """All pairs of the entities of each sentence, as :func:`every_pair` orders them.

        Args:
            entities: for each sentence, first step, step behind the last, and id of the label.
        """
        rows = [[k, *head, *tail] for k, head, tail in every_pair(entities)]
        flat = torch.tensor(rows, dtype=torch.long).view(len(rows), 7)
        return cls(flat[:, 0], flat[:, [1, 2, 4, 5]].view(-1, 2, 2), flat[:, [3, 6]])


def every_pair(entities: Sequence[Sequence[Entity]]) -> list[tuple[int, Entity, Entity]]:
    """Which sentence, head and tail: all pairs of the entities of a sentence, both ways."""
    return [(k, *pair) for k, each in enumerate(entities) for pair in permutations(each, 2)]


class RelationNetwork(nn.Module):
    """s = W tanh(V [max y of the head, max y of the tail, max y between them, k, k', o] + b) + c.

    k and k' are embeddings of the entities' labels, o tells which comes first; where nothing
    stands between them, the maximum is 0. σ(s_r) is the probability of relation r: a pair may have
    several. A relation that is never between entities of these labels has next to none.

    Args:
        size: S, the width of y.
        between: (K, K, R) bool, whether entities of two labels may have a relation.
        hidden: the width of V.
        dropout: of what V and W read.
    """

    between: Tensor

    def __init__(self, size: int, between: Tensor, hidden: int, dropout: float = 0.0):
        super().__init__()
        kinds, _, relations = between.shape
        width, self.dropout = 10, dropout
        self.register_buffer("between", between, persistent=False)
        self.kinds = nn.Embedding(kinds, width)
        self.hidden = nn.Linear(3 * size + 2 * width + 1, hidden)
        self.output = nn.Linear(hidden, relations)

    def forward(self, y: Tensor, pairs: Pairs) -> Tensor:
        """The scores (P, R) of pairs of entities.

        Args:
            y: (T, B, S), a network's outputs.
            pairs: of the batch.
        """
        rows = y.transpose(0, 1)[pairs.sentence]  # (P, T, S)
        begins, ends = pairs.spans.unbind(-1)
        between = torch.stack([ends.amin(-1), begins.amax(-1)], -1)
        parts = [_highest(rows, *span.unbind(-1)) for span in (*pairs.spans.unbind(1), between)]
        first = (begins[:, :1] < begins[:, 1:]).to(y)
        x = torch.cat([*parts, self.kinds(pairs.kinds).flatten(1), first], -1)
        x = torch.tanh(self.hidden(dropout(x, self.dropout, self.training)))
        scores = self.output(dropout(x, self.dropout, self.training))
        return scores.masked_fill(~self.between[pairs.kinds.unbind(1)], _NEVER)


def _highest(rows: Tensor, begin: Tensor, end: Tensor) -> Tensor:
    """max over the steps from ``begin`` up to ``end``, unit by unit (P, S); 0 where none is."""
    steps = torch.arange(rows.shape[1], device=rows.device)
    inside = (steps >= begin.unsqueeze(-1)) & (steps < end.unsqueeze(-1))
    highest = rows.masked_fill(~inside.unsqueeze(-1), -torch.inf).amax(1)
    return torch.where(inside.any(1, keepdim=True), highest, 0)
