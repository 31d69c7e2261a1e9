"""Sequences and what is wanted of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Sequences and what is wanted of them.

    Attributes:
        x: (T, B, M).
        target: what the study's loss reads: (B), or (T, B, …).
        lengths: of each sequence (B); None where all are T.
    """

    x: Tensor
    target: Tensor
    lengths: Tensor | None = None

    def __len__(self) -> int:
        return self.x.shape[1]

    def rows(self, which: slice) -> Batch:
        """Some of the sequences."""
        target = self.target[which] if self.target.dim() == 1 else self.target[:, which]
        lengths = None if self.lengths is None else self.lengths[which]
        return Batch(self.x[:, which], target, lengths)

    def to(self, device: torch.device) -> Batch:
        """The same on a device; lengths are read on the CPU."""
        return Batch(self.x.to(device), self.target.to(device), self.lengths)
