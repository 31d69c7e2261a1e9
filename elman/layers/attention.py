"""Attention: what a network reads of a memory, a mean of its places weighted by a query."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from elman.cells.sizes import positive
from elman.errors import InputError
from elman.layers.sequences import mask_of

KINDS = ("additive", "dot", "general")


class Memory(NamedTuple):
    """A memory that is ready to be attended to: what does not depend on the query, computed once.

    The batch is the second last axis of all three, as it is of a state, so that one function
    repeats or reorders both.

    Attributes:
        values: (S, B, M), zero past the end of each sequence.
        keys: (S, B, H), what queries are compared with.
        mask: (S, B, 1) bool, true within each sequence.
    """

    values: Tensor
    keys: Tensor
    mask: Tensor


class Attention(nn.Module):
    """Attention of a query q over the places m_1 … m_S of a memory.

    a = softmax_s(score(q, m_s))    context = Σ_s a_s m_s

    - ``additive``: score = v · tanh(W q + U m + b) (Bahdanau et al., 2015). The ``concat`` of
      Luong et al. (2015), v · tanh(W [q; m]), is the same function.
    - ``dot``: score = q · m / √Q (Luong et al., 2015; divided as by Vaswani et al., 2017).
    - ``general``: score = q · W m / √Q (the same).

    Without the division a product of hundreds of units is so large that the softmax takes one place
    after few updates, has no gradient there, and never learns to look elsewhere.

    The sum is over the places within each sequence alone, whatever stands past its end. A memory of
    length 0 gives a context and weights of zeros::

        memory = attention.prepare(encoded, lengths)
        context, weights = attention(query, memory)

    Args:
        query_size: Q.
        memory_size: M; of ``dot``, M = Q.
        kind: ``"additive"``, ``"dot"`` or ``"general"``.
        hidden: the width of ``additive``'s tanh; Q by default.
        device, dtype: of the weights.

    Raises:
        InputError: an argument has a value that cannot be used.
    """

    def __init__(
        self,
        query_size: int,
        memory_size: int,
        kind: str = "additive",
        *,
        hidden: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        self.query_size = positive("query_size", query_size)
        self.memory_size = positive("memory_size", memory_size)
        if kind not in KINDS:
            raise InputError(
                f"the kind of attention must be one of {', '.join(KINDS)}, received {kind!r}."
            )
        if kind == "dot" and query_size != memory_size:
            raise InputError(
                f"dot attention compares a query with the memory itself: both must have one size, "
                f"received {query_size} and {memory_size}; take 'general'."
            )
        self.kind = kind
        made: dict[str, Any] = {"device": device, "dtype": dtype}
        width = query_size if hidden is None else positive("hidden", hidden)
        self.query: nn.Module = nn.Identity()
        self.key: nn.Module = nn.Identity()
        if kind == "general":
            self.key = nn.Linear(memory_size, query_size, bias=False, **made)
        elif kind == "additive":
            self.query = nn.Linear(query_size, width, **made)
            self.key = nn.Linear(memory_size, width, bias=False, **made)
            self.score = nn.Linear(width, 1, bias=False, **made)

    def prepare(self, memory: Tensor, lengths: Tensor | Sequence[int] | None = None) -> Memory:
        """What all queries share.

        Args:
            memory: (S, B, M).
            lengths: (B), from 0 to S; S by default.

        Raises:
            InputError: the shape or a length does not fit.
        """
        if memory.dim() != 3 or memory.shape[-1] != self.memory_size:
            raise InputError(
                f"the memory must have the shape (S, B, {self.memory_size}), "
                f"received {tuple(memory.shape)}."
            )
        mask = mask_of(memory, lengths).unsqueeze(-1)
        values = torch.where(mask, memory, 0)
        return Memory(values, self.key(values), mask)

    def forward(self, query: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
        """The contexts and the weights of queries.

        Args:
            query: (B, Q) of one step, or (T, B, Q) of many, which are computed together.
            memory: what :meth:`prepare` returned.

        Returns:
            ``context, weights``: (B, M) and (B, S), or (T, B, M) and (T, B, S).

        Raises:
            InputError: the shape does not fit.
        """
        batch = memory.values.shape[1]
        if query.dim() not in (2, 3) or query.shape[-2:] != (batch, self.query_size):
            raise InputError(
                f"the query must have the shape ({batch}, {self.query_size}), or "
                f"(T, {batch}, {self.query_size}) for many steps, received {tuple(query.shape)}."
            )
        if query.dim() == 2:
            context, weights = self(query.unsqueeze(0), memory)
            return context.squeeze(0), weights.squeeze(0)
        q = self.query(query)
        if self.kind == "additive":
            scores = self.score(torch.tanh(q.unsqueeze(1) + memory.keys)).squeeze(-1)  # (T, S, B)
            scores = scores.permute(2, 0, 1)
        else:
            q = q * self.query_size**-0.5
            scores = torch.bmm(q.transpose(0, 1), memory.keys.permute(1, 2, 0))
        weights = masked_softmax(scores, memory.mask.permute(1, 2, 0))  # (B, T, S)
        context = torch.bmm(weights, memory.values.transpose(0, 1))
        return context.transpose(0, 1), weights.transpose(0, 1)

    def extra_repr(self) -> str:
        """Sizes and kind, for ``repr``."""
        return f"{self.query_size}, {self.memory_size}, kind={self.kind!r}"


def masked_softmax(scores: Tensor, mask: Tensor, dim: int = -1) -> Tensor:
    """The softmax over the places where ``mask`` is true; zeros where it is nowhere."""
    # Not −∞, of which nothing but NaN would come where no place is left.
    lowest = torch.finfo(scores.dtype).min
    return scores.masked_fill(~mask, lowest).softmax(dim) * mask
