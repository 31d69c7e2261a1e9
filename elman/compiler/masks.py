"""Steps past a sequence's end: which rows they are, and what stands in for them.

A step past the end leaves the state as it is, and nothing that is computed there may reach a
result or a gradient. To select between the two states is not enough: a gradient of zero that goes
back through a step which divides by zero is NaN, and a weight's gradient is a sum over all rows.
So where such a row is computed at all, it is computed on the numbers of the longest sequence,
which is alive as long as any is: what they lead to is part of the result anyway.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from elman.compiler.affine import affine
from elman.compiler.modes import is_drawn_up
from elman.compiler.ops import VIEWS, op_of
from elman.compiler.record import Operation

aten = torch.ops.aten

MOVING = VIEWS | {affine, aten.cat.default}
"""Functions of finite numbers that are as finite as these."""


def inside(steps: int, lengths: Tensor, ahead: int = 0) -> Tensor:
    """Whether the step that is ``ahead`` of each lies within its sequence (T, B, 1)."""
    # ``steps`` from a shape: len() of what torch.jit.trace records would stay as it is.
    t = torch.arange(ahead, ahead + steps, device=lengths.device)
    return (t.unsqueeze(1) < lengths).unsqueeze(-1)


def filled(values: Tensor, lengths: Tensor) -> Tensor:
    """``values`` (T, B, …), past each sequence's end those of the longest, as constants."""
    steps = values.shape[0]
    last = lengths.max().clamp(min=1) - 1
    t = torch.arange(steps, device=values.device).minimum(last)
    longest = values.detach().index_select(1, lengths.argmax().unsqueeze(0)).index_select(0, t)
    return torch.where(inside(steps, lengths), values, longest)


def learned(weights: Mapping[str, Tensor], lengths: Tensor) -> Mapping[str, Tensor]:
    """The weights, as constants where no sequence has a step: there is nothing to stand in."""
    if not is_drawn_up() and bool(lengths.max() > 0):
        return weights
    some = lengths.max() > 0
    return {name: torch.where(some, w, w.detach()) for name, w in weights.items()}


def is_tame(operations: Iterable[Operation], x: int) -> bool:
    """Whether what ``operations`` make of the value ``x`` is finite wherever x is, as a map is.

    Then zeros can stand in the padding.
    """
    reached = {x}
    for operation in operations:
        if reached.intersection(operation.refs()):
            op = op_of(operation.function)
            if operation.function not in MOVING and not (op and op.tame):
                return False
            reached.update(operation.results)
    return True


class Living:
    """The rows of a padded batch that still run, step by step in the order of time.

    Args:
        lengths: (B), at least one.
        reverse: from the last step to the first.
    """

    def __init__(self, lengths: Tensor, reverse: bool):
        self.lengths, self.reverse = lengths, reverse
        self._longest = lengths.argmax().unsqueeze(0)
        self._last = lengths.max()
        self._all_until = 0 if is_drawn_up() else int(lengths.min())
        # What the longest sequence's last step read: a row of each state, or all their rows.
        self._held: Sequence[Tensor] | None = None

    def read(self, t: int, states: Sequence[Tensor]) -> tuple[Tensor | None, Sequence[Tensor]]:
        """Which rows have a step t (B, 1), None where all have; and the states that it reads.

        Past a sequence's end those are the longest sequence's (B, …). Past its end, too, they are
        those that its last step read: read forward the last that were given here, and in the
        reverse direction the ones that it is yet to begin with.
        """
        if t < self._all_until:
            self._held = states
            return None, states
        own = self._rows(states)
        if self._held is not None and not self.reverse:
            own = [
                torch.where(t < self._last, now, held)
                for now, held in zip(own, self._rows(self._held), strict=True)
            ]
        self._held = own
        alive = (t < self.lengths).unsqueeze(-1)
        return alive, [torch.where(alive, s, held) for s, held in zip(states, own, strict=True)]

    def _rows(self, states: Sequence[Tensor]) -> list[Tensor]:
        """The longest sequence's row (1, …) of each state, as a constant."""
        # Of one row, the first: also where it is the longest sequence's already.
        return [
            s.detach() if len(s) == 1 else s.detach().index_select(0, self._longest) for s in states
        ]
