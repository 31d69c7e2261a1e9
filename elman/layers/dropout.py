"""Dropout in the vertical direction: on what goes from one layer to the next."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import dropout


def between_layers(y: Tensor, p: float, variational: bool, training: bool) -> Tensor:
    """Drop units of y (T, B, S) with probability p and scale the others by 1 / (1 − p).

    Plain dropout draws at every step; variational dropout draws once a sequence, so that the same
    units are missing at every step (Gal & Ghahramani, 2016).
    """
    if not training or p == 0:
        return y
    if variational:
        return y * dropout(y.new_ones(y.shape[1:]), p)
    return dropout(y, p)
