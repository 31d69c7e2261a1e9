"""The simple recurrent network, and the network without recurrence beside it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from elman.cells.contract import Affine, Cell, Linear
from elman.errors import InputError

NONLINEARITIES = {"tanh": torch.tanh, "relu": torch.relu, "sigmoid": torch.sigmoid}


class _Activated(Cell):
    """What both have in common: one nonlinearity φ, chosen by name."""

    state = ("h",)
    nonlinearity: str

    def __init__(
        self, input_size: int, hidden_size: int, nonlinearity: str = "tanh", **options: Any
    ):
        if nonlinearity not in NONLINEARITIES:
            raise InputError(
                f"nonlinearity must be one of {', '.join(NONLINEARITIES)}, "
                f"received {nonlinearity!r}."
            )
        self.nonlinearity = nonlinearity
        super().__init__(input_size, hidden_size, **options)


class Elman(_Activated):
    """The simple recurrent network (Elman, 1990).

    h' = φ(W x + U h + b), with φ = tanh, relu or the logistic sigmoid.

    Args:
        nonlinearity: ``"tanh"`` (default), ``"relu"`` or ``"sigmoid"``.
    """

    net = Affine()

    def step(self, z: Tensor, h: Tensor) -> Tensor:
        """One step."""
        return NONLINEARITIES[self.nonlinearity](z)


class Perceptron(_Activated):
    """The multilayer perceptron: no memory, the baseline for every recurrence.

    h' = φ(W x + b): its one state is its output, which the next step does not read.

    Args:
        nonlinearity: ``"tanh"`` (default), ``"relu"`` or ``"sigmoid"``.
    """

    net = Linear(of="x", bias=True)

    def step(self, x: Tensor, h: Tensor) -> Tensor:
        """One step."""
        return NONLINEARITIES[self.nonlinearity](self.net(x))
