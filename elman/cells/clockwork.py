"""The clockwork network, whose units are updated at different rates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, floor, tanh, where

from elman.cells.constants import Constant
from elman.cells.contract import Cell
from elman.cells.maps import Affine
from elman.cells.sizes import positive
from elman.errors import InputError


class Clockwork(Cell):
    """Clockwork network: blocks of units with a period each (Koutník et al., 2014).

    h' = tanh(W x + U h + b) where the period divides t, else h    t' = t + 1

    Slow units feed fast ones, and not the other way round: the block of U from units of period p to
    units of period q is zero where p < q. A sequence starts at t = 0, where all are updated.

    Parameters: H·(M + H + 1), those of U that are zero included.

    Args:
        periods: the period of each block, (1, 2, 4, 8) by default; the blocks are equally wide, or
            nearly so.
    """

    state = ("h", "t")
    bookkeeping = ("t",)
    net = Affine(mask="connected")

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        periods: Sequence[int] = (1, 2, 4, 8),
        **options: Any,
    ):
        try:
            listed = list(periods) if isinstance(periods, Sequence) else []
            self.periods = tuple(sorted(positive("period", p) for p in listed))
        except InputError:
            self.periods = ()
        if not self.periods:
            raise InputError(f"periods must be a list of positive integers, received {periods!r}.")
        # A step counts t + 1/2, which is exact below 1/ε.
        most = int(1 / torch.finfo(options.get("dtype") or torch.get_default_dtype()).eps)
        if math.lcm(*self.periods) > most:
            raise InputError(
                f"periods must all divide some number of at most {most:,} steps, which this "
                f"precision can count, received {periods!r}: take small powers of two."
            )
        if isinstance(hidden_size, int) and 0 < hidden_size < len(self.periods):
            raise InputError(
                f"hidden_size must be at least {len(self.periods)}, a unit for each period, "
                f"received {hidden_size}."
            )
        super().__init__(input_size, hidden_size, **options)

    @property
    def state_sizes(self) -> tuple[int, ...]:
        """The units, and the clock."""
        return self.hidden_size, 1

    @Constant
    def period(self) -> Tensor:
        """The period of each unit (H)."""
        block = torch.arange(self.hidden_size) * len(self.periods) // self.hidden_size
        return torch.tensor([float(p) for p in self.periods])[block]

    @Constant
    def connected(self) -> Tensor:
        """1 from each unit (column) to those that are as fast or faster (H, H), else 0."""
        return (self.period >= self.period.unsqueeze(-1)).to(self.period.dtype)

    def step(self, z: Tensor, h: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        # Half a step late, because at the very step a clock is neither before it nor after it.
        late = t + 0.5
        due = late - self.period * floor(late / self.period) < 1
        # The clock starts anew when all blocks meet, so that it never grows past what it can count.
        return where(due, tanh(z), h), where(late + 1 < math.lcm(*self.periods), t + 1, 0 * t)
